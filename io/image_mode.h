/* Operations on whole images in their modes, as Pillow's Image.resize and Image.convert("RGB"). */
#ifndef QVL_IO_IMAGE_MODE_H
#define QVL_IO_IMAGE_MODE_H

#include "io/image.h"
#include "io/image_resize.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Resizes in place: 1 and P take the nearest pixel, the others are bicubic; LA and RGBA go through
 * colour times alpha and back,
 *
 *     t = c * a + 128, c' = (t / 256 + t) / 256        resize        c = min(255, 255 c' / a)
 *
 * with c' kept where a is 0 or 255 after the resize. Nothing happens when the size is the same.
 * QVL_EDATA when size is not 1 x 1 to QVL_IMAGE_MAX_PIXELS; the image is unchanged on failure. */
qvl_status qvl_image_resize(qvl_image *inout, qvl_image_size size, qvl_pillow pillow, qvl_err *err);

/* Converts in place to RGB. 1 and L are replicated. LA and RGBA lose their alpha, without a
 * background. P is looked up in the palette. CMYK gives, with n = 255 - k, n - (t / 256 + t) / 256
 * for t = c * n + 128. I;16 is cut off at 255, not scaled, and replicated: this is what
 * convert("RGB") of Pillow 13 does, so nearly all 16-bit grey images come out white. */
qvl_status qvl_image_to_rgb(qvl_image *inout, qvl_err *err);

#ifdef __cplusplus
}
#endif
#endif
