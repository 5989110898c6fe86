/* The rotary tables and the rotation of q and k. */
#include "tests/kernels/kernel_test.h"
#include "tests/kernels/ref/ref_rope.h"

#include <math.h>

#include <setjmp.h>
#include <cmocka.h>

static const int64_t COUNTS[] = {0, 1, 2, 7, 33, 63, 64, 65, 71, 129, 257};

static qvl_status call_rope_table(qvl_device *dev, const void *args, qvl_err *err)
{
    return dev->ops->rope_table(dev, args, err);
}

static qvl_status call_rotate(qvl_device *dev, const void *args, qvl_err *err)
{
    return dev->ops->rotate(dev, args, err);
}

/* ---- tables ---- */

typedef struct table_shape {
    int64_t T, n_freq, n_axes;
    double theta;
    int32_t largest_position;
    bool restarts; /* the tower's: each axis counts its frequencies from 0 */
} table_shape;

/* Axes take turns in sections, as M-RoPE's (t, h, w) and the tower's (row, column) do. */
static void table_case(qvl_kt *kt, const table_shape *s)
{
    qvl_kt_begin(kt, "rope_table T=%lld n_freq=%lld axes=%lld theta=%g up to %d", (long long)s->T,
                 (long long)s->n_freq, (long long)s->n_axes, s->theta, s->largest_position);
    int32_t *positions = qvl_kt_ints(kt, s->n_axes * s->T), *axis = qvl_kt_ints(kt, s->n_freq);
    double *inv_freq = qvl_kt_doubles(kt, s->n_freq);
    float single[64];
    assert_true(s->n_freq <= 64);
    for (int64_t i = 0; i < s->n_axes * s->T; i++)
        positions[i] = (int32_t)qvl_kt_below(kt, s->largest_position + 1);
    const int64_t section = (s->n_freq + s->n_axes - 1) / s->n_axes;
    for (int64_t i = 0; i < s->n_freq; i++) {
        const int64_t k = s->restarts ? i % section : i;
        axis[i] = (int32_t)(i / section);
        single[i] = (float)(1 / pow(s->theta, (double)k / (double)s->n_freq));
        inv_freq[i] = (double)single[i];
    }
    const int64_t n = s->T * s->n_freq;
    double *cosine = qvl_kt_doubles(kt, n), *sine = qvl_kt_doubles(kt, n);
    qvl_ref_rope_table(cosine, sine, positions, single, axis, s->T, s->n_freq);
    const qvl_rope_table_args args = {
        .cosine = qvl_kt_out(kt, "cosine", n, QVL_KT_F32),
        .sine = qvl_kt_out(kt, "sine", n, QVL_KT_F32),
        .positions = qvl_kt_in_i32(kt, "positions", positions, s->n_axes * s->T),
        .inv_freq = qvl_kt_in(kt, "inv_freq", inv_freq, s->n_freq, QVL_KT_F32),
        .axis = qvl_kt_in_i32(kt, "axis", axis, s->n_freq),
        .T = s->T,
        .n_freq = s->n_freq};
    qvl_kt_run(kt, call_rope_table, &args);
    qvl_kt_check(kt, "cosine", cosine, s->n_freq, QVL_KT_FLOAT);
    qvl_kt_check(kt, "sine", sine, s->n_freq, QVL_KT_FLOAT);
    qvl_kt_end(kt);
}

static void tables_match_reference(void **state)
{
    for (size_t i = 0; i < sizeof COUNTS / sizeof *COUNTS; i++) {
        table_case(*state, &(table_shape){COUNTS[i], 64, 3, 1e6, 300, false});
        table_case(*state, &(table_shape){COUNTS[i], 40, 2, 1e4, 80, true});
        table_case(*state, &(table_shape){COUNTS[i], 7, 1, 1e4, 50, false});
    }
    table_case(*state, &(table_shape){33, 1, 1, 1e4, 9, false});
    qvl_kt_verdict(*state);
}

/* The angle is a float32 product; the cosine of an angle in the thousands needs its reduction done
 * properly. */
