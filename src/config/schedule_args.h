/* The arguments of lr_scheduler_kwargs, as transformers' schedules take them. */
#ifndef QVL_SRC_CONFIG_SCHEDULE_ARGS_H
#define QVL_SRC_CONFIG_SCHEDULE_ARGS_H

#include <stdbool.h>

#include "io/yaml_reader.h"
#include "src/base/text.h"
#include "src/config/config.h"

#ifdef __cplusplus
extern "C" {
#endif

/* None is given. */
void qvl_schedule_args_clear(qvl_config *config);

/* Takes those that a mapping, or a text with one in JSON, has; where stands in messages. */
qvl_status qvl_schedule_args_set(qvl_config *config, const qvl_yaml_node *node, const char *where,
                                 qvl_err *err);

/* The first that is given and is no argument of lr_scheduler_type, or NULL. */
const char *qvl_schedule_args_misfit(const qvl_config *config);

/* "num_cycles", "lr_end and power", "none": what lr_scheduler_type takes. */
const char *qvl_schedule_args_taken(char buffer[200], const qvl_config *config);

/* Those that are given, as YAML: {num_cycles: 0.5}, or null. */
qvl_status qvl_schedule_args_format(qvl_text *out, const qvl_config *config, qvl_err *err);

#ifdef __cplusplus
}
#endif
#endif
