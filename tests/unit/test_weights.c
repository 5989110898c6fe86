/* Loading weights: every tensor lands in its place of the fused and padded matrices, in every float
 * type, and a model that is not config.json's is refused. */
#include "src/model/weights.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "scratch_files.h"
#include "src/base/rng.h"
#include "world_of_one.h"

static const qvl_weight_layout FLOATS = {.width_align = 1, .act_bytes = sizeof(float)};

/* A model with both halves loaded on the CPU. */
typedef struct loaded {
    qvl_device *dev;
    qvl_model_dims dims;
    qvl_weight_files *files;
    qvl_weights *text, *vision;
} loaded;

static void load(loaded *m, const char *directory, int64_t width_align)
{
    qvl_log log;
    qvl_world world = world_of_one(&log);
    qvl_err err = {0};
    const qvl_weight_layout layout = {.width_align = width_align, .act_bytes = sizeof(float)};
    *m = (loaded){0};
    expect_ok(qvl_device_open_cpu(&m->dev, 2, &err), &err);
    expect_ok(qvl_model_dims_read(&m->dims, directory, &err), &err);
    expect_ok(qvl_weight_files_open(&m->files, directory, &err), &err);
    expect_ok(qvl_weights_create(&m->text, QVL_WEIGHTS_TEXT, &m->dims, &layout, &err), &err);
    expect_ok(qvl_weights_create(&m->vision, QVL_WEIGHTS_VISION, &m->dims, &layout, &err), &err);
    expect_ok(qvl_weights_check(m->text, m->files, &err), &err);
    expect_ok(qvl_weights_check(m->vision, m->files, &err), &err);
    const qvl_weight_source source = {
        .files = m->files, .world = &world, .n_threads = 3, .log = &log};
    expect_ok(qvl_weights_load(m->text, m->dev, &source, &err), &err);
    expect_ok(qvl_weights_load(m->vision, m->dev, &source, &err), &err);
}

static void unload(loaded *m)
{
    qvl_weights_destroy(m->text);
    qvl_weights_destroy(m->vision);
    qvl_weight_files_close(m->files);
    qvl_device_close(m->dev);
}

/* Value i of a tensor, decoded without the project's conversions. */
static float element(const qvl_tensor *tensor, int64_t i)
{
    if (tensor->type == QVL_TENSOR_F32) {
        float value;
        memcpy(&value, (const char *)tensor->data + 4 * i, 4);
        return value;
    }
    uint16_t bits;
    memcpy(&bits, (const char *)tensor->data + 2 * i, 2);
    const int n_fraction = tensor->type == QVL_TENSOR_BF16 ? 7 : 10;
    const int bias = tensor->type == QVL_TENSOR_BF16 ? 127 : 15;
    const int exponent = (bits & 0x7fff) >> n_fraction, fraction = bits & ((1 << n_fraction) - 1);
    const double value = exponent
                             ? ldexp((1 << n_fraction) + fraction, exponent - bias - n_fraction)
                             : ldexp(fraction, 1 - bias - n_fraction);
    return (float)(bits >> 15 ? -value : value);
}

/* Tensor name is rows x cols at row first of the matrix, whose rows are stride apart and hold zeros
 * from cols on. */
static void check(const loaded *m, const char *name, const void *matrix, int64_t first,
                  int64_t rows, int64_t cols, int64_t stride)
{
    const qvl_tensor *tensor = qvl_weight_files_find(m->files, name, NULL);
    const float *at = (const float *)matrix + first * stride;
    assert_non_null(tensor);
    assert_int_equal(qvl_tensor_elements(tensor), rows * cols);
    for (int64_t r = 0; r < rows; r++)
        for (int64_t c = 0; c < stride; c++) {
            const float want = c < cols ? element(tensor, r * cols + c) : 0.0f;
            if (memcmp(&at[r * stride + c], &want, sizeof want) != 0) {
                print_error("%s [%d,%d] is %g, expected %g\n", name, (int)r, (int)c,
                            (double)at[r * stride + c], (double)want);
                fail();
            }
        }
}

/* A tensor of layer or block i. */
static void check_at(const loaded *m, const char *format, int i, const void *matrix, int64_t first,
                     int64_t rows, int64_t cols, int64_t stride)
{
    char name[128];
    const char *number = strchr(format, '#');
    snprintf(name, sizeof name, "%.*s%d%s", (int)(number - format), format, i, number + 1);
    check(m, name, matrix, first, rows, cols, stride);
}

