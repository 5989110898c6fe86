#include "src/data/prepare.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "qvl_version.h"
#include "src/base/clock.h"
#include "src/base/memory.h"
#include "src/data/prepare_internal.h"

void qvl_prepared_fini(qvl_prepared *prepared)
{
    qvl_sample_table_fini(&prepared->train);
    qvl_sample_table_fini(&prepared->eval);
    *prepared = (qvl_prepared){0};
}

/* ---- where the files are ------------------------------------------------------------------------
 */

/* X.h5 has its evaluation part in X.eval.h5. */
static qvl_status choose_paths(qvl_prepared *out, const qvl_config *config, qvl_err *err)
{
    const bool is_given = config->tokenized_path && config->tokenized_path[0];
    qvl_status rc = is_given
                        ? qvl_path_join(out->train_path, "", config->tokenized_path, err)
                        : qvl_path_join(out->train_path, config->output_dir, "tokenized.h5", err);
    if (rc != QVL_OK)
        return rc;
    const char *dot = strrchr(qvl_path_name(out->train_path), '.');
    const int stem = dot ? (int)(dot - out->train_path) : (int)strlen(out->train_path);
    if (snprintf(out->eval_path, sizeof out->eval_path, "%.*s.eval%s", stem, out->train_path,
                 dot ? dot : "") >= (int)sizeof out->eval_path)
        return qvl_fail(err, QVL_EDATA, "tokenized_path is too long");
    return QVL_OK;
}

/* ---- encoding -----------------------------------------------------------------------------------
 */

/* Faults are known to rank 0; all ranks learn of the first. */
static qvl_status conclude(const qvl_part *parts, int n_parts, bool skips, qvl_err *err)
{
    const bool is_root = qvl_world_rank(parts->world) == 0;
    return qvl_world_agree(parts->world,
                           is_root ? qvl_parts_judge(parts, n_parts, skips, err) : QVL_OK, err);
}

typedef struct prepare_context {
    const qvl_config *config;
    qvl_world *world;
    qvl_log *log;
    qvl_tokenizer *tokenizer;
    qvl_selection selection;
    qvl_encode_options options;
    qvl_block_encoder *encoder;
    int n_threads;
    bool skips; /* on_bad_sample */
    /* the directory that had to be made for a file, and the outermost that was */
    char made[QVL_PATH_BYTES], first_made[QVL_PATH_BYTES];
} prepare_context;

static qvl_status open_writer(prepare_context *c, qvl_part *part, const char *path, qvl_err *err)
{
    qvl_text sources = {0};
    char parent[QVL_PATH_BYTES];
    qvl_status rc = QVL_OK;
    QVL_TRY(qvl_selection_join_sources(&sources, &c->selection, err));
    QVL_TRY(qvl_path_join(parent, "", path, err));
    char *name = strrchr(parent, '/');
    if (name && name != parent) {
        *name = '\0';
        char first[QVL_PATH_BYTES];
        QVL_TRY(qvl_directory_create_from(first, parent, err));
        if (first[0]) {
            memcpy(c->made, parent, sizeof parent);
            memcpy(c->first_made, first, sizeof first);
        }
    }
    rc = qvl_dataset_writer_create(
        &part->writer, path,
        &(qvl_dataset_attributes){.digest = c->selection.digest,
                                  .template_name = c->config->template_name,
                                  .tokenizer_sha256 = qvl_tokenizer_sha256(c->tokenizer),
                                  .created_by = "qvl " QVL_VERSION,
                                  .cutoff_len = c->config->cutoff_len,
                                  .sources = sources.data},
        err);
out:
    qvl_text_fini(&sources);
    return rc;
}

/* Once over the records and, unless bad samples are only to be listed, the images. */
static qvl_status run_pass(prepare_context *c, qvl_part *part, const char *path, bool only_lists,
                           qvl_err *err)
{
    const bool is_writer = path[0] && !only_lists && qvl_world_rank(c->world) == 0;
    qvl_status rc = is_writer ? open_writer(c, part, path, err) : QVL_OK;
    QVL_TRY(qvl_world_agree(c->world, rc, err));
    QVL_TRY(qvl_part_records(part, c->encoder, err));
    if (!only_lists)
        QVL_TRY(qvl_part_images(part, &c->options.limits, c->n_threads, err));
out:
    return rc;
}

/* One part from records to what its writer will finish; path "" only checks. That an image does not
 * decode is seen when the samples with it are written already, so then all begins anew, knowing
 * which images are faulty: every sample with one is listed, and none is in the file. */
