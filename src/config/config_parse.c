#include "src/config/config.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "io/yaml_reader.h"
#include "src/base/memory.h"
#include "src/config/config_fixed.h"
#include "src/config/config_table.h"
#include "src/config/schedule_args.h"

/* Where a value came from, for messages. */
typedef struct origin {
    const char *name; /* of the file; NULL for the command line */
    int line;
} origin;

static const char *describe(char buffer[300], const origin *from)
{
    if (from->name)
        snprintf(buffer, 300, "%.250s:%d", from->name, from->line);
    else
        snprintf(buffer, 300, "command line");
    return buffer;
}

static void *member_of(qvl_config *config, const qvl_option *option)
{
    return (char *)config + option->offset;
}

static qvl_status set_text(qvl_config *config, const qvl_option *option, const char *text,
                           qvl_err *err)
{
    char **member = member_of(config, option);
    free(*member);
    return qvl_copy_text(member, text, err);
}

/* Appends the words of "a , b" as "a,b". */
static qvl_status add_words(qvl_text *out, const char *text, qvl_err *err)
{
    for (;;) {
        text += strspn(text, " ");
        const size_t length = strcspn(text, ",");
        size_t n = length;
        while (n && text[n - 1] == ' ')
            n--;
        const qvl_status rc =
            qvl_text_printf(out, err, "%.*s%s", (int)n, text, text[length] ? "," : "");
        if (rc != QVL_OK || !text[length])
            return rc;
        text += length + 1;
    }
}

/* A list of words becomes "a,b", and so does the scalar "a, b". */
static qvl_status join_list(qvl_text *out, const qvl_yaml_node *node, const char *where,
                            qvl_err *err)
{
    qvl_status rc = qvl_text_puts(out, "", err);
    if (node->kind == QVL_YAML_SCALAR)
        return rc == QVL_OK ? add_words(out, node->text, err) : rc;
    for (size_t i = 0; rc == QVL_OK && i < node->n_children; i++) {
        const qvl_yaml_node *child = &node->children[i];
        if (node->kind != QVL_YAML_LIST || child->kind != QVL_YAML_SCALAR ||
            qvl_yaml_is_null(child))
            return qvl_fail(err, QVL_ECONFIG, "%s: %s: expected a list of words", where, node->key);
        if (i)
            rc = qvl_text_puts(out, ",", err);
        if (rc == QVL_OK)
            rc = add_words(out, child->text, err);
    }
    return rc;
}

/* 010 is 8 to YAML 1.1, which nobody means. */
static bool is_octal(const char *text)
{
    text += *text == '-' || *text == '+';
    return text[0] == '0' && text[1] && strspn(text, "01234567") == strlen(text);
}

static qvl_status set_number(qvl_config *config, const qvl_option *option,
                             const qvl_yaml_node *node, const char *where, qvl_err *err)
{
    double value = 0.0;
    char low[40], high[40];
    const bool is_int = option->type == QVL_OPTION_INT;
    const char *kind = is_int ? "a whole number" : "a number";
    if (node->kind != QVL_YAML_SCALAR)
        return qvl_fail(err, QVL_ECONFIG, "%s: %s: expected %s", where, option->key, kind);
    if (is_octal(node->text))
        return qvl_fail(err, QVL_ECONFIG,
                        "%s: %s: '%s' is octal in YAML; write it without the zero", where,
                        option->key, node->text);
    const bool is_number = qvl_parse_double(node->text, &value);
    if (!is_number || (is_int && value != floor(value))) /* 1e3 and 8.0 are whole */
        return qvl_fail(err, QVL_ECONFIG, "%s: %s: '%s' is not %s", where, option->key, node->text,
                        kind);
    if (value < option->min || value > option->max)
        return qvl_fail(err, QVL_ECONFIG, "%s: %s: %s is out of range, expected %s to %s", where,
                        option->key, node->text, qvl_option_format_limit(low, option, option->min),
                        qvl_option_format_limit(high, option, option->max));
    if (is_int)
        *(int64_t *)member_of(config, option) = (int64_t)value;
    else
        *(double *)member_of(config, option) = value;
    return QVL_OK;
}

