/* The configuration of a run: LLaMA-Factory's keys, and qvl's own.
 *
 * The table of keys (config_table.c) is the one source of names, types, defaults, ranges and help;
 * the parser, --help and docs/CONFIG.md come from it.
 */
#ifndef QVL_SRC_CONFIG_CONFIG_H
#define QVL_SRC_CONFIG_CONFIG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "src/base/status.h"
#include "src/base/text.h"

#ifdef __cplusplus
extern "C" {
#endif

/* lr_end of a polynomial schedule that is not given one. */
#define QVL_CONFIG_LR_END 1e-7

/* Shapes that the two ends of warmup_stable_decay may have; a configuration has their number. */
#define QVL_SCHEDULE_SHAPES "linear|cosine|1-sqrt"

/* Texts are owned by the configuration; NULL where the YAML says null. Lists are comma-separated
 * texts without spaces, as LLaMA-Factory writes them. */
typedef struct qvl_config {
    const char *name; /* of the file, for messages; borrowed */
    /* model */
    char *model_name_or_path, *adapter_name_or_path, *cache_dir, *model_revision;
    int64_t image_max_pixels, image_min_pixels;
    bool split_special_tokens, disable_gradient_checkpointing;
    /* method */
    int64_t lora_rank, lora_alpha; /* alpha -1: null, that is 2 * rank */
    double lora_dropout;
    char *lora_target;
    bool use_rslora, disable_shuffling, plot_loss;
    /* data */
    char *template_name, *dataset, *eval_dataset, *dataset_dir, *media_dir, *default_system;
    char *tokenized_path;
    int64_t cutoff_len, max_samples; /* max_samples -1: null */
    double val_size;
    bool train_on_prompt, mask_history, overwrite_cache, strict_paths;
    char *on_bad_sample;
    /* output */
    char *output_dir, *resume_from_checkpoint, *save_strategy, *eval_strategy;
    char *report_to, *logging_dir;
    char *logging_strategy, *include_num_input_tokens_seen;
    bool overwrite_output_dir, do_train, do_eval, logging_first_step, save_only_model;
    double logging_steps, save_steps, eval_steps; /* below 1: share of all steps; eval -1: null */
    int64_t save_total_limit;                     /* -1: null */
    /* training */
    int64_t per_device_train_batch_size, per_device_eval_batch_size, gradient_accumulation_steps;
    double learning_rate, num_train_epochs, warmup_ratio, warmup_steps, weight_decay;
    double adam_beta1, adam_beta2, adam_epsilon, max_grad_norm, ddp_timeout;
    int64_t max_steps, seed, data_seed; /* data_seed -1: null */
    char *lr_scheduler_type;
    /* of lr_scheduler_kwargs (schedule_args.c); NaN when not given */
    double lr_num_cycles, lr_end, lr_power, lr_min, lr_min_rate, lr_warmup_rate, lr_timescale;
    double lr_stable_steps, lr_decay_steps, lr_min_ratio, lr_warmup_shape, lr_decay_shape;
    bool bf16;
    /* qvl's own */
    char *device, *loss_reduction, *steps_rule, *gradient_checkpointing, *vision_cache;
    char *activation_offloading;
    char *adapter_layout, *nan_policy;
    double max_hours, peer_timeout; /* -1: null */
    bool pack, share_gpu;
    int64_t pack_tokens;
    /* where each key was given, by its number in the table: see qvl_config_given_at */
    int *given_at;
} qvl_config;

/* Reads text (the file's content; name for messages) and then the overrides "key=value", checks
 * everything, and fills in defaults. QVL_ECONFIG with name:line of each key that is at fault, all
 * in one line. *out belongs to the caller. */
qvl_status qvl_config_parse(qvl_config **out, const char *text, size_t n_bytes, const char *name,
                            const char *const *overrides, int n_overrides, qvl_err *err);
void qvl_config_destroy(qvl_config *config); /* NULL is fine */

/* Whether the key (which must exist) was given in the file or on the command line. */
bool qvl_config_is_given(const qvl_config *config, const char *key);

/* Its line in the file, QVL_GIVEN_AS_OVERRIDE where the command line has the last word, 0: not
 * given. */
enum { QVL_GIVEN_AS_OVERRIDE = -1 };
int qvl_config_given_at(const qvl_config *config, const char *key);

/* Checks between keys, as LLaMA-Factory makes them; part of parse, exposed for tests. */
qvl_status qvl_config_check(const qvl_config *config, const char *name, qvl_err *err);

/* What is in force, as YAML that reads back to the same configuration. */
qvl_status qvl_config_format(qvl_text *out, const qvl_config *config, qvl_err *err);

/* The table as text for --help, and as Markdown for docs/CONFIG.md. */
qvl_status qvl_config_format_help(qvl_text *out, qvl_err *err);
qvl_status qvl_config_format_markdown(qvl_text *out, qvl_err *err);

/* Seconds that a rank waits for another: peer_timeout, or ddp_timeout but at most 600. */
double qvl_config_deadline(const qvl_config *config);
/* The key that it comes from, for messages: a literal. */
const char *qvl_config_deadline_key(const qvl_config *config);

/* alpha / R, or alpha / sqrt(R) with use_rslora. */
double qvl_config_lora_scale(const qvl_config *config);
/* lora_alpha with null resolved. */
int64_t qvl_config_lora_alpha(const qvl_config *config);

#ifdef __cplusplus
}
#endif
#endif
