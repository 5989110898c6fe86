/* From a path or bytes to an image: reading, limits, and the choice of the decoder. */
#include "io/image.h"

#include <stdlib.h>
#include <unistd.h>

#include "io/image_codec.h"
#include "src/base/files.h"
#include "src/base/memory.h"

/* Enough for the header of nearly all files; one with a large colour profile or thumbnail before
 * its size is read whole. */
enum { PROBE_BYTES = 65536 };

static const struct {
    const char *name;
    qvl_status (*header)(qvl_image_info *out, const qvl_image_bytes *file, qvl_err *err);
    qvl_status (*decode)(qvl_image *inout, const qvl_image_bytes *file, qvl_err *err);
} FORMATS[] = {
    [QVL_IMAGE_JPEG] = {"JPEG", qvl_jpeg_header, qvl_jpeg_decode},
    [QVL_IMAGE_PNG] = {"PNG", qvl_png_header, qvl_png_decode},
    [QVL_IMAGE_WEBP] = {"WebP", qvl_webp_header, qvl_webp_decode},
};

static const struct {
    const char *name;
    int n_bytes;
} MODES[] = {
    [QVL_MODE_1] = {"1", 1},       [QVL_MODE_L] = {"L", 1},      [QVL_MODE_LA] = {"LA", 2},
    [QVL_MODE_P] = {"P", 1},       [QVL_MODE_RGB] = {"RGB", 3},  [QVL_MODE_RGBA] = {"RGBA", 4},
    [QVL_MODE_CMYK] = {"CMYK", 4}, [QVL_MODE_I16] = {"I;16", 2},
};

const char *qvl_image_mode_name(qvl_image_mode mode)
{
    return MODES[mode].name;
}

int qvl_image_mode_bytes(qvl_image_mode mode)
{
    return MODES[mode].n_bytes;
}

const char *qvl_image_format_name(qvl_image_format format)
{
    return FORMATS[format].name;
}

void qvl_image_fini(qvl_image *image)
{
    free(image->pixels);
    *image = (qvl_image){0};
}

static qvl_status check_limits(const qvl_image_info *info, const char *name, qvl_err *err)
{
    const int64_t pixels = (int64_t)info->width * info->height;
    if (info->width < 1 || info->height < 1)
        return qvl_fail(err, QVL_EDATA, "%s: %s size %d x %d, expected at least 1 x 1", name,
                        qvl_image_format_name(info->format), info->width, info->height);
    if (pixels > QVL_IMAGE_MAX_PIXELS)
        return qvl_fail(err, QVL_EDATA,
                        "%s: %s of %d x %d pixels = %lld, the limit is %d (decompression bomb?)",
                        name, qvl_image_format_name(info->format), info->width, info->height,
                        (long long)pixels, QVL_IMAGE_MAX_PIXELS);
    return QVL_OK;
}

static qvl_status read_header(qvl_image_info *out, const qvl_image_bytes *file, qvl_err *err)
{
    qvl_status rc = QVL_OK;
    QVL_TRY(qvl_image_sniff(&out->format, file, err));
    QVL_TRY(FORMATS[out->format].header(out, file, err));
out:
    return rc;
}

/* The first n_bytes of a regular file, at most limit of them, into *out (the caller's). */
static qvl_status read_start(uint8_t **out, size_t *out_bytes, int64_t *out_file_bytes,
                             const char *path, int64_t limit, qvl_err *err)
{
    int64_t size = 0;
    int fd = -1;
    qvl_status rc = QVL_OK;
    *out = NULL;
    QVL_TRY(qvl_file_size(&size, path, err));
    *out_file_bytes = size;
    if (size > QVL_IMAGE_MAX_FILE_BYTES) {
        rc = qvl_fail(err, QVL_EDATA, "%s: %lld bytes, the limit for an image file is %d", path,
                      (long long)size, QVL_IMAGE_MAX_FILE_BYTES);
        goto out;
    }
    *out_bytes = (size_t)(size < limit ? size : limit);
    QVL_TRY(qvl_alloc(out, *out_bytes, 1, "image file", err));
    QVL_TRY(qvl_file_open(&fd, path, err));
    QVL_TRY(qvl_file_read_at(fd, *out, *out_bytes, 0, path, err));
out:
    if (fd >= 0)
        close(fd);
    if (rc != QVL_OK) {
        free(*out);
        *out = NULL;
    }
    return rc;
}

qvl_status qvl_image_probe_memory(qvl_image_info *out, const void *bytes, size_t n_bytes,
                                  const char *name, qvl_err *err)
{
    const qvl_image_bytes file = {bytes, n_bytes, name};
    qvl_status rc = QVL_OK;
    *out = (qvl_image_info){0};
    QVL_TRY(read_header(out, &file, err));
    QVL_TRY(check_limits(out, name, err));
out:
    return rc;
}

qvl_status qvl_image_probe(qvl_image_info *out, const char *path, qvl_err *err)
{
    qvl_image_bytes file = {.name = path};
    uint8_t *data = NULL;
    int64_t file_bytes = 0;
    qvl_status rc = QVL_OK;
    *out = (qvl_image_info){0};
    QVL_TRY(read_start(&data, &file.n_bytes, &file_bytes, path, PROBE_BYTES, err));
    file.data = data;
    if (file_bytes > PROBE_BYTES && qvl_image_sniff(&out->format, &file, NULL) == QVL_OK &&
        read_header(out, &file, NULL) != QVL_OK) {
        free(data);
        QVL_TRY(read_start(&data, &file.n_bytes, &file_bytes, path, QVL_IMAGE_MAX_FILE_BYTES, err));
        file.data = data;
    }
    QVL_TRY(qvl_image_probe_memory(out, file.data, file.n_bytes, path, err));
out:
    free(data);
    return rc;
}

qvl_status qvl_image_decode(qvl_image *out, const void *bytes, size_t n_bytes, const char *name,
                            qvl_err *err)
{
    const qvl_image_bytes file = {bytes, n_bytes, name};
    qvl_image_info info;
    qvl_status rc = QVL_OK;
    *out = (qvl_image){0};
    QVL_TRY(qvl_image_probe_memory(&info, bytes, n_bytes, name, err));
    out->mode = info.mode;
    out->width = info.width;
    out->height = info.height;
    QVL_TRY(qvl_alloc(&out->pixels, (size_t)info.width * (size_t)info.height,
                      (size_t)qvl_image_mode_bytes(info.mode), name, err));
    QVL_TRY(FORMATS[info.format].decode(out, &file, err));
out:
    if (rc != QVL_OK)
        qvl_image_fini(out);
    return rc;
}

qvl_status qvl_image_load(qvl_image *out, const char *path, qvl_err *err)
{
    uint8_t *data = NULL;
    size_t n_bytes = 0;
    int64_t file_bytes = 0;
    qvl_status rc = QVL_OK;
    *out = (qvl_image){0};
    QVL_TRY(read_start(&data, &n_bytes, &file_bytes, path, QVL_IMAGE_MAX_FILE_BYTES, err));
    QVL_TRY(qvl_image_decode(out, data, n_bytes, path, err));
out:
    free(data);
    return rc;
}
