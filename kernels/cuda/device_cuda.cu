#include "kernels/cuda/device_cuda.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/cuda/cuda_backend.cuh"

// A kernel that does nothing but run: a driver that is older than this build's code finds no image
// for it.
static __global__ void probe_kernel(void) {}

namespace qvl
{

qvl_status check(cudaError_t code, const char *what, qvl_err *err)
{
    if (code == cudaSuccess)
        return QVL_OK;
    return qvl_fail(err, QVL_EDEVICE, "GPU: %s: %s (%s)", what, cudaGetErrorString(code),
                    cudaGetErrorName(code));
}

qvl_status scratch(qvl_device *dev, void **out, size_t *used, size_t bytes, qvl_err *err)
{
    cuda_state *state = state_of(dev);
    const size_t rounded = (bytes + 255) / 256 * 256;
    if (*used + rounded > state->workspace_bytes)
        return qvl_fail(err, QVL_EINTERNAL, "cuda: scratch of %zu bytes, %zu are needed",
                        state->workspace_bytes, *used + rounded);
    *out = state->workspace + *used;
    *used += rounded;
    return QVL_OK;
}

} // namespace qvl

using namespace qvl;

// Before the first CUDA call; a value set by the user stays.
static void number_by_bus_id(void)
{
    setenv("CUDA_DEVICE_ORDER", "PCI_BUS_ID", 0);
}

extern "C" int qvl_cuda_device_count(char *first_name, size_t n_bytes)
{
    int count = 0;
    cudaDeviceProp properties;
    first_name[0] = '\0';
    number_by_bus_id();
    if (cudaGetDeviceCount(&count) != cudaSuccess || count == 0)
        return 0;
    if (cudaGetDeviceProperties(&properties, 0) != cudaSuccess)
        return 0;
    snprintf(first_name, n_bytes, "%s, sm_%d%d", properties.name, properties.major,
             properties.minor);
    return count;
}

extern "C" void qvl_cuda_why_no_device(char *text, size_t n_bytes)
{
    int count = 0, driver = 0, build = 0; // versions: 1000 major + 10 minor
    const cudaError_t code = cudaGetDeviceCount(&count);
    const char *why = code == cudaSuccess ? "no device" : cudaGetErrorString(code);
    if (cudaDriverGetVersion(&driver) != cudaSuccess || driver == 0)
        snprintf(text, n_bytes, "CUDA: no driver is installed");
    else if (cudaRuntimeGetVersion(&build) != cudaSuccess)
        snprintf(text, n_bytes, "CUDA: %s", why);
    else
        snprintf(text, n_bytes, "CUDA: %s; the driver is for CUDA %d.%d, this build needs %d.%d",
                 why, driver / 1000, driver % 1000 / 10, build / 1000, build % 1000 / 10);
}

extern "C" void qvl_cuda_device_id(char id[33], int index)
{
    cudaDeviceProp properties;
    id[0] = '\0';
    number_by_bus_id();
    if (cudaGetDeviceProperties(&properties, index) != cudaSuccess)
        return;
    for (int i = 0; i < 16; i++)
        snprintf(id + 2 * i, 3, "%02x", (unsigned)(unsigned char)properties.uuid.bytes[i]);
}

// ---- the table's small entries ------------------------------------------------------------------

static qvl_status cuda_free_bytes(qvl_device *dev, uint64_t *out, qvl_err *err)
{
    size_t free_now = 0, total = 0;
    (void)dev;
    const qvl_status rc = check(cudaMemGetInfo(&free_now, &total), "cudaMemGetInfo", err);
    *out = free_now;
    return rc;
}

static qvl_status cuda_workspace_bytes(qvl_device *dev, size_t *out,
                                       const qvl_workspace_limits *limits, qvl_err *err)
{
    const size_t needs[] = {qvl_cuda_linear_scratch(dev, limits),
                            qvl_cuda_attention_scratch(dev, limits),
                            qvl_cuda_head_loss_scratch(dev, limits)};
    size_t most = 0;
    (void)err;
    for (size_t i = 0; i < sizeof needs / sizeof *needs; i++)
        most = needs[i] > most ? needs[i] : most;
    *out = (most + 255) / 256 * 256;
    return QVL_OK;
}

static qvl_status cuda_bind_workspace(qvl_device *dev, void *workspace, size_t bytes, qvl_err *err)
{
    cuda_state *state = state_of(dev);
    (void)err;
    state->workspace = (char *)workspace;
    state->workspace_bytes = bytes;
    return QVL_OK;
}