static void check_text(const loaded *m)
{
    const qvl_text_dims *d = &m->dims.text;
    const qvl_text_weights *w = qvl_weights_text(m->text);
    const int64_t q = d->H * d->Dh, kv = d->KV * d->Dh;
    check(m, "model.embed_tokens.weight", w->embed, 0, d->V, d->D, d->D);
    check(m, "model.norm.weight", w->norm, 0, 1, d->D, d->D);
    if (d->is_tied)
        assert_ptr_equal(w->head, w->embed);
    else
        check(m, "lm_head.weight", w->head, 0, d->V, d->D, d->D);
    assert_int_equal(w->Fp, d->F);
    for (int i = 0; i < (int)d->L; i++) {
        const qvl_layer_weights *l = &w->layers[i];
        check_at(m, "model.layers.#.input_layernorm.weight", i, l->norm1, 0, 1, d->D, d->D);
        check_at(m, "model.layers.#.post_attention_layernorm.weight", i, l->norm2, 0, 1, d->D,
                 d->D);
        check_at(m, "model.layers.#.self_attn.q_proj.weight", i, l->qkv, 0, q, d->D, d->D);
        check_at(m, "model.layers.#.self_attn.k_proj.weight", i, l->qkv, q, kv, d->D, d->D);
        check_at(m, "model.layers.#.self_attn.v_proj.weight", i, l->qkv, q + kv, kv, d->D, d->D);
        check_at(m, "model.layers.#.self_attn.q_proj.bias", i, l->qkv_bias, 0, q, 1, 1);
        check_at(m, "model.layers.#.self_attn.k_proj.bias", i, l->qkv_bias, q, kv, 1, 1);
        check_at(m, "model.layers.#.self_attn.v_proj.bias", i, l->qkv_bias, q + kv, kv, 1, 1);
        check_at(m, "model.layers.#.self_attn.o_proj.weight", i, l->o, 0, d->D, q, q);
        check_at(m, "model.layers.#.mlp.gate_proj.weight", i, l->gate_up, 0, d->F, d->D, d->D);
        check_at(m, "model.layers.#.mlp.up_proj.weight", i, l->gate_up, d->F, d->F, d->D, d->D);
        check_at(m, "model.layers.#.mlp.down_proj.weight", i, l->down, 0, d->D, d->F, d->F);
    }
}

static void check_zeros(const void *matrix, int64_t first, int64_t end, int64_t stride)
{
    for (int64_t i = first * stride; i < end * stride; i++)
        assert_true(((const float *)matrix)[i] == 0.0f);
}

static void check_vision(const loaded *m, int64_t expected_Fp)
{
    const qvl_vision_dims *d = &m->dims.vision;
    const qvl_vision_weights *w = qvl_weights_vision(m->vision);
    const int64_t D = d->D, F = d->F, Fp = w->Fp;
    assert_int_equal(Fp, expected_Fp);
    check(m, "visual.patch_embed.proj.weight", w->patch_embed, 0, D, QVL_PATCH_VALUES,
          QVL_PATCH_VALUES);
    check(m, "visual.merger.ln_q.weight", w->merger_norm, 0, 1, D, D);
    check(m, "visual.merger.mlp.0.weight", w->merger0, 0, 4 * D, 4 * D, 4 * D);
    check(m, "visual.merger.mlp.0.bias", w->merger0_bias, 0, 4 * D, 1, 1);
    check(m, "visual.merger.mlp.2.weight", w->merger2, 0, d->out, 4 * D, 4 * D);
    check(m, "visual.merger.mlp.2.bias", w->merger2_bias, 0, d->out, 1, 1);
    for (int i = 0; i < (int)d->L; i++) {
        const qvl_block_weights *b = &w->blocks[i];
        check_at(m, "visual.blocks.#.norm1.weight", i, b->norm1, 0, 1, D, D);
        check_at(m, "visual.blocks.#.norm2.weight", i, b->norm2, 0, 1, D, D);
        check_at(m, "visual.blocks.#.attn.qkv.weight", i, b->qkv, 0, 3 * D, D, D);
        check_at(m, "visual.blocks.#.attn.qkv.bias", i, b->qkv_bias, 0, 3 * D, 1, 1);
        check_at(m, "visual.blocks.#.attn.proj.weight", i, b->proj, 0, D, D, D);
        check_at(m, "visual.blocks.#.attn.proj.bias", i, b->proj_bias, 0, D, 1, 1);
        check_at(m, "visual.blocks.#.mlp.gate_proj.weight", i, b->gate_up, 0, F, D, D);
        check_at(m, "visual.blocks.#.mlp.up_proj.weight", i, b->gate_up, Fp, F, D, D);
        check_zeros(b->gate_up, F, Fp, D);
        check_zeros(b->gate_up, Fp + F, 2 * Fp, D);
        check_at(m, "visual.blocks.#.mlp.gate_proj.bias", i, b->gate_up_bias, 0, F, 1, 1);
        check_at(m, "visual.blocks.#.mlp.up_proj.bias", i, b->gate_up_bias, Fp, F, 1, 1);
        check_zeros(b->gate_up_bias, F, Fp, 1);
        check_zeros(b->gate_up_bias, Fp + F, 2 * Fp, 1);
        check_at(m, "visual.blocks.#.mlp.down_proj.weight", i, b->down, 0, D, F, Fp);
        check_at(m, "visual.blocks.#.mlp.down_proj.bias", i, b->down_bias, 0, D, 1, 1);
    }
}

