#include "src/config/schedule_args.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "src/config/config_fixed.h"

#define COSINES_WITH_MIN "cosine_with_min_lr|cosine_warmup_with_min_lr"
#define WSD              "warmup_stable_decay"

typedef struct schedule_arg {
    const char *name;
    size_t offset;       /* of a double in qvl_config */
    const char *takers;  /* the lr_scheduler_types that take it */
    const char *range;   /* of a number, for messages */
    double min, max;     /* of a number */
    bool is_whole;       /* a number of steps */
    bool may_be_null;    /* null is as good as not given */
    const char *choices; /* of a word, whose number among them is kept; NULL: a number */
} schedule_arg;

#define NUMBER(name, member, takers, may_be_null)                                                  \
    {                                                                                              \
        name, offsetof(qvl_config, member), takers, "a number in 0 to 1e6", 0, 1e6, false,         \
            may_be_null, NULL                                                                      \
    }
#define STEPS(name, member, takers, range, min, may_be_null)                                       \
    {                                                                                              \
        name, offsetof(qvl_config, member), takers, range, min, 1e9, true, may_be_null, NULL       \
    }
#define SHAPE(name, member)                                                                        \
    {                                                                                              \
        name, offsetof(qvl_config, member), WSD, NULL, 0, 0, false, false, QVL_SCHEDULE_SHAPES     \
    }

static const schedule_arg ARGS[] = {
    NUMBER("num_cycles", lr_num_cycles, "cosine|cosine_with_restarts|" COSINES_WITH_MIN "|" WSD,
           false),
    NUMBER("lr_end", lr_end, "polynomial", false),
    NUMBER("power", lr_power, "polynomial", false),
    NUMBER("min_lr", lr_min, COSINES_WITH_MIN, true),
    NUMBER("min_lr_rate", lr_min_rate, COSINES_WITH_MIN, true),
    NUMBER("warmup_lr_rate", lr_warmup_rate, "cosine_warmup_with_min_lr", true),
    STEPS("timescale", lr_timescale, "inverse_sqrt", "a whole number in 1 to 1e9", 1, true),
    STEPS("num_stable_steps", lr_stable_steps, WSD, "a whole number in 0 to 1e9", 0, false),
    STEPS("num_decay_steps", lr_decay_steps, WSD, "a whole number in 0 to 1e9", 0, false),
    NUMBER("min_lr_ratio", lr_min_ratio, WSD, false),
    SHAPE("warmup_type", lr_warmup_shape),
    SHAPE("decay_type", lr_decay_shape),
};

enum { N_ARGS = sizeof ARGS / sizeof *ARGS };

static double *member_of(qvl_config *config, const schedule_arg *arg)
{
    return (double *)(void *)((char *)config + arg->offset);
}

static double value_of(const qvl_config *config, const schedule_arg *arg)
{
    return *(const double *)(const void *)((const char *)config + arg->offset);
}

void qvl_schedule_args_clear(qvl_config *config)
{
    for (int i = 0; i < N_ARGS; i++)
        *member_of(config, &ARGS[i]) = NAN;
}

/* "a, b or c" of the arguments that type takes (of all where it is NULL). */
static const char *list_names(char buffer[200], const char *type, const char *last)
{
    int n = 0, n_listed = 0;
    size_t at = 0;
    for (int i = 0; i < N_ARGS; i++)
        n += !type || qvl_is_choice(ARGS[i].takers, type);
    for (int i = 0; i < N_ARGS && at < 200; i++)
        if (!type || qvl_is_choice(ARGS[i].takers, type)) {
            const char *before = n_listed == 0 ? "" : n_listed == n - 1 ? last : ", ";
            at += (size_t)snprintf(buffer + at, 200 - at, "%s%s", before, ARGS[i].name);
            n_listed++;
        }
    if (n == 0)
        snprintf(buffer, 200, "none");
    return buffer;
}

/* The number of text among "a|b|c", or -1. */
static int number_of_choice(const char *choices, const char *text)
{
    const size_t n = strlen(text);
    for (int i = 0;; i++) {
        const size_t length = strcspn(choices, "|");
        if (length == n && strncmp(choices, text, n) == 0)
            return i;
        if (!choices[length])
            return -1;
        choices += length + 1;
    }
}

