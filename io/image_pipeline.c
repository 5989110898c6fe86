#include "io/image_pipeline.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "io/image_mode.h"

enum { MAX_RATIO = 200, CUT_RATIO = 180 };

const qvl_image_limits qvl_image_limits_default = {
    .image_max_pixels = 768 * 768,
    .image_min_pixels = 32 * 32,
    .max_pixels = 12845056,
    .min_pixels = 3136,
    .patch_px = 14,
    .merge = 2,
    .temporal = 2,
    .pillow = QVL_PILLOW_12,
};

const qvl_image_norm qvl_image_norm_default = {
    .mean = {0.48145466, 0.4578275, 0.40821073},
    .std = {0.26862954, 0.26130258, 0.27577711},
};

/* ---- sizes ---- */

qvl_status qvl_image_limits_check(const qvl_image_limits *limits, qvl_err *err)
{
    const struct {
        const char *key;
        int64_t value, most;
    } checks[] = {
        {"image_max_pixels", limits->image_max_pixels, INT64_MAX},
        {"image_min_pixels", limits->image_min_pixels, QVL_IMAGE_MAX_PIXELS},
        {"max_pixels", limits->max_pixels, INT64_MAX},
        {"min_pixels", limits->min_pixels, QVL_IMAGE_MAX_PIXELS},
        {"patch_size", limits->patch_px, 1024},
        {"merge_size", limits->merge, 64},
        {"temporal_patch_size", limits->temporal, 64},
    };
    for (size_t i = 0; i < sizeof checks / sizeof *checks; i++)
        if (checks[i].value < 1 || checks[i].value > checks[i].most)
            return qvl_fail(err, QVL_ECONFIG, "%s = %lld, expected 1 to %lld", checks[i].key,
                            (long long)checks[i].value, (long long)checks[i].most);
    return QVL_OK;
}

static qvl_status check_size(double width, double height, qvl_image_size from, const char *step,
                             const char *name, qvl_err *err)
{
    if (width >= 1 && height >= 1 && width * height <= QVL_IMAGE_MAX_PIXELS)
        return QVL_OK;
    return qvl_fail(err, QVL_EDATA,
                    "%s: %s turns %d x %d pixels into %.0f x %.0f, expected 1 x 1 to %d in all",
                    name, step, from.width, from.height, width, height, QVL_IMAGE_MAX_PIXELS);
}

qvl_status qvl_smart_resize(qvl_image_size *out, qvl_image_size size,
                            const qvl_image_limits *limits, const char *name, qvl_err *err)
{
    const double unit = (double)limits->patch_px * limits->merge;
    const double w = size.width, h = size.height;
    const double longer = w > h ? w : h, shorter = w > h ? h : w;
    double to_w = rint(w / unit) * unit, to_h = rint(h / unit) * unit;
    if (!(longer / shorter <= MAX_RATIO))
        return qvl_fail(err, QVL_EDATA, "%s: absolute aspect ratio of %d x %d pixels is over %d",
                        name, size.width, size.height, MAX_RATIO);
    if (to_w * to_h > (double)limits->max_pixels) {
        const double beta = sqrt(w * h / (double)limits->max_pixels);
        to_w = fmax(unit, floor(w / beta / unit) * unit);
        to_h = fmax(unit, floor(h / beta / unit) * unit);
    } else if (to_w * to_h < (double)limits->min_pixels) {
        const double beta = sqrt((double)limits->min_pixels / (w * h));
        to_w = ceil(w * beta / unit) * unit;
        to_h = ceil(h * beta / unit) * unit;
    }
    const qvl_status rc = check_size(to_w, to_h, size, "the processor's resize", name, err);
    if (rc == QVL_OK)
        *out = (qvl_image_size){(int32_t)to_w, (int32_t)to_h};
    return rc;
}

/* Adds a resize to list and makes it the current size. */
static qvl_status add_step(qvl_image_size *list, int *n, qvl_image_size *now, double width,
                           double height, const char *step, const char *name, qvl_err *err)
{
    const qvl_status rc = check_size(width, height, *now, step, name, err);
    if (rc == QVL_OK)
        list[(*n)++] = *now = (qvl_image_size){(int32_t)width, (int32_t)height};
    return rc;
}

