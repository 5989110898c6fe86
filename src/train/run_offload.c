/* Whether activations are offloaded to host memory, and how much of it that takes. */
#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "src/base/host_memory.h"
#include "src/base/memory.h"
#include "src/train/run.h"

/* Host memory that is taken at most: a part of what is free, of all ranks of the host together. */
static const double HOST_SHARE = 0.5;
/* Fewer layers than every fourth are not worth the memory. */
enum { LEAST_STRIDE = 2, MOST_STRIDE = 4 };
/* A copy may take this much longer than the products of the layers beside it: a forward pass has
 * more than those, and they slow down on a chip that is hot. */
static const double COPY_SLACK = 1.5;
static const size_t TIMED_BYTES = (size_t)64 << 20;

/* Pinned memory, or NULL: memory that is not there is no error, nothing is offloaded then. */
static void *take_host(qvl_run *run, size_t bytes)
{
    qvl_err no_room = {QVL_OK, ""};
    void *host = NULL;
    if (run->dev->ops->alloc(run->dev, &host, bytes, QVL_MEM_HOST, "offloaded activations",
                             &no_room) == QVL_OK)
        return host;
    qvl_log_line(run->log, "activation offloading: none: %s", no_room.text);
    return NULL;
}

/* Of every how many layers one can leave, given the time of a layer and of a copy; 0: copies are
 * too slow. All ranks of a host measure together, as they will copy together. */
static qvl_status choose_stride(qvl_run *run, int64_t *out, qvl_err *err)
{
    qvl_offload_times times = {0};
    void *host = take_host(run, TIMED_BYTES);
    qvl_status rc = QVL_OK;
    *out = 0;
    if (!host)
        return QVL_OK;
    QVL_TRY(qvl_decoder_time_offload(run->decoder, &times, host, TIMED_BYTES, err));
    *out = (int64_t)ceil(times.copy_ms / (COPY_SLACK * times.layer_ms));
    *out = *out < LEAST_STRIDE ? LEAST_STRIDE : *out <= MOST_STRIDE ? *out : 0;
    qvl_log_line(run->log,
                 "activation offloading: to host memory in %.2f ms, a layer's products take %.2f "
                 "ms: %s",
                 times.copy_ms, times.layer_ms,
                 *out == 2   ? "every second layer"
                 : *out == 3 ? "every third layer"
                 : *out      ? "every fourth layer"
                             : "none, that is too slow");
out:
    run->dev->ops->release(run->dev, host, QVL_MEM_HOST);
    return rc;
}

static qvl_status take_memory(qvl_run *run, int64_t stride, qvl_err *err)
{
    const double ranks = qvl_world_local_size(run->world);
    uint64_t free_bytes = 0;
    char text[32];
    qvl_status rc = qvl_host_free_bytes(&free_bytes, err);
    QVL_TRY(rc);
    const size_t most = (size_t)(HOST_SHARE * (double)free_bytes / ranks);
    size_t bytes = qvl_decoder_offload_bytes(run->decoder, stride);
    bytes = bytes < most ? bytes : most;
    if (bytes == 0)
        return QVL_OK;
    run->offload_memory = take_host(run, bytes);
    if (!run->offload_memory)
        return QVL_OK;
    qvl_decoder_set_offload(
        run->decoder,
        &(qvl_decoder_offload){.host = run->offload_memory, .bytes = bytes, .stride = stride});
    qvl_log_line(run->log, "activation offloading: %s of host memory a rank",
                 qvl_format_bytes(text, bytes));
out:
    return rc;
}

qvl_status qvl_run_set_offload(qvl_run *run, qvl_err *err)
{
    const char *how = run->config->activation_offloading;
    const bool is_auto = strcmp(how, "auto") == 0;
    int64_t stride = LEAST_STRIDE;
    qvl_status rc = QVL_OK;
    if (strcmp(how, "false") == 0 || qvl_decoder_offload_bytes(run->decoder, LEAST_STRIDE) == 0 ||
        (is_auto && strcmp(run->dev->ops->name, "cpu") == 0))
        return QVL_OK;
    if (is_auto)
        QVL_TRY(choose_stride(run, &stride, err));
    if (stride)
        QVL_TRY(take_memory(run, stride, err));
out:
    return rc;
}

void qvl_run_release_offload(qvl_run *run)
{
    qvl_err unsaid = {QVL_OK, ""};
    if (!run->offload_memory)
        return;
    run->dev->ops->wait(run->dev, QVL_LANE_COPY, &unsaid); /* copies that nobody waited for */
    run->dev->ops->release(run->dev, run->offload_memory, QVL_MEM_HOST);
    run->offload_memory = NULL;
}
