// Entries of attention: the contract, and which kernel runs.
#include "kernels/cuda/attention_cuda.cuh"
#include "kernels/cuda/cuda_backend.cuh"

using namespace qvl;

// Key-side blocks of backward for each multiprocessor below which the query heads are split.
enum { BLOCKS_WANTED = 3 };

static int64_t splits_for(int64_t n_tiles, int64_t kv_heads, int64_t group, int n_sms)
{
    const int64_t blocks = n_tiles * kv_heads;
    const int64_t splits = blocks ? divide_up(BLOCKS_WANTED * n_sms, blocks) : 1;
    const int64_t per_split = divide_up(group, splits < group ? splits : group);
    return divide_up(group, per_split); // none of them empty
}

// delta, and the splits' sums: splits * tiles stay near BLOCKS_WANTED n_sms / KV, or splits are 1.
size_t qvl_cuda_attention_scratch(const qvl_device *dev, const qvl_workspace_limits *limits)
{
    const size_t delta = (size_t)(limits->tokens * limits->heads) * sizeof(float);
    if (!limits->backward || dev->dtype == QVL_F32)
        return limits->backward ? delta + 256 : 0;
    const int64_t wanted = (int64_t)BLOCKS_WANTED * state_of(dev)->n_sms * ATTENTION_ROWS;
    const int64_t rows = limits->tokens + wanted / (limits->kv_heads ? limits->kv_heads : 1);
    const int64_t most = limits->tokens * (limits->kv_heads ? limits->heads / limits->kv_heads : 1);
    return delta +
           (size_t)((rows < most ? rows : most) * limits->kv_heads * 2 * limits->head_size) *
               sizeof(float) +
           2 * 256;
}

// Tiles in falling order of the query tiles that see their keys (of a causal sequence).
static void list_tiles(attention_params *p, const int32_t *cu_seqlens, int64_t longest)
{
    if (p->n_tiles > ATTENTION_LISTED)
        return;
    for (int64_t seen_by = divide_up(longest, ATTENTION_ROWS); seen_by > 0; seen_by--)
        for (int64_t b = 0; b < p->B; b++) {
            const int32_t len = cu_seqlens[b + 1] - cu_seqlens[b];
            const int32_t tile = (int32_t)(divide_up(len, ATTENTION_ROWS) - seen_by);
            if (tile >= 0)
                p->list[p->n_listed++] = {cu_seqlens[b], len, tile};
        }
}

// longest: tokens of the longest sequence.
static attention_params params_of(const qvl_attention_args *a, int64_t longest)
{
    attention_params p = {};
    p.qkv = a->qkv;
    p.out = a->out;
    p.lse = a->lse;
    p.cu_seqlens = a->cu_seqlens;
    p.T = a->T;
    p.B = a->B;
    p.H = a->H;
    p.KV = a->KV;
    p.stride = (a->H + 2 * a->KV) * a->Dh;
    p.out_stride = or_dense(a->out_stride, a->H * a->Dh);
    p.dout_stride = a->H * a->Dh;
    p.scale = a->scale;
    for (int64_t b = 0; b < a->B; b++)
        p.n_tiles += divide_up(a->cu_seqlens_host[b + 1] - a->cu_seqlens_host[b], ATTENTION_ROWS);
    if (a->is_causal)
        list_tiles(&p, a->cu_seqlens_host, longest);
    return p;
}

static qvl_status check_shape(const qvl_attention_args *a, int64_t *longest, qvl_err *err)
{
    *longest = 0;
    for (int64_t b = 0; b < a->B; b++) {
        const int64_t n = a->cu_seqlens_host[b + 1] - a->cu_seqlens_host[b];
        if (n < 0)
            return qvl_fail(err, QVL_EINTERNAL, "attention: cu_seqlens falls at %lld",
                            (long long)b);
        *longest = n > *longest ? n : *longest;
    }
    if (a->B && a->cu_seqlens_host[a->B] != a->T)
        return qvl_fail(err, QVL_EINTERNAL, "attention: cu_seqlens ends at %d, T is %lld",
                        a->cu_seqlens_host[a->B], (long long)a->T);
    if (!(a->scale > 0.0f)) // what is masked is -infinity before it is scaled
        return qvl_fail(err, QVL_EINTERNAL, "attention: scale %g", (double)a->scale);
    if (a->B > 65535 || a->H > 65535 || a->T * (a->H + 2 * a->KV) * a->Dh / 8 > INT32_MAX)
        return qvl_fail(err, QVL_EINTERNAL, "attention: %lld sequences, %lld heads, %lld tokens",
                        (long long)a->B, (long long)a->H, (long long)a->T);
    return QVL_OK;
}

