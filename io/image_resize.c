/* How it is fast: both axes are the same loop, a weighted sum over samples that are `lanes` bytes
 * apart, for many neighbouring bytes at once. On the vertical axis these are the bytes of a row:
 *
 *     out[o][i] = clamp(half + sum over t of weight[o][t] * in[first[o] + t][i])     i < lanes
 *
 * On the horizontal axis TILE_ROWS rows are transposed so that the rows lie side by side (lanes =
 * channels * TILE_ROWS), then the result is transposed back.
 *
 *     row 0  R G B R G B ...            R0 R1 .. R31  G0 G1 .. G31  B0 B1 .. B31   pixel 0
 *     row 1  R G B R G B ...    ->      R0 R1 .. R31  G0 ...                       pixel 1
 */
#include "io/image_resize.h"

#include <limits.h>
#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "src/base/memory.h"

/* The compiler also makes a version for AVX2, chosen when the program starts; sums of integers are
 * the same in any order. (ThreadSanitizer is not ready yet when that choice is made.) */
#if defined(__x86_64__) && defined(__GLIBC__) && defined(__has_attribute) &&                       \
    !defined(__SANITIZE_THREAD__)
#if __has_attribute(target_clones)
#define FAST_CLONES __attribute__((target_clones("avx2", "default")))
#endif
#endif
#ifndef FAST_CLONES
#define FAST_CLONES
#endif

enum {
    FRACTION_BITS = 22,
    HALF = 1 << (FRACTION_BITS - 1),
    BLOCK = 32,     /* bytes whose sums are kept in registers */
    TILE_ROWS = 32, /* so that the lanes of a tile are whole blocks for any number of channels */
    TURN = 8        /* transposing goes by squares of 8 x 8 bytes */
};

typedef struct axis {
    int32_t n_out;
    int32_t max_taps;
    int32_t *first;   /* [n_out] */
    int32_t *n_taps;  /* [n_out] */
    int32_t *weights; /* [n_out, max_taps] */
} axis;

/* The box of Image.resize is made of floats, so that sizes past 2^24 are rounded. */
static double scale_of(int32_t n_in, int32_t n_out)
{
    return (double)(float)n_in / n_out;
}

static double bicubic(double u)
{
    const double a = -0.5;
    u = fabs(u);
    if (u < 1.0)
        return ((a + 2.0) * u - (a + 3.0)) * u * u + 1;
    if (u < 2.0)
        return (((u - 5) * u + 8) * u - 4) * a;
    return 0.0;
}

int64_t qvl_bicubic_max_taps(int32_t n_in, int32_t n_out)
{
    const double scale = scale_of(n_in, n_out);
    return (int64_t)ceil(2.0 * (scale < 1.0 ? 1.0 : scale)) * 2 + 1;
}

int32_t qvl_bicubic_weights(double *weights, int32_t *first, int32_t n_in, int32_t n_out,
                            int32_t i_out)
{
    const double scale = scale_of(n_in, n_out);
    const double stretch = scale < 1.0 ? 1.0 : scale;
    const double support = 2.0 * stretch, shrink = 1.0 / stretch;
    const double centre = (i_out + 0.5) * scale;
    int64_t begin = (int64_t)(centre - support + 0.5), end = (int64_t)(centre + support + 0.5);
    double sum = 0.0;
    begin = begin < 0 ? 0 : begin;
    end = end > n_in ? n_in : end;
    const int32_t n = end > begin ? (int32_t)(end - begin) : 0;
    for (int32_t t = 0; t < n; t++) {
        weights[t] = bicubic(((double)(t + begin) - centre + 0.5) * shrink);
        sum += weights[t];
    }
    for (int32_t t = 0; t < n && sum != 0.0; t++)
        weights[t] /= sum;
    *first = (int32_t)begin;
    return n;
}

int32_t qvl_bicubic_fixed(double weight)
{
    return (int32_t)(weight * (1 << FRACTION_BITS) + (weight < 0 ? -0.5 : 0.5));
}

static void axis_fini(axis *a)
{
    free(a->first);
    free(a->n_taps);
    free(a->weights);
}

