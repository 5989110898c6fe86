/* What the files of the pre-tokenized data's reader share; not for others. */
#ifndef QVL_IO_DATASET_H5_INTERNAL_H
#define QVL_IO_DATASET_H5_INTERNAL_H

#include "io/dataset_h5.h"
#include "io/hdf5_tools.h"

struct qvl_dataset {
    char *path;
    hid_t file, ids, labels, rgb;
    int64_t n_samples, n_images, n_tokens, n_references;
    int64_t *offsets;       /* [samples+1] */
    int64_t *image_offsets; /* [samples+1] */
    int32_t *references;
    int32_t *grids;       /* [images,3] */
    int64_t *rgb_offsets; /* [images+1] */
    char *digest, *tokenizer_sha256, *template_name;
    int64_t *source; /* [samples,2] or NULL */
    char *source_names;
};

#endif
