/* The contents of samples: ids, labels and image tokens. */
#include "io/dataset_h5_internal.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "src/base/memory.h"
#include "src/base/stop.h"

/* "sample 3", with where it came from when the file says so. */
static const char *place_of(const qvl_dataset *data, int64_t sample, char buffer[600])
{
    char source[512];
    if (data->source && data->source_names)
        snprintf(buffer, 600, "sample %" PRId64 " (%s)", sample,
                 qvl_dataset_describe(data, sample, source));
    else
        snprintf(buffer, 600, "sample %" PRId64, sample);
    return buffer;
}

/* Image tokens come in runs of the images' sizes, each run followed by something else or the next
 * image's run only after its own end. */
static qvl_status check_image_tokens(const qvl_dataset *data, const qvl_dataset_rules *rules,
                                     int64_t sample, const int32_t *ids, qvl_err *err)
{
    const int32_t *images = NULL;
    const int64_t n = qvl_dataset_length(data, sample);
    char place[600];
    const int64_t n_images = qvl_dataset_sample_images(data, sample, &images);
    int64_t expected = 0, found = 0, at = 0;
    for (int64_t i = 0; i < n; i++)
        found += ids[i] == rules->image_token;
    for (int64_t k = 0; k < n_images; k++) {
        const int32_t *grid = qvl_dataset_grid(data, images[k]);
        const int64_t run = (int64_t)grid[0] * grid[1] * grid[2] / 4;
        while (at < n && ids[at] != rules->image_token)
            at++;
        for (int64_t i = 0; i < run && at < n; i++, at++)
            if (ids[at] != rules->image_token)
                return qvl_fail(err, QVL_EDATA,
                                "%s: %s: image %" PRId64 " (grid %d x %d) needs a "
                                "run of %" PRId64 " image tokens, only %" PRId64 " are there",
                                data->path, place_of(data, sample, place), k, grid[1], grid[2], run,
                                i);
        expected += run;
    }
    if (found != expected)
        return qvl_fail(err, QVL_EDATA,
                        "%s: %s: %" PRId64 " image tokens, its %" PRId64 " images need %" PRId64,
                        data->path, place_of(data, sample, place), found, n_images, expected);
    return QVL_OK;
}

static qvl_status check_sample(const qvl_dataset *data, const qvl_dataset_rules *rules,
                               int64_t sample, const int32_t *ids, const int32_t *labels,
                               qvl_err *err)
{
    const int64_t n = qvl_dataset_length(data, sample);
    char place[600];
    for (int64_t i = 0; i < n; i++) {
        if (ids[i] < 0 || ids[i] >= rules->vocab)
            return qvl_fail(err, QVL_EDATA,
                            "%s: %s: id %d at token %" PRId64
                            " is outside the vocabulary of %" PRId64,
                            data->path, place_of(data, sample, place), ids[i], i, rules->vocab);
        if (labels[i] != -100 && (labels[i] < 0 || labels[i] >= rules->vocab))
            return qvl_fail(err, QVL_EDATA,
                            "%s: %s: label %d at token %" PRId64
                            " is neither -100 nor in the vocabulary of %" PRId64,
                            data->path, place_of(data, sample, place), labels[i], i, rules->vocab);
        if (ids[i] == rules->video_token)
            return qvl_fail(err, QVL_EDATA,
                            "%s: %s: token %" PRId64
                            " belongs to a video; videos are not supported",
                            data->path, place_of(data, sample, place), i);
    }
    return check_image_tokens(data, rules, sample, ids, err);
}

qvl_status qvl_dataset_check_samples(qvl_dataset *data, const qvl_dataset_rules *rules,
                                     int64_t first, int64_t last, int32_t *supervised, qvl_err *err)
{
    enum { BLOCK_TOKENS = 1 << 20 }; /* read at a time, unless one sample is longer */
    size_t ids_capacity = 0, labels_capacity = 0;
    int32_t *ids = NULL, *labels = NULL;
    qvl_status rc = QVL_OK;
    while (first < last) {
        const int64_t begin = data->offsets[first];
        int64_t next = first + 1;
        while (next < last && data->offsets[next + 1] - begin <= BLOCK_TOKENS)
            next++;
        const int64_t count = data->offsets[next] - begin;
        QVL_TRY(qvl_reserve(&ids, &ids_capacity, (size_t)count, sizeof *ids, "samples", err));
        QVL_TRY(
            qvl_reserve(&labels, &labels_capacity, (size_t)count, sizeof *labels, "samples", err));
        QVL_TRY(qvl_h5_read_integers(data->ids, H5T_NATIVE_INT32, ids, (uint64_t)begin,
                                     (uint64_t)count, "input_ids", data->path, err));
        QVL_TRY(qvl_h5_read_integers(data->labels, H5T_NATIVE_INT32, labels, (uint64_t)begin,
                                     (uint64_t)count, "labels", data->path, err));
        for (; first < next; first++) {
            const int64_t at = data->offsets[first] - begin;
            QVL_TRY(check_sample(data, rules, first, ids + at, labels + at, err));
            if (supervised) {
                supervised[first] = 0;
                for (int64_t i = 1; i < qvl_dataset_length(data, first); i++)
                    supervised[first] += labels[at + i] != -100;
            }
        }
    }
out:
    free(ids);
    free(labels);
    return rc;
}

qvl_status qvl_dataset_check_pixels(qvl_dataset *data, int64_t first, int64_t last, qvl_err *err)
{
    size_t capacity = 0;
    uint8_t *pixels = NULL;
    qvl_status rc = QVL_OK;
    for (int64_t i = first; i < last && !qvl_stop_reason(); i++) {
        const int64_t bytes = data->rgb_offsets[i + 1] - data->rgb_offsets[i];
        QVL_TRY(qvl_reserve(&pixels, &capacity, (size_t)bytes, 1, "pixels", err));
        QVL_TRY(qvl_dataset_read_rgb(data, i, pixels, err));
    }
out:
    free(pixels);
    return rc;
}
