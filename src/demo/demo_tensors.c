#include "src/demo/demo_tensors.h"

#include <inttypes.h>
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>

#include "src/base/memory.h"

/* A matrix of std 1 / sqrt(columns) keeps the size of what goes through it. Of the gains on that
 * tried, these let an adapter of rank 8 bring the loss of a frozen random model down furthest in a
 * short run: queries that choose, and a head whose logits can be far apart. */
#define QUERY_GAIN    2.0
#define HEAD_GAIN     2.0
#define BIAS_STD      0.02
#define NORM_STD      0.1
#define EMBEDDING_STD 1.0

typedef struct tensor_list {
    qvl_demo_tensor *tensors;
    size_t count, capacity;
} tensor_list;

static qvl_status add(tensor_list *list, double mean, double std, const char *name, int n_dims,
                      const int64_t *shape, qvl_err *err)
{
    const qvl_status rc = qvl_reserve(&list->tensors, &list->capacity, list->count + 1,
                                      sizeof *list->tensors, "tensor list", err);
    if (rc != QVL_OK)
        return rc;
    qvl_demo_tensor *tensor = &list->tensors[list->count++];
    *tensor = (qvl_demo_tensor){.n_dims = n_dims, .mean = mean, .std = std};
    snprintf(tensor->name, sizeof tensor->name, "%s", name);
    for (int i = 0; i < n_dims; i++)
        tensor->shape[i] = shape[i];
    return QVL_OK;
}

/* PREFIX.NAME.weight [rows, columns], and PREFIX.NAME.bias [rows]. */
static qvl_status add_linear(tensor_list *list, double gain, const char *prefix, const char *name,
                             int64_t rows, int64_t columns, bool has_bias, qvl_err *err)
{
    const int64_t shape[2] = {rows, columns};
    char full[96];
    snprintf(full, sizeof full, "%s.%s.weight", prefix, name);
    qvl_status rc = add(list, 0.0, gain / sqrt((double)columns), full, 2, shape, err);
    if (rc != QVL_OK || !has_bias)
        return rc;
    snprintf(full, sizeof full, "%s.%s.bias", prefix, name);
    return add(list, 0.0, BIAS_STD, full, 1, shape, err);
}

static qvl_status add_norm(tensor_list *list, const char *prefix, const char *name, int64_t width,
                           qvl_err *err)
{
    char full[96];
    snprintf(full, sizeof full, "%s.%s.weight", prefix, name);
    return add(list, 1.0, NORM_STD, full, 1, &width, err);
}

static qvl_status add_tower(tensor_list *list, const qvl_vision_dims *vision, qvl_err *err)
{
    const int64_t D = vision->D, F = vision->F, merged = 4 * vision->D;
    const int64_t patch[5] = {D, 3, 2, 14, 14};
    char block[40];
    qvl_status rc = QVL_OK;
    QVL_TRY(add(list, 0.0, 1.0 / sqrt(QVL_PATCH_VALUES), "visual.patch_embed.proj.weight", 5, patch,
                err));
    for (int64_t i = 0; i < vision->L; i++) {
        snprintf(block, sizeof block, "visual.blocks.%" PRId64, i);
        QVL_TRY(add_norm(list, block, "norm1", D, err));
        QVL_TRY(add_norm(list, block, "norm2", D, err));
        QVL_TRY(add_linear(list, 1.0, block, "attn.qkv", 3 * D, D, true, err));
        QVL_TRY(add_linear(list, 1.0, block, "attn.proj", D, D, true, err));
        QVL_TRY(add_linear(list, 1.0, block, "mlp.gate_proj", F, D, true, err));
        QVL_TRY(add_linear(list, 1.0, block, "mlp.up_proj", F, D, true, err));
        QVL_TRY(add_linear(list, 1.0, block, "mlp.down_proj", D, F, true, err));
    }
    QVL_TRY(add_norm(list, "visual.merger", "ln_q", D, err));
    QVL_TRY(add_linear(list, 1.0, "visual.merger", "mlp.0", merged, merged, true, err));
    QVL_TRY(add_linear(list, 1.0, "visual.merger", "mlp.2", vision->out, merged, true, err));
out:
    return rc;
}

static qvl_status add_decoder(tensor_list *list, const qvl_text_dims *text, qvl_err *err)
{
    const int64_t D = text->D, F = text->F, queries = text->H * text->Dh,
                  keys = text->KV * text->Dh;
    const int64_t table[2] = {text->V, D};
    char layer[40];
    qvl_status rc = QVL_OK;
    QVL_TRY(add(list, 0.0, EMBEDDING_STD, "model.embed_tokens.weight", 2, table, err));
    for (int64_t i = 0; i < text->L; i++) {
        snprintf(layer, sizeof layer, "model.layers.%" PRId64, i);
        QVL_TRY(add_norm(list, layer, "input_layernorm", D, err));
        QVL_TRY(add_linear(list, QUERY_GAIN, layer, "self_attn.q_proj", queries, D, true, err));
        QVL_TRY(add_linear(list, 1.0, layer, "self_attn.k_proj", keys, D, true, err));
        QVL_TRY(add_linear(list, 1.0, layer, "self_attn.v_proj", keys, D, true, err));
        QVL_TRY(add_linear(list, 1.0, layer, "self_attn.o_proj", D, queries, false, err));
        QVL_TRY(add_norm(list, layer, "post_attention_layernorm", D, err));
        QVL_TRY(add_linear(list, 1.0, layer, "mlp.gate_proj", F, D, false, err));
        QVL_TRY(add_linear(list, 1.0, layer, "mlp.up_proj", F, D, false, err));
        QVL_TRY(add_linear(list, 1.0, layer, "mlp.down_proj", D, F, false, err));
    }
    QVL_TRY(add_norm(list, "model", "norm", D, err));
    if (!text->is_tied)
        QVL_TRY(add(list, 0.0, HEAD_GAIN / sqrt((double)D), "lm_head.weight", 2, table, err));
out:
    return rc;
}

qvl_status qvl_demo_tensors(qvl_demo_tensor **out, size_t *out_count, const qvl_model_dims *dims,
                            qvl_err *err)
{
    tensor_list list = {0};
    qvl_status rc = QVL_OK;
    QVL_TRY(add_tower(&list, &dims->vision, err));
    QVL_TRY(add_decoder(&list, &dims->text, err));
out:
    if (rc != QVL_OK) {
        free(list.tensors);
        list = (tensor_list){0};
    }
    *out = list.tensors;
    *out_count = list.count;
    return rc;
}
