#include "src/base/plan.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "src/base/memory.h"

#ifdef QVL_ARENA_GUARDS
enum { GUARD_BYTES = QVL_PLAN_GUARD_BYTES };
#else
enum { GUARD_BYTES = 0 };
#endif

void qvl_plan_fini(qvl_plan *plan)
{
    free(plan->slots);
    *plan = (qvl_plan){0};
}

qvl_status qvl_plan_add(qvl_plan *plan, int *out_slot, const char *name, int64_t count,
                        size_t element_bytes, qvl_err *err)
{
    size_t bytes = 0, padded = 0, total = 0;
    if (count < 0 || qvl_mul_overflows(&bytes, (size_t)count, element_bytes) ||
        qvl_add_overflows(&padded, bytes, QVL_PLAN_ALIGN_BYTES - 1) ||
        qvl_add_overflows(&total, plan->total_bytes,
                          padded / QVL_PLAN_ALIGN_BYTES * QVL_PLAN_ALIGN_BYTES + GUARD_BYTES))
        return qvl_fail(err, QVL_EINTERNAL, "memory plan: %s of %lld elements overflows", name,
                        (long long)count);
    const qvl_status rc = qvl_reserve(&plan->slots, &plan->capacity, plan->n_slots + 1,
                                      sizeof *plan->slots, "memory plan", err);
    if (rc != QVL_OK)
        return rc;
    qvl_slot *slot = &plan->slots[plan->n_slots];
    *slot = (qvl_slot){.offset = plan->total_bytes, .bytes = bytes};
    snprintf(slot->name, sizeof slot->name, "%s", name);
    plan->total_bytes = total;
    *out_slot = (int)plan->n_slots++;
    return QVL_OK;
}

void *qvl_plan_at(const qvl_plan *plan, void *base, int slot)
{
    return (char *)base + plan->slots[slot].offset;
}

size_t qvl_plan_guard_bytes(void)
{
    return GUARD_BYTES;
}

void qvl_plan_set_guards(const qvl_plan *plan, void *base)
{
    for (size_t i = 0; GUARD_BYTES && i < plan->n_slots; i++)
        memset((char *)base + plan->slots[i].offset + plan->slots[i].bytes, QVL_PLAN_GUARD_VALUE,
               GUARD_BYTES);
}

qvl_status qvl_plan_check_guards(const qvl_plan *plan, const void *base, qvl_err *err)
{
    for (size_t i = 0; GUARD_BYTES && i < plan->n_slots; i++) {
        const qvl_slot *slot = &plan->slots[i];
        const unsigned char *guard = (const unsigned char *)base + slot->offset + slot->bytes;
        for (int k = 0; k < GUARD_BYTES; k++)
            if (guard[k] != QVL_PLAN_GUARD_VALUE)
                return qvl_fail(err, QVL_EINTERNAL,
                                "memory slot %s of %zu bytes was overrun at byte +%d", slot->name,
                                slot->bytes, k);
    }
    return QVL_OK;
}
