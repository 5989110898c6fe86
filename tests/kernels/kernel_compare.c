/* The tolerances, and comparing with them.
 *
 * An element is right when   |got - want| <= rel * |want| + row * max|want of its row|
 *                                          + tensor * max|want of the tensor|
 * written so that a NaN is wrong. A row is what shares one reduction: where terms cancel, the error
 * is that of the terms, which the largest value of the row stands for. */
#include "tests/kernels/kernel_test.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include <setjmp.h>
#include <cmocka.h>

typedef struct tolerance {
    double rel, row, tensor;
} tolerance;

/* float32: one rounding is 6e-8; an element takes fewer than ten, exp and erf two or three each. A
 * sum of K products of random sign errs by about 6e-8 sqrt(K) of its terms' size when added in
 * sequence, 4e-6 for K = 3584; backends add in blocks.
 * bf16: one rounding is 2^-9 = 2e-3. Elements may be rounded three times (norm: sum, normalised,
 * weighted). Inside products the operands of the adapters and of the softmax may be rounded too. */
static const tolerance TOLERANCES[QVL_KT_N_TOLERANCES][2] = {
    /*                     float32                 bf16               */
    [QVL_KT_EXACT] = {{0, 0, 0}, {0, 0, 0}},
    [QVL_KT_ELEMENT] = {{2e-6, 3e-7, 1e-9}, {8e-3, 6e-3, 1e-6}},
    [QVL_KT_REDUCED] = {{2e-6, 5e-7, 1e-9}, {8e-3, 4e-3, 1e-6}},
    [QVL_KT_PRODUCT] = {{1e-6, 3e-6, 1e-6}, {8e-3, 6e-3, 3e-3}},
    [QVL_KT_SOFTMAX] = {{2e-6, 8e-6, 2e-6}, {8e-3, 6e-3, 3e-3}},
    [QVL_KT_FLOAT] = {{2e-6, 2e-7, 0}, {2e-6, 2e-7, 0}},
};

typedef struct view {
    const qvl_kt_buffer *buffer;
    const unsigned char *data;
    const double *want;
    int64_t rows, stride, first, width;
} view;

typedef struct findings {
    int64_t n_bad, first_bad, worst; /* indices into the buffer */
    double worst_ratio;              /* error / allowed */
} findings;

static double largest(const double *values, int64_t rows, int64_t stride, int64_t width)
{
    double max = 0;
    for (int64_t r = 0; r < rows; r++)
        for (int64_t c = 0; c < width; c++)
            max = fmax(max, fabs(values[r * stride + c]));
    return max;
}

static view view_of(qvl_kt *kt, const char *name, const double *want, int64_t stride, int64_t first,
                    int64_t width)
{
    qvl_kt_buffer *buffer = qvl_kt_find(kt, name);
    buffer->is_checked = true;
    assert_true(buffer->is_output && stride > 0 && width > 0 && first + width <= stride);
    if (buffer->n % stride != 0)
        fail_msg("%s: %s has %lld elements, not rows of %lld", kt->label, name,
                 (long long)buffer->n, (long long)stride);
    return (view){.buffer = buffer,
                  .data = buffer->result + QVL_KT_GUARD_BYTES,
                  .want = want,
                  .rows = buffer->n / stride,
                  .stride = stride,
                  .first = first,
                  .width = width};
}

/* 0 where there is no error, more than 1 where it is more than allowed or not a number. */
static double ratio_of(double got, double want, double allowed)
{
    const double error = fabs(got - want);
    if (error == 0)
        return 0;
    if (!(error <= allowed))
        return isfinite(error) && allowed > 0 ? error / allowed : INFINITY;
    return error / allowed;
}

static void note(findings *found, int64_t i, double ratio)
{
    if (!(ratio <= 1) && found->n_bad++ == 0)
        found->first_bad = i;
    if (ratio > found->worst_ratio) {
        found->worst_ratio = ratio;
        found->worst = i;
    }
}

