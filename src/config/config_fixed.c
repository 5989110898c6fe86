#include "src/config/config_fixed.h"

#include <stdio.h>
#include <string.h>

#include "src/base/text.h"

bool qvl_is_choice(const char *choices, const char *text)
{
    const size_t n = strlen(text);
    for (const char *at = choices;; at++) {
        const char *end = strchr(at, '|');
        const size_t length = end ? (size_t)(end - at) : strlen(at);
        if (length == n && strncmp(at, text, n) == 0)
            return true;
        if (!end)
            return false;
        at = end;
    }
}

const char *qvl_choices_format(char buffer[300], const char *choices)
{
    size_t n = 0;
    for (const char *at = choices; n < 300; at++) {
        const size_t length = strcspn(at, "|");
        n += (size_t)snprintf(buffer + n, 300 - n, "%s%.*s", at == choices ? "" : "|",
                              length ? (int)length : 2, length ? at : "\"\"");
        at += length;
        if (!*at)
            break;
    }
    return buffer;
}

bool qvl_fixed_accepts(const char *choices, const qvl_yaml_node *node)
{
    bool flag = false;
    double value = 0.0, expected = 0.0;
    if (qvl_yaml_is_null(node))
        return qvl_is_choice(choices, "null") || qvl_is_choice(choices, "false");
    if ((node->kind == QVL_YAML_LIST || node->kind == QVL_YAML_MAP) && node->n_children == 0)
        return qvl_is_choice(choices, "");
    if (node->kind == QVL_YAML_LIST) {
        for (size_t i = 0; i < node->n_children; i++)
            if (!qvl_fixed_accepts(choices, &node->children[i]))
                return false;
        return true;
    }
    if (node->kind == QVL_YAML_MAP)
        return false;
    if (qvl_yaml_as_bool(node, &flag))
        return qvl_is_choice(choices, flag ? "true" : "false") ||
               qvl_is_choice(choices, node->text);
    if (qvl_parse_double(node->text, &value) && qvl_parse_double(choices, &expected))
        return value == expected;
    return qvl_is_choice(choices, node->text);
}

const char *qvl_fixed_describe(char buffer[200], const char *choices, const qvl_yaml_node *node)
{
    size_t n = 0;
    if (node->kind == QVL_YAML_SCALAR)
        return node->text;
    snprintf(buffer, 200, "a structure");
    for (size_t i = 0; node->kind == QVL_YAML_LIST && i < node->n_children && n < 150; i++) {
        const qvl_yaml_node *child = &node->children[i];
        if (!qvl_fixed_accepts(choices, child))
            n += (size_t)snprintf(buffer + n, 200 - n, "%s%.40s", n ? ", " : "",
                                  child->kind == QVL_YAML_SCALAR ? child->text : "a structure");
    }
    return buffer;
}
