#include "src/model/weights.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "src/base/memory.h"
#include "src/model/weights_internal.h"

void qvl_weights_destroy(qvl_weights *weights)
{
    if (!weights)
        return;
    if (weights->base)
        weights->dev->ops->release(weights->dev, weights->base, QVL_MEM_DEVICE);
    if (weights->embed_base)
        weights->dev->ops->release(weights->dev, weights->embed_base, weights->embed_where);
    qvl_plan_fini(&weights->plan);
    free(weights->items);
    free(weights->bindings);
    free(weights->text.layers);
    free(weights->vision.blocks);
    free(weights);
}

const qvl_plan *qvl_weights_plan(const qvl_weights *weights)
{
    return &weights->plan;
}
uint64_t qvl_weights_embed_bytes(const qvl_weights *weights)
{
    return weights->embed_bytes;
}
void qvl_weights_put_embed(qvl_weights *weights, qvl_mem where)
{
    weights->embed_where = where;
}
const qvl_text_weights *qvl_weights_text(const qvl_weights *weights)
{
    return &weights->text;
}
const qvl_vision_weights *qvl_weights_vision(const qvl_weights *weights)
{
    return &weights->vision;
}

/* ---- the list ----------------------------------------------------------------------------------
 */

static qvl_status add_slot(qvl_weights *w, void **member, const char *name, int64_t rows,
                           int64_t stride, qvl_err *err)
{
    int slot = 0;
    int64_t count = 0;
    if (qvl_mul_i64_overflows(&count, rows, stride))
        return qvl_fail(err, QVL_EDATA, "%s: %" PRId64 " x %" PRId64 " overflows", name, rows,
                        stride);
    qvl_status rc = qvl_plan_add(&w->plan, &slot, name, count, w->layout.act_bytes, err);
    if (rc == QVL_OK)
        rc = qvl_reserve(&w->bindings, &w->binding_capacity, w->plan.n_slots, sizeof *w->bindings,
                         "weights", err);
    if (rc == QVL_OK)
        w->bindings[slot] = member;
    return rc;
}

/* The next tensor of the newest slot. */
static qvl_status add_item(qvl_weights *w, int64_t first_row, int64_t rows, int64_t cols,
                           int64_t stride, bool is_vector, qvl_err *err, const char *format, ...)
    QVL_PRINTF(8, 9);

static qvl_status add_item(qvl_weights *w, int64_t first_row, int64_t rows, int64_t cols,
                           int64_t stride, bool is_vector, qvl_err *err, const char *format, ...)
{
    const qvl_status rc =
        qvl_reserve(&w->items, &w->capacity, w->n_items + 1, sizeof *w->items, "weights", err);
    if (rc != QVL_OK)
        return rc;
    weight_item *to = &w->items[w->n_items++];
    *to = (weight_item){.n_dims = is_vector ? 1 : 2,
                        .shape = {is_vector ? cols : rows, cols},
                        .slot = (int)w->plan.n_slots - 1,
                        .first_row = first_row,
                        .rows = rows,
                        .cols = cols,
                        .stride = stride};
    va_list args;
    va_start(args, format);
    vsnprintf(to->name, sizeof to->name, format, args);
    va_end(args);
    return QVL_OK;
}

/* A vector, or a matrix, that is one tensor and one slot. */
static qvl_status add_vector(qvl_weights *w, void **member, int64_t n, const char *name,
                             qvl_err *err)
{
    const qvl_status rc = add_slot(w, member, name, 1, n, err);
    return rc == QVL_OK ? add_item(w, 0, 1, n, n, true, err, "%s", name) : rc;
}

static qvl_status add_matrix(qvl_weights *w, void **member, int64_t rows, int64_t cols,
                             int64_t stride, const char *name, qvl_err *err)
{
    const qvl_status rc = add_slot(w, member, name, rows, stride, err);
    return rc == QVL_OK ? add_item(w, 0, rows, cols, stride, false, err, "%s", name) : rc;
}

static int64_t padded(const qvl_weights *w, int64_t width)
{
    return (width + w->layout.width_align - 1) / w->layout.width_align * w->layout.width_align;
}

