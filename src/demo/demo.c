#include "src/demo/demo.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include <jansson.h>

#include "io/json_file.h"
#include "qvl_version.h"
#include "src/base/files.h"
#include "src/base/memory.h"
#include "src/demo/demo_bpe.h"
#include "src/demo/demo_data.h"
#include "src/demo/demo_tokenizer.h"
#include "src/demo/demo_yaml.h"

#define MARKER "qvl_demo.json"

enum { MARKER_LIMIT_BYTES = 65536, N_ORDINARY_TOKENS = 256 + 640 };

static const char *const SIZE_NAMES[] = {"tiny", "3b", "7b"};

static json_t *describe_options(const qvl_demo_options *options)
{
    return json_pack("{s:s, s:b, s:I, s:I}", "size", SIZE_NAMES[options->size], "sparse",
                     (int)options->is_sparse, "samples", (json_int_t)options->n_samples, "seed",
                     (json_int_t)options->seed);
}

static qvl_status check_options(const qvl_demo_options *options, qvl_err *err)
{
    const char *directory = options->directory;
    if (!directory[0])
        return qvl_fail(err, QVL_EUSAGE, "the name of the directory is empty");
    for (const char *c = directory; *c; c++)
        if ((unsigned char)*c < 0x20 || *c == 0x7f)
            return qvl_fail(err, QVL_EUSAGE, "%s: a name with control characters", directory);
    if (!qvl_utf8_is_valid(directory, strlen(directory), NULL))
        return qvl_fail(err, QVL_EUSAGE, "%s: a name that is not UTF-8 cannot stand in YAML",
                        directory);
    if (options->size != QVL_DEMO_TINY && !options->is_sparse)
        return qvl_fail(err, QVL_EUSAGE,
                        "size %s is made with --sparse only: random weights would take %s of disk "
                        "and be of no more use",
                        SIZE_NAMES[options->size],
                        options->size == QVL_DEMO_3B ? "7 GiB" : "15.5 GiB");
    if (options->n_samples < 1 || options->n_samples > QVL_DEMO_MAX_SAMPLES)
        return qvl_fail(err, QVL_EUSAGE, "%" PRId64 " samples, expected 1 to %d",
                        options->n_samples, QVL_DEMO_MAX_SAMPLES);
    if (options->seed > INT64_MAX)
        return qvl_fail(err, QVL_EUSAGE, "seed %" PRIu64 ", expected at most %" PRId64,
                        options->seed, INT64_MAX);
    return QVL_OK;
}

/* Fine when the marker in the directory names the same options. */
static qvl_status check_marker(const char *path, const qvl_demo_options *options, qvl_err *err)
{
    json_t *marker = NULL, *wanted = NULL;
    char *found = NULL;
    qvl_status rc = QVL_OK;
    QVL_TRY(qvl_json_read(&marker, path, MARKER_LIMIT_BYTES, err));
    wanted = describe_options(options);
    if (json_equal(json_object_get(marker, "options"), wanted))
        goto out;
    found = json_dumps(json_object_get(marker, "options"), JSON_COMPACT | JSON_ENCODE_ANY);
    rc = qvl_fail(err, QVL_EUSAGE,
                  "%s: holds a demo made with other options (%s); name another directory, or "
                  "remove it",
                  options->directory, found ? found : "unknown");
out:
    json_decref(marker);
    json_decref(wanted);
    free(found);
    return rc;
}

/* Makes the directory, or sees that it is ours. */
static qvl_status claim_directory(const qvl_demo_options *options, qvl_err *err)
{
    const char *directory = options->directory;
    char path[QVL_PATH_BYTES];
    char **names = NULL;
    size_t n_names = 0;
    json_t *marker = NULL;
    char *dump = NULL;
    qvl_status rc = QVL_OK;
    if (qvl_file_exists(directory) && !qvl_file_is_directory(directory))
        return qvl_fail(err, QVL_EIO, "%s: exists and is not a directory", directory);
    QVL_TRY(qvl_path_join(path, directory, MARKER, err));
    QVL_TRY(qvl_directory_create(directory, err));
    QVL_TRY(qvl_directory_list(&names, &n_names, directory, err));
    if (n_names && !qvl_file_is_regular(path)) {
        rc = qvl_fail(err, QVL_EUSAGE,
                      "%s: is not empty and was not made by qvl_demo (there is no " MARKER
                      "); name a new directory",
                      directory);
        goto out;
    }
    if (n_names)
        QVL_TRY(check_marker(path, options, err));
    marker = json_pack("{s:s, s:s, s:o}", "made_by", "qvl_demo", "version", QVL_VERSION, "options",
                       describe_options(options));
    dump = json_dumps(marker, JSON_INDENT(2));
    rc = dump ? qvl_file_replace(path, dump, strlen(dump), err)
              : qvl_fail_memory(err, 0, "the options");
out:
    qvl_names_free(names, n_names);
    json_decref(marker);
    free(dump);
    return rc;
}