/* float32 and bfloat16 files, both generations of names, tied and not, one file and shards. */
static void fixtures_land_in_their_places(void **state)
{
    static const struct {
        const char *path;
        bool is_bf16;
        int64_t F, Fp8;
    } CASES[] = {{QVL_TEST_FIXTURES "/tiny/model", false, 68, 72},
                 {QVL_TEST_FIXTURES "/tied/model", true, 68, 72},
                 {QVL_TEST_FIXTURES "/wide/model", true, 212, 216}};
    (void)state;
    for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++)
        for (int64_t align = 1; align <= 8; align += 7) {
            loaded m;
            load(&m, CASES[i].path, align);
            check_text(&m);
            check_vision(&m, align == 8 ? CASES[i].Fp8 : CASES[i].F);
            assert_int_equal(qvl_weights_text(m.text)->is_bf16, CASES[i].is_bf16);
            unload(&m);
        }
}

/* The tiny model again, in directory, with random bits of a type in every tensor. */
static void write_model(const char *directory, qvl_tensor_type type)
{
    enum { MAX_TENSORS = 128 };
    qvl_weight_files *files = NULL;
    qvl_tensor tensors[MAX_TENSORS];
    char path[QVL_PATH_BYTES];
    uint64_t rng = 5;
    assert_int_equal(qvl_weight_files_open(&files, QVL_TEST_FIXTURES "/tiny/model", NULL), QVL_OK);
    const size_t count = qvl_weight_files_count(files);
    assert_true(count <= MAX_TENSORS);
    for (size_t i = 0; i < count; i++) {
        tensors[i] = *qvl_weight_files_at(files, i, NULL);
        const size_t n = (size_t)qvl_tensor_elements(&tensors[i]);
        uint16_t *bits = malloc(n * sizeof *bits);
        assert_non_null(bits);
        for (size_t k = 0; k < n; k++) {
            bits[k] = (uint16_t)qvl_splitmix64(&rng);
            if ((bits[k] & 0x7c00) == 0x7c00) /* keep to numbers */
                bits[k] &= 0x83ff;
        }
        tensors[i].type = type;
        tensors[i].data = bits;
    }
    assert_int_equal(qvl_path_join(path, directory, "model.safetensors", NULL), QVL_OK);
    assert_int_equal(qvl_safetensors_write(path, tensors, count, NULL), QVL_OK);
    for (size_t i = 0; i < count; i++)
        free((void *)(uintptr_t)tensors[i].data);
    qvl_weight_files_close(files);
    assert_int_equal(qvl_path_join(path, directory, "config.json", NULL), QVL_OK);
    assert_int_equal(qvl_file_copy(path, QVL_TEST_FIXTURES "/tiny/model/config.json", NULL),
                     QVL_OK);
}