static void tables_at_large_positions(void **state)
{
    table_case(*state, &(table_shape){65, 64, 3, 1e6, 32768, false});
    table_case(*state, &(table_shape){65, 64, 3, 1e6, 128000, false});
    qvl_kt_verdict(*state);
}

/* ---- rotation ---- */

typedef struct rotate_shape {
    int64_t T, n_heads, other_heads, Dh; /* other_heads: v, which stay as they are */
} rotate_shape;

static void rotate_case(qvl_kt *kt, const rotate_shape *s, bool inverse, double size)
{
    const int64_t half = s->Dh / 2, stride = (s->n_heads + s->other_heads) * s->Dh;
    qvl_kt_begin(kt, "rotate T=%lld heads=%lld of %lld Dh=%lld size=%g%s", (long long)s->T,
                 (long long)s->n_heads, (long long)(s->n_heads + s->other_heads), (long long)s->Dh,
                 size, inverse ? " inverse" : "");
    double *x = qvl_kt_random(kt, s->T * stride, size, QVL_KT_ACT);
    double *cosine = qvl_kt_doubles(kt, s->T * half), *sine = qvl_kt_doubles(kt, s->T * half);
    for (int64_t i = 0; i < s->T * half; i++) {
        const double angle = (double)qvl_kt_below(kt, 6283) / 1000;
        cosine[i] = qvl_kt_round(kt, cos(angle), QVL_KT_F32);
        sine[i] = qvl_kt_round(kt, sin(angle), QVL_KT_F32);
    }
    const qvl_rotate_args args = {.x = qvl_kt_inout(kt, "x", x, s->T * stride, QVL_KT_ACT),
                                  .cosine =
                                      qvl_kt_in(kt, "cosine", cosine, s->T * half, QVL_KT_F32),
                                  .sine = qvl_kt_in(kt, "sine", sine, s->T * half, QVL_KT_F32),
                                  .T = s->T,
                                  .stride = stride,
                                  .n_heads = s->n_heads,
                                  .Dh = s->Dh,
                                  .inverse = inverse};
    qvl_ref_rotate(x, cosine, sine, s->T, stride, s->n_heads, s->Dh, inverse);
    qvl_kt_run(kt, call_rotate, &args);
    for (int64_t h = 0; h < s->n_heads; h++)
        qvl_kt_check_columns(kt, "x", x, stride, h * s->Dh, s->Dh, QVL_KT_ELEMENT);
    if (s->other_heads > 0)
        qvl_kt_check_columns(kt, "x", x, stride, s->n_heads * s->Dh, s->other_heads * s->Dh,
                             QVL_KT_EXACT);
    qvl_kt_end(kt);
}

static void rotation_matches_reference(void **state)
{
    static const int64_t HEAD_SIZES[] = {16, 32, 64, 80, 128};
    for (size_t i = 0; i < sizeof COUNTS / sizeof *COUNTS; i++)
        for (int inverse = 0; inverse < 2; inverse++) {
            const int64_t Dh = HEAD_SIZES[i % 5];
            rotate_case(*state, &(rotate_shape){COUNTS[i], 3, 1, Dh}, inverse, 1);
            rotate_case(*state, &(rotate_shape){COUNTS[i], 1, 0, Dh}, inverse, 1);
        }
    for (size_t i = 0; i < 5; i++)
        rotate_case(*state, &(rotate_shape){5, 8, 7, HEAD_SIZES[i]}, false, 1e4);
    rotate_case(*state, &(rotate_shape){3, 32, 4, 128}, false, 1); /* the 7B model's q and k */
    rotate_case(*state, &(rotate_shape){3, 32, 16, 80}, false, 1); /* the tower's */
    rotate_case(*state, &(rotate_shape){7, 0, 2, 32}, false, 1);
    qvl_kt_verdict(*state);
}

int main(void)
{
    qvl_kt kt = {0};
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_prestate(tables_match_reference, &kt),
        cmocka_unit_test_prestate(tables_at_large_positions, &kt),
        cmocka_unit_test_prestate(rotation_matches_reference, &kt),
    };
    const int code = qvl_kt_open(&kt);
    if (code != 0)
        return code;
    return qvl_kt_close(&kt, cmocka_run_group_tests_name("kernel.rope", tests, NULL, NULL));
}
