#include "io/dataset_h5_internal.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "src/base/files.h"
#include "src/base/memory.h"

void qvl_dataset_close(qvl_dataset *data)
{
    if (!data)
        return;
    const hid_t sets[] = {data->ids, data->labels, data->rgb};
    for (size_t i = 0; i < sizeof sets / sizeof *sets; i++)
        if (sets[i] >= 0)
            H5Dclose(sets[i]);
    if (data->file >= 0)
        H5Fclose(data->file);
    free(data->offsets);
    free(data->image_offsets);
    free(data->references);
    free(data->grids);
    free(data->rgb_offsets);
    free(data->digest);
    free(data->tokenizer_sha256);
    free(data->template_name);
    free(data->source);
    free(data->source_names);
    free(data->path);
    free(data);
}

int64_t qvl_dataset_samples(const qvl_dataset *data)
{
    return data->n_samples;
}
int64_t qvl_dataset_images(const qvl_dataset *data)
{
    return data->n_images;
}
int64_t qvl_dataset_tokens(const qvl_dataset *data)
{
    return data->n_tokens;
}
const char *qvl_dataset_path(const qvl_dataset *data)
{
    return data->path;
}
const char *qvl_dataset_digest(const qvl_dataset *data)
{
    return data->digest ? data->digest : "";
}

const char *qvl_dataset_tokenizer_sha256(const qvl_dataset *data)
{
    return data->tokenizer_sha256 ? data->tokenizer_sha256 : "";
}

const char *qvl_dataset_template(const qvl_dataset *data)
{
    return data->template_name ? data->template_name : "";
}

int64_t qvl_dataset_length(const qvl_dataset *data, int64_t sample)
{
    return data->offsets[sample + 1] - data->offsets[sample];
}

int64_t qvl_dataset_sample_images(const qvl_dataset *data, int64_t sample,
                                  const int32_t **out_images)
{
    *out_images = data->references + data->image_offsets[sample];
    return data->image_offsets[sample + 1] - data->image_offsets[sample];
}

const int32_t *qvl_dataset_grid(const qvl_dataset *data, int64_t image)
{
    return data->grids + 3 * image;
}

/* ---- opening -----------------------------------------------------------------------------------
 */

static qvl_status check_format(qvl_dataset *data, qvl_err *err)
{
    char *format = NULL;
    int64_t version = 0;
    bool found = false;
    qvl_status rc = QVL_OK;
    QVL_TRY(qvl_h5_read_text(&format, data->file, "format", data->path, err));
    if (!format || strcmp(format, "qvl-sft") != 0) {
        rc = qvl_fail(err, QVL_EDATA, "%s: attribute format is \"%.64s\", expected \"qvl-sft\"",
                      data->path, format ? format : "");
        goto out;
    }
    QVL_TRY(qvl_h5_read_integer(&version, &found, data->file, "version", data->path, err));
    if (!found || version != 1)
        rc = qvl_fail(err, QVL_EDATA, "%s: version %" PRId64 ", this program reads version 1",
                      data->path, version);
    QVL_TRY(rc);
    QVL_TRY(qvl_h5_read_text(&data->digest, data->file, "digest", data->path, err));
    QVL_TRY(
        qvl_h5_read_text(&data->tokenizer_sha256, data->file, "tokenizer_sha256", data->path, err));
    QVL_TRY(qvl_h5_read_text(&data->template_name, data->file, "template", data->path, err));
out:
    free(format);
    return rc;
}

/* A file may declare any number of elements and hold none of them. An index of this size is
 * believed as it is; a larger one must have a byte in the file for every thousand that it unpacks
 * to. */
static bool is_backed(hid_t set, uint64_t n_bytes)
{
    return n_bytes <= ((uint64_t)64 << 20) || H5Dget_storage_size(set) >= n_bytes / 1100;
}

/* Tokens and pixels are read in pieces, so that their number is no matter of memory, but a program
 * that reads 2^50 of them would not end. */