static qvl_status add_layer(qvl_weights *w, int64_t l, qvl_err *err)
{
    const qvl_text_dims *t = &w->dims.text;
    const int64_t q = t->H * t->Dh, kv = t->KV * t->Dh, Fp = w->text.Fp;
    const int64_t *stride = w->text.stride;
    qvl_layer_weights *to = &w->text.layers[l];
    const int i = (int)l;
    char name[96];
    qvl_status rc = QVL_OK;
    snprintf(name, sizeof name, "model.layers.%d.input_layernorm.weight", i);
    QVL_TRY(add_vector(w, &to->norm1, t->D, name, err));
    snprintf(name, sizeof name, "model.layers.%d.post_attention_layernorm.weight", i);
    QVL_TRY(add_vector(w, &to->norm2, t->D, name, err));
    const struct {
        char letter;
        int64_t first, rows;
    } parts[] = {{'q', 0, q}, {'k', q, kv}, {'v', q + kv, kv}};
    snprintf(name, sizeof name, "layer %d qkv", i);
    QVL_TRY(add_slot(w, &to->qkv, name, q + 2 * kv, stride[QVL_GROUP_QKV], err));
    for (int p = 0; p < 3; p++)
        QVL_TRY(add_item(w, parts[p].first, parts[p].rows, t->D, stride[QVL_GROUP_QKV], false, err,
                         "model.layers.%d.self_attn.%c_proj.weight", i, parts[p].letter));
    snprintf(name, sizeof name, "layer %d qkv bias", i);
    QVL_TRY(add_slot(w, &to->qkv_bias, name, q + 2 * kv, 1, err));
    for (int p = 0; p < 3; p++) /* rows of one element, so that first_row is the offset */
        QVL_TRY(add_item(w, parts[p].first, 1, parts[p].rows, 1, true, err,
                         "model.layers.%d.self_attn.%c_proj.bias", i, parts[p].letter));
    snprintf(name, sizeof name, "model.layers.%d.self_attn.o_proj.weight", i);
    QVL_TRY(add_matrix(w, &to->o, t->D, q, stride[QVL_GROUP_O], name, err));
    snprintf(name, sizeof name, "layer %d gate_up", i);
    QVL_TRY(add_slot(w, &to->gate_up, name, 2 * Fp, stride[QVL_GROUP_GATE_UP], err));
    QVL_TRY(add_item(w, 0, t->F, t->D, stride[QVL_GROUP_GATE_UP], false, err,
                     "model.layers.%d.mlp.gate_proj.weight", i));
    QVL_TRY(add_item(w, Fp, t->F, t->D, stride[QVL_GROUP_GATE_UP], false, err,
                     "model.layers.%d.mlp.up_proj.weight", i));
    snprintf(name, sizeof name, "model.layers.%d.mlp.down_proj.weight", i);
    QVL_TRY(add_matrix(w, &to->down, t->D, t->F, stride[QVL_GROUP_DOWN], name, err));
out:
    return rc;
}

static qvl_status add_embed(qvl_weights *w, int64_t V, int64_t D, qvl_err *err)
{
    int64_t count = 0;
    if (qvl_mul_i64_overflows(&count, V, D) || count > INT64_MAX / 8)
        return qvl_fail(err, QVL_EDATA, "token embedding: %" PRId64 " x %" PRId64 " overflows", V,
                        D);
    w->embed_bytes = (uint64_t)count * w->layout.act_bytes;
    const qvl_status rc = add_item(w, 0, V, D, D, false, err, "model.embed_tokens.weight");
    if (rc == QVL_OK)
        w->items[w->n_items - 1].slot = QVL_EMBED_SLOT;
    return rc;
}

