/* The resizes of rare modes: bicubic of 16 bits, and nearest for palette and bilevel images. */
#include "io/image_resize.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "src/base/memory.h"

/* Rounds half away from zero and clamps. Pillow up to 12 clamps the two bytes one by one, so that
 * the low byte of a sum past 65535 begins again at 0. */
static inline uint16_t to_u16(double sum, bool bytewise)
{
    const int32_t rounded = (int32_t)(sum >= 0.0 ? sum + 0.5 : sum - 0.5);
    if (rounded <= 0)
        return 0;
    if (rounded <= 0xffff)
        return (uint16_t)rounded;
    return (uint16_t)(bytewise ? 0xff00 | (rounded & 0xff) : 0xffff);
}

/* One axis: samples of a line lie `step` elements apart, lines `in_line` and `out_line`. */
static qvl_status resize_axis_u16(uint16_t *out, int32_t n_out, size_t out_line, const uint16_t *in,
                                  int32_t n_in, size_t in_line, size_t n_lines, size_t step,
                                  bool bytewise, qvl_err *err)
{
    double *weights = NULL;
    int32_t first = 0;
    qvl_status rc = QVL_OK;
    QVL_TRY(qvl_alloc(&weights, (size_t)qvl_bicubic_max_taps(n_in, n_out), sizeof *weights,
                      "resize weights", err));
    for (int32_t o = 0; o < n_out; o++) {
        const int32_t n_taps = qvl_bicubic_weights(weights, &first, n_in, n_out, o);
        for (size_t line = 0; line < n_lines; line++) {
            const uint16_t *sample = in + line * in_line + (size_t)first * step;
            double sum = 0.0;
            for (int32_t t = 0; t < n_taps; t++)
                sum += sample[(size_t)t * step] * weights[t];
            out[line * out_line + (size_t)o * step] = to_u16(sum, bytewise);
        }
    }
out:
    free(weights);
    return rc;
}

static qvl_status resize_width_u16(uint16_t *out, int32_t out_w, const uint16_t *in, int32_t in_w,
                                   int32_t height, bool bytewise, qvl_err *err)
{
    return resize_axis_u16(out, out_w, (size_t)out_w, in, in_w, (size_t)in_w, (size_t)height, 1,
                           bytewise, err);
}

static qvl_status resize_height_u16(uint16_t *out, int32_t out_h, const uint16_t *in, int32_t in_h,
                                    int32_t width, bool bytewise, qvl_err *err)
{
    return resize_axis_u16(out, out_h, 1, in, in_h, 1, (size_t)width, (size_t)width, bytewise, err);
}

qvl_status qvl_resize_bicubic_u16(uint16_t *out, qvl_image_size out_size, const uint16_t *in,
                                  qvl_image_size in_size, qvl_pillow pillow, qvl_err *err)
{
    const int32_t w = in_size.width, h = in_size.height;
    const int32_t to_w = out_size.width, to_h = out_size.height;
    const bool vertical_first = qvl_resize_is_vertical_first(out_size, in_size, pillow);
    const size_t n_between = vertical_first ? (size_t)w * (size_t)to_h : (size_t)to_w * (size_t)h;
    const bool bytewise = pillow != QVL_PILLOW_13;
    uint16_t *between = NULL;
    qvl_status rc = QVL_OK;
    if (to_w == w && to_h == h) {
        memcpy(out, in, (size_t)w * (size_t)h * sizeof *out);
        return QVL_OK;
    }
    if (to_w == w)
        return resize_height_u16(out, to_h, in, h, w, bytewise, err);
    if (to_h == h)
        return resize_width_u16(out, to_w, in, w, h, bytewise, err);
    QVL_TRY(qvl_alloc(&between, n_between, sizeof *between, "resized image", err));
    if (vertical_first) {
        QVL_TRY(resize_height_u16(between, to_h, in, h, w, bytewise, err));
        QVL_TRY(resize_width_u16(out, to_w, between, w, to_h, bytewise, err));
    } else {
        QVL_TRY(resize_width_u16(between, to_w, in, w, h, bytewise, err));
        QVL_TRY(resize_height_u16(out, to_h, between, h, to_w, bytewise, err));
    }
out:
    free(between);
    return rc;
}

/* Which input sample each output sample takes, for the first *n_inside outputs; the others take
 * none. The position is summed up, not multiplied out, since the rounding of the sum decides at
 * ties. */
static qvl_status nearest_table(int32_t **out, int32_t *n_inside, int32_t n_in, int32_t n_out,
                                qvl_err *err)
{
    const double scale = (double)(float)n_in / n_out;
    double position = scale * 0.5;
    const qvl_status rc = qvl_alloc(out, (size_t)n_out, sizeof **out, "resize positions", err);
    *n_inside = 0;
    while (rc == QVL_OK && *n_inside < n_out && position < n_in) {
        (*out)[(*n_inside)++] = (int32_t)position;
        position += scale;
    }
    return rc;
}

qvl_status qvl_resize_nearest(uint8_t *out, qvl_image_size out_size, const uint8_t *in,
                              qvl_image_size in_size, qvl_err *err)
{
    const size_t out_row = (size_t)out_size.width;
    int32_t *columns = NULL, *rows = NULL, n_columns = 0, n_rows = 0;
    qvl_status rc = QVL_OK;
    QVL_TRY(nearest_table(&columns, &n_columns, in_size.width, out_size.width, err));
    QVL_TRY(nearest_table(&rows, &n_rows, in_size.height, out_size.height, err));
    for (int32_t y = 0; y < n_rows; y++) {
        uint8_t *to = out + (size_t)y * out_row;
        const uint8_t *from = in + (size_t)rows[y] * (size_t)in_size.width;
        for (int32_t x = 0; x < n_columns; x++)
            to[x] = from[columns[x]];
        memset(to + n_columns, 0, out_row - (size_t)n_columns);
    }
    memset(out + (size_t)n_rows * out_row, 0, ((size_t)out_size.height - (size_t)n_rows) * out_row);
out:
    free(columns);
    free(rows);
    return rc;
}
