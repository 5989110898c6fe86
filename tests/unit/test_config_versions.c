/* Keys and values of all versions of transformers (4.49 to 5.24) and LLaMA-Factory (0.9.1 to
 * 0.9.5), as their dataclasses have them: what costs nothing is accepted, the rest is refused with
 * a reason. */
#include "src/config/config.h"
#include "src/config/config_table.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "tests/unit/config_helpers.h"

static void expect_role(const char *key, qvl_option_role role)
{
    const int index = qvl_option_find(key);
    if (index < 0 || QVL_OPTIONS[index].role != role)
        fail_msg("%s is %s", key, index < 0 ? "not in the table" : "in another class");
}

/* Each with a value that is not its default. */
static const char *const NO_EFFECT[][2] = {
    {"activation_checkpointing_kwargs", "{use_reentrant: true}"},
    {"auto_find_batch_size", "true"},
    {"batch_eval_metrics", "true"},
    {"bf16_full_eval", "true"},
    {"chunk_size", "4096"},
    {"cpu_infer", "16"},
    {"dataloader_in_order", "false"},
    {"dataloader_multiprocessing_context", "spawn"},
    {"ddp_static_graph", "true"},
    {"debug", "underflow_overflow"},
    {"dispatch_batches", "true"},
    {"enable_jit_checkpoint", "true"},
    {"enable_liger_kernel", "true"},
    {"eval_do_concat_batches", "false"},
    {"eval_use_gather_object", "true"},
    {"flash_attn", "fa2"},
    {"flash_attn", "disabled"},
    {"fp16_backend", "apex"},
    {"fp16_full_eval", "true"},
    {"fp16_opt_level", "O2"},
    {"fsdp_min_num_params", "1000"},
    {"fsdp_transformer_layer_cls_to_wrap", "Qwen2VLDecoderLayer"},
    {"generation_config", "dir"},
    {"half_precision_backend", "apex"},
    {"include_for_metrics", "[inputs]"},
    {"include_inputs_for_metrics", "true"},
    {"include_tokens_per_second", "true"},
    {"infer_backend", "vllm"},
    {"infer_backend", "sglang"},
    {"jit_mode_eval", "true"},
    {"liger_kernel_config", "{rope: true}"},
    {"master_addr", "host"},
    {"master_port", "29500"},
    {"mode", "normal"},
    {"mp_parameters", "x"},
    {"optim_target_modules", "[q_proj]"},
    {"placement_strategy", "SPREAD"},
    {"profile_modules", "all"},
    {"project", "mine"},
    {"push_to_hub_model_id", "x"},
    {"push_to_hub_organization", "x"},
    {"push_to_hub_token", "x"},
    {"resources_per_worker", "{GPU: 2}"},
    {"restore_callback_states_from_checkpoint", "true"},
    {"skip_memory_metrics", "false"},
    {"torch_empty_cache_steps", "4"},
    {"torchdynamo", "inductor"},
    {"tpu_metrics_debug", "true"},
    {"tpu_num_cores", "8"},
    {"trackio_bucket_id", "x"},
    {"trackio_space_id", "x"},
    {"trackio_static_space_id", "x"},
    {"upcast_lmhead_output", "true"},
    {"use_ipex", "true"},
    {"use_legacy_prediction_loop", "true"},
    {"use_liger_kernel", "true"},
    {"use_mps_device", "true"},
    {"use_unsloth", "true"},
    {"use_unsloth_gc", "true"},
    {"use_v1_kernels", "true"},
    {"video_resolution", "16384"},
    {"visual_inputs", "true"},
};

static void what_costs_nothing_is_accepted(void **state)
{
    char line[128];
    (void)state;
    for (size_t i = 0; i < sizeof NO_EFFECT / sizeof *NO_EFFECT; i++) {
        expect_role(NO_EFFECT[i][0], QVL_OPTION_IGNORED);
        snprintf(line, sizeof line, "%s: %s\n", NO_EFFECT[i][0], NO_EFFECT[i][1]);
        qvl_config_destroy(parsed(line, NULL));
    }
}

