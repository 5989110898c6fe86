#include "src/model/vision.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>

#include "src/base/memory.h"
#include "src/model/vision_windows.h"

enum {
    RGB,
    UNIT_ORDER,
    POSITIONS,
    CU_WINDOWS,
    CU_WHOLE,
    INV_FREQ,
    AXIS,
    COSINE,
    SINE,
    PATCHES,
    X,
    H,
    DELTA,
    QKV,
    ATTN,
    GATE_UP,
    MID,
    MERGED,
    UNITS,
    FEATURES,
    N_SLOTS
};

struct qvl_vision {
    qvl_model_dims dims;
    int64_t max_patches, Fp;
    size_t act_bytes;
    int slots[N_SLOTS];
    /* bound */
    qvl_device *dev;
    const qvl_vision_weights *weights;
    void *at[N_SLOTS];
    int32_t *host; /* unit_order, positions, cu_windows on their way to the device */
    /* the image in work */
    int64_t P, n_windows;
    const int32_t *cu_windows_host;
    int32_t cu_whole[2];
};

void qvl_vision_destroy(qvl_vision *vision)
{
    if (!vision)
        return;
    free(vision->host);
    free(vision);
}

qvl_status qvl_vision_create(qvl_vision **out, const qvl_model_dims *dims, int64_t max_patches,
                             size_t act_bytes, int64_t Fp, qvl_plan *plan, qvl_err *err)
{
    const qvl_vision_dims *v = &dims->vision;
    const int64_t P = max_patches;
    const size_t act = act_bytes;
    const struct {
        const char *name;
        int64_t count;
        size_t element_bytes;
    } table[N_SLOTS] = {[RGB] = {"vision rgb", P * 14 * 14 * 3, 1},
                        [UNIT_ORDER] = {"vision unit order", P / 4, 4},
                        [POSITIONS] = {"vision positions", 2 * P, 4},
                        [CU_WINDOWS] = {"vision windows", P / 4 + 1, 4},
                        [CU_WHOLE] = {"vision whole image", 2, 4},
                        [INV_FREQ] = {"vision rotary frequencies", v->Dh / 2, 4},
                        [AXIS] = {"vision rotary axes", v->Dh / 2, 4},
                        [COSINE] = {"vision rotary cosine", P * (v->Dh / 2), 4},
                        [SINE] = {"vision rotary sine", P * (v->Dh / 2), 4},
                        [PATCHES] = {"vision patches", P * QVL_PATCH_VALUES, act},
                        [X] = {"vision x", P * v->D, act},
                        [H] = {"vision norm", P * v->D, act},
                        [DELTA] = {"vision delta", P * v->D, act},
                        [QKV] = {"vision qkv", P * 3 * v->D, act},
                        [ATTN] = {"vision attention", P * v->D, act},
                        [GATE_UP] = {"vision gate_up", P * 2 * Fp, act},
                        [MID] = {"vision swiglu", P * Fp, act},
                        [MERGED] = {"vision merger hidden", P * v->D, act},
                        [UNITS] = {"vision merger out", P / 4 * v->out, act},
                        [FEATURES] = {"vision features", P / 4 * v->out, act}};
    qvl_vision *vision = NULL;
    qvl_status rc = qvl_alloc(&vision, 1, sizeof *vision, "vision tower", err);
    if (rc != QVL_OK)
        return rc;
    vision->dims = *dims;
    vision->max_patches = max_patches;
    vision->Fp = Fp;
    vision->act_bytes = act_bytes;
    for (int i = 0; i < N_SLOTS; i++)
        QVL_TRY(qvl_plan_add(plan, &vision->slots[i], table[i].name, table[i].count,
                             table[i].element_bytes, err));
    QVL_TRY(qvl_alloc(&vision->host, (size_t)(P / 4 + 2 * P + P / 4 + 1), sizeof *vision->host,
                      "vision windows", err));
    *out = vision;
    return QVL_OK;
out:
    qvl_vision_destroy(vision);
    return rc;
}

