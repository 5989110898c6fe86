/* The keys and defaults of LLaMA-Factory, as they are documented, written out here again, so that
 * one that is lost from the table is noticed; and what values look like. */
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

/* Each key with LLaMA-Factory's default (one with a name of the family where the documentation has
 * a star). A file that writes the defaults out must pass. */
static const char *const KEYS[][2] = {
    {"model_name_or_path", "m"},
    {"adapter_name_or_path", "null"},
    {"adapter_folder", "null"},
    {"cache_dir", "null"},
    {"model_revision", "main"},
    {"hf_hub_token", "null"},
    {"ms_hub_token", "null"},
    {"om_hub_token", "null"},
    {"use_fast_tokenizer", "true"},
    {"resize_vocab", "false"},
    {"add_tokens", "null"},
    {"add_special_tokens", "null"},
    {"new_special_tokens_config", "null"},
    {"init_special_tokens", "noise_init"},
    {"split_special_tokens", "false"},
    {"low_cpu_mem_usage", "true"},
    {"rope_scaling", "null"},
    {"flash_attn", "auto"},
    {"shift_attn", "false"},
    {"mixture_of_depths", "null"},
    {"moe_aux_loss_coef", "null"},
    {"use_unsloth", "false"},
    {"use_unsloth_gc", "false"},
    {"enable_liger_kernel", "false"},
    {"use_v1_kernels", "false"},
    {"use_kt", "false"},
    {"kt_weight_path", "null"},
    {"disable_gradient_checkpointing", "false"},
    {"use_reentrant_gc", "true"},
    {"upcast_layernorm", "false"},
    {"upcast_lmhead_output", "false"},
    {"train_from_scratch", "false"},
    {"infer_backend", "huggingface"},
    {"infer_dtype", "auto"},
    {"use_kv_cache", "true"},
    {"use_cache", "true"},
    {"offload_folder", "offload"},
    {"print_param_status", "false"},
    {"trust_remote_code", "false"},
    {"quantization_method", "bnb"},
    {"quantization_bit", "null"},
    {"quantization_type", "nf4"},
    {"double_quantization", "true"},
    {"quantization_device_map", "null"},
    {"image_max_pixels", "589824"},
    {"image_min_pixels", "1024"},
    {"video_max_pixels", "65536"},
    {"video_min_pixels", "256"},
    {"video_fps", "2.0"},
    {"video_maxlen", "128"},
    {"image_do_pan_and_scan", "false"},
    {"crop_to_patches", "false"},
    {"use_audio_in_video", "false"},
    {"audio_sampling_rate", "16000"},
    {"export_dir", "null"},
    {"export_size", "5"},
    {"export_device", "cpu"},
    {"export_legacy_format", "false"},
    {"export_hub_model_id", "null"},
    {"export_quantization_bit", "null"},
    {"vllm_maxlen", "4096"},
    {"sglang_maxlen", "4096"},
    {"stage", "sft"},
    {"finetuning_type", "lora"},
    {"lora_rank", "8"},
    {"lora_alpha", "null"},
    {"lora_dropout", "0.0"},
    {"lora_target", "all"},
    {"use_rslora", "false"},
    {"use_dora", "false"},
    {"loraplus_lr_ratio", "null"},
    {"loraplus_lr_embedding", "1e-6"},
    {"pissa_init", "false"},
    {"pissa_iter", "16"},
    {"pissa_convert", "false"},
    {"create_new_adapter", "false"},
    {"additional_target", "null"},
    {"freeze_vision_tower", "true"},
    {"freeze_multi_modal_projector", "true"},
    {"freeze_language_model", "false"},
    {"pure_bf16", "false"},
    {"disable_shuffling", "false"},
    {"plot_loss", "false"},
    {"compute_accuracy", "false"},
    {"early_stopping_steps", "null"},
    {"include_effective_tokens_per_second", "false"},
    {"freeze_trainable_layers", "2"},
    {"freeze_extra_modules", "null"},
    {"oft_rank", "0"},
    {"module_dropout", "0.0"},
    {"pref_beta", "0.1"},
    {"dpo_label_smoothing", "0.0"},
    {"kto_chosen_weight", "1.0"},
    {"simpo_gamma", "0.5"},
    {"ppo_buffer_size", "1"},
    {"ref_model", "null"},
    {"ref_model_adapters", "null"},
    {"reward_model", "null"},
    {"reward_model_type", "lora"},
    {"ld_alpha", "null"},
    {"use_galore", "false"},
    {"galore_rank", "16"},
    {"use_apollo", "false"},
    {"apollo_rank", "16"},
    {"use_badam", "false"},
    {"badam_mode", "layer"},
    {"use_adam_mini", "false"},
    {"use_muon", "false"},
    {"use_llama_pro", "false"},
    {"use_dft_loss", "false"},
    {"use_asft_loss", "false"},
    {"asft_alpha", "0.1"},
    {"use_eaft_loss", "false"},
    {"eaft_alpha", "1.0"},
    {"use_mca", "false"},
    {"use_megatron_bridge", "false"},
    {"use_hyper_parallel", "false"},
    {"hyper_parallel_args", "null"},
    {"use_swanlab", "false"},
    {"swanlab_project", "llamafactory"},
    {"template", "null"},
    {"dataset", "null"},
    {"eval_dataset", "null"},
    {"dataset_dir", "data"},
    {"media_dir", "null"},
    {"cutoff_len", "2048"},
    {"train_on_prompt", "false"},
    {"mask_history", "false"},
    {"max_samples", "null"},
    {"val_size", "0.0"},
    {"mix_strategy", "concat"},
    {"interleave_probs", "null"},
    {"packing", "null"},
    {"packing", "false"},
    {"neat_packing", "false"},
    {"default_system", "null"},
    {"preprocessing_batch_size", "1000"},
    {"preprocessing_num_workers", "null"},
    {"overwrite_cache", "false"},
    {"tokenized_path", "null"},
    {"data_shared_file_system", "false"},
    {"ignore_pad_token_for_loss", "true"},
    {"eval_num_beams", "null"},
    {"eval_on_each_dataset", "false"},
    {"tool_format", "null"},
    {"enable_thinking", "true"},
    {"preserve_thinking", "false"},
    {"streaming", "false"},
    {"buffer_size", "16384"},
    {"output_dir", "trainer_output"},
    {"overwrite_output_dir", "false"},
    {"do_train", "false"},
    {"do_eval", "false"},
    {"do_predict", "false"},
    {"logging_strategy", "steps"},
    {"logging_steps", "500"},
    {"logging_first_step", "false"},
    {"logging_nan_inf_filter", "true"},
    {"save_strategy", "steps"},
    {"save_steps", "500"},
    {"save_total_limit", "null"},
    {"save_only_model", "false"},
    {"report_to", "all"},
    {"report_to", "none"},
    {"report_to", "null"},
    {"report_to", "[]"},
    {"report_to", "tensorboard"},
    {"report_to", "[none, tensorboard]"},
    {"logging_dir", "null"},
    {"logging_dir", "a/b"},
    {"per_device_train_batch_size", "8"},
    {"gradient_accumulation_steps", "1"},
    {"learning_rate", "5e-5"},
    {"num_train_epochs", "3.0"},
    {"max_steps", "-1"},
    {"lr_scheduler_type", "linear"},
    {"lr_scheduler_kwargs", "null"},
    {"warmup_ratio", "0.0"},
    {"warmup_steps", "0"},
    {"bf16", "false"},
    {"fp16", "false"},
    {"tf32", "null"},
    {"optim", "adamw_torch"},
    {"optim", "adamw_torch_fused"},
    {"adam_beta1", "0.9"},
    {"adam_beta2", "0.999"},
    {"adam_epsilon", "1e-8"},
    {"weight_decay", "0.0"},
    {"max_grad_norm", "1.0"},
    {"seed", "42"},
    {"data_seed", "null"},
    {"dataloader_num_workers", "0"},
    {"dataloader_drop_last", "false"},
    {"dataloader_pin_memory", "true"},
    {"dataloader_prefetch_factor", "null"},
    {"group_by_length", "false"},
    {"ddp_timeout", "1800"},
    {"ddp_find_unused_parameters", "null"},
    {"resume_from_checkpoint", "null"},
    {"deepspeed", "null"},
    {"fsdp", "null"},
    {"fsdp", "\"\""},
    {"fsdp", "[]"},
    {"fsdp_config", "null"},
    {"remove_unused_columns", "false"},
    {"include_num_input_tokens_seen", "false"},
    {"include_num_input_tokens_seen", "no"},
    {"neftune_noise_alpha", "null"},
    {"label_smoothing_factor", "0"},
    {"load_best_model_at_end", "false"},
    {"metric_for_best_model", "null"},
    {"greater_is_better", "null"},
    {"ray_run_name", "null"},
    {"fp8", "false"},
    {"fp8_backend", "auto"},
    {"enable_torch_profiler", "false"},
    {"profiler_output_dir", "null"},
    {"per_device_eval_batch_size", "8"},
    {"eval_strategy", "no"},
    {"evaluation_strategy", "no"},
    {"eval_steps", "null"},
    {"predict_with_generate", "false"},
    {"do_sample", "true"},
    {"temperature", "0.95"},
    {"top_p", "0.7"},
    {"top_k", "50"},
    {"num_beams", "1"},
    {"max_new_tokens", "1024"},
    {"max_length", "1024"},
    {"repetition_penalty", "1.0"},
    {"length_penalty", "1.0"},
    {"skip_special_tokens", "true"},
    /* qvl's own */
    {"device", "auto"},
    {"pack", "true"},
    {"pack_tokens", "0"},
    {"loss_reduction", "micro_batch_mean"},
    {"steps_rule", "floor"},
    {"gradient_checkpointing", "auto"},
    {"activation_offloading", "auto"},
    {"share_gpu", "false"},
    {"vision_cache", "auto"},
    {"adapter_layout", "hf4.52"},
    {"on_bad_sample", "error"},
    {"strict_paths", "false"},
    {"max_hours", "null"},
    {"nan_policy", "stop"},
    {"peer_timeout", "null"},
};

