/* All ranks have the same adapters: they start the same and get the same sums, so anything else is
 * a fault of memory, of a link, or of ours, and what follows would be worth nothing. */
#include <inttypes.h>
#include <stdlib.h>

#include "src/base/checksum.h"
#include "src/base/memory.h"
#include "src/train/run.h"

qvl_status qvl_run_compare_ranks(qvl_run *run, qvl_err *err)
{
    const size_t bytes = (size_t)qvl_lora_parameters(run->lora) * sizeof(float);
    const qvl_ops *ops = run->dev->ops;
    const int n_ranks = qvl_world_size(run->world);
    uint64_t mine = 0, *all = NULL;
    qvl_status rc = QVL_OK;
    if (n_ranks == 1)
        return QVL_OK;
    rc = qvl_alloc(&all, (size_t)n_ranks, sizeof *all, "checksums", err);
    if (rc == QVL_OK)
        rc = ops->download(run->dev, run->state.param, run->buffers.param, bytes, QVL_LANE_COMPUTE,
                           err);
    if (rc == QVL_OK)
        rc = ops->wait(run->dev, QVL_LANE_COMPUTE, err);
    QVL_TRY(qvl_world_agree(run->world, rc, err));
    mine = qvl_checksum(run->state.param, bytes);
    QVL_TRY(qvl_world_all_gather(run->world, all, &mine, sizeof mine, err));
    for (int r = 1; r < n_ranks && rc == QVL_OK; r++)
        if (all[r] != all[0])
            rc = qvl_fail(
                err, QVL_EDEVICE,
                "after step %" PRId64 " ranks 0 and %d have different adapters (checksums "
                "%016" PRIx64 " and %016" PRIx64
                "): memory or a link is at fault; go on from an older checkpoint, on other "
                "hardware",
                run->state.step, r, all[0], all[r]);
    rc = qvl_world_agree(run->world, rc, err);
out:
    free(all);
    return rc;
}