static qvl_status list_text(qvl_weights *w, qvl_err *err)
{
    const qvl_text_dims *t = &w->dims.text;
    qvl_status rc = QVL_OK;
    w->text.Fp = t->F; /* adapters of down have F columns, so it cannot be padded */
    if (padded(w, t->F) != t->F || padded(w, t->D) != t->D || padded(w, t->V) != t->V)
        return qvl_fail(err, QVL_EDEVICE,
                        "hidden_size %" PRId64 ", intermediate_size %" PRId64
                        " and vocab_size %" PRId64 " must be multiples of %" PRId64
                        " on this device",
                        t->D, t->F, t->V, w->layout.width_align);
    w->text.stride[QVL_GROUP_QKV] = t->D + w->layout.tail[QVL_GROUP_QKV];
    w->text.stride[QVL_GROUP_O] = t->H * t->Dh + w->layout.tail[QVL_GROUP_O];
    w->text.stride[QVL_GROUP_GATE_UP] = t->D + w->layout.tail[QVL_GROUP_GATE_UP];
    w->text.stride[QVL_GROUP_DOWN] = t->F + w->layout.tail[QVL_GROUP_DOWN];
    QVL_TRY(qvl_alloc(&w->text.layers, (size_t)t->L, sizeof *w->text.layers, "layers", err));
    QVL_TRY(add_embed(w, t->V, t->D, err));
    for (int64_t l = 0; l < t->L; l++)
        QVL_TRY(add_layer(w, l, err));
    QVL_TRY(add_vector(w, &w->text.norm, t->D, "model.norm.weight", err));
    if (!t->is_tied)
        QVL_TRY(add_matrix(w, &w->text.head, t->V, t->D, t->D, "lm_head.weight", err));
out:
    return rc;
}

/* A weight and its bias under one prefix. */
static qvl_status add_affine(qvl_weights *w, void **matrix, void **bias, int64_t rows, int64_t cols,
                             int64_t stride, qvl_err *err, const char *prefix)
{
    char name[96];
    snprintf(name, sizeof name, "%.80s.weight", prefix);
    const qvl_status rc = add_matrix(w, matrix, rows, cols, stride, name, err);
    if (rc != QVL_OK)
        return rc;
    snprintf(name, sizeof name, "%.80s.bias", prefix);
    return add_vector(w, bias, rows, name, err);
}

static qvl_status add_block(qvl_weights *w, int64_t l, qvl_err *err)
{
    const qvl_vision_dims *v = &w->dims.vision;
    const int64_t Fp = w->vision.Fp;
    qvl_block_weights *to = &w->vision.blocks[l];
    const int i = (int)l;
    char name[96];
    qvl_status rc = QVL_OK;
    snprintf(name, sizeof name, "visual.blocks.%d.norm1.weight", i);
    QVL_TRY(add_vector(w, &to->norm1, v->D, name, err));
    snprintf(name, sizeof name, "visual.blocks.%d.norm2.weight", i);
    QVL_TRY(add_vector(w, &to->norm2, v->D, name, err));
    snprintf(name, sizeof name, "visual.blocks.%d.attn.qkv", i);
    QVL_TRY(add_affine(w, &to->qkv, &to->qkv_bias, 3 * v->D, v->D, v->D, err, name));
    snprintf(name, sizeof name, "visual.blocks.%d.attn.proj", i);
    QVL_TRY(add_affine(w, &to->proj, &to->proj_bias, v->D, v->D, v->D, err, name));
    snprintf(name, sizeof name, "block %d gate_up", i);
    QVL_TRY(add_slot(w, &to->gate_up, name, 2 * Fp, v->D, err));
    QVL_TRY(
        add_item(w, 0, v->F, v->D, v->D, false, err, "visual.blocks.%d.mlp.gate_proj.weight", i));
    QVL_TRY(
        add_item(w, Fp, v->F, v->D, v->D, false, err, "visual.blocks.%d.mlp.up_proj.weight", i));
    snprintf(name, sizeof name, "block %d gate_up bias", i);
    QVL_TRY(add_slot(w, &to->gate_up_bias, name, 2 * Fp, 1, err));
    QVL_TRY(add_item(w, 0, 1, v->F, 1, true, err, "visual.blocks.%d.mlp.gate_proj.bias", i));
    QVL_TRY(add_item(w, Fp, 1, v->F, 1, true, err, "visual.blocks.%d.mlp.up_proj.bias", i));
    snprintf(name, sizeof name, "visual.blocks.%d.mlp.down_proj", i);
    QVL_TRY(add_affine(w, &to->down, &to->down_bias, v->D, v->F, Fp, err, name));
out:
    return rc;
}

