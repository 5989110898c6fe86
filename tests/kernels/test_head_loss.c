/* Loss of the output head and its gradient. */
#include "tests/kernels/kernel_test.h"
#include "tests/kernels/ref/ref_head_loss.h"

#include <math.h>

#include <setjmp.h>
#include <cmocka.h>

/* EVERY_ROW: rows is NULL. */
typedef enum selection { FIRST_ROWS, LAST_ROWS, SCRAMBLED, N_SELECTIONS, EVERY_ROW } selection;

typedef struct loss_shape {
    int64_t n_rows, T, D, V;
    selection rows;
    bool wants_dx;
    double size;      /* of logits, about; 0: whole numbers up to several thousand */
    int64_t ws_extra; /* rows that the workspace is larger than needed */
} loss_shape;

typedef struct loss_case {
    qvl_head_loss_args args;
    qvl_ref_head_loss ref;
} loss_case;

static qvl_status call_head_loss(qvl_device *dev, const void *args, qvl_err *err)
{
    return dev->ops->head_loss(dev, args, err);
}

/* Rows of x that are not supervised hold NaN: nothing may depend on them. */
static const double *make_x(qvl_kt *kt, const loss_shape *s, int64_t D, const int32_t *rows)
{
    double *x =
        s->size > 0 ? qvl_kt_random(kt, s->T * D, 1, QVL_KT_ACT) : qvl_kt_whole(kt, s->T * D, 16);
    int32_t *is_used = qvl_kt_ints(kt, s->T);
    for (int64_t i = 0; i < s->n_rows; i++)
        is_used[rows[i]] = 1;
    for (int64_t i = 0; i < s->T * D; i++)
        if (!is_used[i / D])
            x[i] = NAN;
    return x;
}

static void fill(loss_case *c, qvl_kt *kt, const loss_shape *s)
{
    const int64_t D = qvl_kt_width(kt, s->D), V = qvl_kt_width(kt, s->V), n = s->n_rows;
    int32_t *rows = qvl_kt_permutation(kt, s->T), *targets = qvl_kt_ints(kt, n);
    double *weights = qvl_kt_random(kt, n, 0.3, QVL_KT_F32);
    for (int64_t i = 0; i < n; i++) {
        if (s->rows != SCRAMBLED)
            rows[i] = (int32_t)(s->rows == LAST_ROWS ? s->T - n + i : i);
        targets[i] = (int32_t)(i == 0 ? V - 1 : i == 1 ? 0 : qvl_kt_below(kt, V));
        if (i % 11 == 5)
            weights[i] = 0;
    }
    const double *head = s->size > 0
                             ? qvl_kt_random(kt, V * D, s->size / sqrt((double)D), QVL_KT_ACT)
                             : qvl_kt_whole(kt, V * D, 16);
    const double *x = make_x(kt, s, D, rows);
    c->ref = (qvl_ref_head_loss){.x = x,
                                 .head = head,
                                 .rows = rows,
                                 .targets = targets,
                                 .weights = weights,
                                 .n_rows = n,
                                 .T = s->T,
                                 .D = D,
                                 .V = V};
    c->args = (qvl_head_loss_args){
        .row_loss = qvl_kt_out(kt, "row_loss", n, QVL_KT_F32),
        .x = qvl_kt_in(kt, "x", x, s->T * D, QVL_KT_ACT),
        .head = qvl_kt_in(kt, "head", head, V * D, QVL_KT_ACT),
        .rows = s->rows == EVERY_ROW ? NULL : qvl_kt_in_i32(kt, "rows", rows, n),
        .targets = qvl_kt_in_i32(kt, "targets", targets, n),
        .weights = qvl_kt_in(kt, "weights", weights, n, QVL_KT_F32),
        .n_rows = n,
        .T = s->T,
        .D = D,
        .V = V};
    if (s->wants_dx)
        c->args.dx = qvl_kt_out(kt, "dx", s->T * D, QVL_KT_ACT);
    qvl_kt_workspace(
        kt, &(qvl_workspace_limits){
                .tokens = s->T + s->ws_extra, .vocab = V, .hidden = D, .backward = s->wants_dx});
}

