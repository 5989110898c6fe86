/* train_check FIXTURE OUTPUT_DIR [LOSS_TOLERANCE ADAPTER_TOLERANCE]: a finished run beside the
 * values that Hugging Face computed.
 *
 * FIXTURE has expected.h5 (group /train) and adapter_final/. Losses, gradient norms and rates of
 * OUTPUT_DIR/trainer_state.json must be within LOSS_TOLERANCE relative (1e-5), every adapter tensor
 * within ADAPTER_TOLERANCE (1e-4).
 */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "io/adapter.h"
#include "io/hdf5_tools.h"
#include "io/json_file.h"
#include "src/base/files.h"

enum { STEPS_LIMIT = 4096 };

static int compare_series(const json_t *history, const char *key, hid_t file, const char *name,
                          int64_t n, double tolerance, const char *path, qvl_err *err)
{
    static double want[STEPS_LIMIT];
    double worst = 0.0;
    int64_t count = 0, place = 0;
    size_t i;
    json_t *entry;
    if (qvl_h5_read_array(file, name, H5T_NATIVE_DOUBLE, want, n, path, err) != QVL_OK)
        return 1;
    json_array_foreach(history, i, entry)
    {
        const json_t *value = json_object_get(entry, key);
        if (!json_is_number(value) || !json_object_get(entry, "grad_norm"))
            continue;
        if (count < n) {
            const double distance = fabs(json_number_value(value) - want[count]);
            const double relative = want[count] != 0.0 ? distance / fabs(want[count]) : distance;
            if (!(relative <= worst)) {
                worst = isnan(relative) ? INFINITY : relative;
                place = count;
            }
        }
        count++;
    }
    const int is_good = count == n && worst <= tolerance;
    printf("%s %-14s %" PRId64 " of %" PRId64 " steps, worst %.2e relative at step %" PRId64
           " (allowed %.0e)\n",
           is_good ? "ok    " : "FAILED", key, count, n, worst, place + 1, tolerance);
    return !is_good;
}

static int check_history(const char *fixture, const char *output, double tolerance, qvl_err *err)
{
    char path[QVL_PATH_BYTES], expected[QVL_PATH_BYTES];
    json_t *state = NULL;
    int failed = 0;
    if (qvl_path_join(path, output, "trainer_state.json", err) != QVL_OK ||
        qvl_path_join(expected, fixture, "expected.h5", err) != QVL_OK ||
        qvl_json_read(&state, path, 1 << 26, err) != QVL_OK)
        return 1;
    const hid_t file = H5Fopen(expected, H5F_ACC_RDONLY, H5P_DEFAULT);
    const hid_t set = file < 0 ? file : H5Dopen2(file, "train/loss", H5P_DEFAULT);
    if (set < 0) {
        qvl_h5_fail(err, QVL_EDATA, "%s", expected);
        json_decref(state);
        return 1;
    }
    const hid_t space = H5Dget_space(set);
    const int64_t n = H5Sget_simple_extent_npoints(space);
    const json_t *history = json_object_get(state, "log_history");
    if (n < 1 || n > STEPS_LIMIT)
        failed = qvl_fail(err, QVL_EDATA, "%s: %" PRId64 " steps", expected, n);
    failed +=
        failed || compare_series(history, "loss", file, "train/loss", n, tolerance, expected, err);
    failed += failed || compare_series(history, "grad_norm", file, "train/grad_norm", n, tolerance,
                                       expected, err);
    failed += failed || compare_series(history, "learning_rate", file, "train/lr", n, tolerance,
                                       expected, err);
    H5Sclose(space);
    H5Dclose(set);
    H5Fclose(file);
    json_decref(state);
    return failed;
}

/* Largest distance of two float32 tensors of the same shape, infinite when they are not. */
static double distance_of(const qvl_tensor *a, const qvl_tensor *b)
{
    double worst = 0.0;
    if (a->type != QVL_TENSOR_F32 || b->type != QVL_TENSOR_F32 || a->n_bytes != b->n_bytes)
        return INFINITY;
    for (int64_t i = 0; i < qvl_tensor_elements(a); i++) {
        float x, y;
        memcpy(&x, (const char *)a->data + 4 * i, sizeof x);
        memcpy(&y, (const char *)b->data + 4 * i, sizeof y);
        const double distance = fabs((double)x - (double)y);
        if (!(distance <= worst))
            worst = isnan(distance) ? INFINITY : distance;
    }
    return worst;
}

static int check_adapter(const char *fixture, const char *output, double tolerance, qvl_err *err)
{
    char path[QVL_PATH_BYTES];
    qvl_adapter_files *want = NULL, *got = NULL;
    qvl_adapter_config config;
    double worst = 0.0;
    int failed = 1;
    if (qvl_path_join(path, fixture, "adapter_final", err) != QVL_OK ||
        qvl_adapter_open(&want, &config, path, err) != QVL_OK ||
        qvl_adapter_open(&got, &config, output, err) != QVL_OK)
        goto out;
    for (size_t i = 0; i < qvl_adapter_count(want); i++) {
        const char *module = NULL, *other = NULL;
        bool is_b = false, other_is_b = false;
        const qvl_tensor *a = qvl_adapter_at(want, i, &module, &is_b);
        double nearest = INFINITY;
        for (size_t k = 0; k < qvl_adapter_count(got); k++) {
            const qvl_tensor *b = qvl_adapter_at(got, k, &other, &other_is_b);
            if (strcmp(module, other) == 0 && is_b == other_is_b)
                nearest = distance_of(a, b);
        }
        if (!(nearest <= tolerance))
            printf("       %s %c is %g away\n", module, is_b ? 'B' : 'A', nearest);
        worst = nearest > worst ? nearest : worst;
    }
    failed = qvl_adapter_count(want) == 0 || qvl_adapter_count(want) != qvl_adapter_count(got) ||
             !(worst <= tolerance);
    printf("%s adapter        %zu of %zu tensors, worst %.2e away (allowed %.0e)\n",
           failed ? "FAILED" : "ok    ", qvl_adapter_count(got), qvl_adapter_count(want), worst,
           tolerance);
out:
    qvl_adapter_close(want);
    qvl_adapter_close(got);
    return failed;
}

int main(int argc, char **argv)
{
    qvl_err err = {QVL_OK, ""};
    double loss_tolerance = 1e-5, adapter_tolerance = 1e-4;
    if ((argc != 3 && argc != 5) ||
        (argc == 5 && !(qvl_parse_double(argv[3], &loss_tolerance) &&
                        qvl_parse_double(argv[4], &adapter_tolerance)))) {
        fprintf(stderr,
                "usage: train_check FIXTURE OUTPUT_DIR [LOSS_TOLERANCE ADAPTER_TOLERANCE]\n");
        return QVL_EUSAGE;
    }
    qvl_h5_quiet();
    int failed = check_history(argv[1], argv[2], loss_tolerance, &err);
    if (err.status == QVL_OK)
        failed += check_adapter(argv[1], argv[2], adapter_tolerance, &err);
    if (err.status != QVL_OK) {
        fprintf(stderr, "train_check: %s\n", err.text);
        return (int)err.status;
    }
    return failed ? 1 : 0;
}
