/* The demo's config: LLaMA-Factory's keys (REFERENCE 7.10). */
#ifndef QVL_SRC_DEMO_YAML_H
#define QVL_SRC_DEMO_YAML_H

#include <stdbool.h>

#include "src/base/text.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Appends a training run on the demo in directory. is_tiny: for a CPU in a minute or two; else for
 * a model of real size. directory is UTF-8 without control characters. */
qvl_status qvl_demo_add_yaml(qvl_text *out, const char *directory, bool is_tiny, qvl_err *err);

#ifdef __cplusplus
}
#endif
#endif
