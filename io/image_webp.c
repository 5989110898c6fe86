/* WebP through libwebp's animation decoder, which Pillow uses for still images as well: the first
 * frame on its canvas, as RGBA, of which the alpha is dropped when the file has none. */
#include "io/image_codec.h"

#include <string.h>

#include <webp/decode.h>
#include <webp/demux.h>

qvl_status qvl_webp_header(qvl_image_info *out, const qvl_image_bytes *file, qvl_err *err)
{
    WebPBitstreamFeatures features;
    const VP8StatusCode code = WebPGetFeatures(file->data, file->n_bytes, &features);
    if (code == VP8_STATUS_NOT_ENOUGH_DATA)
        return qvl_fail(err, QVL_EDATA, "%s: truncated WebP, the data ends after %zu bytes",
                        file->name, file->n_bytes);
    if (code != VP8_STATUS_OK)
        return qvl_fail(err, QVL_EDATA, "%s: damaged WebP: header not understood (code %d)",
                        file->name, (int)code);
    out->format = QVL_IMAGE_WEBP;
    out->mode = features.has_alpha ? QVL_MODE_RGBA : QVL_MODE_RGB;
    out->width = features.width;
    out->height = features.height;
    return QVL_OK;
}

/* Four bytes a pixel from the decoder's canvas to the three or four of the image. */
static void copy_pixels(qvl_image *image, const uint8_t *rgba)
{
    const size_t n = (size_t)image->width * (size_t)image->height;
    if (image->mode == QVL_MODE_RGBA) {
        memcpy(image->pixels, rgba, n * 4);
        return;
    }
    for (size_t i = 0; i < n; i++) {
        image->pixels[3 * i] = rgba[4 * i];
        image->pixels[3 * i + 1] = rgba[4 * i + 1];
        image->pixels[3 * i + 2] = rgba[4 * i + 2];
    }
}

qvl_status qvl_webp_decode(qvl_image *inout, const qvl_image_bytes *file, qvl_err *err)
{
    const WebPData data = {file->data, file->n_bytes};
    WebPAnimDecoder *decoder = WebPAnimDecoderNew(&data, NULL);
    WebPAnimInfo info;
    uint8_t *rgba = NULL;
    int time_ms = 0;
    qvl_status rc = QVL_OK;
    if (!decoder || !WebPAnimDecoderGetInfo(decoder, &info))
        rc = qvl_fail(err, QVL_EDATA, "%s: damaged or truncated WebP (%zu bytes)", file->name,
                      file->n_bytes);
    else if (info.canvas_width != (uint32_t)inout->width ||
             info.canvas_height != (uint32_t)inout->height)
        rc = qvl_fail(err, QVL_EDATA, "%s: damaged WebP: canvas %u x %u, the header says %d x %d",
                      file->name, info.canvas_width, info.canvas_height, inout->width,
                      inout->height);
    else if (!WebPAnimDecoderGetNext(decoder, &rgba, &time_ms))
        rc = qvl_fail(err, QVL_EDATA, "%s: damaged WebP: the first frame does not decode",
                      file->name);
    else
        copy_pixels(inout, rgba);
    WebPAnimDecoderDelete(decoder);
    return rc;
}