static qvl_status run_part(prepare_context *c, qvl_part *part, const char *path, qvl_err *err)
{
    int64_t n_faulty = 0;
    qvl_status rc = QVL_OK;
    part->started_s = qvl_clock_s();
    QVL_TRY(run_pass(c, part, path, false, err));
    n_faulty = part->n_faulty;
    QVL_TRY(qvl_world_max_i64(c->world, &n_faulty, 1, err));
    if (n_faulty) {
        qvl_part_restart(part);
        QVL_TRY(run_pass(c, part, path, !c->skips, err));
        if (part->n_faulty)
            rc = qvl_fail(err, QVL_EDATA, "images of the %s data change while they are read",
                          part->name);
        QVL_TRY(qvl_world_agree(c->world, rc, err));
    }
    if (qvl_world_rank(c->world) == 0)
        qvl_part_report(part);
out:
    return rc;
}

static qvl_status finish_part(prepare_context *c, qvl_part *part, qvl_sample_table *table,
                              const char *path, qvl_err *err)
{
    const bool is_writer = part->writer != NULL;
    qvl_status rc = QVL_OK;
    if (is_writer)
        rc = qvl_dataset_writer_finish(part->writer, err);
    part->writer = NULL;
    QVL_TRY(qvl_world_agree(c->world, rc, err));
    if (is_writer)
        qvl_log_line(c->log, "wrote %s", path);
    *table = part->table;
    part->table = (qvl_sample_table){0};
out:
    return rc;
}

/* Both parts, then their files: when a sample of either is bad there is neither. */
static qvl_status encode_all(prepare_context *c, qvl_prepared *out, qvl_err *err)
{
    const qvl_selection *s = &c->selection;
    const int n_parts = s->n_eval ? 2 : 1;
    qvl_part parts[2];
    qvl_status rc = QVL_OK;
    parts[0] = parts[1] = (qvl_part){.world = c->world, .log = c->log, .selection = s};
    parts[0].name = "training";
    parts[0].refs = s->refs;
    parts[0].n_refs = s->n_train;
    parts[1].name = "evaluation";
    parts[1].refs = s->refs + s->n_train;
    parts[1].n_refs = s->n_eval;
    rc = qvl_block_encoder_create(&c->encoder, s, c->tokenizer, &c->options, c->n_threads, err);
    QVL_TRY(qvl_world_agree(c->world, rc, err));
    for (int i = 0; i < n_parts; i++)
        QVL_TRY(run_part(c, &parts[i], i ? out->eval_path : out->train_path, err));
    QVL_TRY(conclude(parts, n_parts, c->skips, err));
    QVL_TRY(finish_part(c, &parts[0], &out->train, out->train_path, err));
    if (n_parts == 2)
        QVL_TRY(finish_part(c, &parts[1], &out->eval, out->eval_path, err));
out:
    qvl_part_fini(&parts[0]);
    qvl_part_fini(&parts[1]);
    if (rc != QVL_OK)
        qvl_directory_take_back(c->made, c->first_made);
    return rc;
}

/* ---- all of it ----------------------------------------------------------------------------------
 */

/* The template's words must be single tokens, and image_pad the one the model knows. */
static qvl_status check_tokenizer(const qvl_tokenizer *tokenizer, const qvl_model_dims *dims,
                                  const char *path, qvl_err *err)
{
    const struct {
        const char *text;
        int64_t id;
    } words[] = {{"<|im_start|>", -1},
                 {"<|im_end|>", -1},
                 {"<|vision_start|>", dims->vision_start_token},
                 {"<|vision_end|>", dims->vision_end_token},
                 {"<|image_pad|>", dims->image_token}};
    for (size_t i = 0; i < sizeof words / sizeof *words; i++) {
        const int32_t id = qvl_tokenizer_token_id(tokenizer, words[i].text);
        if (id < 0)
            return qvl_fail(err, QVL_EDATA, "%s: no token %s; not a Qwen2-VL tokenizer", path,
                            words[i].text);
        if (words[i].id >= 0 && id != words[i].id)
            return qvl_fail(err, QVL_EDATA, "%s: %s has the id %d, config.json says %" PRId64, path,
                            words[i].text, id, words[i].id);
    }
    if (qvl_tokenizer_n_ids(tokenizer) > dims->text.V)
        return qvl_fail(err, QVL_EDATA,
                        "%s: ids up to %d, but the model's vocabulary has %" PRId64 " rows", path,
                        qvl_tokenizer_n_ids(tokenizer) - 1, dims->text.V);
    return QVL_OK;
}

/* How records are encoded, and with which limits. */
static qvl_status choose_options(prepare_context *c, const qvl_model_dims *dims, qvl_err *err)
{
    const qvl_config *config = c->config;
    c->options = (qvl_encode_options){.cutoff_len = config->cutoff_len,
                                      .train_on_prompt = config->train_on_prompt,
                                      .mask_history = config->mask_history,
                                      .split_special_tokens = config->split_special_tokens,
                                      .default_system = config->default_system,
                                      .media_dir = config->media_dir && config->media_dir[0]
                                                       ? config->media_dir
                                                       : config->dataset_dir,
                                      .strict_paths = config->strict_paths,
                                      .limits = qvl_image_limits_default,
                                      .image_token = (int32_t)dims->image_token,
                                      .video_token = (int32_t)dims->video_token};
    c->options.limits.image_max_pixels = config->image_max_pixels;
    c->options.limits.image_min_pixels = config->image_min_pixels;
    c->options.limits.max_pixels = dims->max_pixels;
    c->options.limits.min_pixels = dims->min_pixels;
    return qvl_image_limits_check(&c->options.limits, err);
}

