/* The frozen weights on the device.
 *
 * q, k, v are one matrix, and so are gate and up, so that each is one product. The tower's
 * feed-forward width (3420) is padded with zeros to the device's width_align; a padded column of
 * the hidden layer is silu(0) * 0 = 0 and meets a zero column of down, so nothing changes. The text
 * model's widths must be multiples of it.
 */
#ifndef QVL_SRC_MODEL_WEIGHTS_H
#define QVL_SRC_MODEL_WEIGHTS_H

#include <stdbool.h>
#include <stdint.h>

#include "kernels/ops.h"
#include "mpi/exchange.h"
#include "mpi/world.h"
#include "src/base/log.h"
#include "src/base/plan.h"
#include "src/model/dims.h"
#include "src/model/weight_files.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct qvl_layer_weights {
    void *norm1, *norm2;  /* [D] */
    void *qkv, *qkv_bias; /* [(H+2KV)*Dh, D], [(H+2KV)*Dh] */
    void *o;              /* [D, H*Dh] */
    void *gate_up;        /* [2*Fp, D] */
    void *down;           /* [D, Fp] */
} qvl_layer_weights;

typedef struct qvl_text_weights {
    void *embed;                  /* [V, D] */
    void *head;                   /* [V, D]; embed itself when tied */
    void *norm;                   /* [D] */
    qvl_layer_weights *layers;    /* [L] */
    int64_t Fp;                   /* F */
    int64_t stride[QVL_N_GROUPS]; /* of the rows of qkv, o, gate_up, down: input width + tail */
    bool is_bf16;                 /* the files hold BF16: new adapters are rounded to it (9.2) */
} qvl_text_weights;

typedef struct qvl_block_weights {
    void *norm1, *norm2;
    void *qkv, *qkv_bias;         /* [3D, D] */
    void *proj, *proj_bias;       /* [D, D] */
    void *gate_up, *gate_up_bias; /* [2*Fp, D] */
    void *down, *down_bias;       /* [D, Fp] */
} qvl_block_weights;

typedef struct qvl_vision_weights {
    void *patch_embed;            /* [D, 1176] */
    qvl_block_weights *blocks;    /* [L] */
    void *merger_norm;            /* [D] */
    void *merger0, *merger0_bias; /* [4D, 4D] */
    void *merger2, *merger2_bias; /* [out, 4D] */
    int64_t Fp;
} qvl_vision_weights;

/* One half of the model (text or vision) as a list of checkpoint tensors and where they go. */
typedef struct qvl_weights qvl_weights;

typedef enum qvl_weights_half { QVL_WEIGHTS_TEXT, QVL_WEIGHTS_VISION } qvl_weights_half;

/* What the device asks of it (ops.h); tail: columns behind the rows of each group's matrix. */
typedef struct qvl_weight_layout {
    int64_t width_align;
    size_t act_bytes;
    int64_t tail[QVL_N_GROUPS];
} qvl_weight_layout;

/* Plans the half; touches no data. */
qvl_status qvl_weights_create(qvl_weights **out, qvl_weights_half half, const qvl_model_dims *dims,
                              const qvl_weight_layout *layout, qvl_err *err);
void qvl_weights_destroy(qvl_weights *weights); /* frees the device memory too; NULL is fine */

/* Everything but the token embedding, which is an allocation of its own: only rows of it are
 * needed, so it may lie in pinned host memory, unless it is the head as well (tied). */
const qvl_plan *qvl_weights_plan(const qvl_weights *weights);
uint64_t qvl_weights_embed_bytes(const qvl_weights *weights);
void qvl_weights_put_embed(qvl_weights *weights, qvl_mem where); /* before loading */

/* Every expected tensor is there with the right shape and a float type. QVL_EDATA names the tensor,
 * what was found and what was expected. */
qvl_status qvl_weights_check(const qvl_weights *weights, const qvl_weight_files *files,
                             qvl_err *err);

/* Tensors of the files that neither half expects: how many, and the name of the first one; of the
 * first that belongs to a layer or block if there is one, and *out_is_layer is then true. */
size_t qvl_weights_unknown(const qvl_weight_files *files, const qvl_weights *text,
                           const qvl_weights *vision, const char **out_first, bool *out_is_layer);

/* Where weights come from. With exchange (GPUs) the ranks share the reading and broadcast from
 * device to device; without, rank 0 reads and the others receive. Either way every byte is read
 * once for the whole job. */
typedef struct qvl_weight_source {
    const qvl_weight_files *files;
    qvl_world *world;
    qvl_exchange *exchange; /* or NULL */
    int n_threads;          /* that read at once */
    qvl_log *log;
} qvl_weight_source;

/* Allocates and fills. Collective. */
qvl_status qvl_weights_load(qvl_weights *weights, qvl_device *dev, const qvl_weight_source *source,
                            qvl_err *err);

/* Views, valid after load until destroy. */
const qvl_text_weights *qvl_weights_text(const qvl_weights *weights);
const qvl_vision_weights *qvl_weights_vision(const qvl_weights *weights);

#ifdef __cplusplus
}
#endif
#endif
