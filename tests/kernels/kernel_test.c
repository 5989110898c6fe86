#include "tests/kernels/kernel_test.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <setjmp.h>
#include <cmocka.h>

#include "src/base/rng.h"
#ifdef QVL_WITH_CUDA
#include "kernels/cuda/device_cuda.h"
#endif

enum { MAX_PRINTED = 20 };

/* ---- the device -------------------------------------------------------------------------------
 */

static const char *setting(const char *name, const char *otherwise)
{
    const char *value = getenv(name);
    return value && *value ? value : otherwise;
}

static int cannot_run(const char *why)
{
    const bool is_required = strcmp(setting("QVL_REQUIRE_GPU", "0"), "1") == 0;
    fprintf(stderr, "%s: %s\n", is_required ? "failed" : "skipped", why);
    return is_required ? 1 : QVL_KT_SKIP;
}

static int open_cpu(qvl_kt *kt, qvl_dtype dtype)
{
    static const int THREADS[QVL_KT_MAX_DEVICES] = {2, 1, 3};
    qvl_err err = {0};
    if (dtype != QVL_F32)
        return cannot_run("the CPU backend has float32 only");
    for (int i = 0; i < QVL_KT_MAX_DEVICES; i++) {
        if (qvl_device_open_cpu(&kt->devices[i], THREADS[i], &err) != QVL_OK) {
            fprintf(stderr, "qvl_device_open_cpu: %s\n", err.text);
            return 1;
        }
        kt->n_devices++;
    }
    return 0;
}

static int open_cuda(qvl_kt *kt, qvl_dtype dtype)
{
#ifdef QVL_WITH_CUDA
    qvl_err err = {0};
    const qvl_status rc = qvl_device_open_cuda(&kt->devices[0], 0, dtype, &err);
    if (rc == QVL_EDEVICE)
        return cannot_run(err.text);
    if (rc != QVL_OK) {
        fprintf(stderr, "qvl_device_open_cuda: %s\n", err.text);
        return 1;
    }
    kt->n_devices = 1;
    return 0;
#else
    (void)kt;
    (void)dtype;
    return cannot_run("built without CUDA");
#endif
}

int qvl_kt_open(qvl_kt *kt)
{
    const char *device = setting("QVL_TEST_DEVICE", "cpu"),
               *type = setting("QVL_TEST_DTYPE", "f32");
    const qvl_dtype dtype = strcmp(type, "bf16") == 0 ? QVL_BF16 : QVL_F32;
    if ((dtype == QVL_F32 && strcmp(type, "f32") != 0) ||
        (strcmp(device, "cpu") != 0 && strcmp(device, "cuda") != 0)) {
        fprintf(stderr, "QVL_TEST_DEVICE=%s QVL_TEST_DTYPE=%s: expected cpu or cuda, f32 or bf16\n",
                device, type);
        return 1;
    }
    const int code = device[1] == 'p' ? open_cpu(kt, dtype) : open_cuda(kt, dtype);
    kt->dev = kt->devices[0];
    if (code == 0 && kt->dev->dtype != dtype) {
        fprintf(stderr, "the device computes in %s, asked for %s\n", qvl_dtype_name(kt->dev->dtype),
                type);
        return 1;
    }
    return code;
}

int qvl_kt_close(qvl_kt *kt, int exit_code)
{
    if (kt->n_failures > 0 || kt->is_open) {
        fprintf(stderr, "%d failures without a verdict\n", kt->n_failures);
        exit_code = 1;
    }
    if (kt->n_devices > 0)
        qvl_kt_clear(kt);
    for (int i = 0; i < kt->n_devices; i++)
        qvl_device_close(kt->devices[i]);
    return exit_code == 0 ? 0 : 1;
}

/* ---- a case -----------------------------------------------------------------------------------
 */

void qvl_kt_begin(qvl_kt *kt, const char *format, ...)
{
    va_list list;
    qvl_kt_clear(kt); /* of a test that CMocka left early */
    va_start(list, format);
    vsnprintf(kt->label, sizeof kt->label, format, list);
    va_end(list);
    kt->random = 1469598103934665603u;
    for (const char *c = kt->label; *c; c++)
        kt->random = (kt->random ^ (uint64_t)(unsigned char)*c) * 1099511628211u;
    kt->is_open = true;
}

