/* Memory, transfers and loading of weights. */
#include "tests/kernels/kernel_test.h"

#include <math.h>
#include <string.h>

#include <setjmp.h>
#include <cmocka.h>

static const size_t SIZES[] = {0, 1, 3, 4, 255, 256, 257, 4096, 1000003};

/* Byte i of pattern number k. */
static unsigned char pattern(size_t i, int k)
{
    return (unsigned char)(i * 131 + (size_t)k * 7 + i / 251);
}

static void fill(unsigned char *bytes, size_t n, int k)
{
    for (size_t i = 0; i < n; i++)
        bytes[i] = pattern(i, k);
}

static unsigned char *host_bytes(qvl_kt *kt, size_t n)
{
    return (unsigned char *)qvl_kt_ints(kt, (int64_t)n / 4 + 1);
}

static void *allocate(qvl_kt *kt, size_t bytes, qvl_mem kind)
{
    void *memory = NULL;
    qvl_err err = {0};
    assert_int_equal(kt->dev->ops->alloc(kt->dev, &memory, bytes, kind, "test", &err), QVL_OK);
    assert_non_null(memory);
    assert_int_equal((uintptr_t)memory % 256, 0);
    return memory;
}

static void wait_for(qvl_kt *kt, qvl_lane lane)
{
    qvl_err err = {0};
    assert_int_equal(kt->dev->ops->wait(kt->dev, lane, &err), QVL_OK);
}

static void expect_bytes(qvl_kt *kt, const char *what, const unsigned char *got, size_t n, int k)
{
    kt->n_checks++;
    for (size_t i = 0; i < n; i++)
        if (got[i] != pattern(i, k)) {
            qvl_kt_fail(kt, "%s: byte %zu is %u, expected %u", what, i, got[i], pattern(i, k));
            return;
        }
}

static void round_trip_on_each_lane(void **state)
{
    qvl_kt *kt = *state;
    const qvl_ops *ops = kt->dev->ops;
    qvl_err err = {0};
    for (int lane = 0; lane < QVL_N_LANES; lane++)
        for (size_t s = 0; s < sizeof SIZES / sizeof *SIZES; s++) {
            const size_t n = SIZES[s];
            qvl_kt_begin(kt, "round trip of %zu bytes on lane %d", n, lane);
            unsigned char *there = host_bytes(kt, n), *back = host_bytes(kt, n);
            void *device = allocate(kt, n, QVL_MEM_DEVICE);
            fill(there, n, lane);
            assert_int_equal(ops->upload(kt->dev, device, there, n, (qvl_lane)lane, &err), QVL_OK);
            assert_int_equal(ops->download(kt->dev, back, device, n, (qvl_lane)lane, &err), QVL_OK);
            wait_for(kt, (qvl_lane)lane);
            expect_bytes(kt, "download", back, n, lane);
            ops->release(kt->dev, device, QVL_MEM_DEVICE);
            qvl_kt_end(kt);
        }
    qvl_kt_verdict(kt);
}

/* Host memory of the device is written and read by the host itself. Lanes are ordered by order. */
static void lanes_in_order(void **state)
{
    qvl_kt *kt = *state;
    const qvl_ops *ops = kt->dev->ops;
    const size_t n = 1000003;
    qvl_err err = {0};
    qvl_kt_begin(kt, "upload on copy, copy on compute, download on reduce");
    unsigned char *host = allocate(kt, n, QVL_MEM_HOST), *back = allocate(kt, n, QVL_MEM_HOST);
    void *first = allocate(kt, n, QVL_MEM_DEVICE), *second = allocate(kt, n, QVL_MEM_DEVICE);
    for (int k = 0; k < 5; k++) {
        fill(host, n, k);
        memset(back, 0, n);
        assert_int_equal(ops->upload(kt->dev, first, host, n, QVL_LANE_COPY, &err), QVL_OK);
        assert_int_equal(ops->order(kt->dev, QVL_LANE_COMPUTE, QVL_LANE_COPY, &err), QVL_OK);
        assert_int_equal(ops->copy(kt->dev, second, first, n, &err), QVL_OK);
        assert_int_equal(ops->order(kt->dev, QVL_LANE_REDUCE, QVL_LANE_COMPUTE, &err), QVL_OK);
        assert_int_equal(ops->download(kt->dev, back, second, n, QVL_LANE_REDUCE, &err), QVL_OK);
        wait_for(kt, QVL_LANE_REDUCE);
        expect_bytes(kt, "after three lanes", back, n, k);
    }
    ops->release(kt->dev, host, QVL_MEM_HOST);
    ops->release(kt->dev, back, QVL_MEM_HOST);
    ops->release(kt->dev, first, QVL_MEM_DEVICE);
    ops->release(kt->dev, second, QVL_MEM_DEVICE);
    qvl_kt_end(kt);
    qvl_kt_verdict(kt);
}

/* Pageable memory may be written to again when an upload on the compute lane has returned, also
 * while the lane is far behind, and when it is larger than what the device stages in. */