/* Key, default, another value and what is said of it. */
static const char *const ONLY[][4] = {
    {"adafactor", "false", "true", "only false (the optimiser is AdamW)"},
    {"new_special_tokens", "null", "<a>", "only null (the vocabulary is not extended)"},
    {"parallelism_config", "null", "tp", "only null (the base weights are whole on every rank)"},
    {"past_index", "-1", "2", "only -1 (belongs to other models)"},
    {"per_gpu_eval_batch_size", "null", "4", "only null (say per_device_eval_batch_size)"},
    {"per_gpu_train_batch_size", "null", "4", "only null (say per_device_train_batch_size)"},
    {"reserved_label_len", "1", "64",
     "only 1 (cutoff_len is shared out as LLaMA-Factory does from 0.8)"},
    {"sortish_sampler", "false", "true", "only false (see disable_shuffling)"},
    {"split_batches", "null", "true", "only null|false (a batch is the samples of one rank)"},
    {"train_mm_proj_only", "false", "true", "only false (the projector is frozen)"},
    {"train_sampling_strategy", "random", "sequential", "only random (see disable_shuffling)"},
    {"deepspeed", "\"\"", "ds_z2.json",
     "only null|false|\"\" (the base weights are whole on every rank)"},
    {"deepspeed", "false", "true",
     "only null|false|\"\" (the base weights are whole on every rank)"},
    {"fsdp", "false", "full_shard",
     "only null|false|\"\" (the base weights are whole on every rank)"},
    {"optim", "adamw_apex_fused", "adamw_8bit",
     "only adamw_torch|adamw_torch_fused|adamw_apex_fused|adamw_torch_npu_fused|adamw_torch_xla "
     "(the optimiser is AdamW)"},
    {"use_kt", "false", "true", "only false (qvl has its own kernels)"},
};

static void what_changes_results_is_refused(void **state)
{
    char line[128], message[240];
    (void)state;
    for (size_t i = 0; i < sizeof ONLY / sizeof *ONLY; i++) {
        expect_role(ONLY[i][0], QVL_OPTION_FIXED);
        snprintf(line, sizeof line, "%s: %s\n", ONLY[i][0], ONLY[i][1]);
        qvl_config_destroy(parsed(line, NULL));
        snprintf(line, sizeof line, "%s: %s\n", ONLY[i][0], ONLY[i][2]);
        snprintf(message, sizeof message, "c.yaml:3: %s: '%s' is not supported, %s", ONLY[i][0],
                 ONLY[i][2], ONLY[i][3]);
        expect_refused(line, NULL, message);
    }
}

static void old_and_new_names_of_a_key(void **state)
{
    (void)state;
    qvl_config *c = parsed("image_dir: pictures\nactivation_checkpointing: true\n", NULL);
    assert_string_equal(c->media_dir, "pictures");
    assert_string_equal(c->gradient_checkpointing, "true");
    qvl_config_destroy(c);
    c = parsed("activation_checkpointing: null\nwarmup_ratio: null\n", NULL); /* 5.x's defaults */
    assert_string_equal(c->gradient_checkpointing, "auto");
    assert_true(c->warmup_ratio == 0.0);
    qvl_config_destroy(c);
}

/* ---- lr_scheduler_kwargs ----------------------------------------------------------------------*/

static void arguments_of_schedules_are_read(void **state)
{
    (void)state;
    qvl_config *c = parsed("lr_scheduler_type: cosine_with_min_lr\n"
                           "lr_scheduler_kwargs: {min_lr: 1e-5, min_lr_rate: null}\n",
                           NULL);
    assert_true(c->lr_min == 1e-5 && isnan(c->lr_min_rate) && isnan(c->lr_num_cycles));
    qvl_config_destroy(c);
    c = parsed("lr_scheduler_type: cosine_warmup_with_min_lr\n"
               "lr_scheduler_kwargs: {min_lr_rate: 0.1, warmup_lr_rate: 0.2, num_cycles: 1}\n",
               NULL);
    assert_true(c->lr_min_rate == 0.1 && c->lr_warmup_rate == 0.2 && c->lr_num_cycles == 1.0);
    qvl_config_destroy(c);
    c = parsed("lr_scheduler_type: inverse_sqrt\nlr_scheduler_kwargs: {timescale: 500}\n", NULL);
    assert_true(c->lr_timescale == 500.0);
    qvl_config_destroy(c);
    c = parsed("lr_scheduler_type: warmup_stable_decay\nlr_scheduler_kwargs:\n"
               "  num_stable_steps: 5\n  num_decay_steps: 6\n  min_lr_ratio: 0.1\n"
               "  warmup_type: cosine\n  decay_type: 1-sqrt\n",
               NULL);
    assert_true(c->lr_stable_steps == 5.0 && c->lr_decay_steps == 6.0 && c->lr_min_ratio == 0.1);
    assert_true(c->lr_warmup_shape == 1.0 && c->lr_decay_shape == 2.0);
    qvl_config_destroy(c);
}

