/* Everything of one training run. Made by the functions below in the order in which they stand
 * here; those that are not said to be rank 0's are collective. */
#ifndef QVL_SRC_TRAIN_RUN_H
#define QVL_SRC_TRAIN_RUN_H

#include <stdbool.h>
#include <stdint.h>

#include "io/dataset_h5.h"
#include "kernels/ops.h"
#include "mpi/world.h"
#include "src/base/log.h"
#include "src/base/plan.h"
#include "src/config/config.h"
#include "src/data/prepare.h"
#include "src/model/decoder.h"
#include "src/model/features.h"
#include "src/model/lora.h"
#include "src/model/model.h"
#include "src/model/pack.h"
#include "src/model/vision.h"
#include "src/train/checkpoint.h"
#include "src/train/memory_plan.h"
#include "src/train/progress.h"
#include "src/train/run_log.h"
#include "src/train/sample_reader.h"
#include "src/train/sampler.h"
#include "src/train/saver.h"
#include "src/train/schedule.h"
#include "src/train/step_plan.h"
#include "src/train/time_limit.h"

#ifdef __cplusplus
extern "C" {
#endif

/* One part of the data: training or evaluation. */
typedef struct qvl_run_data {
    qvl_dataset *data; /* NULL when there is none, or when only checking */
    qvl_sample_table table;
    qvl_sample_reader *reader; /* NULL without data, and before anything is allocated */
    qvl_features *features;
} qvl_run_data;

/* Who checks writes nothing; only who trains takes output_dir for itself. */
typedef enum qvl_run_purpose { QVL_RUN_TRAINS, QVL_RUN_CHECKS, QVL_RUN_MEASURES } qvl_run_purpose;

typedef struct qvl_run {
    const qvl_config *config;
    qvl_world *world;
    qvl_log *log;
    qvl_run_purpose purpose;
    qvl_timer timer;
    /* opened */
    qvl_device *dev;
    qvl_exchange *exchange; /* between GPUs; NULL on CPUs and for one rank */
    int n_threads;
    qvl_model model;
    qvl_lora_options lora_options;
    qvl_lora *lora;
    qvl_run_data train, eval;
    /* planned */
    qvl_sampler *sampler;
    qvl_step_plan *step_plan, *next_plan; /* of the step in work; of the one after it */
    qvl_schedule schedule;
    qvl_memory_plan memory;
    /* allocated */
    qvl_plan activation_slots, vision_slots, state_slots;
    void *activations, *vision_activations, *state_memory, *workspace;
    int lora_slots[4], slot_a_act, slot_row_loss, slot_sum_squares;
    void *offload_memory; /* host; NULL: no activations are offloaded */
    qvl_decoder *decoder;
    qvl_vision *vision;
    qvl_lora_buffers buffers;
    float *row_loss, *sum_squares; /* device */
    qvl_pack pack;
    void *pack_buffer;
    const void **feature_list; /* of the images of the sample in work */
    int32_t *grids;            /* of its images, [n_images, 3] */
    int64_t *next_samples;     /* of this rank in the next step, [samples of a step] */
    float *host_losses;        /* [step_rows] */
    float *row_weights;        /* [step_rows] */
    int bucket_layers;         /* whose gradients are summed over GPUs together */
    int summed_to;             /* lowest layer whose gradients are summed over GPUs in this step */
    /* in progress */
    qvl_train_state state;
    qvl_run_log *run_log;            /* rank 0 */
    qvl_saver *saver;                /* rank 0 */
    int lock;                        /* of output_dir, rank 0; -1: none */
    bool has_output;                 /* output_dir was made and taken */
    char first_made[QVL_PATH_BYTES]; /* the first directory of output_dir that was made for it */
    qvl_time_limit limit;            /* rank 0 */
    qvl_progress progress;
    int64_t n_skipped; /* steps in a row that nan_policy: skip has skipped */
} qvl_run;

/* run.c, allocate in run_allocate.c: opening, planning, allocating, loading. */
qvl_status qvl_run_open(qvl_run *run, const qvl_config *config, qvl_run_purpose purpose,
                        qvl_world *world, qvl_log *log, qvl_err *err);
qvl_status qvl_run_plan(qvl_run *run, qvl_err *err);
void qvl_run_print_plan(qvl_run *run);
qvl_status qvl_run_allocate(qvl_run *run, qvl_err *err);
void qvl_run_close(qvl_run *run);

/* run_data.c, within open: the data sets of the configuration, encoded where they are not yet, and
 * their tables. QVL_EDATA for one that supervises nothing. */
qvl_status qvl_run_open_data(qvl_run *run, qvl_err *err);

/* run_buckets.c, after allocate: how many layers' gradients are summed over GPUs at once. */
qvl_status qvl_run_choose_buckets(qvl_run *run, qvl_err *err);

/* run_offload.c, after allocate: activations that wait in host memory, if there is something to
 * gain. Every rank decides for itself: results do not depend on it. */
qvl_status qvl_run_set_offload(qvl_run *run, qvl_err *err);
void qvl_run_release_offload(qvl_run *run);

/* step.c */
typedef struct qvl_step_result {
    double loss, grad_norm, rate, epoch;
    int64_t tokens; /* all ranks */
    int64_t rows;   /* this rank's losses, in run->host_losses */
} qvl_step_result;
qvl_status qvl_run_step(qvl_run *run, int64_t k, qvl_step_result *out, qvl_err *err);
/* Appends a sample of a part to the pack; number is its place in the part's data. */
qvl_status qvl_run_pack_sample(qvl_run *run, qvl_run_data *part, int64_t number, float weight,
                               qvl_err *err);

/* start.c, rank 0: makes output_dir and locks it, unless that was done; gives it back, and one that
 * was made for nothing goes. */
qvl_status qvl_run_take_output(qvl_run *run, qvl_err *err);
void qvl_run_release_output(qvl_run *run);

/* start.c. Directory, log and the checkpoint to go on from ("": none); before the weights are
 * loaded, so that a directory that cannot be written to is known at once. Removes nothing yet. Then
 * the state of that checkpoint, which rank 0 reads and the others receive. */
qvl_status qvl_run_open_output(qvl_run *run, char checkpoint[QVL_PATH_BYTES], qvl_err *err);
/* Before the first step: what an earlier run left goes, config.yaml is written. */
qvl_status qvl_run_begin_output(qvl_run *run, const char *checkpoint, qvl_err *err);
/* --check: what of that would be refused. */
qvl_status qvl_run_check_output(qvl_run *run, qvl_err *err);
qvl_status qvl_run_resume(qvl_run *run, const char *checkpoint, qvl_err *err);

/* describe.c: what a checkpoint must share with the run that goes on from it (identity), and what
 * it should (order). */
qvl_status qvl_run_describe(qvl_run *run, qvl_err *err);

/* not_finite.c: what to do with step k, whose loss or gradient norm is not finite; its result, the
 * step plan and the gradients are still there. QVL_EDATA names step, samples and tensor; QVL_OK:
 * the step is skipped, as nan_policy says. Collective. */
qvl_status qvl_run_not_finite(qvl_run *run, int64_t k, const qvl_step_result *result, qvl_err *err);

/* rank_check.c: that all ranks have the same adapters, bit for bit. QVL_EDEVICE. Collective. */
qvl_status qvl_run_compare_ranks(qvl_run *run, qvl_err *err);

/* results.c: what stays in output_dir, on rank 0. trainer_state.json comes last: has_results looks
 * for it. */
qvl_status qvl_run_save_results(qvl_run *run, qvl_err *err);
bool qvl_run_has_results(const qvl_run *run);

/* evaluate.c: mean over the evaluation part's samples of their batches' mean losses. Cut short when
 * a stop was asked for (qvl_world_is_stopping): the loss is then NAN. */
qvl_status qvl_run_evaluate(qvl_run *run, double *out_loss, int64_t *out_batches, qvl_err *err);

/* Copies parameters and moments between the device and state. */
qvl_status qvl_run_download_state(qvl_run *run, qvl_err *err);
qvl_status qvl_run_upload_state(qvl_run *run, qvl_err *err);

#ifdef __cplusplus
}
#endif
#endif
