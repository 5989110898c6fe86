/* One row of tokens: the samples of a step laid end to end.
 *
 * Built on the host in one buffer of fixed layout, so that one upload moves everything:
 *   ids [T] | positions [3,T] | sample [T] | token [T] | rows [T] | targets [T] | weights [T] |
 *   image_rows [T] | row_sample [T] | row_token [T] | cu_seqlens [T+1]
 *                                              T here is the capacity, 4 bytes an element
 */
#ifndef QVL_SRC_MODEL_PACK_H
#define QVL_SRC_MODEL_PACK_H

#include <stdint.h>

#include "kernels/ops.h"
#include "src/base/status.h"
#include "src/model/dims.h"

#ifdef __cplusplus
extern "C" {
#endif

/* A sample as it comes from a data set; borrowed. */
typedef struct qvl_sample_view {
    const int32_t *ids, *labels; /* [n] */
    int64_t n;
    int64_t n_needed;            /* of these enter the pack; 0: all */
    const int32_t *grids;        /* [n_images, 3] */
    const void *const *features; /* [n_images] host pointers, act [tokens of the image, D] */
    int64_t n_images;
    int64_t number; /* in the data set: key of dropout */
} qvl_sample_view;

typedef struct qvl_pack {
    int64_t capacity; /* tokens */
    void *buffer;     /* host, qvl_pack_bytes(capacity) */
    int64_t T, B, n_rows, n_image_tokens;
    /* views into buffer */
    int32_t *ids, *positions, *sample, *token, *rows, *targets, *image_rows, *cu_seqlens;
    int32_t *row_sample, *row_token; /* sample[rows[i]], token[rows[i]] */
    float *weights;
    /* features to be uploaded, in order of image_rows */
    const void **features;
    int64_t *feature_tokens;
    int64_t n_features, features_capacity;
} qvl_pack;

size_t qvl_pack_bytes(int64_t capacity);

/* buffer is the caller's and must outlive the pack. */
void qvl_pack_init(qvl_pack *pack, int64_t capacity, void *buffer);
/* Only sets the views, for a copy of the buffer on a device. */
void qvl_pack_view(qvl_pack *pack, int64_t capacity, void *buffer);
void qvl_pack_fini(qvl_pack *pack);
void qvl_pack_clear(qvl_pack *pack);

/* Appends a sample; every supervised token weighs weight in the loss. QVL_EDATA for tokens and
 * grids that do not agree. */
qvl_status qvl_pack_add(qvl_pack *pack, const qvl_sample_view *sample, float weight,
                        const qvl_model_dims *dims, qvl_err *err);

/* Call once after the last sample: positions become [3, T in use]. */
void qvl_pack_finish(qvl_pack *pack);

/* Leading tokens of a sample that its loss depends on: attention looks back only, so what comes
 * after the last token that predicts a supervised one changes nothing. All tokens where none is
 * supervised or an image lies behind. */
int64_t qvl_needed_tokens(const qvl_sample_view *sample, const qvl_model_dims *dims);

/* Supervised tokens of a sample: labels 1 .. n-1 that are not -100 (the first has no prediction).
 */
int64_t qvl_supervised_tokens(const int32_t *labels, int64_t n);

#ifdef __cplusplus
}
#endif
#endif