void qvl_kt_end(qvl_kt *kt)
{
    qvl_kt_clear(kt);
}

void qvl_kt_fail(qvl_kt *kt, const char *format, ...)
{
    char text[512];
    va_list list;
    va_start(list, format);
    vsnprintf(text, sizeof text, format, list);
    va_end(list);
    if (++kt->n_failures <= MAX_PRINTED)
        fprintf(stderr, "  %s: %s\n", kt->label, text);
    else if (kt->n_failures == MAX_PRINTED + 1)
        fprintf(stderr, "  (further failures of this test are counted only)\n");
}

void qvl_kt_verdict(qvl_kt *kt)
{
    const int n_failures = kt->n_failures, n_checks = kt->n_checks;
    printf("# %d checks, worst error %.3g of what is allowed%s%s\n", n_checks, kt->worst,
           kt->worst_at[0] ? ": " : "", kt->worst_at);
    kt->n_failures = kt->n_checks = 0;
    kt->worst = 0;
    kt->worst_at[0] = '\0';
    if (n_failures > 0)
        fail_msg("%d failures in %d checks", n_failures, n_checks);
    if (n_checks == 0)
        fail_msg("nothing was checked");
}

/* ---- host arrays ------------------------------------------------------------------------------
 */

static void *array(qvl_kt *kt, int64_t n, size_t element_bytes)
{
    assert_true(kt->is_open && kt->n_arrays < QVL_KT_MAX_ARRAYS);
    void *memory = calloc((size_t)n + 1, element_bytes);
    assert_non_null(memory);
    kt->arrays[kt->n_arrays++] = memory;
    return memory;
}

double *qvl_kt_doubles(qvl_kt *kt, int64_t n)
{
    return array(kt, n, sizeof(double));
}

int32_t *qvl_kt_ints(qvl_kt *kt, int64_t n)
{
    return array(kt, n, sizeof(int32_t));
}

double *qvl_kt_copy(qvl_kt *kt, const double *values, int64_t n)
{
    double *copy = qvl_kt_doubles(kt, n);
    if (n > 0)
        memcpy(copy, values, (size_t)n * sizeof *copy);
    return copy;
}

double qvl_kt_round(const qvl_kt *kt, double value, qvl_kt_type type)
{
    if (type == QVL_KT_ACT && kt->dev->dtype == QVL_BF16)
        return (double)qvl_float_from_bf16(qvl_bf16_from_float((float)value));
    return (double)(float)value;
}

/* The sum of four numbers that are uniform in -1/2 .. 1/2 has deviation sqrt(4/12). */
double *qvl_kt_random(qvl_kt *kt, int64_t n, double deviation, qvl_kt_type type)
{
    double *values = qvl_kt_doubles(kt, n);
    for (int64_t i = 0; i < n; i++) {
        const uint64_t bits = qvl_splitmix64(&kt->random);
        double sum = -2 + 4 * 0.5 / 65536;
        for (int part = 0; part < 4; part++)
            sum += (double)(bits >> (16 * part) & 0xffff) / 65536;
        values[i] = qvl_kt_round(kt, sum * 1.7320508075688772 * deviation, type);
    }
    return values;
}

double *qvl_kt_whole(qvl_kt *kt, int64_t n, int64_t limit)
{
    double *values = qvl_kt_doubles(kt, n);
    for (int64_t i = 0; i < n; i++)
        values[i] = (double)(qvl_kt_below(kt, 2 * limit + 1) - limit);
    return values;
}

int64_t qvl_kt_below(qvl_kt *kt, int64_t limit)
{
    return (int64_t)((qvl_splitmix64(&kt->random) >> 1) % (uint64_t)limit);
}

int32_t *qvl_kt_permutation(qvl_kt *kt, int64_t n)
{
    int32_t *order = qvl_kt_ints(kt, n);
    for (int64_t i = 0; i < n; i++)
        order[i] = (int32_t)i;
    for (int64_t i = n - 1; i > 0; i--) {
        const int64_t j = qvl_kt_below(kt, i + 1);
        const int32_t kept = order[i];
        order[i] = order[j];
        order[j] = kept;
    }
    return order;
}

int64_t qvl_kt_width(const qvl_kt *kt, int64_t width)
{
    const int64_t align = kt->dev->width_align;
    return (width + align - 1) / align * align;
}
