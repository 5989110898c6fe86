/* The ranks of a job: agreeing, exchanging, summing, sharing. Every rank runs every test; a rank
 * whose assertion fails leaves the others waiting, who then end the job. */
#include "mpi/world.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "mpi_leaks.h"
#include "src/base/rng.h"

static qvl_world *world;
static qvl_log console;
static int rank, n_ranks;

static void must(qvl_status rc, const qvl_err *err)
{
    if (rc != QVL_OK)
        print_error("rank %d: %s: %s\n", rank, qvl_status_name(rc), err->text);
    assert_int_equal(rc, QVL_OK);
}

static void ranks_know_their_places(void **state)
{
    (void)state;
    assert_in_range(rank, 0, n_ranks - 1);
    assert_int_equal(console.rank, rank);
    assert_int_equal(console.n_ranks, n_ranks);
    assert_int_equal(qvl_world_local_size(world), n_ranks); /* one host */
    assert_int_equal(qvl_world_local_rank(world), rank);
    assert_true(strlen(qvl_world_host(world)) > 0);
    assert_int_equal(qvl_world_failed_rank(world), -1);
}

/* Which ranks fail, as bits: all ranks end with the lowest one's status and text. */
static void all_learn_of_a_failure(void **state)
{
    static const qvl_status STATUS[] = {QVL_EDATA, QVL_EIO, QVL_ECONFIG, QVL_EDEVICE};
    char text[64];
    (void)state;
    for (int who = 0; who < 1 << n_ranks; who++) {
        qvl_err err = {0};
        qvl_status local = QVL_OK;
        int first = 0;
        while (who && !(who >> first & 1))
            first++;
        if (who >> rank & 1)
            local = qvl_fail(&err, STATUS[rank % 4], "rank %d of case %d", rank, who);
        const qvl_status rc = qvl_world_agree(world, local, &err);
        if (who == 0) {
            assert_int_equal(rc, QVL_OK);
            assert_int_equal(err.status, QVL_OK);
            continue;
        }
        assert_int_equal(rc, STATUS[first % 4]);
        assert_int_equal(err.status, rc);
        snprintf(text, sizeof text, "rank %d of case %d", first, who);
        assert_string_equal(err.text, text);
        assert_int_equal(qvl_world_failed_rank(world), first);
    }
}

/* Byte i of a message number k. */
static unsigned char byte_of(size_t i, int k)
{
    return (unsigned char)(i * 31 + (i >> 8) + (size_t)k * 7);
}

static void broadcasts_reach_all(void **state)
{
    static const size_t SIZES[] = {0, 1, 7, 4096, 1000003};
    (void)state;
    for (size_t s = 0; s < sizeof SIZES / sizeof *SIZES; s++)
        for (int root = 0; root < n_ranks; root++) {
            unsigned char *bytes = calloc(SIZES[s] + 1, 1);
            qvl_err err = {0};
            assert_non_null(bytes);
            for (size_t i = 0; rank == root && i < SIZES[s]; i++)
                bytes[i] = byte_of(i, root);
            must(qvl_world_broadcast(world, bytes, SIZES[s], root, &err), &err);
            for (size_t i = 0; i < SIZES[s]; i++)
                if (bytes[i] != byte_of(i, root))
                    fail_msg("byte %zu", i);
            assert_int_equal(bytes[SIZES[s]], 0);
            free(bytes);
        }
}

/* More than MPI's int can count is sent in pieces of 1 GiB: here a piece and a bit. */
static void large_messages_are_cut(void **state)
{
    const size_t n_bytes = ((size_t)1 << 30) + 12345;
    const size_t places[] = {0, 1, ((size_t)1 << 30) - 1, (size_t)1 << 30, n_bytes - 1};
    qvl_err err = {0};
    (void)state;
    if (n_ranks != 2)
        skip();
    unsigned char *bytes = calloc(n_bytes, 1);
    assert_non_null(bytes);
    for (int round = 0; round < 2; round++) {
        memset(bytes, 0, n_bytes);
        for (int i = 0; rank == 0 && i < 5; i++)
            bytes[places[i]] = (unsigned char)(i + 1 + round);
        if (round == 0)
            must(qvl_world_broadcast(world, bytes, n_bytes, 0, &err), &err);
        else if (rank == 0)
            must(qvl_world_send(world, bytes, n_bytes, 1, &err), &err);
        else
            must(qvl_world_receive(world, bytes, n_bytes, 0, &err), &err);
        for (int i = 0; i < 5; i++)
            assert_int_equal(bytes[places[i]], i + 1 + round);
    }
    free(bytes);
}