/* A null is legal where the default is null, and where it means 0 to transformers. */
static qvl_status set_null(qvl_config *config, const qvl_option *option, const char *where,
                           qvl_err *err)
{
    const bool may_be_null = strcmp(option->default_text, "null") == 0;
    if (strcmp(option->key, "max_grad_norm") == 0 || strcmp(option->key, "warmup_ratio") == 0) {
        *(double *)member_of(config, option) = 0.0;
        return QVL_OK;
    }
    if (!may_be_null && option->type != QVL_OPTION_TEXT && option->type != QVL_OPTION_LIST)
        return qvl_fail(err, QVL_ECONFIG, "%s: %s: has no value; its default is %s", where,
                        option->key, option->default_text);
    switch (option->type) {
    case QVL_OPTION_INT:
        *(int64_t *)member_of(config, option) = -1;
        return QVL_OK;
    case QVL_OPTION_FLOAT:
        *(double *)member_of(config, option) = -1.0;
        return QVL_OK;
    case QVL_OPTION_TEXT:
    case QVL_OPTION_LIST:
        return set_text(config, option, may_be_null ? NULL : option->default_text, err);
    default: /* lr_scheduler_kwargs */
        qvl_schedule_args_clear(config);
        return QVL_OK;
    }
}

static qvl_status set_bool(qvl_config *config, const qvl_option *option, const qvl_yaml_node *node,
                           const char *where, qvl_err *err)
{
    bool flag = false;
    if (!qvl_yaml_as_bool(node, &flag))
        return qvl_fail(err, QVL_ECONFIG, "%s: %s: '%s' is not true or false%s", where, option->key,
                        node->kind == QVL_YAML_SCALAR ? node->text : "a structure",
                        node->is_quoted ? "; write it without quotes" : "");
    *(bool *)member_of(config, option) = flag;
    return QVL_OK;
}

/* Each word of "a,b" is one of the option's choices. */
static qvl_status check_words(const qvl_option *option, const char *words, const char *where,
                              qvl_err *err)
{
    char bad[200] = "", word[64];
    size_t n = 0;
    for (const char *at = words; *at;) {
        const size_t length = strcspn(at, ",");
        snprintf(word, sizeof word, "%.*s", (int)length, at);
        if (length && !qvl_is_choice(option->choices, word) && n < sizeof bad - sizeof word)
            n += (size_t)snprintf(bad + n, sizeof bad - n, "%s%s", n ? ", " : "", word);
        at += length + (at[length] == ',');
    }
    return n ? qvl_fail(err, QVL_ECONFIG, "%s: %s: '%s' is not supported, only %s (%s)", where,
                        option->key, bad, option->choices, option->help)
             : QVL_OK;
}

static qvl_status set_list(qvl_config *config, const qvl_option *option, const qvl_yaml_node *node,
                           const char *where, qvl_err *err)
{
    qvl_text joined = {0};
    qvl_status rc = join_list(&joined, node, where, err);
    if (rc == QVL_OK && option->choices)
        rc = check_words(option, joined.data, where, err);
    if (rc == QVL_OK)
        rc = set_text(config, option, joined.data, err);
    qvl_text_fini(&joined);
    return rc;
}

/* A text, or one of the option's choices. "no" and "true" are words here, whatever YAML 1.1 makes
 * of them. */
static qvl_status set_word(qvl_config *config, const qvl_option *option, const qvl_yaml_node *node,
                           const char *where, qvl_err *err)
{
    bool flag = false;
    char choices[300];
    if (node->kind != QVL_YAML_SCALAR)
        return qvl_fail(err, QVL_ECONFIG, "%s: %s: expected a text, found a %s", where, option->key,
                        node->kind == QVL_YAML_MAP ? "mapping" : "list");
    const char *text = node->text;
    if (option->choices && qvl_yaml_as_bool(node, &flag) && !qvl_is_choice(option->choices, text))
        text = flag ? "true" : qvl_is_choice(option->choices, "no") ? "no" : "false";
    if (option->choices && !qvl_is_choice(option->choices, text))
        return qvl_fail(err, QVL_ECONFIG, "%s: %s: '%s' is not one of %s", where, option->key, text,
                        qvl_choices_format(choices, option->choices));
    /* Its text is a path, but for the words that ask for the newest checkpoint, or none. */
    if (strcmp(option->key, "resume_from_checkpoint") == 0 && qvl_yaml_as_bool(node, &flag))
        text = flag ? "true" : "false";
    return set_text(config, option, text, err);
}

