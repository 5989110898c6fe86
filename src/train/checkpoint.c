#include "src/train/checkpoint.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "io/hdf5_tools.h"
#include "io/manifest.h"
#include "src/base/memory.h"
#include "src/model/lora_files.h"

/* ---- optimizer.h5 ------------------------------------------------------------------------------
 */

static const char OPTIMIZER[] = "optimizer.h5";

static qvl_status write_scalars(hid_t file, const qvl_train_state *state, const qvl_lora *lora,
                                const char *path, qvl_err *err)
{
    const double sums[] = {state->epoch, state->loss_sum, state->total_loss};
    qvl_status rc = QVL_OK;
    QVL_TRY(qvl_h5_write_text(file, "format", "qvl-optimizer", path, err));
    QVL_TRY(qvl_h5_write_integer(file, "version", 1, path, err));
    QVL_TRY(qvl_h5_write_integer(file, "step", state->step, path, err));
    QVL_TRY(qvl_h5_write_integer(file, "parameters", qvl_lora_parameters(lora), path, err));
    QVL_TRY(qvl_h5_write_integer(file, "loss_steps", state->loss_steps, path, err));
    QVL_TRY(qvl_h5_write_integer(file, "total_tokens", state->total_tokens, path, err));
    QVL_TRY(qvl_h5_write_text(file, "identity", state->identity, path, err));
    QVL_TRY(qvl_h5_write_text(file, "order", state->order, path, err));
    QVL_TRY(qvl_h5_write_array(file, "sums", H5T_NATIVE_DOUBLE, sums, 3, path, err));
out:
    return rc;
}

static qvl_status write_optimizer(const char *directory, const qvl_train_state *state,
                                  const qvl_lora *lora, qvl_err *err)
{
    char path[QVL_PATH_BYTES];
    const int64_t n = qvl_lora_parameters(lora);
    hid_t file = H5I_INVALID_HID;
    qvl_status rc = QVL_OK;
    qvl_h5_quiet();
    QVL_TRY(qvl_path_join(path, directory, OPTIMIZER, err));
    file = H5Fcreate(path, H5F_ACC_TRUNC, H5P_DEFAULT, H5P_DEFAULT);
    if (file < 0) {
        rc = qvl_h5_fail(err, QVL_EIO, "create %s", path);
        goto out;
    }
    QVL_TRY(write_scalars(file, state, lora, path, err));
    QVL_TRY(qvl_h5_write_array(file, "exp_avg", H5T_NATIVE_FLOAT, state->exp_avg, n, path, err));
    QVL_TRY(
        qvl_h5_write_array(file, "exp_avg_sq", H5T_NATIVE_FLOAT, state->exp_avg_sq, n, path, err));
    if (H5Fflush(file, H5F_SCOPE_GLOBAL) < 0)
        rc = qvl_h5_fail(err, QVL_EIO, "write %s", path);
out:
    if (file >= 0 && H5Fclose(file) < 0 && rc == QVL_OK)
        rc = qvl_h5_fail(err, QVL_EIO, "close %s", path);
    return rc;
}

static qvl_status read_scalars(hid_t file, qvl_train_state *state, const qvl_lora *lora,
                               bool *out_same_order, const char *path, qvl_err *err)
{
    char *identity = NULL, *order = NULL, *format = NULL;
    double sums[3] = {0};
    bool is_whole = true;
    int64_t version = 0, parameters = 0;
    bool found[5] = {false};
    qvl_status rc = QVL_OK;
    QVL_TRY(qvl_h5_read_text(&format, file, "format", path, err));
    QVL_TRY(qvl_h5_read_integer(&version, &found[0], file, "version", path, err));
    QVL_TRY(qvl_h5_read_integer(&state->step, &found[1], file, "step", path, err));
    QVL_TRY(qvl_h5_read_integer(&parameters, &found[2], file, "parameters", path, err));
    QVL_TRY(qvl_h5_read_integer(&state->loss_steps, &found[3], file, "loss_steps", path, err));
    QVL_TRY(qvl_h5_read_integer(&state->total_tokens, &found[4], file, "total_tokens", path, err));
    QVL_TRY(qvl_h5_read_text(&identity, file, "identity", path, err));
    QVL_TRY(qvl_h5_read_text(&order, file, "order", path, err));
    for (size_t i = 0; i < sizeof found / sizeof *found; i++)
        is_whole &= found[i];
    if (!is_whole || !format || strcmp(format, "qvl-optimizer") != 0 || version != 1 ||
        state->step < 0 || state->loss_steps < 0) {
        rc = qvl_fail(err, QVL_EDATA, "%s: not an optimizer state of version 1", path);
        goto out;
    }
    if (!identity || strcmp(identity, state->identity) != 0 ||
        parameters != qvl_lora_parameters(lora)) {
        rc = qvl_fail(err, QVL_EDATA,
                      "%s: belongs to another model, data set or set of adapters; give another "
                      "output_dir, or overwrite_output_dir: true to start anew",
                      path);
        goto out;
    }
    QVL_TRY(qvl_h5_read_array(file, "sums", H5T_NATIVE_DOUBLE, sums, 3, path, err));
    state->epoch = sums[0];
    state->loss_sum = sums[1];
    state->total_loss = sums[2];
    *out_same_order = order && strcmp(order, state->order) == 0;
out:
    free(format);
    free(identity);
    free(order);
    return rc;
}

