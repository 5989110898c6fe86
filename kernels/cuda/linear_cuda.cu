// The frozen linear with its adapters. bf16: adapters ride in tails (lora_forward.cu and its
// neighbours). float32, for exactness: separate products, as on the CPU.
#include "kernels/cuda/lora_backward.cuh"

namespace qvl
{

// ---- float32: masked rows -----------------------------------------------------------------------

// dst = mask(src), or dst += mask(src); a thread has eight columns.
static __global__ void mask_rows_kernel(float *dst, int64_t dst_stride, const float *src,
                                        int64_t src_stride, int64_t T, int64_t in, uint32_t module,
                                        mask_key key, bool is_added)
{
    const int64_t item = (int64_t)blockIdx.x * blockDim.x + threadIdx.x, per_row = in / 8;
    if (item >= T * per_row)
        return;
    const int64_t t = item / per_row, group = item % per_row;
    const float scale = keep_scale(key.threshold);
    uint32_t drop[4];
    float v[8], to[8] = {};
    drop_words(drop, key, (uint32_t)group, module, (uint32_t)key.token[t], (uint32_t)key.sample[t]);
    pack8<float>::load(v, src + t * src_stride + group * 8);
    if (is_added)
        pack8<float>::load(to, dst + t * dst_stride + group * 8);
#pragma unroll
    for (int i = 0; i < 8; i++)
        to[i] += drop[i / 2] & (i % 2 ? 0xffff0000u : 0xffffu) ? 0.0f : v[i] * scale;
    pack8<float>::store(dst + t * dst_stride + group * 8, to);
}

static qvl_status mask_rows(qvl_device *dev, float *dst, const float *src, int64_t src_stride,
                            int64_t T, int64_t in, uint32_t module, const qvl_dropout *dropout,
                            bool is_added, qvl_err *err)
{
    const mask_key key = {dropout->threshold, dropout->seed, dropout->step, dropout->sample,
                          dropout->token};
    mask_rows_kernel<<<(unsigned)divide_up(T * (in / 8), 256), 256, 0, compute_of(dev)>>>(
        dst, in, src, src_stride, T, in, module, key, is_added);
    return check(cudaGetLastError(), "dropout mask", err);
}

static gemm_shape shape_f32(int64_t m, int64_t n, int64_t k, float alpha, float beta)
{
    gemm_shape s = {};
    s.m = m;
    s.n = n;
    s.k = k;
    s.alpha = alpha;
    s.beta = beta;
    s.type = s.c_type = QVL_F32;
    return s;
}

// u_i = drop(x) A^T, then y += scale u B^T.
static qvl_status adapters_f32(qvl_device *dev, const qvl_linear_args *args, qvl_err *err)
{
    const qvl_linear *lin = args->linear;
    const int64_t T = args->T, x_stride = or_dense(args->x_stride, lin->in);
    const int64_t u_stride = args->u ? lin->n_adapters * lin->rank : lin->rank;
    size_t used = 0;
    void *own_u = NULL, *masked = NULL;
    qvl_status rc = QVL_OK;
    if (!args->u)
        QVL_TRY(scratch(dev, &own_u, &used, (size_t)(T * lin->rank) * sizeof(float), err));
    if (args->dropout)
        QVL_TRY(scratch(dev, &masked, &used, (size_t)(T * lin->in) * sizeof(float), err));
    for (int i = 0; i < lin->n_adapters; i++) {
        const qvl_adapter *adapter = &lin->adapters[i];
        float *u = args->u ? args->u + i * lin->rank : (float *)own_u;
        if (masked)
            QVL_TRY(mask_rows(dev, (float *)masked, (const float *)args->x, x_stride, T, lin->in,
                              adapter->module, args->dropout, false, err));
        gemm_shape s = shape_f32(T, lin->rank, lin->in, 1.0f, 0.0f);
        s.transpose_b = true;
        s.lda = masked ? lin->in : x_stride;
        s.ldb = lin->in;
        s.ldc = u_stride;
        QVL_TRY(gemm(dev, s, masked ? masked : args->x, adapter->a, u, NULL, err));
        if (!args->y)
            continue;
        s = shape_f32(T, adapter->out, lin->rank, lin->scale, 1.0f);
        s.transpose_b = true;
        s.lda = u_stride;
        s.ldb = lin->rank;
        s.ldc = lin->out;
        QVL_TRY(gemm(dev, s, u, adapter->b, (float *)args->y + adapter->out_offset, NULL, err));
    }
out:
    return rc;
}

// du = scale dy B;  dB += scale dy^T u;  dA += du^T drop(x);  dx += drop(du A)
static qvl_status adapter_backward_f32(qvl_device *dev, const qvl_linear_backward_args *args, int i,
                                       float *du, float *masked, qvl_err *err)
{
    const qvl_linear *lin = args->linear;
    const qvl_adapter *adapter = &lin->adapters[i];
    const int64_t T = args->T, u_width = lin->n_adapters * lin->rank;
    const int64_t x_stride = or_dense(args->x_stride, lin->in);
    const float *dy = (const float *)args->dy + adapter->out_offset;
    qvl_status rc = QVL_OK;
    gemm_shape s = shape_f32(T, lin->rank, adapter->out, lin->scale, 0.0f);
    s.lda = lin->out;
    s.ldb = s.ldc = lin->rank;
    QVL_TRY(gemm(dev, s, dy, adapter->b, du, NULL, err));
    s = shape_f32(adapter->out, lin->rank, T, lin->scale, 1.0f);
    s.transpose_a = true;
    s.lda = lin->out;
    s.ldb = u_width;
    s.ldc = lin->rank;
    QVL_TRY(gemm(dev, s, dy, args->u + i * lin->rank, adapter->db, NULL, err));
    if (masked)
        QVL_TRY(mask_rows(dev, masked, (const float *)args->x, x_stride, T, lin->in,
                          adapter->module, args->dropout, false, err));
    s = shape_f32(lin->rank, lin->in, T, 1.0f, 1.0f);
    s.transpose_a = true;
    s.lda = lin->rank;
    s.ldb = masked ? lin->in : x_stride;
    s.ldc = lin->in;
    QVL_TRY(gemm(dev, s, du, masked ? masked : args->x, adapter->da, NULL, err));
    if (!args->dx)
        goto out;
    s = shape_f32(T, lin->in, lin->rank, 1.0f, masked ? 0.0f : 1.0f);
    s.lda = lin->rank;
    s.ldb = s.ldc = lin->in;
    QVL_TRY(gemm(dev, s, du, adapter->a, masked ? masked : args->dx, NULL, err));
    if (masked)
        QVL_TRY(mask_rows(dev, (float *)args->dx, masked, lin->in, T, lin->in, adapter->module,
                          args->dropout, true, err));
out:
    return rc;
}

static qvl_status adapters_backward_f32(qvl_device *dev, const qvl_linear_backward_args *args,
                                        qvl_err *err)
{
    const qvl_linear *lin = args->linear;
    size_t used = 0;
    void *du = NULL, *masked = NULL;
    qvl_status rc = scratch(dev, &du, &used, (size_t)(args->T * lin->rank) * sizeof(float), err);
    QVL_TRY(rc);
    if (args->dropout)
        QVL_TRY(scratch(dev, &masked, &used, (size_t)(args->T * lin->in) * sizeof(float), err));
    for (int i = 0; i < lin->n_adapters; i++)
        QVL_TRY(adapter_backward_f32(dev, args, i, (float *)du, (float *)masked, err));
out:
    return rc;
}

static qvl_status check_tails(const qvl_linear *lin, int64_t x_stride, qvl_err *err)
{
    const int64_t width = lin->in + lin->n_adapters * divide_up(lin->rank, 8) * 8;
    if (x_stride < width || lin->weight_stride < width || lin->in % 8 || !lin->adapters[0].a_act)
        return qvl_fail(err, QVL_EINTERNAL,
                        "linear: adapters need tails: rows of %lld columns lie %lld (x) and %lld "
                        "(weight) apart",
                        (long long)width, (long long)x_stride, (long long)lin->weight_stride);
    return QVL_OK;
}

} // namespace qvl