static void arguments_may_be_a_json_text(void **state)
{
    (void)state;
    static const char LINES[] = "lr_scheduler_type: cosine_with_min_lr\nlr_scheduler_kwargs: "
                                "'{\"min_lr\": 1e-6, \"num_cycles\": \"0.75\"}'\n";
    qvl_config *c = parsed(LINES, NULL);
    assert_true(c->lr_min == 1e-6 && c->lr_num_cycles == 0.75);
    qvl_config_destroy(c);
    /* takes the place of another, where a mapping is merged */
    c = parsed(LINES, "lr_scheduler_kwargs='{\"min_lr_rate\": 0.5}'");
    assert_true(c->lr_min_rate == 0.5 && isnan(c->lr_min) && isnan(c->lr_num_cycles));
    qvl_config_destroy(c);
    expect_refused("lr_scheduler_kwargs: '{\"min_lr\": 1e-6'\n", NULL,
                   "c.yaml:3: lr_scheduler_kwargs: '{\"min_lr\": 1e-6' is no mapping in JSON");
    expect_refused("lr_scheduler_kwargs: '{\"lr_min\": 1e-6}'\n", NULL,
                   "c.yaml:3: lr_scheduler_kwargs: unknown key 'lr_min', expected num_cycles, "
                   "lr_end, power, min_lr, min_lr_rate, warmup_lr_rate, timescale, "
                   "num_stable_steps, num_decay_steps, min_lr_ratio, warmup_type or decay_type");
    expect_refused("lr_scheduler_kwargs: file.json\n", NULL,
                   "c.yaml:3: lr_scheduler_kwargs: expected a mapping");
}

static void arguments_that_do_not_fit(void **state)
{
    static const char *const CASES[][3] = {
        {"cosine_with_min_lr", "{}", ": cosine_with_min_lr needs min_lr or min_lr_rate"},
        {"cosine_with_min_lr", "{min_lr: 1e-6, min_lr_rate: 0.1}",
         ": cosine_with_min_lr needs min_lr or min_lr_rate, and takes one of them only"},
        {"cosine_warmup_with_min_lr", "{num_cycles: 1}",
         ": cosine_warmup_with_min_lr needs min_lr or min_lr_rate"},
        {"cosine_with_min_lr", "{min_lr: 1e-6, warmup_lr_rate: 0.1}",
         ": warmup_lr_rate is no argument of cosine_with_min_lr, which takes num_cycles, min_lr "
         "and min_lr_rate"},
        {"linear", "{min_lr: 1e-6}", ": min_lr is no argument of linear, which takes none"},
        {"inverse_sqrt", "{num_cycles: 1}",
         ": num_cycles is no argument of inverse_sqrt, which takes timescale"},
        {"warmup_stable_decay", "{min_lr: 1e-6}",
         ": min_lr is no argument of warmup_stable_decay, which takes num_cycles, "
         "num_stable_steps, num_decay_steps, min_lr_ratio, warmup_type and decay_type"},
    };
    static const char *const VALUES[][2] = {
        {"{min_lr: -1}", ".min_lr: expected a number in 0 to 1e6"},
        {"{min_lr: [1]}", ".min_lr: expected a number in 0 to 1e6"},
        {"{num_cycles: null}", ".num_cycles: expected a number in 0 to 1e6"},
        {"{timescale: 0}", ".timescale: expected a whole number in 1 to 1e9"},
        {"{timescale: 1.5}", ".timescale: expected a whole number in 1 to 1e9"},
        {"{num_decay_steps: 1.5}", ".num_decay_steps: expected a whole number in 0 to 1e9"},
        {"{decay_type: sqrt}", ".decay_type: 'sqrt' is not one of linear|cosine|1-sqrt"},
        {"{decay_type: [linear]}", ".decay_type: 'a structure' is not one of linear|cosine|1-sqrt"},
    };
    char text[200], message[300];
    (void)state;
    for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++) {
        snprintf(text, sizeof text, "lr_scheduler_type: %s\nlr_scheduler_kwargs: %s\n", CASES[i][0],
                 CASES[i][1]);
        snprintf(message, sizeof message, "c.yaml:4: lr_scheduler_kwargs%s", CASES[i][2]);
        expect_refused(text, NULL, message);
    }
    for (size_t i = 0; i < sizeof VALUES / sizeof *VALUES; i++) {
        snprintf(text, sizeof text, "lr_scheduler_kwargs: %s\n", VALUES[i][0]);
        snprintf(message, sizeof message, "c.yaml:3: lr_scheduler_kwargs%s", VALUES[i][1]);
        expect_refused(text, NULL, message);
    }
    expect_refused("lr_scheduler_type: cosine_with_min_lr\n", NULL,
                   "c.yaml:3: lr_scheduler_kwargs: cosine_with_min_lr needs min_lr or min_lr_rate");
    expect_refused(
        "lr_scheduler_type: reduce_lr_on_plateau\n", NULL,
        "c.yaml:3: lr_scheduler_type: 'reduce_lr_on_plateau' is not one of linear|cosine|"
        "constant|constant_with_warmup|cosine_with_restarts|polynomial|"
        "cosine_with_min_lr|cosine_warmup_with_min_lr|inverse_sqrt|warmup_stable_decay");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_costs_nothing_is_accepted),
        cmocka_unit_test(what_changes_results_is_refused),
        cmocka_unit_test(old_and_new_names_of_a_key),
        cmocka_unit_test(arguments_of_schedules_are_read),
        cmocka_unit_test(arguments_may_be_a_json_text),
        cmocka_unit_test(arguments_that_do_not_fit),
    };
    return cmocka_run_group_tests_name("config_versions", tests, NULL, NULL);
}
