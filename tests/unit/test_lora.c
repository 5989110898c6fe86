/* The adapters' buffer: where every matrix lies, how they start, and how they hang on a linear. */
#include "src/model/lora.h"

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

static const qvl_model_dims DIMS_7B = {
    .text = {.D = 3584, .F = 18944, .L = 28, .H = 28, .KV = 4, .Dh = 128}};
static const qvl_model_dims DIMS_3B = {
    .text = {.D = 2048, .F = 11008, .L = 36, .H = 16, .KV = 2, .Dh = 128}};
static const qvl_model_dims SMALL = {
    .text = {.D = 64, .F = 160, .L = 3, .H = 4, .KV = 2, .Dh = 16}};

static qvl_lora *make(const qvl_model_dims *dims, int64_t rank, const char *targets)
{
    qvl_lora_options options = {.rank = rank, .alpha = 16.0};
    qvl_lora *lora = NULL;
    qvl_err err = {0};
    expect_ok(qvl_lora_parse_targets(options.targets, targets, &err), &err);
    expect_ok(qvl_lora_create(&lora, dims, &options, &err), &err);
    return lora;
}

static void published_sizes(void **state)
{
    static const struct {
        const qvl_model_dims *dims;
        int64_t rank, modules, parameters;
    } CASES[] = {
        {&DIMS_7B, 8, 196, 20185088}, {&DIMS_7B, 64, 196, 161480704}, {&DIMS_3B, 8, 252, 14966784}};
    (void)state;
    for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++) {
        qvl_lora *lora = make(CASES[i].dims, CASES[i].rank, "all");
        assert_int_equal(qvl_lora_parameters(lora), CASES[i].parameters);
        assert_int_equal(qvl_lora_modules(lora), CASES[i].modules);
        qvl_lora_destroy(lora);
    }
    qvl_lora_destroy(NULL);
}

static void targets_are_parsed(void **state)
{
    static const struct {
        const char *text;
        int mask; /* bit s: site s */
    } GOOD[] = {{"all", 127},
                {" all ", 127},
                {"q_proj", 1},
                {"q_proj,v_proj", 5},
                {"down_proj, o_proj", 72},
                {"up_proj ,gate_proj,k_proj", 50},
                {"q_proj,all", 127},
                {"q_proj,q_proj", 1}};
    static const char *const BAD[] = {"",
                                      ",",
                                      "q_proj,",
                                      ",q_proj",
                                      "q",
                                      "q_projx",
                                      "qkv",
                                      "all,x",
                                      "alls",
                                      "lm_head",
                                      "Q_proj",
                                      "q_proj v_proj",
                                      "q_proj,,v_proj"};
    bool targets[QVL_N_SITES];
    qvl_err err = {0};
    (void)state;
    for (size_t i = 0; i < sizeof GOOD / sizeof *GOOD; i++) {
        expect_ok(qvl_lora_parse_targets(targets, GOOD[i].text, &err), &err);
        for (int s = 0; s < QVL_N_SITES; s++)
            assert_int_equal(targets[s], GOOD[i].mask >> s & 1);
    }
    for (size_t i = 0; i < sizeof BAD / sizeof *BAD; i++)
        expect_failure(qvl_lora_parse_targets(targets, BAD[i], &err), QVL_ECONFIG, &err,
                       "lora_target");
}

static int compare_matrices(const void *a, const void *b)
{
    const qvl_lora_matrix *x = a, *y = b;
    return x->offset < y->offset ? -1 : x->offset > y->offset;
}