using namespace qvl;

size_t qvl_cuda_linear_scratch(const qvl_device *dev, const qvl_workspace_limits *limits)
{
    if (limits->rank == 0)
        return 0;
    if (dev->dtype == QVL_BF16)
        return lora_scratch_bytes(dev, limits);
    const int64_t masked = limits->dropout ? limits->tokens * limits->in_max : 0;
    return (size_t)(masked + limits->tokens * limits->rank) * sizeof(float) + 2 * 256;
}

// y = x W^T + bias, with what lies in the tails.
static qvl_status product(qvl_device *dev, const qvl_linear_args *args, bool has_tail, qvl_err *err)
{
    const qvl_linear *lin = args->linear;
    gemm_shape s = {};
    s.transpose_b = true;
    s.m = args->T;
    s.n = lin->out;
    s.k = lin->in + (has_tail ? lin->n_adapters * divide_up(lin->rank, 8) * 8 : 0);
    s.lda = or_dense(args->x_stride, lin->in);
    s.ldb = or_dense(lin->weight_stride, lin->in);
    s.ldc = lin->out;
    s.alpha = 1.0f;
    s.type = s.c_type = dev->dtype;
    return gemm(dev, s, args->x, lin->weight, args->y, lin->bias, err);
}

// gate_up: see lora_forward.
static qvl_status run_linear(qvl_device *dev, const qvl_linear_args *args, const void *gate_up,
                             qvl_err *err)
{
    const qvl_linear *lin = args->linear;
    const bool has_tail = lin->n_adapters > 0 && dev->tail_align > 0;
    qvl_status rc = QVL_OK;
    if (args->T == 0)
        return QVL_OK;
    if (has_tail) {
        QVL_TRY(check_tails(lin, or_dense(args->x_stride, lin->in), err));
        QVL_TRY(args->kept_u && args->is_u_kept ? lora_restore(dev, args, err)
                                                : lora_forward(dev, args, gate_up, err));
    }
    if (args->y)
        QVL_TRY(product(dev, args, has_tail, err));
    if (lin->n_adapters > 0 && !has_tail)
        rc = adapters_f32(dev, args, err);
out:
    return rc;
}

