#include "io/manifest.h"

#include <inttypes.h>
#include <string.h>

#include "io/json_file.h"
#include "src/base/files.h"
#include "src/base/sha256.h"

static const char NAME[] = QVL_MANIFEST_FILE;

static json_t *new_manifest(int64_t step)
{
    return json_pack("{s:s,s:i,s:I,s:{}}", "format", "qvl-checkpoint", "version", 1, "step",
                     (json_int_t)step, "files");
}

static qvl_status add_entry(json_t *root, const char *name, int64_t size, const char *digest,
                            qvl_err *err)
{
    json_t *entry = json_pack("{s:I,s:s}", "size", (json_int_t)size, "sha256", digest);
    if (!entry || json_object_set_new(json_object_get(root, "files"), name, entry) != 0)
        return qvl_fail_memory(err, 1, "manifest");
    return QVL_OK;
}

static qvl_status dump(qvl_text *out, const json_t *root, qvl_err *err)
{
    qvl_text_clear(out);
    const qvl_status rc = qvl_json_dump_indented(out, root, 2, err);
    return rc == QVL_OK ? qvl_text_puts(out, "\n", err) : rc;
}

qvl_status qvl_manifest_format(qvl_text *out, const qvl_manifest_item *items, size_t count,
                               int64_t step, qvl_err *err)
{
    char digest[QVL_SHA256_TEXT_BYTES];
    json_t *root = new_manifest(step);
    qvl_status rc = root ? QVL_OK : qvl_fail_memory(err, 1, "manifest");
    for (size_t i = 0; i < count && rc == QVL_OK; i++) {
        rc = qvl_sha256_bytes(digest, items[i].bytes, items[i].n_bytes, err);
        if (rc == QVL_OK)
            rc = add_entry(root, items[i].name, (int64_t)items[i].n_bytes, digest, err);
    }
    if (rc == QVL_OK)
        rc = dump(out, root, err);
    json_decref(root);
    return rc;
}

static qvl_status describe_file(json_t *root, const char *directory, const char *name, qvl_err *err)
{
    char path[QVL_PATH_BYTES], digest[QVL_SHA256_TEXT_BYTES];
    int64_t size = 0;
    qvl_status rc = qvl_path_join(path, directory, name, err);
    if (rc == QVL_OK)
        rc = qvl_file_size(&size, path, err);
    if (rc == QVL_OK)
        rc = qvl_sha256_file(digest, path, err);
    if (rc == QVL_OK)
        rc = qvl_file_flush(path, err);
    return rc == QVL_OK ? add_entry(root, name, size, digest, err) : rc;
}

qvl_status qvl_manifest_write(const char *directory, int64_t step, qvl_err *err)
{
    char path[QVL_PATH_BYTES];
    char **names = NULL;
    size_t count = 0;
    qvl_text text = {0};
    json_t *root = new_manifest(step);
    qvl_status rc = root ? QVL_OK : qvl_fail_memory(err, 1, "manifest");
    QVL_TRY(rc);
    QVL_TRY(qvl_directory_list(&names, &count, directory, err));
    for (size_t i = 0; i < count; i++)
        if (strcmp(names[i], NAME) != 0)
            QVL_TRY(describe_file(root, directory, names[i], err));
    QVL_TRY(dump(&text, root, err));
    QVL_TRY(qvl_path_join(path, directory, NAME, err));
    QVL_TRY(qvl_file_replace(path, text.data, text.len, err));
out:
    qvl_names_free(names, count);
    qvl_text_fini(&text);
    json_decref(root);
    return rc;
}

static qvl_status check_file(const char *directory, const char *name, const json_t *entry,
                             qvl_err *err)
{
    char path[QVL_PATH_BYTES], digest[QVL_SHA256_TEXT_BYTES];
    const json_t *expected_size = json_object_get(entry, "size");
    const char *expected = json_string_value(json_object_get(entry, "sha256"));
    int64_t size = 0;
    qvl_status rc = QVL_OK;
    if (strchr(name, '/') || !json_is_integer(expected_size) || !expected)
        return qvl_fail(err, QVL_EDATA, "%s/%s: the entry of %s is wrong", directory, NAME, name);
    QVL_TRY(qvl_path_join(path, directory, name, err));
    QVL_TRY(qvl_file_size(&size, path, err));
    if (size != json_integer_value(expected_size))
        return qvl_fail(err, QVL_EDATA,
                        "%s: %" PRId64 " bytes, the manifest says %" JSON_INTEGER_FORMAT, path,
                        size, json_integer_value(expected_size));
    QVL_TRY(qvl_sha256_file(digest, path, err));
    if (strcmp(digest, expected) != 0)
        return qvl_fail(err, QVL_EDATA, "%s: its SHA-256 is not the manifest's", path);
out:
    return rc;
}

qvl_status qvl_manifest_check(const char *directory, int64_t *out_step, qvl_err *err)
{
    char path[QVL_PATH_BYTES];
    const char *name, *format = NULL;
    json_t *root = NULL, *entry;
    int64_t version = 0;
    qvl_status rc = QVL_OK;
    QVL_TRY(qvl_path_join(path, directory, NAME, err));
    QVL_TRY(qvl_json_read(&root, path, 16 << 20, err));
    QVL_TRY(qvl_json_get_text(&format, root, "format", path, err));
    QVL_TRY(qvl_json_get_i64(&version, root, "version", 1, 1, path, err));
    *out_step = -1;
    QVL_TRY(qvl_json_get_i64(out_step, root, "step", 0, INT64_MAX, path, err));
    if (!format || strcmp(format, "qvl-checkpoint") != 0 || version != 1 || *out_step < 0 ||
        !json_is_object(json_object_get(root, "files"))) {
        rc = qvl_fail(err, QVL_EDATA, "%s: not a checkpoint manifest of version 1", path);
        goto out;
    }
    if (json_object_size(json_object_get(root, "files")) == 0)
        rc = qvl_fail(err, QVL_EDATA, "%s: lists no files", path);
    QVL_TRY(rc);
    json_object_foreach(json_object_get(root, "files"), name, entry)
        QVL_TRY(check_file(directory, name, entry, err));
out:
    json_decref(root);
    return rc;
}
