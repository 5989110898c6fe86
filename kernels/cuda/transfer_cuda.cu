// Memory, transfers, waiting.
#include "kernels/cuda/cuda_backend.cuh"

#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "src/base/clock.h"

using namespace qvl;

// NaN in both types. Waited for: our streams do not wait for the one that it runs on.
static cudaError_t poison(void *memory, size_t bytes)
{
    const cudaError_t code = cudaMemset(memory, 0xff, bytes);
    return code == cudaSuccess ? cudaDeviceSynchronize() : code;
}

qvl_status qvl_cuda_alloc(qvl_device *dev, void **out, size_t bytes, qvl_mem kind, const char *what,
                          qvl_err *err)
{
    const size_t asked = bytes ? bytes : 256;
    (void)dev;
    const cudaError_t code = kind == QVL_MEM_DEVICE
                                 ? cudaMalloc(out, asked)
                                 : cudaHostAlloc(out, asked, cudaHostAllocPortable);
    if (code == cudaErrorMemoryAllocation) {
        cudaGetLastError(); // not one of those that stay
        return qvl_fail(err, QVL_EDEVICE, "out of %s memory: %zu bytes for %s",
                        kind == QVL_MEM_DEVICE ? "GPU" : "pinned host", asked, what);
    }
    if (code == cudaSuccess && kind == QVL_MEM_DEVICE && getenv("QVL_POISON"))
        return check(poison(*out, asked), what, err);
    return check(code, what, err);
}

void qvl_cuda_release(qvl_device *dev, void *pointer, qvl_mem kind)
{
    (void)dev;
    if (kind == QVL_MEM_DEVICE)
        cudaFree(pointer);
    else
        cudaFreeHost(pointer);
}

static bool is_pageable(const void *host)
{
    cudaPointerAttributes about;
    const cudaError_t code = cudaPointerGetAttributes(&about, host);
    if (code != cudaSuccess)
        cudaGetLastError(); // answered, not one of those that stay
    return code != cudaSuccess || about.type == cudaMemoryTypeUnregistered;
}

// A copy to pageable memory returns when the stream is empty, and the driver waits for that without
// end: so we wait first, asking whether the others are still there.
qvl_status qvl_cuda_download(qvl_device *dev, void *dst, const void *src, size_t bytes,
                             qvl_lane lane, qvl_err *err)
{
    if (bytes == 0)
        return QVL_OK;
    if (is_pageable(dst)) {
        const qvl_status rc = qvl_cuda_wait(dev, lane, err);
        if (rc != QVL_OK)
            return rc;
    }
    return check(
        cudaMemcpyAsync(dst, src, bytes, cudaMemcpyDeviceToHost, state_of(dev)->streams[lane]),
        "download", err);
}

qvl_status qvl_cuda_copy(qvl_device *dev, void *dst, const void *src, size_t bytes, qvl_err *err)
{
    if (bytes == 0)
        return QVL_OK;
    return check(cudaMemcpyAsync(dst, src, bytes, cudaMemcpyDeviceToDevice, compute_of(dev)),
                 "copy", err);
}

qvl_status qvl_cuda_zero(qvl_device *dev, void *dst, size_t bytes, qvl_err *err)
{
    if (bytes == 0)
        return QVL_OK;
    return check(cudaMemsetAsync(dst, 0, bytes, compute_of(dev)), "zero", err);
}

// Asks instead of sleeping in the driver, so that others who wait with us (a communicator whose
// peer is gone) get their turn. The first milliseconds are asked in quick succession: steps are
// short.
qvl_status qvl_cuda_wait(qvl_device *dev, qvl_lane lane, qvl_err *err)
{
    qvl_waiting waiting = qvl_waiting_begin();
    for (;;) {
        const cudaError_t code = cudaStreamQuery(state_of(dev)->streams[lane]);
        if (code != cudaErrorNotReady)
            return check(code, "waiting for queued work", err);
        const double waited = qvl_waiting_s(&waiting);
        if (dev->poll && waited > 0.001) {
            const qvl_status rc = dev->poll(dev->poll_context, waited, err);
            if (rc != QVL_OK)
                return rc;
        }
        if (waited < 0.2) {
            sched_yield();
        } else {
            const struct timespec pause = {0, 100000};
            nanosleep(&pause, NULL);
        }
    }
}

// ---- staging ------------------------------------------------------------------------------------