static void half_types_are_converted(void **state)
{
    char directory[QVL_PATH_BYTES];
    (void)state;
    for (int k = 0; k < 2; k++) {
        loaded m;
        scratch_directory(directory, "half");
        write_model(directory, k ? QVL_TENSOR_BF16 : QVL_TENSOR_F16);
        load(&m, directory, 8);
        check_text(&m);
        check_vision(&m, 72);
        assert_int_equal(qvl_weights_text(m.text)->is_bf16, k == 1);
        unload(&m);
    }
}

/* ---- refusals ------------------------------------------------------------------------------- */

/* The tiny model with tensor number i changed, or left out (new_name NULL and type unchanged). */
typedef struct change {
    const char *name, *new_name; /* new_name "": left out; NULL: kept */
    qvl_tensor_type type;
    bool is_reshaped;
    const char *words;
} change;

static qvl_status check_changed(const change *to, const char *directory, qvl_err *err)
{
    qvl_weight_files *files = NULL, *changed = NULL;
    qvl_weights *half[2] = {NULL, NULL};
    qvl_model_dims dims;
    qvl_tensor tensors[128];
    char path[QVL_PATH_BYTES];
    size_t kept = 0;
    qvl_status rc = QVL_OK;
    assert_int_equal(qvl_weight_files_open(&files, QVL_TEST_FIXTURES "/tiny/model", NULL), QVL_OK);
    for (size_t i = 0; i < qvl_weight_files_count(files); i++) {
        qvl_tensor *tensor = &tensors[kept++];
        *tensor = *qvl_weight_files_at(files, i, NULL);
        if (strcmp(tensor->name, to->name) != 0)
            continue;
        if (to->new_name && !to->new_name[0])
            kept--;
        else if (to->new_name)
            tensor->name = to->new_name;
        tensor->type = to->type;
        if (to->is_reshaped)
            tensor->shape[0]--;
    }
    assert_int_equal(qvl_path_join(path, directory, "model.safetensors", NULL), QVL_OK);
    assert_int_equal(qvl_safetensors_write(path, tensors, kept, NULL), QVL_OK);
    assert_int_equal(qvl_weight_files_open(&changed, directory, NULL), QVL_OK);
    assert_int_equal(qvl_model_dims_read(&dims, QVL_TEST_FIXTURES "/tiny/model", NULL), QVL_OK);
    for (int h = 0; h < 2; h++)
        assert_int_equal(qvl_weights_create(&half[h], (qvl_weights_half)h, &dims, &FLOATS, NULL),
                         QVL_OK);
    for (int h = 0; h < 2 && rc == QVL_OK; h++)
        rc = qvl_weights_check(half[h], changed, err);
    qvl_weights_destroy(half[0]);
    qvl_weights_destroy(half[1]);
    qvl_weight_files_close(changed);
    qvl_weight_files_close(files);
    return rc;
}

static void other_tensors_are_refused(void **state)
{
    static const change CASES[] = {
        {"model.layers.1.mlp.up_proj.weight", "", QVL_TENSOR_F32, false,
         "tensor model.layers.1.mlp.up_proj.weight is missing"},
        {"visual.blocks.3.attn.qkv.bias", "visual.blocks.4.attn.qkv.bias", QVL_TENSOR_F32, false,
         "tensor visual.blocks.3.attn.qkv.bias is missing"},
        {"model.norm.weight", NULL, QVL_TENSOR_F32, true,
         "model.safetensors: tensor model.norm.weight has shape [63], config.json asks for [64]"},
        {"model.layers.0.self_attn.k_proj.weight", NULL, QVL_TENSOR_F32, true,
         "has shape [31, 64], config.json asks for [32, 64]"},
        {"visual.patch_embed.proj.weight", NULL, QVL_TENSOR_F32, true,
         "has shape [47, 3, 2, 14, 14], config.json asks for [48, 3, 2, 14, 14]"},
        {"lm_head.weight", NULL, QVL_TENSOR_I32, false,
         "tensor lm_head.weight is I32, expected BF16, F16 or F32"},
        {"visual.merger.ln_q.weight", NULL, QVL_TENSOR_U8, false, "is U8"},
        {"model.layers.2.mlp.down_proj.weight", NULL, QVL_TENSOR_F8_E4M3, false, "is F8_E4M3"}};
    char directory[QVL_PATH_BYTES];
    (void)state;
    scratch_directory(directory, "changed");
    for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++) {
        qvl_err err = {0};
        expect_failure(check_changed(&CASES[i], directory, &err), QVL_EDATA, &err, CASES[i].words);
    }
}

