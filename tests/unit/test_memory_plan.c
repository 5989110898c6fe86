/* The memory plan: its parts are its sum, and with less memory packs shrink, layers recompute,
 * features are not kept, and at last it says that it does not fit. */
#include "src/train/memory_plan.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "scratch_files.h"

#include "run_fixtures.h"

#include "src/model/vision.h"

/* A CPU whose free memory and name are the test's. */
static qvl_device *real, dev;
static qvl_ops ops;
static uint64_t free_memory;
static qvl_model model;
static qvl_lora *lora;

static qvl_status fake_free_bytes(qvl_device *device, uint64_t *out, qvl_err *err)
{
    (void)device;
    (void)err;
    *out = free_memory;
    return QVL_OK;
}

static int set_up(void **state)
{
    qvl_lora_options options = {.rank = 8, .alpha = 16.0};
    qvl_log log;
    (void)state;
    qvl_log_init(&log, "test");
    if (qvl_device_open_cpu(&real, 2, NULL) != QVL_OK)
        return -1;
    ops = *real->ops;
    ops.free_bytes = fake_free_bytes;
    dev = *real;
    dev.ops = &ops;
    if (qvl_model_open(&model, QVL_TEST_FIXTURES "/tiny/model", NULL, NULL, &dev,
                       &(qvl_lora_options){.rank = 8}, &log, NULL) != QVL_OK ||
        qvl_lora_parse_targets(options.targets, "all", NULL) != QVL_OK)
        return -1;
    return qvl_lora_create(&lora, &model.dims, &options, NULL) != QVL_OK;
}

static int tear_down(void **state)
{
    (void)state;
    qvl_lora_destroy(lora);
    qvl_model_close(&model);
    qvl_device_close(real);
    return 0;
}

static const qvl_memory_needs NEEDS = {.longest_sample = 300,
                                       .longest_pack = 5000,
                                       .step_rows = 6000,
                                       .max_patches = 64,
                                       .feature_bytes = 1 << 20,
                                       .ranks_per_host = 2};
static const uint64_t PLENTY = (uint64_t)1 << 40;

static qvl_status make(qvl_memory_plan *plan, const char *lines, const qvl_memory_needs *needs,
                       uint64_t free_bytes, qvl_err *err)
{
    qvl_config *config = config_of("out", lines);
    free_memory = free_bytes;
    const qvl_status rc = qvl_memory_plan_make(plan, config, &model, lora, &dev, needs, err);
    qvl_config_destroy(config);
    return rc;
}

static qvl_memory_plan plan_of(const char *lines, const qvl_memory_needs *needs,
                               uint64_t free_bytes)
{
    qvl_memory_plan plan;
    qvl_err err = {0};
    expect_ok(make(&plan, lines, needs, free_bytes, &err), &err);
    return plan;
}

