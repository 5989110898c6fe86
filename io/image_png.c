/* PNG through libpng, into the modes of Pillow. Only IHDR, PLTE and IDAT are read: the ancillary
 * chunks do not change the pixels, and passing over them means that a compressed text or profile
 * cannot be a bomb. As in Pillow the checksums count up to the image data, and not within it. */
#include "io/image_codec.h"

#include <png.h>
#include <setjmp.h>
#include <stdbool.h>
#include <string.h>

enum {
    MAX_SIDE = 0x7fffffff,              /* the number of pixels is limited elsewhere */
    MAX_CHUNK_BYTES = 64 * 1024 * 1024, /* as much as Pillow allows for all text of a file */
    MAX_CHUNKS_KEPT = 8
};

typedef struct reader {
    png_structp png;
    png_infop info;
    jmp_buf jump;
    const qvl_image_bytes *file;
    size_t next; /* first byte not read yet */
    qvl_image_info found;
    qvl_image *image; /* NULL for the header alone */
    qvl_err *err;
} reader;

static void on_error(png_structp png, png_const_charp text)
{
    reader *r = png_get_error_ptr(png);
    qvl_fail(r->err, QVL_EDATA, "%s: damaged PNG: %s", r->file->name, text);
    longjmp(r->jump, 1);
}

static void ignore_warning(png_structp png, png_const_charp text)
{
    (void)png;
    (void)text;
}

static void read_bytes(png_structp png, png_bytep out, size_t n_bytes)
{
    reader *r = png_get_io_ptr(png);
    if (n_bytes > r->file->n_bytes - r->next) {
        qvl_fail(r->err, QVL_EDATA, "%s: truncated PNG, the data ends after %zu bytes",
                 r->file->name, r->file->n_bytes);
        longjmp(r->jump, 1);
    }
    memcpy(out, r->file->data + r->next, n_bytes);
    r->next += n_bytes;
}

static qvl_status mode_of(qvl_image_mode *out, reader *r)
{
    const int depth = png_get_bit_depth(r->png, r->info);
    switch (png_get_color_type(r->png, r->info)) {
    case PNG_COLOR_TYPE_GRAY:
        *out = depth == 1 ? QVL_MODE_1 : depth == 16 ? QVL_MODE_I16 : QVL_MODE_L;
        return QVL_OK;
    case PNG_COLOR_TYPE_GRAY_ALPHA:
        *out = depth == 16 ? QVL_MODE_RGBA : QVL_MODE_LA;
        return QVL_OK;
    case PNG_COLOR_TYPE_PALETTE:
        *out = QVL_MODE_P;
        return QVL_OK;
    case PNG_COLOR_TYPE_RGB:
        *out = QVL_MODE_RGB;
        return QVL_OK;
    case PNG_COLOR_TYPE_RGB_ALPHA:
        *out = QVL_MODE_RGBA;
        return QVL_OK;
    default:
        return qvl_fail(r->err, QVL_EDATA, "%s: damaged PNG: colour type %d", r->file->name,
                        png_get_color_type(r->png, r->info));
    }
}

static qvl_status read_info(reader *r)
{
    qvl_status rc = QVL_OK;
    png_set_read_fn(r->png, r, read_bytes);
    png_set_user_limits(r->png, MAX_SIDE, MAX_SIDE);
    png_set_chunk_malloc_max(r->png, MAX_CHUNK_BYTES);
    png_set_chunk_cache_max(r->png, MAX_CHUNKS_KEPT);
    png_set_keep_unknown_chunks(r->png, PNG_HANDLE_CHUNK_NEVER, NULL, -1);
    png_set_crc_action(r->png, PNG_CRC_ERROR_QUIT, PNG_CRC_ERROR_QUIT);
    png_read_info(r->png, r->info);
    r->found.format = QVL_IMAGE_PNG;
    r->found.width = (int32_t)png_get_image_width(r->png, r->info);
    r->found.height = (int32_t)png_get_image_height(r->png, r->info);
    QVL_TRY(mode_of(&r->found.mode, r));
out:
    return rc;
}

