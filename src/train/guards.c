#include "src/train/guards.h"

#include <string.h>

static char *guard_of(const qvl_slot *slot, void *base)
{
    return (char *)base + slot->offset + slot->bytes;
}

qvl_status qvl_guards_set(const qvl_plan *plan, qvl_device *dev, void *base, qvl_err *err)
{
    unsigned char bytes[QVL_PLAN_GUARD_BYTES];
    const size_t n = qvl_plan_guard_bytes();
    qvl_status rc = QVL_OK;
    memset(bytes, QVL_PLAN_GUARD_VALUE, sizeof bytes);
    for (size_t i = 0; n && i < plan->n_slots; i++)
        QVL_TRY(dev->ops->upload(dev, guard_of(&plan->slots[i], base), bytes, n, QVL_LANE_COMPUTE,
                                 err));
    if (n)
        rc = dev->ops->wait(dev, QVL_LANE_COMPUTE, err);
out:
    return rc;
}

qvl_status qvl_guards_check(const qvl_plan *plan, qvl_device *dev, void *base, qvl_err *err)
{
    unsigned char bytes[QVL_PLAN_GUARD_BYTES];
    const size_t n = qvl_plan_guard_bytes();
    qvl_status rc = QVL_OK;
    for (size_t i = 0; n && i < plan->n_slots; i++) {
        QVL_TRY(dev->ops->download(dev, bytes, guard_of(&plan->slots[i], base), n, QVL_LANE_COMPUTE,
                                   err));
        QVL_TRY(dev->ops->wait(dev, QVL_LANE_COMPUTE, err));
        for (size_t k = 0; k < n; k++)
            if (bytes[k] != QVL_PLAN_GUARD_VALUE)
                return qvl_fail(err, QVL_EINTERNAL,
                                "memory slot %s of %zu bytes was overrun at byte +%zu",
                                plan->slots[i].name, plan->slots[i].bytes, k);
    }
out:
    return rc;
}