static qvl_status read_optimizer(const char *directory, qvl_train_state *state,
                                 const qvl_lora *lora, bool *out_same_order, qvl_err *err)
{
    char path[QVL_PATH_BYTES];
    const int64_t n = qvl_lora_parameters(lora);
    hid_t file = H5I_INVALID_HID;
    qvl_status rc = QVL_OK;
    qvl_h5_quiet();
    QVL_TRY(qvl_path_join(path, directory, OPTIMIZER, err));
    if (!qvl_file_exists(path))
        return qvl_fail(
            err, QVL_EDATA,
            "%s: has no %s (it was saved with save_only_model), so training cannot go "
            "on from it; give it as adapter_name_or_path to start anew from its adapter",
            directory, OPTIMIZER);
    file = H5Fopen(path, H5F_ACC_RDONLY, H5P_DEFAULT);
    if (file < 0)
        return qvl_h5_fail(err, QVL_EDATA, "%s", path);
    QVL_TRY(read_scalars(file, state, lora, out_same_order, path, err));
    QVL_TRY(qvl_h5_read_array(file, "exp_avg", H5T_NATIVE_FLOAT, state->exp_avg, n, path, err));
    QVL_TRY(
        qvl_h5_read_array(file, "exp_avg_sq", H5T_NATIVE_FLOAT, state->exp_avg_sq, n, path, err));
out:
    if (file >= 0)
        H5Fclose(file);
    return rc;
}

/* ---- directories -------------------------------------------------------------------------------
 */

/* N of "checkpoint-N" (and of no other way to write it), or -1. */
static int64_t step_of(const char *name)
{
    static const char PREFIX[] = "checkpoint-";
    char digits[32];
    int64_t step = -1;
    if (strncmp(name, PREFIX, sizeof PREFIX - 1) != 0 ||
        !qvl_parse_i64(name + sizeof PREFIX - 1, &step) || step < 0)
        return -1;
    snprintf(digits, sizeof digits, "%" PRId64, step);
    return strcmp(digits, name + sizeof PREFIX - 1) == 0 ? step : -1;
}

/* Steps of the checkpoints of output_dir, ascending. *out is the caller's. */
static qvl_status list_steps(int64_t **out, size_t *out_count, const char *output_dir, qvl_err *err)
{
    char **names = NULL;
    size_t n_names = 0, count = 0;
    int64_t *steps = NULL;
    qvl_status rc = QVL_OK;
    QVL_TRY(qvl_directory_list(&names, &n_names, output_dir, err));
    QVL_TRY(qvl_alloc(&steps, n_names, sizeof *steps, "checkpoints", err));
    for (size_t i = 0; i < n_names; i++) {
        const int64_t step = step_of(names[i]);
        size_t k = count;
        if (step < 0)
            continue;
        for (; k > 0 && steps[k - 1] > step; k--)
            steps[k] = steps[k - 1];
        steps[k] = step;
        count++;
    }
    *out = steps;
    *out_count = count;
    steps = NULL;
out:
    free(steps);
    qvl_names_free(names, n_names);
    return rc;
}

static qvl_status checkpoint_path(char out[QVL_PATH_BYTES], const char *output_dir, int64_t step,
                                  const char *suffix, qvl_err *err)
{
    char name[64];
    snprintf(name, sizeof name, "checkpoint-%" PRId64 "%s", step, suffix);
    return qvl_path_join(out, output_dir, name, err);
}

/* Removes the oldest until keep are left; newest, which was just written, is never one of them:
 * those with larger numbers are of an earlier run. */
static qvl_status prune(const char *output_dir, int64_t keep, int64_t newest, qvl_err *err)
{
    char path[QVL_PATH_BYTES];
    int64_t *steps = NULL;
    size_t count = 0;
    qvl_status rc = QVL_OK;
    QVL_TRY(list_steps(&steps, &count, output_dir, err));
    for (size_t i = 0, left = count; i < count && left > (size_t)keep; i++) {
        if (steps[i] == newest)
            continue;
        QVL_TRY(checkpoint_path(path, output_dir, steps[i], "", err));
        QVL_TRY(qvl_tree_remove(path, err));
        left--;
    }
out:
    free(steps);
    return rc;
}

