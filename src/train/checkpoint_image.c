/* From a training state to a directory on disk, and what goes when the new one is safe. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "io/manifest.h"
#include "src/model/lora_files.h"
#include "src/train/checkpoint.h"
#include "src/train/optimizer_file.h"

/* ---- in memory ---------------------------------------------------------------------------------
 */

enum { MOST_FILES = 4 };

/* Every file but the manifest. */
static size_t list_files(qvl_manifest_item items[MOST_FILES], const qvl_checkpoint_image *image)
{
    const struct {
        const char *name;
        const qvl_text *text;
    } files[MOST_FILES] = {{QVL_ADAPTER_CONFIG, &image->adapter_config},
                           {QVL_ADAPTER_TENSORS, &image->adapter},
                           {QVL_OPTIMIZER_FILE, &image->optimizer},
                           {QVL_RUN_STATE_FILE, &image->trainer_state}};
    size_t count = 0;
    for (int i = 0; i < MOST_FILES; i++)
        if (files[i].text->len)
            items[count++] =
                (qvl_manifest_item){files[i].name, files[i].text->data, files[i].text->len};
    return count;
}

qvl_status qvl_checkpoint_image_make(qvl_checkpoint_image *image,
                                     const qvl_checkpoint_options *options,
                                     const qvl_train_state *state, const qvl_lora *lora,
                                     const qvl_run_log *log, qvl_err *err)
{
    qvl_status rc = QVL_OK;
    image->step = state->step;
    QVL_TRY(qvl_lora_format(lora, state->param, &image->adapter_config, &image->adapter,
                            options->layout, options->base_model, err));
    qvl_text_clear(&image->optimizer);
    if (!options->only_model)
        QVL_TRY(qvl_optimizer_format(&image->optimizer, state, lora, err));
    QVL_TRY(qvl_run_log_format_state(log, &image->trainer_state, state->step, state->epoch, err));
out:
    return rc;
}

void qvl_checkpoint_image_fini(qvl_checkpoint_image *image)
{
    qvl_text_fini(&image->adapter_config);
    qvl_text_fini(&image->adapter);
    qvl_text_fini(&image->optimizer);
    qvl_text_fini(&image->trainer_state);
}

/* ---- on disk -----------------------------------------------------------------------------------
 */

static qvl_status write_file(const char *directory, const qvl_manifest_item *item, qvl_err *err)
{
    char path[QVL_PATH_BYTES];
    const qvl_status rc = qvl_path_join(path, directory, item->name, err);
    return rc == QVL_OK ? qvl_file_write(path, item->bytes, item->n_bytes, err) : rc;
}

static qvl_status fill_directory(const char *directory, const qvl_checkpoint_image *image,
                                 qvl_err *err)
{
    qvl_manifest_item items[MOST_FILES];
    const size_t count = list_files(items, image);
    qvl_text manifest = {0};
    qvl_status rc = QVL_OK;
    for (size_t i = 0; i < count; i++)
        QVL_TRY(write_file(directory, &items[i], err));
    QVL_TRY(qvl_manifest_format(&manifest, items, count, image->step, err));
    const qvl_manifest_item last = {QVL_MANIFEST_FILE, manifest.data, manifest.len};
    QVL_TRY(write_file(directory, &last, err));
    QVL_TRY(qvl_file_flush(directory, err));
out:
    qvl_text_fini(&manifest);
    return rc;
}

/* Puts a whole directory in place of one that may be there, which is out of the way for no longer
 * than two renames take; a process that is killed in between leaves it where
 * qvl_checkpoint_clean finds it. */
static qvl_status put_in_place(const char *directory, const char *final, const char *old,
                               qvl_err *err)
{
    qvl_status rc = QVL_OK;
    QVL_TRY(qvl_checkpoint_remove_leftover(old, err));
    if (rename(final, old) != 0 && errno != ENOENT)
        return qvl_fail_errno(err, errno, 1, "rename %s", final);
    if (rename(directory, final) != 0) {
        rc = qvl_fail_errno(err, errno, 1, "rename to %s", final);
        rename(old, final);
        goto out;
    }
    QVL_TRY(qvl_file_flush_parent(final, err));
out:
    return rc;
}

