#include "src/data/dataset_info.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "io/json_file.h"
#include "src/base/files.h"
#include "src/base/memory.h"

/* Texts of an entry: where they land and what they are when the whole object is absent. */
typedef struct field {
    const char *key, *fallback;
    size_t offset;
} field;

#define FIELD(key, fallback, member)                                                               \
    {                                                                                              \
        key, fallback, offsetof(qvl_dataset_info, member)                                          \
    }

static const field COLUMNS[] = {FIELD("prompt", "instruction", prompt),
                                FIELD("query", "input", query),
                                FIELD("response", "output", response),
                                FIELD("history", NULL, history),
                                FIELD("messages", "conversations", messages),
                                FIELD("system", NULL, system),
                                FIELD("tools", NULL, tools),
                                FIELD("images", NULL, images),
                                FIELD("videos", NULL, videos),
                                FIELD("audios", NULL, audios)};

static const field TAGS[] = {FIELD("role_tag", "from", role_tag),
                             FIELD("content_tag", "value", content_tag),
                             FIELD("user_tag", "human", user_tag),
                             FIELD("assistant_tag", "gpt", assistant_tag),
                             FIELD("observation_tag", "observation", observation_tag),
                             FIELD("function_tag", "function_call", function_tag),
                             FIELD("system_tag", "system", system_tag)};

enum { N_COLUMNS = sizeof COLUMNS / sizeof *COLUMNS, N_TAGS = sizeof TAGS / sizeof *TAGS };

static char **member_of(qvl_dataset_info *info, const field *f)
{
    return (char **)(void *)((char *)info + f->offset);
}

void qvl_dataset_info_free(qvl_dataset_info *infos, size_t count)
{
    for (size_t i = 0; infos && i < count; i++) {
        for (int k = 0; k < N_COLUMNS; k++)
            free(*member_of(&infos[i], &COLUMNS[k]));
        for (int k = 0; k < N_TAGS; k++)
            free(*member_of(&infos[i], &TAGS[k]));
        qvl_names_free(infos[i].files, infos[i].n_files);
        free(infos[i].name);
    }
    free(infos);
}

/* The trap of REFERENCE 7.1: when the object is there, what it does not list is None. */
static qvl_status read_fields(qvl_dataset_info *info, const json_t *entry, const char *key,
                              const field *fields, int n, const char *where, qvl_err *err)
{
    const json_t *object = json_object_get(entry, key);
    const char *given;
    json_t *value;
    qvl_status rc = QVL_OK;
    if (json_is_null(object))
        object = NULL;
    if (object && !json_is_object(object))
        return qvl_fail(err, QVL_EDATA, "%s: %s.%s is not an object", where, info->name, key);
    for (int i = 0; i < n && rc == QVL_OK; i++) {
        const char *text = object ? NULL : fields[i].fallback;
        if (object)
            rc = qvl_json_get_text(&text, object, fields[i].key, where, err);
        if (rc == QVL_OK)
            rc = qvl_copy_text(member_of(info, &fields[i]), text, err);
    }
    json_object_foreach((json_t *)(uintptr_t)object, given, value)
    {
        bool is_known = false;
        for (int i = 0; i < n; i++)
            is_known |= strcmp(given, fields[i].key) == 0;
        if (strcmp(given, "chosen") == 0 || strcmp(given, "rejected") == 0 ||
            strcmp(given, "kto_tag") == 0)
            is_known = true;
        if (!is_known && rc == QVL_OK)
            rc = qvl_fail(err, QVL_EDATA, "%s: %s.%s: unknown member '%s'", where, info->name, key,
                          given);
    }
    return rc;
}

static bool ends_with(const char *text, const char *suffix)
{
    const size_t n = strlen(text), m = strlen(suffix);
    return n >= m && strcmp(text + n - m, suffix) == 0;
}

static qvl_status check_type(const char *path, qvl_err *err)
{
    if (ends_with(path, ".json") || ends_with(path, ".jsonl"))
        return QVL_OK;
    return qvl_fail(err, QVL_EDATA, "%s: file type is not read; expected .json or .jsonl", path);
}