qvl_status qvl_cuda_linear(qvl_device *dev, const qvl_linear_args *args, qvl_err *err)
{
    return run_linear(dev, args, NULL, err);
}

// Where SwiGLU is part of a fused pass, it is so in backward as well: with u kept nobody reads h.
qvl_status qvl_cuda_mlp(qvl_device *dev, const qvl_mlp_args *args, qvl_err *err)
{
    const qvl_linear *lin = args->linear;
    const bool is_fused = lin->n_adapters > 0 && dev->tail_align > 0 && lora_can_fuse_swiglu(lin);
    qvl_linear_args linear = {};
    qvl_swiglu_args swiglu = {};
    qvl_status rc = QVL_OK;
    linear.linear = lin;
    linear.y = args->y;
    linear.u = args->u;
    linear.kept_u = args->kept_u;
    linear.is_u_kept = args->is_u_kept;
    linear.x = args->h;
    linear.x_stride = args->h_stride;
    linear.T = args->T;
    linear.dropout = args->dropout;
    swiglu.h = args->h;
    swiglu.h_stride = args->h_stride;
    swiglu.gate_up = args->gate_up;
    swiglu.T = args->T;
    swiglu.F = args->F;
    if (!is_fused)
        QVL_TRY(qvl_cuda_swiglu(dev, &swiglu, err));
    rc = run_linear(dev, &linear, is_fused ? args->gate_up : NULL, err);
out:
    return rc;
}

static qvl_status product_back(qvl_device *dev, const qvl_linear *lin, void *dx, const void *dy,
                               int64_t T, qvl_err *err)
{
    gemm_shape s = {};
    s.m = T;
    s.n = lin->in;
    s.k = lin->out;
    s.lda = lin->out;
    s.ldb = or_dense(lin->weight_stride, lin->in);
    s.ldc = lin->in;
    s.alpha = 1.0f;
    s.type = s.c_type = dev->dtype;
    return gemm(dev, s, dy, lin->weight, dx, NULL, err);
}

// dx = dy W, then what the adapters read of dy. On a second stream beside the product's last wave
// the small kernels cost more than they save (docs/BENCHMARKS.md).
static qvl_status product_and_outputs(qvl_device *dev, const qvl_linear_backward_args *args,
                                      output_params *out, size_t *used, qvl_err *err)
{
    qvl_status rc = QVL_OK;
    if (args->dx)
        QVL_TRY(product_back(dev, args->linear, args->dx, args->dy, args->T, err));
    rc = lora_backward_outputs(dev, args, out, used, err);
out:
    return rc;
}

