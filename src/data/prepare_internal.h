/* What the files of prepare share. */
#ifndef QVL_SRC_DATA_PREPARE_INTERNAL_H
#define QVL_SRC_DATA_PREPARE_INTERNAL_H

#include "io/dataset_h5.h"
#include "src/data/encode_block.h"
#include "src/data/image_list.h"
#include "src/data/prepare.h"

/* Lines kept of what is dropped, and of what is bad: all of it, unless a whole data set is. */
enum { QVL_LISTED_DROPPED = 20, QVL_LISTED_BAD = 10000, QVL_REASONS = 8 };

/* The gathering of one part (training or evaluation). All but world, selection and mode live on
 * rank 0 only. */
typedef struct qvl_part {
    qvl_world *world;
    qvl_log *log;
    const qvl_selection *selection;
    const qvl_record_ref *refs;
    int64_t n_refs;
    const char *name;           /* "training", "evaluation" */
    qvl_dataset_writer *writer; /* NULL when only checking */
    qvl_image_list images;
    qvl_image_list faulty; /* of an earlier pass: images with their faults */
    int64_t n_faulty;      /* images of this pass that do not decode */
    qvl_sample_table table;
    size_t table_capacity, supervised_capacity;
    int64_t n_dropped, n_bad, n_cut_samples, n_supervised, n_image_uses;
    qvl_text dropped_lines, bad_lines;
    struct {
        char text[64];
        int64_t count;
    } reasons[QVL_REASONS]; /* why records are dropped */
    int n_reasons;
    uint32_t *columns; /* [n_infos]: those that a record of the data set had */
    qvl_err first_bad;
    double started_s;
} qvl_part;

/* prepare_existing.c. Whether the file at path was made from what digest stands for. *out_fits
 * false and QVL_OK: encode. QVL_EDATA for a file that tokenized_path names and that does not fit,
 * or that overwrite_cache would replace although qvl did not write it. */
qvl_status qvl_prepare_check_existing(bool *out_fits, const char *path, const char *digest,
                                      const qvl_config *config, qvl_log *log, qvl_err *err);

/* Takes in one entry of a message. */
qvl_status qvl_part_add(qvl_part *part, const qvl_record_ref *ref, const qvl_block_entry *entry,
                        qvl_err *err);
/* A fault of a record or of an image that it names: listed with its file and number. */
qvl_status qvl_part_add_bad(qvl_part *part, const qvl_record_ref *ref, qvl_status status,
                            const char *text, qvl_err *err);
void qvl_part_report(const qvl_part *part);
void qvl_part_report_bad(const qvl_part *part);
void qvl_part_fini(qvl_part *part);
/* Forgets everything but which images are faulty: the next pass counts records with one as bad. */
void qvl_part_restart(qvl_part *part);

/* What is wrong with the parts of a selection, once all records are taken in: a column that no
 * record has, bad samples (unless skips: on_bad_sample), no samples. On rank 0. */
qvl_status qvl_parts_judge(const qvl_part *parts, int n_parts, bool skips, qvl_err *err);

/* Encodes all records of the part, spread over the ranks, and takes them in on rank 0. Collective.
 */
qvl_status qvl_part_records(qvl_part *part, qvl_block_encoder *encoder, qvl_err *err);

/* Decodes and resizes all images of the part, each once, spread over ranks and threads, and writes
 * them. Those that fail are marked in images and counted in n_faulty. Collective. */
qvl_status qvl_part_images(qvl_part *part, const qvl_image_limits *limits, int n_threads,
                           qvl_err *err);

#endif
