#include "src/config/config.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "src/base/text.h"
#include "src/config/schedule_args.h"

static bool has_text(const char *text)
{
    return text && text[0];
}

/* "c.yaml:7": the line of the key, or of the later of two, as that is the one that does not fit;
 * "command line" when one of them was given there; the file alone when neither was given. */
static const char *place(char buffer[300], const qvl_config *config, const char *name,
                         const char *key, const char *other)
{
    const int a = qvl_config_given_at(config, key);
    const int b = other ? qvl_config_given_at(config, other) : 0;
    if (a == QVL_GIVEN_AS_OVERRIDE || b == QVL_GIVEN_AS_OVERRIDE)
        snprintf(buffer, 300, "command line");
    else if (a || b)
        snprintf(buffer, 300, "%.250s:%d", name, a > b ? a : b);
    else
        snprintf(buffer, 300, "%.250s", name);
    return buffer;
}

static bool is_target(const char *word, size_t n)
{
    static const char *const TARGETS[] = {"all",    "q_proj",    "k_proj",  "v_proj",
                                          "o_proj", "gate_proj", "up_proj", "down_proj"};
    for (size_t i = 0; i < sizeof TARGETS / sizeof *TARGETS; i++)
        if (strlen(TARGETS[i]) == n && strncmp(TARGETS[i], word, n) == 0)
            return true;
    return false;
}

static qvl_status check_targets(const qvl_config *config, const char *name, qvl_err *err)
{
    char where[300];
    const char *word = has_text(config->lora_target) ? config->lora_target : "";
    for (;;) {
        word += strspn(word, " ");
        size_t n = strcspn(word, ",");
        const char *next = word[n] ? word + n + 1 : NULL;
        while (n && word[n - 1] == ' ')
            n--;
        if (!is_target(word, n))
            return qvl_fail(err, QVL_ECONFIG,
                            "%s: lora_target: '%.*s' is not all, q_proj, k_proj, v_proj, o_proj, "
                            "gate_proj, up_proj or down_proj",
                            place(where, config, name, "lora_target", NULL), (int)n, word);
        if (!next)
            return QVL_OK;
        word = next;
    }
}

/* What transformers' schedules fail on (TypeError, ValueError). */
static qvl_status check_scheduler(const qvl_config *config, const char *name, qvl_err *err)
{
    char where[300], end[40], rate[40], taken[200];
    const char *type = config->lr_scheduler_type, *wrong = qvl_schedule_args_misfit(config);
    const bool has_min =
        strcmp(type, "cosine_with_min_lr") == 0 || strcmp(type, "cosine_warmup_with_min_lr") == 0;
    place(where, config, name, "lr_scheduler_kwargs", "lr_scheduler_type");
    if (wrong)
        return qvl_fail(err, QVL_ECONFIG,
                        "%s: lr_scheduler_kwargs: %s is no argument of %s, which takes %s", where,
                        wrong, type, qvl_schedule_args_taken(taken, config));
    if (has_min && isnan(config->lr_min) == isnan(config->lr_min_rate))
        return qvl_fail(err, QVL_ECONFIG,
                        "%s: lr_scheduler_kwargs: %s needs min_lr or min_lr_rate%s", where, type,
                        isnan(config->lr_min) ? "" : ", and takes one of them only");
    const double lr_end = isnan(config->lr_end) ? QVL_CONFIG_LR_END : config->lr_end;
    if (strcmp(type, "polynomial") == 0 && !(lr_end < config->learning_rate))
        return qvl_fail(err, QVL_ECONFIG,
                        "%s: lr_scheduler_kwargs: lr_end is %s%s, expected less than "
                        "learning_rate, which is %s",
                        place(where, config, name, "lr_scheduler_kwargs", "learning_rate"),
                        qvl_format_double(end, lr_end),
                        isnan(config->lr_end) ? " unless it is given" : "",
                        qvl_format_double(rate, config->learning_rate));
    return QVL_OK;
}