/* Pairs 0 .. Dh/4-1 turn by the row, the next Dh/4 by the column, with the same frequencies. */
static qvl_status upload_frequencies(qvl_vision *vision, qvl_err *err)
{
    const int64_t half = vision->dims.vision.Dh / 2, quarter = half / 2;
    const qvl_ops *ops = vision->dev->ops;
    float *inv_freq = NULL;
    int32_t *axis = NULL;
    qvl_status rc = QVL_OK;
    QVL_TRY(qvl_alloc(&inv_freq, (size_t)half, sizeof *inv_freq, "rotary", err));
    QVL_TRY(qvl_alloc(&axis, (size_t)half, sizeof *axis, "rotary", err));
    for (int64_t i = 0; i < half; i++) {
        const float exponent = (float)(2 * (i % quarter)) / (float)half;
        inv_freq[i] = 1.0f / (float)pow(10000.0, exponent);
        axis[i] = i >= quarter;
    }
    QVL_TRY(ops->upload(vision->dev, vision->at[INV_FREQ], inv_freq,
                        (size_t)half * sizeof *inv_freq, QVL_LANE_COMPUTE, err));
    QVL_TRY(ops->upload(vision->dev, vision->at[AXIS], axis, (size_t)half * sizeof *axis,
                        QVL_LANE_COMPUTE, err));
    QVL_TRY(ops->wait(vision->dev, QVL_LANE_COMPUTE, err));
out:
    free(inv_freq);
    free(axis);
    return rc;
}

qvl_status qvl_vision_bind(qvl_vision *vision, qvl_device *dev, const qvl_plan *plan, void *base,
                           const qvl_vision_weights *weights, qvl_err *err)
{
    vision->dev = dev;
    vision->weights = weights;
    for (int i = 0; i < N_SLOTS; i++)
        vision->at[i] = qvl_plan_at(plan, base, vision->slots[i]);
    return upload_frequencies(vision, err);
}

qvl_workspace_limits qvl_vision_limits(const qvl_vision *vision)
{
    const qvl_vision_dims *v = &vision->dims.vision;
    return (qvl_workspace_limits){.tokens = vision->max_patches,
                                  .sequence = vision->max_patches,
                                  .heads = v->H,
                                  .hidden = v->D};
}

static qvl_status upload(qvl_vision *vision, int slot, const void *host, size_t bytes, qvl_err *err)
{
    return vision->dev->ops->upload(vision->dev, vision->at[slot], host, bytes, QVL_LANE_COMPUTE,
                                    err);
}

/* Everything that depends on the grid, and the pixels. */
static qvl_status upload_image(qvl_vision *vision, const uint8_t *rgb, int64_t rows, int64_t cols,
                               qvl_err *err)
{
    const int64_t P = rows * cols;
    int32_t *unit_order = vision->host, *positions = unit_order + P / 4;
    int32_t *cu_windows = positions + 2 * P;
    qvl_status rc = QVL_OK;
    vision->P = P;
    vision->cu_windows_host = cu_windows;
    vision->cu_whole[0] = 0;
    vision->cu_whole[1] = (int32_t)P;
    qvl_vision_windows(unit_order, positions, cu_windows, &vision->n_windows, rows, cols,
                       vision->dims.vision.window_units);
    QVL_TRY(upload(vision, RGB, rgb, (size_t)P * 14 * 14 * 3, err));
    QVL_TRY(upload(vision, UNIT_ORDER, unit_order, (size_t)(P / 4) * sizeof(int32_t), err));
    QVL_TRY(upload(vision, POSITIONS, positions, (size_t)(2 * P) * sizeof(int32_t), err));
    QVL_TRY(upload(vision, CU_WINDOWS, cu_windows,
                   (size_t)(vision->n_windows + 1) * sizeof(int32_t), err));
    QVL_TRY(upload(vision, CU_WHOLE, vision->cu_whole, sizeof vision->cu_whole, err));
out:
    return rc;
}

