#include "io/hdf5_tools.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "src/base/memory.h"

void qvl_h5_quiet(void)
{
    H5dont_atexit(); /* a file that could not be closed (a full disk) would make it crash there */
    H5Eset_auto2(H5E_DEFAULT, NULL, NULL);
    H5PLset_loading_state(0); /* groups may have filters too, and nobody looks at those */
}

/* The first entry of an upward walk is where the fault was seen. Where that was a system call, it
 * tells a long story, of which the system's own words are wanted. */
static herr_t keep_first(unsigned n, const H5E_error2_t *entry, void *text)
{
    static const char SYSTEM[] = "error message = '";
    const char *words = n == 0 && entry->desc ? strstr(entry->desc, SYSTEM) : NULL;
    if (words) {
        words += sizeof SYSTEM - 1;
        snprintf(text, 256, "%.*s", (int)strcspn(words, "'"), words);
    } else if (n == 0 && entry->desc) {
        snprintf(text, 256, "%s", entry->desc);
    }
    return 0;
}

qvl_status qvl_h5_fail(qvl_err *err, qvl_status status, const char *format, ...)
{
    char what[1024], reason[256] = "unknown reason";
    va_list args;
    va_start(args, format);
    vsnprintf(what, sizeof what, format, args);
    va_end(args);
    H5Ewalk2(H5E_DEFAULT, H5E_WALK_UPWARD, keep_first, reason);
    H5Eclear2(H5E_DEFAULT);
    return qvl_fail(err, status, "%s: %s", what, reason);
}

static qvl_status read_text_value(char **out, hid_t attribute, hid_t type, const char *name,
                                  const char *path, qvl_err *err)
{
    const size_t size = H5Tget_size(type);
    hid_t memory_type = H5Tcopy(H5T_C_S1);
    char *variable = NULL;
    qvl_status rc = QVL_OK;
    if (H5Tis_variable_str(type) > 0) {
        H5Tset_size(memory_type, H5T_VARIABLE);
        H5Tset_cset(memory_type, H5Tget_cset(type));
        if (H5Aread(attribute, memory_type, &variable) < 0)
            rc = qvl_h5_fail(err, QVL_EDATA, "%s: attribute %s", path, name);
        else
            rc = qvl_copy_text(out, variable ? variable : "", err);
        if (variable)
            H5free_memory(variable);
    } else if (size > (1 << 20)) {
        rc = qvl_fail(err, QVL_EDATA, "%s: attribute %s has %zu bytes", path, name, size);
    } else {
        rc = qvl_alloc(out, size + 1, 1, "attribute", err);
        H5Tset_size(memory_type, size + 1);
        H5Tset_cset(memory_type, H5Tget_cset(type));
        if (rc == QVL_OK && H5Aread(attribute, memory_type, *out) < 0)
            rc = qvl_h5_fail(err, QVL_EDATA, "%s: attribute %s", path, name);
    }
    H5Tclose(memory_type);
    return rc;
}

qvl_status qvl_h5_read_text(char **out, hid_t object, const char *name, const char *path,
                            qvl_err *err)
{
    qvl_status rc = QVL_OK;
    *out = NULL;
    if (H5Aexists(object, name) <= 0)
        return QVL_OK;
    const hid_t attribute = H5Aopen(object, name, H5P_DEFAULT);
    const hid_t type = attribute < 0 ? H5I_INVALID_HID : H5Aget_type(attribute);
    const hid_t space = attribute < 0 ? H5I_INVALID_HID : H5Aget_space(attribute);
    if (type < 0 || H5Tget_class(type) != H5T_STRING || H5Sget_simple_extent_npoints(space) != 1)
        rc = qvl_fail(err, QVL_EDATA, "%s: attribute %s is not a text", path, name);
    else
        rc = read_text_value(out, attribute, type, name, path, err);
    if (rc != QVL_OK) {
        free(*out);
        *out = NULL;
    }
    if (space >= 0)
        H5Sclose(space);
    if (type >= 0)
        H5Tclose(type);
    if (attribute >= 0)
        H5Aclose(attribute);
    return rc;
}

static qvl_status write_attribute(hid_t object, const char *name, hid_t file_type,
                                  hid_t memory_type, const void *value, const char *path,
                                  qvl_err *err)
{
    const hid_t space = H5Screate(H5S_SCALAR);
    const hid_t attribute = H5Acreate2(object, name, file_type, space, H5P_DEFAULT, H5P_DEFAULT);
    qvl_status rc = QVL_OK;
    if (attribute < 0 || H5Awrite(attribute, memory_type, value) < 0)
        rc = qvl_h5_fail(err, QVL_EIO, "write %s: attribute %s", path, name);
    if (attribute >= 0)
        H5Aclose(attribute);
    H5Sclose(space);
    return rc;
}

qvl_status qvl_h5_write_text(hid_t object, const char *name, const char *text, const char *path,
                             qvl_err *err)
{
    const hid_t type = H5Tcopy(H5T_C_S1);
    H5Tset_size(type, strlen(text) + 1);
    H5Tset_cset(type, H5T_CSET_UTF8);
    const qvl_status rc = write_attribute(object, name, type, type, text, path, err);
    H5Tclose(type);
    return rc;
}

qvl_status qvl_h5_write_integer(hid_t object, const char *name, int64_t value, const char *path,
                                qvl_err *err)
{
    const hid_t type = value >= INT32_MIN && value <= INT32_MAX ? H5T_STD_I32LE : H5T_STD_I64LE;
    return write_attribute(object, name, type, H5T_NATIVE_INT64, &value, path, err);
}

