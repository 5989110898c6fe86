/* The data of a run: opened, checked, and known to all ranks. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "src/base/memory.h"
#include "src/train/run.h"

/* Opens a part's file on this rank and checks this rank's share of its samples; all ranks then know
 * every sample's lengths. */
static qvl_status open_part(qvl_run *run, qvl_run_data *part, const char *path, qvl_err *err)
{
    const qvl_model_dims *dims = &run->model.dims;
    const qvl_dataset_rules rules = {
        .vocab = dims->text.V, .image_token = dims->image_token, .video_token = dims->video_token};
    const int n_ranks = qvl_world_size(run->world), rank = qvl_world_rank(run->world);
    qvl_sample_table *table = &part->table;
    int64_t n = 0, n_images = 0;
    qvl_status rc = qvl_dataset_open(&part->data, path, err);
    if (rc == QVL_OK) {
        n = qvl_dataset_samples(part->data);
        rc = qvl_alloc(&table->length, (size_t)n, sizeof *table->length, "samples", err);
    }
    if (rc == QVL_OK)
        rc = qvl_alloc(&table->supervised, (size_t)n, sizeof *table->supervised, "samples", err);
    if (rc == QVL_OK)
        rc = qvl_dataset_check_samples(part->data, &rules, n * rank / n_ranks,
                                       n * (rank + 1) / n_ranks, table->supervised, err);
    if (rc == QVL_OK && run->purpose == QVL_RUN_CHECKS) {
        n_images = qvl_dataset_images(part->data);
        rc = qvl_dataset_check_pixels(part->data, n_images * rank / n_ranks,
                                      n_images * (rank + 1) / n_ranks, err);
    }
    QVL_TRY(qvl_world_agree(run->world, rc, err));
    for (int r = 0; r < n_ranks; r++) {
        const int64_t first = n * r / n_ranks, last = n * (r + 1) / n_ranks;
        QVL_TRY(qvl_world_broadcast(run->world, table->supervised + first,
                                    (size_t)(last - first) * sizeof *table->supervised, r, err));
    }
    table->n_samples = n;
    table->n_tokens = qvl_dataset_tokens(part->data);
    table->n_images = qvl_dataset_images(part->data);
    for (int64_t i = 0; i < n; i++)
        table->length[i] = (int32_t)qvl_dataset_length(part->data, i);
    for (int64_t i = 0; i < table->n_images; i++) {
        const int32_t *grid = qvl_dataset_grid(part->data, i);
        const int64_t patches = (int64_t)grid[1] * grid[2];
        table->n_image_tokens += patches / 4;
        table->max_patches = patches > table->max_patches ? patches : table->max_patches;
    }
out:
    return rc;
}

/* Encoded without a file (--check): rank 0 has the table. */
static qvl_status share_table(qvl_run *run, qvl_sample_table *to, qvl_sample_table *from,
                              qvl_err *err)
{
    int64_t numbers[5] = {from->n_samples, from->n_tokens, from->n_images, from->n_image_tokens,
                          from->max_patches};
    qvl_status rc = QVL_OK;
    *to = *from;
    *from = (qvl_sample_table){0};
    QVL_TRY(qvl_world_broadcast(run->world, numbers, sizeof numbers, 0, err));
    const size_t n = (size_t)numbers[0];
    if (qvl_world_rank(run->world) != 0) {
        to->n_samples = numbers[0];
        to->n_tokens = numbers[1];
        to->n_images = numbers[2];
        to->n_image_tokens = numbers[3];
        to->max_patches = numbers[4];
        rc = qvl_alloc(&to->length, n, sizeof *to->length, "samples", err);
        if (rc == QVL_OK)
            rc = qvl_alloc(&to->supervised, n, sizeof *to->supervised, "samples", err);
    }
    QVL_TRY(qvl_world_agree(run->world, rc, err));
    QVL_TRY(qvl_world_broadcast(run->world, to->length, n * sizeof *to->length, 0, err));
    QVL_TRY(qvl_world_broadcast(run->world, to->supervised, n * sizeof *to->supervised, 0, err));
out:
    return rc;
}

/* A mean over no supervised tokens is 0 for ever. Encoding drops samples without one, but a file
 * may hold nothing else. */