/* A link that leads to nothing is not there; what is there is a regular file or told as what it is.
 */
static qvl_status look_for_file(const qvl_dataset_info *info, const char *path, qvl_err *err)
{
    struct stat st;
    int64_t size = 0;
    if (stat(path, &st) != 0 && errno == ENOENT)
        return qvl_fail(err, QVL_EMISSING, "%s: data file of data set '%s' is not there", path,
                        info->name);
    return qvl_file_size(&size, path, err);
}

/* A file, or all files of a directory in the order of their names. */
static qvl_status find_files(qvl_dataset_info *info, const char *file_name, const char *dataset_dir,
                             qvl_err *err)
{
    char path[QVL_PATH_BYTES], full[QVL_PATH_BYTES];
    char **names = NULL;
    size_t count = 0;
    qvl_status rc = QVL_OK;
    QVL_TRY(qvl_path_join(path, dataset_dir, file_name, err));
    if (!qvl_file_is_directory(path)) {
        QVL_TRY(look_for_file(info, path, err));
        QVL_TRY(check_type(path, err));
        QVL_TRY(qvl_alloc(&info->files, 1, sizeof *info->files, "files", err));
        info->n_files = 1;
        return qvl_copy_text(&info->files[0], path, err);
    }
    QVL_TRY(qvl_directory_list(&names, &count, path, err));
    if (count == 0) {
        rc = qvl_fail(err, QVL_EMISSING, "%s: no files of data set '%s'", path, info->name);
        goto out;
    }
    QVL_TRY(qvl_alloc(&info->files, count, sizeof *info->files, "files", err));
    info->n_files = count;
    for (size_t i = 0; i < count; i++) {
        QVL_TRY(qvl_path_join(full, path, names[i], err));
        QVL_TRY(check_type(full, err));
        QVL_TRY(qvl_copy_text(&info->files[i], full, err));
    }
out:
    qvl_names_free(names, count);
    return rc;
}

static qvl_status check_source(const qvl_dataset_info *info, const json_t *entry, const char *where,
                               qvl_err *err)
{
    static const char *const ELSEWHERE[] = {"hf_hub_url", "ms_hub_url", "om_hub_url", "script_url",
                                            "cloud_file_name"};
    const char *split = "train";
    bool is_ranking = false;
    for (size_t i = 0; i < sizeof ELSEWHERE / sizeof *ELSEWHERE; i++)
        if (json_is_string(json_object_get(entry, ELSEWHERE[i])))
            return json_is_string(json_object_get(entry, "file_name"))
                       ? qvl_fail(err, QVL_EDATA,
                                  "%s: %s.%s: only local files are read; remove it to read "
                                  "file_name, which LLaMA-Factory passes over for it",
                                  where, info->name, ELSEWHERE[i])
                       : qvl_fail(err, QVL_EDATA,
                                  "%s: %s.%s: only local files are read; give file_name instead",
                                  where, info->name, ELSEWHERE[i]);
    qvl_status rc = qvl_json_get_bool(&is_ranking, entry, "ranking", where, err);
    if (rc == QVL_OK)
        rc = qvl_json_get_text(&split, entry, "split", where, err);
    /* a slice ("train[:100]") would be another choice of records */
    if (rc == QVL_OK && strcmp(split, "train") != 0)
        return qvl_fail(err, QVL_EDATA,
                        "%s: %s.split is \"%s\"; of a file the whole is read, train", where,
                        info->name, split);
    if (rc == QVL_OK && is_ranking)
        return qvl_fail(err, QVL_EDATA, "%s: %s is a ranking data set; sft needs answers", where,
                        info->name);
    return rc;
}

