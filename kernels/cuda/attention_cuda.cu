// Entries of attention: the contract, and which kernel runs.
#include "kernels/cuda/attention_cuda.cuh"
#include "kernels/cuda/cuda_backend.cuh"

using namespace qvl;

size_t qvl_cuda_attention_scratch(const qvl_workspace_limits *limits)
{
    return limits->backward ? (size_t)(limits->tokens * limits->heads) * sizeof(float) + 256 : 0;
}

static attention_params params_of(const qvl_attention_args *a)
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
    if (a->B > 65535 || a->H > 65535)
        return qvl_fail(err, QVL_EINTERNAL, "attention: %lld sequences, %lld heads",
                        (long long)a->B, (long long)a->H);
    return QVL_OK;
}

static qvl_status name_fault(cudaError_t code, int64_t Dh, const char *what, qvl_err *err)
{
    if (code == cudaErrorInvalidValue)
        return qvl_fail(err, QVL_EDEVICE,
                        "GPU: %s: heads of %lld values; 16, 32, 64, 80 and 128 are supported", what,
                        (long long)Dh);
    return check(code, what, err);
}

qvl_status qvl_cuda_attention(qvl_device *dev, const qvl_attention_args *args, qvl_err *err)
{
    const attention_params p = params_of(args);
    int64_t longest = 0;
    const qvl_status rc = check_shape(args, &longest, err);
    if (rc != QVL_OK || longest == 0)
        return rc;
    const cudaError_t code = dev->dtype == QVL_BF16
                                 ? launch_attention_forward_bf16(p, (int)args->Dh, args->is_causal,
                                                                 longest, compute_of(dev))
                                 : launch_attention_forward_f32(p, (int)args->Dh, args->is_causal,
                                                                longest, compute_of(dev));
    return name_fault(code, args->Dh, "attention", err);
}

qvl_status qvl_cuda_attention_backward(qvl_device *dev, const qvl_attention_backward_args *args,
                                       qvl_err *err)
{
    const qvl_attention_args *a = &args->forward;
    const attention_params p = params_of(a);
    int64_t longest = 0;
    size_t used = 0;
    void *delta = NULL;
    cudaError_t code = cudaSuccess;
    qvl_status rc = check_shape(a, &longest, err);
    if (rc != QVL_OK || longest == 0)
        return rc;
    rc = scratch(dev, &delta, &used, (size_t)(a->T * a->H) * sizeof(float), err);
    if (rc != QVL_OK)
        return rc;
    code = dev->dtype == QVL_BF16
               ? launch_attention_backward_bf16(p, (int)a->Dh, a->is_causal, args->dout, args->dqkv,
                                                (float *)delta, longest, compute_of(dev))
               : launch_attention_backward_f32(p, (int)a->Dh, a->is_causal, args->dout, args->dqkv,
                                               (float *)delta, longest, compute_of(dev));
    return name_fault(code, a->Dh, "attention backward", err);
}
