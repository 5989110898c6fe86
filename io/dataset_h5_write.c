#include "io/dataset_h5.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "io/hdf5_tools.h"
#include "src/base/files.h"
#include "src/base/memory.h"

/* One growing array: values gather in a buffer of a chunk's size and go to the file when it is
 * full.
 */
typedef struct column {
    const char *name;
    hid_t set;
    hid_t type;
    size_t element_bytes;
    hsize_t written;
    size_t buffered, chunk; /* elements */
    char *buffer;
} column;

enum {
    IDS,
    LABELS,
    SAMPLE_OFFSETS,
    IMAGE_OFFSETS,
    SAMPLE_IMAGES,
    GRIDS,
    RGB_OFFSETS,
    RGB,
    SOURCE,
    N_COLUMNS
};

struct qvl_dataset_writer {
    char *path, *temporary;
    hid_t file;
    column columns[N_COLUMNS];
    int64_t n_tokens, n_references, n_bytes;
};

static void close_all(qvl_dataset_writer *writer)
{
    for (int i = 0; i < N_COLUMNS; i++) {
        if (writer->columns[i].set >= 0)
            H5Dclose(writer->columns[i].set);
        free(writer->columns[i].buffer);
        writer->columns[i].buffer = NULL;
        writer->columns[i].set = H5I_INVALID_HID;
    }
    if (writer->file >= 0)
        H5Fclose(writer->file);
    writer->file = H5I_INVALID_HID;
}

void qvl_dataset_writer_discard(qvl_dataset_writer *writer)
{
    if (!writer)
        return;
    close_all(writer);
    if (writer->temporary)
        unlink(writer->temporary);
    free(writer->temporary);
    free(writer->path);
    free(writer);
}

/* width 1: [n]; else [n, width]. Chunks of about 256 KiB, byte-shuffled and lightly deflated: token
 * ids shrink to a third, and a random sample costs one or two chunks. zlib's checksum is in each.
 */
static qvl_status open_column(qvl_dataset_writer *writer, int index, const char *name, hid_t type,
                              size_t element_bytes, int width, qvl_err *err)
{
    column *to = &writer->columns[index];
    const hsize_t none[2] = {0, (hsize_t)width};
    const hsize_t unlimited[2] = {H5S_UNLIMITED, (hsize_t)width};
    to->name = name;
    to->type = type;
    to->element_bytes = element_bytes * (size_t)width;
    to->chunk = ((size_t)256 << 10) / to->element_bytes;
    const hsize_t chunk[2] = {to->chunk, (hsize_t)width};
    const hid_t space = H5Screate_simple(width > 1 ? 2 : 1, none, unlimited);
    const hid_t list = H5Pcreate(H5P_DATASET_CREATE);
    H5Pset_chunk(list, width > 1 ? 2 : 1, chunk);
    if (element_bytes > 1)
        H5Pset_shuffle(list);
    H5Pset_deflate(list, 1);
    H5Pset_obj_track_times(list, false); /* the same data give the same bytes */
    to->set = H5Dcreate2(writer->file, name, type, space, H5P_DEFAULT, list, H5P_DEFAULT);
    H5Pclose(list);
    H5Sclose(space);
    if (to->set < 0)
        return qvl_h5_fail(err, QVL_EIO, "write %s: /%s", writer->path, name);
    return qvl_alloc(&to->buffer, to->chunk, to->element_bytes, name, err);
}

static qvl_status flush_column(qvl_dataset_writer *writer, column *to, qvl_err *err)
{
    hsize_t extent[2] = {0, 0}, start[2] = {to->written, 0}, count[2] = {to->buffered, 0};
    qvl_status rc = QVL_OK;
    if (to->buffered == 0)
        return QVL_OK;
    hid_t space = H5Dget_space(to->set);
    const int n_dims = H5Sget_simple_extent_dims(space, extent, NULL);
    H5Sclose(space);
    count[1] = extent[1];
    extent[0] = to->written + to->buffered;
    const hid_t memory = H5Screate_simple(n_dims, count, NULL);
    const herr_t grown = H5Dset_extent(to->set, extent);
    space = H5Dget_space(to->set);
    if (grown < 0 || H5Sselect_hyperslab(space, H5S_SELECT_SET, start, NULL, count, NULL) < 0 ||
        H5Dwrite(to->set, to->type, memory, space, H5P_DEFAULT, to->buffer) < 0)
        rc = qvl_h5_fail(err, QVL_EIO, "write %s: /%s", writer->path, to->name);
    H5Sclose(space);
    H5Sclose(memory);
    to->written += to->buffered;
    to->buffered = 0;
    return rc;
}

