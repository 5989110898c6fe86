/* Values of keys of which qvl has only some. */
#ifndef QVL_SRC_CONFIG_CONFIG_FIXED_H
#define QVL_SRC_CONFIG_CONFIG_FIXED_H

#include <stdbool.h>

#include "io/yaml_reader.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Whether text is one of choices, "a|b|c". */
bool qvl_is_choice(const char *choices, const char *text);

/* choices as messages show them: the empty value is written "". */
const char *qvl_choices_format(char buffer[300], const char *choices);

/* Whether a value is one of choices; numbers and booleans compare by value. A list is when all of
 * its entries are. */
bool qvl_fixed_accepts(const char *choices, const qvl_yaml_node *node);

/* What a value that is none is called in a message: its text, borrowed from node; of a list the
 * entries that are none, in buffer. */
const char *qvl_fixed_describe(char buffer[200], const char *choices, const qvl_yaml_node *node);

#ifdef __cplusplus
}
#endif
#endif
