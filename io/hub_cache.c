#include "io/hub_cache.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *set_variable(const char *name)
{
    const char *value = getenv(name);
    return value && value[0] ? value : NULL;
}

static qvl_status cache_root(char out[QVL_PATH_BYTES], const char *cache_dir, qvl_err *err)
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
    return qvl_path_join(out, user ? user : "", ".cache/huggingface/hub", err);
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

/* A branch or tag is a file with the commit's name in it. */
static qvl_status resolve_revision(char out[QVL_PATH_BYTES], const char *model_root,
                                   const char *revision, qvl_err *err)
{
    char path[QVL_PATH_BYTES], relative[512];
    qvl_text commit = {0};
    qvl_status rc = QVL_OK;
    snprintf(relative, sizeof relative, "refs/%.400s", revision);
    QVL_TRY(qvl_path_join(path, model_root, relative, err));
    if (qvl_file_is_regular(path)) {
        QVL_TRY(qvl_file_read(&commit, path, 256, err));
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
    QVL_TRY(cache_root(root, cache_dir, err));
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