static void pageable_memory_is_free_at_once(void **state)
{
    static const size_t COUNTS[] = {3, 4099, 20000003, 64, 8 << 20, 5};
    enum { N = sizeof COUNTS / sizeof *COUNTS, ROUNDS = 3 };
    qvl_kt *kt = *state;
    const qvl_ops *ops = kt->dev->ops;
    const size_t most = 20000003;
    qvl_err err = {0};
    qvl_kt_begin(kt, "uploads from memory that is written to again");
    unsigned char *there = host_bytes(kt, most), *back = host_bytes(kt, most);
    void *device[ROUNDS][N];
    for (int k = 0; k < ROUNDS; k++)
        for (int i = 0; i < N; i++) {
            device[k][i] = allocate(kt, COUNTS[i], QVL_MEM_DEVICE);
            fill(there, COUNTS[i], k * N + i);
            assert_int_equal(
                ops->upload(kt->dev, device[k][i], there, COUNTS[i], QVL_LANE_COMPUTE, &err),
                QVL_OK);
            memset(there, 0xEE, COUNTS[i]);
        }
    for (int k = 0; k < ROUNDS; k++)
        for (int i = 0; i < N; i++) {
            assert_int_equal(
                ops->download(kt->dev, back, device[k][i], COUNTS[i], QVL_LANE_COMPUTE, &err),
                QVL_OK);
            wait_for(kt, QVL_LANE_COMPUTE);
            expect_bytes(kt, "download", back, COUNTS[i], k * N + i);
            ops->release(kt->dev, device[k][i], QVL_MEM_DEVICE);
        }
    qvl_kt_end(kt);
    qvl_kt_verdict(kt);
}

static void free_bytes_is_plausible(void **state)
{
    qvl_kt *kt = *state;
    uint64_t bytes = 0;
    qvl_err err = {0};
    assert_int_equal(kt->dev->ops->free_bytes(kt->dev, &bytes, &err), QVL_OK);
    assert_true(bytes > (1u << 20) && bytes < (uint64_t)1 << 50);
}

/* ---- zero and copy, under guards ---- */

typedef struct bytes_args {
    void *dst;
    const void *src; /* NULL: zero */
    size_t bytes;
} bytes_args;

static qvl_status call_zero_or_copy(qvl_device *dev, const void *args, qvl_err *err)
{
    const bytes_args *a = args;
    return a->src ? dev->ops->copy(dev, a->dst, a->src, a->bytes, err)
                  : dev->ops->zero(dev, a->dst, a->bytes, err);
}

static void zero_and_copy(void **state)
{
    static const int64_t COUNTS[] = {0, 1, 7, 64, 65, 1023, 4099};
    qvl_kt *kt = *state;
    for (size_t i = 0; i < sizeof COUNTS / sizeof *COUNTS; i++)
        for (int copies = 0; copies < 2; copies++) {
            const int64_t n = COUNTS[i], width = n > 0 ? n : 1;
            qvl_kt_begin(kt, "%s n=%lld", copies ? "copy" : "zero", (long long)n);
            const double *x = qvl_kt_random(kt, n, 1, QVL_KT_F32), *zeros = qvl_kt_doubles(kt, n);
            const bytes_args args = {.dst = qvl_kt_out(kt, "dst", n, QVL_KT_F32),
                                     .src = copies ? qvl_kt_in(kt, "src", x, n, QVL_KT_F32) : NULL,
                                     .bytes = (size_t)n * 4};
            qvl_kt_run(kt, call_zero_or_copy, &args);
            qvl_kt_check(kt, "dst", copies ? x : zeros, width, QVL_KT_EXACT);
            qvl_kt_end(kt);
        }
    qvl_kt_verdict(kt);
}

/* ---- load_rows and fetch ---- */

typedef struct load_args {
    void *dst;
    const unsigned char *src;
    unsigned char *passed; /* what load_rows sees; spoilt when it has returned */
    qvl_dtype src_dtype;
    int64_t stride, rows, cols;
} load_args;

static qvl_status call_load_rows(qvl_device *dev, const void *args, qvl_err *err)
{
    const load_args *a = args;
    const size_t bytes = (size_t)(a->rows * a->cols) * qvl_dtype_bytes(a->src_dtype);
    memcpy(a->passed, a->src, bytes);
    const qvl_status rc =
        dev->ops->load_rows(dev, a->dst, a->stride, a->passed, a->src_dtype, a->rows, a->cols, err);
    memset(a->passed, 0xEE, bytes);
    return rc == QVL_OK ? dev->ops->wait(dev, QVL_LANE_COPY, err) : rc;
}

/* Bits of a finite number of this type, of any size that bf16 can hold. */
static uint32_t random_bits(qvl_kt *kt, qvl_dtype dtype)
{
    for (;;) {
        const uint32_t bits = (uint32_t)qvl_kt_below(kt, (int64_t)1 << 32);
        const float value = qvl_float_from_bits(bits);
        if (dtype == QVL_F32 && fabsf(value) < 3e38f)
            return bits;
        if (dtype == QVL_BF16 && (bits & 0x7f80u) != 0x7f80u)
            return bits & 0xffffu;
        if (dtype == QVL_F16 && (bits & 0x7c00u) != 0x7c00u)
            return bits & 0xffffu;
    }
}

