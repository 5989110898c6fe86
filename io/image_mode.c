#include "io/image_mode.h"

#include <stdlib.h>
#include <string.h>

#include "src/base/memory.h"

/* a * b / 255, rounded, as Pillow has it. */
static inline uint8_t times_255th(unsigned a, unsigned b)
{
    const unsigned t = a * b + 128;
    return (uint8_t)(((t >> 8) + t) >> 8);
}

/* Inlined with n_channels a constant, 2 or 4: LA or RGBA. */
static inline void premultiply(uint8_t *restrict out, const uint8_t *restrict in, size_t n_pixels,
                               size_t n_channels)
{
    const size_t alpha = n_channels - 1;
    for (size_t i = 0; i < n_pixels * n_channels; i += n_channels) {
        for (size_t c = 0; c < alpha; c++)
            out[i + c] = times_255th(in[i + c], in[i + alpha]);
        out[i + alpha] = in[i + alpha];
    }
}

static inline void unpremultiply(uint8_t *pixels, size_t n_pixels, size_t n_channels)
{
    const size_t n_colours = n_channels - 1;
    for (size_t i = 0; i < n_pixels; i++, pixels += n_channels) {
        const unsigned alpha = pixels[n_colours];
        if (alpha == 0 || alpha == 255)
            continue;
        for (size_t c = 0; c < n_colours; c++) {
            const unsigned colour = 255u * pixels[c] / alpha;
            pixels[c] = (uint8_t)(colour > 255 ? 255 : colour);
        }
    }
}

static qvl_status resize_alpha(uint8_t *out, qvl_image_size to, const qvl_image *image,
                               qvl_pillow pillow, qvl_err *err)
{
    const qvl_image_size from = {image->width, image->height};
    const size_t n_from = (size_t)from.width * (size_t)from.height;
    const size_t n_to = (size_t)to.width * (size_t)to.height;
    const int n_channels = qvl_image_mode_bytes(image->mode);
    uint8_t *copy = NULL;
    qvl_status rc = QVL_OK;
    QVL_TRY(qvl_alloc(&copy, n_from, (size_t)n_channels, "premultiplied image", err));
    if (n_channels == 2)
        premultiply(copy, image->pixels, n_from, 2);
    else
        premultiply(copy, image->pixels, n_from, 4);
    QVL_TRY(qvl_resize_bicubic(out, to, copy, from, n_channels, pillow, err));
    if (n_channels == 2)
        unpremultiply(out, n_to, 2);
    else
        unpremultiply(out, n_to, 4);
out:
    free(copy);
    return rc;
}

static qvl_status resize_pixels(uint8_t *out, qvl_image_size to, const qvl_image *image,
                                qvl_pillow pillow, qvl_err *err)
{
    const qvl_image_size from = {image->width, image->height};
    switch (image->mode) {
    case QVL_MODE_1:
    case QVL_MODE_P:
        return qvl_resize_nearest(out, to, image->pixels, from, err);
    case QVL_MODE_I16:
        return qvl_resize_bicubic_u16((uint16_t *)(void *)out, to,
                                      (const uint16_t *)(const void *)image->pixels, from, pillow,
                                      err);
    case QVL_MODE_LA:
    case QVL_MODE_RGBA:
        return resize_alpha(out, to, image, pillow, err);
    case QVL_MODE_L:
    case QVL_MODE_RGB:
    case QVL_MODE_CMYK:
        break;
    }
    return qvl_resize_bicubic(out, to, image->pixels, from, qvl_image_mode_bytes(image->mode),
                              pillow, err);
}

qvl_status qvl_image_resize(qvl_image *inout, qvl_image_size size, qvl_pillow pillow, qvl_err *err)
{
    const int64_t n_pixels = (int64_t)size.width * size.height;
    uint8_t *pixels = NULL;
    qvl_status rc = QVL_OK;
    if (size.width < 1 || size.height < 1 || n_pixels > QVL_IMAGE_MAX_PIXELS)
        return qvl_fail(err, QVL_EDATA, "resize of %d x %d pixels to %d x %d, the limit is %d",
                        inout->width, inout->height, size.width, size.height, QVL_IMAGE_MAX_PIXELS);
    if (size.width == inout->width && size.height == inout->height)
        return QVL_OK;
    QVL_TRY(qvl_alloc(&pixels, (size_t)n_pixels, (size_t)qvl_image_mode_bytes(inout->mode),
                      "resized image", err));
    QVL_TRY(resize_pixels(pixels, size, inout, pillow, err));
    free(inout->pixels);
    inout->pixels = pixels;
    inout->width = size.width;
    inout->height = size.height;
    pixels = NULL;
out:
    free(pixels);
    return rc;
}

static void grey_to_rgb(uint8_t *rgb, const uint8_t *pixels, size_t n_pixels, size_t step)
{
    for (size_t i = 0; i < n_pixels; i++)
        rgb[3 * i] = rgb[3 * i + 1] = rgb[3 * i + 2] = pixels[step * i];
}

static void palette_to_rgb(uint8_t *rgb, const qvl_image *image, size_t n_pixels)
{
    for (size_t i = 0; i < n_pixels; i++)
        memcpy(rgb + 3 * i, image->palette[image->pixels[i]], 3);
}

static void rgba_to_rgb(uint8_t *rgb, const uint8_t *pixels, size_t n_pixels)
{
    for (size_t i = 0; i < n_pixels; i++)
        memcpy(rgb + 3 * i, pixels + 4 * i, 3);
}

static void cmyk_to_rgb(uint8_t *rgb, const uint8_t *pixels, size_t n_pixels)
{
    for (size_t i = 0; i < n_pixels; i++) {
        const unsigned n = 255u - pixels[4 * i + 3];
        for (size_t c = 0; c < 3; c++) /* never below 0: the product is at most n */
            rgb[3 * i + c] = (uint8_t)(n - times_255th(pixels[4 * i + c], n));
    }
}

static void grey16_to_rgb(uint8_t *rgb, const uint8_t *pixels, size_t n_pixels)
{
    for (size_t i = 0; i < n_pixels; i++) {
        uint16_t grey;
        memcpy(&grey, pixels + 2 * i, sizeof grey);
        rgb[3 * i] = rgb[3 * i + 1] = rgb[3 * i + 2] = (uint8_t)(grey > 255 ? 255 : grey);
    }
}

qvl_status qvl_image_to_rgb(qvl_image *inout, qvl_err *err)
{
    const size_t n = (size_t)inout->width * (size_t)inout->height;
    uint8_t *rgb = NULL;
    qvl_status rc = QVL_OK;
    if (inout->mode == QVL_MODE_RGB)
        return QVL_OK;
    QVL_TRY(qvl_alloc(&rgb, n, 3, "RGB image", err));
    if (inout->mode == QVL_MODE_P)
        palette_to_rgb(rgb, inout, n);
    else if (inout->mode == QVL_MODE_RGBA)
        rgba_to_rgb(rgb, inout->pixels, n);
    else if (inout->mode == QVL_MODE_CMYK)
        cmyk_to_rgb(rgb, inout->pixels, n);
    else if (inout->mode == QVL_MODE_I16)
        grey16_to_rgb(rgb, inout->pixels, n);
    else /* 1, L, LA */
        grey_to_rgb(rgb, inout->pixels, n, (size_t)qvl_image_mode_bytes(inout->mode));
    free(inout->pixels);
    inout->pixels = rgb;
    inout->mode = QVL_MODE_RGB;
out:
    return rc;
}
