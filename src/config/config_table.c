#include "src/config/config_table.h"

#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#define USED_(type, key, member, text, low, high, choices, help)                                   \
    {                                                                                              \
        key, type, QVL_OPTION_USED, offsetof(qvl_config, member), text, low, high, choices, NULL,  \
            help                                                                                   \
    }
#define BOOL(name, text, help) USED_(QVL_OPTION_BOOL, #name, name, text, 0, 0, NULL, help)
#define INT(name, text, low, high, help)                                                           \
    USED_(QVL_OPTION_INT, #name, name, text, low, high, NULL, help)
#define FLOAT(name, text, low, high, help)                                                         \
    USED_(QVL_OPTION_FLOAT, #name, name, text, low, high, NULL, help)
#define TEXT(name, text, help) USED_(QVL_OPTION_TEXT, #name, name, text, 0, 0, NULL, help)
#define LIST(name, text, help) USED_(QVL_OPTION_LIST, #name, name, text, 0, 0, NULL, help)
#define CHOICE(name, text, choices, help)                                                          \
    USED_(QVL_OPTION_TEXT, #name, name, text, 0, 0, choices, help)
/* The first choice is LLaMA-Factory's default. */
#define FIXED(key, choices, help)                                                                  \
    {                                                                                              \
        key, QVL_OPTION_ANY, QVL_OPTION_FIXED, 0, NULL, 0, 0, choices, NULL, help                  \
    }
#define IGNORED(key, help)                                                                         \
    {                                                                                              \
        key, QVL_OPTION_ANY, QVL_OPTION_IGNORED, 0, NULL, 0, 0, NULL, NULL, help                   \
    }
#define SECTION(title)                                                                             \
    {                                                                                              \
        NULL, QVL_OPTION_ANY, QVL_OPTION_IGNORED, 0, NULL, 0, 0, NULL, title, NULL                 \
    }

#define NO_HUB     "hub access: nothing is fetched from a network"
#define OTHER      "belongs to a method that qvl does not have"
#define GENERATION "generation: has no effect on training"
#define LOADER     "data loading: all cores are used, samples come from one file"
#define SERVING    "serving: has no effect on training"
#define VIDEO      "videos are not read; a sample with one is an error"

const qvl_option QVL_OPTIONS[] = {
    SECTION("Model"),
    TEXT(model_name_or_path, "null", "model directory, or a hub name found in the local hub cache"),
    LIST(adapter_name_or_path, "null", "PEFT adapter directory to go on training from"),
    TEXT(cache_dir, "null", "hub cache directory, before HF_HUB_CACHE and HF_HOME"),
    TEXT(model_revision, "main", "branch, tag or commit of a hub name"),
    INT(image_max_pixels, "589824", 784, 1e9, "larger images are shrunk to this area"),
    INT(image_min_pixels, "1024", 1, 1e9, "smaller images are enlarged to this area"),
    BOOL(split_special_tokens, "false", "special tokens in texts are tokenised as plain text"),
    BOOL(disable_gradient_checkpointing, "false", "true is gradient_checkpointing: false"),
    FIXED("adapter_folder", "null", "give the whole path in adapter_name_or_path"),
    IGNORED("hf_hub_token", NO_HUB),
    IGNORED("ms_hub_token", NO_HUB),
    IGNORED("om_hub_token", NO_HUB),
    IGNORED("use_fast_tokenizer", "there is one tokenizer and one image processor (PIL's resize)"),
    FIXED("resize_vocab", "false", "the vocabulary is not extended"),
    FIXED("add_tokens", "null", "the vocabulary is not extended"),
    FIXED("add_special_tokens", "null", "the vocabulary is not extended"),
    FIXED("new_special_tokens_config", "null", "the vocabulary is not extended"),
    IGNORED("init_special_tokens", "the vocabulary is not extended"),
    IGNORED("low_cpu_mem_usage", "host memory never holds the model twice"),
    FIXED("rope_scaling", "null", "rotary scaling is the model's own"),
    IGNORED("flash_attn", "there is one attention, exact and without a T x T matrix"),
    FIXED("shift_attn", "false", "shifted attention is not done"),
    FIXED("mixture_of_depths", "null|false", "mixture of depths is not done"),
    FIXED("moe_aux_loss_coef", "null", "the model has no experts"),
    FIXED("use_unsloth", "false", "qvl has its own kernels"),
    FIXED("use_unsloth_gc", "false", "see gradient_checkpointing"),
    FIXED("enable_liger_kernel", "false", "qvl has its own kernels"),
    FIXED("use_v1_kernels", "false", "qvl has its own kernels"),
    FIXED("use_kt", "false", "qvl has its own kernels"),
    IGNORED("kt_*", OTHER),
    IGNORED("use_reentrant_gc", "recomputation has one form"),
    FIXED("upcast_layernorm", "false", "norms are computed in float32 from the weights as stored"),
    FIXED("upcast_lmhead_output", "false", "losses are computed in float32 anyway"),
    FIXED("train_from_scratch", "false", "the model's weights are read from its files"),
    FIXED("infer_backend", "huggingface|hf", "training has one backend"),
    IGNORED("infer_dtype", GENERATION),
    IGNORED("use_kv_cache", GENERATION),
    IGNORED("use_cache", GENERATION),
    IGNORED("offload_folder", "nothing is offloaded to disk"),
    IGNORED("print_param_status", "the parameters are always listed"),
    IGNORED("trust_remote_code", "no code is loaded"),
    FIXED("quantization_bit", "null", "quantised base weights (QLoRA) are not done"),
    IGNORED("quantization_method", OTHER),
    IGNORED("quantization_type", OTHER),
    IGNORED("double_quantization", OTHER),
    IGNORED("quantization_device_map", OTHER),
    IGNORED("video_max_pixels", VIDEO),
    IGNORED("video_min_pixels", VIDEO),
    IGNORED("video_fps", VIDEO),
    IGNORED("video_maxlen", VIDEO),
    FIXED("image_do_pan_and_scan", "false", "belongs to other models"),
    FIXED("crop_to_patches", "false", "belongs to other models"),
    FIXED("use_audio_in_video", "false", "belongs to other models"),
    IGNORED("audio_sampling_rate", "belongs to other models"),
    IGNORED("export_*", "merging: has no effect on training"),
    IGNORED("vllm_*", SERVING),
    IGNORED("sglang_*", SERVING),

    SECTION("Method"),
    FIXED("stage", "sft", "only supervised fine-tuning is done"),
    FIXED("finetuning_type", "lora", "only LoRA is done"),
    INT(lora_rank, "8", 1, 1024, "rank of A and B"),
    INT(lora_alpha, "null", 1, 1e6, "scale is alpha / rank; null: 2 * rank"),
    FLOAT(lora_dropout, "0.0", 0, 0.99, "probability that an element of a LoRA input is zeroed"),
    LIST(lora_target, "all",
         "all, or a list of q_proj,k_proj,v_proj,o_proj,gate_proj,up_proj,down_proj"),
    BOOL(use_rslora, "false", "scale is alpha / sqrt(rank)"),
    FIXED("use_dora", "false", "DoRA is not done"),
    FIXED("loraplus_lr_ratio", "null", "LoRA+ is not done"),
    IGNORED("loraplus_lr_embedding", OTHER),
    FIXED("pissa_init", "false", "PiSSA is not done"),
    IGNORED("pissa_iter", OTHER),
    FIXED("pissa_convert", "false", "PiSSA is not done"),
    FIXED("create_new_adapter", "false", "an adapter is continued, not merged"),
    FIXED("additional_target", "null", "only adapters are trained"),
    FIXED("freeze_vision_tower", "true",
          "the vision tower is frozen; its features are computed once"),
    FIXED("freeze_multi_modal_projector", "true", "the projector is frozen"),
    FIXED("freeze_language_model", "false", "the adapters are on the language model"),
    FIXED("pure_bf16", "false", "adapters and optimiser are float32"),
    BOOL(disable_shuffling, "false", "samples in the order of the data"),
    BOOL(plot_loss, "false", "draw training_loss.png"),
    FIXED("compute_accuracy", "false", "token accuracy is not computed"),
    FIXED("early_stopping_steps", "null", "early stopping is not done"),
    IGNORED("include_effective_tokens_per_second", "tokens per second are always reported"),
    IGNORED("freeze_trainable_*", OTHER),
    IGNORED("freeze_extra_modules", OTHER),
    IGNORED("oft_*", OTHER),
    IGNORED("module_dropout", OTHER),
    IGNORED("pref_*", OTHER),
    IGNORED("dpo_*", OTHER),
    IGNORED("kto_*", OTHER),
    IGNORED("simpo_gamma", OTHER),
    IGNORED("ppo_*", OTHER),
    IGNORED("ref_model*", OTHER),
    IGNORED("reward_model*", OTHER),
    IGNORED("ld_alpha", OTHER),
    FIXED("use_galore", "false", OTHER),
    IGNORED("galore_*", OTHER),
    FIXED("use_apollo", "false", OTHER),
    IGNORED("apollo_*", OTHER),
    FIXED("use_badam", "false", OTHER),
    IGNORED("badam_*", OTHER),
    FIXED("use_adam_mini", "false", OTHER),
    FIXED("use_muon", "false", OTHER),
    FIXED("use_llama_pro", "false", OTHER),
    FIXED("use_dft_loss", "false", OTHER),
    FIXED("use_asft_loss", "false", OTHER),
    IGNORED("asft_alpha", OTHER),
    FIXED("use_eaft_loss", "false", OTHER),
    IGNORED("eaft_alpha", OTHER),
    FIXED("use_mca", "false", OTHER),
    FIXED("use_megatron_bridge", "false", OTHER),
    FIXED("use_hyper_parallel", "false", OTHER),
    IGNORED("hyper_parallel_*", OTHER),
    FIXED("use_swanlab", "false", "trainer_log.jsonl and trainer_state.json are written"),
    IGNORED("swanlab_*", OTHER),

    SECTION("Data"),
    USED_(QVL_OPTION_TEXT, "template", template_name, "null", 0, 0, "qwen2_vl", "chat template"),
    LIST(dataset, "null", "comma-separated names in dataset_info.json"),
    LIST(eval_dataset, "null", "names of the data sets to evaluate on"),
    TEXT(dataset_dir, "data", "directory of dataset_info.json and the data files"),
    TEXT(media_dir, "null", "directory of the images; null: dataset_dir"),
    INT(cutoff_len, "2048", 16, 1 << 20, "a sample's tokens are cut to this length"),
    BOOL(train_on_prompt, "false", "prompts are supervised too"),
    BOOL(mask_history, "false", "only the last answer is supervised"),
    INT(max_samples, "null", 1, 4294967295.0, "first so many samples of each data set"),
    FLOAT(val_size, "0.0", 0, 4294967295.0,
          "samples kept apart for evaluation: a share, or above 1 a count"),
    TEXT(default_system, "null", "system text of samples without one; null: the template's"),
    BOOL(overwrite_cache, "false", "encode again even if tokenized_path exists, if qvl wrote it"),
    TEXT(tokenized_path, "null", "pre-tokenized HDF5 file, read or written; null: in output_dir"),
    FIXED("mix_strategy", "concat", "data sets are concatenated"),
    FIXED("interleave_probs", "null", "data sets are concatenated"),
    FIXED("packing", "null|false", "LLaMA-Factory's packing changes what a sample is; see pack"),
    FIXED("neat_packing", "false", "LLaMA-Factory's packing changes what a sample is; see pack"),
    IGNORED("preprocessing_batch_size", LOADER),
    IGNORED("preprocessing_num_workers", LOADER),
    IGNORED("data_shared_file_system", LOADER),
    FIXED("ignore_pad_token_for_loss", "true", "there is no padding"),
    IGNORED("eval_num_beams", GENERATION),
    FIXED("eval_on_each_dataset", "false", "one evaluation loss is computed"),
    FIXED("tool_format", "null|qwen", "tools are written as Qwen's template writes them"),
    IGNORED("enable_thinking", "belongs to other models"),
    IGNORED("preserve_thinking", "belongs to other models"),
    FIXED("streaming", "false", "data are encoded before training"),
    IGNORED("buffer_size", LOADER),

    SECTION("Output and checkpoints"),
    TEXT(output_dir, "trainer_output", "where everything is written"),
    BOOL(overwrite_output_dir, "false",
         "start anew in a directory that holds a run, unless it is this one, not finished"),
    BOOL(do_train, "false", "train"),
    BOOL(do_eval, "false", "evaluate at the end"),
    FIXED("do_predict", "false", "generation is not part of training"),
    FLOAT(logging_steps, "500", 1e-9, 1e9, "steps between log lines; below 1: share of all steps"),
    BOOL(logging_first_step, "false", "log the first step too"),
    IGNORED("logging_nan_inf_filter", "losses are reported as they are"),
    CHOICE(save_strategy, "steps", "steps|epoch|no", "when checkpoints are written"),
    FLOAT(save_steps, "500", 1e-9, 1e9, "steps between checkpoints; below 1: share of all steps"),
    INT(save_total_limit, "null", 1, 1e9, "older checkpoints beyond this number are removed"),
    BOOL(save_only_model, "false", "checkpoints without the optimiser's state: no resume"),
    TEXT(resume_from_checkpoint, "null",
         "checkpoint directory to go on from; true: the newest, which must be there; null: the "
         "newest if there is one; false: none"),
    FIXED("report_to", "none|all|null|", "trainer_log.jsonl and trainer_state.json are written"),
    IGNORED("run_name", "tracking: no tracker is called"),
    IGNORED("logging_dir", "tracking: no tracker is called"),
    IGNORED("logging_strategy", "see logging_steps"),
    IGNORED("log_level", "there is one level"),
    IGNORED("log_level_replica", "rank 0 logs"),
    IGNORED("log_on_each_node", "rank 0 logs"),
    IGNORED("disable_tqdm", "the progress bar is drawn on terminals only"),
    IGNORED("save_safetensors", "adapters are written as safetensors"),
    FIXED("save_on_each_node", "false", "rank 0 writes"),
    FIXED("push_to_hub", "false", "nothing is sent to a network"),
    IGNORED("hub_*", NO_HUB),

    SECTION("Training"),
    INT(per_device_train_batch_size, "8", 1, 65536, "samples of a micro-batch"),
    INT(gradient_accumulation_steps, "1", 1, 65536, "micro-batches of a rank in one step"),
    FLOAT(learning_rate, "5e-5", 1e-20, 10, "largest rate of the schedule"),
    FLOAT(num_train_epochs, "3.0", 1e-6, 1e6, "passes over the data"),
    INT(max_steps, "-1", -1, 1e9, "steps to do; above 0 it wins over num_train_epochs"),
    CHOICE(lr_scheduler_type, "linear",
           "linear|cosine|constant|constant_with_warmup|cosine_with_restarts|polynomial",
           "shape of the rate after warm-up"),
    {"lr_scheduler_kwargs", QVL_OPTION_MAP, QVL_OPTION_USED, 0, "null", 0, 0, NULL, NULL,
     "num_cycles (cosine, cosine_with_restarts), lr_end and power (polynomial)"},
    FLOAT(warmup_ratio, "0.0", 0, 1, "share of the steps with a rising rate"),
    FLOAT(warmup_steps, "0", 0, 1e9, "steps with a rising rate; above 0 it wins; below 1: a share"),
    BOOL(bf16, "false", "bf16 weights and activations on GPUs; the CPU computes in float32"),
    FIXED("fp16", "false", "float16 training is not done; bf16 has its range"),
    IGNORED("tf32", "float32 products are exact"),
    FIXED("optim", "adamw_torch|adamw_torch_fused", "the optimiser is AdamW"),
    FIXED("optim_args", "null", "the optimiser is AdamW"),
    FLOAT(adam_beta1, "0.9", 0, 0.999999, "decay of the first moment"),
    FLOAT(adam_beta2, "0.999", 0, 0.99999999, "decay of the second moment"),
    FLOAT(adam_epsilon, "1e-8", 1e-20, 1, "added to the root of the second moment"),
    FLOAT(weight_decay, "0.0", 0, 1e3, "decoupled decay of the adapters"),
    FLOAT(max_grad_norm, "1.0", 0, 1e9,
          "gradients are clipped to this norm; 0 or null: they are not"),
    INT(seed, "42", 0, 4294967295.0, "fixes everything"),
    INT(data_seed, "null", 0, 4294967295.0, "seed of the order of samples; null: seed"),
    FLOAT(ddp_timeout, "1800", 1, 1e12,
          "seconds that a rank waits for another; at most 600 are waited, see peer_timeout"),
    IGNORED("dataloader_num_workers", LOADER),
    IGNORED("dataloader_pin_memory", LOADER),
    IGNORED("dataloader_prefetch_factor", LOADER),
    IGNORED("dataloader_persistent_workers", LOADER),
    FIXED("dataloader_drop_last", "false", "the last samples of an epoch are used"),
    FIXED("group_by_length", "false", "packing leaves no padding to save"),
    IGNORED("length_column_name", LOADER),
    IGNORED("ddp_find_unused_parameters", "all adapters are reduced in one buffer"),
    IGNORED("ddp_backend", "ranks talk through MPI and NCCL"),
    IGNORED("ddp_bucket_cap_mb", "all adapters are reduced in one buffer"),
    IGNORED("ddp_broadcast_buffers", "there are no buffers to broadcast"),
    FIXED("deepspeed", "null", "the base weights are whole on every rank; remove the line"),
    FIXED("fsdp", "null|", "the base weights are whole on every rank; remove the line"),
    IGNORED("fsdp_config", "see fsdp"),
    IGNORED("accelerator_config", "ranks are dealt batches as its defaults do"),
    IGNORED("average_tokens_across_devices", "see loss_reduction"),
    IGNORED("remove_unused_columns", LOADER),
    IGNORED("include_num_input_tokens_seen", "tokens per second are always reported"),
    FIXED("neftune_noise_alpha", "null", "noise on embeddings is not done"),
    FIXED("label_smoothing_factor", "0.0", "label smoothing is not done"),
    FIXED("auto_find_batch_size", "false", "memory is planned before the start"),
    FIXED("ignore_data_skip", "false", "a resumed run goes on with the next sample"),
    IGNORED("full_determinism", "every run is deterministic"),
    IGNORED("gradient_checkpointing_kwargs", "recomputation has one form"),
    FIXED("use_cpu", "false", "say device: cpu"),
    FIXED("no_cuda", "false", "say device: cpu"),
    IGNORED("torch_compile*", "qvl is compiled"),
    IGNORED("local_rank", "MPI numbers the ranks"),
    FIXED("use_ray", "false", "ranks are started by mpirun or srun"),
    IGNORED("ray_*", OTHER),
    FIXED("fp8", "false", "fp8 products are not done"),
    IGNORED("fp8_*", OTHER),
    FIXED("enable_torch_profiler", "false", "the run ends with a table of where the time went"),
    IGNORED("profiler_*", OTHER),

    SECTION("Evaluation"),
    INT(per_device_eval_batch_size, "8", 1, 65536, "samples of an evaluation batch"),
    CHOICE(eval_strategy, "no", "no|steps|epoch", "when the evaluation loss is computed"),
    FLOAT(eval_steps, "null", 1e-9, 1e9, "steps between evaluations; null: logging_steps"),
    IGNORED("eval_accumulation_steps", "evaluation keeps no logits"),
    FIXED("eval_delay", "0", "evaluation starts with its first interval"),
    FIXED("eval_on_start", "false", "evaluation starts with its first interval"),
    IGNORED("prediction_loss_only", "evaluation computes the loss"),
    IGNORED("label_names", "the labels are the labels"),
    FIXED("predict_with_generate", "false", "generation is not part of training"),
    FIXED("load_best_model_at_end", "false", "the last adapter is the result"),
    IGNORED("metric_for_best_model", "see load_best_model_at_end"),
    IGNORED("greater_is_better", "see load_best_model_at_end"),
    IGNORED("do_sample", GENERATION),
    IGNORED("temperature", GENERATION),
    IGNORED("top_p", GENERATION),
    IGNORED("top_k", GENERATION),
    IGNORED("num_beams", GENERATION),
    IGNORED("max_new_tokens", GENERATION),
    IGNORED("max_length", GENERATION),
    IGNORED("generation_max_length", GENERATION),
    IGNORED("generation_num_beams", GENERATION),
    IGNORED("repetition_penalty", GENERATION),
    IGNORED("length_penalty", GENERATION),
    IGNORED("skip_special_tokens", GENERATION),

    SECTION("qvl's own"),
    CHOICE(device, "auto", "auto|cpu|cuda", "auto takes CUDA where a GPU is present"),
    BOOL(pack, "true", "run a step's samples as rows of tokens laid end to end; same results"),
    INT(pack_tokens, "0", 0, 1 << 20, "tokens of one such row; 0: from memory"),
    CHOICE(loss_reduction, "micro_batch_mean", "micro_batch_mean|token_mean",
           "mean of micro-batch means as LLaMA-Factory, or mean over the step's tokens"),
    CHOICE(steps_rule, "floor", "floor|ceil", "floor: groups of micro-batches run across epochs"),
    CHOICE(gradient_checkpointing, "auto", "auto|true|false",
           "recompute activations in backward; auto: when memory asks for it"),
    CHOICE(
        activation_offloading, "auto", "auto|true|false",
        "part of what would be recomputed waits in host memory; auto: on a GPU, if that is faster"),
    BOOL(share_gpu, "false", "several ranks on one GPU, for tests"),
    CHOICE(vision_cache, "auto", "auto|off",
           "keep the features of each image; off: compute each time"),
    CHOICE(adapter_layout, "hf4.52", "hf4.52|hf4.51",
           "tensor names for transformers from 4.52, or before"),
    CHOICE(on_bad_sample, "error", "error|skip",
           "when samples are bad (all are listed): stop, or leave them out"),
    BOOL(strict_paths, "false", "refuse images that are not within media_dir, links followed"),
    FLOAT(max_hours, "null", 1e-6, 1e6,
          "save and stop (exit code 75) before so many hours have passed since the start"),
    CHOICE(nan_policy, "stop", "stop|skip",
           "a loss or gradient that is no number: stop, or skip the step (10 in a row at most)"),
    FLOAT(peer_timeout, "null", 1, 1e9,
          "seconds that a rank waits for another; null: ddp_timeout, at most 600"),
};

const size_t QVL_N_OPTIONS = sizeof QVL_OPTIONS / sizeof *QVL_OPTIONS;

static const struct {
    const char *old_name, *key;
} ALIASES[] = {{"evaluation_strategy", "eval_strategy"}};

static bool matches(const char *pattern, const char *key)
{
    const size_t n = strlen(pattern);
    if (n && pattern[n - 1] == '*')
        return strncmp(pattern, key, n - 1) == 0 && strlen(key) >= n - 1;
    return strcmp(pattern, key) == 0;
}

int qvl_option_find(const char *key)
{
    for (size_t i = 0; i < sizeof ALIASES / sizeof *ALIASES; i++)
        if (strcmp(key, ALIASES[i].old_name) == 0)
            key = ALIASES[i].key;
    for (size_t i = 0; i < QVL_N_OPTIONS; i++)
        if (QVL_OPTIONS[i].key && matches(QVL_OPTIONS[i].key, key))
            return (int)i;
    return -1;
}

const char *qvl_option_nearest(const char *key)
{
    const char *nearest = NULL;
    int least = (int)strlen(key) / 3 + 2; /* further away is no misspelling */
    for (size_t i = 0; i < QVL_N_OPTIONS; i++) {
        const char *known = QVL_OPTIONS[i].key;
        const int distance = known && !strchr(known, '*') ? qvl_edit_distance(key, known) : 99;
        if (distance < least) {
            least = distance;
            nearest = known;
        }
    }
    return nearest;
}

const char *qvl_option_format_limit(char buffer[40], const qvl_option *option, double limit)
{
    if (option->type != QVL_OPTION_INT)
        return qvl_format_double(buffer, limit);
    snprintf(buffer, 40, "%" PRId64, (int64_t)limit);
    return buffer;
}
