/* The language model over one pack: forward, loss, backward.
 *
 * Residual stream of layer l (x enters, n is a norm, every arrow is one operation of ops.h):
 *
 *   x_in --n--> h1 -qkv-> qkv -rotate,attention-> attn -o-> delta      x_mid = x_in + delta
 *   x_mid -n--> h2 -gate_up-> gate_up -swiglu-> h3 -down-> delta       next x_in = x_mid + delta
 *
 * Kept layers own all of these, but for h3 where backward makes it itself (ops.h, swiglu_rank),
 * which is one for all; recomputed layers keep x_in and share one set of the rest, which backward
 * fills again. What lies in the adapters' tails is kept of every layer. What a pack leaves free,
 * because it is shorter than the longest or because there is memory to spare, keeps more of its
 * layers (decoder_layout.c). The gradient of the residual stream is one buffer, dx.
 */
#ifndef QVL_SRC_MODEL_DECODER_H
#define QVL_SRC_MODEL_DECODER_H

#include <stdbool.h>
#include <stdint.h>

#include "kernels/ops.h"
#include "src/base/plan.h"
#include "src/model/lora.h"
#include "src/model/pack.h"
#include "src/model/weights.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct qvl_decoder qvl_decoder;

typedef struct qvl_decoder_options {
    int64_t tokens;     /* capacity of a pack */
    int64_t n_kept;     /* layers whose activations are kept in any pack */
    size_t spare_bytes; /* for what else can be kept */
    int64_t head_rows;  /* of logits at once, see qvl_workspace_limits */
    bool is_training;   /* backward will run */
    /* The last layer goes on after attention with the rows that the loss reads, and so do norm and
     * head: nothing else of it is read. Needs is_training; what fetch_hidden and fetch_logits give
     * is then not all there. */
    bool loss_rows_only;
} qvl_decoder_options;

/* Adds the activations to plan; nothing is allocated on the device. weights may not be loaded yet.
 */
qvl_status qvl_decoder_create(qvl_decoder **out, const qvl_model_dims *dims, const qvl_lora *lora,
                              const qvl_device *dev, const qvl_decoder_options *options,
                              qvl_plan *plan, qvl_err *err);
void qvl_decoder_destroy(qvl_decoder *decoder); /* NULL is fine */

/* How a pack of T tokens will be laid out: layers that are kept whole, others of which the results
 * of the largest products are kept, and others of which those are sent to host memory. */
typedef struct qvl_decoder_kept {
    int64_t n_whole, n_partly, n_away;
} qvl_decoder_kept;
qvl_decoder_kept qvl_decoder_kept_of(const qvl_decoder *decoder, int64_t T);

/* Takes the pointers: activations from base (allocated for the plan), weights, adapters. */
qvl_status qvl_decoder_bind(qvl_decoder *decoder, qvl_device *dev, const qvl_plan *plan, void *base,
                            const qvl_text_weights *weights, const qvl_lora_buffers *adapters,
                            qvl_err *err);

/* Host memory for activations: every stride-th of the layers that would be recomputed leaves the
 * results of its largest products there, on the copy lane, and gets them back before its backward
 * pass. Worth it where the way there and the memory are fast enough; results are the same bits. */
typedef struct qvl_decoder_offload {
    void *host; /* QVL_MEM_HOST, the caller's; NULL: no offloading */
    size_t bytes;
    int64_t stride; /* at least 2 */
} qvl_decoder_offload;

/* After bind, between packs. */
void qvl_decoder_set_offload(qvl_decoder *decoder, const qvl_decoder_offload *offload);
/* Most bytes that any pack could use with this stride; 0: nothing is recomputed. */
size_t qvl_decoder_offload_bytes(const qvl_decoder *decoder, int64_t stride);

/* Milliseconds, of the longest pack: a layer's frozen products forward, about; the same layer's
 * results to host memory. Runs on the device, activations are lost. */
typedef struct qvl_offload_times {
    double layer_ms, copy_ms;
} qvl_offload_times;
qvl_status qvl_decoder_time_offload(qvl_decoder *decoder, qvl_offload_times *out, void *host,
                                    size_t bytes, qvl_err *err);

/* After the adapters' parameters changed, and once before the first forward (ops.h: fold). */
qvl_status qvl_decoder_fold(qvl_decoder *decoder, qvl_err *err);

/* Limits of the workspace for packs of this decoder whose longest sample has `sequence` tokens. */
qvl_workspace_limits qvl_decoder_limits(const qvl_decoder *decoder, int64_t sequence);

/* What drops elements in this step; NULL for none. */
typedef struct qvl_decoder_dropout {
    uint32_t threshold, seed, step;
} qvl_decoder_dropout;

/* Uploads the pack and runs the layers up to the final norm. */
qvl_status qvl_decoder_forward(qvl_decoder *decoder, const qvl_pack *pack,
                               const qvl_decoder_dropout *dropout, qvl_err *err);

/* After forward: losses of the pack's supervised rows to row_loss (device, [n_rows]); with_gradient
 * also starts backward. */
qvl_status qvl_decoder_loss(qvl_decoder *decoder, float *row_loss, bool with_gradient,
                            qvl_err *err);

/* Called when everything that adds to a layer's gradients has been queued; layers come last to
 * first. */
typedef struct qvl_layer_watch {
    qvl_status (*is_done)(void *context, int layer, qvl_err *err);
    void *context;
} qvl_layer_watch;

/* After loss with gradient: adds the adapters' gradients. watch may be NULL. */
qvl_status qvl_decoder_backward(qvl_decoder *decoder, const qvl_layer_watch *watch, qvl_err *err);

/* The frozen products of all layers alone, forward and back to the inputs, for T rows of what lies
 * in the activations: the least time that a step of T tokens could take. Activations are lost. */
qvl_status qvl_decoder_products(qvl_decoder *decoder, int64_t T, qvl_err *err);
/* Multiplications and additions of the above, a token. */
double qvl_decoder_product_flops(const qvl_decoder *decoder);

/* For tests and generation. hidden state l as transformers numbers them (0 the embeddings, L after
 * the final norm; needs all layers kept), host [T, D]; and logits of all tokens, host [T, V]. */
qvl_status qvl_decoder_fetch_hidden(qvl_decoder *decoder, float *host, int64_t l, qvl_err *err);
qvl_status qvl_decoder_fetch_logits(qvl_decoder *decoder, float *host, qvl_err *err);

#ifdef __cplusplus
}
#endif
#endif
