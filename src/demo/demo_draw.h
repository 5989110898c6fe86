/* Drawing the demo's pictures. */
#ifndef QVL_SRC_DEMO_DRAW_H
#define QVL_SRC_DEMO_DRAW_H

#include <stdbool.h>
#include <stdint.h>

#include "src/base/text.h"
#include "src/demo/demo_text.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Draws the scene on width x height pixels, the shapes where layout (any number) puts them, none
 * touching another, and encodes it: PNG (RGB, 8 bits) or JPEG (quality 92). *out is cleared first.
 * width and height at least 32. */
qvl_status qvl_scene_draw(qvl_text *out, const qvl_scene *scene, int width, int height,
                          bool is_jpeg, uint64_t layout, qvl_err *err);

#ifdef __cplusplus
}
#endif
#endif