// A free buffer whose last copy has left it, in turn.
static qvl_status take_buffer(qvl_device *dev, int *out, qvl_err *err)
{
    staging *pool = &state_of(dev)->pool;
    qvl_status rc = QVL_OK;
    int i = 0;
    pthread_mutex_lock(&pool->mutex);
    for (int tried = 0; pool->is_taken[i = (pool->next + tried) % STAGING_BUFFERS];)
        if (++tried == STAGING_BUFFERS) {
            pthread_cond_wait(&pool->is_free, &pool->mutex);
            tried = 0;
        }
    pool->next = (i + 1) % STAGING_BUFFERS;
    pool->is_taken[i] = true;
    if (!pool->buffers[i]) {
        rc = check(cudaHostAlloc(&pool->buffers[i], STAGING_BYTES, cudaHostAllocPortable),
                   "pinned memory for transfers", err);
        if (rc == QVL_OK)
            rc = check(cudaEventCreateWithFlags(&pool->left[i], cudaEventDisableTiming),
                       "pinned memory for transfers", err);
    }
    pthread_mutex_unlock(&pool->mutex);
    if (rc == QVL_OK)
        rc = check(cudaEventSynchronize(pool->left[i]), "transfers", err);
    *out = i;
    return rc;
}

static void give_buffer(qvl_device *dev, int i)
{
    staging *pool = &state_of(dev)->pool;
    pthread_mutex_lock(&pool->mutex);
    pool->is_taken[i] = false;
    pthread_cond_broadcast(&pool->is_free);
    pthread_mutex_unlock(&pool->mutex);
}

// ---- uploads ------------------------------------------------------------------------------------

// The open piece's copies are all queued: it is free again once they have run.
static qvl_status close_piece(qvl_device *dev, qvl_err *err)
{
    upload_piece *piece = &state_of(dev)->uploads;
    const qvl_status rc = check(
        cudaEventRecord(state_of(dev)->pool.left[piece->buffer], compute_of(dev)), "upload", err);
    piece->is_open = false;
    give_buffer(dev, piece->buffer);
    return rc;
}

// The open piece, with room for at least a byte; for all of them where a whole piece has room.
static qvl_status open_piece(qvl_device *dev, size_t bytes, qvl_err *err)
{
    upload_piece *piece = &state_of(dev)->uploads;
    qvl_status rc = QVL_OK;
    if (piece->is_open && STAGING_BYTES - piece->used < (bytes < STAGING_BYTES ? bytes : 1))
        rc = close_piece(dev, err);
    if (rc != QVL_OK || piece->is_open)
        return rc;
    rc = take_buffer(dev, &piece->buffer, err);
    piece->is_open = rc == QVL_OK;
    piece->used = 0;
    if (rc != QVL_OK)
        give_buffer(dev, piece->buffer);
    return rc;
}

// Pageable memory may be written to again when this returns. CUDA itself promises that only where
// the GPU cannot read such memory.
static qvl_status upload_in_pieces(qvl_device *dev, char *dst, const char *src, size_t bytes,
                                   qvl_err *err)
{
    upload_piece *piece = &state_of(dev)->uploads;
    for (size_t done = 0; done < bytes;) {
        qvl_status rc = open_piece(dev, bytes - done, err);
        if (rc != QVL_OK)
            return rc;
        const size_t room = STAGING_BYTES - piece->used;
        const size_t n = bytes - done < room ? bytes - done : room;
        char *from = (char *)state_of(dev)->pool.buffers[piece->buffer] + piece->used;
        memcpy(from, src + done, n);
        rc = check(cudaMemcpyAsync(dst + done, from, n, cudaMemcpyHostToDevice, compute_of(dev)),
                   "upload", err);
        if (rc != QVL_OK)
            return rc;
        piece->used += (n + 63) / 64 * 64; // whole lines; STAGING_BYTES are some
        done += n;
    }
    return QVL_OK;
}

qvl_status qvl_cuda_upload(qvl_device *dev, void *dst, const void *src, size_t bytes, qvl_lane lane,
                           qvl_err *err)
{
    if (bytes == 0)
        return QVL_OK;
    if (lane == QVL_LANE_COMPUTE && is_pageable(src))
        return upload_in_pieces(dev, (char *)dst, (const char *)src, bytes, err);
    return check(
        cudaMemcpyAsync(dst, src, bytes, cudaMemcpyHostToDevice, state_of(dev)->streams[lane]),
        "upload", err);
}

// ---- weights ------------------------------------------------------------------------------------

void qvl_cuda_staging_fini(qvl_device *dev)
{
    staging *pool = &state_of(dev)->pool;
    for (int i = 0; i < STAGING_BUFFERS; i++) {
        if (pool->left[i])
            cudaEventDestroy(pool->left[i]);
        cudaFreeHost(pool->buffers[i]);
    }
    pthread_cond_destroy(&pool->is_free);
    pthread_mutex_destroy(&pool->mutex);
}

static float read_element(const char *from, qvl_dtype type)
{
    float value;
    uint16_t bits;
    if (type == QVL_F32) {
        memcpy(&value, from, sizeof value);
        return value;
    }
    memcpy(&bits, from, sizeof bits);
    return type == QVL_BF16 ? qvl_float_from_bf16(bits) : qvl_float_from_f16(bits);
}