static qvl_status axis_init(axis *a, int32_t n_in, int32_t n_out, qvl_err *err)
{
    const int64_t max_taps = qvl_bicubic_max_taps(n_in, n_out);
    const size_t n = (size_t)n_out, n_weights = n * (size_t)max_taps;
    double *exact = NULL;
    qvl_status rc = QVL_OK;
    *a = (axis){.n_out = n_out};
    if (max_taps * (int64_t)sizeof(double) > INT_MAX / n_out)
        return qvl_fail(err, QVL_EDATA, "resize of %d to %d samples needs %lld weights each", n_in,
                        n_out, (long long)max_taps);
    a->max_taps = (int32_t)max_taps;
    QVL_TRY(qvl_alloc(&exact, (size_t)max_taps, sizeof *exact, "resize weights", err));
    QVL_TRY(qvl_alloc(&a->first, n, sizeof *a->first, "resize weights", err));
    QVL_TRY(qvl_alloc(&a->n_taps, n, sizeof *a->n_taps, "resize weights", err));
    QVL_TRY(qvl_alloc(&a->weights, n_weights, sizeof *a->weights, "resize weights", err));
    for (int32_t o = 0; o < n_out; o++) {
        a->n_taps[o] = qvl_bicubic_weights(exact, &a->first[o], n_in, n_out, o);
        for (int32_t t = 0; t < a->n_taps[o]; t++)
            a->weights[(size_t)o * (size_t)max_taps + (size_t)t] = qvl_bicubic_fixed(exact[t]);
    }
out:
    free(exact);
    return rc;
}

static inline uint8_t to_byte(int32_t sum)
{
    sum >>= FRACTION_BITS;
    return (uint8_t)(sum < 0 ? 0 : sum > 255 ? 255 : sum);
}

/* One output sample of the axis: in and out [lanes], samples of in `lanes` bytes apart. */
static inline void weigh(uint8_t *restrict out, const uint8_t *restrict in, size_t lanes,
                         const int32_t *restrict weights, int32_t n_taps)
{
    size_t i = 0;
    for (; i + BLOCK <= lanes; i += BLOCK) {
        int32_t sums[BLOCK];
        for (int j = 0; j < BLOCK; j++)
            sums[j] = HALF;
        for (int32_t t = 0; t < n_taps; t++) {
            const uint8_t *sample = in + (size_t)t * lanes + i;
            for (int j = 0; j < BLOCK; j++)
                sums[j] += weights[t] * sample[j];
        }
        for (int j = 0; j < BLOCK; j++)
            out[i + (size_t)j] = to_byte(sums[j]);
    }
    for (; i < lanes; i++) {
        int32_t sum = HALF;
        for (int32_t t = 0; t < n_taps; t++)
            sum += weights[t] * in[(size_t)t * lanes + i];
        out[i] = to_byte(sum);
    }
}

FAST_CLONES
static void weigh_all(uint8_t *out, const uint8_t *in, size_t lanes, const axis *a)
{
    for (int32_t o = 0; o < a->n_out; o++)
        weigh(out + (size_t)o * lanes, in + (size_t)a->first[o] * lanes, lanes,
              a->weights + (size_t)o * (size_t)a->max_taps, a->n_taps[o]);
}

static inline uint64_t load8(const uint8_t *p)
{
    return (uint64_t)p[0] | (uint64_t)p[1] << 8 | (uint64_t)p[2] << 16 | (uint64_t)p[3] << 24 |
           (uint64_t)p[4] << 32 | (uint64_t)p[5] << 40 | (uint64_t)p[6] << 48 |
           (uint64_t)p[7] << 56;
}

static inline void store8(uint8_t *p, uint64_t word)
{
    p[0] = (uint8_t)word;
    p[1] = (uint8_t)(word >> 8);
    p[2] = (uint8_t)(word >> 16);
    p[3] = (uint8_t)(word >> 24);
    p[4] = (uint8_t)(word >> 32);
    p[5] = (uint8_t)(word >> 40);
    p[6] = (uint8_t)(word >> 48);
    p[7] = (uint8_t)(word >> 56);
}

/* Swaps the parts under mask of b with those `shift` bits higher in a. */
static inline void exchange(uint64_t *a, uint64_t *b, int shift, uint64_t mask)
{
    const uint64_t differ = ((*a >> shift) ^ *b) & mask;
    *b ^= differ;
    *a ^= differ << shift;
}

/* out[x][y] = in[y][x] for a square of 8 x 8 bytes, by halves: 4 x 4, 2 x 2, single bytes. */
static inline void turn_square(uint8_t *out, size_t out_stride, const uint8_t *in, size_t in_stride)
{
    uint64_t w[TURN];
    for (size_t y = 0; y < TURN; y++)
        w[y] = load8(in + y * in_stride);
    for (int y = 0; y < 4; y++)
        exchange(&w[y], &w[y + 4], 32, 0x00000000ffffffffu);
    for (int y = 0; y < TURN; y += (y & 1) ? 3 : 1)
        exchange(&w[y], &w[y + 2], 16, 0x0000ffff0000ffffu);
    for (int y = 0; y < TURN; y += 2)
        exchange(&w[y], &w[y + 1], 8, 0x00ff00ff00ff00ffu);
    for (size_t x = 0; x < TURN; x++)
        store8(out + x * out_stride, w[x]);
}