static void everybodys_bytes_come_in_order(void **state)
{
    enum { N = 1000 };
    unsigned char mine[N], *all = calloc((size_t)n_ranks, N);
    qvl_err err = {0};
    (void)state;
    assert_non_null(all);
    for (size_t n = 0; n <= N; n += 250) {
        for (size_t i = 0; i < n; i++)
            mine[i] = byte_of(i, rank);
        must(qvl_world_all_gather(world, all, mine, n, &err), &err);
        for (int r = 0; r < n_ranks; r++)
            for (size_t i = 0; i < n; i++)
                assert_int_equal(all[(size_t)r * n + i], byte_of(i, r));
    }
    free(all);
    if (sizeof(size_t) > 4) {
        const qvl_status rc = qvl_world_all_gather(world, NULL, NULL, (size_t)1 << 31, &err);
        assert_int_equal(rc, QVL_EINTERNAL);
    }
}

static void integers_are_reduced(void **state)
{
    int64_t sums[3] = {rank + 1, ((int64_t)1 << 40) * rank, -rank};
    int64_t most[3] = {rank, -rank, rank == 1 ? INT64_MAX : INT64_MIN};
    const int64_t last = n_ranks - 1;
    qvl_err err = {0};
    (void)state;
    must(qvl_world_sum_i64(world, sums, 3, &err), &err);
    assert_int_equal(sums[0], n_ranks * (n_ranks + 1) / 2);
    assert_int_equal(sums[1], ((int64_t)1 << 40) * (last * n_ranks / 2));
    assert_int_equal(sums[2], -(last * n_ranks / 2));
    must(qvl_world_max_i64(world, most, 3, &err), &err);
    assert_int_equal(most[0], last);
    assert_int_equal(most[1], 0);
    assert_int_equal(most[2], n_ranks > 1 ? INT64_MAX : INT64_MIN);
    must(qvl_world_sum_i64(world, sums, 0, &err), &err);
}

/* In rank order: large, small, minus large gives what that order gives, on all ranks. */
static void doubles_are_summed_in_order(void **state)
{
    static const double TERMS[] = {1e16, 1.0, -1e16, 3.0};
    double values[2] = {TERMS[rank % 4], 0.1 * (rank + 1)}, want[2] = {0.0, 0.0};
    qvl_err err = {0};
    (void)state;
    for (int r = 0; r < n_ranks; r++) {
        want[0] += TERMS[r % 4];
        want[1] += 0.1 * (r + 1);
    }
    must(qvl_world_sum_f64(world, values, 2, &err), &err);
    assert_memory_equal(values, want, sizeof want);
}

enum { CHUNK = 2 << 20 }; /* floats that are exchanged at a time */

/* Integers, so that every order gives the sum exactly. */
static void floats_are_summed_exactly(void **state)
{
    static const int64_t SIZES[] = {0, 1, 2, 3, 7, 1000, CHUNK - 1, CHUNK, CHUNK + 1, 5000000};
    (void)state;
    for (size_t s = 0; s < sizeof SIZES / sizeof *SIZES; s++) {
        const int64_t n = SIZES[s];
        float *values = malloc((size_t)(n + 1) * sizeof *values);
        qvl_err err = {0};
        assert_non_null(values);
        for (int64_t i = 0; i < n; i++)
            values[i] = (float)((i * 7 + rank * 13) % 1000 - 500);
        values[n] = 77.0f;
        must(qvl_world_sum_f32(world, values, n, &err), &err);
        for (int64_t i = 0; i < n; i++) {
            float want = 0.0f;
            for (int r = 0; r < n_ranks; r++)
                want += (float)((i * 7 + r * 13) % 1000 - 500);
            if (values[i] != want)
                fail_msg("%d of %d: %g, expected %g", (int)i, (int)n, (double)values[i],
                         (double)want);
        }
        assert_true(values[n] == 77.0f);
        free(values);
    }
}

/* Values that rounding tells apart: the sum in double in rank order, rounded once; the same bits on
 * all ranks, and the second time. */
static void float_sums_have_fixed_bits(void **state)
{
    enum { N = 100003 };
    float *values = malloc(N * sizeof *values), *again = malloc(N * sizeof *again);
    double *want = calloc(N, sizeof *want);
    qvl_err err = {0};
    (void)state;
    assert_true(values && again && want);
    for (int r = 0; r < n_ranks; r++) {
        uint64_t rng = (uint64_t)r + 99;
        for (int i = 0; i < N; i++) {
            const uint64_t bits = qvl_splitmix64(&rng);
            const float value =
                (float)((double)(bits >> 40) / 16777216.0 - 0.5) * (bits % 3 ? 1.0f : 1e7f);
            want[i] += (double)value;
            if (r == rank)
                values[i] = again[i] = value;
        }
    }
    must(qvl_world_sum_f32(world, values, N, &err), &err);
    must(qvl_world_sum_f32(world, again, N, &err), &err);
    assert_memory_equal(values, again, N * sizeof *values);
    for (int i = 0; n_ranks > 1 && i < N; i++)
        assert_true(values[i] == (float)want[i]);
    must(qvl_world_broadcast(world, again, N * sizeof *again, 0, &err), &err);
    assert_memory_equal(values, again, N * sizeof *values);
    free(values);
    free(again);
    free(want);
}

