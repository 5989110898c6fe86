/* The operations that a training step is made of: the only door between the model and a device.
 *
 * A device is a table of functions (qvl_ops) and its state. The same model code drives the CPU
 * backend (kernels/cpu: float32, OpenMP, CBLAS) and the CUDA backend.
 *
 * Conventions
 *   Shapes are row-major, slowest first. T tokens of one pack (all sequences laid end to end), B
 *   sequences, D hidden size, H query heads, KV key/value heads, Dh head size, F feed-forward size,
 *   V vocabulary, R LoRA rank, P vision patches.
 *   "act" is the device's activation type (dev->dtype: float32, or bf16 on CUDA with bf16: true);
 *   weights have the same type. Statistics, tables, adapters, gradients of adapters, losses and the
 *   optimiser's state are float32 on every device.
 *   All pointers in argument structs are device memory unless the comment says host. No two outputs
 *   overlap each other or an input unless the comment allows it. Buffers are 256-byte aligned.
 *   An operation is queued on the compute lane and may return before it has run; it allocates
 *   nothing and never waits. Scratch comes from the buffer given to bind_workspace.
 *   A field X_stride is the distance of X's rows in elements; 0 means that they lie close together.
 *
 * Tails
 *   On a device with tail_align > 0 the adapters ride along with the frozen product: a group of
 *   adapters has w = n_adapters * (R rounded up to 8) further columns behind the input's rows and
 *   the weight's, which lie in + tail apart (qvl_tail_columns). forward puts u (rounded) behind x,
 *   fold puts scale * B behind W, and one product of K = in + w is base and adapters together:
 *
 *       x row      | x 0 .. in-1 | u of adapter 0 | u of adapter 1 | - |
 *       weight row | W 0 .. in-1 | scale * B of the part this row belongs to, else 0 | - |
 *
 *   The separate u of the arguments is then NULL. What lies in a tail can be kept in rows of w
 *   columns of its own (kept_u, 16-byte aligned), where it outlives x: a second forward pass over
 *   the same x, for backward, then takes u from there (is_u_kept) and reads x for products only.
 *   Every reduction has a fixed order: the same inputs give the same bits, for any number of
 *   threads. No operation uses atomics to add results.
 *   A count of zero (T, n_rows, ...) is legal and does nothing, but outputs described as "set" on
 *   the whole buffer are still set.
 *   Errors: QVL_EINTERNAL for a broken contract (our bug), QVL_EDEVICE for the device's own faults.
 */
#ifndef QVL_KERNELS_OPS_H
#define QVL_KERNELS_OPS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "src/base/dtype.h"
#include "src/base/status.h"