static qvl_status set_arg(qvl_config *config, const schedule_arg *arg, const qvl_yaml_node *node,
                          const char *where, qvl_err *err)
{
    double value = NAN;
    const char *text = node->kind == QVL_YAML_SCALAR ? node->text : "a structure";
    if (arg->choices) {
        const int number = number_of_choice(arg->choices, text);
        if (number < 0)
            return qvl_fail(err, QVL_ECONFIG, "%s: lr_scheduler_kwargs.%s: '%s' is not one of %s",
                            where, arg->name, text, arg->choices);
        value = number;
    } else if (!(arg->may_be_null && qvl_yaml_is_null(node)) &&
               (node->kind != QVL_YAML_SCALAR || !qvl_parse_double(text, &value) ||
                value < arg->min || value > arg->max || (arg->is_whole && value != floor(value)))) {
        return qvl_fail(err, QVL_ECONFIG, "%s: lr_scheduler_kwargs.%s: expected %s", where,
                        arg->name, arg->range);
    }
    *member_of(config, arg) = value;
    return QVL_OK;
}

/* transformers takes a text for JSON when it begins with a brace; JSON is YAML. */
static qvl_status set_from_json(qvl_config *config, const char *text, const char *where,
                                qvl_err *err)
{
    qvl_yaml_node *root = NULL;
    if (qvl_yaml_parse(&root, text, strlen(text), where, NULL) != QVL_OK)
        return qvl_fail(err, QVL_ECONFIG, "%s: lr_scheduler_kwargs: '%s' is no mapping in JSON",
                        where, text);
    qvl_schedule_args_clear(config); /* a text takes the place of what was given before */
    const qvl_status rc = qvl_schedule_args_set(config, root, where, err);
    qvl_yaml_free(root);
    return rc;
}

qvl_status qvl_schedule_args_set(qvl_config *config, const qvl_yaml_node *node, const char *where,
                                 qvl_err *err)
{
    char names[200];
    if (node->kind == QVL_YAML_SCALAR && node->text[0] == '{')
        return set_from_json(config, node->text, where, err);
    if (node->kind != QVL_YAML_MAP)
        return qvl_fail(err, QVL_ECONFIG, "%s: lr_scheduler_kwargs: expected a mapping", where);
    for (size_t i = 0; i < node->n_children; i++) {
        const qvl_yaml_node *child = &node->children[i];
        const schedule_arg *arg = NULL;
        for (int a = 0; a < N_ARGS && !arg; a++)
            if (strcmp(child->key, ARGS[a].name) == 0)
                arg = &ARGS[a];
        if (!arg)
            return qvl_fail(err, QVL_ECONFIG,
                            "%s: lr_scheduler_kwargs: unknown key '%s', expected %s", where,
                            child->key, list_names(names, NULL, " or "));
        const qvl_status rc = set_arg(config, arg, child, where, err);
        if (rc != QVL_OK)
            return rc;
    }
    return QVL_OK;
}

const char *qvl_schedule_args_misfit(const qvl_config *config)
{
    for (int i = 0; i < N_ARGS; i++)
        if (!isnan(value_of(config, &ARGS[i])) &&
            !qvl_is_choice(ARGS[i].takers, config->lr_scheduler_type))
            return ARGS[i].name;
    return NULL;
}

const char *qvl_schedule_args_taken(char buffer[200], const qvl_config *config)
{
    return list_names(buffer, config->lr_scheduler_type, " and ");
}

qvl_status qvl_schedule_args_format(qvl_text *out, const qvl_config *config, qvl_err *err)
{
    bool is_first = true;
    char number[40];
    qvl_status rc = QVL_OK;
    for (int i = 0; rc == QVL_OK && i < N_ARGS; i++) {
        const double value = value_of(config, &ARGS[i]);
        if (isnan(value))
            continue;
        rc = qvl_text_printf(out, err, "%s%s: ", is_first ? "{" : ", ", ARGS[i].name);
        is_first = false;
        if (rc == QVL_OK && ARGS[i].choices) {
            const char *word = ARGS[i].choices;
            for (int skipped = 0; skipped < (int)value; skipped++)
                word = strchr(word, '|') + 1;
            rc = qvl_text_add(out, word, strcspn(word, "|"), err);
        } else if (rc == QVL_OK) {
            rc = qvl_text_puts(out, qvl_format_double(number, value), err);
        }
    }
    return rc == QVL_OK ? qvl_text_puts(out, is_first ? "null" : "}", err) : rc;
}