/* Asks libpng for the bytes of our mode. */
static void set_transforms(reader *r)
{
    const int depth = png_get_bit_depth(r->png, r->info);
    const qvl_image_mode mode = r->found.mode;
    png_set_packing(r->png); /* an index of 1, 2 or 4 bits to a byte */
    if (mode == QVL_MODE_1 || mode == QVL_MODE_L)
        png_set_expand_gray_1_2_4_to_8(r->png);
    if (depth == 16 && mode != QVL_MODE_I16)
        png_set_strip_16(r->png); /* the high byte, without rounding */
    if (mode == QVL_MODE_RGBA && !(png_get_color_type(r->png, r->info) & PNG_COLOR_MASK_COLOR))
        png_set_gray_to_rgb(r->png);
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
    if (mode == QVL_MODE_I16)
        png_set_swap(r->png);
#endif
}

static void copy_palette(reader *r)
{
    png_colorp colors = NULL;
    int n = 0;
    if (png_get_PLTE(r->png, r->info, &colors, &n) != PNG_INFO_PLTE)
        return;
    for (int i = 0; i < n && i < 256; i++) {
        r->image->palette[i][0] = colors[i].red;
        r->image->palette[i][1] = colors[i].green;
        r->image->palette[i][2] = colors[i].blue;
    }
}

static qvl_status read_rows(reader *r)
{
    const size_t row_bytes = (size_t)r->image->width * (size_t)qvl_image_mode_bytes(r->image->mode);
    set_transforms(r);
    const int n_passes = png_set_interlace_handling(r->png);
    png_set_crc_action(r->png, PNG_CRC_QUIET_USE, PNG_CRC_QUIET_USE);
    png_read_update_info(r->png, r->info);
    if (r->found.width != r->image->width || r->found.height != r->image->height ||
        r->found.mode != r->image->mode || png_get_rowbytes(r->png, r->info) != row_bytes)
        return qvl_fail(r->err, QVL_EINTERNAL, "%s: PNG rows of %zu bytes, expected %zu",
                        r->file->name, (size_t)png_get_rowbytes(r->png, r->info), row_bytes);
    copy_palette(r);
    for (int pass = 0; pass < n_passes; pass++)
        for (int32_t y = 0; y < r->image->height; y++)
            png_read_row(r->png, r->image->pixels + (size_t)y * row_bytes, NULL);
    return QVL_OK; /* what follows the last row is not looked at */
}

static qvl_status read_all(reader *r)
{
    qvl_status rc = QVL_OK;
    QVL_TRY(read_info(r));
    if (r->image)
        QVL_TRY(read_rows(r));
out:
    return rc;
}

/* Nothing local changes between setjmp and longjmp: all state is in *r. */
static qvl_status run(reader *r)
{
    qvl_status rc;
    r->png = png_create_read_struct(PNG_LIBPNG_VER_STRING, r, on_error, ignore_warning);
    if (r->png)
        r->info = png_create_info_struct(r->png);
    if (!r->info)
        rc = qvl_fail(r->err, QVL_EINTERNAL, "%s: libpng %s does not start (built for %s)",
                      r->file->name, png_get_libpng_ver(NULL), PNG_LIBPNG_VER_STRING);
    else if (setjmp(r->jump))
        rc = QVL_EDATA;
    else
        rc = read_all(r);
    png_destroy_read_struct(&r->png, &r->info, NULL);
    return rc;
}

qvl_status qvl_png_header(qvl_image_info *out, const qvl_image_bytes *file, qvl_err *err)
{
    reader r = {.file = file, .err = err};
    const qvl_status rc = run(&r);
    if (rc == QVL_OK)
        *out = r.found;
    return rc;
}

qvl_status qvl_png_decode(qvl_image *inout, const qvl_image_bytes *file, qvl_err *err)
{
    reader r = {.file = file, .err = err, .image = inout};
    return run(&r);
}
