/* Which directories are checkpoints of qvl, so that no other is removed or replaced. */
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "io/manifest.h"
#include "src/train/checkpoint.h"
#include "src/train/optimizer_file.h"

static const char *const SUFFIXES[] = {"", ".tmp", ".old.tmp", ".gone.tmp"};

enum { N_SUFFIXES = sizeof SUFFIXES / sizeof *SUFFIXES };

bool qvl_checkpoint_is_name(const char *name)
{
    for (int i = 0; i < N_SUFFIXES; i++)
        if (qvl_checkpoint_step_of(name, SUFFIXES[i]) >= 0)
            return true;
    return false;
}

/* What qvl_manifest_format writes, of a file that may be somebody's of the same name. */
static bool has_our_manifest(const char *directory)
{
    char path[QVL_PATH_BYTES];
    qvl_text text = {0};
    const bool is_ours = qvl_path_join(path, directory, QVL_MANIFEST_FILE, NULL) == QVL_OK &&
                         qvl_file_is_regular(path) &&
                         qvl_file_read(&text, path, (size_t)1 << 20, NULL) == QVL_OK &&
                         strstr(text.data, "\"qvl-checkpoint\"");
    qvl_text_fini(&text);
    return is_ours;
}

/* A file of a checkpoint, or (as qvl_file_replace leaves it) half of one: NAME.PID.tmp. */
static bool is_our_name(const char *name)
{
    static const char *const NAMES[] = {QVL_ADAPTER_CONFIG, QVL_ADAPTER_TENSORS, QVL_OPTIMIZER_FILE,
                                        QVL_RUN_STATE_FILE, QVL_MANIFEST_FILE};
    for (size_t i = 0; i < sizeof NAMES / sizeof *NAMES; i++) {
        const size_t n = strlen(NAMES[i]);
        if (strncmp(name, NAMES[i], n) != 0)
            continue;
        const char *rest = name + n;
        if (!*rest ||
            (*rest == '.' && strcmp(rest + 1 + strspn(rest + 1, "0123456789"), ".tmp") == 0))
            return true;
    }
    return false;
}

static bool is_empty_directory(const char *directory, const char *name)
{
    char path[QVL_PATH_BYTES];
    char **names = NULL;
    size_t count = 0;
    const bool is_empty = qvl_path_join(path, directory, name, NULL) == QVL_OK &&
                          qvl_file_is_directory(path) &&
                          qvl_directory_list(&names, &count, path, NULL) == QVL_OK && count == 0;
    qvl_names_free(names, count);
    return is_empty;
}

/* Nothing of anybody else is in it. */
static bool has_only_our_files(const char *directory)
{
    char **names = NULL;
    size_t count = 0;
    bool is_ours = qvl_directory_list(&names, &count, directory, NULL) == QVL_OK;
    for (size_t i = 0; i < count && is_ours; i++)
        is_ours = is_our_name(names[i]) || is_empty_directory(directory, names[i]);
    qvl_names_free(names, count);
    return is_ours;
}

bool qvl_checkpoint_is_ours(const char *output_dir, int64_t step)
{
    char path[QVL_PATH_BYTES], manifest[QVL_PATH_BYTES];
    return qvl_checkpoint_path(path, output_dir, step, "", NULL) == QVL_OK &&
           qvl_path_join(manifest, path, QVL_MANIFEST_FILE, NULL) == QVL_OK &&
           qvl_file_is_regular(manifest) && (has_our_manifest(path) || has_only_our_files(path));
}

bool qvl_checkpoint_is_leftover(const char *path)
{
    struct stat st;
    if (lstat(path, &st) != 0)
        return false;
    if (!S_ISDIR(st.st_mode))
        return S_ISREG(st.st_mode) || S_ISLNK(st.st_mode);
    return has_only_our_files(path) || has_our_manifest(path);
}

qvl_status qvl_checkpoint_remove_leftover(const char *path, qvl_err *err)
{
    if (qvl_file_exists(path) && !qvl_checkpoint_is_leftover(path))
        return qvl_fail(err, QVL_EIO, "%s is not qvl's and is left alone; move it away", path);
    return qvl_tree_remove(path, err);
}

qvl_status qvl_checkpoint_find_others(char first[QVL_PATH_BYTES], size_t *out_count,
                                      const char *output_dir, qvl_err *err)
{
    char path[QVL_PATH_BYTES];
    char **names = NULL;
    size_t count = 0;
    qvl_status rc = QVL_OK;
    first[0] = '\0';
    *out_count = 0;
    QVL_TRY(qvl_directory_list(&names, &count, output_dir, err));
    for (size_t i = 0; i < count; i++) {
        const int64_t step = qvl_checkpoint_step_of(names[i], "");
        if (!qvl_checkpoint_is_name(names[i]))
            continue;
        QVL_TRY(qvl_path_join(path, output_dir, names[i], err));
        if (step >= 0 ? qvl_checkpoint_is_ours(output_dir, step) : qvl_checkpoint_is_leftover(path))
            continue;
        if ((*out_count)++ == 0)
            memcpy(first, path, sizeof path);
    }
out:
    qvl_names_free(names, count);
    return rc;
}
