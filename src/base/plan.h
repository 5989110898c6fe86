/* Memory is planned, allocated once, then bound.
 *
 * A plan is a list of named slots; adding one only counts. The arena is one allocation of the
 * plan's size; binding takes pointers into it. The same plan prints the memory report, so what is
 * printed is what is used.
 *
 *     slot 0        guard   slot 1      guard  ...      every slot starts at a multiple of 256
 * bytes
 *     |#########----|ggggg|#######------|ggggg|         guards only with QVL_ARENA_GUARDS
 */
#ifndef QVL_SRC_BASE_PLAN_H
#define QVL_SRC_BASE_PLAN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "src/base/status.h"

#ifdef __cplusplus
extern "C" {
#endif

#define QVL_PLAN_ALIGN_BYTES 256
#define QVL_PLAN_GUARD_BYTES 256
#define QVL_PLAN_GUARD_VALUE 0xA5

typedef struct qvl_slot {
    char name[56];
    size_t offset; /* in the arena */
    size_t bytes;  /* asked for */
} qvl_slot;

/* Start with {0}; qvl_plan_fini frees it. */
typedef struct qvl_plan {
    qvl_slot *slots;
    size_t n_slots, capacity;
    size_t total_bytes; /* of the arena, alignment and guards included */
} qvl_plan;

void qvl_plan_fini(qvl_plan *plan);

/* Adds count * element_bytes under this name; *out_slot is its number. QVL_EINTERNAL on overflow.
 */
qvl_status qvl_plan_add(qvl_plan *plan, int *out_slot, const char *name, int64_t count,
                        size_t element_bytes, qvl_err *err);

/* Pointer of a slot in the allocation at base (which has plan->total_bytes). */
void *qvl_plan_at(const qvl_plan *plan, void *base, int slot);

/* Bytes of the guard behind every slot; 0 without QVL_ARENA_GUARDS. */
size_t qvl_plan_guard_bytes(void);

/* Fills the guards of host memory, and checks them: QVL_EINTERNAL names the slot that was overrun.
 * Both do nothing without QVL_ARENA_GUARDS. */
void qvl_plan_set_guards(const qvl_plan *plan, void *base);
qvl_status qvl_plan_check_guards(const qvl_plan *plan, const void *base, qvl_err *err);

#ifdef __cplusplus
}
#endif
#endif
