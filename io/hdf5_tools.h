/* HDF5 with our errors: its own printer is off, its stack's deepest message is folded into ours. */
#ifndef QVL_IO_HDF5_TOOLS_H
#define QVL_IO_HDF5_TOOLS_H

#include <stdbool.h>
#include <stdint.h>

#include <hdf5.h>

#include "src/base/status.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Switches HDF5's error printing off, the loading of plug-ins, and its work at the program's end,
 * since we close what we open; call before other HDF5 calls. */
void qvl_h5_quiet(void);

/* status with "format: HDF5's reason". */
qvl_status qvl_h5_fail(qvl_err *err, qvl_status status, const char *format, ...) QVL_PRINTF(3, 4);

/* A text attribute of fixed or variable length; *out is malloc'd, or NULL when it is not there. */
qvl_status qvl_h5_read_text(char **out, hid_t object, const char *name, const char *path,
                            qvl_err *err);
qvl_status qvl_h5_write_text(hid_t object, const char *name, const char *text, const char *path,
                             qvl_err *err);
/* An integer attribute; *found false when it is not there. */
qvl_status qvl_h5_read_integer(int64_t *out, bool *found, hid_t object, const char *name,
                               const char *path, qvl_err *err);
qvl_status qvl_h5_write_integer(hid_t object, const char *name, int64_t value, const char *path,
                                qvl_err *err);

/* Opens a data set of numbers that a file of others holds. QVL_EDATA when it is missing, or when
 * reading it could lead out of the file or take more than it seems to: links, values in other
 * files, virtual data sets, filters other than deflate, shuffle and fletcher32, chunks over 256
 * MiB, numbers over 8 bytes. name has at most 127 bytes. */
qvl_status qvl_h5_open_numbers(hid_t *out, hid_t file, const char *name, const char *path,
                               qvl_err *err);

/* An open data set of integers (qvl_h5_open_numbers) with n_dims dimensions whose sizes go to dims.
 * QVL_EDATA when it is missing, of another class, or of another rank. */
qvl_status qvl_h5_open_integers(hid_t *out, hsize_t *dims, int n_dims, hid_t file, const char *name,
                                const char *path, qvl_err *err);

/* Elements first .. first+count-1 of a one-dimensional data set, as type (H5T_NATIVE_...). */
qvl_status qvl_h5_read_range(hid_t dataset, hid_t type, void *out, uint64_t first, uint64_t count,
                             const char *name, const char *path, qvl_err *err);

/* The same, or all count elements, for H5T_NATIVE_UINT8, _INT32 or _INT64, of any stored width: a
 * value that type does not hold is QVL_EDATA, with its index. */
qvl_status qvl_h5_read_integers(hid_t dataset, hid_t type, void *out, uint64_t first,
                                uint64_t count, const char *name, const char *path, qvl_err *err);
qvl_status qvl_h5_read_all_integers(hid_t dataset, hid_t type, void *out, uint64_t count,
                                    const char *name, const char *path, qvl_err *err);

/* A whole array of floats or integers: written with one dimension; read whatever its dimensions
 * are, as long as it has count elements (QVL_EDATA). */
qvl_status qvl_h5_write_array(hid_t file, const char *name, hid_t type, const void *values,
                              int64_t count, const char *path, qvl_err *err);
qvl_status qvl_h5_read_array(hid_t file, const char *name, hid_t type, void *values, int64_t count,
                             const char *path, qvl_err *err);

#ifdef __cplusplus
}
#endif
#endif