/* Every part is what is asked for when it is allocated, and the peak is their sum. */
static void check_sums(const qvl_memory_plan *p, const qvl_memory_needs *needs)
{
    const uint64_t parameters = 4 * (uint64_t)qvl_lora_parameters(lora);
    const qvl_decoder_options options = {.tokens = p->pack_tokens,
                                         .n_kept = p->n_kept,
                                         .spare_bytes = p->spare_bytes,
                                         .is_training = true};
    qvl_plan slots = {0}, vision_slots = {0};
    qvl_decoder *decoder = NULL;
    qvl_vision *vision = NULL;
    size_t decoder_workspace = 0, vision_workspace = 0;
    assert_int_equal(p->text_bytes, qvl_weights_plan(model.text)->total_bytes);
    assert_int_equal(p->embed_bytes, 512 * 64 * 4);
    assert_int_equal(p->head_bytes, 512 * 64 * 4);
    assert_int_equal(p->adapter_bytes, parameters);
    assert_int_equal(p->gradient_bytes, parameters);
    assert_int_equal(p->moment_bytes, 2 * parameters);
    assert_int_equal(p->step_bytes, 4 * (needs->step_rows + 64));
    assert_int_equal(qvl_decoder_create(&decoder, &model.dims, lora, &dev, &options, &slots, NULL),
                     QVL_OK);
    const qvl_workspace_limits limits = qvl_decoder_limits(decoder, needs->longest_sample);
    assert_int_equal(ops.workspace_bytes(&dev, &decoder_workspace, &limits, NULL), QVL_OK);
    assert_int_equal(p->activation_bytes, slots.total_bytes);
    if (needs->max_patches) {
        assert_int_equal(qvl_vision_create(&vision, &model.dims, needs->max_patches, dev.act_bytes,
                                           qvl_weights_vision(model.vision)->Fp, &vision_slots,
                                           NULL),
                         QVL_OK);
        const qvl_workspace_limits tower = qvl_vision_limits(vision);
        assert_int_equal(ops.workspace_bytes(&dev, &vision_workspace, &tower, NULL), QVL_OK);
        assert_int_equal(p->vision_bytes, qvl_weights_plan(model.vision)->total_bytes);
    }
    assert_int_equal(p->vision_activation_bytes, vision_slots.total_bytes);
    const uint64_t tower = p->vision_bytes + p->vision_activation_bytes;
    const uint64_t training =
        p->text_bytes + p->embed_bytes + 4 * parameters + p->step_bytes + p->activation_bytes;
    assert_int_equal(p->workspace_bytes,
                     decoder_workspace > vision_workspace ? decoder_workspace : vision_workspace);
    assert_int_equal(p->peak_bytes, p->workspace_bytes + (!p->keeps_features ? tower + training
                                                          : tower > training ? tower
                                                                             : training));
    assert_int_equal(p->needed_bytes,
                     2 * p->peak_bytes + (p->keeps_features ? needs->feature_bytes : 0));
    assert_int_equal(p->fits, p->needed_bytes <= (uint64_t)(0.9 * (double)p->available_bytes));
    qvl_decoder_destroy(decoder);
    qvl_vision_destroy(vision);
    qvl_plan_fini(&slots);
    qvl_plan_fini(&vision_slots);
}

/* Bytes more that one more kept layer would take. */
static uint64_t cost_of_another_layer(const qvl_memory_plan *p)
{
    size_t bytes[2];
    for (int more = 0; more < 2; more++) {
        const qvl_decoder_options options = {
            .tokens = p->pack_tokens, .n_kept = p->n_kept + more, .is_training = true};
        qvl_plan slots = {0};
        qvl_decoder *decoder = NULL;
        assert_int_equal(
            qvl_decoder_create(&decoder, &model.dims, lora, &dev, &options, &slots, NULL), QVL_OK);
        bytes[more] = slots.total_bytes;
        qvl_decoder_destroy(decoder);
        qvl_plan_fini(&slots);
    }
    return bytes[1] - bytes[0];
}

static void with_plenty_everything_is_kept(void **state)
{
    (void)state;
    const qvl_memory_plan p = plan_of("", &NEEDS, PLENTY);
    assert_int_equal(p.pack_tokens, 5000);
    assert_int_equal(p.n_kept, 3);
    assert_true(p.keeps_features && p.fits);
    assert_int_equal(p.available_bytes, PLENTY);
    check_sums(&p, &NEEDS);
    qvl_memory_needs text_only = NEEDS;
    text_only.max_patches = 0;
    text_only.feature_bytes = 0;
    const qvl_memory_plan without = plan_of("", &text_only, PLENTY);
    assert_int_equal(without.vision_bytes + without.vision_activation_bytes, 0);
    check_sums(&without, &text_only);
}

static void checkpointing_is_as_configured(void **state)
{
    static const struct {
        const char *lines;
        int64_t n_kept;
    } CASES[] = {{"gradient_checkpointing: true\n", 0},
                 {"gradient_checkpointing: false\n", 3},
                 {"disable_gradient_checkpointing: true\n", 3},
                 {"gradient_checkpointing: auto\n", 3}};
    (void)state;
    for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++) {
        const qvl_memory_plan p = plan_of(CASES[i].lines, &NEEDS, PLENTY);
        assert_int_equal(p.n_kept, CASES[i].n_kept);
        check_sums(&p, &NEEDS);
    }
    /* and stays so when memory is short */
    const qvl_memory_plan none = plan_of("gradient_checkpointing: false\n", &NEEDS, 1 << 20);
    assert_true(none.n_kept == 3 && !none.fits);
    const qvl_memory_plan all = plan_of("gradient_checkpointing: true\n", &NEEDS, 1 << 20);
    assert_true(all.n_kept == 0 && !all.fits);
}

