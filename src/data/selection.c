#include "src/data/selection.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "src/base/memory.h"
#include "src/base/rng.h"

void qvl_selection_fini(qvl_selection *selection)
{
    qvl_dataset_info_free(selection->infos, selection->n_infos);
    free(selection->refs);
    *selection = (qvl_selection){0};
}

const char *qvl_selection_describe(const qvl_selection *selection, const qvl_record_ref *ref,
                                   char buffer[512])
{
    snprintf(buffer, 512, "%.400s: sample %" PRId64, selection->infos[ref->info].files[ref->file],
             ref->record);
    return buffer;
}

int64_t qvl_selection_source(const qvl_selection *selection, const qvl_record_ref *ref)
{
    int64_t source = ref->file;
    for (int32_t i = 0; i < ref->info; i++)
        source += (int64_t)selection->infos[i].n_files;
    return source;
}

qvl_status qvl_selection_join_sources(qvl_text *out, const qvl_selection *selection, qvl_err *err)
{
    enum { ATTRIBUTE_LIMIT = 60000 }; /* HDF5 keeps an attribute in 64 KiB */
    qvl_status rc = qvl_text_puts(out, "", err);
    for (size_t i = 0; i < selection->n_infos; i++)
        for (size_t f = 0; f < selection->infos[i].n_files && rc == QVL_OK; f++)
            rc =
                qvl_text_printf(out, err, "%s%s", i || f ? "\n" : "", selection->infos[i].files[f]);
    if (out->len > ATTRIBUTE_LIMIT)
        qvl_text_fini(out);
    return rc;
}

typedef struct ref_list {
    qvl_record_ref *data;
    size_t count, capacity;
} ref_list;

/* All records of a data set, in the order of its files. */
static qvl_status scan_dataset(ref_list *out, const qvl_dataset_info *info, int32_t number,
                               qvl_text *digest, qvl_err *err)
{
    qvl_record_list records = {0};
    qvl_status rc = QVL_OK;
    QVL_TRY(qvl_dataset_info_describe(digest, info, err));
    for (size_t f = 0; f < info->n_files; f++) {
        QVL_TRY(qvl_record_list_scan(&records, info->files[f], err));
        QVL_TRY(qvl_text_printf(digest, err, "file %s\n", records.sha256));
        QVL_TRY(qvl_reserve(&out->data, &out->capacity, out->count + records.count,
                            sizeof *out->data, "records", err));
        for (size_t i = 0; i < records.count; i++)
            out->data[out->count++] = (qvl_record_ref){
                .info = number, .file = (int32_t)f, .record = (int64_t)i, .span = records.spans[i]};
        qvl_record_list_fini(&records);
    }
out:
    qvl_record_list_fini(&records);
    return rc;
}

/* num_samples: a random choice by numpy's global generator, which goes on from data set to data
 * set; more than there are means some twice. */
static qvl_status choose(ref_list *records, int64_t wanted, qvl_mt19937 *rng, qvl_err *err)
{
    const int64_t n = (int64_t)records->count;
    const int64_t capacity = wanted > n ? wanted : n;
    int64_t *order = NULL;
    qvl_record_ref *chosen = NULL;
    qvl_status rc = QVL_OK;
    if (n == 0)
        return QVL_OK;
    QVL_TRY(qvl_alloc(&order, (size_t)capacity, sizeof *order, "num_samples", err));
    QVL_TRY(qvl_alloc(&chosen, (size_t)wanted, sizeof *chosen, "num_samples", err));
    qvl_numpy_legacy_permutation(order, n, rng);
    if (wanted > n)
        qvl_numpy_legacy_choice(order + n, wanted - n, n, rng);
    for (int64_t i = 0; i < wanted; i++)
        chosen[i] = records->data[order[i]];
    free(records->data);
    *records = (ref_list){chosen, (size_t)wanted, (size_t)wanted};
    chosen = NULL;
out:
    free(order);
    free(chosen);
    return rc;
}

