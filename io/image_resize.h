/* Resizing as Pillow does it, byte for byte.
 *
 * Bicubic (a = -0.5), per axis with n input and m output samples, in double:
 *
 *     scale = n / m          s = max(scale, 1)      centre of output o: c = (o + 0.5) * scale
 *     samples x from trunc(c - 2s + 0.5), not below 0, to trunc(c + 2s + 0.5), not above n
 *     weight of x: B((x - c + 0.5) / s), divided by the sum of the weights
 *
 * 8-bit channels use weights of 22 fractional bits, rounded half away from zero, int32 sums that
 * start at one half, and a clamp to 0..255; the result between the two axes is 8-bit as well.
 * 16-bit ones use the double weights, and round and clamp to 0..65535 after each axis. An axis that
 * keeps its size is passed over.
 *
 * Which axis comes first depends on the version of Pillow: qvl_pillow. It shows, because of
 * rounding and clamping in between: in an example of 300 x 199 to 308 x 196, in 12 % of the bytes,
 * by up to 7.
 *
 * Nearest: column x of the output is column trunc(p) of the input, where p starts at scale / 2 and
 * scale is added for each column, and the same for rows; a p that rounding takes outside gives 0.
 *
 * out holds out_h * out_w pixels and must not overlap in; all sizes are at least 1. QVL_EDATA when
 * an axis needs more weights than Pillow has room for, QVL_EINTERNAL when there is no memory.
 */
#ifndef QVL_IO_IMAGE_RESIZE_H
#define QVL_IO_IMAGE_RESIZE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "src/base/status.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct qvl_image_size {
    int32_t width, height; /* pixels */
} qvl_image_size;

/* Whose resizes. Horizontal is first, but vertical is first when the height shrinks and
 *
 *     up to 12.1      never
 *     12.2 and 12.3   in_h > 100 in_w
 *     13              in_h - out_h > 2 (in_w - out_w)
 *
 * The last was found by trying 3,700 pairs of sizes, which it explains all. */
typedef enum qvl_pillow {
    QVL_PILLOW_11, /* to 12.1 */
    QVL_PILLOW_12, /* 12.2 and 12.3 */
    QVL_PILLOW_13
} qvl_pillow;

/* in [in.height, in.width, n_channels], out likewise; n_channels 1 to 4. */
qvl_status qvl_resize_bicubic(uint8_t *out, qvl_image_size out_size, const uint8_t *in,
                              qvl_image_size in_size, int n_channels, qvl_pillow pillow,
                              qvl_err *err);

/* One channel of 16 bits in the machine's byte order. */
qvl_status qvl_resize_bicubic_u16(uint16_t *out, qvl_image_size out_size, const uint16_t *in,
                                  qvl_image_size in_size, qvl_pillow pillow, qvl_err *err);

/* One channel of a byte. */
qvl_status qvl_resize_nearest(uint8_t *out, qvl_image_size out_size, const uint8_t *in,
                              qvl_image_size in_size, qvl_err *err);

/* The order of the axes; asked only when both change. */
bool qvl_resize_is_vertical_first(qvl_image_size out, qvl_image_size in, qvl_pillow pillow);

/* The most weights that an output sample of this axis can have. */
int64_t qvl_bicubic_max_taps(int32_t n_in, int32_t n_out);

/* The weights of output sample i_out: weights [qvl_bicubic_max_taps], for inputs from *first on;
 * the return value says how many they are. */
int32_t qvl_bicubic_weights(double *weights, int32_t *first, int32_t n_in, int32_t n_out,
                            int32_t i_out);

/* A weight with 22 fractional bits. */
int32_t qvl_bicubic_fixed(double weight);

#ifdef __cplusplus
}
#endif
#endif
