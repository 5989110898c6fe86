#include "src/train/optimizer_file.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "io/hdf5_tools.h"
#include "src/base/files.h"
#include "src/base/memory.h"

/* ---- writing -----------------------------------------------------------------------------------
 */

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

/* A file that is nowhere but in memory. */
static hid_t create_in_memory(size_t bytes)
{
    const hid_t access = H5Pcreate(H5P_FILE_ACCESS);
    hid_t file = H5I_INVALID_HID;
    if (access >= 0 && H5Pset_fapl_core(access, bytes + (64 << 10), 0) >= 0)
        file = H5Fcreate(QVL_OPTIMIZER_FILE, H5F_ACC_TRUNC, H5P_DEFAULT, access);
    if (access >= 0)
        H5Pclose(access);
    return file;
}

static qvl_status copy_image(qvl_text *out, hid_t file, qvl_err *err)
{
    const ssize_t size = H5Fget_file_image(file, NULL, 0);
    qvl_status rc = QVL_OK;
    if (size <= 0)
        return qvl_h5_fail(err, QVL_EINTERNAL, "%s in memory", QVL_OPTIMIZER_FILE);
    QVL_TRY(qvl_reserve(&out->data, &out->capacity, (size_t)size + 1, 1, QVL_OPTIMIZER_FILE, err));
    if (H5Fget_file_image(file, out->data, (size_t)size) != size)
        return qvl_h5_fail(err, QVL_EINTERNAL, "%s in memory", QVL_OPTIMIZER_FILE);
    out->len = (size_t)size;
out:
    return rc;
}

qvl_status qvl_optimizer_format(qvl_text *out, const qvl_train_state *state, const qvl_lora *lora,
                                qvl_err *err)
{
    const int64_t n = qvl_lora_parameters(lora);
    const char *path = QVL_OPTIMIZER_FILE;
    qvl_status rc = QVL_OK;
    qvl_text_clear(out);
    qvl_h5_quiet();
    const hid_t file = create_in_memory(2 * (size_t)n * sizeof(float));
    if (file < 0)
        return qvl_h5_fail(err, QVL_EINTERNAL, "%s in memory", path);
    QVL_TRY(write_scalars(file, state, lora, path, err));
    QVL_TRY(qvl_h5_write_array(file, "exp_avg", H5T_NATIVE_FLOAT, state->exp_avg, n, path, err));
    QVL_TRY(
        qvl_h5_write_array(file, "exp_avg_sq", H5T_NATIVE_FLOAT, state->exp_avg_sq, n, path, err));
    if (H5Fflush(file, H5F_SCOPE_GLOBAL) < 0)
        rc = qvl_h5_fail(err, QVL_EINTERNAL, "%s in memory", path);
    if (rc == QVL_OK)
        rc = copy_image(out, file, err);
out:
    H5Fclose(file);
    return rc;
}

/* ---- what a run is -----------------------------------------------------------------------------
 */

/* Length of the item "key=value" at text; the next one starts after "; ". */
static size_t item_length(const char *text)
{
    const char *end = strstr(text, "; ");
    return end ? (size_t)(end - text) : strlen(text);
}

static const char *find_value(const char *text, const char *key, size_t n_key, size_t *n_value)
{
    while (*text) {
        const size_t n = item_length(text);
        if (n > n_key && strncmp(text, key, n_key) == 0 && text[n_key] == '=') {
            *n_value = n - n_key - 1;
            return text + n_key + 1;
        }
        text += n + (text[n] ? 2 : 0);
    }
    return NULL;
}

qvl_status qvl_description_compare(qvl_text *out, const char *there, const char *here, qvl_err *err)
{
    enum { SHOWN = 40 }; /* of a value: digests are longer */
    qvl_status rc = qvl_text_add(out, "", 0, err);
    while (*here && rc == QVL_OK) {
        const size_t n = item_length(here), n_key = strcspn(here, "=");
        size_t n_old = 0;
        const char *old = n_key < n ? find_value(there, here, n_key, &n_old) : NULL;
        const size_t n_new = n_key < n ? n - n_key - 1 : 0;
        if (!old || n_old != n_new || memcmp(old, here + n_key + 1, n_new) != 0)
            rc = qvl_text_printf(out, err, "%s%.*s: %.*s there, %.*s here", out->len ? "; " : "",
                                 (int)n_key, here, (int)(n_old < SHOWN ? n_old : SHOWN),
                                 old ? old : "", (int)(n_new < SHOWN ? n_new : SHOWN),
                                 here + (n_key < n ? n_key + 1 : n));
        here += n + (here[n] ? 2 : 0);
    }
    return rc;
}

/* ---- reading -----------------------------------------------------------------------------------
 */

typedef struct texts {
    char *identity, *order, *format;
} texts;