static qvl_status check_backed(const qvl_dataset *data, hid_t set, hsize_t count, size_t bytes,
                               const char *name, qvl_err *err)
{
    if (count > (hsize_t)INT64_MAX / 16 || !is_backed(set, (uint64_t)count * bytes))
        return qvl_fail(err, QVL_EDATA,
                        "%s: /%s declares %" PRIu64 " elements, %" PRIu64 " bytes are there",
                        data->path, name, (uint64_t)count, (uint64_t)H5Dget_storage_size(set));
    return QVL_OK;
}

/* A whole integer array; 2^34 elements are past any index that would fit in memory. */
static qvl_status load_integers(qvl_dataset *data, const char *name, hid_t type, size_t bytes,
                                void *out_pointer, int64_t *out_count, int width, qvl_err *err)
{
    hid_t set = H5I_INVALID_HID;
    hsize_t dims[2] = {0, 1};
    size_t count = 0;
    void *values = NULL;
    qvl_status rc = QVL_OK;
    QVL_TRY(qvl_h5_open_integers(&set, dims, width > 1 ? 2 : 1, data->file, name, data->path, err));
    if (dims[1] != (hsize_t)width || dims[0] > ((hsize_t)1 << 34)) {
        rc = qvl_fail(err, QVL_EDATA, "%s: /%s has the shape [%" PRIu64 ", %" PRIu64 "]",
                      data->path, name, (uint64_t)dims[0], (uint64_t)dims[1]);
        goto out;
    }
    count = (size_t)dims[0] * (size_t)width;
    QVL_TRY(check_backed(data, set, count, bytes, name, err));
    QVL_TRY(qvl_alloc(&values, count, bytes, name, err));
    QVL_TRY(qvl_h5_read_all_integers(set, type, values, count, name, data->path, err));
    memcpy(out_pointer, &values, sizeof values);
    *out_count = (int64_t)dims[0];
    values = NULL;
out:
    free(values);
    if (set >= 0)
        H5Dclose(set);
    return rc;
}

static qvl_status check_offsets(const qvl_dataset *data, const char *name, const int64_t *offsets,
                                int64_t count, int64_t expected_count, int64_t end, qvl_err *err)
{
    if (count < 1 || (expected_count >= 0 && count != expected_count))
        return qvl_fail(err, QVL_EDATA, "%s: /%s has %" PRId64 " entries, expected %" PRId64,
                        data->path, name, count, expected_count < 0 ? 1 : expected_count);
    if (offsets[0] != 0)
        return qvl_fail(err, QVL_EDATA, "%s: /%s begins with %" PRId64 ", expected 0", data->path,
                        name, offsets[0]);
    for (int64_t i = 1; i < count; i++)
        if (offsets[i] < offsets[i - 1])
            return qvl_fail(err, QVL_EDATA,
                            "%s: /%s falls from %" PRId64 " to %" PRId64 " at entry %" PRId64,
                            data->path, name, offsets[i - 1], offsets[i], i);
    if (offsets[count - 1] != end)
        return qvl_fail(err, QVL_EDATA, "%s: /%s ends with %" PRId64 ", the data have %" PRId64,
                        data->path, name, offsets[count - 1], end);
    return QVL_OK;
}