enum { N_KEYS = sizeof KEYS / sizeof *KEYS };

/* Each is known, and its default is accepted, from a file and from the command line. */
static void every_key_takes_its_default(void **state)
{
    (void)state;
    for (size_t i = 0; i < N_KEYS; i++) {
        qvl_config *config = NULL;
        qvl_err err = {0};
        char line[128], assignment[128];
        snprintf(line, sizeof line, "%s: %s\n", KEYS[i][0], KEYS[i][1]);
        snprintf(assignment, sizeof assignment, "%s=%s", KEYS[i][0], KEYS[i][1]);
        const bool is_minimal = strstr(MINIMAL, KEYS[i][0]) != NULL;
        if (parse_with(&config, is_minimal ? "" : line, assignment, &err) != QVL_OK)
            fail_msg("%s: %s", line, err.text);
        assert_true(qvl_config_is_given(config, KEYS[i][0]));
        qvl_config_destroy(config);
    }
}

/* A key of the table that the list above lacks is one that nobody documented here. */
static void the_table_has_no_other_used_key(void **state)
{
    (void)state;
    for (size_t i = 0; i < QVL_N_OPTIONS; i++) {
        bool is_listed = QVL_OPTIONS[i].role != QVL_OPTION_USED;
        for (size_t k = 0; k < N_KEYS && !is_listed; k++)
            is_listed = strcmp(KEYS[k][0], QVL_OPTIONS[i].key) == 0;
        if (!is_listed)
            fail_msg("%s has an effect, but is not in this test", QVL_OPTIONS[i].key);
    }
}