static qvl_status affine(qvl_vision *vision, void *y, const void *x, const void *weight,
                         const void *bias, int64_t T, int64_t in, int64_t out, qvl_err *err)
{
    const qvl_linear linear = {.weight = weight, .bias = bias, .in = in, .out = out};
    return vision->dev->ops->linear(
        vision->dev, &(qvl_linear_args){.linear = &linear, .y = y, .x = x, .T = T}, err);
}

/* x += delta (unless NULL); h = norm(x) */
static qvl_status norm(qvl_vision *vision, const void *delta, const void *weight, qvl_err *err)
{
    return vision->dev->ops->norm(vision->dev,
                                  &(qvl_norm_args){.y = vision->at[H],
                                                   .x_out = delta ? vision->at[X] : NULL,
                                                   .x = vision->at[X],
                                                   .delta = delta,
                                                   .weight = weight,
                                                   .T = vision->P,
                                                   .D = vision->dims.vision.D,
                                                   .eps = (float)vision->dims.vision.eps},
                                  err);
}

static qvl_status start_image(qvl_vision *vision, const uint8_t *rgb, int64_t rows, int64_t cols,
                              qvl_err *err)
{
    const qvl_ops *ops = vision->dev->ops;
    qvl_patches_args patches = {.out = vision->at[PATCHES],
                                .rgb = vision->at[RGB],
                                .unit_order = vision->at[UNIT_ORDER],
                                .rows = rows,
                                .cols = cols};
    qvl_status rc = QVL_OK;
    for (int c = 0; c < 3; c++) {
        patches.mean[c] = (float)vision->dims.image_mean[c];
        patches.stddev[c] = (float)vision->dims.image_std[c];
    }
    QVL_TRY(upload_image(vision, rgb, rows, cols, err));
    QVL_TRY(ops->patches(vision->dev, &patches, err));
    QVL_TRY(ops->rope_table(vision->dev,
                            &(qvl_rope_table_args){.cosine = vision->at[COSINE],
                                                   .sine = vision->at[SINE],
                                                   .positions = vision->at[POSITIONS],
                                                   .inv_freq = vision->at[INV_FREQ],
                                                   .axis = vision->at[AXIS],
                                                   .T = vision->P,
                                                   .n_freq = vision->dims.vision.Dh / 2},
                            err));
    QVL_TRY(affine(vision, vision->at[X], vision->at[PATCHES], vision->weights->patch_embed, NULL,
                   vision->P, QVL_PATCH_VALUES, vision->dims.vision.D, err));
out:
    return rc;
}

static qvl_status attend(qvl_vision *vision, bool is_full, qvl_err *err)
{
    const qvl_vision_dims *v = &vision->dims.vision;
    const qvl_attention_args args = {.out = vision->at[ATTN],
                                     .qkv = vision->at[QKV],
                                     .cu_seqlens = vision->at[is_full ? CU_WHOLE : CU_WINDOWS],
                                     .cu_seqlens_host =
                                         is_full ? vision->cu_whole : vision->cu_windows_host,
                                     .T = vision->P,
                                     .B = is_full ? 1 : vision->n_windows,
                                     .H = v->H,
                                     .KV = v->H,
                                     .Dh = v->Dh,
                                     .scale = 1.0f / sqrtf((float)v->Dh)};
    return vision->dev->ops->attention(vision->dev, &args, err);
}

