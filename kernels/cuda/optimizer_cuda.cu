// The gradient's norm and AdamW over the flat buffers.
#include "kernels/cuda/cuda_backend.cuh"

#include <math.h>

namespace qvl
{

enum { SUM_THREADS = 256, ADAMW_THREADS = 256 };

// Every block a fixed set of elements; a second kernel adds the blocks' sums.
static __global__ void sum_squares_kernel(double *parts, const float *x, int64_t n)
{
    __shared__ double scratch[32];
    double sum = 0.0;
    for (int64_t i = (int64_t)blockIdx.x * SUM_THREADS + threadIdx.x; i < n;
         i += (int64_t)PARTIAL_SUMS * SUM_THREADS)
        sum += (double)x[i] * (double)x[i];
    sum = block_sum(sum, scratch);
    if (threadIdx.x == 0)
        parts[blockIdx.x] = sum;
}

static __global__ void add_parts_kernel(float *out, const double *parts)
{
    __shared__ double scratch[32];
    double sum = 0.0;
    for (int i = threadIdx.x; i < PARTIAL_SUMS; i += SUM_THREADS)
        sum += parts[i];
    sum = block_sum(sum, scratch);
    if (threadIdx.x == 0)
        *out = (float)sum;
}

struct adamw_factors {
    float max_grad_norm, decay, lerp, beta2, square, step_size, root_bias2, eps;
};

// Rounded step by step, as the CPU does it: no multiply-add across steps.
static __global__ void adamw_kernel(float *param, float *grad, float *exp_avg, float *exp_avg_sq,
                                    const float *grad_sum_squares, int64_t n, adamw_factors f)
{
    const double clip = (double)f.max_grad_norm / ((double)sqrtf(*grad_sum_squares) + 1e-6);
    const float coef = f.max_grad_norm > 0.0f && !(clip > 1.0) ? (float)clip : 1.0f;
    const int64_t i = (int64_t)blockIdx.x * ADAMW_THREADS + threadIdx.x;
    if (i >= n || !isfinite(*grad_sum_squares))
        return;
    const float g = __fmul_rn(grad[i], coef), p = __fmul_rn(param[i], f.decay);
    const float m = __fadd_rn(exp_avg[i], __fmul_rn(f.lerp, __fsub_rn(g, exp_avg[i])));
    const float v =
        __fadd_rn(__fmul_rn(exp_avg_sq[i], f.beta2), __fmul_rn(__fmul_rn(f.square, g), g));
    const float root = __fadd_rn(__fdiv_rn(__fsqrt_rn(v), f.root_bias2), f.eps);
    exp_avg[i] = m;
    exp_avg_sq[i] = v;
    param[i] = __fsub_rn(p, __fmul_rn(f.step_size, __fdiv_rn(m, root)));
    grad[i] = 0.0f;
}

cudaError_t preload_optimizer(void)
{
    cudaFuncAttributes unused;
    cudaError_t code = cudaFuncGetAttributes(&unused, sum_squares_kernel);
    if (code == cudaSuccess)
        code = cudaFuncGetAttributes(&unused, add_parts_kernel);
    return code == cudaSuccess ? cudaFuncGetAttributes(&unused, adamw_kernel) : code;
}

} // namespace qvl

using namespace qvl;

qvl_status qvl_cuda_sum_squares(qvl_device *dev, const qvl_sum_squares_args *args, qvl_err *err)
{
    double *parts = state_of(dev)->partial_sums;
    sum_squares_kernel<<<PARTIAL_SUMS, SUM_THREADS, 0, compute_of(dev)>>>(parts, args->x, args->n);
    add_parts_kernel<<<1, SUM_THREADS, 0, compute_of(dev)>>>(args->out, parts);
    return check(cudaGetLastError(), "sum_squares", err);
}

qvl_status qvl_cuda_adamw(qvl_device *dev, const qvl_adamw_args *args, qvl_err *err)
{
    const adamw_factors f = {
        (float)args->max_grad_norm, (float)(1.0 - args->lr * args->weight_decay),
        (float)(1.0 - args->beta1), (float)args->beta2,
        (float)(1.0 - args->beta2), (float)(args->lr / args->bias1),
        (float)sqrt(args->bias2),   (float)args->eps};
    if (args->n == 0)
        return QVL_OK;
    adamw_kernel<<<(unsigned)divide_up(args->n, ADAMW_THREADS), ADAMW_THREADS, 0,
                   compute_of(dev)>>>(args->param, args->grad, args->exp_avg, args->exp_avg_sq,
                                      args->grad_sum_squares, args->n, f);
    return check(cudaGetLastError(), "adamw", err);
}