#ifdef __cplusplus
extern "C" {
#endif

enum {
    QVL_MAX_FUSED = 3, /* parts of one fused linear: q, k, v */
    QVL_MARKS = 4096   /* of mark */
};

typedef struct qvl_ops qvl_ops;

typedef struct qvl_device {
    const qvl_ops *ops;
    qvl_dtype dtype;     /* of activations and weights */
    size_t act_bytes;    /* bytes of one such element */
    int64_t width_align; /* weights' widths are padded to a multiple of this at load (CPU 1) */
    size_t own_bytes;    /* device memory that the backend took for itself when it was opened */
    int64_t tail_align;  /* tails have a multiple of this many columns; 0: there are none */
    int64_t swiglu_rank; /* up to this rank mlp_backward makes h itself; 0: it reads h */
    int index;           /* of the GPU on this host; 0 on the CPU */
    char name[128];      /* for people */
    void *state;         /* the backend's own */
    /* Asked now and then while the device is waited for, with the seconds waited; an error ends the
     * wait. NULL: nobody asks. */
    qvl_status (*poll)(void *context, double waited_s, qvl_err *err);
    void *poll_context;
} qvl_device;

typedef enum qvl_mem {
    QVL_MEM_DEVICE, /* where operations run */
    QVL_MEM_HOST    /* host memory that transfers read and write fastest (pinned on CUDA) */
} qvl_mem;

/* Work on one lane runs in the order given; lanes run side by side. On the CPU all lanes are one.
 */
typedef enum qvl_lane { QVL_LANE_COMPUTE, QVL_LANE_COPY, QVL_LANE_REDUCE, QVL_N_LANES } qvl_lane;

/* ---- arguments --------------------------------------------------------------------------------
 */

/* LoRA on one part of a fused linear. y[:, out_offset : out_offset + out] +=
 * scale * (drop(x) A^T) B^T. */
typedef struct qvl_adapter {
    const float *a; /* [R, in] */
    const float *b; /* [out, R] */
    float *da, *db; /* gradients, same shapes; backward adds into them */
    void *a_act;    /* act [R rounded up to 8, in], what fold made of a; NULL without tails */
    int64_t out_offset;
    int64_t out;
    uint32_t module; /* key of the dropout mask, see dropout_mask.h */
} qvl_adapter;

/* A frozen linear, possibly several fused along the output (q,k,v or gate,up), with its adapters.
 */
typedef struct qvl_linear {
    const void *weight; /* act [out, in]; with tails fold writes behind its rows */
    int64_t weight_stride;
    const void *bias; /* act [out], or NULL */
    int64_t in;
    int64_t out;
    int n_adapters; /* 0 .. QVL_MAX_FUSED */
    qvl_adapter adapters[QVL_MAX_FUSED];
    int64_t rank;
    float scale;
} qvl_linear;

/* Which elements are dropped; see src/base/dropout_mask.h. NULL instead of it drops nothing. */
typedef struct qvl_dropout {
    uint32_t threshold;    /* of 65536 */
    uint32_t seed, step;   /* the key */
    const int32_t *sample; /* [T] sample number of each token */
    const int32_t *token;  /* [T] token's index within its sample */
} qvl_dropout;

/* x[t,:] = table[ids[t],:].   ids in 0..V-1 (checked when the data set is opened). */
typedef struct qvl_embed_args {
    void *x;           /* act [T, D] */
    const void *table; /* act [V, D] */
    const int32_t *ids;
    int64_t T, D;
} qvl_embed_args;

/* dst[dst_rows[i],:] = src[src_rows[i],:] for i < n_rows; a NULL index array means row i. Rows in
 * dst_rows are distinct. dst may not overlap src. Used to scatter image features into the
 * embeddings and to undo the tower's window order. */
typedef struct qvl_move_rows_args {
    void *dst;       /* act [.., D] */
    const void *src; /* act [.., D] */
    const int32_t *dst_rows, *src_rows;
    int64_t n_rows, D;
} qvl_move_rows_args;

/* x_out = x + delta (x itself when delta is NULL);  y = x_out * inv_rms * weight,
 * inv_rms[t] = 1 / sqrt(mean(x_out[t,:]^2) + eps).   x_out may be x; NULL when delta is NULL.
 * y may not alias x or x_out (backward reads x_out). REFERENCE: Qwen2RMSNorm. */
typedef struct qvl_norm_args {
    void *y; /* act [T, D] */
    int64_t y_stride;
    void *x_out;       /* act [T, D] */
    float *inv_rms;    /* [T], saved for backward; may be NULL */
    const void *x;     /* act [T, D] */
    const void *delta; /* act [T, D] or NULL */
    const void *weight;
    int64_t T, D;
    float eps;
} qvl_norm_args;

/* dx[t,:] += d(loss)/d(x) given dy = d(loss)/d(y). */
typedef struct qvl_norm_backward_args {
    void *dx;             /* act [T, D], added to */
    const void *dy;       /* act [T, D] */
    const void *x;        /* act [T, D], the x_out of forward */
    const float *inv_rms; /* [T] */
    const void *weight;
    int64_t T, D;
} qvl_norm_backward_args;

/* y = x W^T + bias + adapters.  u [T, n_adapters * R] float32 is set to drop(x) A^T of every
 * adapter (columns i*R .. of adapter i), saved for backward; NULL when backward will not run. With
 * tails u goes behind the rows of x instead. */
typedef struct qvl_linear_args {
    const qvl_linear *linear;
    void *y; /* act [T, out] or NULL */
    float *u;
    void *kept_u; /* act [T, w]: u goes there as well, or comes from there; NULL, or no tails: u is
                     not kept */
    bool is_u_kept;
    const void *x; /* act [T, in] */
    int64_t x_stride;
    int64_t T;
    const qvl_dropout *dropout;
} qvl_linear_args;

/* Given dy: dx = dy W + sum of the adapters' parts (set; NULL when nothing below needs it), and for
 * every adapter db += scale * dy^T u,  da += (scale * dy B)^T drop(x). */
typedef struct qvl_linear_backward_args {
    const qvl_linear *linear;
    void *dx;       /* act [T, in] or NULL */
    const void *dy; /* act [T, out] */
    const void *x;  /* act [T, in], with forward's u behind its rows where there are tails */
    int64_t x_stride;
    const float *u; /* [T, n_adapters * R] of forward; NULL with tails */
    int64_t T;
    const qvl_dropout *dropout;
} qvl_linear_backward_args;

/* cosine[t,i] = cos(positions[axis[i], t] * inv_freq[i]), sine likewise, i < n_freq. One table a
 * pack serves all layers: M-RoPE with axis by section (t,h,w), the tower's with axis (row, column).
 */
typedef struct qvl_rope_table_args {
    float *cosine, *sine;     /* [T, n_freq] */
    const int32_t *positions; /* [n_axes, T] */
    const float *inv_freq;    /* [n_freq] */
    const int32_t *axis;      /* [n_freq] */
    int64_t T, n_freq;
} qvl_rope_table_args;

/* In place on the first n_heads heads of each row of x: with half = Dh / 2, c and s the table's
 * row, (x_i, x_{i+half}) -> (x_i c_i - x_{i+half} s_i, x_{i+half} c_i + x_i s_i). inverse turns the
 * other way, which is the backward pass. */
typedef struct qvl_rotate_args {
    void *x; /* act [T, stride] */
    const float *cosine, *sine;
    int64_t T, stride, n_heads, Dh;
    bool inverse;
} qvl_rotate_args;

/* Attention inside each sequence cu_seqlens[b] .. cu_seqlens[b+1]-1, grouped-query: query head h
 * uses key/value head h / (H / KV). A row of qkv is q [H*Dh], k [KV*Dh], v [KV*Dh].
 *   out[t,h,:] = sum_j softmax_j(q_t . k_j * scale) v_j   over j <= t if is_causal, else all j
 *   lse[h,t]   = logsumexp_j(q_t . k_j * scale), saved for backward; may be NULL.
 * Memory is O(T): no T x T matrix is formed. */
typedef struct qvl_attention_args {
    void *out; /* act [T, H*Dh] */
    int64_t out_stride;
    float *lse; /* [H, T] */
    const void *qkv;
    const int32_t *cu_seqlens;      /* [B+1] */
    const int32_t *cu_seqlens_host; /* the same, host memory: sizes of the launches */
    int64_t T, B, H, KV, Dh;
    float scale; /* above 0 */
    bool is_causal;
} qvl_attention_args;

/* dqkv (set) from dout. With a table, those of q and k are turned back, as rotate with inverse
 * would: the gradients of what was there before it was turned. */
typedef struct qvl_attention_backward_args {
    void *dqkv;                 /* act [T, (H+2KV)*Dh] */
    const void *dout;           /* act [T, H*Dh] */
    const float *cosine, *sine; /* [T, Dh/2] each, or NULL */
    qvl_attention_args forward; /* with out and lse as forward left them */
} qvl_attention_backward_args;

/* h = silu(gate) * up,  gate_up[t] = gate [F], up [F]. */
typedef struct qvl_swiglu_args {
    void *h; /* act [T, F] */
    int64_t h_stride;
    const void *gate_up;
    int64_t T, F;
} qvl_swiglu_args;

/* dgate_up (set; may be gate_up itself) from dh. */
typedef struct qvl_swiglu_backward_args {
    void *dgate_up; /* act [T, 2F] */
    const void *dh; /* act [T, F] */
    const void *gate_up;
    int64_t T, F;
} qvl_swiglu_backward_args;

/* y = down(silu(gate) * up), the linear with its adapters: as swiglu into h and then linear, which
 * one pass may do better. With is_u_kept y is NULL, and h is only set where mlp_backward will read
 * it, which it does for ranks above the device's swiglu_rank. */
typedef struct qvl_mlp_args {
    const qvl_linear *linear; /* in = F */
    void *y;                  /* act [T, out] or NULL */
    void *h;                  /* act [T, F], set; with tails u goes behind its rows */
    int64_t h_stride;
    float *u; /* this and the next two as linear's */
    void *kept_u;
    bool is_u_kept;
    const void *gate_up;
    int64_t T, F;
    const qvl_dropout *dropout;
} qvl_mlp_args;

/* Backward of [gate, up] = gate_up_proj(x), y = down(silu(gate) * up), both linears with their
 * adapters: as linear_backward into dh, swiglu_backward, and linear_backward into dx, which fewer
 * passes may do better. dh is room for the gradient of h, undefined afterwards. */
typedef struct qvl_mlp_backward_args {
    const qvl_linear *down;         /* in = F */
    const qvl_linear *gate_up_proj; /* out = 2F */
    void *dx;                       /* act [T, in of gate_up_proj], set; NULL: not wanted */
    void *dgate_up;                 /* act [T, 2F], set; may be gate_up itself */
    void *dh;                       /* act [T, F], scratch */
    const void *dy;                 /* act [T, out of down] */
    const void *h;                  /* act [T, F], as mlp left it; forward's u behind its rows */
    int64_t h_stride;
    const float *h_u; /* of forward; NULL with tails */
    const void *x;    /* act [T, in of gate_up_proj]; forward's u behind its rows */
    int64_t x_stride;
    const float *x_u; /* of forward; NULL with tails */
    const void *gate_up;
    int64_t T, F;
    const qvl_dropout *dropout;
} qvl_mlp_backward_args;

/* x = x/2 (1 + erf(x / sqrt 2)) in place on n elements. */
typedef struct qvl_gelu_args {
    void *x; /* act [n] */
    int64_t n;
} qvl_gelu_args;

/* Cuts one resized image into normalised patches (REFERENCE 5.6), in the tower's window order.
 * Merged unit u of the output (rows 4u..4u+3) is unit unit_order[u] of the image in row-major
 * order. Column ((c*2 + frame)*14 + y)*14 + x; a still image fills both frames alike.
 *   out = (rgb / 255 - mean[c]) / stddev[c] */
typedef struct qvl_patches_args {
    void *out;                 /* act [rows*cols, 1176] */
    const uint8_t *rgb;        /* [rows*14, cols*14, 3] */
    const int32_t *unit_order; /* [rows*cols/4] */
    int64_t rows, cols;        /* patches; both even */
    float mean[3], stddev[3];
} qvl_patches_args;

/* Loss of the output head on n_rows supervised rows, and its gradient, in chunks of rows: the
 * logits of one chunk are the largest thing in memory.
 *   logits = x[rows[i],:] head^T;  row_loss[i] = logsumexp(logits) - logits[targets[i]]
 *   dx[rows[i],:] = weights[i] * (softmax(logits) - onehot(targets[i])) head;  other rows of dx: 0
 * rows NULL means row i, of n_rows = T. */
typedef struct qvl_head_loss_args {
    float *row_loss;     /* [n_rows], not weighted */
    void *dx;            /* act [T, D], set; NULL: no gradient */
    const void *x;       /* act [T, D], after the final norm */
    const void *head;    /* act [V, D] */
    const int32_t *rows; /* [n_rows], distinct; or NULL */
    const int32_t *targets;
    const float *weights;
    int64_t n_rows, T, D, V;
} qvl_head_loss_args;

/* out[0] = sum of x[i]^2. */
typedef struct qvl_sum_squares_args {
    float *out; /* [1] */
    const float *x;
    int64_t n;
} qvl_sum_squares_args;

/* AdamW (REFERENCE 8.6) on flat buffers, with the clipping of 8.5 folded in:
 *   coef = max_grad_norm > 0 ? min(1, max_grad_norm / (sqrt(*grad_sum_squares) + 1e-6)) : 1
 *   g *= coef;  p *= 1 - lr*wd;  m += (1-beta1)(g - m);  v = beta2 v + (1-beta2) g^2
 *   p -= lr/bias1 * m / (sqrt(v)/sqrt(bias2) + eps);  g = 0, ready for the next step
 * Where *grad_sum_squares is not finite nothing is changed, the gradient included. */
typedef struct qvl_adamw_args {
    float *param, *grad, *exp_avg, *exp_avg_sq; /* [n] */
    const float *grad_sum_squares;              /* [1] */
    int64_t n;
    double lr, beta1, beta2, eps, weight_decay, max_grad_norm;
    double bias1, bias2; /* 1 - beta^t */
} qvl_adamw_args;

/* After the parameters changed: rounds every adapter's A to a_act (rows R .. 0) and scale * B into
 * the weight's tail, zeros elsewhere in the w columns. Nothing without tails. */
typedef struct qvl_fold_args {
    const qvl_linear *linears; /* host */
    int64_t n;
} qvl_fold_args;

/* The largest sizes that will be asked for; workspace_bytes turns them into bytes. */
typedef struct qvl_workspace_limits {
    int64_t tokens;   /* rows of a linear */
    int64_t sequence; /* longest sequence of attention */
    int64_t in_max;   /* widest input of a linear with adapters */
    int64_t out_max;  /* widest output of a linear with adapters */
    int64_t rank;     /* LoRA rank, 0 without adapters */
    int64_t heads;    /* query heads */
    int64_t kv_heads;
    int64_t head_size; /* Dh */
    int64_t vocab;     /* V, 0 when head_loss is not used */
    int64_t head_rows; /* rows of logits at once, which is up to what is bound; 0: what is fast */
    int64_t hidden;    /* D */
    bool backward;     /* backward operations will run */
    bool dropout;      /* a mask will be applied */
} qvl_workspace_limits;

/* ---- the table --------------------------------------------------------------------------------
 */

struct qvl_ops {
    const char *name; /* "cpu" or "cuda" */

    void (*destroy)(qvl_device *dev);

    /* Memory. alloc gives 256-byte aligned, uninitialised memory, for start-up only. */
    qvl_status (*alloc)(qvl_device *dev, void **out, size_t bytes, qvl_mem kind, const char *what,
                        qvl_err *err);
    void (*release)(qvl_device *dev, void *pointer, qvl_mem kind);
    qvl_status (*free_bytes)(qvl_device *dev, uint64_t *out, qvl_err *err);
    qvl_status (*workspace_bytes)(qvl_device *dev, size_t *out, const qvl_workspace_limits *limits,
                                  qvl_err *err);
    qvl_status (*bind_workspace)(qvl_device *dev, void *workspace, size_t bytes, qvl_err *err);

    /* Transfers, queued on a lane. Host buffers must live until the lane was waited for; those of
     * uploads on QVL_LANE_COMPUTE that are not QVL_MEM_HOST are free at once. A download to memory
     * that is not QVL_MEM_HOST may wait for the lane itself, as wait does. Uploads are the business
     * of one thread. */
    qvl_status (*upload)(qvl_device *dev, void *dst, const void *src_host, size_t bytes,
                         qvl_lane lane, qvl_err *err);
    qvl_status (*download)(qvl_device *dev, void *dst_host, const void *src, size_t bytes,
                           qvl_lane lane, qvl_err *err);
    qvl_status (*copy)(qvl_device *dev, void *dst, const void *src, size_t bytes, qvl_err *err);
    qvl_status (*zero)(qvl_device *dev, void *dst, size_t bytes, qvl_err *err);
    /* Work queued on lane after from this call runs after what is queued on before now. */
    qvl_status (*order)(qvl_device *dev, qvl_lane after, qvl_lane before, qvl_err *err);
    /* Blocks until the lane is empty; faults of earlier work surface here. */
    qvl_status (*wait)(qvl_device *dev, qvl_lane lane, qvl_err *err);

    /* The moment when everything queued on QVL_LANE_COMPUTE so far is done, kept in slot 0 ..
     * QVL_MARKS - 1; and, once the lane was waited for, the milliseconds between two of them. */
    qvl_status (*mark)(qvl_device *dev, int slot, qvl_err *err);
    qvl_status (*between)(qvl_device *dev, double *out_ms, int from, int to, qvl_err *err);

    /* The CUDA stream of a lane, for libraries that queue their own work; NULL on the CPU. */
    void *(*stream)(qvl_device *dev, qvl_lane lane);

    /* Host rows [rows, cols] of src_dtype into act rows dst_stride elements apart, rounded to
     * nearest even; columns cols .. dst_stride-1 are set to zero. Returns when src may be reused;
     * several threads may call it at once; wait for QVL_LANE_COPY before dst is used. */
    qvl_status (*load_rows)(qvl_device *dev, void *dst, int64_t dst_stride, const void *src_host,
                            qvl_dtype src_dtype, int64_t rows, int64_t cols, qvl_err *err);
    /* n act elements as float32 in host memory; waits. */
    qvl_status (*fetch)(qvl_device *dev, float *dst_host, const void *src, int64_t n, qvl_err *err);

    qvl_status (*embed)(qvl_device *dev, const qvl_embed_args *args, qvl_err *err);
    qvl_status (*move_rows)(qvl_device *dev, const qvl_move_rows_args *args, qvl_err *err);
    qvl_status (*norm)(qvl_device *dev, const qvl_norm_args *args, qvl_err *err);
    qvl_status (*norm_backward)(qvl_device *dev, const qvl_norm_backward_args *args, qvl_err *err);
    qvl_status (*linear)(qvl_device *dev, const qvl_linear_args *args, qvl_err *err);
    qvl_status (*linear_backward)(qvl_device *dev, const qvl_linear_backward_args *args,
                                  qvl_err *err);
    qvl_status (*rope_table)(qvl_device *dev, const qvl_rope_table_args *args, qvl_err *err);
    qvl_status (*rotate)(qvl_device *dev, const qvl_rotate_args *args, qvl_err *err);
    qvl_status (*attention)(qvl_device *dev, const qvl_attention_args *args, qvl_err *err);
    qvl_status (*attention_backward)(qvl_device *dev, const qvl_attention_backward_args *args,
                                     qvl_err *err);
    qvl_status (*swiglu)(qvl_device *dev, const qvl_swiglu_args *args, qvl_err *err);
    qvl_status (*swiglu_backward)(qvl_device *dev, const qvl_swiglu_backward_args *args,
                                  qvl_err *err);
    qvl_status (*mlp)(qvl_device *dev, const qvl_mlp_args *args, qvl_err *err);
    qvl_status (*mlp_backward)(qvl_device *dev, const qvl_mlp_backward_args *args, qvl_err *err);
    qvl_status (*gelu)(qvl_device *dev, const qvl_gelu_args *args, qvl_err *err);
    qvl_status (*patches)(qvl_device *dev, const qvl_patches_args *args, qvl_err *err);
    qvl_status (*head_loss)(qvl_device *dev, const qvl_head_loss_args *args, qvl_err *err);
    qvl_status (*sum_squares)(qvl_device *dev, const qvl_sum_squares_args *args, qvl_err *err);
    qvl_status (*adamw)(qvl_device *dev, const qvl_adamw_args *args, qvl_err *err);
    qvl_status (*fold)(qvl_device *dev, const qvl_fold_args *args, qvl_err *err);
};

/* Of a tail, the columns that adapters have. */
static inline int64_t qvl_tail_used(int64_t n_adapters, int64_t rank)
{
    return n_adapters * ((rank + 7) / 8 * 8);
}

/* Columns behind the rows of an input with this group of adapters; 0 on devices without tails. */
static inline int64_t qvl_tail_columns(int64_t tail_align, int64_t n_adapters, int64_t rank)
{
    const int64_t used = qvl_tail_used(n_adapters, rank);
    return tail_align ? (used + tail_align - 1) / tail_align * tail_align : 0;
}

/* Opens the CPU backend. n_threads 0: as many as the process may run on. */
qvl_status qvl_device_open_cpu(qvl_device **out, int n_threads, qvl_err *err);

/* NULL is fine. */
void qvl_device_close(qvl_device *dev);

#ifdef __cplusplus
}
#endif
#endif