static qvl_status list_vision(qvl_weights *w, qvl_err *err)
{
    const qvl_vision_dims *v = &w->dims.vision;
    const int64_t merged = 4 * v->D;
    qvl_vision_weights *to = &w->vision;
    qvl_status rc = QVL_OK;
    to->Fp = padded(w, v->F);
    QVL_TRY(qvl_alloc(&to->blocks, (size_t)v->L, sizeof *to->blocks, "vision blocks", err));
    QVL_TRY(add_matrix(w, &to->patch_embed, v->D, QVL_PATCH_VALUES, QVL_PATCH_VALUES,
                       "visual.patch_embed.proj.weight", err));
    weight_item *patch = &w->items[w->n_items - 1];
    patch->n_dims = 5;
    memcpy(patch->shape, (const int64_t[5]){v->D, 3, 2, 14, 14}, sizeof patch->shape);
    for (int64_t l = 0; l < v->L; l++)
        QVL_TRY(add_block(w, l, err));
    QVL_TRY(add_vector(w, &to->merger_norm, v->D, "visual.merger.ln_q.weight", err));
    QVL_TRY(add_affine(w, &to->merger0, &to->merger0_bias, merged, merged, merged, err,
                       "visual.merger.mlp.0"));
    QVL_TRY(add_affine(w, &to->merger2, &to->merger2_bias, v->out, merged, merged, err,
                       "visual.merger.mlp.2"));
out:
    return rc;
}

qvl_status qvl_weights_create(qvl_weights **out, qvl_weights_half half, const qvl_model_dims *dims,
                              const qvl_weight_layout *layout, qvl_err *err)
{
    qvl_weights *weights = NULL;
    qvl_status rc = qvl_alloc(&weights, 1, sizeof *weights, "weights", err);
    if (rc != QVL_OK)
        return rc;
    weights->half = half;
    weights->dims = *dims;
    weights->layout = *layout;
    rc = half == QVL_WEIGHTS_TEXT ? list_text(weights, err) : list_vision(weights, err);
    if (rc != QVL_OK) {
        qvl_weights_destroy(weights);
        return rc;
    }
    *out = weights;
    return QVL_OK;
}

/* ---- checks ------------------------------------------------------------------------
 */

qvl_status qvl_weights_check(const qvl_weights *weights, const qvl_weight_files *files,
                             qvl_err *err)
{
    for (size_t i = 0; i < weights->n_items; i++) {
        const weight_item *want = &weights->items[i];
        const qvl_safetensors *file = NULL;
        const qvl_tensor *found = qvl_weight_files_find(files, want->name, &file);
        qvl_dtype type;
        char got[160], expected[160];
        if (!found)
            return qvl_fail(err, QVL_EDATA, "%s: tensor %s is missing",
                            qvl_weight_files_directory(files), want->name);
        if (found->n_dims != want->n_dims ||
            memcmp(found->shape, want->shape, (size_t)want->n_dims * sizeof *want->shape) != 0)
            return qvl_fail(err, QVL_EDATA, "%s: tensor %s has shape %s, config.json asks for %s",
                            qvl_safetensors_path(file), found->name,
                            qvl_tensor_format_shape(got, found->shape, found->n_dims),
                            qvl_tensor_format_shape(expected, want->shape, want->n_dims));
        if (!qvl_tensor_float_type(found, &type))
            return qvl_fail(err, QVL_EDATA, "%s: tensor %s is %s, expected BF16, F16 or F32",
                            qvl_safetensors_path(file), found->name,
                            qvl_tensor_type_name(found->type));
    }
    return QVL_OK;
}

static bool expects(const qvl_weights *weights, const char *name)
{
    for (size_t i = 0; i < weights->n_items; i++)
        if (strcmp(weights->items[i].name, name) == 0)
            return true;
    return false;
}

static bool is_of_a_layer(const char *name)
{
    return strncmp(name, "model.layers.", 13) == 0 || strncmp(name, "visual.blocks.", 14) == 0;
}

size_t qvl_weights_unknown(const qvl_weight_files *files, const qvl_weights *text,
                           const qvl_weights *vision, const char **out_first, bool *out_is_layer)
{
    size_t n_unknown = 0;
    *out_first = NULL;
    *out_is_layer = false;
    for (size_t i = 0; i < qvl_weight_files_count(files); i++) {
        const char *name = qvl_weight_files_name(files, i);
        if (expects(text, name) || expects(vision, name) ||
            (text->dims.text.is_tied && strcmp(name, "lm_head.weight") == 0))
            continue;
        if (n_unknown++ == 0 || (!*out_is_layer && is_of_a_layer(name))) {
            *out_first = name;
            *out_is_layer = is_of_a_layer(name);
        }
    }
    return n_unknown;
}
