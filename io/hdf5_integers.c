/* Integers of any stored width. libhdf5 changes a value that the type in memory cannot hold to the
 * nearest one that it can, without a word. */
#include "io/hdf5_tools.h"

#include <inttypes.h>
#include <stdbool.h>
#include <stdlib.h>

#include "src/base/memory.h"

/* Whether every value of the stored type is one of the type in memory. */
static bool holds_all(hid_t type, hid_t stored)
{
    const bool is_signed = H5Tget_sign(type) != H5T_SGN_NONE;
    const bool was_signed = H5Tget_sign(stored) != H5T_SGN_NONE;
    const size_t bytes = H5Tget_size(type), stored_bytes = H5Tget_size(stored);
    return is_signed == was_signed ? stored_bytes <= bytes : is_signed && stored_bytes < bytes;
}

/* wide[i] as type, in its own place at the latest. A value is as if signed, or not, as it was
 * stored; index is where the first one is in the data set. */
static qvl_status narrow(void *out, hid_t type, const int64_t *wide, bool was_signed,
                         uint64_t count, uint64_t index, const char *name, const char *path,
                         qvl_err *err)
{
    const size_t bytes = H5Tget_size(type);
    const bool is_signed = H5Tget_sign(type) != H5T_SGN_NONE;
    const int64_t most = INT64_MAX >> (64 - 8 * bytes - (is_signed ? 0 : 1));
    const int64_t least = is_signed ? -most - 1 : 0;
    for (uint64_t i = 0; i < count; i++) {
        const int64_t value = wide[i];
        if (!was_signed && value < 0)
            return qvl_fail(err, QVL_EDATA,
                            "%s: /%s element %" PRIu64 " is %" PRIu64 ", out of the range %" PRId64
                            " to %" PRId64,
                            path, name, index + i, (uint64_t)value, least, most);
        if (value < least || value > most)
            return qvl_fail(err, QVL_EDATA,
                            "%s: /%s element %" PRIu64 " is %" PRId64 ", out of the range %" PRId64
                            " to %" PRId64,
                            path, name, index + i, value, least, most);
        if (bytes == 1)
            ((uint8_t *)out)[i] = (uint8_t)value;
        else if (bytes == 4)
            ((int32_t *)out)[i] = (int32_t)value;
        else
            ((int64_t *)out)[i] = value;
    }
    return QVL_OK;
}

/* A whole data set, or a range of one; libhdf5 would make values that do not fit fit. */
static qvl_status read_wide(hid_t dataset, hid_t stored, hid_t type, void *out,
                            const hsize_t *first, uint64_t count, const char *name,
                            const char *path, qvl_err *err)
{
    enum { BLOCK = 1 << 16 };
    const bool was_signed = H5Tget_sign(stored) != H5T_SGN_NONE;
    const hid_t wide_type = was_signed ? H5T_NATIVE_INT64 : H5T_NATIVE_UINT64;
    const uint64_t block = first && count > BLOCK ? BLOCK : count;
    int64_t *wide = NULL;
    qvl_status rc = QVL_OK;
    QVL_TRY(qvl_alloc(&wide, block, sizeof *wide, name, err));
    for (uint64_t at = 0; at < count; at += block) {
        const uint64_t n = count - at < block ? count - at : block;
        if (first)
            QVL_TRY(qvl_h5_read_range(dataset, wide_type, wide, *first + at, n, name, path, err));
        else if (H5Dread(dataset, wide_type, H5S_ALL, H5S_ALL, H5P_DEFAULT, wide) < 0)
            rc = qvl_h5_fail(err, QVL_EDATA, "%s: /%s", path, name);
        QVL_TRY(rc);
        QVL_TRY(narrow((char *)out + at * H5Tget_size(type), type, wide, was_signed, n,
                       (first ? *first : 0) + at, name, path, err));
    }
out:
    free(wide);
    return rc;
}

qvl_status qvl_h5_read_integers(hid_t dataset, hid_t type, void *out, uint64_t first,
                                uint64_t count, const char *name, const char *path, qvl_err *err)
{
    const hid_t stored = H5Dget_type(dataset);
    const hsize_t start = first;
    qvl_status rc = QVL_OK;
    if (stored < 0)
        return qvl_h5_fail(err, QVL_EDATA, "%s: /%s", path, name);
    if (holds_all(type, stored))
        rc = qvl_h5_read_range(dataset, type, out, first, count, name, path, err);
    else
        rc = read_wide(dataset, stored, type, out, &start, count, name, path, err);
    H5Tclose(stored);
    return rc;
}

qvl_status qvl_h5_read_all_integers(hid_t dataset, hid_t type, void *out, uint64_t count,
                                    const char *name, const char *path, qvl_err *err)
{
    const hid_t stored = H5Dget_type(dataset);
    qvl_status rc = QVL_OK;
    if (stored < 0)
        return qvl_h5_fail(err, QVL_EDATA, "%s: /%s", path, name);
    if (!holds_all(type, stored))
        rc = read_wide(dataset, stored, type, out, NULL, count, name, path, err);
    else if (count && H5Dread(dataset, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, out) < 0)
        rc = qvl_h5_fail(err, QVL_EDATA, "%s: /%s", path, name);
    H5Tclose(stored);
    return rc;
}