qvl_status qvl_cuda_linear_backward(qvl_device *dev, const qvl_linear_backward_args *args,
                                    qvl_err *err)
{
    const qvl_linear *lin = args->linear;
    const bool has_tail = lin->n_adapters > 0 && dev->tail_align > 0;
    output_params outputs;
    size_t used = 0;
    qvl_status rc = QVL_OK;
    if (args->T == 0)
        return QVL_OK;
    if (has_tail) {
        QVL_TRY(check_tails(lin, args->x_stride, err));
        QVL_TRY(product_and_outputs(dev, args, &outputs, &used, err));
        return lora_backward_inputs(dev, args, outputs.du, &outputs, used, err);
    }
    if (args->dx)
        QVL_TRY(product_back(dev, lin, args->dx, args->dy, args->T, err));
    if (lin->n_adapters > 0)
        QVL_TRY(adapters_backward_f32(dev, args, err));
out:
    return rc;
}

// The two linears of an MLP's backward pass.
static qvl_linear_backward_args down_of(const qvl_mlp_backward_args *args)
{
    qvl_linear_backward_args linear = {};
    linear.linear = args->down;
    linear.dx = args->dh;
    linear.dy = args->dy;
    linear.x = args->h;
    linear.x_stride = args->h_stride;
    linear.u = args->h_u;
    linear.T = args->T;
    linear.dropout = args->dropout;
    return linear;
}

static qvl_linear_backward_args gate_up_of(const qvl_mlp_backward_args *args)
{
    qvl_linear_backward_args linear = {};
    linear.linear = args->gate_up_proj;
    linear.dx = args->dx;
    linear.dy = args->dgate_up;
    linear.x = args->x;
    linear.x_stride = args->x_stride;
    linear.u = args->x_u;
    linear.T = args->T;
    linear.dropout = args->dropout;
    return linear;
}

// Everything between the two products in one pass.
static qvl_status mlp_backward_fused(qvl_device *dev, const qvl_mlp_backward_args *args,
                                     qvl_err *err)
{
    const qvl_linear_backward_args down = down_of(args), gate_up = gate_up_of(args);
    output_params outputs;
    size_t used = 0;
    bf16 *du = NULL;
    qvl_status rc = QVL_OK;
    QVL_TRY(check_tails(args->down, args->h_stride, err));
    QVL_TRY(check_tails(args->gate_up_proj, args->x_stride, err));
    QVL_TRY(product_and_outputs(dev, &down, &outputs, &used, err));
    QVL_TRY(lora_backward_mlp(dev, args, &outputs, &du, &used, err));
    if (args->dx)
        QVL_TRY(product_back(dev, args->gate_up_proj, args->dx, args->dgate_up, args->T, err));
    rc = lora_backward_inputs(dev, &gate_up, du, NULL, used, err);
out:
    return rc;
}

// dgate and dup from dy.
static qvl_status through_swiglu(qvl_device *dev, const qvl_mlp_backward_args *args, qvl_err *err)
{
    const qvl_linear_backward_args down = down_of(args);
    qvl_swiglu_backward_args swiglu = {};
    output_params outputs;
    size_t used = 0;
    qvl_status rc = QVL_OK;
    if (args->down->n_adapters > 0 && dev->tail_align > 0 && lora_can_fuse_swiglu(args->down)) {
        QVL_TRY(check_tails(args->down, args->h_stride, err));
        QVL_TRY(product_and_outputs(dev, &down, &outputs, &used, err));
        return lora_backward_swiglu(dev, args, &outputs, used, err);
    }
    swiglu.dgate_up = args->dgate_up;
    swiglu.dh = args->dh;
    swiglu.gate_up = args->gate_up;
    swiglu.T = args->T;
    swiglu.F = args->F;
    QVL_TRY(qvl_cuda_linear_backward(dev, &down, err));
    rc = qvl_cuda_swiglu_backward(dev, &swiglu, err);
out:
    return rc;
}

qvl_status qvl_cuda_mlp_backward(qvl_device *dev, const qvl_mlp_backward_args *args, qvl_err *err)
{
    const qvl_linear_backward_args gate_up = gate_up_of(args);
    qvl_status rc = QVL_OK;
    if (args->T == 0)
        return QVL_OK;
    if (dev->tail_align > 0 && lora_can_fuse_mlp(args))
        return mlp_backward_fused(dev, args, err);
    QVL_TRY(through_swiglu(dev, args, err));
    rc = qvl_cuda_linear_backward(dev, &gate_up, err);
out:
    return rc;
}
