/* HDF5 files that differ from good ones as an input says: the structure is what the input decides,
 * not the bytes, which are HDF5's own business. */
#ifndef QVL_TESTS_FUZZ_H5_FILE_H
#define QVL_TESTS_FUZZ_H5_FILE_H

#include <hdf5.h>

#include "tests/fuzz/fuzz.h"

enum { H5_VALUES = 16 };

typedef struct h5_attribute {
    const char *name, *text; /* text NULL: the number */
    int64_t number;
} h5_attribute;

typedef struct h5_member {
    const char *name; /* "group/name": the group is made before it */
    hid_t type;
    int n_dims;
    hsize_t dims[2];
    int64_t values[H5_VALUES]; /* of more elements the rest is 0 */
} h5_member;

typedef struct h5_layout {
    h5_attribute attributes[12];
    h5_member members[12];
    int n_attributes, n_members;
} h5_layout;

/* A pre-tokenized file of two samples and two images. */
h5_layout h5_good_dataset(void);

/* Writes the file, with what the stream changes: zeros change nothing. Returns its path. */
const char *h5_write(const char *name, h5_layout *layout, fuzz_stream *in);

/* Reads a pre-tokenized file as a run does, every sample and image of it. */
void h5_read_dataset(const char *path);

#endif