static qvl_status append(qvl_dataset_writer *writer, int index, const void *values, size_t count,
                         qvl_err *err)
{
    column *to = &writer->columns[index];
    const char *from = values;
    while (count) {
        const size_t room = to->chunk - to->buffered, n = count < room ? count : room;
        memcpy(to->buffer + to->buffered * to->element_bytes, from, n * to->element_bytes);
        to->buffered += n;
        from += n * to->element_bytes;
        count -= n;
        if (to->buffered == to->chunk) {
            const qvl_status rc = flush_column(writer, to, err);
            if (rc != QVL_OK)
                return rc;
        }
    }
    return QVL_OK;
}

static qvl_status write_attributes(qvl_dataset_writer *writer,
                                   const qvl_dataset_attributes *attributes, qvl_err *err)
{
    const struct {
        const char *name, *text;
    } texts[] = {{"format", "qvl-sft"},
                 {"digest", attributes->digest},
                 {"template", attributes->template_name},
                 {"tokenizer_sha256", attributes->tokenizer_sha256},
                 {"created_by", attributes->created_by},
                 {"sources", attributes->sources}};
    qvl_status rc = QVL_OK;
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
        if (texts[i].text)
            QVL_TRY(
                qvl_h5_write_text(writer->file, texts[i].name, texts[i].text, writer->path, err));
    QVL_TRY(qvl_h5_write_integer(writer->file, "version", 1, writer->path, err));
    QVL_TRY(qvl_h5_write_integer(writer->file, "cutoff_len", attributes->cutoff_len, writer->path,
                                 err));
out:
    return rc;
}

static qvl_status open_columns(qvl_dataset_writer *writer, qvl_err *err)
{
    static const char *const NAMES[N_COLUMNS] = {
        "input_ids",     "labels",          "sample_offsets",     "sample_image_offsets",
        "sample_images", "images/grid_thw", "images/rgb_offsets", "images/rgb",
        "source"};
    qvl_status rc = QVL_OK;
    const hid_t list = H5Pcreate(H5P_GROUP_CREATE);
    H5Pset_obj_track_times(list, false);
    const hid_t group = H5Gcreate2(writer->file, "images", H5P_DEFAULT, list, H5P_DEFAULT);
    H5Pclose(list);
    if (group < 0)
        return qvl_h5_fail(err, QVL_EIO, "write %s: /images", writer->path);
    H5Gclose(group);
    for (int i = 0; i < N_COLUMNS && rc == QVL_OK; i++) {
        const bool is_wide =
            i == SAMPLE_OFFSETS || i == IMAGE_OFFSETS || i == RGB_OFFSETS || i == SOURCE;
        const hid_t type = i == RGB  ? H5T_NATIVE_UINT8
                           : is_wide ? H5T_NATIVE_INT64
                                     : H5T_NATIVE_INT32;
        rc = open_column(writer, i, NAMES[i], type,
                         i == RGB  ? 1
                         : is_wide ? 8
                                   : 4,
                         i == GRIDS    ? 3
                         : i == SOURCE ? 2
                                       : 1,
                         err);
    }
    return rc;
}

/* In HDF5 1.10's layout, where the library finds damage to its own structures by checksums; in the
 * older ones a single wrong byte can make it read outside its memory. */
static hid_t create_file(const char *path)
{
    const hid_t access = H5Pcreate(H5P_FILE_ACCESS);
    H5Pset_libver_bounds(access, H5F_LIBVER_V110, H5F_LIBVER_V110);
    const hid_t file = H5Fcreate(path, H5F_ACC_TRUNC, H5P_DEFAULT, access);
    H5Pclose(access);
    return file;
}

/* A file of our own beside path, for this process alone: two jobs may write to the same path, and
 * have the same process number on two hosts. */
