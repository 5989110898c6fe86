/* What the files of forward_check share. */
#ifndef QVL_TESTS_TOOLS_FORWARD_CHECK_H
#define QVL_TESTS_TOOLS_FORWARD_CHECK_H

#include "io/dataset_h5.h"
#include "io/hdf5_tools.h"
#include "src/base/log.h"
#include "src/model/decoder.h"
#include "src/model/model.h"
#include "src/model/vision.h"

typedef struct check {
    const char *fixture, *device;
    double slack; /* of the tolerances; 0: 0.05 for all */
    qvl_log log;
    qvl_world *world;
    qvl_device *dev;
    qvl_model model;
    qvl_lora *lora;
    qvl_dataset *data;
    hid_t expected;
    char expected_path[QVL_PATH_BYTES];
    /* the sample */
    int64_t T, n_images;
    int32_t *ids, *labels, *grids;
    void **features;
    int64_t n_feature_tokens;
    /* device */
    qvl_plan vision_slots, slots, state_slots;
    void *vision_memory, *memory, *state_memory, *workspace;
    qvl_vision *vision;
    qvl_decoder *decoder;
    qvl_lora_buffers buffers;
    float *row_loss;
    int lora_slots[4], slot_row_loss, slot_a_act;
    qvl_pack pack;
    void *pack_buffer;
    int n_failed;
} check;

/* Another decoder in the place of the one before, with its memory and workspace. */
qvl_status make_decoder(check *c, const qvl_decoder_options *options, qvl_err *err);
qvl_status alloc_workspace(check *c, const qvl_workspace_limits *limits, qvl_err *err);

/* forward_layouts.c: after a backward pass, the same one with less memory. */
qvl_status check_layouts(check *c, qvl_err *err);

#endif