/* Only where something has to be encoded: reading it takes half a second. */
static qvl_status open_tokenizer(prepare_context *c, const qvl_model_dims *dims, const char *path,
                                 const char *sha256, qvl_err *err)
{
    qvl_status rc = qvl_tokenizer_load(&c->tokenizer, path, err);
    if (rc == QVL_OK)
        rc = check_tokenizer(c->tokenizer, dims, path, err);
    if (rc == QVL_OK && strcmp(qvl_tokenizer_sha256(c->tokenizer), sha256) != 0)
        rc = qvl_fail(err, QVL_EDATA, "%s: was written to meanwhile; start again", path);
    return rc;
}

/* No data set to encode: tokenized_path is taken as it is. */
static qvl_status take_as_is(qvl_prepared *out, const qvl_config *config, qvl_world *world,
                             qvl_err *err)
{
    qvl_status rc = qvl_path_join(out->train_path, "", config->tokenized_path, err);
    if (rc == QVL_OK && !qvl_file_exists(out->train_path))
        rc = qvl_fail(err, QVL_EMISSING,
                      "%s: tokenized_path is not there, and no dataset is given to make it from",
                      out->train_path);
    return qvl_world_agree(world, rc, err);
}

static qvl_status find_existing(prepare_context *c, const qvl_prepared *out, bool *fits,
                                qvl_err *err)
{
    int64_t flag = 0;
    qvl_status rc = QVL_OK;
    if (qvl_world_rank(c->world) == 0) {
        bool train_fits = false, eval_fits = true;
        rc = qvl_prepare_check_existing(&train_fits, out->train_path, c->selection.digest,
                                        c->config, c->log, err);
        if (rc == QVL_OK && c->selection.n_eval)
            rc = qvl_prepare_check_existing(&eval_fits, out->eval_path, c->selection.digest,
                                            c->config, c->log, err);
        flag = train_fits && eval_fits;
    }
    QVL_TRY(qvl_world_agree(c->world, rc, err));
    QVL_TRY(qvl_world_max_i64(c->world, &flag, 1, err));
    *fits = flag != 0;
out:
    return rc;
}

qvl_status qvl_prepare(qvl_prepared *out, const qvl_config *config, const qvl_model_dims *dims,
                       const char *model_dir, qvl_prepare_mode mode, int n_threads,
                       qvl_world *world, qvl_log *log, qvl_err *err)
{
    prepare_context c = {.config = config,
                         .world = world,
                         .log = log,
                         .n_threads = n_threads,
                         .skips = strcmp(config->on_bad_sample, "skip") == 0};
    char limits[64], tokenizer[QVL_PATH_BYTES], sha256[QVL_SHA256_TEXT_BYTES];
    bool fits = false;
    qvl_err why = {QVL_OK, ""};
    qvl_status rc = QVL_OK, found = QVL_OK;
    if (!config->dataset || !config->dataset[0])
        return take_as_is(out, config, world, err);
    qvl_world_set_phase(world, "encoding the data");
    rc = choose_options(&c, dims, err);
    if (rc == QVL_OK)
        rc = choose_paths(out, config, err);
    if (rc == QVL_OK)
        rc = qvl_path_join(tokenizer, model_dir, "tokenizer.json", err);
    if (rc == QVL_OK)
        rc = qvl_tokenizer_file_sha256(sha256, tokenizer, err);
    QVL_TRY(qvl_world_agree(world, rc, err));
    snprintf(limits, sizeof limits, "%" PRId64 " %" PRId64, dims->min_pixels, dims->max_pixels);
    QVL_TRY(qvl_selection_make(&c.selection, config, sha256, limits, world, err));
    found = find_existing(&c, out, &fits, &why);
    if (!fits) /* a tokenizer that is no good explains more than a file that does not fit */
        QVL_TRY(qvl_world_agree(world, open_tokenizer(&c, dims, tokenizer, sha256, err), err));
    if (found != QVL_OK) {
        *err = why;
        rc = found;
        goto out;
    }
    if (c.selection.n_eval == 0)
        out->eval_path[0] = '\0';
    if (fits) {
        qvl_log_line(log, "data: %s is up to date", out->train_path);
        goto out;
    }
    if (mode == QVL_PREPARE_CHECK)
        out->train_path[0] = out->eval_path[0] = '\0';
    QVL_TRY(encode_all(&c, out, err));
    out->was_encoded = true;
out:
    qvl_block_encoder_destroy(c.encoder);
    qvl_selection_fini(&c.selection);
    qvl_tokenizer_destroy(c.tokenizer);
    return rc;
}