static void defaults_are_llama_factorys(void **state)
{
    (void)state;
    qvl_config *c = NULL;
    qvl_err err = {0};
    assert_int_equal(qvl_config_parse(&c, "model_name_or_path: m", 21, "c", NULL, 0, &err), QVL_OK);
    assert_string_equal(c->model_name_or_path, "m");
    assert_null(c->adapter_name_or_path);
    assert_null(c->cache_dir);
    assert_string_equal(c->model_revision, "main");
    assert_int_equal(c->image_max_pixels, 768 * 768);
    assert_int_equal(c->image_min_pixels, 1024);
    assert_false(c->split_special_tokens || c->disable_gradient_checkpointing);
    assert_int_equal(c->lora_rank, 8);
    assert_int_equal(c->lora_alpha, -1);
    assert_int_equal(qvl_config_lora_alpha(c), 16);
    assert_true(qvl_config_lora_scale(c) == 2.0);
    assert_true(c->lora_dropout == 0.0);
    assert_string_equal(c->lora_target, "all");
    assert_false(c->use_rslora || c->disable_shuffling || c->plot_loss);
    assert_null(c->template_name);
    assert_null(c->dataset);
    assert_null(c->eval_dataset);
    assert_string_equal(c->dataset_dir, "data");
    assert_null(c->media_dir);
    assert_null(c->default_system);
    assert_null(c->tokenized_path);
    assert_int_equal(c->cutoff_len, 2048);
    assert_int_equal(c->max_samples, -1);
    assert_true(c->val_size == 0.0);
    assert_false(c->train_on_prompt || c->mask_history || c->overwrite_cache);
    assert_string_equal(c->output_dir, "trainer_output");
    assert_null(c->resume_from_checkpoint);
    assert_string_equal(c->save_strategy, "steps");
    assert_string_equal(c->eval_strategy, "no");
    assert_string_equal(c->logging_strategy, "steps");
    assert_string_equal(c->include_num_input_tokens_seen, "no");
    assert_false(c->overwrite_output_dir || c->do_train || c->do_eval || c->logging_first_step ||
                 c->save_only_model);
    assert_true(c->logging_steps == 500.0 && c->save_steps == 500.0 && c->eval_steps == -1.0);
    assert_int_equal(c->save_total_limit, -1);
    assert_int_equal(c->per_device_train_batch_size, 8);
    assert_int_equal(c->per_device_eval_batch_size, 8);
    assert_int_equal(c->gradient_accumulation_steps, 1);
    assert_true(c->learning_rate == 5e-5 && c->num_train_epochs == 3.0);
    assert_true(c->warmup_ratio == 0.0 && c->warmup_steps == 0.0 && c->weight_decay == 0.0);
    assert_true(c->adam_beta1 == 0.9 && c->adam_beta2 == 0.999 && c->adam_epsilon == 1e-8);
    assert_true(c->max_grad_norm == 1.0 && c->ddp_timeout == 1800.0);
    assert_int_equal(c->max_steps, -1);
    assert_int_equal(c->seed, 42);
    assert_int_equal(c->data_seed, -1);
    assert_string_equal(c->lr_scheduler_type, "linear");
    assert_true(isnan(c->lr_num_cycles) && isnan(c->lr_end) && isnan(c->lr_power));
    assert_false(c->bf16);
    assert_string_equal(c->device, "auto");
    assert_string_equal(c->loss_reduction, "micro_batch_mean");
    assert_string_equal(c->steps_rule, "floor");
    assert_string_equal(c->gradient_checkpointing, "auto");
    assert_string_equal(c->activation_offloading, "auto");
    assert_string_equal(c->vision_cache, "auto");
    assert_string_equal(c->adapter_layout, "hf4.52");
    assert_string_equal(c->nan_policy, "stop");
    assert_true(c->max_hours == -1.0 && c->peer_timeout == -1.0);
    assert_true(qvl_config_deadline(c) == 600.0);
    assert_string_equal(qvl_config_deadline_key(c), "ddp_timeout (cut; peer_timeout allows more)");
    assert_true(c->pack);
    assert_false(c->share_gpu);
    assert_false(c->strict_paths);
    assert_string_equal(c->on_bad_sample, "error");
    assert_int_equal(c->pack_tokens, 0);
    qvl_config_destroy(c);
}

