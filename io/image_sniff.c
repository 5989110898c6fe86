/* Which format a file has, by its first bytes; and a name for the formats that are not read, so
 * that the message says what to convert. */
#include "io/image_codec.h"

#include <stdbool.h>
#include <stdio.h>
#include <string.h>

typedef struct signature {
    size_t offset;
    const char *bytes;
    size_t n_bytes;
    const char *found;
} signature;

#define AT(offset, text, found)                                                                    \
    {                                                                                              \
        offset, text, sizeof(text) - 1, found                                                      \
    }

static const signature OTHERS[] = {
    AT(0, "GIF87a", "a GIF image"),
    AT(0, "GIF89a", "a GIF image"),
    AT(0, "II*\0", "a TIFF image"),
    AT(0, "MM\0*", "a TIFF image"),
    AT(0, "II+\0", "a BigTIFF image"),
    AT(0, "MM\0+", "a BigTIFF image"),
    AT(4, "ftypavif", "an AVIF image"),
    AT(4, "ftypavis", "an AVIF image"),
    AT(4, "ftypheic", "a HEIC image"),
    AT(4, "ftypheix", "a HEIC image"),
    AT(4, "ftypmif1", "a HEIF image"),
    AT(4, "ftyp", "an MP4 or QuickTime file"),
    AT(4, "jP  \r\n", "a JPEG 2000 image"),
    AT(0, "\xff\x4f\xff\x51", "a JPEG 2000 image"),
    AT(0, "\xff\x0a", "a JPEG XL image"),
    AT(4, "JXL \r\n", "a JPEG XL image"),
    AT(0, "8BPS", "a Photoshop file"),
    AT(0, "qoif", "a QOI image"),
    AT(0, "\0\0\1\0", "an ICO image"),
    AT(0, "P4\n", "a PBM image"),
    AT(0, "P5\n", "a PGM image"),
    AT(0, "P6\n", "a PPM image"),
    AT(0, "\x89HDF", "an HDF5 file"),
    AT(0, "%PDF", "a PDF file"),
    AT(0, "<svg", "an SVG file"),
    AT(0, "<?xml", "an XML or SVG file"),
    AT(0, "<!DOCTYPE", "an HTML page"),
    AT(0, "<!doctype", "an HTML page"),
    AT(0, "<html", "an HTML page"),
    AT(0, "PK\3\4", "a ZIP archive"),
    AT(0, "\x1f\x8b", "a gzip file"),
    AT(8, "AVI ", "an AVI video"),
    AT(0, "BM", "a BMP image"), /* two bytes say little, so it is last */
};

static bool has(const qvl_image_bytes *file, size_t offset, const char *bytes, size_t n_bytes)
{
    return file->n_bytes >= offset + n_bytes && memcmp(file->data + offset, bytes, n_bytes) == 0;
}

static bool is_webp(const qvl_image_bytes *file)
{
    return has(file, 0, "RIFF", 4) && (has(file, 8, "WEBPVP8 ", 8) || has(file, 8, "WEBPVP8L", 8) ||
                                       has(file, 8, "WEBPVP8X", 8));
}

static const char *name_of_other(const qvl_image_bytes *file)
{
    for (size_t i = 0; i < sizeof OTHERS / sizeof *OTHERS; i++)
        if (has(file, OTHERS[i].offset, OTHERS[i].bytes, OTHERS[i].n_bytes))
            return OTHERS[i].found;
    return NULL;
}

qvl_status qvl_image_sniff(qvl_image_format *out, const qvl_image_bytes *file, qvl_err *err)
{
    static const char LFS[] = "version https://git-lfs";
    char start[8 * 3 + 1] = "";
    if (has(file, 0, "\xff\xd8\xff", 3)) {
        *out = QVL_IMAGE_JPEG;
        return QVL_OK;
    }
    if (has(file, 0, "\x89PNG\r\n\x1a\n", 8)) {
        *out = QVL_IMAGE_PNG;
        return QVL_OK;
    }
    if (is_webp(file)) {
        *out = QVL_IMAGE_WEBP;
        return QVL_OK;
    }
    if (file->n_bytes == 0)
        return qvl_fail(err, QVL_EDATA, "%s: is empty, a JPEG, PNG or WebP image was expected",
                        file->name);
    if (has(file, 0, LFS, sizeof LFS - 1))
        return qvl_fail(err, QVL_EDATA,
                        "%s: is a Git LFS pointer, the image itself was not fetched (git lfs pull)",
                        file->name);
    const char *other = name_of_other(file);
    if (other)
        return qvl_fail(err, QVL_EDATA, "%s: is %s; JPEG, PNG and WebP images are read", file->name,
                        other);
    for (size_t i = 0; i < 8 && i < file->n_bytes; i++)
        snprintf(start + 3 * i, 4, " %02x", file->data[i]);
    return qvl_fail(err, QVL_EDATA,
                    "%s: unknown format, first bytes%s; JPEG, PNG and WebP images are read",
                    file->name, start);
}
