/* From an image file to what the vision tower reads: the resizes of LLaMA-Factory's Qwen2-VL
 * plugin, the size of Qwen2-VL's image processor, and its patches.
 *
 * With W x H the size at each point, in this order:
 *
 *     in the mode of the file
 *     1. W H > image_max_pixels:  f = sqrt(image_max_pixels / (W H)), to trunc(W f) x trunc(H f)
 *     2. W H < image_min_pixels:  the same with image_min_pixels
 *     as RGB
 *     3. min(W, H) < unit:        to max(W, unit) x max(H, unit)
 *     4. W / H > 200:             to 180 H x H
 *     5. H / W > 200:             to W x 180 W
 *     6. the processor's size, whose sides are multiples of unit (qvl_smart_resize)
 *
 * where unit = patch * merge = 28. All resizes are Pillow's Image.resize with its default filter.
 * The processor's resize is that of the "slow" (Pillow) one; the "fast" one of torchvision differs
 * by a few grey levels. The plan depends on width, height and limits alone, and the pixels follow
 * the plan, so that a grid can be had from the header of a file.
 *
 * All functions may be called by many threads at once.
 */
#ifndef QVL_IO_IMAGE_PIPELINE_H
#define QVL_IO_IMAGE_PIPELINE_H

#include <stddef.h>
#include <stdint.h>

#include "io/image.h"
#include "io/image_resize.h"
#include "src/base/status.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct qvl_image_limits {
    int64_t image_max_pixels, image_min_pixels; /* LLaMA-Factory's, applied first */
    int64_t max_pixels, min_pixels;             /* of preprocessor_config.json */
    int32_t patch_px;                           /* side of a patch */
    int32_t merge;                              /* patches a token, per side */
    int32_t temporal;                           /* frames a patch */
    qvl_pillow pillow;                          /* whose order of the axes in resizes */
} qvl_image_limits;

/* 589824, 1024; 12845056, 3136; 14, 2, 2; Pillow 12. */
extern const qvl_image_limits qvl_image_limits_default;

typedef struct qvl_image_norm {
    double mean[3], std[3]; /* R, G, B, of values from 0 to 1 */
} qvl_image_norm;

extern const qvl_image_norm qvl_image_norm_default; /* those of Qwen2-VL (and CLIP) */

/* The resizes of one image; the last of rgb gives the final size. */
typedef struct qvl_image_plan {
    qvl_image_size native[2], rgb[4];
    int n_native, n_rgb;
    qvl_image_size size;
    int32_t grid_thw[3]; /* patches: frames (1), rows, columns; a token is merge^2 of them */
} qvl_image_plan;

/* QVL_ECONFIG names the first limit that makes no sense. */
qvl_status qvl_image_limits_check(const qvl_image_limits *limits, qvl_err *err);

/* The processor's size for width x height: both sides rounded (half to even) to multiples of unit,
 * then scaled down under max_pixels or up over min_pixels. QVL_EDATA when one side is more than 200
 * times the other, "absolute aspect ratio". name stands for the image in messages. */
qvl_status qvl_smart_resize(qvl_image_size *out, qvl_image_size size,
                            const qvl_image_limits *limits, const char *name, qvl_err *err);

/* QVL_EDATA when a step has no pixels left or more than QVL_IMAGE_MAX_PIXELS. */
qvl_status qvl_image_plan_sizes(qvl_image_plan *out, qvl_image_size size,
                                const qvl_image_limits *limits, const char *name, qvl_err *err);

/* Start with {0}; qvl_prepared_image_fini frees it. */
typedef struct qvl_prepared_image {
    uint8_t *rgb; /* [size.height, size.width, 3] */
    qvl_image_size size;
    int32_t grid_thw[3];
} qvl_prepared_image;

void qvl_prepared_image_fini(qvl_prepared_image *prepared);

/* A file all the way to the pixels that are cut into patches; *out is the caller's. Errors of
 * qvl_image_load and qvl_image_plan_sizes. */
qvl_status qvl_image_prepare(qvl_prepared_image *out, const char *path,
                             const qvl_image_limits *limits, qvl_err *err);

/* The same for a file in memory, and for decoded pixels, which are taken over in any case: *image
 * is empty afterwards. */
qvl_status qvl_image_prepare_memory(qvl_prepared_image *out, const void *bytes, size_t n_bytes,
                                    const char *name, const qvl_image_limits *limits, qvl_err *err);
qvl_status qvl_image_prepare_pixels(qvl_prepared_image *out, qvl_image *image,
                                    const qvl_image_limits *limits, const char *name, qvl_err *err);

/* pixel_values of a prepared image: out [rows * columns, 3 * temporal * patch_px^2], float32.
 *
 *     value of byte p in channel c = (float(p / 255) - mean[c]) / std[c]      in float32
 *
 * Row of out: (block row, block column, row in block, column in block), blocks of merge x merge
 * patches. Column: (channel, frame, y, x); a still image fills all temporal frames alike.
 * QVL_EINTERNAL when size, grid and limits do not fit together. */
qvl_status qvl_image_patchify(float *out, const qvl_prepared_image *prepared,
                              const qvl_image_limits *limits, const qvl_image_norm *norm,
                              qvl_err *err);

#ifdef __cplusplus
}
#endif
#endif
