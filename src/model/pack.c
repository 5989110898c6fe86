#include "src/model/pack.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "src/base/memory.h"
#include "src/model/mrope.h"

enum { ARRAYS = 12 }; /* of T elements; cu_seqlens has one more */

size_t qvl_pack_bytes(int64_t capacity)
{
    return ((size_t)capacity * ARRAYS + (size_t)capacity + 1) * sizeof(int32_t);
}

void qvl_pack_view(qvl_pack *pack, int64_t capacity, void *buffer)
{
    int32_t *at = buffer;
    *pack = (qvl_pack){.capacity = capacity, .buffer = buffer};
    pack->ids = at;
    pack->positions = at + capacity;
    pack->sample = at + 4 * capacity;
    pack->token = at + 5 * capacity;
    pack->rows = at + 6 * capacity;
    pack->targets = at + 7 * capacity;
    pack->weights = (float *)(void *)(at + 8 * capacity);
    pack->image_rows = at + 9 * capacity;
    pack->row_sample = at + 10 * capacity;
    pack->row_token = at + 11 * capacity;
    pack->cu_seqlens = at + 12 * capacity;
}

void qvl_pack_init(qvl_pack *pack, int64_t capacity, void *buffer)
{
    qvl_pack_view(pack, capacity, buffer);
    qvl_pack_clear(pack);
}

void qvl_pack_fini(qvl_pack *pack)
{
    free(pack->features);
    free(pack->feature_tokens);
    *pack = (qvl_pack){0};
}

void qvl_pack_clear(qvl_pack *pack)
{
    pack->T = pack->B = pack->n_rows = pack->n_image_tokens = pack->n_features = 0;
    pack->cu_seqlens[0] = 0;
}

int64_t qvl_supervised_tokens(const int32_t *labels, int64_t n)
{
    int64_t count = 0;
    for (int64_t i = 1; i < n; i++)
        count += labels[i] != -100;
    return count;
}

int64_t qvl_needed_tokens(const qvl_sample_view *sample, const qvl_model_dims *dims)
{
    int64_t needed = sample->n - 1; /* the last token predicts nothing */
    while (needed > 0 && sample->labels[needed] == -100)
        needed--;
    for (int64_t i = needed; i < sample->n; i++)
        if (sample->ids[i] == dims->image_token || sample->ids[i] == dims->video_token ||
            sample->ids[i] == dims->vision_start_token)
            return sample->n;
    return needed > 0 ? needed : sample->n;
}

static qvl_status add_features(qvl_pack *pack, const qvl_sample_view *sample, qvl_err *err)
{
    size_t capacity = (size_t)pack->features_capacity, tokens_capacity = capacity;
    const size_t needed = (size_t)(pack->n_features + sample->n_images);
    qvl_status rc = QVL_OK;
    QVL_TRY(qvl_reserve(&pack->features, &capacity, needed, sizeof *pack->features, "pack", err));
    QVL_TRY(qvl_reserve(&pack->feature_tokens, &tokens_capacity, needed,
                        sizeof *pack->feature_tokens, "pack", err));
    pack->features_capacity = (int64_t)capacity;
    for (int64_t i = 0; i < sample->n_images; i++) {
        const int32_t *grid = sample->grids + 3 * i;
        pack->features[pack->n_features] = sample->features ? sample->features[i] : NULL;
        pack->feature_tokens[pack->n_features++] = (int64_t)grid[0] * grid[1] * grid[2] / 4;
    }
out:
    return rc;
}

qvl_status qvl_pack_add(qvl_pack *pack, const qvl_sample_view *sample, float weight,
                        const qvl_model_dims *dims, qvl_err *err)
{
    const int64_t T = pack->T, n = sample->n_needed ? sample->n_needed : sample->n;
    qvl_status rc = QVL_OK;
    if (T + n > pack->capacity)
        return qvl_fail(err, QVL_EINTERNAL,
                        "pack of %" PRId64 " tokens: sample of %" PRId64
                        " does not fit after %" PRId64,
                        pack->capacity, n, T);
    QVL_TRY(qvl_mrope_positions(pack->positions + T, pack->capacity, NULL, sample->ids, n,
                                sample->grids, sample->n_images, dims, err));
    QVL_TRY(add_features(pack, sample, err));
    memcpy(pack->ids + T, sample->ids, (size_t)n * sizeof *pack->ids);
    for (int64_t i = 0; i < n; i++) {
        pack->sample[T + i] = (int32_t)sample->number;
        pack->token[T + i] = (int32_t)i;
        if (sample->ids[i] == dims->image_token)
            pack->image_rows[pack->n_image_tokens++] = (int32_t)(T + i);
        if (i + 1 < sample->n && sample->labels[i + 1] != -100) {
            pack->rows[pack->n_rows] = (int32_t)(T + i);
            pack->row_sample[pack->n_rows] = (int32_t)sample->number;
            pack->row_token[pack->n_rows] = (int32_t)i;
            pack->targets[pack->n_rows] = sample->labels[i + 1];
            pack->weights[pack->n_rows++] = weight;
        }
    }
    pack->T += n;
    pack->cu_seqlens[++pack->B] = (int32_t)pack->T;
out:
    return rc;
}

/* While samples are added the axes are a capacity apart. */
void qvl_pack_finish(qvl_pack *pack)
{
    for (int axis = 1; axis < 3; axis++)
        memmove(pack->positions + axis * pack->T, pack->positions + axis * pack->capacity,
                (size_t)pack->T * sizeof *pack->positions);
}
