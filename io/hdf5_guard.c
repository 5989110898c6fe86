/* What is looked at before a data set of a file that others made is read. */
#include "io/hdf5_tools.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

/* libhdf5 unpacks a chunk as a whole; a file decides how large one is. */
enum { CHUNK_LIMIT_BYTES = 256 << 20 };

/* A soft link may lead to another one, and an external one to any file of this machine. */
static qvl_status check_link(hid_t file, const char *name, const char *path, qvl_err *err)
{
    H5L_info_t info;
    if (H5Lexists(file, name, H5P_DEFAULT) <= 0 || H5Lget_info(file, name, &info, H5P_DEFAULT) < 0)
        return qvl_fail(err, QVL_EDATA, "%s: /%s is missing or damaged", path, name);
    if (info.type != H5L_TYPE_HARD)
        return qvl_fail(err, QVL_EDATA, "%s: /%s is a link, expected the data themselves", path,
                        name);
    return QVL_OK;
}

/* The groups on the way, then the data set. */
static qvl_status check_links(hid_t file, const char *name, const char *path, qvl_err *err)
{
    char group[128];
    for (const char *slash = strchr(name, '/'); slash; slash = strchr(slash + 1, '/')) {
        snprintf(group, sizeof group, "%.*s", (int)(slash - name), name);
        const qvl_status rc = check_link(file, group, path, err);
        if (rc != QVL_OK)
            return rc;
    }
    return check_link(file, name, path, err);
}

/* What qvl and h5py's gzip, shuffle and fletcher32 write. Any other id may be a plug-in's, also one
 * below H5Z_FILTER_RESERVED; nbit, scaleoffset and szip are libhdf5's own, but take parameters from
 * the file that its releases have trusted too far. */
static bool is_readable_filter(H5Z_filter_t filter)
{
    return filter == H5Z_FILTER_DEFLATE || filter == H5Z_FILTER_SHUFFLE ||
           filter == H5Z_FILTER_FLETCHER32;
}

static qvl_status check_filters(hid_t list, const char *name, const char *path, qvl_err *err)
{
    const int n = H5Pget_nfilters(list);
    for (int i = 0; i < n; i++) {
        unsigned flags = 0;
        size_t n_values = 0;
        const H5Z_filter_t filter =
            H5Pget_filter2(list, (unsigned)i, &flags, &n_values, NULL, 0, NULL, NULL);
        if (!is_readable_filter(filter))
            return qvl_fail(err, QVL_EDATA,
                            "%s: /%s is packed with filter %d, expected deflate (gzip), shuffle or "
                            "fletcher32; write it with these or without filters",
                            path, name, (int)filter);
    }
    return QVL_OK;
}

static qvl_status check_chunk(hid_t list, size_t element_bytes, const char *name, const char *path,
                              qvl_err *err)
{
    hsize_t chunk[H5S_MAX_RANK] = {0};
    const int n_dims = H5Pget_chunk(list, H5S_MAX_RANK, chunk);
    uint64_t bytes = element_bytes;
    bool is_small = n_dims >= 1;
    for (int i = 0; is_small && i < n_dims; i++)
        is_small = !__builtin_mul_overflow(bytes, (uint64_t)chunk[i], &bytes) &&
                   bytes <= CHUNK_LIMIT_BYTES;
    if (!is_small)
        return qvl_fail(err, QVL_EDATA, "%s: /%s has chunks of over %d MiB", path, name,
                        CHUNK_LIMIT_BYTES >> 20);
    return QVL_OK;
}

/* Its values are in the file itself, and what unpacks them is libhdf5's own. A virtual data set is
 * made of others, itself among them if the file says so, and that would never end. */
static qvl_status check_storage(hid_t list, size_t element_bytes, const char *name,
                                const char *path, qvl_err *err)
{
    switch (H5Pget_layout(list)) {
    case H5D_COMPACT:
        return QVL_OK;
    case H5D_CONTIGUOUS:
        if (H5Pget_external_count(list) != 0)
            return qvl_fail(err, QVL_EDATA,
                            "%s: /%s keeps its values in other files, expected them in this one",
                            path, name);
        return QVL_OK;
    case H5D_CHUNKED: {
        const qvl_status rc = check_chunk(list, element_bytes, name, path, err);
        return rc == QVL_OK ? check_filters(list, name, path, err) : rc;
    }
    default:
        return qvl_fail(err, QVL_EDATA,
                        "%s: /%s is a virtual data set, expected the values in this file", path,
                        name);
    }
}

/* Numbers have up to 8 bytes here; HDF5 would take any size that a file states. */
static qvl_status check_set(hid_t set, const char *name, const char *path, qvl_err *err)
{
    const hid_t type = H5Dget_type(set), list = H5Dget_create_plist(set);
    const size_t bytes = type < 0 ? 0 : H5Tget_size(type);
    qvl_status rc = QVL_OK;
    if (bytes < 1 || bytes > 8)
        rc = qvl_fail(err, QVL_EDATA,
                      "%s: /%s has elements of %zu bytes, expected numbers of at most 8", path,
                      name, bytes);
    else if (list < 0)
        rc = qvl_h5_fail(err, QVL_EDATA, "%s: /%s", path, name);
    else
        rc = check_storage(list, bytes, name, path, err);
    if (list >= 0)
        H5Pclose(list);
    if (type >= 0)
        H5Tclose(type);
    return rc;
}

qvl_status qvl_h5_open_numbers(hid_t *out, hid_t file, const char *name, const char *path,
                               qvl_err *err)
{
    *out = H5I_INVALID_HID;
    qvl_status rc = check_links(file, name, path, err);
    if (rc != QVL_OK)
        return rc;
    *out = H5Dopen2(file, name, H5P_DEFAULT);
    if (*out < 0)
        return qvl_fail(err, QVL_EDATA, "%s: /%s is missing or damaged", path, name);
    rc = check_set(*out, name, path, err);
    if (rc != QVL_OK) {
        H5Dclose(*out);
        *out = H5I_INVALID_HID;
    }
    return rc;
}