static qvl_status load_samples(qvl_dataset *data, qvl_err *err)
{
    hsize_t n_ids = 0, n_labels = 0;
    int64_t n_offsets = 0, n_image_offsets = 0;
    const size_t wide = sizeof(int64_t);
    qvl_status rc = QVL_OK;
    QVL_TRY(qvl_h5_open_integers(&data->ids, &n_ids, 1, data->file, "input_ids", data->path, err));
    QVL_TRY(
        qvl_h5_open_integers(&data->labels, &n_labels, 1, data->file, "labels", data->path, err));
    if (n_ids != n_labels)
        return qvl_fail(err, QVL_EDATA, "%s: %" PRIu64 " input_ids and %" PRIu64 " labels",
                        data->path, (uint64_t)n_ids, (uint64_t)n_labels);
    QVL_TRY(check_backed(data, data->ids, n_ids, sizeof(int32_t), "input_ids", err));
    QVL_TRY(check_backed(data, data->labels, n_labels, sizeof(int32_t), "labels", err));
    data->n_tokens = (int64_t)n_ids;
    QVL_TRY(load_integers(data, "sample_offsets", H5T_NATIVE_INT64, wide, &data->offsets,
                          &n_offsets, 1, err));
    QVL_TRY(
        check_offsets(data, "sample_offsets", data->offsets, n_offsets, -1, data->n_tokens, err));
    data->n_samples = n_offsets - 1;
    for (int64_t i = 0; i < data->n_samples; i++)
        if (qvl_dataset_length(data, i) == 0 || qvl_dataset_length(data, i) > (1 << 24))
            return qvl_fail(err, QVL_EDATA, "%s: sample %" PRId64 " has %" PRId64 " tokens",
                            data->path, i, qvl_dataset_length(data, i));
    QVL_TRY(load_integers(data, "sample_image_offsets", H5T_NATIVE_INT64, wide,
                          &data->image_offsets, &n_image_offsets, 1, err));
    QVL_TRY(load_integers(data, "sample_images", H5T_NATIVE_INT32, sizeof(int32_t),
                          &data->references, &data->n_references, 1, err));
    QVL_TRY(check_offsets(data, "sample_image_offsets", data->image_offsets, n_image_offsets,
                          data->n_samples + 1, data->n_references, err));
out:
    return rc;
}

static qvl_status check_image(const qvl_dataset *data, int64_t i, qvl_err *err)
{
    enum { MOST_PATCHES = 100000 }; /* a side of 1.4 million pixels */
    const int32_t *grid = data->grids + 3 * i;
    if (grid[0] != 1)
        return qvl_fail(err, QVL_EDATA,
                        "%s: image %" PRId64 " has %d frames, expected 1; videos are not supported",
                        data->path, i, grid[0]);
    if (grid[1] < 2 || grid[2] < 2 || grid[1] % 2 || grid[2] % 2 || grid[1] > MOST_PATCHES ||
        grid[2] > MOST_PATCHES)
        return qvl_fail(err, QVL_EDATA,
                        "%s: image %" PRId64 " has the grid %d x %d patches, expected even numbers "
                        "from 2 to %d",
                        data->path, i, grid[1], grid[2], MOST_PATCHES);
    const int64_t bytes = (int64_t)grid[1] * grid[2] * 14 * 14 * 3;
    if (data->rgb_offsets[i + 1] - data->rgb_offsets[i] != bytes)
        return qvl_fail(err, QVL_EDATA,
                        "%s: image %" PRId64 " has %" PRId64 " bytes of pixels, its grid %d x %d "
                        "needs %" PRId64,
                        data->path, i, data->rgb_offsets[i + 1] - data->rgb_offsets[i], grid[1],
                        grid[2], bytes);
    return QVL_OK;
}

static qvl_status load_images(qvl_dataset *data, qvl_err *err)
{
    hsize_t n_bytes = 0;
    int64_t n_offsets = 0;
    qvl_status rc = QVL_OK;
    QVL_TRY(load_integers(data, "images/grid_thw", H5T_NATIVE_INT32, sizeof(int32_t), &data->grids,
                          &data->n_images, 3, err));
    QVL_TRY(load_integers(data, "images/rgb_offsets", H5T_NATIVE_INT64, sizeof(int64_t),
                          &data->rgb_offsets, &n_offsets, 1, err));
    QVL_TRY(
        qvl_h5_open_integers(&data->rgb, &n_bytes, 1, data->file, "images/rgb", data->path, err));
    QVL_TRY(check_backed(data, data->rgb, n_bytes, 1, "images/rgb", err));
    QVL_TRY(check_offsets(data, "images/rgb_offsets", data->rgb_offsets, n_offsets,
                          data->n_images + 1, (int64_t)n_bytes, err));
    for (int64_t i = 0; i < data->n_images; i++)
        QVL_TRY(check_image(data, i, err));
    for (int64_t i = 0; i < data->n_references; i++)
        if (data->references[i] < 0 || data->references[i] >= data->n_images)
            return qvl_fail(err, QVL_EDATA,
                            "%s: /sample_images entry %" PRId64 " is image %d of %" PRId64,
                            data->path, i, data->references[i], data->n_images);
out:
    return rc;
}

