/* Where the memory goes, decided before anything is allocated: how many tokens a pack has, which
 * layers keep their activations, whether image features are kept. */
#ifndef QVL_SRC_TRAIN_MEMORY_PLAN_H
#define QVL_SRC_TRAIN_MEMORY_PLAN_H

#include <stdbool.h>
#include <stdint.h>

#include "kernels/ops.h"
#include "src/base/host_memory.h"
#include "src/base/log.h"
#include "src/base/status.h"
#include "src/config/config.h"
#include "src/model/decoder.h"
#include "src/model/lora.h"
#include "src/model/model.h"

#ifdef __cplusplus
extern "C" {
#endif

/* What the data ask for. */
typedef struct qvl_memory_needs {
    int64_t longest_sample; /* tokens */
    int64_t longest_pack;   /* tokens that a rank has in one step, or in one micro-batch unpacked */
    int64_t step_rows;      /* tokens that a rank has in one step, at most */
    int64_t max_patches;    /* of one image; 0: no images */
    uint64_t feature_bytes; /* of all images of all parts */
    int ranks_per_host;
    int n_threads;              /* of this rank */
    qvl_process_memory process; /* what its limits leave to it; limit NULL: it has none */
} qvl_memory_needs;

typedef struct qvl_memory_plan {
    int64_t pack_tokens, n_kept, longest_sample, max_patches, step_rows;
    uint64_t spare_bytes;  /* of the activations: keeps more where layers are recomputed */
    qvl_decoder_kept kept; /* of the longest pack */
    int64_t head_rows;     /* of logits at once; 0: what the device likes */
    bool keeps_features;
    bool embeds_on_host; /* the token embedding is in pinned host memory */
    uint64_t text_bytes, embed_bytes, head_bytes, vision_bytes; /* text includes the head */
    uint64_t adapter_bytes, gradient_bytes, moment_bytes; /* adapters with their rounded copies */
    uint64_t device_bytes;                                /* of the backend itself */
    uint64_t activation_bytes, vision_activation_bytes, workspace_bytes, step_bytes;
    uint64_t feature_bytes;  /* kept, once a host */
    uint64_t peak_bytes;     /* of a rank, features not counted */
    uint64_t training_bytes; /* of a rank, once the first step has begun */
    uint64_t needed_bytes; /* of all ranks of the host, features counted, where host memory is it */
    uint64_t available_bytes;
    uint64_t process_bytes;     /* of this process, where its limits count */
    qvl_process_memory process; /* as in the needs */
    bool fits;
} qvl_memory_plan;

/* Decides. QVL_ECONFIG when pack_tokens is below the longest sample. Not fitting is no error here:
 * the caller looks at fits. */
qvl_status qvl_memory_plan_make(qvl_memory_plan *out, const qvl_config *config,
                                const qvl_model *model, const qvl_lora *lora, qvl_device *dev,
                                const qvl_memory_needs *needs, qvl_err *err);

void qvl_memory_plan_print(const qvl_memory_plan *plan, const qvl_model *model, qvl_log *log);

/* What of a GPU's memory was taken by the end of the first step, given the bytes free then, and how
 * much more by now. Nothing on CPUs. */
void qvl_memory_plan_report(const qvl_memory_plan *plan, qvl_device *dev, uint64_t free_then,
                            qvl_log *log);

/* QVL_EDEVICE with the bytes that are missing. */
qvl_status qvl_memory_plan_require(const qvl_memory_plan *plan, const qvl_device *dev,
                                   qvl_err *err);

#ifdef __cplusplus
}
#endif
#endif
