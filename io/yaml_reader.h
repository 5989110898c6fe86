/* Reads a YAML (or JSON) mapping into a tree with line numbers.
 *
 * Bounded: 1 MiB of text, depth 16, 4096 keys a mapping, one document, no aliases, no duplicated
 * keys. Scalars stay text; whoever knows the key's type interprets them.
 */
#ifndef QVL_IO_YAML_READER_H
#define QVL_IO_YAML_READER_H

#include <stdbool.h>
#include <stddef.h>

#include "src/base/status.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef enum qvl_yaml_kind { QVL_YAML_SCALAR, QVL_YAML_LIST, QVL_YAML_MAP } qvl_yaml_kind;

typedef struct qvl_yaml_node {
    qvl_yaml_kind kind;
    char *key;      /* within a mapping, else NULL */
    char *text;     /* of a scalar */
    bool is_quoted; /* a quoted scalar is a string whatever it looks like */
    int line;       /* from 1 */
    struct qvl_yaml_node *children;
    size_t n_children;
    size_t capacity;
} qvl_yaml_node;

/* name stands in messages ("configs/7b.yaml"). The root is a mapping; an empty document is an empty
 * one. QVL_ECONFIG with name:line on any fault. Release with qvl_yaml_free. */
qvl_status qvl_yaml_parse(qvl_yaml_node **out, const char *text, size_t n_bytes, const char *name,
                          qvl_err *err);
void qvl_yaml_free(qvl_yaml_node *root); /* NULL is fine */

/* Plain null, ~ or nothing. */
bool qvl_yaml_is_null(const qvl_yaml_node *node);

/* YAML 1.1 booleans as PyYAML reads them: true/false, yes/no, on/off in lower, upper or title case.
 */
bool qvl_yaml_as_bool(const qvl_yaml_node *node, bool *out);

#ifdef __cplusplus
}
#endif
#endif
