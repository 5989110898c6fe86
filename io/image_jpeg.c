/* JPEG through libjpeg-turbo, with the defaults that Pillow leaves as they are: accurate integer
 * DCT, smooth upsampling. Whether a damaged file is refused follows Pillow too. The library's
 * warnings about damaged data are ignored, but data that ends before the last row is an error: the
 * source of data never invents an end-of-image marker, it says that there is no more. */
#include "io/image_codec.h"

#include <setjmp.h>
#include <stdbool.h>
#include <string.h>

#include <stdio.h> /* jpeglib.h needs size_t and FILE */

#include <jerror.h>
#include <jpeglib.h>

/* A progressive file of a few KB can ask for thousands of passes over a large image. Encoders make
 * about ten scans, libjpeg's own fuzzers stop at this number as well. */
enum { MAX_SCANS = 500, ROWS_PER_CALL = 16 };

typedef struct reader {
    struct jpeg_error_mgr errors; /* first, so that cinfo.err leads back here */
    struct jpeg_decompress_struct cinfo;
    struct jpeg_source_mgr source;
    struct jpeg_progress_mgr progress;
    jmp_buf jump;
    const qvl_image_bytes *file;
    qvl_image_info info;
    qvl_image *image; /* NULL for the header alone */
    qvl_err *err;
} reader;

static void on_error(j_common_ptr cinfo)
{
    reader *r = (reader *)(void *)cinfo->err;
    char text[JMSG_LENGTH_MAX];
    cinfo->err->format_message(cinfo, text);
    qvl_fail(r->err, QVL_EDATA, "%s: damaged JPEG: %s", r->file->name, text);
    longjmp(r->jump, 1);
}

static void ignore_message(j_common_ptr cinfo)
{
    (void)cinfo;
}

static void limit_scans(j_common_ptr cinfo)
{
    reader *r = (reader *)(void *)cinfo->err;
    if (!cinfo->is_decompressor || r->cinfo.input_scan_number <= MAX_SCANS)
        return;
    qvl_fail(r->err, QVL_EDATA, "%s: JPEG with more than %d scans", r->file->name, MAX_SCANS);
    longjmp(r->jump, 1);
}

static void source_nothing(j_decompress_ptr cinfo)
{
    (void)cinfo;
}

static boolean source_no_more(j_decompress_ptr cinfo)
{
    (void)cinfo;
    return FALSE;
}

static void source_skip(j_decompress_ptr cinfo, long n_bytes)
{
    struct jpeg_source_mgr *source = cinfo->src;
    const size_t skip = n_bytes < 0                                 ? 0
                        : (size_t)n_bytes > source->bytes_in_buffer ? source->bytes_in_buffer
                                                                    : (size_t)n_bytes;
    source->next_input_byte += skip;
    source->bytes_in_buffer -= skip;
}

static qvl_status fail_truncated(reader *r)
{
    return qvl_fail(r->err, QVL_EDATA, "%s: truncated JPEG, the data ends after %zu bytes",
                    r->file->name, r->file->n_bytes);
}

static qvl_status read_info(reader *r)
{
    static const qvl_image_mode MODES[5] = {
        [1] = QVL_MODE_L, [3] = QVL_MODE_RGB, [4] = QVL_MODE_CMYK};
    static const J_COLOR_SPACE SPACES[5] = {[1] = JCS_GRAYSCALE, [3] = JCS_RGB, [4] = JCS_CMYK};
    int found;
    do
        found = jpeg_read_header(&r->cinfo, FALSE);
    while (found == JPEG_HEADER_TABLES_ONLY);
    if (found != JPEG_HEADER_OK)
        return fail_truncated(r);
    const int n = r->cinfo.num_components;
    if (n != 1 && n != 3 && n != 4)
        return qvl_fail(r->err, QVL_EDATA, "%s: JPEG of %d components, expected 1, 3 or 4",
                        r->file->name, n);
    r->info = (qvl_image_info){QVL_IMAGE_JPEG, MODES[n], (int32_t)r->cinfo.image_width,
                               (int32_t)r->cinfo.image_height};
    r->cinfo.out_color_space = SPACES[n];
    return QVL_OK;
}

static qvl_status read_rows(reader *r)
{
    const size_t row_bytes = (size_t)r->image->width * (size_t)qvl_image_mode_bytes(r->image->mode);
    const uint32_t height = (uint32_t)r->image->height;
    if (r->info.width != r->image->width || r->info.height != r->image->height ||
        r->info.mode != r->image->mode)
        return qvl_fail(r->err, QVL_EINTERNAL, "%s: JPEG header read twice differs", r->file->name);
    if (!jpeg_start_decompress(&r->cinfo))
        return fail_truncated(r);
    while (r->cinfo.output_scanline < height) {
        JSAMPROW rows[ROWS_PER_CALL];
        const uint32_t y = r->cinfo.output_scanline;
        const uint32_t n = height - y < ROWS_PER_CALL ? height - y : ROWS_PER_CALL;
        for (uint32_t i = 0; i < n; i++)
            rows[i] = r->image->pixels + (size_t)(y + i) * row_bytes;
        if (jpeg_read_scanlines(&r->cinfo, rows, n) == 0)
            return fail_truncated(r);
    }
    /* Damage after the last row counts, an early end there does not. */
    (void)jpeg_finish_decompress(&r->cinfo);
    return QVL_OK;
}

static qvl_status read_all(reader *r)
{
    qvl_status rc = QVL_OK;
    r->source.next_input_byte = r->file->data;
    r->source.bytes_in_buffer = r->file->n_bytes;
    r->source.init_source = r->source.term_source = source_nothing;
    r->source.fill_input_buffer = source_no_more;
    r->source.skip_input_data = source_skip;
    r->source.resync_to_restart = jpeg_resync_to_restart;
    r->progress.progress_monitor = limit_scans;
    jpeg_create_decompress(&r->cinfo);
    r->cinfo.src = &r->source;
    r->cinfo.progress = &r->progress;
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
    r->cinfo.err = jpeg_std_error(&r->errors);
    r->errors.error_exit = on_error;
    r->errors.output_message = ignore_message;
    if (setjmp(r->jump))
        rc = QVL_EDATA;
    else
        rc = read_all(r);
    jpeg_destroy_decompress(&r->cinfo);
    return rc;
}

qvl_status qvl_jpeg_header(qvl_image_info *out, const qvl_image_bytes *file, qvl_err *err)
{
    reader r = {.file = file, .err = err};
    const qvl_status rc = run(&r);
    if (rc == QVL_OK)
        *out = r.info;
    return rc;
}

qvl_status qvl_jpeg_decode(qvl_image *inout, const qvl_image_bytes *file, qvl_err *err)
{
    reader r = {.file = file, .err = err, .image = inout};
    const qvl_status rc = run(&r);
    if (rc == QVL_OK && inout->mode == QVL_MODE_CMYK) {
        /* Adobe stores the complement, and Pillow takes every such file for Adobe's. */
        const size_t n = (size_t)inout->width * (size_t)inout->height * 4;
        for (size_t i = 0; i < n; i++)
            inout->pixels[i] = (uint8_t)~inout->pixels[i];
    }
    return rc;
}
