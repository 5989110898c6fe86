/* The pre-tokenized data file, HDF5, version 1 (docs/FORMATS.md).
 *
 * Not thread-safe: HDF5 is called from one thread.
 */
#ifndef QVL_IO_DATASET_H5_H
#define QVL_IO_DATASET_H5_H

#include <stdbool.h>
#include <stdint.h>

#include "src/base/status.h"

#ifdef __cplusplus
extern "C" {
#endif

/* ---- reading ----------------------------------------------------------------------------------
 */

typedef struct qvl_dataset qvl_dataset;

/* What the tokens of a file are checked against. */
typedef struct qvl_dataset_rules {
    int64_t vocab; /* rows of the embedding */
    int64_t image_token, video_token;
} qvl_dataset_rules;

/* Opens and checks the structure: format, version, offsets monotone and in range, references, grids
 * even, pixel sizes. QVL_EMISSING when it is not there, QVL_EDATA with the first fault. */
qvl_status qvl_dataset_open(qvl_dataset **out, const char *path, qvl_err *err);
void qvl_dataset_close(qvl_dataset *data); /* NULL is fine */

/* Reads samples first .. last-1 and checks that ids are below the vocabulary, labels are ids or
 * -100, and image tokens are the runs that the grids say. QVL_EDATA names sample and fault.
 * supervised [samples] (may be NULL) gets each one's number of supervised tokens. */
qvl_status qvl_dataset_check_samples(qvl_dataset *data, const qvl_dataset_rules *rules,
                                     int64_t first, int64_t last, int32_t *supervised,
                                     qvl_err *err);

int64_t qvl_dataset_samples(const qvl_dataset *data);
int64_t qvl_dataset_images(const qvl_dataset *data);
int64_t qvl_dataset_tokens(const qvl_dataset *data);
int64_t qvl_dataset_length(const qvl_dataset *data, int64_t sample);
const char *qvl_dataset_path(const qvl_dataset *data);
/* Attributes; "" when they are not there. */
const char *qvl_dataset_digest(const qvl_dataset *data);
const char *qvl_dataset_tokenizer_sha256(const qvl_dataset *data);
const char *qvl_dataset_template(const qvl_dataset *data);

/* Images of a sample: *out_images [n] image numbers, borrowed. Returns n. */
int64_t qvl_dataset_sample_images(const qvl_dataset *data, int64_t sample,
                                  const int32_t **out_images);
/* [3]: frames, rows, columns of an image in patches; borrowed. */
const int32_t *qvl_dataset_grid(const qvl_dataset *data, int64_t image);

/* ids and labels of a sample, each [length]. */
qvl_status qvl_dataset_read_sample(qvl_dataset *data, int64_t sample, int32_t *ids, int32_t *labels,
                                   qvl_err *err);
/* Pixels of an image: out [rows*14, cols*14, 3]. QVL_EDATA where they are damaged, or where wider
 * integers are stored and one is not 0 to 255. */
qvl_status qvl_dataset_read_rgb(qvl_dataset *data, int64_t image, uint8_t *out, qvl_err *err);
/* Reads the pixels of images first .. last-1 and forgets them; ends early when a stop is asked for.
 */
qvl_status qvl_dataset_check_pixels(qvl_dataset *data, int64_t first, int64_t last, qvl_err *err);

/* "data/x.json: sample 17" when the file says where a sample came from, else "sample 17". */
const char *qvl_dataset_describe(const qvl_dataset *data, int64_t sample, char buffer[512]);

/* ---- writing ----------------------------------------------------------------------------------
 */

typedef struct qvl_dataset_writer qvl_dataset_writer;

typedef struct qvl_dataset_attributes {
    const char *digest, *template_name, *tokenizer_sha256, *created_by;
    int64_t cutoff_len;
    const char *sources; /* newline-separated names that source numbers stand for */
} qvl_dataset_attributes;

/* Writes under another name; nothing is at path until finish. */
qvl_status qvl_dataset_writer_create(qvl_dataset_writer **out, const char *path,
                                     const qvl_dataset_attributes *attributes, qvl_err *err);

/* One sample: ids, labels [n], images [n_images] numbers; source: which of sources, and the record
 * in it. */
typedef struct qvl_dataset_sample {
    const int32_t *ids, *labels, *images;
    int64_t n, n_images;
    int64_t source, record;
} qvl_dataset_sample;
qvl_status qvl_dataset_writer_add_sample(qvl_dataset_writer *writer,
                                         const qvl_dataset_sample *sample, qvl_err *err);
/* Images in order of their numbers; grid [3], rgb of grid[1]*grid[2]*588 bytes (one frame). */
qvl_status qvl_dataset_writer_add_image(qvl_dataset_writer *writer, const int32_t *grid,
                                        const uint8_t *rgb, qvl_err *err);

/* Completes, flushes and renames; frees the writer in any case. */
qvl_status qvl_dataset_writer_finish(qvl_dataset_writer *writer, qvl_err *err);
/* Gives up: nothing is left behind. NULL is fine. */
void qvl_dataset_writer_discard(qvl_dataset_writer *writer);

#ifdef __cplusplus
}
#endif
#endif