static qvl_status name_fault(cudaError_t code, int64_t Dh, const char *what, qvl_err *err)
{
    if (code == cudaErrorInvalidConfiguration)
        return qvl_fail(
            err, QVL_EDEVICE,
            "GPU: %s: heads of %lld values take more shared memory than a block of this "
            "GPU may have; up to %d KiB are needed",
            what, (long long)Dh, MOST_SHARED_BYTES / 1024);
    if (code == cudaErrorInvalidValue)
        return qvl_fail(err, QVL_EDEVICE,
                        "GPU: %s: heads of %lld values; 16, 32, 64, 80 and 128 are supported", what,
                        (long long)Dh);
    return check(code, what, err);
}

qvl_status qvl_cuda_attention(qvl_device *dev, const qvl_attention_args *args, qvl_err *err)
{
    int64_t longest = 0;
    const qvl_status rc = check_shape(args, &longest, err);
    if (rc != QVL_OK || longest == 0)
        return rc;
    const attention_params p = params_of(args, longest);
    const cudaError_t code = dev->dtype == QVL_BF16
                                 ? launch_attention_forward_bf16(p, (int)args->Dh, args->is_causal,
                                                                 longest, compute_of(dev))
                                 : launch_attention_forward_f32(p, (int)args->Dh, args->is_causal,
                                                                longest, compute_of(dev));
    return name_fault(code, args->Dh, "attention", err);
}

// float32: in a pass of its own.
static qvl_status turn_back(qvl_device *dev, const qvl_attention_backward_args *args, qvl_err *err)
{
    const qvl_attention_args *a = &args->forward;
    qvl_rotate_args rotate = {};
    rotate.x = args->dqkv;
    rotate.cosine = args->cosine;
    rotate.sine = args->sine;
    rotate.T = a->T;
    rotate.stride = (a->H + 2 * a->KV) * a->Dh;
    rotate.n_heads = a->H + a->KV;
    rotate.Dh = a->Dh;
    rotate.inverse = true;
    return qvl_cuda_rotate(dev, &rotate, err);
}

qvl_status qvl_cuda_attention_backward(qvl_device *dev, const qvl_attention_backward_args *args,
                                       qvl_err *err)
{
    const qvl_attention_args *a = &args->forward;
    int64_t longest = 0;
    size_t used = 0;
    void *delta = NULL, *parts = NULL;
    cudaError_t code = cudaSuccess;
    qvl_status rc = check_shape(a, &longest, err);
    if (rc != QVL_OK || longest == 0)
        return rc;
    attention_params p = params_of(a, longest);
    const int64_t splits = splits_for(p.n_tiles, a->KV, a->H / a->KV, state_of(dev)->n_sms);
    rc = scratch(dev, &delta, &used, (size_t)(a->T * a->H) * sizeof(float), err);
    if (rc == QVL_OK && dev->dtype == QVL_BF16 && splits > 1)
        rc = scratch(dev, &parts, &used,
                     (size_t)(splits * a->T * 2 * a->KV * a->Dh) * sizeof(float), err);
    if (rc != QVL_OK)
        return rc;
    p.cosine = args->cosine;
    p.sine = args->sine;
    code = dev->dtype == QVL_BF16
               ? launch_attention_backward_bf16(p, (int)a->Dh, a->is_causal, args->dout, args->dqkv,
                                                (float *)delta, (float *)parts, (int)splits,
                                                compute_of(dev))
               : launch_attention_backward_f32(p, (int)a->Dh, a->is_causal, args->dout, args->dqkv,
                                               (float *)delta, longest, compute_of(dev));
    rc = name_fault(code, a->Dh, "attention backward", err);
    return rc == QVL_OK && args->cosine && dev->dtype == QVL_F32 ? turn_back(dev, args, err) : rc;
}