static qvl_status compare_runs(const texts *found, const qvl_train_state *state,
                               qvl_text *other_order, const char *path, qvl_err *err)
{
    qvl_text differs = {0};
    qvl_status rc = QVL_OK;
    const char *identity = found->identity ? found->identity : "";
    if (strcmp(identity, state->identity) != 0) {
        QVL_TRY(qvl_description_compare(&differs, identity, state->identity, err));
        rc =
            qvl_fail(err, QVL_EDATA,
                     "%s: belongs to another model, data set or set of adapters (%s); give another "
                     "output_dir, or overwrite_output_dir: true to start anew",
                     path, differs.data);
        goto out;
    }
    qvl_text_clear(other_order);
    QVL_TRY(
        qvl_description_compare(other_order, found->order ? found->order : "", state->order, err));
out:
    qvl_text_fini(&differs);
    return rc;
}

static qvl_status read_scalars(hid_t file, qvl_train_state *state, const qvl_lora *lora,
                               qvl_text *other_order, const char *path, qvl_err *err)
{
    texts found = {0};
    double sums[3] = {0};
    bool is_whole = true, is_there[5] = {false};
    int64_t version = 0, parameters = 0;
    qvl_status rc = QVL_OK;
    QVL_TRY(qvl_h5_read_text(&found.format, file, "format", path, err));
    QVL_TRY(qvl_h5_read_integer(&version, &is_there[0], file, "version", path, err));
    QVL_TRY(qvl_h5_read_integer(&state->step, &is_there[1], file, "step", path, err));
    QVL_TRY(qvl_h5_read_integer(&parameters, &is_there[2], file, "parameters", path, err));
    QVL_TRY(qvl_h5_read_integer(&state->loss_steps, &is_there[3], file, "loss_steps", path, err));
    QVL_TRY(
        qvl_h5_read_integer(&state->total_tokens, &is_there[4], file, "total_tokens", path, err));
    QVL_TRY(qvl_h5_read_text(&found.identity, file, "identity", path, err));
    QVL_TRY(qvl_h5_read_text(&found.order, file, "order", path, err));
    for (size_t i = 0; i < sizeof is_there / sizeof *is_there; i++)
        is_whole &= is_there[i];
    if (!is_whole || !found.format || strcmp(found.format, "qvl-optimizer") != 0 || version != 1 ||
        state->step < 0 || state->loss_steps < 0) {
        rc = qvl_fail(err, QVL_EDATA, "%s: not an optimizer state of version 1", path);
        goto out;
    }
    QVL_TRY(compare_runs(&found, state, other_order, path, err));
    if (parameters != qvl_lora_parameters(lora)) {
        rc = qvl_fail(err, QVL_EDATA, "%s: has %" PRId64 " parameters, the adapters have %" PRId64,
                      path, parameters, qvl_lora_parameters(lora));
        goto out;
    }
    QVL_TRY(qvl_h5_read_array(file, "sums", H5T_NATIVE_DOUBLE, sums, 3, path, err));
    state->epoch = sums[0];
    state->loss_sum = sums[1];
    state->total_loss = sums[2];
out:
    free(found.format);
    free(found.identity);
    free(found.order);
    return rc;
}

qvl_status qvl_optimizer_read(const char *directory, qvl_train_state *state, const qvl_lora *lora,
                              qvl_text *out_other_order, qvl_err *err)
{
    char path[QVL_PATH_BYTES];
    const int64_t n = qvl_lora_parameters(lora);
    int64_t size = 0;
    hid_t file = H5I_INVALID_HID;
    qvl_status rc = QVL_OK;
    qvl_h5_quiet();
    QVL_TRY(qvl_path_join(path, directory, QVL_OPTIMIZER_FILE, err));
    if (!qvl_file_exists(path))
        return qvl_fail(
            err, QVL_EDATA,
            "%s: has no %s (it was saved with save_only_model), so training cannot go "
            "on from it; give it as adapter_name_or_path to start anew from its adapter",
            directory, QVL_OPTIMIZER_FILE);
    QVL_TRY(qvl_file_size(&size, path, err)); /* libhdf5 would wait for a pipe */
    file = H5Fopen(path, H5F_ACC_RDONLY, H5P_DEFAULT);
    if (file < 0)
        return qvl_h5_fail(err, QVL_EDATA, "%s", path);
    QVL_TRY(read_scalars(file, state, lora, out_other_order, path, err));
    QVL_TRY(qvl_h5_read_array(file, "exp_avg", H5T_NATIVE_FLOAT, state->exp_avg, n, path, err));
    QVL_TRY(
        qvl_h5_read_array(file, "exp_avg_sq", H5T_NATIVE_FLOAT, state->exp_avg_sq, n, path, err));
out:
    if (file >= 0)
        H5Fclose(file);
    return rc;
}