/* LLaMA-Factory's qwen2_5vl_lora_sft.yaml, its keys in its order. */
static const char PUBLISHED[] =
    "### model\n"
    "model_name_or_path: Qwen/Qwen2.5-VL-7B-Instruct\n"
    "image_max_pixels: 262144\n"
    "video_max_pixels: 16384\n"
    "trust_remote_code: true\n\n"
    "### method\n"
    "stage: sft\ndo_train: true\nfinetuning_type: lora\nlora_rank: 8\nlora_target: all\n\n"
    "### dataset\n"
    "dataset: mllm_demo,identity,alpaca_en_demo  # video: mllm_video_demo\n"
    "template: qwen2_vl\ncutoff_len: 2048\nmax_samples: 1000\noverwrite_cache: true\n"
    "preprocessing_num_workers: 16\ndataloader_num_workers: 4\n\n"
    "### output\n"
    "output_dir: saves/qwen2_5vl-7b/lora/sft\nlogging_steps: 10\nsave_steps: 500\n"
    "plot_loss: true\noverwrite_output_dir: true\nsave_only_model: false\n"
    "report_to: none  # choices: [none, wandb, tensorboard, swanlab, mlflow]\n\n"
    "### train\n"
    "per_device_train_batch_size: 1\ngradient_accumulation_steps: 8\nlearning_rate: 1.0e-4\n"
    "num_train_epochs: 3.0\nlr_scheduler_type: cosine\nwarmup_ratio: 0.1\nbf16: true\n"
    "ddp_timeout: 180000000\nresume_from_checkpoint: null\n\n"
    "### eval\n"
    "# val_size: 0.1\n# per_device_eval_batch_size: 1\n# eval_strategy: steps\n";