static qvl_status make_temporary(qvl_text *out, const char *path, qvl_err *err)
{
    enum { TRIES = 100 };
    qvl_status rc = QVL_OK;
    for (int i = 0; i < TRIES; i++) {
        qvl_text_clear(out);
        QVL_TRY(qvl_text_printf(out, err, "%s.%ld%02d.tmp", path, (long)getpid(), i));
        const int fd = open(out->data, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
        if (fd >= 0)
            close(fd);
        if (fd >= 0)
            return QVL_OK;
        if (errno != EEXIST)
            break;
    }
    rc = qvl_fail_errno(err, errno, 1, "create %s", path);
out:
    return rc;
}

qvl_status qvl_dataset_writer_create(qvl_dataset_writer **out, const char *path,
                                     const qvl_dataset_attributes *attributes, qvl_err *err)
{
    qvl_text temporary = {0};
    const int64_t zero = 0;
    qvl_dataset_writer *writer = NULL;
    qvl_status rc = qvl_alloc(&writer, 1, sizeof *writer, "data set writer", err);
    if (rc != QVL_OK)
        return rc;
    qvl_h5_quiet();
    writer->file = H5I_INVALID_HID;
    for (int i = 0; i < N_COLUMNS; i++)
        writer->columns[i].set = H5I_INVALID_HID;
    QVL_TRY(qvl_copy_text(&writer->path, path, err));
    QVL_TRY(make_temporary(&temporary, path, err));
    errno = 0;
    writer->file = create_file(temporary.data);
    if (writer->file < 0) {
        const int saved = errno; /* HDF5's own text hides it */
        unlink(temporary.data);  /* it may have been made before it could not be filled */
        rc = saved ? qvl_fail_errno(err, saved, 1, "create %s", path)
                   : qvl_h5_fail(err, QVL_EIO, "create %s", path);
        goto out;
    }
    writer->temporary = temporary.data;
    temporary = (qvl_text){0};
    QVL_TRY(write_attributes(writer, attributes, err));
    QVL_TRY(open_columns(writer, err));
    QVL_TRY(append(writer, SAMPLE_OFFSETS, &zero, 1, err));
    QVL_TRY(append(writer, IMAGE_OFFSETS, &zero, 1, err));
    QVL_TRY(append(writer, RGB_OFFSETS, &zero, 1, err));
    *out = writer;
    writer = NULL;
out:
    qvl_text_fini(&temporary);
    qvl_dataset_writer_discard(writer);
    return rc;
}

qvl_status qvl_dataset_writer_add_sample(qvl_dataset_writer *writer,
                                         const qvl_dataset_sample *sample, qvl_err *err)
{
    const int64_t source[2] = {sample->source, sample->record};
    qvl_status rc = QVL_OK;
    QVL_TRY(append(writer, IDS, sample->ids, (size_t)sample->n, err));
    QVL_TRY(append(writer, LABELS, sample->labels, (size_t)sample->n, err));
    writer->n_tokens += sample->n;
    QVL_TRY(append(writer, SAMPLE_OFFSETS, &writer->n_tokens, 1, err));
    QVL_TRY(append(writer, SAMPLE_IMAGES, sample->images, (size_t)sample->n_images, err));
    writer->n_references += sample->n_images;
    QVL_TRY(append(writer, IMAGE_OFFSETS, &writer->n_references, 1, err));
    QVL_TRY(append(writer, SOURCE, source, 1, err));
out:
    return rc;
}

qvl_status qvl_dataset_writer_add_image(qvl_dataset_writer *writer, const int32_t *grid,
                                        const uint8_t *rgb, qvl_err *err)
{
    const int64_t n_bytes = (int64_t)grid[1] * grid[2] * 14 * 14 * 3;
    qvl_status rc = QVL_OK;
    QVL_TRY(append(writer, GRIDS, grid, 1, err));
    QVL_TRY(append(writer, RGB, rgb, (size_t)n_bytes, err));
    writer->n_bytes += n_bytes;
    QVL_TRY(append(writer, RGB_OFFSETS, &writer->n_bytes, 1, err));
out:
    return rc;
}

qvl_status qvl_dataset_writer_finish(qvl_dataset_writer *writer, qvl_err *err)
{
    qvl_status rc = QVL_OK;
    for (int i = 0; i < N_COLUMNS; i++)
        QVL_TRY(flush_column(writer, &writer->columns[i], err));
    for (int i = 0; i < N_COLUMNS; i++) {
        const hid_t set = writer->columns[i].set;
        writer->columns[i].set = H5I_INVALID_HID;
        if (H5Dclose(set) < 0) {
            rc = qvl_h5_fail(err, QVL_EIO, "write %s: /%s", writer->path, writer->columns[i].name);
            goto out;
        }
    }
    if (H5Fflush(writer->file, H5F_SCOPE_GLOBAL) < 0) {
        rc = qvl_h5_fail(err, QVL_EIO, "write %s", writer->path);
        goto out;
    }
    const hid_t file = writer->file;
    writer->file = H5I_INVALID_HID;
    if (H5Fclose(file) < 0) {
        rc = qvl_h5_fail(err, QVL_EIO, "close %s", writer->path);
        goto out;
    }
    QVL_TRY(qvl_file_flush(writer->temporary, err));
    if (rename(writer->temporary, writer->path) != 0) {
        rc = qvl_fail_errno(err, errno, 1, "rename to %s", writer->path);
        goto out;
    }
    free(writer->temporary);
    writer->temporary = NULL;
    rc = qvl_file_flush_parent(writer->path, err);
out:
    qvl_dataset_writer_discard(writer);
    return rc;
}
