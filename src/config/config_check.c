#include "src/config/config.h"

#include <string.h>

static bool has_text(const char *text)
{
    return text && text[0];
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
                            name, (int)n, word);
        if (!next)
            return QVL_OK;
        word = next;
    }
}

static qvl_status check_data(const qvl_config *config, const char *name, qvl_err *err)
{
    if (has_text(config->dataset) && !has_text(config->template_name))
        return qvl_fail(err, QVL_ECONFIG, "%s: template: is missing; expected qwen2_vl", name);
    if (config->val_size > 0 && has_text(config->eval_dataset))
        return qvl_fail(err, QVL_ECONFIG, "%s: val_size and eval_dataset exclude each other", name);
    if (config->val_size > 0 && !has_text(config->dataset))
        return qvl_fail(err, QVL_ECONFIG, "%s: val_size: needs dataset", name);
    if (config->val_size == 1.0 || (config->val_size > 1 && config->val_size < 2))
        return qvl_fail(err, QVL_ECONFIG,
                        "%s: val_size: expected a share below 1 or a count from 2", name);
    if (has_text(config->eval_dataset) && !has_text(config->dataset))
        return qvl_fail(err, QVL_ECONFIG, "%s: eval_dataset: needs dataset", name);
    if (config->mask_history && config->train_on_prompt)
        return qvl_fail(err, QVL_ECONFIG, "%s: mask_history and train_on_prompt exclude each other",
                        name);
    if (config->image_min_pixels > config->image_max_pixels)
        return qvl_fail(err, QVL_ECONFIG, "%s: image_min_pixels is above image_max_pixels", name);
    return QVL_OK;
}

qvl_status qvl_config_check(const qvl_config *config, const char *name, qvl_err *err)
{
    const bool evaluates = strcmp(config->eval_strategy, "no") != 0 || config->do_eval;
    if (!has_text(config->model_name_or_path))
        return qvl_fail(err, QVL_ECONFIG, "%s: model_name_or_path: is missing", name);
    if (!has_text(config->output_dir))
        return qvl_fail(err, QVL_ECONFIG, "%s: output_dir: is missing", name);
    if (config->do_train && !has_text(config->dataset) && !has_text(config->tokenized_path))
        return qvl_fail(err, QVL_ECONFIG, "%s: dataset: is missing (or give tokenized_path)", name);
    if (evaluates && config->val_size <= 0 && !has_text(config->eval_dataset))
        return qvl_fail(err, QVL_ECONFIG,
                        "%s: eval_strategy and do_eval need eval_dataset or val_size", name);
    if (config->disable_gradient_checkpointing &&
        strcmp(config->gradient_checkpointing, "true") == 0)
        return qvl_fail(err, QVL_ECONFIG,
                        "%s: disable_gradient_checkpointing and gradient_checkpointing: true "
                        "exclude each other",
                        name);
    if (has_text(config->adapter_name_or_path) && strchr(config->adapter_name_or_path, ','))
        return qvl_fail(
            err, QVL_ECONFIG,
            "%s: adapter_name_or_path: one adapter is continued; merging several is not "
            "supported",
            name);
    if (config->max_steps == 0)
        return qvl_fail(err, QVL_ECONFIG,
                        "%s: max_steps: 0 is out of range, expected -1 or more than 0", name);
    const qvl_status rc = check_targets(config, name, err);
    return rc == QVL_OK ? check_data(config, name, err) : rc;
}
