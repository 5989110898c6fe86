/* Adapters between the flat buffer and PEFT files. */
#ifndef QVL_SRC_MODEL_LORA_FILES_H
#define QVL_SRC_MODEL_LORA_FILES_H

#include "io/adapter.h"
#include "src/base/status.h"
#include "src/model/lora.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Writes host [parameters] as an adapter into directory. */
qvl_status qvl_lora_save(const qvl_lora *lora, const float *host, const char *directory,
                         qvl_adapter_layout layout, const char *base_model, qvl_err *err);

/* What the two files of an adapter shall contain. */
qvl_status qvl_lora_format(const qvl_lora *lora, const float *host, qvl_text *out_config,
                           qvl_text *out_tensors, qvl_adapter_layout layout, const char *base_model,
                           qvl_err *err);

/* Options of an adapter directory: rank, alpha, dropout, rslora, and as targets the linears that it
 * has matrices for. QVL_EDATA when those are not the ones that its target_modules takes. */
qvl_status qvl_lora_read_options(qvl_lora_options *out, const char *directory, qvl_err *err);
/* The same; QVL_EDATA also for a tensor of a layer that the model does not have. */
qvl_status qvl_lora_read_options_for(qvl_lora_options *out, const qvl_model_dims *dims,
                                     const char *directory, qvl_err *err);

/* Reads an adapter into host [parameters]. Every matrix must be there once, with its shape; none
 * may be left over. QVL_EDATA names the first fault. */
qvl_status qvl_lora_load(const qvl_lora *lora, float *host, const char *directory, qvl_err *err);

/* What qvl_lora_load would refuse, with nothing read into memory. */
qvl_status qvl_lora_check(const qvl_lora *lora, const char *directory, qvl_err *err);

#ifdef __cplusplus
}
#endif
#endif
