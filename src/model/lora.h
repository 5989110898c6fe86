/* The adapters: where each A and B lies in one flat float32 buffer, and their gradients and
 * moments.
 *
 *   for each layer, for each group of linears that share an input (q,k,v | o | gate,up | down):
 *       A of every adapter of the group [R, in], one after the other;  then the Bs [out, R]
 *
 * So the As of a group are one matrix, gradients are one buffer to reduce over ranks, and the
 * optimiser runs over everything at once.
 */
#ifndef QVL_SRC_MODEL_LORA_H
#define QVL_SRC_MODEL_LORA_H

#include <stdbool.h>
#include <stdint.h>

#include "kernels/ops.h"
#include "src/base/plan.h"
#include "src/model/dims.h"
#include "src/model/weights.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct qvl_lora_options {
    int64_t rank;
    double alpha, dropout;
    bool use_rslora;
    bool targets[QVL_N_SITES];
} qvl_lora_options;

typedef struct qvl_lora qvl_lora;

/* Adapters of a group when these are the options, and the columns of its tail on a device with this
 * tail_align (ops.h). */
int qvl_lora_options_adapters(const qvl_lora_options *options, qvl_group group);
int64_t qvl_lora_options_tail(const qvl_lora_options *options, qvl_group group, int64_t tail_align);

/* "all" or a comma-separated list of q_proj ... down_proj. QVL_ECONFIG for other words. */
qvl_status qvl_lora_parse_targets(bool targets[QVL_N_SITES], const char *text, qvl_err *err);

/* Lays the buffer out; allocates nothing on a device. */
qvl_status qvl_lora_create(qvl_lora **out, const qvl_model_dims *dims,
                           const qvl_lora_options *options, qvl_err *err);
void qvl_lora_destroy(qvl_lora *lora); /* NULL is fine */

const qvl_lora_options *qvl_lora_get_options(const qvl_lora *lora);
int64_t qvl_lora_parameters(const qvl_lora *lora); /* elements of the flat buffer */
double qvl_lora_scale(const qvl_lora *lora);
int64_t qvl_lora_modules(const qvl_lora *lora);

/* One adapter matrix. Matrix 2m is A, 2m+1 is B of module m; modules in order of layer, then q, k,
 * v, o, gate, up, down. */
typedef struct qvl_lora_matrix {
    int layer;
    qvl_site site;
    bool is_b;
    int64_t rows, cols;
    int64_t offset;     /* in the flat buffer */
    int64_t act_offset; /* of an A, in the rounded ones */
} qvl_lora_matrix;
qvl_lora_matrix qvl_lora_matrix_at(const qvl_lora *lora, int64_t index);

/* "layers.3.mlp.gate_proj" */
const char *qvl_lora_module_name(char buffer[64], int layer, qvl_site site);

/* Where the buffer lives: parameters, gradients and both moments on the device. */
typedef struct qvl_lora_buffers {
    float *param, *grad, *exp_avg, *exp_avg_sq; /* [parameters], device */
    void *a_act; /* act [qvl_lora_act_elements], device; NULL where there are no tails */
    size_t act_bytes;
} qvl_lora_buffers;

/* Elements of all As, each with its rank rounded up to 8: what fold writes (ops.h). */
int64_t qvl_lora_act_elements(const qvl_lora *lora);

/* Adds the four buffers (param alone when not training) to a plan, and takes them from the arena.
 */
qvl_status qvl_lora_plan(const qvl_lora *lora, qvl_plan *plan, bool is_training, int slots[4],
                         qvl_err *err);

/* Starting values as PEFT draws them (REFERENCE 9.2): A uniform in +-1/sqrt(in), rounded to bf16
 * when the base weights are bf16; B zero. host [parameters]. */
void qvl_lora_init(const qvl_lora *lora, float *host, uint32_t seed, bool round_to_bf16);

/* The fused linear of a layer's group with its adapters on these buffers. */
qvl_linear qvl_lora_linear(const qvl_lora *lora, const qvl_lora_buffers *buffers,
                           const qvl_text_weights *weights, int layer, qvl_group group);

/* Adapters of the group in a layer (0 when none is a target). */
int qvl_lora_group_adapters(const qvl_lora *lora, qvl_group group);

/* Elements first .. first + count - 1 of the flat buffer are those of a layer. */
void qvl_lora_layer_range(const qvl_lora *lora, int layer, int64_t *first, int64_t *count);

#ifdef __cplusplus
}
#endif
#endif