/* out [n_columns, out_stride] = transpose of in [n_rows, in_stride]. */
static void turn(uint8_t *out, size_t out_stride, const uint8_t *in, size_t in_stride,
                 size_t n_rows, size_t n_columns)
{
    const size_t whole_rows = n_rows & ~(size_t)(TURN - 1);
    const size_t whole_columns = n_columns & ~(size_t)(TURN - 1);
    for (size_t x = 0; x < whole_columns; x += TURN)
        for (size_t y = 0; y < whole_rows; y += TURN)
            turn_square(out + x * out_stride + y, out_stride, in + y * in_stride + x, in_stride);
    for (size_t y = 0; y < n_rows; y++)
        for (size_t x = y < whole_rows ? whole_columns : 0; x < n_columns; x++)
            out[x * out_stride + y] = in[y * in_stride + x];
}

static qvl_status resize_width(uint8_t *out, int32_t out_w, const uint8_t *in, int32_t in_w,
                               int32_t height, int n_channels, qvl_err *err)
{
    const size_t in_row = (size_t)in_w * (size_t)n_channels;
    const size_t out_row = (size_t)out_w * (size_t)n_channels;
    const size_t n_rows = (size_t)height;
    axis a = {0};
    uint8_t *tile = NULL, *result = NULL;
    qvl_status rc = QVL_OK;
    QVL_TRY(axis_init(&a, in_w, out_w, err));
    QVL_TRY(qvl_alloc(&tile, in_row, TILE_ROWS, "resize rows", err));
    QVL_TRY(qvl_alloc(&result, out_row, TILE_ROWS, "resize rows", err));
    for (size_t y = 0; y < n_rows; y += TILE_ROWS) {
        const size_t n = n_rows - y < TILE_ROWS ? n_rows - y : TILE_ROWS;
        turn(tile, TILE_ROWS, in + y * in_row, in_row, n, in_row);
        weigh_all(result, tile, (size_t)n_channels * TILE_ROWS, &a);
        turn(out + y * out_row, out_row, result, TILE_ROWS, out_row, n);
    }
out:
    axis_fini(&a);
    free(tile);
    free(result);
    return rc;
}

static qvl_status resize_height(uint8_t *out, int32_t out_h, const uint8_t *in, int32_t in_h,
                                int32_t width, int n_channels, qvl_err *err)
{
    axis a = {0};
    const qvl_status rc = axis_init(&a, in_h, out_h, err);
    if (rc == QVL_OK)
        weigh_all(out, in, (size_t)width * (size_t)n_channels, &a);
    axis_fini(&a);
    return rc;
}

bool qvl_resize_is_vertical_first(qvl_image_size out, qvl_image_size in, qvl_pillow pillow)
{
    const int64_t less_height = (int64_t)in.height - out.height;
    const int64_t less_width = (int64_t)in.width - out.width;
    if (pillow == QVL_PILLOW_11 || less_height <= 0)
        return false;
    return pillow == QVL_PILLOW_12 ? in.height > 100 * (int64_t)in.width
                                   : less_height > 2 * less_width;
}

qvl_status qvl_resize_bicubic(uint8_t *out, qvl_image_size out_size, const uint8_t *in,
                              qvl_image_size in_size, int n_channels, qvl_pillow pillow,
                              qvl_err *err)
{
    const int c = n_channels;
    const bool same_w = out_size.width == in_size.width, same_h = out_size.height == in_size.height;
    uint8_t *between = NULL;
    size_t n_between = 0;
    qvl_status rc = QVL_OK;
    if (same_w && same_h) {
        memcpy(out, in, (size_t)in_size.width * (size_t)in_size.height * (size_t)c);
    } else if (same_w) {
        QVL_TRY(resize_height(out, out_size.height, in, in_size.height, in_size.width, c, err));
    } else if (same_h) {
        QVL_TRY(resize_width(out, out_size.width, in, in_size.width, in_size.height, c, err));
    } else if (qvl_resize_is_vertical_first(out_size, in_size, pillow)) {
        n_between = (size_t)in_size.width * (size_t)out_size.height;
        QVL_TRY(qvl_alloc(&between, n_between, (size_t)c, "resized image", err));
        QVL_TRY(resize_height(between, out_size.height, in, in_size.height, in_size.width, c, err));
        QVL_TRY(resize_width(out, out_size.width, between, in_size.width, out_size.height, c, err));
    } else {
        n_between = (size_t)out_size.width * (size_t)in_size.height;
        QVL_TRY(qvl_alloc(&between, n_between, (size_t)c, "resized image", err));
        QVL_TRY(resize_width(between, out_size.width, in, in_size.width, in_size.height, c, err));
        QVL_TRY(
            resize_height(out, out_size.height, between, in_size.height, out_size.width, c, err));
    }
out:
    free(between);
    return rc;
}