/* A row that is not supervised, or has weight 0, has gradient 0 and nothing else. */
static void check_zero_rows(qvl_kt *kt, const double *dx, const loss_case *c)
{
    const double *got = qvl_kt_values(kt, "dx");
    for (int64_t t = 0; t < c->args.T && !kt->is_stopped; t++) {
        int64_t n_not_zero = 0, n_wanted = 0;
        for (int64_t d = 0; d < c->args.D; d++) {
            n_not_zero += got[t * c->args.D + d] != 0;
            n_wanted += dx[t * c->args.D + d] != 0;
        }
        if (n_wanted == 0 && n_not_zero > 0)
            qvl_kt_fail(kt, "dx: %lld elements of row %lld are not 0", (long long)n_not_zero,
                        (long long)t);
    }
}

static void loss_at(qvl_kt *kt, const loss_shape *s)
{
    loss_case c;
    qvl_kt_begin(kt, "head_loss n_rows=%lld T=%lld D=%lld V=%lld rows %d size=%g%s",
                 (long long)s->n_rows, (long long)s->T, (long long)s->D, (long long)s->V,
                 (int)s->rows, s->size, s->wants_dx ? "" : " dx=NULL");
    fill(&c, kt, s);
    double *row_loss = qvl_kt_doubles(kt, s->n_rows), *dx = qvl_kt_doubles(kt, s->T * c.args.D);
    double *naive_loss = qvl_kt_doubles(kt, s->n_rows);
    double *naive_dx = qvl_kt_doubles(kt, s->T * c.args.D);
    const int64_t width = s->n_rows > 0 ? s->n_rows : 1, D = c.args.D;
    qvl_ref_head_loss_run(row_loss, dx, &c.ref);
    if (kt->dev->dtype == QVL_BF16) {
        c.ref.round = qvl_ref_round_bf16;
        qvl_ref_head_loss_run(naive_loss, naive_dx, &c.ref);
    }
    qvl_kt_run(kt, call_head_loss, &c.args);
    qvl_kt_check_twice(kt, "row_loss", row_loss, naive_loss, width, 0, width, s->size);
    if (s->wants_dx) {
        qvl_kt_check_twice(kt, "dx", dx, naive_dx, D, 0, D, 0);
        check_zero_rows(kt, dx, &c);
    }
    qvl_kt_end(kt);
}

static void row_counts(void **state)
{
    static const int64_t COUNTS[] = {1, 2, 7, 33, 63, 64, 65, 71, 129, 257};
    for (size_t i = 0; i < sizeof COUNTS / sizeof *COUNTS; i++) {
        const int64_t n = COUNTS[i];
        loss_at(*state, &(loss_shape){n, n, 31, 211, (selection)(i % 3), true, 2, 0});
        loss_at(*state, &(loss_shape){n / 2, n, 64, 257, SCRAMBLED, i % 2 == 0, 2, 0});
    }
    qvl_kt_verdict(*state);
}

static void row_choices(void **state)
{
    for (int rows = 0; rows < N_SELECTIONS; rows++)
        for (int wants_dx = 0; wants_dx < 2; wants_dx++) {
            loss_at(*state, &(loss_shape){5, 19, 48, 101, (selection)rows, wants_dx, 2, 0});
            loss_at(*state, &(loss_shape){1, 19, 48, 101, (selection)rows, wants_dx, 2, 0});
            loss_at(*state, &(loss_shape){19, 19, 48, 101, (selection)rows, wants_dx, 2, 40});
        }
    for (int wants_dx = 0; wants_dx < 2; wants_dx++) {
        loss_at(*state, &(loss_shape){0, 0, 48, 101, EVERY_ROW, wants_dx, 2, 0});
        loss_at(*state, &(loss_shape){1, 1, 48, 101, EVERY_ROW, wants_dx, 2, 0});
        loss_at(*state, &(loss_shape){19, 19, 48, 101, EVERY_ROW, wants_dx, 2, 40});
    }
    qvl_kt_verdict(*state);
}