static qvl_status fill_directory(const char *directory, const qvl_checkpoint_options *options,
                                 const qvl_train_state *state, const qvl_lora *lora,
                                 const qvl_run_log *log, qvl_err *err)
{
    qvl_status rc = QVL_OK;
    QVL_TRY(
        qvl_lora_save(lora, state->param, directory, options->layout, options->base_model, err));
    if (!options->only_model)
        QVL_TRY(write_optimizer(directory, state, lora, err));
    QVL_TRY(qvl_run_log_save_state(log, directory, state->step, state->epoch, err));
    QVL_TRY(qvl_manifest_write(directory, state->step, err));
    QVL_TRY(qvl_file_flush(directory, err));
out:
    return rc;
}

/* Puts a whole directory in place of one that may be there, which is out of the way for no longer
 * than two renames take. */
static qvl_status put_in_place(const char *directory, const char *final, const char *old,
                               qvl_err *err)
{
    qvl_status rc = QVL_OK;
    QVL_TRY(qvl_tree_remove(old, err));
    if (rename(final, old) != 0 && errno != ENOENT)
        return qvl_fail_errno(err, errno, 1, "rename %s", final);
    if (rename(directory, final) != 0) {
        rc = qvl_fail_errno(err, errno, 1, "rename to %s", final);
        rename(old, final);
        goto out;
    }
    QVL_TRY(qvl_file_flush_parent(final, err));
    QVL_TRY(qvl_tree_remove(old, err));
out:
    return rc;
}

qvl_status qvl_checkpoint_save(const qvl_checkpoint_options *options, const qvl_train_state *state,
                               const qvl_lora *lora, const qvl_run_log *log, qvl_err *err)
{
    char temporary[QVL_PATH_BYTES] = "", final[QVL_PATH_BYTES], old[QVL_PATH_BYTES];
    qvl_err ignored = {QVL_OK, ""};
    qvl_status rc = QVL_OK;
    QVL_TRY(checkpoint_path(final, options->output_dir, state->step, "", err));
    QVL_TRY(checkpoint_path(old, options->output_dir, state->step, ".old.tmp", err));
    QVL_TRY(checkpoint_path(temporary, options->output_dir, state->step, ".tmp", err));
    QVL_TRY(qvl_tree_remove(temporary, err));
    if (mkdir(temporary, 0777) != 0) {
        rc = qvl_fail_errno(err, errno, 1, "create directory %s", temporary);
        goto out;
    }
    QVL_TRY(fill_directory(temporary, options, state, lora, log, err));
    QVL_TRY(put_in_place(temporary, final, old, err));
    temporary[0] = '\0';
    if (options->keep > 0)
        QVL_TRY(prune(options->output_dir, options->keep, state->step, err));
out:
    if (rc != QVL_OK && temporary[0])
        qvl_tree_remove(temporary, &ignored);
    return rc;
}

qvl_status qvl_checkpoint_find(char out[QVL_PATH_BYTES], const char *output_dir, qvl_log *log,
                               qvl_err *err)
{
    int64_t *steps = NULL, manifest_step = 0;
    size_t count = 0;
    qvl_status rc = QVL_OK;
    out[0] = '\0';
    if (!qvl_file_is_directory(output_dir))
        return QVL_OK;
    QVL_TRY(list_steps(&steps, &count, output_dir, err));
    while (count > 0) {
        qvl_err why = {QVL_OK, ""};
        QVL_TRY(checkpoint_path(out, output_dir, steps[--count], "", err));
        if (qvl_manifest_check(out, &manifest_step, &why) == QVL_OK) {
            if (manifest_step == steps[count])
                goto out;
            qvl_fail(&why, QVL_EDATA, "its manifest is of step %" PRId64, manifest_step);
        }
        qvl_log_warn(log, "%s is not whole and is passed over: %s", out, why.text);
        out[0] = '\0';
    }
out:
    free(steps);
    return rc;
}

qvl_status qvl_checkpoint_load(const char *directory, qvl_train_state *state, const qvl_lora *lora,
                               qvl_run_log *run, bool *out_same_order, qvl_err *err)
{
    int64_t step = 0;
    qvl_status rc = QVL_OK;
    if (!qvl_file_is_directory(directory))
        return qvl_fail(err, QVL_EMISSING, "%s: no such checkpoint directory", directory);
    QVL_TRY(qvl_manifest_check(directory, &step, err));
    QVL_TRY(read_optimizer(directory, state, lora, out_same_order, err));
    if (state->step != step)
        return qvl_fail(err, QVL_EDATA,
                        "%s: %s is of step %" PRId64 ", the manifest of step %" PRId64, directory,
                        OPTIMIZER, state->step, step);
    QVL_TRY(qvl_lora_load(lora, state->param, directory, err));
    if (run)
        QVL_TRY(qvl_run_log_load_state(run, directory, err));
out:
    return rc;
}

qvl_status qvl_checkpoint_remove_all(const char *output_dir, qvl_err *err)
{
    return qvl_file_is_directory(output_dir) ? prune(output_dir, 0, -1, err) : QVL_OK;
}
