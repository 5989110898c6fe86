/* The dimensions of a model, from its config.json. */
#ifndef QVL_SRC_MODEL_DIMS_H
#define QVL_SRC_MODEL_DIMS_H

#include <stdbool.h>
#include <stdint.h>

#include "src/base/status.h"

#ifdef __cplusplus
extern "C" {
#endif

/* The linears of a decoder layer, and which of them share an input. */
typedef enum qvl_site {
    QVL_SITE_Q,
    QVL_SITE_K,
    QVL_SITE_V,
    QVL_SITE_O,
    QVL_SITE_GATE,
    QVL_SITE_UP,
    QVL_SITE_DOWN,
    QVL_N_SITES
} qvl_site;

typedef enum qvl_group {
    QVL_GROUP_QKV,
    QVL_GROUP_O,
    QVL_GROUP_GATE_UP,
    QVL_GROUP_DOWN,
    QVL_N_GROUPS
} qvl_group;

enum { QVL_MAX_LAYERS = 256, QVL_PATCH_VALUES = 1176 };

typedef struct qvl_text_dims {
    int64_t D;  /* hidden size */
    int64_t F;  /* feed-forward size */
    int64_t L;  /* layers */
    int64_t H;  /* query heads */
    int64_t KV; /* key/value heads */
    int64_t Dh; /* head size */
    int64_t V;  /* rows of the vocabulary */
    double eps;
    double rope_theta;
    int64_t mrope_section[3]; /* pairs turned by frame, row, column; sum Dh / 2 */
    bool is_tied;             /* the head is the embedding */
} qvl_text_dims;

typedef struct qvl_vision_dims {
    int64_t D;            /* hidden size */
    int64_t F;            /* feed-forward size */
    int64_t L;            /* blocks */
    int64_t H;            /* heads */
    int64_t Dh;           /* head size */
    int64_t out;          /* the text model's hidden size */
    int64_t window_units; /* merged units along a window's side (4) */
    bool is_full_attention[QVL_MAX_LAYERS];
    double eps;
} qvl_vision_dims;

typedef struct qvl_model_dims {
    qvl_text_dims text;
    qvl_vision_dims vision;
    int64_t image_token, video_token, vision_start_token, vision_end_token;
    int64_t tokens_per_second;
    /* of preprocessor_config.json (preprocessor.h); REFERENCE 1.5's values where there is none */
    double image_mean[3], image_std[3];
    int64_t min_pixels, max_pixels;
} qvl_model_dims;

/* Reads config.json (all three layouts of REFERENCE 1.2) and, if there, preprocessor_config.json of
 * a model directory. Everything that qvl relies on is checked: QVL_EDATA names file and member. */
qvl_status qvl_model_dims_read(qvl_model_dims *out, const char *directory, qvl_err *err);

/* Parameters of the base model, tower included, and of its tower. */
int64_t qvl_model_parameters(const qvl_model_dims *dims);
int64_t qvl_vision_parameters(const qvl_model_dims *dims);

#ifdef __cplusplus
}
#endif
#endif