/* No supervised row: dx is set to 0 all the same. */
static void no_rows(void **state)
{
    loss_at(*state, &(loss_shape){0, 7, 32, 101, SCRAMBLED, true, 2, 0});
    loss_at(*state, &(loss_shape){0, 7, 32, 101, SCRAMBLED, false, 2, 0});
    loss_at(*state, &(loss_shape){0, 0, 32, 101, SCRAMBLED, true, 2, 0});
    qvl_kt_verdict(*state);
}

static void vocabularies(void **state)
{
    static const int64_t SIZES[] = {1, 2, 3, 31, 255, 1024, 1031};
    for (size_t i = 0; i < sizeof SIZES / sizeof *SIZES; i++)
        loss_at(*state, &(loss_shape){5, 9, 24, SIZES[i], SCRAMBLED, true, 2, 0});
    loss_at(*state, &(loss_shape){3, 4, 8, 152064, SCRAMBLED, true, 2, 0}); /* the 7B model's V */
    loss_at(*state, &(loss_shape){3, 4, 3584, 211, SCRAMBLED, true, 2, 0}); /* and D */
    qvl_kt_verdict(*state);
}

/* More rows than one chunk of logits has where memory is counted in tens of MiB. */
static void many_rows(void **state)
{
    loss_at(*state, &(loss_shape){1500, 1600, 8, 307, SCRAMBLED, true, 2, 0});
    loss_at(*state, &(loss_shape){70, 80, 8, 60013, SCRAMBLED, true, 2, 0});
    loss_at(*state, &(loss_shape){1500, 1500, 8, 307, EVERY_ROW, true, 2, 0});
    loss_at(*state, &(loss_shape){1300, 1300, 8, 60013, EVERY_ROW, true, 2, 0});
    qvl_kt_verdict(*state);
}

/* exp of such logits is infinite unless the largest is taken off first. */
static void magnitudes(void **state)
{
    static const double SIZES[] = {1e-3, 10, 0};
    for (size_t i = 0; i < sizeof SIZES / sizeof *SIZES; i++) {
        loss_at(*state, &(loss_shape){9, 13, 64, 331, SCRAMBLED, true, SIZES[i], 0});
        loss_at(*state, &(loss_shape){9, 13, 256, 131, SCRAMBLED, true, SIZES[i], 0});
    }
    qvl_kt_verdict(*state);
}

static void refuses_small_workspace(void **state)
{
    loss_case c;
    qvl_kt_begin(*state, "head_loss without workspace");
    fill(&c, *state, &(loss_shape){5, 9, 24, 101, SCRAMBLED, true, 2, 0});
    qvl_kt_run_starved(*state, call_head_loss, &c.args);
    qvl_kt_end(*state);
    qvl_kt_verdict(*state);
}

int main(void)
{
    qvl_kt kt = {0};
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_prestate(row_counts, &kt),
        cmocka_unit_test_prestate(row_choices, &kt),
        cmocka_unit_test_prestate(no_rows, &kt),
        cmocka_unit_test_prestate(vocabularies, &kt),
        cmocka_unit_test_prestate(many_rows, &kt),
        cmocka_unit_test_prestate(magnitudes, &kt),
        cmocka_unit_test_prestate(refuses_small_workspace, &kt),
    };
    const int code = qvl_kt_open(&kt);
    if (code != 0)
        return code;
    return qvl_kt_close(&kt, cmocka_run_group_tests_name("kernel.head_loss", tests, NULL, NULL));
}
