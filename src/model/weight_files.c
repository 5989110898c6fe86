#include "src/model/weight_files.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "io/json_file.h"
#include "src/base/files.h"
#include "src/base/memory.h"
#include "src/base/sha256.h"

enum { INDEX_LIMIT = 64 << 20, SHARD_LIMIT = 4096 };

typedef struct entry {
    char *name; /* hub name */
    const qvl_tensor *tensor;
    const qvl_safetensors *file;
} entry;

struct qvl_weight_files {
    char *directory;
    qvl_safetensors **shards;
    char **shard_names;
    size_t n_shards, shard_capacity;
    entry *entries; /* by name */
    size_t n_entries;
    char sha256[QVL_SHA256_TEXT_BYTES];
};

void qvl_weight_files_close(qvl_weight_files *files)
{
    if (!files)
        return;
    for (size_t i = 0; files->entries && i < files->n_entries; i++)
        free(files->entries[i].name);
    for (size_t i = 0; i < files->n_shards; i++) {
        qvl_safetensors_close(files->shards[i]);
        free(files->shard_names[i]);
    }
    free(files->entries);
    free(files->shards);
    free(files->shard_names);
    free(files->directory);
    free(files);
}

size_t qvl_weight_files_count(const qvl_weight_files *files)
{
    return files->n_entries;
}
const char *qvl_weight_files_directory(const qvl_weight_files *files)
{
    return files->directory;
}
const char *qvl_weight_files_sha256(const qvl_weight_files *files)
{
    return files->sha256;
}

const char *qvl_weight_files_name(const qvl_weight_files *files, size_t i)
{
    return files->entries[i].name;
}

const qvl_tensor *qvl_weight_files_at(const qvl_weight_files *files, size_t i,
                                      const qvl_safetensors **out_file)
{
    if (out_file)
        *out_file = files->entries[i].file;
    return files->entries[i].tensor;
}

static int compare_entries(const void *a, const void *b)
{
    return strcmp(((const entry *)a)->name, ((const entry *)b)->name);
}

const qvl_tensor *qvl_weight_files_find(const qvl_weight_files *files, const char *hub_name,
                                        const qvl_safetensors **out_file)
{
    const entry key = {.name = (char *)(uintptr_t)hub_name};
    const entry *found = files->n_entries ? bsearch(&key, files->entries, files->n_entries,
                                                    sizeof *files->entries, compare_entries)
                                          : NULL;
    if (found && out_file)
        *out_file = found->file;
    return found ? found->tensor : NULL;
}

/* The reverse of transformers' renaming on load (REFERENCE 1.3). */
static qvl_status hub_name_of(char **out, const char *name, qvl_err *err)
{
    static const char VISUAL[] = "model.visual.", LANGUAGE[] = "model.language_model.";
    char buffer[512];
    if (strncmp(name, VISUAL, sizeof VISUAL - 1) == 0)
        snprintf(buffer, sizeof buffer, "visual.%s", name + sizeof VISUAL - 1);
    else if (strncmp(name, LANGUAGE, sizeof LANGUAGE - 1) == 0)
        snprintf(buffer, sizeof buffer, "model.%s", name + sizeof LANGUAGE - 1);
    else
        snprintf(buffer, sizeof buffer, "%s", name);
    return qvl_copy_text(out, buffer, err);
}

static qvl_status add_shard(qvl_weight_files *files, const char *name, qvl_err *err)
{
    size_t names_capacity = files->shard_capacity;
    qvl_status rc = QVL_OK;
    for (size_t i = 0; i < files->n_shards; i++)
        if (strcmp(files->shard_names[i], name) == 0)
            return QVL_OK;
    if (files->n_shards >= SHARD_LIMIT)
        return qvl_fail(err, QVL_EDATA, "%s: model.safetensors.index.json names over %d shards",
                        files->directory, SHARD_LIMIT);
    if (strchr(name, '/') || !name[0])
        return qvl_fail(err, QVL_EDATA, "%s: shard name '%s' is not a file of the directory",
                        files->directory, name);
    QVL_TRY(qvl_reserve(&files->shard_names, &names_capacity, files->n_shards + 1,
                        sizeof *files->shard_names, "shards", err));
    QVL_TRY(qvl_reserve(&files->shards, &files->shard_capacity, files->n_shards + 1,
                        sizeof *files->shards, "shards", err));
    QVL_TRY(qvl_copy_text(&files->shard_names[files->n_shards], name, err));
    files->shards[files->n_shards++] = NULL;
out:
    return rc;
}

/* What is there and can be no shard is told as such; links of a hub cache may lead to nothing. */
static qvl_status look_for_shard(bool *out_is_there, const char *path, qvl_err *err)
{
    struct stat st;
    int64_t size = 0;
    *out_is_there = stat(path, &st) == 0 || errno != ENOENT;
    return *out_is_there ? qvl_file_size(&size, path, err) : QVL_OK;
}

static qvl_status open_shards(qvl_weight_files *files, qvl_err *err)
{
    char path[QVL_PATH_BYTES], missing[512] = "";
    size_t n_missing = 0, used = 0;
    qvl_status rc = QVL_OK;
    for (size_t i = 0; i < files->n_shards; i++) {
        QVL_TRY(qvl_path_join(path, files->directory, files->shard_names[i], err));
        bool is_there = false;
        QVL_TRY(look_for_shard(&is_there, path, err));
        if (!is_there) {
            n_missing++;
            if (used < sizeof missing - 100)
                used += (size_t)snprintf(missing + used, sizeof missing - used, "%s%.90s",
                                         n_missing > 1 ? ", " : "", files->shard_names[i]);
        }
    }
    if (n_missing)
        return qvl_fail(err, QVL_EMISSING, "%s: %zu of %zu shards missing: %s", files->directory,
                        n_missing, files->n_shards, missing);
    for (size_t i = 0; i < files->n_shards; i++) {
        QVL_TRY(qvl_path_join(path, files->directory, files->shard_names[i], err));
        QVL_TRY(qvl_safetensors_open(&files->shards[i], path, err));
    }
out:
    return rc;
}