/* Matrices in PEFT's order of modules; their places tile the buffer. */
static void matrices_tile_the_buffer(void **state)
{
    static const char *const TARGETS[] = {"all", "q_proj,v_proj", "k_proj,gate_proj,up_proj",
                                          "down_proj", "o_proj,up_proj"};
    (void)state;
    for (size_t t = 0; t < sizeof TARGETS / sizeof *TARGETS; t++) {
        qvl_lora *lora = make(&SMALL, 4, TARGETS[t]);
        const int64_t n = 2 * qvl_lora_modules(lora);
        qvl_lora_matrix *all = malloc((size_t)n * sizeof *all);
        int64_t at = 0;
        assert_non_null(all);
        for (int64_t i = 0; i < n; i++) {
            all[i] = qvl_lora_matrix_at(lora, i);
            assert_int_equal(all[i].is_b, i % 2);
            assert_int_equal(all[i].is_b ? all[i].cols : all[i].rows, 4);
            if (i >= 2) {
                const int before = all[i - 2].layer * QVL_N_SITES + (int)all[i - 2].site;
                assert_true(all[i].layer * QVL_N_SITES + (int)all[i].site > before);
            }
        }
        qsort(all, (size_t)n, sizeof *all, compare_matrices);
        for (int64_t i = 0; i < n; i++) {
            assert_int_equal(all[i].offset, at);
            at += all[i].rows * all[i].cols;
        }
        assert_int_equal(at, qvl_lora_parameters(lora));
        free(all);
        qvl_lora_destroy(lora);
    }
}

/* The As of a group are one matrix: one after the other, all with the same width. */
static void a_groups_as_are_one_matrix(void **state)
{
    static const qvl_site GROUPS[][3] = {{QVL_SITE_Q, QVL_SITE_K, QVL_SITE_V},
                                         {QVL_SITE_GATE, QVL_SITE_UP, QVL_SITE_UP}};
    qvl_lora *lora = make(&SMALL, 4, "all");
    (void)state;
    for (int layer = 0; layer < 3; layer++)
        for (int g = 0; g < 2; g++)
            for (int k = 0; k + 1 < 3 - g; k++) {
                const qvl_lora_matrix a =
                    qvl_lora_matrix_at(lora, 2 * (layer * QVL_N_SITES + (int)GROUPS[g][k]));
                const qvl_lora_matrix b =
                    qvl_lora_matrix_at(lora, 2 * (layer * QVL_N_SITES + (int)GROUPS[g][k + 1]));
                assert_int_equal(b.offset, a.offset + a.rows * a.cols);
                assert_int_equal(a.cols, b.cols);
            }
    qvl_lora_destroy(lora);
}

static void shapes_are_the_linears(void **state)
{
    static const int64_t IN[] = {64, 64, 64, 64, 64, 64, 160},
                         OUT[] = {64, 32, 32, 64, 160, 160, 64};
    static const char *const NAMES[] = {"self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj",
                                        "self_attn.o_proj", "mlp.gate_proj",    "mlp.up_proj",
                                        "mlp.down_proj"};
    qvl_lora *lora = make(&SMALL, 4, "all");
    char name[64], want[64];
    (void)state;
    for (int i = 0; i < 3 * QVL_N_SITES; i++) {
        const int layer = i / QVL_N_SITES, site = i % QVL_N_SITES;
        const qvl_lora_matrix a = qvl_lora_matrix_at(lora, 2 * i);
        const qvl_lora_matrix b = qvl_lora_matrix_at(lora, 2 * i + 1);
        assert_true(a.layer == layer && (int)a.site == site && !a.is_b);
        assert_true(b.layer == layer && (int)b.site == site && b.is_b);
        assert_int_equal(a.cols, IN[site]);
        assert_int_equal(b.rows, OUT[site]);
        snprintf(want, sizeof want, "layers.%d.%s", layer, NAMES[site]);
        assert_string_equal(qvl_lora_module_name(name, a.layer, a.site), want);
    }
    qvl_lora_destroy(lora);
}

static void scale_is_alpha_over_rank(void **state)
{
    qvl_lora_options options = {.rank = 8, .alpha = 16.0, .targets = {true}};
    qvl_lora *lora = NULL;
    (void)state;
    assert_int_equal(qvl_lora_create(&lora, &SMALL, &options, NULL), QVL_OK);
    assert_true(qvl_lora_scale(lora) == 2.0);
    assert_int_equal(qvl_lora_get_options(lora)->rank, 8);
    qvl_lora_destroy(lora);
    options.use_rslora = true;
    assert_int_equal(qvl_lora_create(&lora, &SMALL, &options, NULL), QVL_OK);
    assert_true(fabs(qvl_lora_scale(lora) - 16.0 / sqrt(8.0)) < 1e-15);
    qvl_lora_destroy(lora);
}