static qvl_status add_dataset(ref_list *all, const qvl_dataset_info *info, int32_t number,
                              const qvl_config *config, qvl_mt19937 *rng, qvl_text *digest,
                              qvl_err *err)
{
    ref_list records = {0};
    qvl_status rc = QVL_OK;
    QVL_TRY(scan_dataset(&records, info, number, digest, err));
    if (info->num_samples > 0)
        QVL_TRY(choose(&records, info->num_samples, rng, err));
    if (config->max_samples > 0 && records.count > (size_t)config->max_samples)
        records.count = (size_t)config->max_samples;
    QVL_TRY(qvl_text_printf(digest, err, "taken %zu\n", records.count));
    QVL_TRY(qvl_reserve(&all->data, &all->capacity, all->count + records.count, sizeof *all->data,
                        "records", err));
    if (records.count)
        memcpy(all->data + all->count, records.data, records.count * sizeof *records.data);
    all->count += records.count;
out:
    free(records.data);
    return rc;
}

/* val_size: datasets' train_test_split; the first of the permutation are kept apart. */
static qvl_status split(ref_list *all, const qvl_config *config, int64_t *n_eval, qvl_text *digest,
                        qvl_err *err)
{
    const int64_t n = (int64_t)all->count;
    const double size = config->val_size;
    int64_t *order = NULL;
    qvl_record_ref *mixed = NULL;
    qvl_status rc = QVL_OK;
    *n_eval = size > 1 ? (int64_t)size : (int64_t)ceil(size * (double)n);
    if (*n_eval >= n)
        return qvl_fail(err, QVL_ECONFIG,
                        "val_size: %" PRId64 " of %" PRId64
                        " samples are kept apart, none is left to train on",
                        *n_eval, n);
    QVL_TRY(qvl_text_printf(digest, err, "kept apart %" PRId64 "\n", *n_eval));
    QVL_TRY(qvl_alloc(&order, (size_t)n, sizeof *order, "val_size", err));
    QVL_TRY(qvl_alloc(&mixed, (size_t)n, sizeof *mixed, "val_size", err));
    qvl_numpy_permutation(order, n, (uint64_t)config->seed);
    for (int64_t i = 0; i < n; i++)
        mixed[i] = all->data[order[(i + *n_eval) % n]];
    free(all->data);
    *all = (ref_list){mixed, (size_t)n, (size_t)n};
    mixed = NULL;
out:
    free(order);
    free(mixed);
    return rc;
}

/* A text with its length, so that none can look like another, or like none at all. */
static qvl_status describe_text(qvl_text *out, const char *key, const char *text, qvl_err *err)
{
    return text ? qvl_text_printf(out, err, "%s %zu %s\n", key, strlen(text), text)
                : qvl_text_printf(out, err, "%s None\n", key);
}

/* What the encoding depends on, and nothing that it does not: the seed where something is drawn,
 * the images' settings where there are any. What max_samples and val_size come to is added where
 * it is known. */
static qvl_status describe_settings(qvl_text *out, const qvl_selection *s, const qvl_config *config,
                                    const char *tokenizer_sha256, const char *limits, qvl_err *err)
{
    bool draws = config->val_size > 0, has_images = false;
    qvl_status rc = QVL_OK;
    for (size_t i = 0; i < s->n_infos; i++) {
        draws |= s->infos[i].num_samples > 0;
        has_images |= s->infos[i].images != NULL;
    }
    QVL_TRY(qvl_text_printf(out, err,
                            "qvl-sft 1\ntokenizer %s\ntemplate %s\ncutoff_len %" PRId64
                            "\ntrain_on_prompt %d mask_history %d split_special_tokens %d\n",
                            tokenizer_sha256, config->template_name, config->cutoff_len,
                            config->train_on_prompt, config->mask_history,
                            config->split_special_tokens));
    QVL_TRY(describe_text(out, "default_system", config->default_system, err));
    if (has_images) {
        QVL_TRY(qvl_text_printf(
            out, err, "image_max_pixels %" PRId64 " image_min_pixels %" PRId64 " processor %s\n",
            config->image_max_pixels, config->image_min_pixels, limits));
        QVL_TRY(describe_text(out, "media_dir", config->media_dir, err));
        if (config->strict_paths)
            QVL_TRY(qvl_text_puts(out, "strict_paths\n", err));
    }
    if (strcmp(config->on_bad_sample, "skip") == 0)
        QVL_TRY(qvl_text_puts(out, "on_bad_sample skip\n", err));
    if (draws)
        QVL_TRY(qvl_text_printf(out, err, "seed %" PRId64 "\n", config->seed));
out:
    return rc;
}