static qvl_status write_model(qvl_text *report, const qvl_demo_options *options, qvl_err *err)
{
    char path[QVL_PATH_BYTES], count[32], size[32];
    qvl_text corpus = {0};
    qvl_bpe *bpe = NULL;
    qvl_model_dims dims;
    qvl_demo_weights weights;
    qvl_status rc = QVL_OK;
    QVL_TRY(qvl_path_join(path, options->directory, "model", err));
    QVL_TRY(qvl_directory_create(path, err));
    QVL_TRY(qvl_demo_add_corpus(&corpus, err));
    QVL_TRY(qvl_bpe_learn(&bpe, corpus.data, corpus.len, N_ORDINARY_TOKENS, err));
    qvl_demo_dims(&dims, options->size, bpe->n_tokens + QVL_N_ADDED);
    QVL_TRY(qvl_demo_write_tokenizer(path, bpe, qvl_demo_first_added(&dims), err));
    QVL_TRY(qvl_demo_write_config(path, &dims, err));
    QVL_TRY(qvl_demo_write_weights(&weights, path, &dims, qvl_demo_shards(options->size),
                                   options->is_sparse, options->seed, err));
    QVL_TRY(qvl_text_printf(
        report, err, "%s: %s parameters in %" PRId64 " tensors, %d files, %s%s\n", path,
        qvl_format_count(count, weights.n_parameters), weights.n_tensors, weights.n_shards,
        qvl_format_bytes(size, weights.total_bytes),
        options->is_sparse ? ", all zero: holes that take no room on disk" : " of random numbers"));
    QVL_TRY(qvl_text_printf(report, err,
                            "%s/tokenizer.json: %d tokens from %d merges, and %d added ones\n",
                            path, bpe->n_tokens, bpe->n_merges, QVL_N_ADDED));
out:
    qvl_text_fini(&corpus);
    free(bpe);
    return rc;
}

static qvl_status write_data(qvl_text *report, const qvl_demo_options *options, qvl_err *err)
{
    char path[QVL_PATH_BYTES];
    qvl_demo_data data;
    qvl_status rc = QVL_OK;
    QVL_TRY(qvl_path_join(path, options->directory, "data", err));
    QVL_TRY(qvl_demo_write_data(&data, path, options->n_samples, options->seed, err));
    QVL_TRY(qvl_text_printf(report, err,
                            "%s: demo_shapes %" PRId64 " samples with %" PRId64
                            " pictures, demo_facts %" PRId64 ", demo_chat %" PRId64 "\n",
                            path, data.n_shapes, data.n_pictures, data.n_facts, data.n_chats));
out:
    return rc;
}

static qvl_status write_yaml(qvl_text *report, const qvl_demo_options *options, qvl_err *err)
{
    char path[QVL_PATH_BYTES];
    qvl_text yaml = {0};
    qvl_status rc = QVL_OK;
    QVL_TRY(qvl_path_join(path, options->directory, "demo.yaml", err));
    QVL_TRY(qvl_demo_add_yaml(&yaml, options->directory, options->size == QVL_DEMO_TINY, err));
    QVL_TRY(qvl_file_replace(path, yaml.data, yaml.len, err));
    QVL_TRY(qvl_text_printf(report, err, "next: %s %s\n",
                            options->is_sparse ? "qvl_sft --check" : "mpirun -np 2 qvl_sft", path));
out:
    qvl_text_fini(&yaml);
    return rc;
}

qvl_status qvl_demo_write(qvl_text *report, const qvl_demo_options *options, qvl_err *err)
{
    qvl_status rc = QVL_OK;
    QVL_TRY(check_options(options, err));
    QVL_TRY(claim_directory(options, err));
    QVL_TRY(write_model(report, options, err));
    QVL_TRY(write_data(report, options, err));
    QVL_TRY(write_yaml(report, options, err));
out:
    return rc;
}