static void report(qvl_kt *kt, const view *v, const findings *found, const char *rule)
{
    kt->n_checks++;
    if (found->worst_ratio > kt->worst) {
        kt->worst = found->worst_ratio;
        snprintf(kt->worst_at, sizeof kt->worst_at, "%s of %s", v->buffer->name, kt->label);
    }
    if (found->n_bad == 0)
        return;
    const int64_t at[2] = {found->first_bad, found->worst};
    char text[2][160];
    for (int i = 0; i < 2; i++)
        snprintf(text[i], sizeof text[i], "[%lld] (row %lld, column %lld): got %.9g, want %.9g",
                 (long long)at[i], (long long)(at[i] / v->stride), (long long)(at[i] % v->stride),
                 qvl_kt_element(kt, v->data, at[i], v->buffer->type), v->want[at[i]]);
    qvl_kt_fail(kt,
                "%s: %lld of %lld wrong (%s); first %s; worst %s, error %.3g of what is allowed",
                v->buffer->name, (long long)found->n_bad, (long long)(v->rows * v->width), rule,
                text[0], text[1], found->worst_ratio);
}

static void check_rows(qvl_kt *kt, const char *name, const double *want, int64_t stride,
                       int64_t first, int64_t width, qvl_kt_tolerance kind, double slack)
{
    static const char *const NAMES[QVL_KT_N_TOLERANCES] = {"exact",   "element", "reduced",
                                                           "product", "softmax", "float"};
    if (kt->is_stopped)
        return;
    const tolerance tol = TOLERANCES[kind][kt->dev->dtype == QVL_BF16];
    const view v = view_of(kt, name, want, stride, first, width);
    findings found = {0};
    const double of_tensor = largest(want + first, v.rows, stride, width);
    for (int64_t r = 0; r < v.rows; r++) {
        const double of_row = largest(want + r * stride + first, 1, stride, width);
        for (int64_t i = r * stride + first; i < r * stride + first + width; i++) {
            const double allowed =
                tol.rel * fabs(want[i]) + tol.row * of_row + tol.tensor * of_tensor + slack;
            note(&found, i,
                 ratio_of(qvl_kt_element(kt, v.data, i, v.buffer->type), want[i], allowed));
        }
    }
    report(kt, &v, &found, NAMES[kind]);
}

void qvl_kt_check_columns(qvl_kt *kt, const char *name, const double *want, int64_t stride,
                          int64_t first, int64_t width, qvl_kt_tolerance kind)
{
    check_rows(kt, name, want, stride, first, width, kind, 0);
}

void qvl_kt_check(qvl_kt *kt, const char *name, const double *want, int64_t width,
                  qvl_kt_tolerance kind)
{
    qvl_kt_check_columns(kt, name, want, width, 0, width, kind);
}

static void check_within(qvl_kt *kt, const view *v, double allowed, const char *rule)
{
    findings found = {0};
    for (int64_t r = 0; r < v->rows; r++)
        for (int64_t i = r * v->stride + v->first; i < r * v->stride + v->first + v->width; i++)
            note(&found, i,
                 ratio_of(qvl_kt_element(kt, v->data, i, v->buffer->type), v->want[i], allowed));
    report(kt, v, &found, rule);
}

/* The slack is for what naive gets right by luck and float32 sums do not, as the gradient of the
 * only key of a sequence: 0, as a difference of two equal sums. */
void qvl_kt_check_twice(qvl_kt *kt, const char *name, const double *want, const double *naive,
                        int64_t stride, int64_t first, int64_t width, double terms)
{
    if (kt->is_stopped)
        return;
    if (kt->dev->dtype != QVL_BF16) {
        check_rows(kt, name, want, stride, first, width, QVL_KT_SOFTMAX, 2e-6 * terms);
        return;
    }
    const view v = view_of(kt, name, want, stride, first, width);
    double naive_error = 0;
    for (int64_t r = 0; r < v.rows; r++)
        for (int64_t i = r * stride + first; i < r * stride + first + width; i++)
            naive_error = fmax(naive_error, fabs(naive[i] - want[i]));
    const double slack = 1e-5 * (terms + largest(want + first, v.rows, stride, width));
    check_within(kt, &v, 2 * naive_error + slack, "twice the naive bf16 error");
}

double *qvl_kt_values(qvl_kt *kt, const char *name)
{
    qvl_kt_buffer *buffer = qvl_kt_find(kt, name);
    buffer->is_checked = true;
    double *values = qvl_kt_doubles(kt, buffer->n);
    for (int64_t i = 0; !kt->is_stopped && i < buffer->n; i++)
        values[i] = qvl_kt_element(kt, buffer->result + QVL_KT_GUARD_BYTES, i, buffer->type);
    return values;
}