static qvl_status check_supervised(qvl_run *run, const qvl_run_data *part, const char *name,
                                   qvl_err *err)
{
    const qvl_sample_table *table = &part->table;
    char data[32];
    qvl_status rc = QVL_OK;
    for (int64_t i = 0; i < table->n_samples; i++)
        if (table->supervised[i] > 0)
            return QVL_OK;
    snprintf(data, sizeof data, "%s data", name);
    rc = qvl_fail(err, QVL_EDATA,
                  "%s: none of its %" PRId64
                  " samples has a supervised token; expected labels other than -100 after a "
                  "sample's first token (the ids of its answers)",
                  part->data ? qvl_dataset_path(part->data) : data, table->n_samples);
    return qvl_world_agree(run->world, rc, err);
}

/* A file without a data set is taken as it is: what the configuration says of encoding is void, as
 * LLaMA-Factory warns for its tokenized_path. */
static qvl_status warn_of_unused(qvl_run *run, qvl_err *err)
{
    const qvl_config *c = run->config;
    const struct {
        const char *key;
        bool has_value; /* other than null or false, where it may be that */
    } keys[] = {{"max_samples", c->max_samples >= 0},
                {"cutoff_len", true},
                {"dataset_dir", c->dataset_dir && c->dataset_dir[0]},
                {"media_dir", c->media_dir && c->media_dir[0]},
                {"default_system", c->default_system && c->default_system[0]},
                {"image_max_pixels", true},
                {"image_min_pixels", true},
                {"train_on_prompt", c->train_on_prompt},
                {"mask_history", c->mask_history},
                {"split_special_tokens", c->split_special_tokens},
                {"strict_paths", c->strict_paths},
                {"on_bad_sample", strcmp(c->on_bad_sample, "skip") == 0},
                {"overwrite_cache", c->overwrite_cache}};
    const char *path = qvl_dataset_path(run->train.data);
    const char *template_name = qvl_dataset_template(run->train.data);
    qvl_text unused = {0};
    qvl_status rc = QVL_OK;
    for (size_t i = 0; i < sizeof keys / sizeof *keys && rc == QVL_OK; i++)
        if (keys[i].has_value && qvl_config_is_given(c, keys[i].key))
            rc = qvl_text_printf(&unused, err, "%s%s", unused.len ? ", " : "", keys[i].key);
    if (rc == QVL_OK && unused.len)
        qvl_log_warn(run->log, "%.600s is taken as it is, no dataset is given: without effect: %s",
                     path, unused.data);
    if (rc == QVL_OK && c->template_name && template_name[0] &&
        strcmp(c->template_name, template_name) != 0)
        qvl_log_warn(run->log,
                     "%.600s is taken as it is: it was made with template %.64s, the configuration "
                     "says template %.100s",
                     path, template_name, c->template_name);
    qvl_text_fini(&unused);
    return qvl_world_agree(run->world, rc, err);
}

qvl_status qvl_run_open_data(qvl_run *run, qvl_err *err)
{
    qvl_prepared prepared = {0};
    qvl_status rc = QVL_OK;
    QVL_TRY(qvl_prepare(&prepared, run->config, &run->model.dims, run->model.directory,
                        run->purpose == QVL_RUN_CHECKS ? QVL_PREPARE_CHECK : QVL_PREPARE_FILES,
                        run->n_threads, run->world, run->log, err));
    qvl_world_set_phase(run->world, "checking the data");
    if (prepared.train_path[0])
        QVL_TRY(open_part(run, &run->train, prepared.train_path, err));
    else
        QVL_TRY(share_table(run, &run->train.table, &prepared.train, err));
    if (!run->config->dataset || !run->config->dataset[0])
        QVL_TRY(warn_of_unused(run, err));
    if (prepared.eval_path[0])
        QVL_TRY(open_part(run, &run->eval, prepared.eval_path, err));
    else if (prepared.was_encoded)
        QVL_TRY(share_table(run, &run->eval.table, &prepared.eval, err));
    QVL_TRY(check_supervised(run, &run->train, "training", err));
    if (run->eval.table.n_samples)
        QVL_TRY(check_supervised(run, &run->eval, "evaluation", err));
out:
    qvl_prepared_fini(&prepared);
    return rc;
}
