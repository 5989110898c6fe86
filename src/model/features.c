#include "src/model/features.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "src/base/memory.h"

struct qvl_features {
    qvl_dataset *data;
    qvl_world *world;
    int64_t row_bytes; /* of one token */
    bool is_kept;
    qvl_vision *vision;
    int64_t *offsets; /* [images+1] bytes in kept */
    qvl_shared *shared;
    char *kept;
    uint8_t *rgb; /* of the image in work */
    size_t rgb_capacity;
    void **made; /* computed on request since the last forget */
    size_t n_made, made_capacity;
};

static int64_t tokens_of(const qvl_dataset *data, int64_t image)
{
    const int32_t *grid = qvl_dataset_grid(data, image);
    return (int64_t)grid[0] * grid[1] * grid[2] / 4;
}

uint64_t qvl_features_bytes(const qvl_dataset *data, const qvl_model_dims *dims, size_t act_bytes)
{
    uint64_t bytes = 0;
    for (int64_t i = 0; i < qvl_dataset_images(data); i++)
        bytes += (uint64_t)tokens_of(data, i) * (uint64_t)dims->text.D * act_bytes;
    return bytes;
}

void qvl_features_destroy(qvl_features *features)
{
    if (!features)
        return;
    qvl_features_forget(features);
    qvl_world_unshare(features->shared);
    free(features->offsets);
    free(features->rgb);
    free(features->made);
    free(features);
}

qvl_status qvl_features_create(qvl_features **out, qvl_dataset *data, const qvl_model_dims *dims,
                               size_t act_bytes, bool is_kept, qvl_world *world, qvl_err *err)
{
    const int64_t n = qvl_dataset_images(data);
    qvl_features *features = NULL;
    void *memory = NULL;
    qvl_status rc = QVL_OK;
    rc = qvl_alloc(&features, 1, sizeof *features, "image features", err);
    if (rc == QVL_OK)
        rc = qvl_alloc(&features->offsets, (size_t)n + 1, sizeof *features->offsets,
                       "image features", err);
    if (is_kept)
        rc = qvl_world_agree(world, rc, err);
    QVL_TRY(rc);
    features->data = data;
    features->world = world;
    features->row_bytes = dims->text.D * (int64_t)act_bytes;
    features->is_kept = is_kept;
    for (int64_t i = 0; i < n; i++)
        features->offsets[i + 1] = features->offsets[i] + tokens_of(data, i) * features->row_bytes;
    if (is_kept && n)
        QVL_TRY(
            qvl_world_share(world, &features->shared, &memory, (size_t)features->offsets[n], err));
    features->kept = memory;
    *out = features;
    return QVL_OK;
out:
    qvl_features_destroy(features);
    return rc;
}

void qvl_features_set_vision(qvl_features *features, qvl_vision *vision)
{
    features->vision = vision;
}

static qvl_status compute_one(qvl_features *features, void *to, int64_t image, qvl_err *err)
{
    const int32_t *grid = qvl_dataset_grid(features->data, image);
    const size_t n_bytes = (size_t)grid[1] * (size_t)grid[2] * 14 * 14 * 3;
    qvl_status rc = qvl_reserve(&features->rgb, &features->rgb_capacity, n_bytes, 1, "image", err);
    if (rc == QVL_OK)
        rc = qvl_dataset_read_rgb(features->data, image, features->rgb, err);
    if (rc == QVL_OK)
        rc = qvl_vision_run(features->vision, to, features->rgb, grid[1], grid[2], err);
    return rc;
}

/* Hands what each rank computed in this round to the other hosts; rank 0 of a host stores it. */
static qvl_status exchange_round(qvl_features *features, int64_t first, int64_t n, qvl_err *err)
{
    char *buffer = NULL;
    int64_t longest = 0;
    qvl_status rc = QVL_OK;
    for (int64_t i = first; i < first + n; i++) {
        const int64_t bytes = features->offsets[i + 1] - features->offsets[i];
        longest = bytes > longest ? bytes : longest;
    }
    rc = qvl_alloc(&buffer, (size_t)longest, 1, "image features", err);
    QVL_TRY(qvl_world_agree(features->world, rc, err));
    for (int64_t i = first; i < first + n; i++) {
        char *place = features->kept + features->offsets[i];
        const size_t bytes = (size_t)(features->offsets[i + 1] - features->offsets[i]);
        const int owner = (int)(i - first);
        if (qvl_world_rank(features->world) == owner)
            memcpy(buffer, place, bytes);
        QVL_TRY(qvl_world_broadcast(features->world, buffer, bytes, owner, err));
        if (qvl_world_local_rank(features->world) == 0)
            memcpy(place, buffer, bytes);
    }
out:
    free(buffer);
    return rc;
}

qvl_status qvl_features_compute(qvl_features *features, qvl_vision *vision, qvl_log *log,
                                qvl_err *err)
{
    const int64_t n = qvl_dataset_images(features->data);
    const int64_t n_ranks = qvl_world_size(features->world);
    const bool is_one_host = qvl_world_local_size(features->world) == n_ranks;
    qvl_status rc = QVL_OK;
    features->vision = vision;
    for (int64_t first = 0; first < n; first += n_ranks) {
        const int64_t mine = first + qvl_world_rank(features->world);
        const int64_t in_round = n - first < n_ranks ? n - first : n_ranks;
        if (mine < n)
            rc = compute_one(features, features->kept + features->offsets[mine], mine, err);
        /* One look at the others a round, so that a failure does not wait for all images. */
        QVL_TRY(qvl_world_agree(features->world, rc, err));
        if (!is_one_host)
            QVL_TRY(exchange_round(features, first, in_round, err));
        qvl_log_live(log, "image features: %" PRId64 " of %" PRId64, first + in_round, n);
    }
    QVL_TRY(qvl_world_barrier(features->world, err));
    features->vision = NULL;
out:
    return rc;
}

qvl_status qvl_features_get(qvl_features *features, int64_t image, const void **out, qvl_err *err)
{
    const size_t bytes = (size_t)(features->offsets[image + 1] - features->offsets[image]);
    void *made = NULL;
    qvl_status rc = QVL_OK;
    if (features->is_kept) {
        *out = features->kept + features->offsets[image];
        return QVL_OK;
    }
    QVL_TRY(qvl_reserve(&features->made, &features->made_capacity, features->n_made + 1,
                        sizeof *features->made, "image features", err));
    QVL_TRY(qvl_alloc(&made, bytes, 1, "image features", err));
    features->made[features->n_made++] = made;
    QVL_TRY(compute_one(features, made, image, err));
    *out = made;
out:
    return rc;
}

void qvl_features_forget(qvl_features *features)
{
    for (size_t i = 0; i < features->n_made; i++)
        free(features->made[i]);
    features->n_made = 0;
}