static void the_published_example_parses(void **state)
{
    (void)state;
    qvl_config *c = NULL;
    qvl_err err = {0};
    if (qvl_config_parse(&c, PUBLISHED, sizeof PUBLISHED - 1, "7b.yaml", NULL, 0, &err) != QVL_OK)
        fail_msg("%s", err.text);
    assert_string_equal(c->model_name_or_path, "Qwen/Qwen2.5-VL-7B-Instruct");
    assert_int_equal(c->image_max_pixels, 262144);
    assert_true(c->do_train && c->bf16 && c->plot_loss && c->overwrite_output_dir);
    assert_false(c->save_only_model);
    assert_string_equal(c->dataset, "mllm_demo,identity,alpaca_en_demo");
    assert_string_equal(c->template_name, "qwen2_vl");
    assert_int_equal(c->max_samples, 1000);
    assert_string_equal(c->output_dir, "saves/qwen2_5vl-7b/lora/sft");
    assert_true(c->logging_steps == 10.0 && c->learning_rate == 1e-4 && c->warmup_ratio == 0.1);
    assert_int_equal(c->per_device_train_batch_size, 1);
    assert_int_equal(c->gradient_accumulation_steps, 8);
    assert_string_equal(c->lr_scheduler_type, "cosine");
    assert_true(c->ddp_timeout == 180000000.0 && qvl_config_deadline(c) == 600.0);
    assert_true(qvl_config_is_given(c, "lora_rank") && !qvl_config_is_given(c, "lora_alpha"));
    qvl_config_destroy(c);
}

static void overrides_win(void **state)
{
    (void)state;
    const char *const overrides[] = {"lora_rank=4", "learning_rate=1e-3", "lora_rank=16",
                                     "default_system=You are: no", "lora_target=[q_proj, v_proj]"};
    const char text[] = MINIMAL "lora_rank: 2\nlearning_rate: 7e-5\n";
    qvl_config *c = NULL;
    qvl_err err = {0};
    assert_int_equal(qvl_config_parse(&c, text, sizeof text - 1, "c.yaml", overrides, 3, &err),
                     QVL_OK);
    assert_int_equal(c->lora_rank, 16);
    assert_true(c->learning_rate == 1e-3);
    qvl_config_destroy(c);
    c = parsed("lora_target: all\n", overrides[4]);
    assert_string_equal(c->lora_target, "q_proj,v_proj");
    qvl_config_destroy(c);
    c = parsed("default_system: Be brief.\n", "default_system=");
    assert_null(c->default_system);
    qvl_config_destroy(c);
    c = parsed("lr_scheduler_type: polynomial\nlr_scheduler_kwargs: {power: 0.5}\n",
               "lr_scheduler_kwargs={lr_end: 1e-7}");
    assert_true(c->lr_power == 0.5 && c->lr_end == 1e-7 && isnan(c->lr_num_cycles));
    qvl_config_destroy(c);
    c = parsed("lr_scheduler_kwargs: {num_cycles: 0.5}\n", "lr_scheduler_kwargs=null"); /* linear */
    assert_true(isnan(c->lr_num_cycles));
    qvl_config_destroy(c);
    expect_refused("", overrides[3],
                   "command line:1: mapping values are not allowed in this context");
}