qvl_status qvl_image_plan_sizes(qvl_image_plan *out, qvl_image_size size,
                                const qvl_image_limits *limits, const char *name, qvl_err *err)
{
    const double most = (double)limits->image_max_pixels, least = (double)limits->image_min_pixels;
    const double unit = (double)limits->patch_px * limits->merge;
    qvl_image_size now = size;
    qvl_image_plan plan = {0};
    double f;
    qvl_status rc = QVL_OK;
    QVL_TRY(qvl_image_limits_check(limits, err));
    QVL_TRY(check_size(size.width, size.height, size, "decoding", name, err));
#define STEP(list, w, h, what)                                                                     \
    QVL_TRY(add_step(plan.list, &plan.n_##list, &now, w, h, what, name, err))
    if ((f = (double)now.width * now.height) > most) {
        f = sqrt(most / f);
        STEP(native, trunc(now.width * f), trunc(now.height * f), "image_max_pixels");
    }
    if ((f = (double)now.width * now.height) < least) {
        f = sqrt(least / f);
        STEP(native, trunc(now.width * f), trunc(now.height * f), "image_min_pixels");
    }
    if (now.width < unit || now.height < unit)
        STEP(rgb, fmax(now.width, unit), fmax(now.height, unit), "the smallest side");
    if ((double)now.width / now.height > MAX_RATIO)
        STEP(rgb, (double)now.height * CUT_RATIO, now.height, "the widest ratio");
    if ((double)now.height / now.width > MAX_RATIO)
        STEP(rgb, now.width, (double)now.width * CUT_RATIO, "the tallest ratio");
#undef STEP
    QVL_TRY(qvl_smart_resize(&plan.size, now, limits, name, err));
    plan.rgb[plan.n_rgb++] = plan.size;
    plan.grid_thw[0] = 1;
    plan.grid_thw[1] = plan.size.height / limits->patch_px;
    plan.grid_thw[2] = plan.size.width / limits->patch_px;
    *out = plan;
out:
    return rc;
}

/* ---- pixels ---- */

void qvl_prepared_image_fini(qvl_prepared_image *prepared)
{
    free(prepared->rgb);
    *prepared = (qvl_prepared_image){0};
}

/* The same failure with the name of the image. */
static qvl_status resize(qvl_image *image, qvl_image_size size, qvl_pillow pillow, const char *name,
                         qvl_err *err)
{
    qvl_err why = {0};
    const qvl_status rc = qvl_image_resize(image, size, pillow, &why);
    return rc == QVL_OK ? QVL_OK : qvl_fail(err, rc, "%s: %s", name, why.text);
}

qvl_status qvl_image_prepare_pixels(qvl_prepared_image *out, qvl_image *image,
                                    const qvl_image_limits *limits, const char *name, qvl_err *err)
{
    const qvl_image_size size = {image->width, image->height};
    qvl_image_plan plan;
    qvl_status rc = QVL_OK;
    *out = (qvl_prepared_image){0};
    QVL_TRY(qvl_image_plan_sizes(&plan, size, limits, name, err));
    for (int i = 0; i < plan.n_native; i++)
        QVL_TRY(resize(image, plan.native[i], limits->pillow, name, err));
    QVL_TRY(qvl_image_to_rgb(image, err));
    for (int i = 0; i < plan.n_rgb; i++)
        QVL_TRY(resize(image, plan.rgb[i], limits->pillow, name, err));
    out->rgb = image->pixels;
    out->size = plan.size;
    memcpy(out->grid_thw, plan.grid_thw, sizeof plan.grid_thw);
    image->pixels = NULL;
out:
    qvl_image_fini(image);
    return rc;
}

qvl_status qvl_image_prepare(qvl_prepared_image *out, const char *path,
                             const qvl_image_limits *limits, qvl_err *err)
{
    qvl_image image = {0};
    qvl_status rc = QVL_OK;
    *out = (qvl_prepared_image){0};
    QVL_TRY(qvl_image_load(&image, path, err));
    QVL_TRY(qvl_image_prepare_pixels(out, &image, limits, path, err));
out:
    return rc;
}

qvl_status qvl_image_prepare_memory(qvl_prepared_image *out, const void *bytes, size_t n_bytes,
                                    const char *name, const qvl_image_limits *limits, qvl_err *err)
{
    qvl_image image = {0};
    qvl_status rc = QVL_OK;
    *out = (qvl_prepared_image){0};
    QVL_TRY(qvl_image_decode(&image, bytes, n_bytes, name, err));
    QVL_TRY(qvl_image_prepare_pixels(out, &image, limits, name, err));
out:
    return rc;
}

/* ---- patches ---- */

/* The float32 value of each byte in each channel. */
static void fill_table(float table[3][256], const qvl_image_norm *norm)
{
    for (int c = 0; c < 3; c++)
        for (int p = 0; p < 256; p++)
            table[c][p] = ((float)(p * (1.0 / 255.0)) - (float)norm->mean[c]) / (float)norm->std[c];
}

/* One patch whose upper left pixel is at rgb: out [3, temporal, side, side]. */
static void cut_patch(float *out, const uint8_t *rgb, size_t row_bytes, size_t side,
                      size_t temporal, const float table[3][256])
{
    for (size_t c = 0; c < 3; c++) {
        float *first = out + c * temporal * side * side;
        for (size_t y = 0; y < side; y++)
            for (size_t x = 0; x < side; x++)
                first[y * side + x] = table[c][rgb[y * row_bytes + 3 * x + c]];
        for (size_t t = 1; t < temporal; t++)
            memcpy(first + t * side * side, first, side * side * sizeof *first);
    }
}

qvl_status qvl_image_patchify(float *out, const qvl_prepared_image *prepared,
                              const qvl_image_limits *limits, const qvl_image_norm *norm,
                              qvl_err *err)
{
    const size_t side = (size_t)limits->patch_px, merge = (size_t)limits->merge;
    const size_t temporal = (size_t)limits->temporal;
    const size_t rows = (size_t)prepared->grid_thw[1], columns = (size_t)prepared->grid_thw[2];
    const size_t row_bytes = (size_t)prepared->size.width * 3;
    float table[3][256];
    if (prepared->grid_thw[0] != 1 || rows * side != (size_t)prepared->size.height ||
        columns * side != (size_t)prepared->size.width || rows % merge || columns % merge)
        return qvl_fail(err, QVL_EINTERNAL, "grid %d x %d x %d does not fit %d x %d pixels",
                        prepared->grid_thw[0], prepared->grid_thw[1], prepared->grid_thw[2],
                        prepared->size.width, prepared->size.height);
    fill_table(table, norm);
    for (size_t by = 0; by < rows; by += merge)
        for (size_t bx = 0; bx < columns; bx += merge)
            for (size_t i = 0; i < merge * merge; i++) {
                const size_t row = by + i / merge, column = bx + i % merge;
                cut_patch(out, prepared->rgb + row * side * row_bytes + column * side * 3,
                          row_bytes, side, temporal, (const float(*)[256])table);
                out += 3 * temporal * side * side;
            }
    return QVL_OK;
}