static qvl_status read_index(qvl_weight_files *files, const json_t *map, const char *path,
                             qvl_err *err)
{
    const char *name;
    json_t *shard;
    qvl_status rc = QVL_OK;
    if (!json_is_object(map))
        return qvl_fail(err, QVL_EDATA, "%s: weight_map is missing", path);
    json_object_foreach((json_t *)(uintptr_t)map, name, shard)
    {
        if (!json_is_string(shard))
            return qvl_fail(err, QVL_EDATA, "%s: weight_map.%s is not a file name", path, name);
        QVL_TRY(add_shard(files, json_string_value(shard), err));
    }
out:
    return rc;
}

/* Every tensor of the index is in the shard that it names. */
static qvl_status check_index(const qvl_weight_files *files, const json_t *map, const char *path,
                              qvl_err *err)
{
    const char *name;
    json_t *shard;
    json_object_foreach((json_t *)(uintptr_t)map, name, shard)
    {
        for (size_t i = 0; i < files->n_shards; i++)
            if (strcmp(files->shard_names[i], json_string_value(shard)) == 0 &&
                !qvl_safetensors_find(files->shards[i], name))
                return qvl_fail(err, QVL_EDATA, "%s: tensor %s is not in %s", path, name,
                                files->shard_names[i]);
    }
    return QVL_OK;
}

/* All tensors of all shards by hub name; none twice. Shards are those of the index, so a stray file
 * in the directory does no harm. */
static qvl_status collect(qvl_weight_files *files, qvl_err *err)
{
    size_t total = 0;
    qvl_status rc = QVL_OK;
    for (size_t i = 0; i < files->n_shards; i++)
        total += qvl_safetensors_count(files->shards[i]);
    QVL_TRY(qvl_alloc(&files->entries, total, sizeof *files->entries, "tensor list", err));
    for (size_t i = 0; i < files->n_shards; i++)
        for (size_t k = 0; k < qvl_safetensors_count(files->shards[i]); k++) {
            entry *to = &files->entries[files->n_entries];
            to->tensor = qvl_safetensors_at(files->shards[i], k);
            to->file = files->shards[i];
            QVL_TRY(hub_name_of(&to->name, to->tensor->name, err));
            files->n_entries++;
        }
    if (files->n_entries)
        qsort(files->entries, files->n_entries, sizeof *files->entries, compare_entries);
    for (size_t i = 1; i < files->n_entries; i++)
        if (strcmp(files->entries[i].name, files->entries[i - 1].name) == 0)
            return qvl_fail(err, QVL_EDATA, "%s: tensor %s is there twice, in %s and in %s",
                            files->directory, files->entries[i].tensor->name,
                            qvl_path_name(qvl_safetensors_path(files->entries[i - 1].file)),
                            qvl_path_name(qvl_safetensors_path(files->entries[i].file)));
out:
    return rc;
}

static qvl_status hash_headers(qvl_weight_files *files, qvl_err *err)
{
    qvl_text all = {0};
    qvl_status rc = qvl_text_puts(&all, "", err);
    for (size_t i = 0; rc == QVL_OK && i < files->n_shards; i++)
        rc = qvl_text_printf(&all, err, "%s %s\n", files->shard_names[i],
                             qvl_safetensors_header_sha256(files->shards[i]));
    if (rc == QVL_OK)
        rc = qvl_sha256_bytes(files->sha256, all.data, all.len, err);
    qvl_text_fini(&all);
    return rc;
}

qvl_status qvl_weight_files_open(qvl_weight_files **out, const char *directory, qvl_err *err)
{
    char path[QVL_PATH_BYTES];
    json_t *index = NULL;
    const json_t *map = NULL;
    qvl_weight_files *files = NULL;
    qvl_status rc = qvl_alloc(&files, 1, sizeof *files, "weight files", err);
    if (rc != QVL_OK)
        return rc;
    QVL_TRY(qvl_copy_text(&files->directory, directory, err));
    QVL_TRY(qvl_path_join(path, directory, "model.safetensors.index.json", err));
    if (qvl_file_exists(path)) {
        QVL_TRY(qvl_json_read(&index, path, INDEX_LIMIT, err));
        map = json_object_get(index, "weight_map");
        QVL_TRY(read_index(files, map, path, err));
    } else {
        QVL_TRY(qvl_path_join(path, directory, "model.safetensors", err));
        if (!qvl_file_exists(path)) {
            rc =
                qvl_fail(err, QVL_EMISSING,
                         "%s: no model.safetensors and no model.safetensors.index.json", directory);
            goto out;
        }
        QVL_TRY(add_shard(files, "model.safetensors", err));
    }
    QVL_TRY(open_shards(files, err));
    if (map)
        QVL_TRY(check_index(files, map, path, err));
    QVL_TRY(collect(files, err));
    QVL_TRY(hash_headers(files, err));
    *out = files;
    files = NULL;
out:
    json_decref(index);
    qvl_weight_files_close(files);
    return rc;
}