/* On rank 0: everything but sharing the result. n_eval_infos data sets at the end are eval_dataset.
 */
static qvl_status select_records(qvl_selection *s, ref_list *all, size_t n_train_infos,
                                 const qvl_config *config, qvl_text *digest, qvl_err *err)
{
    qvl_mt19937 rng;
    qvl_status rc = QVL_OK;
    qvl_mt19937_init(&rng, (uint32_t)config->seed);
    for (size_t i = 0; i < n_train_infos; i++)
        QVL_TRY(add_dataset(all, &s->infos[i], (int32_t)i, config, &rng, digest, err));
    s->n_train = (int64_t)all->count;
    if (config->val_size > 0) {
        QVL_TRY(split(all, config, &s->n_eval, digest, err));
        s->n_train -= s->n_eval;
    }
    for (size_t i = n_train_infos; i < s->n_infos; i++) {
        QVL_TRY(qvl_text_puts(digest, "evaluation\n", err));
        QVL_TRY(add_dataset(all, &s->infos[i], (int32_t)i, config, &rng, digest, err));
        s->n_eval = (int64_t)all->count - s->n_train;
    }
    rc = qvl_sha256_bytes(s->digest, digest->data, digest->len, err);
out:
    return rc;
}

static qvl_status read_infos(qvl_selection *s, size_t *n_train_infos, const qvl_config *config,
                             qvl_err *err)
{
    qvl_dataset_info *eval = NULL;
    size_t n_eval = 0, capacity = 0;
    qvl_status rc = QVL_OK;
    QVL_TRY(
        qvl_dataset_info_read(&s->infos, &s->n_infos, config->dataset, config->dataset_dir, err));
    *n_train_infos = capacity = s->n_infos;
    if (!config->eval_dataset || !config->eval_dataset[0])
        return QVL_OK;
    QVL_TRY(qvl_dataset_info_read(&eval, &n_eval, config->eval_dataset, config->dataset_dir, err));
    QVL_TRY(
        qvl_reserve(&s->infos, &capacity, s->n_infos + n_eval, sizeof *s->infos, "data sets", err));
    memcpy(s->infos + s->n_infos, eval, n_eval * sizeof *eval);
    s->n_infos += n_eval;
    free(eval); /* its contents moved */
    eval = NULL;
out:
    qvl_dataset_info_free(eval, n_eval);
    return rc;
}

qvl_status qvl_selection_make(qvl_selection *out, const qvl_config *config,
                              const char *tokenizer_sha256, const char *limits, qvl_world *world,
                              qvl_err *err)
{
    ref_list all = {0};
    qvl_text digest = {0};
    size_t n_train_infos = 0;
    int64_t counts[2] = {0, 0};
    qvl_status rc = read_infos(out, &n_train_infos, config, err);
    QVL_TRY(qvl_world_agree(world, rc, err));
    if (qvl_world_rank(world) == 0) {
        rc = describe_settings(&digest, out, config, tokenizer_sha256, limits, err);
        if (rc == QVL_OK)
            rc = select_records(out, &all, n_train_infos, config, &digest, err);
        counts[0] = out->n_train;
        counts[1] = out->n_eval;
    }
    QVL_TRY(qvl_world_agree(world, rc, err));
    QVL_TRY(qvl_world_broadcast(world, counts, sizeof counts, 0, err));
    QVL_TRY(qvl_world_broadcast(world, out->digest, sizeof out->digest, 0, err));
    out->n_train = counts[0];
    out->n_eval = counts[1];
    const size_t total = (size_t)(counts[0] + counts[1]);
    if (qvl_world_rank(world) == 0) {
        out->refs = all.data;
        all.data = NULL;
    } else {
        rc = qvl_alloc(&out->refs, total, sizeof *out->refs, "records", err);
    }
    QVL_TRY(qvl_world_agree(world, rc, err));
    QVL_TRY(qvl_world_broadcast(world, out->refs, total * sizeof *out->refs, 0, err));
out:
    free(all.data);
    qvl_text_fini(&digest);
    return rc;
}
