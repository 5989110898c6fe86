#include "io/yaml_reader.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <yaml.h>

#include "src/base/memory.h"

enum { TEXT_LIMIT = 1 << 20, DEPTH_LIMIT = 16, KEY_LIMIT = 4096 };

typedef struct reader {
    yaml_parser_t parser;
    const char *text, *name;
    size_t n_bytes;
    qvl_err *err;
} reader;

static void free_content(qvl_yaml_node *node)
{
    for (size_t i = 0; i < node->n_children; i++)
        free_content(&node->children[i]);
    free(node->children);
    free(node->key);
    free(node->text);
}

void qvl_yaml_free(qvl_yaml_node *root)
{
    if (!root)
        return;
    free_content(root);
    free(root);
}

/* Bytes that are no text (bad UTF-8, control characters) are found ahead of the parser, which then
 * knows their offset but no line. */
static size_t problem_line(const reader *in)
{
    const yaml_parser_t *p = &in->parser;
    size_t line = 1;
    if (p->error != YAML_READER_ERROR)
        return p->problem_mark.line + 1;
    for (size_t i = 0; i < p->problem_offset && i < in->n_bytes; i++)
        line += in->text[i] == '\n';
    return line;
}

static qvl_status next_event(reader *in, yaml_event_t *event)
{
    if (yaml_parser_parse(&in->parser, event))
        return QVL_OK;
    const yaml_parser_t *p = &in->parser;
    if (p->error == YAML_MEMORY_ERROR)
        return qvl_fail_memory(in->err, in->n_bytes, in->name);
    return qvl_fail(in->err, QVL_ECONFIG, "%s:%zu: %s%s%s", in->name, problem_line(in),
                    p->context ? p->context : "", p->context ? ": " : "",
                    p->problem ? p->problem : "not YAML");
}

static qvl_status add_child(reader *in, qvl_yaml_node *parent, qvl_yaml_node **out)
{
    const qvl_status rc = qvl_reserve(&parent->children, &parent->capacity, parent->n_children + 1,
                                      sizeof *parent->children, in->name, in->err);
    if (rc != QVL_OK)
        return rc;
    *out = &parent->children[parent->n_children++];
    **out = (qvl_yaml_node){0};
    return QVL_OK;
}

static qvl_status copy_scalar(reader *in, char **out, const yaml_event_t *event)
{
    const char *value = (const char *)event->data.scalar.value;
    if (strlen(value) != event->data.scalar.length)
        return qvl_fail(in->err, QVL_ECONFIG, "%s:%zu: a NUL character in a value", in->name,
                        event->start_mark.line + 1);
    return qvl_copy_text(out, value, in->err);
}

static qvl_status read_node(reader *in, qvl_yaml_node *node, const yaml_event_t *event, int depth);

static qvl_status read_list(reader *in, qvl_yaml_node *node, int depth)
{
    for (;;) {
        yaml_event_t event;
        qvl_yaml_node *child = NULL;
        qvl_status rc = next_event(in, &event);
        if (rc != QVL_OK)
            return rc;
        const bool is_end = event.type == YAML_SEQUENCE_END_EVENT;
        if (!is_end)
            rc = add_child(in, node, &child);
        if (!is_end && rc == QVL_OK)
            rc = read_node(in, child, &event, depth + 1);
        yaml_event_delete(&event);
        if (is_end || rc != QVL_OK)
            return rc;
    }
}

static qvl_status read_key(reader *in, qvl_yaml_node *map, qvl_yaml_node **out,
                           const yaml_event_t *event)
{
    const int line = (int)event->start_mark.line + 1;
    if (event->type != YAML_SCALAR_EVENT)
        return qvl_fail(in->err, QVL_ECONFIG, "%s:%d: a key must be a word", in->name, line);
    if (map->n_children >= KEY_LIMIT) /* each is compared with all before it */
        return qvl_fail(in->err, QVL_ECONFIG, "%s:%d: more than %d keys", in->name, line,
                        KEY_LIMIT);
    for (size_t i = 0; i < map->n_children; i++)
        if (strcmp(map->children[i].key, (const char *)event->data.scalar.value) == 0)
            return qvl_fail(in->err, QVL_ECONFIG,
                            "%s:%d: duplicate key '%s', first given in line %d", in->name, line,
                            map->children[i].key, map->children[i].line);
    const qvl_status rc = add_child(in, map, out);
    if (rc != QVL_OK)
        return rc;
    (*out)->line = line;
    return copy_scalar(in, &(*out)->key, event);
}

static qvl_status read_map(reader *in, qvl_yaml_node *node, int depth)
{
    for (;;) {
        yaml_event_t event;
        qvl_yaml_node *child = NULL;
        qvl_status rc = next_event(in, &event);
        if (rc != QVL_OK)
            return rc;
        const bool is_end = event.type == YAML_MAPPING_END_EVENT;
        if (!is_end)
            rc = read_key(in, node, &child, &event);
        yaml_event_delete(&event);
        if (is_end || rc != QVL_OK)
            return rc;
        rc = next_event(in, &event);
        if (rc != QVL_OK)
            return rc;
        rc = read_node(in, child, &event, depth + 1);
        yaml_event_delete(&event);
        if (rc != QVL_OK)
            return rc;
    }
}