static void pack_tokens_are_as_configured(void **state)
{
    qvl_memory_plan p;
    qvl_err err = {0};
    (void)state;
    assert_int_equal(plan_of("pack_tokens: 1000\n", &NEEDS, PLENTY).pack_tokens, 1000);
    assert_int_equal(plan_of("pack_tokens: 300\n", &NEEDS, PLENTY).pack_tokens, 300);
    assert_int_equal(plan_of("pack_tokens: 9000\n", &NEEDS, PLENTY).pack_tokens, 5000);
    expect_failure(make(&p, "pack_tokens: 299\n", &NEEDS, PLENTY, &err), QVL_ECONFIG, &err,
                   "pack_tokens: 299 is less than the longest sample's 300 tokens");
}

/* With less and less memory: it fits for as long as it can, each plan needs no more than there is,
 * and what is given up comes in its order. */
static void less_memory_gives_up_in_order(void **state)
{
    const qvl_memory_plan most = plan_of("", &NEEDS, PLENTY);
    int64_t tokens = most.pack_tokens;
    bool kept_features = true, did_fit = true;
    int n_fitting = 0, n_recomputing = 0;
    (void)state;
    for (uint64_t bytes = 2 * most.needed_bytes; bytes > 1000; bytes -= bytes / 30) {
        const qvl_memory_plan p = plan_of("", &NEEDS, bytes);
        check_sums(&p, &NEEDS);
        assert_true(p.pack_tokens >= NEEDS.longest_sample);
        assert_true(did_fit || !p.fits);
        assert_true(kept_features || !p.keeps_features);
        if (p.fits && p.keeps_features == kept_features)
            assert_true(p.pack_tokens <= tokens);
        if (p.fits && p.n_kept < 3) { /* as many as there is room for, and what is left is used */
            const uint64_t usable = (uint64_t)(0.9 * (double)bytes);
            assert_true(p.spare_bytes < cost_of_another_layer(&p));
            assert_in_range(usable - p.needed_bytes, 0, 2 * QVL_PLAN_ALIGN_BYTES - 1);
        }
        n_fitting += p.fits;
        n_recomputing += p.fits && p.n_kept < 3;
        tokens = p.pack_tokens;
        did_fit = p.fits;
        kept_features = p.keeps_features;
    }
    assert_true(!did_fit && n_fitting > 5 && n_recomputing > 0);
}

/* Features that would not fit are computed when they are needed, if that helps. */
static void features_may_be_too_large(void **state)
{
    qvl_memory_needs needs = NEEDS;
    (void)state;
    needs.feature_bytes = (uint64_t)1 << 36;
    const qvl_memory_plan p = plan_of("", &needs, (uint64_t)1 << 34);
    assert_false(p.keeps_features);
    assert_true(p.fits);
    assert_int_equal(p.n_kept, 3);
    check_sums(&p, &needs);
    assert_false(plan_of("vision_cache: \"off\"\n", &NEEDS, PLENTY).keeps_features);
}

/* A GPU is a rank's own, and the features are not in it. */
static void gpus_are_not_shared(void **state)
{
    (void)state;
    ops.name = "cuda";
    qvl_memory_plan p = plan_of("", &NEEDS, PLENTY);
    assert_int_equal(p.needed_bytes, p.peak_bytes);
    p = plan_of("share_gpu: true\n", &NEEDS, PLENTY);
    assert_int_equal(p.needed_bytes, 2 * p.peak_bytes);
    ops.name = real->ops->name;
}

