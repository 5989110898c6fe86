#include "kernels/cuda/cuda_backend.cuh"

namespace qvl
{

// One block a row, 16 bytes a thread. D is a multiple of 8 of either type.
static __global__ void move_rows_kernel(uint4 *dst, const uint4 *src, const int32_t *dst_rows,
                                        const int32_t *src_rows, int64_t pieces)
{
    const int64_t i = blockIdx.x;
    const int64_t to = dst_rows ? dst_rows[i] : i, from = src_rows ? src_rows[i] : i;
    for (int64_t k = threadIdx.x; k < pieces; k += blockDim.x)
        dst[to * pieces + k] = src[from * pieces + k];
}

// A block cuts one patch, in the window order of units; a thread has values of it.
template <typename T>
static __global__ void patches_kernel(T *out, const uint8_t *rgb, const int32_t *unit_order,
                                      int64_t cols, float3 mean, float3 stddev)
{
    enum { SIDE = 14, PLANE = SIDE * SIDE };
    const int64_t place = blockIdx.x, unit = unit_order[place / 4], unit_cols = cols / 2;
    const int64_t row = unit / unit_cols * 2 + place % 4 / 2,
                  col = unit % unit_cols * 2 + place % 2;
    const float means[3] = {mean.x, mean.y, mean.z}, stds[3] = {stddev.x, stddev.y, stddev.z};
    for (int i = threadIdx.x; i < 3 * PLANE; i += blockDim.x) {
        const int c = i / PLANE, y = i % PLANE / SIDE, x = i % SIDE;
        const uint8_t pixel = rgb[((row * SIDE + y) * cols * SIDE + col * SIDE + x) * 3 + c];
        const T value =
            from_float<T>((float)(((double)pixel / 255.0 - (double)means[c]) / (double)stds[c]));
        T *to = out + place * 6 * PLANE + c * 2 * PLANE + y * SIDE + x;
        to[0] = to[PLANE] = value; // a still image fills both frames
    }
}

template <typename T>
static cudaError_t launch_patches(const qvl_patches_args &a, cudaStream_t stream)
{
    patches_kernel<T><<<(unsigned)(a.rows * a.cols), 128, 0, stream>>>(
        (T *)a.out, a.rgb, a.unit_order, a.cols, make_float3(a.mean[0], a.mean[1], a.mean[2]),
        make_float3(a.stddev[0], a.stddev[1], a.stddev[2]));
    return cudaGetLastError();
}

static cudaError_t launch_move_rows(qvl_device *dev, void *dst, const void *src,
                                    const int32_t *dst_rows, const int32_t *src_rows,
                                    int64_t n_rows, int64_t D)
{
    const int64_t pieces = D * (int64_t)dev->act_bytes / 16;
    const unsigned threads = pieces < 256 ? (unsigned)((pieces + 31) / 32 * 32) : 256;
    move_rows_kernel<<<(unsigned)n_rows, threads, 0, compute_of(dev)>>>(
        (uint4 *)dst, (const uint4 *)src, dst_rows, src_rows, pieces);
    return cudaGetLastError();
}

} // namespace qvl

using namespace qvl;

qvl_status qvl_cuda_move_rows(qvl_device *dev, const qvl_move_rows_args *args, qvl_err *err)
{
    if (args->D % 8)
        return qvl_fail(err, QVL_EINTERNAL, "move_rows: D %lld is not a multiple of 8",
                        (long long)args->D);
    if (args->n_rows == 0)
        return QVL_OK;
    return check(launch_move_rows(dev, args->dst, args->src, args->dst_rows, args->src_rows,
                                  args->n_rows, args->D),
                 "move_rows", err);
}

qvl_status qvl_cuda_embed(qvl_device *dev, const qvl_embed_args *args, qvl_err *err)
{
    if (args->D % 8)
        return qvl_fail(err, QVL_EINTERNAL, "embed: D %lld is not a multiple of 8",
                        (long long)args->D);
    if (args->T == 0)
        return QVL_OK;
    return check(launch_move_rows(dev, args->x, args->table, NULL, args->ids, args->T, args->D),
                 "embed", err);
}

qvl_status qvl_cuda_patches(qvl_device *dev, const qvl_patches_args *args, qvl_err *err)
{
    if (args->rows % 2 || args->cols % 2)
        return qvl_fail(err, QVL_EINTERNAL, "patches: grid %lld x %lld is not even",
                        (long long)args->rows, (long long)args->cols);
    if (args->rows * args->cols == 0)
        return QVL_OK;
    return check(QVL_DISPATCH(dev, T, launch_patches<T>(*args, compute_of(dev))), "patches", err);
}