static qvl_status run_block(qvl_vision *vision, int64_t l, qvl_err *err)
{
    const qvl_vision_dims *v = &vision->dims.vision;
    const qvl_block_weights *w = &vision->weights->blocks[l];
    const qvl_ops *ops = vision->dev->ops;
    const int64_t P = vision->P, D = v->D, Fp = vision->Fp;
    void **at = vision->at;
    qvl_status rc = QVL_OK;
    QVL_TRY(norm(vision, l ? at[DELTA] : NULL, w->norm1, err));
    QVL_TRY(affine(vision, at[QKV], at[H], w->qkv, w->qkv_bias, P, D, 3 * D, err));
    QVL_TRY(ops->rotate(vision->dev,
                        &(qvl_rotate_args){.x = at[QKV],
                                           .cosine = at[COSINE],
                                           .sine = at[SINE],
                                           .T = P,
                                           .stride = 3 * D,
                                           .n_heads = 2 * v->H,
                                           .Dh = v->Dh},
                        err));
    QVL_TRY(attend(vision, v->is_full_attention[l], err));
    QVL_TRY(affine(vision, at[DELTA], at[ATTN], w->proj, w->proj_bias, P, D, D, err));
    QVL_TRY(norm(vision, at[DELTA], w->norm2, err));
    QVL_TRY(affine(vision, at[GATE_UP], at[H], w->gate_up, w->gate_up_bias, P, D, 2 * Fp, err));
    QVL_TRY(ops->swiglu(vision->dev,
                        &(qvl_swiglu_args){.h = at[MID], .gate_up = at[GATE_UP], .T = P, .F = Fp},
                        err));
    QVL_TRY(affine(vision, at[DELTA], at[MID], w->down, w->down_bias, P, Fp, D, err));
out:
    return rc;
}

/* Four patches of a unit become one row; rows go back to the image's own order. */
static qvl_status merge(qvl_vision *vision, qvl_err *err)
{
    const qvl_vision_weights *w = vision->weights;
    const int64_t units = vision->P / 4, merged = 4 * vision->dims.vision.D;
    const int64_t out_width = vision->dims.vision.out;
    void **at = vision->at;
    qvl_status rc = QVL_OK;
    QVL_TRY(norm(vision, at[DELTA], w->merger_norm, err));
    QVL_TRY(
        affine(vision, at[MERGED], at[H], w->merger0, w->merger0_bias, units, merged, merged, err));
    QVL_TRY(vision->dev->ops->gelu(vision->dev,
                                   &(qvl_gelu_args){.x = at[MERGED], .n = units * merged}, err));
    QVL_TRY(affine(vision, at[UNITS], at[MERGED], w->merger2, w->merger2_bias, units, merged,
                   out_width, err));
    QVL_TRY(vision->dev->ops->move_rows(vision->dev,
                                        &(qvl_move_rows_args){.dst = at[FEATURES],
                                                              .src = at[UNITS],
                                                              .dst_rows = at[UNIT_ORDER],
                                                              .n_rows = units,
                                                              .D = out_width},
                                        err));
out:
    return rc;
}

qvl_status qvl_vision_run(qvl_vision *vision, void *features, const uint8_t *rgb, int64_t rows,
                          int64_t cols, qvl_err *err)
{
    const qvl_ops *ops = vision->dev->ops;
    qvl_status rc = QVL_OK;
    if (rows < 2 || cols < 2 || rows % 2 || cols % 2 || rows * cols > vision->max_patches)
        return qvl_fail(err, QVL_EINTERNAL,
                        "vision tower: grid %" PRId64 " x %" PRId64 ", planned for %" PRId64
                        " patches",
                        rows, cols, vision->max_patches);
    QVL_TRY(start_image(vision, rgb, rows, cols, err));
    for (int64_t l = 0; l < vision->dims.vision.L; l++)
        QVL_TRY(run_block(vision, l, err));
    QVL_TRY(merge(vision, err));
    QVL_TRY(ops->download(vision->dev, features, vision->at[FEATURES],
                          (size_t)(rows * cols / 4 * vision->dims.vision.out) * vision->act_bytes,
                          QVL_LANE_COMPUTE, err));
    QVL_TRY(ops->wait(vision->dev, QVL_LANE_COMPUTE, err));
out:
    return rc;
}