static qvl_status read_entry(qvl_dataset_info *info, const json_t *entry, const char *dataset_dir,
                             const char *where, qvl_err *err)
{
    const char *formatting = "alpaca", *file_name = NULL;
    qvl_status rc = QVL_OK;
    info->num_samples = -1;
    QVL_TRY(check_source(info, entry, where, err));
    QVL_TRY(qvl_json_get_text(&formatting, entry, "formatting", where, err));
    if (strcmp(formatting, "alpaca") == 0)
        info->formatting = QVL_ALPACA;
    else if (strcmp(formatting, "sharegpt") == 0)
        info->formatting = QVL_SHAREGPT;
    else if (strcmp(formatting, "openai") == 0)
        info->formatting = QVL_OPENAI;
    else
        return qvl_fail(err, QVL_EDATA,
                        "%s: %s.formatting is \"%s\", expected alpaca, sharegpt or openai", where,
                        info->name, formatting);
    QVL_TRY(qvl_json_get_i64(&info->num_samples, entry, "num_samples", 1, UINT32_MAX, where, err));
    QVL_TRY(read_fields(info, entry, "columns", COLUMNS, N_COLUMNS, where, err));
    info->names_columns = json_is_object(json_object_get(entry, "columns"));
    QVL_TRY(read_fields(info, entry, "tags", TAGS, N_TAGS, where, err));
    QVL_TRY(qvl_json_get_text(&file_name, entry, "file_name", where, err));
    if (!file_name)
        return qvl_fail(err, QVL_EDATA, "%s: %s.file_name is missing", where, info->name);
    if (info->formatting != QVL_ALPACA && !(info->messages && info->role_tag && info->content_tag))
        return qvl_fail(err, QVL_EDATA,
                        "%s: %s: columns.messages, tags.role_tag and tags.content_tag are needed; "
                        "members that columns or tags do not list are None",
                        where, info->name);
    QVL_TRY(find_files(info, file_name, dataset_dir, err));
out:
    return rc;
}

static const char *nearest_name(const json_t *root, const char *name)
{
    const char *key, *nearest = NULL;
    json_t *value;
    int least = (int)strlen(name) / 3 + 2;
    json_object_foreach((json_t *)(uintptr_t)root, key, value)
    {
        const int distance = qvl_edit_distance(key, name);
        if (distance < least) {
            least = distance;
            nearest = key;
        }
    }
    return nearest;
}

/* A name that is not there, with what is: the nearest one, else the first few. */
static qvl_status refuse_name(const json_t *root, const char *name, const char *where, qvl_err *err)
{
    enum { MOST = 5 };
    char names[400] = "it is empty";
    const char *key, *nearest = nearest_name(root, name);
    json_t *value;
    size_t n = 0, count = 0;
    if (nearest)
        return qvl_fail(err, QVL_EMISSING, "%s: no data set '%s'; did you mean '%s'?", where, name,
                        nearest);
    json_object_foreach((json_t *)(uintptr_t)root, key, value)
    {
        if (count == MOST)
            break;
        n += (size_t)snprintf(names + n, sizeof names - n, "%s'%.60s'", count ? ", " : "it has ",
                              key);
        count++;
    }
    if (json_object_size(root) > count)
        snprintf(names + n, sizeof names - n, " and %zu more", json_object_size(root) - count);
    return qvl_fail(err, QVL_EMISSING, "%s: no data set '%s'; %s", where, name, names);
}

static qvl_status read_named(qvl_dataset_info *info, const json_t *root, const char *name, size_t n,
                             const char *dataset_dir, const char *where, qvl_err *err)
{
    qvl_status rc = qvl_alloc(&info->name, n + 1, 1, "name", err);
    if (rc != QVL_OK)
        return rc;
    memcpy(info->name, name, n);
    const json_t *entry = json_object_get(root, info->name);
    if (entry && !json_is_object(entry))
        return qvl_fail(err, QVL_EDATA, "%s: %s is not an object", where, info->name);
    if (!entry)
        return refuse_name(root, info->name, where, err);
    return read_entry(info, entry, dataset_dir, where, err);
}