/* The text model's widths carry adapters, so they are not padded. */
static void widths_must_suit_the_device(void **state)
{
    qvl_model_dims dims;
    const qvl_weight_layout layout = {.width_align = 128, .act_bytes = 2};
    qvl_weights *text = NULL;
    qvl_err err = {0};
    (void)state;
    assert_int_equal(qvl_model_dims_read(&dims, QVL_TEST_FIXTURES "/tiny/model", NULL), QVL_OK);
    expect_failure(qvl_weights_create(&text, QVL_WEIGHTS_TEXT, &dims, &layout, &err), QVL_EDEVICE,
                   &err, "hidden_size 64|intermediate_size 160|multiples of 128");
    assert_null(text);
    qvl_weights_destroy(NULL);
}

/* Rows of the adapted matrices lie further apart; columns behind them are zero until fold. */
static void tails_lie_behind_the_rows(void **state)
{
    const qvl_weight_layout layout = {
        .width_align = 8, .act_bytes = sizeof(float), .tail = {64, 0, 64, 128}};
    qvl_log log;
    qvl_world world = world_of_one(&log);
    qvl_weights *text = NULL;
    loaded m;
    qvl_err err = {0};
    (void)state;
    load(&m, QVL_TEST_FIXTURES "/tiny/model", 8);
    const qvl_weight_source source = {
        .files = m.files, .world = &world, .n_threads = 2, .log = &log};
    expect_ok(qvl_weights_create(&text, QVL_WEIGHTS_TEXT, &m.dims, &layout, &err), &err);
    expect_ok(qvl_weights_load(text, m.dev, &source, &err), &err);
    const qvl_text_weights *w = qvl_weights_text(text);
    const qvl_text_dims *d = &m.dims.text;
    const int64_t q = d->H * d->Dh;
    assert_int_equal(w->stride[QVL_GROUP_QKV], d->D + 64);
    assert_int_equal(w->stride[QVL_GROUP_O], q);
    assert_int_equal(w->stride[QVL_GROUP_DOWN], d->F + 128);
    check(&m, "model.layers.1.self_attn.k_proj.weight", w->layers[1].qkv, q, d->KV * d->Dh, d->D,
          d->D + 64);
    check(&m, "model.layers.1.self_attn.o_proj.weight", w->layers[1].o, 0, d->D, q, q);
    check(&m, "model.layers.2.mlp.up_proj.weight", w->layers[2].gate_up, d->F, d->F, d->D,
          d->D + 64);
    check(&m, "model.layers.0.mlp.down_proj.weight", w->layers[0].down, 0, d->D, d->F, d->F + 128);
    qvl_weights_destroy(text);
    unload(&m);
}

/* The plan has the parameters, padding of slots to 256 bytes aside. */
static void plan_holds_the_parameters(void **state)
{
    qvl_model_dims dims;
    qvl_weights *half[2];
    size_t asked = 0;
    (void)state;
    assert_int_equal(qvl_model_dims_read(&dims, QVL_TEST_FIXTURES "/wide/model", NULL), QVL_OK);
    for (int h = 0; h < 2; h++) {
        const qvl_weight_layout layout = {.width_align = 1, .act_bytes = 2};
        assert_int_equal(qvl_weights_create(&half[h], (qvl_weights_half)h, &dims, &layout, NULL),
                         QVL_OK);
        asked += qvl_weights_embed_bytes(half[h]);
        const qvl_plan *plan = qvl_weights_plan(half[h]);
        for (size_t i = 0; i < plan->n_slots; i++)
            asked += plan->slots[i].bytes;
        qvl_weights_destroy(half[h]);
    }
    assert_int_equal(asked, 2 * qvl_model_parameters(&dims));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(fixtures_land_in_their_places),
        cmocka_unit_test(half_types_are_converted),
        cmocka_unit_test(other_tensors_are_refused),
        cmocka_unit_test(widths_must_suit_the_device),
        cmocka_unit_test(tails_lie_behind_the_rows),
        cmocka_unit_test(plan_holds_the_parameters),
    };
    return cmocka_run_group_tests(tests, scratch_make, scratch_remove);
}
