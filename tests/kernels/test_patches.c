/* Images cut into normalised patches. */
#include "tests/kernels/kernel_test.h"
#include "tests/kernels/ref/ref_patches.h"

#include <setjmp.h>
#include <cmocka.h>

enum { WIDTH = 1176 };

typedef enum order { IN_ORDER, REVERSED, SHUFFLED, N_ORDERS } order;

static qvl_status call_patches(qvl_device *dev, const void *args, qvl_err *err)
{
    return dev->ops->patches(dev, args, err);
}

static void patches_case(qvl_kt *kt, int64_t rows, int64_t cols, order kind)
{
    qvl_kt_begin(kt, "patches %lld x %lld order %d", (long long)rows, (long long)cols, (int)kind);
    const int64_t n_units = rows * cols / 4, n_bytes = rows * cols * 14 * 14 * 3;
    uint8_t *rgb = (uint8_t *)qvl_kt_ints(kt, n_bytes / 4 + 1);
    for (int64_t i = 0; i < n_bytes; i++)
        rgb[i] = (uint8_t)qvl_kt_below(kt, 256);
    int32_t *unit_order = qvl_kt_permutation(kt, n_units);
    for (int64_t u = 0; u < n_units && kind != SHUFFLED; u++)
        unit_order[u] = (int32_t)(kind == IN_ORDER ? u : n_units - 1 - u);
    qvl_patches_args args = {.out = qvl_kt_out(kt, "out", rows * cols * WIDTH, QVL_KT_ACT),
                             .rgb = qvl_kt_in_u8(kt, "rgb", rgb, n_bytes),
                             .unit_order = qvl_kt_in_i32(kt, "unit_order", unit_order, n_units),
                             .rows = rows,
                             .cols = cols,
                             .mean = {0.48145466f, 0.4578275f, 0.40821073f},
                             .stddev = {0.26862954f, 0.26130258f, 0.27577711f}};
    double *out = qvl_kt_doubles(kt, rows * cols * WIDTH);
    qvl_ref_patches(out, rgb, unit_order, rows, cols, args.mean, args.stddev);
    qvl_kt_run(kt, call_patches, &args);
    qvl_kt_check(kt, "out", out, WIDTH, QVL_KT_ELEMENT);
    qvl_kt_end(kt);
}

static void matches_reference(void **state)
{
    static const int64_t GRIDS[][2] = {{2, 2}, {2, 6}, {6, 2}, {4, 4}, {4, 10}, {12, 10}, {18, 26}};
    for (size_t i = 0; i < sizeof GRIDS / sizeof *GRIDS; i++)
        for (int kind = 0; kind < N_ORDERS; kind++)
            patches_case(*state, GRIDS[i][0], GRIDS[i][1], (order)kind);
    qvl_kt_verdict(*state);
}

static void no_patches(void **state)
{
    patches_case(*state, 0, 2, IN_ORDER);
    patches_case(*state, 2, 0, IN_ORDER);
    qvl_kt_verdict(*state);
}

int main(void)
{
    qvl_kt kt = {0};
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_prestate(matches_reference, &kt),
        cmocka_unit_test_prestate(no_patches, &kt),
    };
    const int code = qvl_kt_open(&kt);
    if (code != 0)
        return code;
    return qvl_kt_close(&kt, cmocka_run_group_tests_name("kernel.patches", tests, NULL, NULL));
}