static qvl_status cuda_order(qvl_device *dev, qvl_lane after, qvl_lane before, qvl_err *err)
{
    cuda_state *state = state_of(dev);
    cudaError_t code = cudaEventRecord(state->events[before], state->streams[before]);
    if (code == cudaSuccess)
        code = cudaStreamWaitEvent(state->streams[after], state->events[before], 0);
    return check(code, "ordering lanes", err);
}

static qvl_status cuda_mark(qvl_device *dev, int slot, qvl_err *err)
{
    cudaEvent_t *event = &state_of(dev)->marks[slot];
    cudaError_t code = *event ? cudaSuccess : cudaEventCreate(event);
    if (code == cudaSuccess)
        code = cudaEventRecord(*event, compute_of(dev));
    return check(code, "marking time", err);
}

static qvl_status cuda_between(qvl_device *dev, double *out_ms, int from, int to, qvl_err *err)
{
    cudaEvent_t *marks = state_of(dev)->marks;
    float ms = 0.0f;
    const qvl_status rc =
        check(cudaEventElapsedTime(&ms, marks[from], marks[to]), "measuring time", err);
    *out_ms = ms;
    return rc;
}

static void *cuda_stream(qvl_device *dev, qvl_lane lane)
{
    return (void *)state_of(dev)->streams[lane];
}

// ---- opening and closing ------------------------------------------------------------------------

static void cuda_destroy(qvl_device *dev)
{
    cuda_state *state = state_of(dev);
    if (state) {
        qvl_cuda_staging_fini(dev);
        gemm_cache_destroy(state->gemms);
        if (state->blas)
            cublasLtDestroy(state->blas);
        for (int lane = 0; lane < QVL_N_LANES; lane++) {
            if (state->events[lane])
                cudaEventDestroy(state->events[lane]);
            if (state->streams[lane])
                cudaStreamDestroy(state->streams[lane]);
        }
        for (int i = 0; i < QVL_MARKS && state->marks[i]; i++)
            cudaEventDestroy(state->marks[i]);
        for (int i = 0; i < 2; i++)
            if (state->timing[i])
                cudaEventDestroy(state->timing[i]);
        cudaFree(state->partial_sums);
        cudaFree(state->gemm_workspace);
        cudaFree(state->counters);
        free(state);
    }
    free(dev);
}

static const qvl_ops CUDA_OPS = {
    "cuda",
    cuda_destroy,
    qvl_cuda_alloc,
    qvl_cuda_release,
    cuda_free_bytes,
    cuda_workspace_bytes,
    cuda_bind_workspace,
    qvl_cuda_upload,
    qvl_cuda_download,
    qvl_cuda_copy,
    qvl_cuda_zero,
    cuda_order,
    qvl_cuda_wait,
    cuda_mark,
    cuda_between,
    cuda_stream,
    qvl_cuda_load_rows,
    qvl_cuda_fetch,
    qvl_cuda_embed,
    qvl_cuda_move_rows,
    qvl_cuda_norm,
    qvl_cuda_norm_backward,
    qvl_cuda_linear,
    qvl_cuda_linear_backward,
    qvl_cuda_rope_table,
    qvl_cuda_rotate,
    qvl_cuda_attention,
    qvl_cuda_attention_backward,
    qvl_cuda_swiglu,
    qvl_cuda_swiglu_backward,
    qvl_cuda_mlp,
    qvl_cuda_mlp_backward,
    qvl_cuda_gelu,
    qvl_cuda_patches,
    qvl_cuda_head_loss,
    qvl_cuda_sum_squares,
    qvl_cuda_adamw,
    qvl_cuda_fold,
};