static qvl_status check_data(const qvl_config *config, const char *name, qvl_err *err)
{
    char where[300];
    if (has_text(config->dataset) && !has_text(config->template_name))
        return qvl_fail(err, QVL_ECONFIG, "%s: template: is missing; expected qwen2_vl",
                        place(where, config, name, "template", NULL));
    if (config->val_size > 0 && has_text(config->eval_dataset))
        return qvl_fail(err, QVL_ECONFIG, "%s: val_size and eval_dataset exclude each other",
                        place(where, config, name, "val_size", "eval_dataset"));
    if (config->val_size > 0 && !has_text(config->dataset))
        return qvl_fail(err, QVL_ECONFIG, "%s: val_size: needs dataset",
                        place(where, config, name, "val_size", NULL));
    if (config->val_size == 1.0 || (config->val_size > 1 && config->val_size < 2))
        return qvl_fail(err, QVL_ECONFIG,
                        "%s: val_size: expected a share below 1 or a count from 2",
                        place(where, config, name, "val_size", NULL));
    if (has_text(config->eval_dataset) && !has_text(config->dataset))
        return qvl_fail(err, QVL_ECONFIG, "%s: eval_dataset: needs dataset",
                        place(where, config, name, "eval_dataset", NULL));
    if (config->mask_history && config->train_on_prompt)
        return qvl_fail(err, QVL_ECONFIG, "%s: mask_history and train_on_prompt exclude each other",
                        place(where, config, name, "mask_history", "train_on_prompt"));
    if (config->image_min_pixels > config->image_max_pixels)
        return qvl_fail(err, QVL_ECONFIG, "%s: image_min_pixels is above image_max_pixels",
                        place(where, config, name, "image_min_pixels", "image_max_pixels"));
    return QVL_OK;
}

qvl_status qvl_config_check(const qvl_config *config, const char *name, qvl_err *err)
{
    char where[300];
    const bool evaluates = strcmp(config->eval_strategy, "no") != 0 || config->do_eval;
    if (!has_text(config->model_name_or_path))
        return qvl_fail(err, QVL_ECONFIG, "%s: model_name_or_path: is missing",
                        place(where, config, name, "model_name_or_path", NULL));
    if (!has_text(config->output_dir))
        return qvl_fail(err, QVL_ECONFIG, "%s: output_dir: is missing",
                        place(where, config, name, "output_dir", NULL));
    if (config->do_train && !has_text(config->dataset) && !has_text(config->tokenized_path))
        return qvl_fail(err, QVL_ECONFIG, "%s: dataset: is missing (or give tokenized_path)",
                        place(where, config, name, "dataset", NULL));
    if (evaluates && config->val_size <= 0 && !has_text(config->eval_dataset))
        return qvl_fail(
            err, QVL_ECONFIG, "%s: eval_strategy and do_eval need eval_dataset or val_size",
            place(where, config, name, config->do_eval ? "do_eval" : "eval_strategy", NULL));
    if (config->disable_gradient_checkpointing &&
        strcmp(config->gradient_checkpointing, "true") == 0)
        return qvl_fail(
            err, QVL_ECONFIG,
            "%s: disable_gradient_checkpointing and gradient_checkpointing: true "
            "exclude each other",
            place(where, config, name, "disable_gradient_checkpointing", "gradient_checkpointing"));
    if (has_text(config->adapter_name_or_path) && strchr(config->adapter_name_or_path, ','))
        return qvl_fail(
            err, QVL_ECONFIG,
            "%s: adapter_name_or_path: one adapter is continued; merging several is not "
            "supported",
            place(where, config, name, "adapter_name_or_path", NULL));
    /* checked once more with the number of ranks (src/train/sampler.h) */
    if (config->per_device_train_batch_size * config->gradient_accumulation_steps > 1 << 24)
        return qvl_fail(
            err, QVL_ECONFIG,
            "%s: per_device_train_batch_size and gradient_accumulation_steps make steps "
            "of more than %d samples",
            place(where, config, name, "per_device_train_batch_size",
                  "gradient_accumulation_steps"),
            1 << 24);
    if (config->max_steps == 0)
        return qvl_fail(err, QVL_ECONFIG,
                        "%s: max_steps: 0 is out of range, expected -1 or more than 0",
                        place(where, config, name, "max_steps", NULL));
    qvl_status rc = check_targets(config, name, err);
    if (rc == QVL_OK)
        rc = check_scheduler(config, name, err);
    return rc == QVL_OK ? check_data(config, name, err) : rc;
}