static qvl_status set_used(qvl_config *config, const qvl_option *option, const qvl_yaml_node *node,
                           const char *where, qvl_err *err)
{
    if (qvl_yaml_is_null(node))
        return set_null(config, option, where, err);
    switch (option->type) {
    case QVL_OPTION_BOOL:
        return set_bool(config, option, node, where, err);
    case QVL_OPTION_INT:
    case QVL_OPTION_FLOAT:
        return set_number(config, option, node, where, err);
    case QVL_OPTION_MAP:
        return qvl_schedule_args_set(config, node, where, err);
    case QVL_OPTION_LIST:
        return set_list(config, option, node, where, err);
    default:
        return set_word(config, option, node, where, err);
    }
}

/* What LLaMA-Factory takes for yes in an environment variable. */
static bool is_enabled(const char *variable)
{
    const char *value = getenv(variable);
    return value && (strcmp(value, "1") == 0 || strcasecmp(value, "true") == 0 ||
                     strcasecmp(value, "y") == 0);
}

static qvl_status unknown_key(const char *key, const char *where, qvl_err *err)
{
    const char *nearest =
        strcmp(key, "image_resolution") == 0 ? "image_max_pixels" : qvl_option_nearest(key);
    if (is_enabled("ALLOW_EXTRA_ARGS"))
        return QVL_OK;
    return qvl_fail(err, QVL_ECONFIG, "%s: unknown key '%s'%s%s%s", where, key,
                    nearest ? "; did you mean '" : "", nearest ? nearest : "", nearest ? "'?" : "");
}

static qvl_status set_option(qvl_config *config, const qvl_yaml_node *node, const origin *from,
                             qvl_err *err)
{
    char where[300], value[200], choices[300];
    const int index = qvl_option_find(node->key);
    describe(where, from);
    if (index < 0)
        return unknown_key(node->key, where, err);
    const qvl_option *option = &QVL_OPTIONS[index];
    if (from->name && config->given_at[index] && option->role == QVL_OPTION_USED)
        return qvl_fail(err, QVL_ECONFIG, "%s: '%s' is '%s', which was given before", where,
                        node->key, option->key);
    config->given_at[index] = from->name ? from->line : QVL_GIVEN_AS_OVERRIDE;
    if (option->role == QVL_OPTION_FIXED && !qvl_fixed_accepts(option->choices, node))
        return qvl_fail(err, QVL_ECONFIG, "%s: %s: '%s' is not supported, only %s (%s)", where,
                        node->key, qvl_fixed_describe(value, option->choices, node),
                        qvl_choices_format(choices, option->choices), option->help);
    return option->role == QVL_OPTION_USED ? set_used(config, option, node, where, err) : QVL_OK;
}

static qvl_status set_defaults(qvl_config *config, qvl_err *err)
{
    qvl_schedule_args_clear(config);
    for (size_t i = 0; i < QVL_N_OPTIONS; i++) {
        const qvl_option *option = &QVL_OPTIONS[i];
        if (!option->key || option->role != QVL_OPTION_USED)
            continue;
        const qvl_yaml_node node = {.key = (char *)(uintptr_t)option->key,
                                    .text = (char *)(uintptr_t)option->default_text};
        const qvl_status rc = set_used(config, option, &node, "default", err);
        if (rc != QVL_OK)
            return rc;
    }
    return QVL_OK;
}