qvl_status qvl_checkpoint_image_write(const qvl_checkpoint_image *image, const char *output_dir,
                                      qvl_err *err)
{
    char temporary[QVL_PATH_BYTES] = "", final[QVL_PATH_BYTES], old[QVL_PATH_BYTES];
    qvl_err ignored = {QVL_OK, ""};
    qvl_status rc = QVL_OK;
    QVL_TRY(qvl_checkpoint_path(final, output_dir, image->step, "", err));
    QVL_TRY(qvl_checkpoint_path(old, output_dir, image->step, ".old.tmp", err));
    if (qvl_file_exists(final) && !qvl_checkpoint_is_ours(output_dir, image->step))
        return qvl_fail(err, QVL_EIO, "%s is there, and no checkpoint of qvl", final);
    QVL_TRY(qvl_checkpoint_path(temporary, output_dir, image->step, ".tmp", err));
    rc = qvl_checkpoint_remove_leftover(temporary, err);
    if (rc != QVL_OK)
        return rc;
    if (mkdir(temporary, 0777) != 0) {
        rc = qvl_fail_errno(err, errno, 1, "create directory %s", temporary);
        goto out;
    }
    QVL_TRY(fill_directory(temporary, image, err));
    QVL_TRY(put_in_place(temporary, final, old, err));
    temporary[0] = '\0';
    qvl_tree_remove(old, &ignored); /* what is left of it goes at the next start */
out:
    if (rc != QVL_OK && temporary[0])
        qvl_tree_remove(temporary, &ignored);
    return rc;
}

/* ---- what goes ---------------------------------------------------------------------------------
 */

/* Under another name first: a removal that is cut short leaves no damaged checkpoint. */
static qvl_status remove_one(const char *output_dir, int64_t step, qvl_err *err)
{
    char path[QVL_PATH_BYTES], gone[QVL_PATH_BYTES];
    qvl_status rc = QVL_OK;
    QVL_TRY(qvl_checkpoint_path(path, output_dir, step, "", err));
    QVL_TRY(qvl_checkpoint_path(gone, output_dir, step, ".gone.tmp", err));
    QVL_TRY(qvl_checkpoint_remove_leftover(gone, err));
    if (rename(path, gone) != 0)
        return qvl_fail_errno(err, errno, 1, "remove %s", path);
    QVL_TRY(qvl_tree_remove(gone, err));
out:
    return rc;
}

static qvl_status remove_oldest(const char *output_dir, size_t keep, int64_t newest, qvl_err *err)
{
    int64_t *steps = NULL;
    size_t count = 0, left = 0;
    qvl_status rc = QVL_OK;
    QVL_TRY(qvl_checkpoint_list(&steps, &count, output_dir, err));
    for (size_t i = 0; i < count; i++)
        if (qvl_checkpoint_is_ours(output_dir, steps[i]))
            steps[left++] = steps[i];
    count = left;
    for (size_t i = 0; i < count && left > keep; i++) {
        if (steps[i] == newest)
            continue;
        QVL_TRY(remove_one(output_dir, steps[i], err));
        left--;
    }
out:
    free(steps);
    return rc;
}

qvl_status qvl_checkpoint_prune(const char *output_dir, int64_t keep, int64_t newest, qvl_err *err)
{
    return keep > 0 ? remove_oldest(output_dir, (size_t)keep, newest, err) : QVL_OK;
}

qvl_status qvl_checkpoint_remove_all(const char *output_dir, qvl_err *err)
{
    return qvl_file_is_directory(output_dir) ? remove_oldest(output_dir, 0, -1, err) : QVL_OK;
}

static qvl_status clean_one(const char *output_dir, const char *name, qvl_err *err)
{
    char path[QVL_PATH_BYTES], final[QVL_PATH_BYTES];
    const int64_t made_way = qvl_checkpoint_step_of(name, ".old.tmp");
    qvl_status rc = QVL_OK;
    if (!qvl_checkpoint_is_name(name) || qvl_checkpoint_step_of(name, "") >= 0)
        return QVL_OK;
    QVL_TRY(qvl_path_join(path, output_dir, name, err));
    if (!qvl_checkpoint_is_leftover(path))
        return QVL_OK;
    if (made_way >= 0) {
        QVL_TRY(qvl_checkpoint_path(final, output_dir, made_way, "", err));
        if (!qvl_file_exists(final)) {
            if (rename(path, final) != 0)
                rc = qvl_fail_errno(err, errno, 1, "rename %s to %s", path, final);
            goto out;
        }
    }
    rc = qvl_tree_remove(path, err);
out:
    return rc;
}

qvl_status qvl_checkpoint_clean(const char *output_dir, qvl_err *err)
{
    char **names = NULL;
    size_t count = 0;
    qvl_status rc = qvl_directory_list(&names, &count, output_dir, err);
    for (size_t i = 0; i < count && rc == QVL_OK; i++)
        rc = clean_one(output_dir, names[i], err);
    qvl_names_free(names, count);
    return rc;
}