static void lists_become_comma_texts(void **state)
{
    (void)state;
    static const char *const FORMS[] = {
        "lora_target: q_proj,v_proj,o_proj\n", "lora_target: q_proj, v_proj ,o_proj\n",
        "lora_target: [q_proj, v_proj, o_proj]\n", "lora_target:\n- q_proj\n- v_proj\n- o_proj\n",
        "lora_target: [\"q_proj,v_proj\", o_proj]\n"};
    for (size_t i = 0; i < sizeof FORMS / sizeof *FORMS; i++) {
        qvl_config *c = parsed(FORMS[i], NULL);
        assert_string_equal(c->lora_target, "q_proj,v_proj,o_proj");
        qvl_config_destroy(c);
    }
    qvl_config *c = parsed("template: qwen2_vl\ndataset:\n  - a\n  - my set\n", NULL);
    assert_string_equal(c->dataset, "a,my set");
    qvl_config_destroy(c);
    c = parsed("dataset: []\n", NULL);
    assert_string_equal(c->dataset, "");
    qvl_config_destroy(c);
}

static void booleans_are_yaml_1_1s(void **state)
{
    (void)state;
    static const char *const YES[] = {"true", "True", "TRUE", "yes", "Yes",
                                      "YES",  "on",   "On",   "ON"};
    static const char *const NO[] = {"false", "False", "FALSE", "no", "No",
                                     "NO",    "off",   "Off",   "OFF"};
    char line[64];
    for (int i = 0; i < 18; i++) {
        snprintf(line, sizeof line, "pack: %s\nbf16: %s\n", i < 9 ? YES[i] : NO[i - 9],
                 i < 9 ? YES[i] : NO[i - 9]);
        qvl_config *c = parsed(line, NULL);
        assert_int_equal(c->pack, i < 9);
        assert_int_equal(c->bf16, i < 9);
        qvl_config_destroy(c);
    }
    /* words that are booleans to YAML, where a word is asked for */
    qvl_config *c = parsed("save_strategy: no\ngradient_checkpointing: on\nvision_cache: off\n"
                           "resume_from_checkpoint: True\n",
                           NULL);
    assert_string_equal(c->save_strategy, "no");
    assert_string_equal(c->gradient_checkpointing, "true");
    assert_string_equal(c->vision_cache, "off");
    assert_string_equal(c->resume_from_checkpoint, "true");
    qvl_config_destroy(c);
    c = parsed("gradient_checkpointing: no\nresume_from_checkpoint: No\n", NULL);
    assert_string_equal(c->gradient_checkpointing, "false");
    assert_string_equal(c->resume_from_checkpoint, "false");
    qvl_config_destroy(c);
    c = parsed("include_num_input_tokens_seen: true\nlogging_strategy: no\n", NULL);
    assert_string_equal(c->include_num_input_tokens_seen, "true");
    assert_string_equal(c->logging_strategy, "no");
    qvl_config_destroy(c);
    c = parsed("include_num_input_tokens_seen: false\n", NULL);
    assert_string_equal(c->include_num_input_tokens_seen, "no");
    qvl_config_destroy(c);
    c = parsed("resume_from_checkpoint: saves/checkpoint-8\n", NULL);
    assert_string_equal(c->resume_from_checkpoint, "saves/checkpoint-8");
    qvl_config_destroy(c);
}

static void numbers_have_many_forms(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        double value;
    } FORMS[] = {{"1e-4", 1e-4}, {"1.0e-4", 1e-4}, {"1E-4", 1e-4},     {"0.0001", 1e-4},
                 {".5", 0.5},    {"1", 1.0},       {"\"2e-4\"", 2e-4}, {"+3e-4", 3e-4},
                 {"1.", 1.0},    {"0", 0.0},       {"00.5", 0.5},      {"1e0", 1.0}};
    char line[64];
    for (size_t i = 0; i < sizeof FORMS / sizeof *FORMS; i++) {
        snprintf(line, sizeof line, "weight_decay: %s\n", FORMS[i].text);
        qvl_config *c = parsed(line, NULL);
        assert_true(c->weight_decay == FORMS[i].value);
        qvl_config_destroy(c);
    }
    qvl_config *c =
        parsed("max_steps: 1e3\nlora_rank: 8.0\nseed: 4294967295\nsave_steps: 0.25\n", NULL);
    assert_int_equal(c->max_steps, 1000);
    assert_int_equal(c->lora_rank, 8);
    assert_int_equal(c->seed, 4294967295);
    assert_true(c->save_steps == 0.25);
    qvl_config_destroy(c);
}

