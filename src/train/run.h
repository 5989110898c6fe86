/* Everything of one training run. Made by trainer.c's functions in the order in which they stand
 * here; every one is collective. */
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
#include "src/train/sampler.h"
#include "src/train/schedule.h"
#include "src/train/step_plan.h"

#ifdef __cplusplus
extern "C" {
#endif

/* One part of the data: training or evaluation. */
typedef struct qvl_run_data {
    qvl_dataset *data; /* NULL when there is none, or when only checking */
    qvl_sample_table table;
    qvl_features *features;
} qvl_run_data;

typedef struct qvl_run {
    const qvl_config *config;
    qvl_world *world;
    qvl_log *log;
    bool is_check;
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
    qvl_step_plan *step_plan;
    qvl_schedule schedule;
    qvl_memory_plan memory;
    /* allocated */
    qvl_plan activation_slots, vision_slots, state_slots;
    void *activations, *vision_activations, *state_memory, *workspace;
    int lora_slots[4], slot_a_act, slot_row_loss, slot_sum_squares;
    qvl_decoder *decoder;
    qvl_vision *vision;
    qvl_lora_buffers buffers;
    float *row_loss, *sum_squares; /* device */
    qvl_pack pack;
    void *pack_buffer;
    int32_t *ids, *labels;     /* of the sample in work */
    const void **feature_list; /* of its images */
    int32_t *grids;            /* of its images, [n_images, 3] */
    float *host_losses;        /* [step_rows] */
    float *row_weights;        /* [step_rows] */
    int summed_to;             /* lowest layer whose gradients are summed over GPUs in this step */
    /* in progress */
    qvl_train_state state;
    qvl_run_log *run_log; /* rank 0 */
    qvl_progress progress;
} qvl_run;

/* run.c: opening, planning, allocating, loading. */
qvl_status qvl_run_open(qvl_run *run, const qvl_config *config, bool is_check, qvl_world *world,
                        qvl_log *log, qvl_err *err);
qvl_status qvl_run_plan(qvl_run *run, qvl_err *err);
void qvl_run_print_plan(qvl_run *run);
qvl_status qvl_run_allocate(qvl_run *run, qvl_err *err);
void qvl_run_close(qvl_run *run);

/* step.c */
typedef struct qvl_step_result {
    double loss, grad_norm, rate, epoch;
    int64_t tokens; /* all ranks */
} qvl_step_result;
qvl_status qvl_run_step(qvl_run *run, int64_t k, qvl_step_result *out, qvl_err *err);
/* Appends a sample of a part to the pack; number is its place in the part's data. */
qvl_status qvl_run_pack_sample(qvl_run *run, qvl_run_data *part, int64_t number, float weight,
                               qvl_err *err);

/* evaluate.c: mean over the evaluation part's samples of their batches' mean losses. */
qvl_status qvl_run_evaluate(qvl_run *run, double *out_loss, int64_t *out_batches, qvl_err *err);

/* Copies parameters and moments between the device and state. */
qvl_status qvl_run_download_state(qvl_run *run, qvl_err *err);
qvl_status qvl_run_upload_state(qvl_run *run, qvl_err *err);

#ifdef __cplusplus
}
#endif
#endif
