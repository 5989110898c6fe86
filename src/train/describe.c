/* What a run is, as texts that its checkpoints carry. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "src/base/memory.h"
#include "src/base/sha256.h"
#include "src/config/schedule_args.h"
#include "src/train/run.h"

static qvl_status keep(char out[QVL_DESCRIPTION_BYTES], const qvl_text *text, qvl_err *err)
{
    if (text->len >= QVL_DESCRIPTION_BYTES)
        return qvl_fail(err, QVL_EINTERNAL, "description of the run: %zu bytes", text->len);
    memcpy(out, text->data, text->len + 1);
    return QVL_OK;
}

/* Bytes of each tensor, from its middle: a model that was trained further has the same headers. */
static qvl_status hash_weights(char out[QVL_SHA256_TEXT_BYTES], const qvl_weight_files *files,
                               qvl_err *err)
{
    enum { SAMPLE = 256 };
    const char *headers = qvl_weight_files_sha256(files);
    qvl_sha256 *hash = NULL;
    qvl_status rc = qvl_sha256_create(&hash, err);
    if (rc == QVL_OK)
        rc = qvl_sha256_add(hash, headers, strlen(headers), err);
    for (size_t i = 0; rc == QVL_OK && i < qvl_weight_files_count(files); i++) {
        const qvl_tensor *tensor = qvl_weight_files_at(files, i, NULL);
        const uint64_t n = tensor->n_bytes < SAMPLE ? tensor->n_bytes : SAMPLE;
        rc = qvl_sha256_add(hash, (const char *)tensor->data + (tensor->n_bytes - n) / 2, (size_t)n,
                            err);
    }
    if (rc == QVL_OK)
        return qvl_sha256_finish(hash, out, err);
    qvl_sha256_destroy(hash);
    return rc;
}

/* Of a file that qvl_prep did not write: tokens and labels of all samples. */
static qvl_status hash_tokens(char out[QVL_SHA256_TEXT_BYTES], qvl_dataset *data, int64_t n_samples,
                              qvl_err *err)
{
    int32_t *tokens = NULL;
    size_t capacity = 0;
    qvl_sha256 *hash = NULL;
    qvl_status rc = qvl_sha256_create(&hash, err);
    for (int64_t i = 0; rc == QVL_OK && i < n_samples; i++) {
        const size_t n = (size_t)qvl_dataset_length(data, i);
        rc = qvl_reserve(&tokens, &capacity, 2 * n, sizeof *tokens, "a sample", err);
        if (rc == QVL_OK)
            rc = qvl_dataset_read_sample(data, i, tokens, tokens + n, err);
        if (rc == QVL_OK)
            rc = qvl_sha256_add(hash, tokens, 2 * n * sizeof *tokens, err);
    }
    free(tokens);
    if (rc == QVL_OK)
        return qvl_sha256_finish(hash, out, err);
    qvl_sha256_destroy(hash);
    return rc;
}

/* Rank 0 alone reads and writes checkpoints. */
static qvl_status hash_contents(qvl_run *run, char weights[QVL_SHA256_TEXT_BYTES],
                                char data[QVL_SHA256_TEXT_BYTES], qvl_err *err)
{
    const char *digest = qvl_dataset_digest(run->train.data);
    qvl_status rc = QVL_OK;
    snprintf(data, QVL_SHA256_TEXT_BYTES, "%s", digest);
    if (qvl_world_rank(run->world) != 0)
        return QVL_OK;
    QVL_TRY(hash_weights(weights, run->model.files, err));
    if (!digest[0])
        rc = hash_tokens(data, run->train.data, run->train.table.n_samples, err);
out:
    return rc;
}

static qvl_status describe_identity(qvl_run *run, qvl_text *text, qvl_err *err)
{
    const qvl_lora_options *lora = &run->lora_options;
    static const char LETTERS[QVL_N_SITES + 1] = "qkvogud";
    char weights[QVL_SHA256_TEXT_BYTES] = "", data[QVL_SHA256_TEXT_BYTES] = "";
    qvl_status rc = hash_contents(run, weights, data, err);
    QVL_TRY(rc);
    QVL_TRY(qvl_text_printf(text, err,
                            "model=%s; lora_rank=%" PRId64 "; lora_alpha=%.17g; use_rslora=%s; "
                            "lora_target=",
                            weights, lora->rank, lora->alpha, lora->use_rslora ? "true" : "false"));
    for (int s = 0; s < QVL_N_SITES; s++)
        if (lora->targets[s])
            QVL_TRY(qvl_text_add(text, &LETTERS[s], 1, err));
    QVL_TRY(qvl_text_printf(text, err, "; samples=%" PRId64 "; tokens=%" PRId64 "; data=%s",
                            run->train.table.n_samples, run->train.table.n_tokens, data));
out:
    return rc;
}

static qvl_status describe_order(qvl_run *run, qvl_text *text, qvl_err *err)
{
    const qvl_config *c = run->config;
    qvl_status rc = QVL_OK;
    QVL_TRY(qvl_text_printf(
        text, err,
        "ranks=%d; per_device_train_batch_size=%" PRId64 "; gradient_accumulation_steps=%" PRId64
        "; seed=%" PRId64 "; data_seed=%" PRId64 "; disable_shuffling=%s; steps_rule=%s; "
        "loss_reduction=%s; lora_dropout=%.17g; steps=%" PRId64 "; pack=%s; pack_tokens=%" PRId64,
        qvl_world_size(run->world), c->per_device_train_batch_size, c->gradient_accumulation_steps,
        c->seed, c->data_seed, c->disable_shuffling ? "true" : "false", c->steps_rule,
        c->loss_reduction, run->lora_options.dropout, qvl_sampler_steps(run->sampler),
        c->pack ? "true" : "false", run->memory.pack_tokens));
    QVL_TRY(qvl_text_printf(text, err,
                            "; learning_rate=%.17g; lr_scheduler_type=%s; warm-up steps=%" PRId64
                            "; weight_decay=%.17g; max_grad_norm=%.17g",
                            c->learning_rate, c->lr_scheduler_type, run->schedule.warmup,
                            c->weight_decay, c->max_grad_norm));
    QVL_TRY(qvl_text_printf(text, err,
                            "; num_cycles=%.17g; lr_end=%.17g; power=%.17g; adam_beta1=%.17g; "
                            "adam_beta2=%.17g; adam_epsilon=%.17g; device=%s; bf16=%s",
                            c->lr_num_cycles, c->lr_end, c->lr_power, c->adam_beta1, c->adam_beta2,
                            c->adam_epsilon, run->dev->ops->name,
                            run->dev->dtype == QVL_BF16 ? "true" : "false"));
    if (run->schedule.type >= QVL_COSINE_WITH_MIN_LR) { /* the others' are above */
        QVL_TRY(qvl_text_puts(text, "; lr_scheduler_kwargs=", err));
        QVL_TRY(qvl_schedule_args_format(text, c, err));
    }
out:
    return rc;
}

qvl_status qvl_run_describe(qvl_run *run, qvl_err *err)
{
    qvl_text text = {0};
    qvl_status rc = QVL_OK;
    QVL_TRY(describe_identity(run, &text, err));
    QVL_TRY(keep(run->state.identity, &text, err));
    qvl_text_clear(&text);
    QVL_TRY(describe_order(run, &text, err));
    QVL_TRY(keep(run->state.order, &text, err));
out:
    qvl_text_fini(&text);
    return rc;
}