static void null_is_the_default(void **state)
{
    (void)state;
    static const char *const WORDS[] = {"", "null", "Null", "NULL", "~"};
    char line[256];
    for (size_t i = 0; i < sizeof WORDS / sizeof *WORDS; i++) {
        const char *w = WORDS[i];
        snprintf(line, sizeof line,
                 "lora_alpha: %s\nmax_samples: %s\neval_steps: %s\ndata_seed: %s\nmedia_dir: %s\n"
                 "dataset_dir: %s\nmax_grad_norm: %s\nlr_scheduler_type: %s\n",
                 w, w, w, w, w, w, w, w);
        qvl_config *c = parsed(line, NULL);
        assert_int_equal(c->lora_alpha, -1);
        assert_int_equal(c->max_samples, -1);
        assert_true(c->eval_steps == -1.0);
        assert_int_equal(c->data_seed, -1);
        assert_null(c->media_dir);
        assert_string_equal(c->dataset_dir, "data");
        assert_true(c->max_grad_norm == 0.0);
        assert_string_equal(c->lr_scheduler_type, "linear");
        qvl_config_destroy(c);
    }
    qvl_config *c = parsed("default_system: \"\"\nmedia_dir: 'null'\n", NULL);
    assert_string_equal(c->default_system, ""); /* no system turn, which is not the default */
    assert_string_equal(c->media_dir, "null");
    qvl_config_destroy(c);
    expect_refused("bf16:\n", NULL, "c.yaml:3: bf16: has no value; its default is false");
    expect_refused("lora_rank: ~\n", NULL, "c.yaml:3: lora_rank: has no value; its default is 8");
    expect_refused("learning_rate: null\n", NULL,
                   "c.yaml:3: learning_rate: has no value; its default is 5e-5");
}

static void lora_scale_follows_rank_and_alpha(void **state)
{
    (void)state;
    qvl_config *c = parsed("lora_rank: 16\nlora_alpha: 8\n", NULL);
    assert_true(qvl_config_lora_scale(c) == 0.5);
    qvl_config_destroy(c);
    c = parsed("lora_rank: 16\nuse_rslora: true\n", NULL);
    assert_int_equal(qvl_config_lora_alpha(c), 32);
    assert_true(qvl_config_lora_scale(c) == 8.0);
    qvl_config_destroy(c);
}

static void json_is_read_too(void **state)
{
    (void)state;
    static const char JSON[] =
        "{\n\t\"model_name_or_path\":\"m\",\"output_dir\":\"o\\/x \\u00e9\",\n"
        "\t\"lora_target\": [\"q_proj\", \"k_proj\"], \"bf16\": true, \"max_samples\": null,\n"
        "\t\"learning_rate\": 1e-4, \"lr_scheduler_type\": \"cosine\",\n\t\"lr_scheduler_kwargs\": "
        "{\"num_cycles\": 2}\n}\n";
    qvl_config *c = NULL;
    qvl_err err = {0};
    if (qvl_config_parse(&c, JSON, sizeof JSON - 1, "c.json", NULL, 0, &err) != QVL_OK)
        fail_msg("%s", err.text);
    assert_string_equal(c->output_dir, "o/x \xc3\xa9");
    assert_string_equal(c->lora_target, "q_proj,k_proj");
    assert_true(c->bf16 && c->learning_rate == 1e-4 && c->lr_num_cycles == 2.0);
    assert_int_equal(c->max_samples, -1);
    qvl_config_destroy(c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_key_takes_its_default),
        cmocka_unit_test(the_table_has_no_other_used_key),
        cmocka_unit_test(defaults_are_llama_factorys),
        cmocka_unit_test(the_published_example_parses),
        cmocka_unit_test(overrides_win),
        cmocka_unit_test(lists_become_comma_texts),
        cmocka_unit_test(booleans_are_yaml_1_1s),
        cmocka_unit_test(numbers_have_many_forms),
        cmocka_unit_test(null_is_the_default),
        cmocka_unit_test(lora_scale_follows_rank_and_alpha),
        cmocka_unit_test(json_is_read_too),
    };
    return cmocka_run_group_tests_name("config", tests, NULL, NULL);
}
