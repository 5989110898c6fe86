#include "src/demo/demo_yaml.h"

#include <string.h>

/* directory/name as a YAML scalar: in single quotes where plain text could mean something else. */
static qvl_status add_path(qvl_text *out, const char *directory, const char *name, qvl_err *err)
{
    static const char PLAIN[] =
        "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_./-";
    const bool is_plain = directory[0] != '-' && strspn(directory, PLAIN) == strlen(directory);
    const char *slash = directory[strlen(directory) - 1] == '/' ? "" : "/";
    qvl_status rc = QVL_OK;
    if (is_plain)
        return qvl_text_printf(out, err, "%s%s%s", directory, slash, name);
    QVL_TRY(qvl_text_puts(out, "'", err));
    for (const char *c = directory; *c; c++) {
        QVL_TRY(qvl_text_add(out, c, 1, err));
        if (*c == '\'') /* a quote is written twice */
            QVL_TRY(qvl_text_add(out, c, 1, err));
    }
    QVL_TRY(qvl_text_printf(out, err, "%s%s'", slash, name));
out:
    return rc;
}

static qvl_status add_key(qvl_text *out, const char *key, const char *directory, const char *name,
                          qvl_err *err)
{
    qvl_status rc = QVL_OK;
    QVL_TRY(qvl_text_printf(out, err, "%s: ", key));
    QVL_TRY(add_path(out, directory, name, err));
    QVL_TRY(qvl_text_puts(out, "\n", err));
out:
    return rc;
}

qvl_status qvl_demo_add_yaml(qvl_text *out, const char *directory, bool is_tiny, qvl_err *err)
{
    qvl_status rc = QVL_OK;
    QVL_TRY(qvl_text_puts(out, "### model\n", err));
    QVL_TRY(add_key(out, "model_name_or_path", directory, "model", err));
    QVL_TRY(qvl_text_puts(out,
                          "image_max_pixels: 262144\n"
                          "\n"
                          "### method\n"
                          "stage: sft\n"
                          "do_train: true\n"
                          "finetuning_type: lora\n"
                          "lora_rank: 8\n"
                          "lora_alpha: 16\n"
                          "lora_dropout: 0.1\n"
                          "lora_target: all\n"
                          "\n"
                          "### dataset\n"
                          "dataset: demo_shapes,demo_facts,demo_chat\n",
                          err));
    QVL_TRY(add_key(out, "dataset_dir", directory, "data", err));
    QVL_TRY(qvl_text_puts(out, "template: qwen2_vl\ncutoff_len: 512\n", err));
    QVL_TRY(add_key(out, "tokenized_path", directory, "tokenized.h5", err));
    QVL_TRY(qvl_text_puts(out, "\n### output\n", err));
    QVL_TRY(add_key(out, "output_dir", directory, "output", err));
    QVL_TRY(qvl_text_puts(out,
                          "logging_steps: 5\n"
                          "save_steps: 200\n"
                          "plot_loss: true\n"
                          "overwrite_output_dir: true\n"
                          "report_to: none\n"
                          "\n"
                          "### train\n"
                          "per_device_train_batch_size: 1\n"
                          "gradient_accumulation_steps: 8\n",
                          err));
    QVL_TRY(qvl_text_printf(out, err,
                            "learning_rate: %s\n"
                            "num_train_epochs: %s\n"
                            "lr_scheduler_type: cosine\n"
                            "warmup_ratio: 0.1\n"
                            "bf16: %s\n",
                            is_tiny ? "3.0e-3" : "1.0e-4", is_tiny ? "40.0" : "3.0",
                            is_tiny ? "false" : "true"));
out:
    return rc;
}