static float value_of(uint32_t bits, qvl_dtype dtype)
{
    return dtype == QVL_F32    ? qvl_float_from_bits(bits)
           : dtype == QVL_BF16 ? qvl_float_from_bf16((uint16_t)bits)
                               : qvl_float_from_f16((uint16_t)bits);
}

static void load_case(qvl_kt *kt, qvl_dtype dtype, int64_t rows, int64_t cols, int64_t padding)
{
    const int64_t stride = cols + padding, n = rows * stride;
    qvl_kt_begin(kt, "load_rows %s rows=%lld cols=%lld stride=%lld", qvl_dtype_name(dtype),
                 (long long)rows, (long long)cols, (long long)stride);
    unsigned char *src = host_bytes(kt, (size_t)(rows * cols * 4));
    double *want = qvl_kt_doubles(kt, n);
    for (int64_t i = 0; i < rows * cols; i++) {
        uint32_t bits = random_bits(kt, dtype);
        if (dtype == QVL_F32 && i % 3 == 0) /* halfway between two bf16: to even */
            bits = (bits & 0xffff0000u) | 0x8000u;
        const uint16_t half = (uint16_t)bits;
        if (dtype == QVL_F32)
            memcpy(src + 4 * i, &bits, 4);
        else
            memcpy(src + 2 * i, &half, 2);
        want[i / cols * stride + i % cols] =
            qvl_kt_round(kt, (double)value_of(bits, dtype), QVL_KT_ACT);
    }
    const load_args args = {.dst = qvl_kt_out(kt, "dst", n, QVL_KT_ACT),
                            .src = src,
                            .passed = host_bytes(kt, (size_t)(rows * cols * 4)),
                            .src_dtype = dtype,
                            .stride = stride,
                            .rows = rows,
                            .cols = cols};
    qvl_kt_run(kt, call_load_rows, &args);
    qvl_kt_check(kt, "dst", want, n > 0 ? n : 1, QVL_KT_EXACT);
    qvl_kt_end(kt);
}

static void load_rows_rounds_and_pads(void **state)
{
    static const qvl_dtype TYPES[] = {QVL_F32, QVL_BF16, QVL_F16};
    static const int64_t SHAPES[][3] = {{0, 5, 3},   {1, 1, 0},    {1, 1, 7},     {7, 13, 0},
                                        {33, 65, 7}, {71, 64, 64}, {3, 3420, 12}, {257, 1001, 23}};
    for (size_t d = 0; d < 3; d++)
        for (size_t s = 0; s < sizeof SHAPES / sizeof *SHAPES; s++)
            load_case(*state, TYPES[d], SHAPES[s][0], SHAPES[s][1], SHAPES[s][2]);
    qvl_kt_verdict(*state);
}

static void fetch_gives_floats(void **state)
{
    static const int64_t COUNTS[] = {0, 1, 7, 65, 4099};
    qvl_kt *kt = *state;
    for (size_t i = 0; i < sizeof COUNTS / sizeof *COUNTS; i++) {
        const int64_t n = COUNTS[i];
        qvl_kt_begin(kt, "fetch n=%lld", (long long)n);
        const double *x = qvl_kt_random(kt, n, 100, QVL_KT_ACT);
        const void *device = qvl_kt_in(kt, "x", x, n, QVL_KT_ACT);
        float *host = (float *)qvl_kt_ints(kt, n + 2);
        qvl_err err = {0};
        host[n] = 17;
        assert_int_equal(kt->dev->ops->fetch(kt->dev, host, device, n, &err), QVL_OK);
        for (int64_t j = 0; j < n; j++)
            if (!((double)host[j] == x[j]))
                qvl_kt_fail(kt, "element %lld is %g, expected %g", (long long)j, (double)host[j],
                            x[j]);
        if (host[n] != 17)
            qvl_kt_fail(kt, "wrote past the end");
        kt->n_checks++;
        qvl_kt_end(kt);
    }
    qvl_kt_verdict(kt);
}

static void close_accepts_null(void **state)
{
    (void)state;
    qvl_device_close(NULL);
}

int main(void)
{
    qvl_kt kt = {0};
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_prestate(round_trip_on_each_lane, &kt),
        cmocka_unit_test_prestate(lanes_in_order, &kt),
        cmocka_unit_test_prestate(pageable_memory_is_free_at_once, &kt),
        cmocka_unit_test_prestate(free_bytes_is_plausible, &kt),
        cmocka_unit_test_prestate(zero_and_copy, &kt),
        cmocka_unit_test_prestate(load_rows_rounds_and_pads, &kt),
        cmocka_unit_test_prestate(fetch_gives_floats, &kt),
        cmocka_unit_test_prestate(close_accepts_null, &kt),
    };
    const int code = qvl_kt_open(&kt);
    if (code != 0)
        return code;
    return qvl_kt_close(&kt, cmocka_run_group_tests_name("kernel.transfer", tests, NULL, NULL));
}