/* Asked to recompute, a CPU takes what it must and a GPU a little more, if there is more. */
static void recomputation_spares_a_little(void **state)
{
    static const char *const TRUE = "gradient_checkpointing: true\n";
    (void)state;
    assert_int_equal(plan_of(TRUE, &NEEDS, PLENTY).spare_bytes, 0);
    ops.name = "cuda";
    const qvl_memory_plan p = plan_of(TRUE, &NEEDS, PLENTY);
    const qvl_memory_plan all = plan_of("pack_tokens: 2048\n", &NEEDS, PLENTY);
    assert_int_equal(p.pack_tokens, 2048);
    assert_int_equal(all.n_kept, 3);
    const uint64_t least = p.activation_bytes - p.spare_bytes;
    assert_in_range(p.spare_bytes, (all.activation_bytes - least) / 8 - QVL_PLAN_ALIGN_BYTES,
                    (all.activation_bytes - least) / 8);
    const qvl_memory_plan tight =
        plan_of(TRUE, &NEEDS, p.needed_bytes + ((uint64_t)400 << 20) - p.spare_bytes / 2);
    assert_true(tight.fits && tight.spare_bytes > 0 && tight.spare_bytes < p.spare_bytes);
    ops.name = real->ops->name;
}

static void what_is_missing_is_told(void **state)
{
    qvl_err err = {0};
    (void)state;
    qvl_memory_plan p = plan_of("", &NEEDS, PLENTY);
    expect_ok(qvl_memory_plan_require(&p, &dev, &err), &err);
    p = plan_of("", &NEEDS, 1 << 20);
    assert_false(p.fits);
    expect_failure(qvl_memory_plan_require(&p, &dev, &err), QVL_EDEVICE, &err,
                   "CPU, 2 threads: not enough memory|needed|1.00 MiB|missing|pack_tokens|"
                   "gradient_checkpointing");
}

/* A limit of the process counts beside the host's memory: packs shrink for it, threads take of it,
 * and it is named where it is too low. */
static void limits_of_the_process_count(void **state)
{
    const uint64_t mib = (uint64_t)1 << 20;
    qvl_memory_needs needs = NEEDS;
    qvl_err err = {0};
    (void)state;
    needs.n_threads = 2;
    const qvl_memory_plan most = plan_of("", &needs, PLENTY);
    assert_true(most.process_bytes >= most.peak_bytes + needs.feature_bytes + 2 * 128 * mib);
    needs.process = (qvl_process_memory){most.process_bytes, "ulimit -v"};
    qvl_memory_plan p = plan_of("", &needs, PLENTY);
    assert_true(p.fits && p.peak_bytes == most.peak_bytes);
    needs.process.left_bytes -= 4096;
    p = plan_of("", &needs, PLENTY);
    assert_true(p.fits && p.process_bytes <= needs.process.left_bytes);
    assert_true(p.pack_tokens < most.pack_tokens || p.n_kept < most.n_kept);
    needs.n_threads = 4; /* two more multiply at a time */
    p = plan_of("", &needs, PLENTY);
    assert_false(p.fits);
    assert_true(p.process_bytes >= most.process_bytes);
    expect_failure(qvl_memory_plan_require(&p, &dev, &err), QVL_EDEVICE, &err,
                   "not enough memory: this process needs|of address space, ulimit -v leaves|"
                   "missing; raise it (ulimit -v unlimited)|OMP_NUM_THREADS");
    ops.name = "cuda"; /* whose drivers map more than anybody limits */
    assert_true(plan_of("", &needs, PLENTY).fits);
    ops.name = real->ops->name;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(with_plenty_everything_is_kept),
        cmocka_unit_test(checkpointing_is_as_configured),
        cmocka_unit_test(pack_tokens_are_as_configured),
        cmocka_unit_test(less_memory_gives_up_in_order),
        cmocka_unit_test(features_may_be_too_large),
        cmocka_unit_test(gpus_are_not_shared),
        cmocka_unit_test(recomputation_spares_a_little),
        cmocka_unit_test(what_is_missing_is_told),
        cmocka_unit_test(limits_of_the_process_count),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
