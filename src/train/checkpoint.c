#include "src/train/checkpoint.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "io/manifest.h"
#include "src/base/memory.h"
#include "src/model/lora_files.h"
#include "src/train/optimizer_file.h"

int64_t qvl_checkpoint_step_of(const char *name, const char *suffix)
{
    static const char PREFIX[] = "checkpoint-";
    const size_t n = strlen(name), n_suffix = strlen(suffix), n_prefix = sizeof PREFIX - 1;
    char digits[32], again[32];
    int64_t step = -1;
    if (strncmp(name, PREFIX, n_prefix) != 0 || n <= n_prefix + n_suffix ||
        strcmp(name + n - n_suffix, suffix) != 0 || n - n_prefix - n_suffix >= sizeof digits)
        return -1;
    memcpy(digits, name + n_prefix, n - n_prefix - n_suffix);
    digits[n - n_prefix - n_suffix] = '\0';
    if (!qvl_parse_i64(digits, &step) || step < 0)
        return -1;
    snprintf(again, sizeof again, "%" PRId64, step);
    return strcmp(again, digits) == 0 ? step : -1;
}

qvl_status qvl_checkpoint_path(char out[QVL_PATH_BYTES], const char *output_dir, int64_t step,
                               const char *suffix, qvl_err *err)
{
    char name[64];
    snprintf(name, sizeof name, "checkpoint-%" PRId64 "%s", step, suffix);
    return qvl_path_join(out, output_dir, name, err);
}

qvl_status qvl_checkpoint_list(int64_t **out, size_t *out_count, const char *output_dir,
                               qvl_err *err)
{
    char **names = NULL;
    size_t n_names = 0, count = 0;
    int64_t *steps = NULL;
    qvl_status rc = QVL_OK;
    QVL_TRY(qvl_directory_list(&names, &n_names, output_dir, err));
    QVL_TRY(qvl_alloc(&steps, n_names, sizeof *steps, "checkpoints", err));
    for (size_t i = 0; i < n_names; i++) {
        const int64_t step = qvl_checkpoint_step_of(names[i], "");
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

qvl_status qvl_checkpoint_save(const qvl_checkpoint_options *options, const qvl_train_state *state,
                               const qvl_lora *lora, const qvl_run_log *log, qvl_err *err)
{
    qvl_checkpoint_image image = {0};
    qvl_status rc = QVL_OK;
    QVL_TRY(qvl_checkpoint_image_make(&image, options, state, lora, log, err));
    QVL_TRY(qvl_checkpoint_image_write(&image, options->output_dir, err));
    QVL_TRY(qvl_checkpoint_prune(options->output_dir, options->keep, state->step, err));
out:
    qvl_checkpoint_image_fini(&image);
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
    QVL_TRY(qvl_checkpoint_list(&steps, &count, output_dir, err));
    while (count > 0) {
        qvl_err why = {QVL_OK, ""};
        if (!qvl_checkpoint_is_ours(output_dir, steps[--count])) /* told of when a run begins */
            continue;
        QVL_TRY(qvl_checkpoint_path(out, output_dir, steps[count], "", err));
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
                               qvl_run_log *run, qvl_text *other_order, qvl_err *err)
{
    int64_t step = 0;
    qvl_status rc = QVL_OK;
    if (!qvl_file_is_directory(directory))
        return qvl_fail(err, QVL_EMISSING, "%s: no such checkpoint directory", directory);
    QVL_TRY(qvl_manifest_check(directory, &step, err));
    QVL_TRY(qvl_optimizer_read(directory, state, lora, other_order, err));
    if (state->step != step)
        return qvl_fail(err, QVL_EDATA,
                        "%s: %s is of step %" PRId64 ", the manifest of step %" PRId64, directory,
                        QVL_OPTIMIZER_FILE, state->step, step);
    QVL_TRY(qvl_lora_load(lora, state->param, directory, err));
    if (run)
        QVL_TRY(qvl_run_log_load_state(run, directory, err));
out:
    return rc;
}