/* Optional: a file without /source, or with one of another shape, only gives plainer messages. */
static qvl_status load_source(qvl_dataset *data, qvl_err *err)
{
    int64_t count = 0;
    qvl_err ignored = {QVL_OK, ""};
    if (H5Lexists(data->file, "source", H5P_DEFAULT) <= 0)
        return QVL_OK;
    if (load_integers(data, "source", H5T_NATIVE_INT64, sizeof(int64_t), &data->source, &count, 2,
                      &ignored) != QVL_OK ||
        count != data->n_samples) {
        free(data->source);
        data->source = NULL;
        return QVL_OK;
    }
    return qvl_h5_read_text(&data->source_names, data->file, "sources", data->path, err);
}

qvl_status qvl_dataset_open(qvl_dataset **out, const char *path, qvl_err *err)
{
    qvl_dataset *data = NULL;
    int64_t size = 0;
    qvl_status rc = QVL_OK;
    qvl_h5_quiet();
    if (qvl_file_is_directory(path))
        return qvl_fail(err, QVL_EDATA,
                        "%s: is a directory; tokenized_path names an HDF5 file (a data set saved "
                        "by LLaMA-Factory cannot be read)",
                        path);
    QVL_TRY(qvl_file_size(&size, path, err));
    QVL_TRY(qvl_alloc(&data, 1, sizeof *data, "data set", err));
    data->file = data->ids = data->labels = data->rgb = H5I_INVALID_HID;
    QVL_TRY(qvl_copy_text(&data->path, path, err));
    data->file = H5Fopen(path, H5F_ACC_RDONLY, H5P_DEFAULT);
    if (data->file < 0) {
        rc = qvl_h5_fail(err, QVL_EDATA, "%s: not a whole HDF5 file", path);
        goto out;
    }
    QVL_TRY(check_format(data, err));
    QVL_TRY(load_samples(data, err));
    QVL_TRY(load_images(data, err));
    QVL_TRY(load_source(data, err));
    *out = data;
    data = NULL;
out:
    qvl_dataset_close(data);
    return rc;
}

/* ---- contents ----------------------------------------------------------------------------------
 */

qvl_status qvl_dataset_read_sample(qvl_dataset *data, int64_t sample, int32_t *ids, int32_t *labels,
                                   qvl_err *err)
{
    const uint64_t first = (uint64_t)data->offsets[sample];
    const uint64_t count = (uint64_t)qvl_dataset_length(data, sample);
    qvl_status rc = qvl_h5_read_integers(data->ids, H5T_NATIVE_INT32, ids, first, count,
                                         "input_ids", data->path, err);
    if (rc == QVL_OK)
        rc = qvl_h5_read_integers(data->labels, H5T_NATIVE_INT32, labels, first, count, "labels",
                                  data->path, err);
    return rc;
}

qvl_status qvl_dataset_read_rgb(qvl_dataset *data, int64_t image, uint8_t *out, qvl_err *err)
{
    const uint64_t first = (uint64_t)data->rgb_offsets[image];
    const uint64_t count = (uint64_t)data->rgb_offsets[image + 1] - first;
    qvl_err reason = {QVL_OK, ""};
    const qvl_status rc = qvl_h5_read_integers(data->rgb, H5T_NATIVE_UINT8, out, first, count,
                                               "images/rgb", data->path, &reason);
    if (rc == QVL_OK)
        return QVL_OK;
    return qvl_fail(err, rc, "%s (image %" PRId64 ", which begins at element %" PRIu64 ")",
                    reason.text, image, first);
}

const char *qvl_dataset_describe(const qvl_dataset *data, int64_t sample, char buffer[512])
{
    const char *name = data->source_names;
    if (!data->source || !name) {
        snprintf(buffer, 512, "sample %" PRId64, sample);
        return buffer;
    }
    for (int64_t i = 0; i < data->source[2 * sample] && name; i++) {
        name = strchr(name, '\n');
        name = name ? name + 1 : NULL;
    }
    const int n = name ? (int)strcspn(name, "\n") : 0;
    snprintf(buffer, 512, "%.*s: sample %" PRId64, n > 400 ? 400 : n, name ? name : "",
             data->source[2 * sample + 1]);
    return buffer;
}
