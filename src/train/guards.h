/* Guards of arenas on any device: bytes behind every slot of a plan that nothing may write. They
 * exist in builds with QVL_ARENA_GUARDS only; elsewhere these do nothing. */
#ifndef QVL_SRC_TRAIN_GUARDS_H
#define QVL_SRC_TRAIN_GUARDS_H

#include "kernels/ops.h"
#include "src/base/plan.h"

#ifdef __cplusplus
extern "C" {
#endif

/* base: the device's arena of the plan's size. */
qvl_status qvl_guards_set(const qvl_plan *plan, qvl_device *dev, void *base, qvl_err *err);
/* Waits. QVL_EINTERNAL names the slot that was overrun. */
qvl_status qvl_guards_check(const qvl_plan *plan, qvl_device *dev, void *base, qvl_err *err);

#ifdef __cplusplus
}
#endif
#endif