static void differences_are_found(void **state)
{
    qvl_err err = {0};
    (void)state;
    must(qvl_world_compare(world, "configuration", "the same text", &err), &err);
    must(qvl_world_compare(world, "configuration", "", &err), &err);
    if (n_ranks == 1)
        return;
    const bool is_odd = rank == n_ranks - 1;
    const qvl_status rc = qvl_world_compare(world, "things", is_odd ? "b" : "a", &err);
    char want[80];
    snprintf(want, sizeof want, "ranks 0 and %d do not have the same things", n_ranks - 1);
    assert_int_equal(rc, QVL_EDATA);
    assert_memory_equal(err.text, want, strlen(want));
    assert_non_null(strstr(err.text, "...): it has 'b'")); /* on every rank */
    qvl_err_clear(&err);
    char *text = calloc(1, 1000); /* too long to be shown */
    assert_non_null(text);
    memset(text, is_odd ? 'b' : 'a', 999);
    assert_int_equal(qvl_world_compare(world, "things", text, &err), QVL_EDATA);
    assert_null(strstr(err.text, "it has"));
    free(text);
}

static void hosts_share_memory(void **state)
{
    enum { N = 100000 };
    (void)state;
    for (int round = 0; round < 3; round++) {
        qvl_shared *shared = NULL;
        void *memory = NULL;
        qvl_err err = {0};
        must(qvl_world_share(world, &shared, &memory, N * sizeof(int), &err), &err);
        int *numbers = memory;
        for (int i = 0; i < N; i++)
            assert_int_equal(numbers[i], 0);
        must(qvl_world_barrier(world, &err), &err);
        for (int i = rank; i < N; i += n_ranks) /* each rank writes its own */
            numbers[i] = i + round;
        must(qvl_world_barrier(world, &err), &err);
        for (int i = 0; i < N; i++)
            assert_int_equal(numbers[i], i + round);
        must(qvl_world_barrier(world, &err), &err);
        qvl_world_unshare(shared);
    }
    qvl_world_unshare(NULL);
}

/* Around the ring, sizes from nothing to beyond the eager limit. */
static void messages_go_round(void **state)
{
    static const size_t SIZES[] = {0, 1, 5000, 1000000};
    (void)state;
    for (size_t s = 0; s < 4 && n_ranks > 1; s++) {
        const size_t n = SIZES[s];
        unsigned char *bytes = calloc(n + 1, 1);
        qvl_err err = {0};
        assert_non_null(bytes);
        for (size_t i = 0; i < n; i++)
            bytes[i] = byte_of(i, 3);
        const int before = (rank + n_ranks - 1) % n_ranks, after = (rank + 1) % n_ranks;
        if (rank == 0)
            must(qvl_world_send(world, bytes, n, after, &err), &err);
        memset(bytes, 0, n);
        must(qvl_world_receive(world, bytes, n, before, &err), &err);
        for (size_t i = 0; i < n; i++)
            if (bytes[i] != byte_of(i, 3))
                fail_msg("byte %zu", i);
        if (rank != 0)
            must(qvl_world_send(world, bytes, n, after, &err), &err);
        free(bytes);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ranks_know_their_places),
        cmocka_unit_test(all_learn_of_a_failure),
        cmocka_unit_test(broadcasts_reach_all),
        cmocka_unit_test(large_messages_are_cut),
        cmocka_unit_test(everybodys_bytes_come_in_order),
        cmocka_unit_test(integers_are_reduced),
        cmocka_unit_test(doubles_are_summed_in_order),
        cmocka_unit_test(floats_are_summed_exactly),
        cmocka_unit_test(float_sums_have_fixed_bits),
        cmocka_unit_test(differences_are_found),
        cmocka_unit_test(hosts_share_memory),
        cmocka_unit_test(messages_go_round),
    };
    qvl_err err = {0};
    qvl_log_init(&console, "test_world");
    if (qvl_world_create(&world, &console, &err) != QVL_OK)
        return 1;
    rank = qvl_world_rank(world);
    n_ranks = qvl_world_size(world);
    qvl_world_set_phase(world, "testing");
    qvl_world_set_deadline(world, 60.0);
    const int failed = cmocka_run_group_tests(tests, NULL, NULL);
    if (failed)
        qvl_world_abort(world, QVL_EINTERNAL, "a test failed");
    qvl_world_destroy(world);
    return 0;
}
