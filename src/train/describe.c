/* What a run is, as texts that its checkpoints carry. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "src/train/run.h"

static qvl_status keep(char out[QVL_DESCRIPTION_BYTES], const qvl_text *text, qvl_err *err)
{
    if (text->len >= QVL_DESCRIPTION_BYTES)
        return qvl_fail(err, QVL_EINTERNAL, "description of the run: %zu bytes", text->len);
    memcpy(out, text->data, text->len + 1);
    return QVL_OK;
}

static qvl_status describe_identity(qvl_run *run, qvl_text *text, qvl_err *err)
{
    const qvl_lora_options *lora = &run->lora_options;
    static const char LETTERS[QVL_N_SITES + 1] = "qkvogud";
    qvl_status rc = QVL_OK;
    QVL_TRY(qvl_text_printf(text, err,
                            "model=%s; lora_rank=%" PRId64 "; lora_alpha=%.17g; use_rslora=%s; "
                            "lora_target=",
                            qvl_weight_files_sha256(run->model.files), lora->rank, lora->alpha,
                            lora->use_rslora ? "true" : "false"));
    for (int s = 0; s < QVL_N_SITES; s++)
        if (lora->targets[s])
            QVL_TRY(qvl_text_add(text, &LETTERS[s], 1, err));
    QVL_TRY(qvl_text_printf(text, err, "; samples=%" PRId64 "; tokens=%" PRId64 "; data=%s",
                            run->train.table.n_samples, run->train.table.n_tokens,
                            qvl_dataset_digest(run->train.data)));
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