qvl_status qvl_h5_read_integer(int64_t *out, bool *found, hid_t object, const char *name,
                               const char *path, qvl_err *err)
{
    qvl_status rc = QVL_OK;
    *found = false;
    if (H5Aexists(object, name) <= 0)
        return QVL_OK;
    const hid_t attribute = H5Aopen(object, name, H5P_DEFAULT);
    const hid_t type = attribute < 0 ? H5I_INVALID_HID : H5Aget_type(attribute);
    const hid_t space = attribute < 0 ? H5I_INVALID_HID : H5Aget_space(attribute);
    if (type < 0 || H5Tget_class(type) != H5T_INTEGER || H5Tget_size(type) > 8 ||
        H5Sget_simple_extent_npoints(space) != 1 || H5Aread(attribute, H5T_NATIVE_INT64, out) < 0)
        rc = qvl_fail(err, QVL_EDATA, "%s: attribute %s is not one integer", path, name);
    else
        *found = true;
    if (space >= 0)
        H5Sclose(space);
    if (type >= 0)
        H5Tclose(type);
    if (attribute >= 0)
        H5Aclose(attribute);
    return rc;
}

static qvl_status check_integers(hid_t dataset, hsize_t *dims, int n_dims, const char *name,
                                 const char *path, qvl_err *err)
{
    const hid_t type = H5Dget_type(dataset), space = H5Dget_space(dataset);
    qvl_status rc = QVL_OK;
    if (type < 0 || H5Tget_class(type) != H5T_INTEGER)
        rc = qvl_fail(err, QVL_EDATA, "%s: /%s does not hold integers", path, name);
    else if (space < 0 || H5Sget_simple_extent_ndims(space) != n_dims)
        rc = qvl_fail(err, QVL_EDATA, "%s: /%s has %d dimensions, expected %d", path, name,
                      space < 0 ? 0 : H5Sget_simple_extent_ndims(space), n_dims);
    else
        H5Sget_simple_extent_dims(space, dims, NULL);
    if (space >= 0)
        H5Sclose(space);
    if (type >= 0)
        H5Tclose(type);
    return rc;
}

qvl_status qvl_h5_open_integers(hid_t *out, hsize_t *dims, int n_dims, hid_t file, const char *name,
                                const char *path, qvl_err *err)
{
    qvl_status rc = qvl_h5_open_numbers(out, file, name, path, err);
    if (rc != QVL_OK)
        return rc;
    rc = check_integers(*out, dims, n_dims, name, path, err);
    if (rc != QVL_OK) {
        H5Dclose(*out);
        *out = H5I_INVALID_HID;
    }
    return rc;
}

qvl_status qvl_h5_read_range(hid_t dataset, hid_t type, void *out, uint64_t first, uint64_t count,
                             const char *name, const char *path, qvl_err *err)
{
    const hsize_t start = first, n = count;
    qvl_status rc = QVL_OK;
    if (count == 0)
        return QVL_OK;
    const hid_t memory = H5Screate_simple(1, &n, NULL), space = H5Dget_space(dataset);
    if (memory < 0 || space < 0 ||
        H5Sselect_hyperslab(space, H5S_SELECT_SET, &start, NULL, &n, NULL) < 0 ||
        H5Dread(dataset, type, memory, space, H5P_DEFAULT, out) < 0)
        rc = qvl_h5_fail(err, QVL_EDATA, "%s: /%s elements %" PRIu64 " to %" PRIu64, path, name,
                         first, first + count - 1);
    if (space >= 0)
        H5Sclose(space);
    if (memory >= 0)
        H5Sclose(memory);
    return rc;
}

qvl_status qvl_h5_write_array(hid_t file, const char *name, hid_t type, const void *values,
                              int64_t count, const char *path, qvl_err *err)
{
    const hsize_t n = (hsize_t)count;
    const hid_t space = H5Screate_simple(1, &n, NULL);
    const hid_t list = H5Pcreate(H5P_DATASET_CREATE);
    H5Pset_obj_track_times(list, false); /* the same state gives the same bytes */
    const hid_t dataset = H5Dcreate2(file, name, type, space, H5P_DEFAULT, list, H5P_DEFAULT);
    qvl_status rc = QVL_OK;
    H5Pclose(list);
    if (dataset < 0 || H5Dwrite(dataset, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, values) < 0)
        rc = qvl_h5_fail(err, QVL_EIO, "write %s: /%s", path, name);
    if (dataset >= 0 && H5Dclose(dataset) < 0 && rc == QVL_OK)
        rc = qvl_h5_fail(err, QVL_EIO, "write %s: /%s", path, name);
    if (space >= 0)
        H5Sclose(space);
    return rc;
}

qvl_status qvl_h5_read_array(hid_t file, const char *name, hid_t type, void *values, int64_t count,
                             const char *path, qvl_err *err)
{
    hid_t dataset = H5I_INVALID_HID;
    qvl_status rc = qvl_h5_open_numbers(&dataset, file, name, path, err);
    if (rc != QVL_OK)
        return rc;
    const hid_t space = H5Dget_space(dataset);
    if (space < 0 || H5Sget_simple_extent_npoints(space) != count)
        rc = qvl_fail(err, QVL_EDATA, "%s: /%s has %lld elements, expected %" PRId64, path, name,
                      space < 0 ? 0 : (long long)H5Sget_simple_extent_npoints(space), count);
    else if (count && H5Dread(dataset, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, values) < 0)
        rc = qvl_h5_fail(err, QVL_EDATA, "%s: /%s", path, name);
    if (space >= 0)
        H5Sclose(space);
    H5Dclose(dataset);
    return rc;
}