static qvl_status apply_override(qvl_config *config, const char *text, qvl_err *err)
{
    const char *equals = strchr(text, '=');
    qvl_text line = {0};
    qvl_yaml_node *root = NULL;
    qvl_status rc = QVL_OK;
    if (!equals || equals == text)
        return qvl_fail(err, QVL_EUSAGE, "'%s': an override has the form key=value", text);
    QVL_TRY(qvl_text_printf(&line, err, "%.*s: %s", (int)(equals - text), text, equals + 1));
    QVL_TRY(qvl_yaml_parse(&root, line.data, line.len, "command line", err));
    if (root->n_children == 1)
        rc = set_option(config, &root->children[0], &(origin){0}, err);
    else
        rc = qvl_fail(err, QVL_EUSAGE, "'%s': an override is one key=value", text);
out:
    qvl_yaml_free(root);
    qvl_text_fini(&line);
    return rc;
}

/* Faults of single keys, in one line, so that one start tells all that is to be put right. */
typedef struct fault_list {
    qvl_text text;
    int n;
} fault_list;

enum { MOST_FAULTS = 5 }; /* that are told */

/* Other failures than of the configuration end the reading. */
static qvl_status add_fault(fault_list *faults, const qvl_err *fault, qvl_err *err)
{
    if (fault->status != QVL_ECONFIG)
        return qvl_fail(err, fault->status, "%s", fault->text);
    if (faults->n++ >= MOST_FAULTS)
        return QVL_OK;
    return qvl_text_printf(&faults->text, err, "%s%.*s", faults->n > 1 ? "; also " : "",
                           QVL_ERR_TEXT_BYTES / MOST_FAULTS - 16, fault->text);
}

static qvl_status set_keys(qvl_config *config, const qvl_yaml_node *root, const char *name,
                           const char *const *overrides, int n_overrides, qvl_err *err)
{
    fault_list faults = {0};
    qvl_status rc = QVL_OK;
    for (size_t i = 0; i < root->n_children; i++) {
        const origin from = {.name = name, .line = root->children[i].line};
        qvl_err fault = {0};
        if (set_option(config, &root->children[i], &from, &fault) != QVL_OK)
            QVL_TRY(add_fault(&faults, &fault, err));
    }
    for (int i = 0; i < n_overrides; i++) {
        qvl_err fault = {0};
        if (apply_override(config, overrides[i], &fault) != QVL_OK)
            QVL_TRY(add_fault(&faults, &fault, err));
    }
    if (faults.n > MOST_FAULTS)
        rc =
            qvl_fail(err, QVL_ECONFIG, "%s; and %d more", faults.text.data, faults.n - MOST_FAULTS);
    else if (faults.n)
        rc = qvl_fail(err, QVL_ECONFIG, "%s", faults.text.data);
out:
    qvl_text_fini(&faults.text);
    return rc;
}

qvl_status qvl_config_parse(qvl_config **out, const char *text, size_t n_bytes, const char *name,
                            const char *const *overrides, int n_overrides, qvl_err *err)
{
    qvl_config *config = NULL;
    qvl_yaml_node *root = NULL;
    qvl_status rc = qvl_alloc(&config, 1, sizeof *config, "configuration", err);
    if (rc != QVL_OK)
        return rc;
    QVL_TRY(qvl_alloc(&config->given_at, QVL_N_OPTIONS, sizeof *config->given_at, "configuration",
                      err));
    config->name = name;
    QVL_TRY(set_defaults(config, err));
    QVL_TRY(qvl_yaml_parse(&root, text, n_bytes, name, err));
    QVL_TRY(set_keys(config, root, name, overrides, n_overrides, err));
    QVL_TRY(qvl_config_check(config, name, err));
    *out = config;
    config = NULL;
out:
    qvl_yaml_free(root);
    qvl_config_destroy(config);
    return rc;
}

void qvl_config_destroy(qvl_config *config)
{
    if (!config)
        return;
    for (size_t i = 0; i < QVL_N_OPTIONS; i++)
        if (QVL_OPTIONS[i].role == QVL_OPTION_USED &&
            (QVL_OPTIONS[i].type == QVL_OPTION_TEXT || QVL_OPTIONS[i].type == QVL_OPTION_LIST))
            free(*(char **)member_of(config, &QVL_OPTIONS[i]));
    free(config->given_at);
    free(config);
}
