/* What the three decoders share; used by the image files of io only.
 *
 * A decoder has two functions. The header function fills info from a file that may be cut off after
 * the header, and allocates no pixels. The decode function gets an image whose mode, size and
 * zeroed pixels are already set from that header, and fills in the pixels.
 */
#ifndef QVL_IO_IMAGE_CODEC_H
#define QVL_IO_IMAGE_CODEC_H

#include "io/image.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct qvl_image_bytes {
    const uint8_t *data; /* borrowed */
    size_t n_bytes;
    const char *name; /* of the file, for messages */
} qvl_image_bytes;

qvl_status qvl_jpeg_header(qvl_image_info *out, const qvl_image_bytes *file, qvl_err *err);
qvl_status qvl_jpeg_decode(qvl_image *inout, const qvl_image_bytes *file, qvl_err *err);
qvl_status qvl_png_header(qvl_image_info *out, const qvl_image_bytes *file, qvl_err *err);
qvl_status qvl_png_decode(qvl_image *inout, const qvl_image_bytes *file, qvl_err *err);
qvl_status qvl_webp_header(qvl_image_info *out, const qvl_image_bytes *file, qvl_err *err);
qvl_status qvl_webp_decode(qvl_image *inout, const qvl_image_bytes *file, qvl_err *err);

/* The format by the first bytes; QVL_EDATA names what was found instead. */
qvl_status qvl_image_sniff(qvl_image_format *out, const qvl_image_bytes *file, qvl_err *err);

#ifdef __cplusplus
}
#endif
#endif