/* node may already have a key; event opens its value. */
static qvl_status read_node(reader *in, qvl_yaml_node *node, const yaml_event_t *event, int depth)
{
    const int line = (int)event->start_mark.line + 1;
    node->line = node->line ? node->line : line;
    if (depth > DEPTH_LIMIT)
        return qvl_fail(in->err, QVL_ECONFIG, "%s:%d: nested deeper than %d", in->name, line,
                        DEPTH_LIMIT);
    switch (event->type) {
    case YAML_SCALAR_EVENT:
        node->kind = QVL_YAML_SCALAR;
        node->is_quoted = event->data.scalar.style == YAML_SINGLE_QUOTED_SCALAR_STYLE ||
                          event->data.scalar.style == YAML_DOUBLE_QUOTED_SCALAR_STYLE;
        return copy_scalar(in, &node->text, event);
    case YAML_SEQUENCE_START_EVENT:
        node->kind = QVL_YAML_LIST;
        return read_list(in, node, depth);
    case YAML_MAPPING_START_EVENT:
        node->kind = QVL_YAML_MAP;
        return read_map(in, node, depth);
    case YAML_ALIAS_EVENT:
        return qvl_fail(in->err, QVL_ECONFIG, "%s:%d: aliases are not read; write the value out",
                        in->name, line);
    default:
        return qvl_fail(in->err, QVL_ECONFIG, "%s:%d: a value was expected", in->name, line);
    }
}

static qvl_status read_document(reader *in, qvl_yaml_node *root)
{
    bool has_document = false;
    root->kind = QVL_YAML_MAP;
    for (;;) {
        yaml_event_t event;
        qvl_status rc = next_event(in, &event);
        if (rc != QVL_OK)
            return rc;
        const yaml_event_type_t type = event.type;
        const int line = (int)event.start_mark.line + 1;
        if (type == YAML_MAPPING_START_EVENT)
            rc = read_map(in, root, 1);
        else if (type == YAML_DOCUMENT_START_EVENT && has_document)
            rc = qvl_fail(in->err, QVL_ECONFIG, "%s:%d: a second document; one was expected",
                          in->name, line);
        else if (type == YAML_SEQUENCE_START_EVENT || type == YAML_ALIAS_EVENT ||
                 (type == YAML_SCALAR_EVENT && event.data.scalar.length))
            rc = qvl_fail(in->err, QVL_ECONFIG, "%s:%d: expected lines of \"key: value\"", in->name,
                          line);
        has_document |= type == YAML_DOCUMENT_START_EVENT;
        yaml_event_delete(&event);
        if (rc != QVL_OK || type == YAML_STREAM_END_EVENT)
            return rc;
    }
}

qvl_status qvl_yaml_parse(qvl_yaml_node **out, const char *text, size_t n_bytes, const char *name,
                          qvl_err *err)
{
    reader in = {.text = text, .name = name, .n_bytes = n_bytes, .err = err};
    qvl_yaml_node *root = NULL;
    if (n_bytes > TEXT_LIMIT)
        return qvl_fail(err, QVL_ECONFIG, "%s: %zu bytes, a configuration has at most %d", name,
                        n_bytes, TEXT_LIMIT);
    qvl_status rc = qvl_alloc(&root, 1, sizeof *root, name, err);
    if (rc != QVL_OK)
        return rc;
    if (!yaml_parser_initialize(&in.parser)) {
        free(root);
        return qvl_fail_memory(err, sizeof in.parser, "YAML parser");
    }
    yaml_parser_set_input_string(&in.parser, (const unsigned char *)text, n_bytes);
    rc = read_document(&in, root);
    yaml_parser_delete(&in.parser);
    if (rc != QVL_OK) {
        qvl_yaml_free(root);
        return rc;
    }
    *out = root;
    return QVL_OK;
}

bool qvl_yaml_is_null(const qvl_yaml_node *node)
{
    static const char *const WORDS[] = {"", "~", "null", "Null", "NULL"};
    for (size_t i = 0;
         node->kind == QVL_YAML_SCALAR && !node->is_quoted && i < sizeof WORDS / sizeof *WORDS; i++)
        if (strcmp(node->text, WORDS[i]) == 0)
            return true;
    return false;
}

bool qvl_yaml_as_bool(const qvl_yaml_node *node, bool *out)
{
    static const struct {
        const char *word;
        bool value;
    } WORDS[] = {{"true", true}, {"True", true},   {"TRUE", true},   {"yes", true},
                 {"Yes", true},  {"YES", true},    {"on", true},     {"On", true},
                 {"ON", true},   {"false", false}, {"False", false}, {"FALSE", false},
                 {"no", false},  {"No", false},    {"NO", false},    {"off", false},
                 {"Off", false}, {"OFF", false}};
    for (size_t i = 0;
         node->kind == QVL_YAML_SCALAR && !node->is_quoted && i < sizeof WORDS / sizeof *WORDS; i++)
        if (strcmp(node->text, WORDS[i].word) == 0) {
            *out = WORDS[i].value;
            return true;
        }
    return false;
}
