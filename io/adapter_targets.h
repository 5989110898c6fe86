/* Which modules an adapter_config.json is for: target_modules and exclude_modules by PEFT's rules.
 *
 * A list takes a module whose full name is an entry, or ends with a dot and an entry; a text is a
 * regular expression that the whole name must match, or "all-linear".
 */
#ifndef QVL_IO_ADAPTER_TARGETS_H
#define QVL_IO_ADAPTER_TARGETS_H

#include <jansson.h>

#include "src/base/status.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef enum qvl_target { QVL_TARGET_NO, QVL_TARGET_YES, QVL_TARGET_UNKNOWN } qvl_target;

typedef struct qvl_adapter_targets qvl_adapter_targets;

/* root is the whole file, path its name for messages. QVL_EDATA when a member is neither list of
 * texts, text nor null. *out belongs to the caller and does not need root any more. */
qvl_status qvl_adapter_targets_read(qvl_adapter_targets **out, const json_t *root, const char *path,
                                    qvl_err *err);
void qvl_adapter_targets_destroy(qvl_adapter_targets *targets); /* NULL is fine */

/* Of a module by its full name, "model.language_model.layers.3.mlp.up_proj". Unknown where the file
 * has no target_modules, or an expression that only Python can read. */
qvl_target qvl_adapter_targets_take(const qvl_adapter_targets *targets, const char *name);

#ifdef __cplusplus
}
#endif
#endif
