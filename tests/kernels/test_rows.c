/* Rows looked up in the embedding table, and rows moved. Both copy bits. */
#include "tests/kernels/kernel_test.h"
#include "tests/kernels/ref/ref_rows.h"

#include <setjmp.h>
#include <cmocka.h>

static const int64_t COUNTS[] = {0, 1, 2, 7, 33, 63, 64, 65, 71, 129, 257};
static const int64_t WIDTHS[] = {1, 3, 8, 64, 129, 1280, 3584};

static qvl_status call_embed(qvl_device *dev, const void *args, qvl_err *err)
{
    return dev->ops->embed(dev, args, err);
}

static qvl_status call_move_rows(qvl_device *dev, const void *args, qvl_err *err)
{
    return dev->ops->move_rows(dev, args, err);
}

static void embed_case(qvl_kt *kt, int64_t T, int64_t D, int64_t V)
{
    D = qvl_kt_width(kt, D);
    qvl_kt_begin(kt, "embed T=%lld D=%lld V=%lld", (long long)T, (long long)D, (long long)V);
    const double *table = qvl_kt_random(kt, V * D, 1, QVL_KT_ACT);
    int32_t *ids = qvl_kt_ints(kt, T);
    for (int64_t t = 0; t < T; t++)
        ids[t] = (int32_t)(t == 0 ? V - 1 : t == 1 ? 0 : qvl_kt_below(kt, V));
    double *x = qvl_kt_doubles(kt, T * D);
    qvl_ref_embed(x, table, ids, T, D);
    const qvl_embed_args args = {.x = qvl_kt_out(kt, "x", T * D, QVL_KT_ACT),
                                 .table = qvl_kt_in(kt, "table", table, V * D, QVL_KT_ACT),
                                 .ids = qvl_kt_in_i32(kt, "ids", ids, T),
                                 .T = T,
                                 .D = D};
    qvl_kt_run(kt, call_embed, &args);
    qvl_kt_check(kt, "x", x, D, QVL_KT_EXACT);
    qvl_kt_end(kt);
}

static void embed_matches_reference(void **state)
{
    for (size_t i = 0; i < sizeof COUNTS / sizeof *COUNTS; i++)
        embed_case(*state, COUNTS[i], WIDTHS[i % 7], 101);
    embed_case(*state, 65, 8, 152064);
    embed_case(*state, 5, 8, 1);
    qvl_kt_verdict(*state);
}

/* dst has more rows than are moved: the others must stay. src rows may be read twice. */
static void move_case(qvl_kt *kt, int64_t n_rows, int64_t D, bool has_dst_rows, bool has_src_rows)
{
    D = qvl_kt_width(kt, D);
    qvl_kt_begin(kt, "move_rows n_rows=%lld D=%lld%s%s", (long long)n_rows, (long long)D,
                 has_dst_rows ? " dst_rows" : "", has_src_rows ? " src_rows" : "");
    const int64_t n_dst = n_rows + 5, n_src = n_rows + 3;
    double *dst = qvl_kt_random(kt, n_dst * D, 1, QVL_KT_ACT);
    const double *src = qvl_kt_random(kt, n_src * D, 1, QVL_KT_ACT);
    int32_t *dst_rows = qvl_kt_permutation(kt, n_dst), *src_rows = qvl_kt_ints(kt, n_rows);
    for (int64_t i = 0; i < n_rows; i++)
        src_rows[i] = (int32_t)qvl_kt_below(kt, n_src);
    const qvl_move_rows_args args = {
        .dst = qvl_kt_inout(kt, "dst", dst, n_dst * D, QVL_KT_ACT),
        .src = qvl_kt_in(kt, "src", src, n_src * D, QVL_KT_ACT),
        .dst_rows = has_dst_rows ? qvl_kt_in_i32(kt, "dst_rows", dst_rows, n_rows) : NULL,
        .src_rows = has_src_rows ? qvl_kt_in_i32(kt, "src_rows", src_rows, n_rows) : NULL,
        .n_rows = n_rows,
        .D = D};
    qvl_ref_move_rows(dst, src, has_dst_rows ? dst_rows : NULL, has_src_rows ? src_rows : NULL,
                      n_rows, D);
    qvl_kt_run(kt, call_move_rows, &args);
    qvl_kt_check(kt, "dst", dst, D, QVL_KT_EXACT);
    qvl_kt_end(kt);
}

static void move_rows_matches_reference(void **state)
{
    for (size_t i = 0; i < sizeof COUNTS / sizeof *COUNTS; i++)
        for (int which = 0; which < 4; which++)
            move_case(*state, COUNTS[i], WIDTHS[(i + 3) % 7], which & 1, which & 2);
    qvl_kt_verdict(*state);
}

int main(void)
{
    qvl_kt kt = {0};
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_prestate(embed_matches_reference, &kt),
        cmocka_unit_test_prestate(move_rows_matches_reference, &kt),
    };
    const int code = qvl_kt_open(&kt);
    if (code != 0)
        return code;
    return qvl_kt_close(&kt, cmocka_run_group_tests_name("kernel.rows", tests, NULL, NULL));
}