/* A within +-1/sqrt(in), filling the range, B zero; a seed fixes them. */
static void start_is_pefts(void **state)
{
    qvl_lora *lora = make(&SMALL, 8, "all");
    const size_t n = (size_t)qvl_lora_parameters(lora);
    float *values = malloc(n * sizeof *values), *again = malloc(n * sizeof *again);
    (void)state;
    assert_true(values && again);
    for (int rounded = 0; rounded < 2; rounded++) {
        qvl_lora_init(lora, values, 42, rounded == 1);
        for (int64_t i = 0; i < 2 * qvl_lora_modules(lora); i++) {
            const qvl_lora_matrix m = qvl_lora_matrix_at(lora, i);
            const double bound = 1.0 / sqrt((double)m.cols) * (rounded ? 1.004 : 1.0000001);
            double least = 1.0, most = -1.0, sum = 0.0;
            for (int64_t k = 0; k < m.rows * m.cols; k++) {
                const float value = values[m.offset + k];
                least = fmin(least, (double)value);
                most = fmax(most, (double)value);
                sum += (double)value;
                if (rounded)
                    assert_int_equal(qvl_bits_from_float(value) & 0xffff, 0);
            }
            if (m.is_b) {
                assert_true(least == 0.0 && most == 0.0);
                continue;
            }
            assert_true(least >= -bound && least < -0.9 * bound);
            assert_true(most <= bound && most > 0.9 * bound);
            assert_true(fabs(sum / (double)(m.rows * m.cols)) < 0.15 * bound);
        }
    }
    qvl_lora_init(lora, again, 42, true);
    assert_memory_equal(values, again, n * sizeof *values);
    qvl_lora_init(lora, again, 43, true);
    assert_true(memcmp(values, again, n * sizeof *values) != 0);
    free(values);
    free(again);
    qvl_lora_destroy(lora);
}

static void plan_has_four_buffers(void **state)
{
    qvl_lora *lora = make(&SMALL, 8, "all");
    const size_t bytes = (size_t)qvl_lora_parameters(lora) * sizeof(float);
    int slots[4] = {-1, -1, -1, -1};
    qvl_plan plan = {0};
    (void)state;
    assert_int_equal(qvl_lora_plan(lora, &plan, true, slots, NULL), QVL_OK);
    assert_int_equal(plan.n_slots, 4);
    for (int i = 0; i < 4; i++)
        assert_int_equal(plan.slots[slots[i]].bytes, bytes);
    qvl_plan_fini(&plan);
    plan = (qvl_plan){0};
    assert_int_equal(qvl_lora_plan(lora, &plan, false, slots, NULL), QVL_OK);
    assert_int_equal(plan.n_slots, 1);
    qvl_plan_fini(&plan);
    qvl_lora_destroy(lora);
}

/* Each group's fused linear has its weight, its adapters at their columns, and a key of its own for
 * each module's dropout. */