// n elements of a file into the device's type; tensors in a file need not be aligned.
static void convert(void *to, qvl_dtype to_type, const char *from, qvl_dtype type, int64_t n)
{
    const size_t bytes = qvl_dtype_bytes(type);
    if (to_type == type) {
        memcpy(to, from, (size_t)n * bytes);
        return;
    }
    for (int64_t i = 0; i < n; i++) {
        const float value = read_element(from + (size_t)i * bytes, type);
        if (to_type == QVL_F32)
            ((float *)to)[i] = value;
        else
            ((uint16_t *)to)[i] = qvl_bf16_from_float(value);
    }
}

// Rows that fit in a buffer, on their way when this returns.
static qvl_status load_piece(qvl_device *dev, char *dst, size_t dst_pitch, const char *src,
                             qvl_dtype src_dtype, int64_t rows, int64_t cols, qvl_err *err)
{
    cudaStream_t stream = state_of(dev)->streams[QVL_LANE_COPY];
    const size_t row_bytes = (size_t)cols * dev->act_bytes;
    staging *pool = &state_of(dev)->pool;
    int i = 0;
    qvl_status rc = take_buffer(dev, &i, err);
    if (rc == QVL_OK) {
        convert(pool->buffers[i], dev->dtype, src, src_dtype, rows * cols);
        cudaError_t code =
            dst_pitch == row_bytes
                ? cudaMemcpyAsync(dst, pool->buffers[i], row_bytes * (size_t)rows,
                                  cudaMemcpyHostToDevice, stream)
                : cudaMemcpy2DAsync(dst, dst_pitch, pool->buffers[i], row_bytes, row_bytes,
                                    (size_t)rows, cudaMemcpyHostToDevice, stream);
        if (code == cudaSuccess && dst_pitch > row_bytes)
            code = cudaMemset2DAsync(dst + row_bytes, dst_pitch, 0, dst_pitch - row_bytes,
                                     (size_t)rows, stream);
        if (code == cudaSuccess)
            code = cudaEventRecord(pool->left[i], stream);
        rc = check(code, "loading", err);
    }
    give_buffer(dev, i);
    return rc;
}

qvl_status qvl_cuda_load_rows(qvl_device *dev, void *dst, int64_t dst_stride, const void *src_host,
                              qvl_dtype src_dtype, int64_t rows, int64_t cols, qvl_err *err)
{
    const size_t row_bytes = (size_t)cols * dev->act_bytes;
    const size_t pitch = (size_t)dst_stride * dev->act_bytes;
    qvl_status rc = QVL_OK;
    if (dst_stride < cols || row_bytes > STAGING_BYTES)
        return qvl_fail(err, QVL_EINTERNAL,
                        "load_rows: rows of %lld columns, %lld apart; at most %zu bytes",
                        (long long)cols, (long long)dst_stride, STAGING_BYTES);
    if (rows == 0 || cols == 0)
        return QVL_OK;
    QVL_TRY(check(cudaSetDevice(dev->index), "loading", err)); // a thread starts on GPU 0
    {
        const int64_t step = (int64_t)(STAGING_BYTES / row_bytes);
        for (int64_t first = 0; first < rows; first += step) {
            const int64_t n = rows - first < step ? rows - first : step;
            QVL_TRY(load_piece(dev, (char *)dst + (size_t)first * pitch, pitch,
                               (const char *)src_host +
                                   (size_t)(first * cols) * qvl_dtype_bytes(src_dtype),
                               src_dtype, n, cols, err));
        }
    }
out:
    return rc;
}

qvl_status qvl_cuda_fetch(qvl_device *dev, float *dst_host, const void *src, int64_t n,
                          qvl_err *err)
{
    const int64_t step = (int64_t)(STAGING_BYTES / dev->act_bytes);
    staging *pool = &state_of(dev)->pool;
    qvl_status rc = QVL_OK;
    for (int64_t first = 0; first < n && rc == QVL_OK; first += step) {
        const int64_t count = n - first < step ? n - first : step;
        int i = 0;
        rc = take_buffer(dev, &i, err);
        if (rc == QVL_OK)
            rc = qvl_cuda_download(dev, pool->buffers[i],
                                   (const char *)src + (size_t)first * dev->act_bytes,
                                   (size_t)count * dev->act_bytes, QVL_LANE_COMPUTE, err);
        if (rc == QVL_OK)
            rc = qvl_cuda_wait(dev, QVL_LANE_COMPUTE, err);
        if (rc == QVL_OK)
            for (int64_t k = 0; k < count; k++)
                dst_host[first + k] = read_element(
                    (const char *)pool->buffers[i] + (size_t)k * dev->act_bytes, dev->dtype);
        give_buffer(dev, i);
    }
    return rc;
}