qvl_status qvl_dataset_info_read(qvl_dataset_info **out, size_t *count, const char *names,
                                 const char *dataset_dir, qvl_err *err)
{
    char where[QVL_PATH_BYTES];
    json_t *root = NULL;
    qvl_dataset_info *infos = NULL;
    size_t n = 0, capacity = 0;
    qvl_status rc = QVL_OK;
    QVL_TRY(qvl_path_join(where, dataset_dir, "dataset_info.json", err));
    QVL_TRY(qvl_json_read(&root, where, 64 << 20, err));
    if (!json_is_object(root)) {
        rc = qvl_fail(err, QVL_EDATA, "%s: expected an object of data sets", where);
        goto out;
    }
    for (const char *name = names; name;) {
        name += strspn(name, " ");
        const size_t length = strcspn(name, ",");
        const char *next = name[length] ? name + length + 1 : NULL;
        size_t trimmed = length;
        while (trimmed && name[trimmed - 1] == ' ')
            trimmed--;
        if (trimmed == 0) {
            rc = qvl_fail(err, QVL_ECONFIG, "dataset: an empty name in '%s'", names);
            goto out;
        }
        QVL_TRY(qvl_reserve(&infos, &capacity, n + 1, sizeof *infos, "data sets", err));
        infos[n] = (qvl_dataset_info){0};
        QVL_TRY(read_named(&infos[n++], root, name, trimmed, dataset_dir, where, err));
        name = next;
    }
    *out = infos;
    *count = n;
    infos = NULL;
out:
    qvl_dataset_info_free(infos, n);
    json_decref(root);
    return rc;
}

static const char *name_of(const qvl_dataset_info *info, int column)
{
    return *member_of((qvl_dataset_info *)(uintptr_t)info, &COLUMNS[column]);
}

uint32_t qvl_dataset_info_columns(const qvl_dataset_info *info)
{
    uint32_t columns = 0;
    for (int k = 0; k < N_COLUMNS; k++) {
        const bool is_messages = COLUMNS[k].offset == offsetof(qvl_dataset_info, messages);
        const bool is_alpacas = k < 4; /* prompt, query, response, history */
        if (name_of(info, k) && (info->formatting == QVL_ALPACA ? !is_messages : !is_alpacas))
            columns |= 1u << k;
    }
    return columns;
}

uint32_t qvl_dataset_info_columns_of(const qvl_dataset_info *info, const json_t *record)
{
    const uint32_t columns = qvl_dataset_info_columns(info);
    uint32_t found = 0;
    for (int k = 0; k < N_COLUMNS; k++)
        if ((columns & 1u << k) && json_object_get(record, name_of(info, k)))
            found |= 1u << k;
    return found;
}

uint32_t qvl_dataset_info_needed(const qvl_dataset_info *info)
{
    const uint32_t columns = info->names_columns ? qvl_dataset_info_columns(info) : 0;
    uint32_t needed = 0;
    for (int k = 0; k < N_COLUMNS; k++)
        if (strcmp(COLUMNS[k].key, "prompt") == 0 || strcmp(COLUMNS[k].key, "response") == 0 ||
            strcmp(COLUMNS[k].key, "messages") == 0)
            needed |= columns & 1u << k;
    return needed;
}

const char *qvl_dataset_info_column(const qvl_dataset_info *info, int bit, const char **out_name)
{
    if (bit >= N_COLUMNS)
        return NULL;
    *out_name = name_of(info, bit);
    return COLUMNS[bit].key;
}

qvl_status qvl_dataset_info_describe(qvl_text *out, const qvl_dataset_info *info, qvl_err *err)
{
    qvl_status rc = qvl_text_printf(out, err, "formatting %d num_samples %" PRId64 "\n",
                                    (int)info->formatting, info->num_samples);
    for (int k = 0; k < N_COLUMNS + N_TAGS && rc == QVL_OK; k++) {
        const field *f = k < N_COLUMNS ? &COLUMNS[k] : &TAGS[k - N_COLUMNS];
        const char *text = *member_of((qvl_dataset_info *)(uintptr_t)info, f);
        rc = text ? qvl_text_printf(out, err, "%s %zu %s\n", f->key, strlen(text), text)
                  : qvl_text_printf(out, err, "%s None\n", f->key);
    }
    return rc;
}