static void linears_carry_their_adapters(void **state)
{
    static const int COUNTS[QVL_N_GROUPS] = {3, 1, 2, 1};
    static const int FIRST[QVL_N_GROUPS] = {QVL_SITE_Q, QVL_SITE_O, QVL_SITE_GATE, QVL_SITE_DOWN};
    static const int64_t IN[] = {64, 64, 64, 160}, OUT[] = {128, 64, 320, 64};
    static const int64_t COLUMN[] = {0, 64, 96, 0, 0, 160, 0};
    char qkv, bias, o, gate_up, down;
    qvl_layer_weights layers[3] = {{0}, {0}, {0}};
    layers[2] = (qvl_layer_weights){
        .qkv = &qkv, .qkv_bias = &bias, .o = &o, .gate_up = &gate_up, .down = &down};
    const void *const weights[] = {&qkv, &o, &gate_up, &down};
    const qvl_text_weights text = {.layers = layers, .Fp = 160};
    qvl_lora *lora = make(&SMALL, 4, "all");
    const size_t n = (size_t)qvl_lora_parameters(lora);
    qvl_lora_buffers buffers = {.param = malloc(n * 4), .grad = malloc(n * 4)};
    (void)state;
    assert_true(buffers.param && buffers.grad);
    for (int g = 0; g < QVL_N_GROUPS; g++) {
        const qvl_linear linear = qvl_lora_linear(lora, &buffers, &text, 2, (qvl_group)g);
        assert_ptr_equal(linear.weight, weights[g]);
        assert_ptr_equal(linear.bias, g == QVL_GROUP_QKV ? &bias : NULL);
        assert_true(linear.in == IN[g] && linear.out == OUT[g]);
        assert_true(linear.rank == 4 && linear.scale == 4.0f);
        assert_int_equal(linear.n_adapters, COUNTS[g]);
        assert_int_equal(qvl_lora_group_adapters(lora, (qvl_group)g), COUNTS[g]);
        for (int k = 0; k < COUNTS[g]; k++) {
            const int site = FIRST[g] + k, module = 2 * QVL_N_SITES + site;
            const qvl_adapter *adapter = &linear.adapters[k];
            const qvl_lora_matrix a = qvl_lora_matrix_at(lora, 2 * module);
            const qvl_lora_matrix b = qvl_lora_matrix_at(lora, 2 * module + 1);
            assert_ptr_equal(adapter->a, buffers.param + a.offset);
            assert_ptr_equal(adapter->b, buffers.param + b.offset);
            assert_ptr_equal(adapter->da, buffers.grad + a.offset);
            assert_ptr_equal(adapter->db, buffers.grad + b.offset);
            assert_int_equal(adapter->out, b.rows);
            assert_int_equal(adapter->out_offset, COLUMN[site]);
            assert_int_equal(adapter->module, module);
        }
    }
    free(buffers.param);
    free(buffers.grad);
    qvl_lora_destroy(lora);
}

/* With some targets only: no adapters, or those of the group that are asked for. Without gradients
 * there are none to add to. */
static void linears_without_adapters(void **state)
{
    qvl_layer_weights layers[3] = {{0}, {0}, {0}};
    const qvl_text_weights text = {.layers = layers, .Fp = 160};
    qvl_lora *lora = make(&SMALL, 4, "v_proj,up_proj");
    float *param = malloc((size_t)qvl_lora_parameters(lora) * sizeof *param);
    const qvl_lora_buffers buffers = {.param = param};
    (void)state;
    assert_non_null(param);
    qvl_linear linear = qvl_lora_linear(lora, &buffers, &text, 1, QVL_GROUP_QKV);
    assert_int_equal(linear.n_adapters, 1);
    assert_int_equal(linear.adapters[0].out_offset, 96);
    assert_int_equal(linear.adapters[0].module, QVL_N_SITES + QVL_SITE_V);
    assert_null(linear.adapters[0].da);
    assert_null(linear.adapters[0].db);
    assert_int_equal(qvl_lora_linear(lora, &buffers, &text, 1, QVL_GROUP_O).n_adapters, 0);
    assert_int_equal(qvl_lora_linear(lora, &buffers, &text, 1, QVL_GROUP_DOWN).n_adapters, 0);
    linear = qvl_lora_linear(lora, &buffers, &text, 1, QVL_GROUP_GATE_UP);
    assert_int_equal(linear.n_adapters, 1);
    assert_int_equal(linear.adapters[0].out_offset, 160);
    free(param);
    qvl_lora_destroy(lora);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(published_sizes),
        cmocka_unit_test(targets_are_parsed),
        cmocka_unit_test(matrices_tile_the_buffer),
        cmocka_unit_test(a_groups_as_are_one_matrix),
        cmocka_unit_test(shapes_are_the_linears),
        cmocka_unit_test(scale_is_alpha_over_rank),
        cmocka_unit_test(start_is_pefts),
        cmocka_unit_test(plan_has_four_buffers),
        cmocka_unit_test(linears_carry_their_adapters),
        cmocka_unit_test(linears_without_adapters),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
