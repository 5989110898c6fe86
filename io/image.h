/* Reading images: JPEG, PNG and WebP files into the pixels that Pillow gives for them.
 *
 * A decoded image keeps the mode of its file, named as Pillow names it, because the resizes of the
 * data pipeline come before the conversion to RGB (io/image_pipeline.h). The format is recognised
 * by the content, never by the name. The EXIF orientation is not applied, as the reference does not
 * apply it. Of an animation the first frame is read.
 *
 *     mode   bytes  a pixel                           comes from
 *     1        1    0 or 255                          PNG grey, 1 bit
 *     L        1    grey                              JPEG grey; PNG grey, 2, 4 and 8 bits
 *     LA       2    grey, alpha                       PNG grey and alpha, 8 bits
 *     P        1    index into the palette            PNG palette, 1 to 8 bits
 *     RGB      3                                      JPEG; PNG, 8 bits and 16 (high byte); WebP
 *     RGBA     4                                      PNG, 8 bits and 16 (high byte); PNG grey and
 *                                                     alpha, 16 bits; WebP with alpha
 *     CMYK     4    0 is no ink                       JPEG of four components, always inverted
 *     I;16     2    uint16, the machine's byte order  PNG grey, 16 bits
 *
 * Transparency that is not an alpha channel (PNG's tRNS) has no effect on pixels. Damaged files are
 * refused or tolerated as Pillow 13 does it, with these exceptions. Refused here only: PNG files
 * that end within the checksum of the image data, or whose image data ends early at the end of a
 * row; palette images without a palette; JPEG files of over 500 scans; and kinds of JPEG that the
 * installed libjpeg lacks (lossless ones, before libjpeg-turbo 3). Tolerated here only: nonsense in
 * PNG chunks that do not change the pixels, as long as their checksums are right, since they are
 * not read.
 *
 * All functions may be called by many threads at once.
 */
#ifndef QVL_IO_IMAGE_H
#define QVL_IO_IMAGE_H

#include <stddef.h>
#include <stdint.h>

#include "src/base/status.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Twice Pillow's MAX_IMAGE_PIXELS, where its warning turns into an error. */
#define QVL_IMAGE_MAX_PIXELS     178956970
#define QVL_IMAGE_MAX_FILE_BYTES (512 * 1024 * 1024)

typedef enum qvl_image_format { QVL_IMAGE_JPEG, QVL_IMAGE_PNG, QVL_IMAGE_WEBP } qvl_image_format;

typedef enum qvl_image_mode {
    QVL_MODE_1,
    QVL_MODE_L,
    QVL_MODE_LA,
    QVL_MODE_P,
    QVL_MODE_RGB,
    QVL_MODE_RGBA,
    QVL_MODE_CMYK,
    QVL_MODE_I16
} qvl_image_mode;

/* What the header says. width and height are at least 1 and their product is at most
 * QVL_IMAGE_MAX_PIXELS. */
typedef struct qvl_image_info {
    qvl_image_format format;
    qvl_image_mode mode;
    int32_t width, height;
} qvl_image_info;

/* Start with {0}; qvl_image_fini frees it. Rows follow one another without gaps. */
typedef struct qvl_image {
    qvl_image_mode mode;
    int32_t width, height;
    uint8_t *pixels;         /* [height, width, qvl_image_mode_bytes(mode)] */
    uint8_t palette[256][3]; /* P only; RGB, black where the file gives no colour */
} qvl_image;

void qvl_image_fini(qvl_image *image);

const char *qvl_image_mode_name(qvl_image_mode mode); /* "RGB", "I;16" */
int qvl_image_mode_bytes(qvl_image_mode mode);        /* of a pixel */
const char *qvl_image_format_name(qvl_image_format format);

/* The header alone, without decoding: reads the first 64 KiB of the file, and the rest only when
 * the header is longer. QVL_EMISSING when there is no such file or it is not a regular one;
 * QVL_EDATA when it is empty, of another format, damaged in its header or over a limit. */
qvl_status qvl_image_probe(qvl_image_info *out, const char *path, qvl_err *err);

/* The same for a file in memory, which name stands for in messages. */
qvl_status qvl_image_probe_memory(qvl_image_info *out, const void *bytes, size_t n_bytes,
                                  const char *name, qvl_err *err);

/* Decodes a file; *out is the caller's, empty on failure. Sizes are checked against the limits
 * before there is memory for pixels. Errors as qvl_image_probe, and QVL_EDATA for damaged or
 * truncated data, QVL_EINTERNAL when there is no memory. */
qvl_status qvl_image_load(qvl_image *out, const char *path, qvl_err *err);
qvl_status qvl_image_decode(qvl_image *out, const void *bytes, size_t n_bytes, const char *name,
                            qvl_err *err);

#ifdef __cplusplus
}
#endif
#endif
