/* PEFT adapters: adapter_config.json and adapter_model.safetensors (REFERENCE 9.5, 9.6). */
#ifndef QVL_IO_ADAPTER_H
#define QVL_IO_ADAPTER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "io/adapter_targets.h"
#include "io/safetensors.h"
#include "src/base/status.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct qvl_adapter_config {
    int64_t rank;
    double alpha, dropout;
    bool use_rslora;
} qvl_adapter_config;

/* ---- writing ---- */

typedef enum qvl_adapter_layout {
    QVL_LAYOUT_HF_4_52, /* base_model.model.model.language_model.layers... */
    QVL_LAYOUT_HF_4_51  /* base_model.model.model.layers... */
} qvl_adapter_layout;

/* "hf4.51", or "hf4.52" and anything else. */
qvl_adapter_layout qvl_adapter_layout_named(const char *name);

/* One matrix by its module, "layers.3.mlp.gate_proj". */
typedef struct qvl_adapter_matrix {
    const char *module;
    bool is_b;
    int64_t rows, cols;
    const float *data;
} qvl_adapter_matrix;

/* The names of an adapter's two files. */
#define QVL_ADAPTER_CONFIG  "adapter_config.json"
#define QVL_ADAPTER_TENSORS "adapter_model.safetensors"

/* What both files shall contain, cleared first. */
qvl_status qvl_adapter_format(qvl_text *out_config, qvl_text *out_tensors,
                              const qvl_adapter_config *config, qvl_adapter_layout layout,
                              const char *base_model, const qvl_adapter_matrix *matrices,
                              size_t count, qvl_err *err);

/* Writes both files into directory, which must exist; each replaces its predecessor whole.
 * target_modules lists every module by a suffix that no other module of either naming has. */
qvl_status qvl_adapter_write(const char *directory, const qvl_adapter_config *config,
                             qvl_adapter_layout layout, const char *base_model,
                             const qvl_adapter_matrix *matrices, size_t count, qvl_err *err);

/* ---- reading ---- */

typedef struct qvl_adapter_files qvl_adapter_files;

/* Opens and checks an adapter of this kind: LoRA without biases, patterns, DoRA or saved modules.
 * QVL_EMISSING, or QVL_EDATA with the member that is not supported. */
qvl_status qvl_adapter_open(qvl_adapter_files **out, qvl_adapter_config *out_config,
                            const char *directory, qvl_err *err);
void qvl_adapter_close(qvl_adapter_files *files); /* NULL is fine */

size_t qvl_adapter_count(const qvl_adapter_files *files);
/* Matrix i: its module (in either naming brought to "layers.N.x.y_proj"), whether it is B, and the
 * tensor. */
const qvl_tensor *qvl_adapter_at(const qvl_adapter_files *files, size_t i, const char **out_module,
                                 bool *out_is_b);

/* Whether PEFT builds an adapter for this module ("layers.3.mlp.up_proj") of the model whose naming
 * the file's first tensor has. */
qvl_target qvl_adapter_is_target(const qvl_adapter_files *files, const char *module);

#ifdef __cplusplus
}
#endif
#endif