static cudaError_t open_state(cuda_state *state)
{
    cudaError_t code = cudaSuccess;
    int least = 0, greatest = 0;
    pthread_mutex_init(&state->pool.mutex, NULL);
    pthread_cond_init(&state->pool.is_free, NULL);
    code = cudaDeviceGetStreamPriorityRange(&least, &greatest);
    for (int lane = 0; lane < QVL_N_LANES && code == cudaSuccess; lane++) {
        // transfers and sums are short and others wait for them
        code = cudaStreamCreateWithPriority(&state->streams[lane], cudaStreamNonBlocking,
                                            lane == QVL_LANE_COMPUTE ? least : greatest);
        if (code == cudaSuccess)
            code = cudaEventCreateWithFlags(&state->events[lane], cudaEventDisableTiming);
    }
    for (int i = 0; i < 2 && code == cudaSuccess; i++)
        code = cudaEventCreate(&state->timing[i]);
    if (code == cudaSuccess)
        code = cudaMalloc(&state->partial_sums, PARTIAL_SUMS * sizeof(double));
    if (code == cudaSuccess)
        code = cudaMalloc(&state->gemm_workspace, GEMM_WORKSPACE_BYTES);
    if (code == cudaSuccess)
        code = cudaMalloc(&state->counters, LORA_COUNTERS * sizeof(unsigned));
    if (code == cudaSuccess)
        code = cudaMemsetAsync(state->counters, 0, LORA_COUNTERS * sizeof(unsigned),
                               state->streams[QVL_LANE_COMPUTE]);
    return code == cudaSuccess ? preload_optimizer() : code;
}

static bool is_launched_early; // of this process' GPU

bool qvl::can_launch_early(void)
{
    return is_launched_early;
}

// The GPU answers, and runs code of this build.
static qvl_status probe(int index, cudaDeviceProp *properties, qvl_err *err)
{
    cudaFuncAttributes code;
    qvl_status rc = QVL_OK;
    number_by_bus_id();
    QVL_TRY(check(cudaGetDeviceProperties(properties, index), "cudaGetDeviceProperties", err));
    if (properties->major < 8) {
        rc = qvl_fail(err, QVL_EDEVICE, "GPU %d: %s has compute capability %d.%d, 8.0 is needed",
                      index, properties->name, properties->major, properties->minor);
        goto out;
    }
    QVL_TRY(check(cudaSetDevice(index), "cudaSetDevice", err));
    probe_kernel<<<1, 1>>>();
    QVL_TRY(check(cudaGetLastError(), "first kernel", err));
    QVL_TRY(check(cudaDeviceSynchronize(), "first kernel", err));
    // code made for an older architecture would not wait for the kernel ahead, see follow()
    QVL_TRY(check(cudaFuncGetAttributes(&code, probe_kernel), "first kernel", err));
    is_launched_early = properties->major >= 9 && code.ptxVersion >= 90;
out:
    return rc;
}

extern "C" qvl_status qvl_device_open_cuda(qvl_device **out, int index, qvl_dtype dtype,
                                           qvl_err *err)
{
    cudaDeviceProp properties;
    qvl_device *dev = NULL;
    cuda_state *state = NULL;
    qvl_status rc = probe(index, &properties, err);
    if (rc != QVL_OK)
        return rc;
    dev = (qvl_device *)calloc(1, sizeof *dev);
    state = (cuda_state *)calloc(1, sizeof *state);
    if (!dev || !state) {
        free(dev);
        free(state);
        return qvl_fail_memory(err, sizeof *dev + sizeof *state, "device");
    }
    dev->ops = &CUDA_OPS;
    dev->dtype = dtype;
    dev->act_bytes = qvl_dtype_bytes(dtype);
    dev->width_align = 8;
    // 128 bytes: rows stay aligned to what memory is read in
    dev->tail_align = dtype == QVL_BF16 ? 64 : 0;
    dev->swiglu_rank = dtype == QVL_BF16 ? SWIGLU_RANK : 0;
    dev->own_bytes =
        PARTIAL_SUMS * sizeof(double) + LORA_COUNTERS * sizeof(unsigned) + GEMM_WORKSPACE_BYTES;
    dev->index = index;
    dev->state = state;
    state->n_sms = properties.multiProcessorCount;
    snprintf(dev->name, sizeof dev->name, "%.80s, sm_%d%d, %04x:%02x:%02x", properties.name,
             properties.major, properties.minor, (unsigned)properties.pciDomainID,
             (unsigned)properties.pciBusID, (unsigned)properties.pciDeviceID);
    QVL_TRY(check(open_state(state), "opening", err));
    if (cublasLtCreate(&state->blas) != CUBLAS_STATUS_SUCCESS) {
        rc = qvl_fail(err, QVL_EDEVICE, "GPU %d: cuBLASLt cannot be opened", index);
        goto out;
    }
    QVL_TRY(gemm_cache_create(&state->gemms, err));
    *out = dev;
    return QVL_OK;
out:
    cuda_destroy(dev);
    return rc;
}
