#include "io/hub_cache.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *set_variable(const char *name)
{
    const char *value = getenv(name);
    return value && value[0] ? value : NULL;
}

static qvl_status cache_root(char out[QVL_PATH_BYTES], const char *name, const char *cache_dir,
                             qvl_err *err)
{
    const char *hub = set_variable("HF_HUB_CACHE"), *home = set_variable("HF_HOME");
    const char *xdg = set_variable("XDG_CACHE_HOME"), *user = set_variable("HOME");
    if (cache_dir && cache_dir[0])
        return qvl_path_join(out, "", cache_dir, err);
    if (hub)
        return qvl_path_join(out, "", hub, err);
    if (home)
        return qvl_path_join(out, home, "hub", err);
    if (xdg)
        return qvl_path_join(out, xdg, "huggingface/hub", err);
    if (!user)
        return qvl_fail(err, QVL_EMISSING,
                        "%s: neither a directory nor in a hub cache: none is known, as HOME is not "
                        "set; set HF_HOME, or give cache_dir",
                        name);
    return qvl_path_join(out, user, ".cache/huggingface/hub", err);
}

/* "owner/model" -> "models--owner--model". False for what is no hub name. */
static int folder_of(char out[512], const char *name)
{
    const char *slash = strchr(name, '/');
    if (!slash || slash == name || !slash[1] || strchr(slash + 1, '/') || name[0] == '.' ||
        strlen(name) > 400)
        return 0;
    snprintf(out, 512, "models--%.*s--%s", (int)(slash - name), name, slash + 1);
    return 1;
}

/* The name of a commit is that of a directory of snapshots, and leads nowhere else. */
static qvl_status check_commit(const qvl_text *commit, const char *path, qvl_err *err)
{
    const char *name = commit->data;
    const size_t n = strcspn(name, " \r\n");
    if (n == 0 || n > 200 || strlen(name) != commit->len || memchr(name, '/', n) ||
        (name[0] == '.' && n <= 2))
        return qvl_fail(err, QVL_EDATA, "%s: is not a revision: expected the name of a commit",
                        path);
    return QVL_OK;
}

/* A branch or tag is a file with the commit's name in it. */
static qvl_status resolve_revision(char out[QVL_PATH_BYTES], const char *model_root,
                                   const char *revision, qvl_err *err)
{
    char path[QVL_PATH_BYTES], relative[512];
    qvl_text commit = {0};
    qvl_status rc = QVL_OK;
    snprintf(relative, sizeof relative, "refs/%.400s", revision);
    QVL_TRY(qvl_path_join(path, model_root, relative, err));
    if (qvl_file_exists(path) && !qvl_file_is_directory(path)) {
        QVL_TRY(qvl_file_read(&commit, path, 256, err));
        QVL_TRY(check_commit(&commit, path, err));
        commit.data[strcspn(commit.data, " \r\n")] = '\0';
        snprintf(relative, sizeof relative, "snapshots/%.200s", commit.data);
    } else {
        snprintf(relative, sizeof relative, "snapshots/%.400s", revision);
    }
    rc = qvl_path_join(out, model_root, relative, err);
out:
    qvl_text_fini(&commit);
    return rc;
}

qvl_status qvl_hub_find(char out[QVL_PATH_BYTES], const char *name, const char *cache_dir,
                        const char *revision, qvl_err *err)
{
    char root[QVL_PATH_BYTES], model_root[QVL_PATH_BYTES], folder[512];
    qvl_status rc = QVL_OK;
    if (qvl_file_is_directory(name))
        return qvl_path_join(out, "", name, err);
    if (!folder_of(folder, name))
        return qvl_fail(err, QVL_EMISSING, "%s: no such model directory", name);
    QVL_TRY(cache_root(root, name, cache_dir, err));
    QVL_TRY(qvl_path_join(model_root, root, folder, err));
    if (qvl_file_is_directory(model_root))
        QVL_TRY(resolve_revision(out, model_root, revision ? revision : "main", err));
    if (!qvl_file_is_directory(model_root) || !qvl_file_is_directory(out))
        return qvl_fail(err, QVL_EMISSING,
                        "%s: neither a directory nor in the hub cache %s (revision %s); nothing is "
                        "fetched from the network",
                        name, root, revision ? revision : "main");
out:
    return rc;
}
