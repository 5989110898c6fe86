#include "io/adapter_targets.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include "src/base/memory.h"

typedef struct rule {
    enum { ABSENT, ALL, LIST, EXPRESSION, UNREADABLE } kind;
    json_t *list;
    pcre2_code *expression;
} rule;

struct qvl_adapter_targets {
    rule taken, excluded;
};

/* Python's expressions are PCRE's but for rarities, which do not compile. */
static void compile(rule *out, const char *text)
{
    int code = 0;
    PCRE2_SIZE at = 0;
    out->expression =
        pcre2_compile((PCRE2_SPTR)text, PCRE2_ZERO_TERMINATED,
                      PCRE2_UTF | PCRE2_ANCHORED | PCRE2_ENDANCHORED, &code, &at, NULL);
    out->kind = out->expression ? EXPRESSION : UNREADABLE;
}

static qvl_status read_rule(rule *out, const json_t *root, const char *key, const char *path,
                            qvl_err *err)
{
    json_t *value = json_object_get(root, key), *entry;
    size_t i;
    if (!value || json_is_null(value))
        return QVL_OK;
    if (json_is_string(value)) {
        if (strcasecmp(json_string_value(value), "all-linear") == 0)
            out->kind = ALL;
        else
            compile(out, json_string_value(value));
        return QVL_OK;
    }
    if (!json_is_array(value))
        return qvl_fail(err, QVL_EDATA, "%s: %s is neither a list nor a text", path, key);
    json_array_foreach(value, i, entry) if (!json_is_string(entry)) return qvl_fail(
        err, QVL_EDATA, "%s: %s: entry %zu is not a text", path, key, i);
    out->kind = LIST;
    out->list = json_incref(value);
    return QVL_OK;
}

qvl_status qvl_adapter_targets_read(qvl_adapter_targets **out, const json_t *root, const char *path,
                                    qvl_err *err)
{
    qvl_adapter_targets *targets = NULL;
    qvl_status rc = qvl_alloc(&targets, 1, sizeof *targets, "target modules", err);
    if (rc == QVL_OK)
        rc = read_rule(&targets->taken, root, "target_modules", path, err);
    if (rc == QVL_OK)
        rc = read_rule(&targets->excluded, root, "exclude_modules", path, err);
    if (rc == QVL_OK)
        *out = targets;
    else
        qvl_adapter_targets_destroy(targets);
    return rc;
}

static void fini_rule(rule *r)
{
    json_decref(r->list);
    pcre2_code_free(r->expression);
}

void qvl_adapter_targets_destroy(qvl_adapter_targets *targets)
{
    if (!targets)
        return;
    fini_rule(&targets->taken);
    fini_rule(&targets->excluded);
    free(targets);
}

static bool has_entry(const json_t *list, const char *name)
{
    const size_t n = strlen(name);
    const json_t *entry;
    size_t i;
    json_array_foreach(list, i, entry)
    {
        const char *word = json_string_value(entry);
        const size_t m = strlen(word);
        if (strcmp(name, word) == 0 ||
            (n > m && name[n - m - 1] == '.' && strcmp(name + n - m, word) == 0))
            return true;
    }
    return false;
}

/* Bounded, as an expression may take for ever. */
static qvl_target match(const pcre2_code *expression, const char *name)
{
    enum { MOST_STEPS = 100000 };
    pcre2_match_data *data = pcre2_match_data_create(1, NULL);
    pcre2_match_context *context = pcre2_match_context_create(NULL);
    int code = PCRE2_ERROR_NOMEMORY;
    if (data && context) {
        pcre2_set_match_limit(context, MOST_STEPS);
        code =
            pcre2_match(expression, (PCRE2_SPTR)name, PCRE2_ZERO_TERMINATED, 0, 0, data, context);
    }
    pcre2_match_context_free(context);
    pcre2_match_data_free(data);
    return code >= 0                     ? QVL_TARGET_YES
           : code == PCRE2_ERROR_NOMATCH ? QVL_TARGET_NO
                                         : QVL_TARGET_UNKNOWN;
}

static qvl_target apply(const rule *r, const char *name)
{
    switch (r->kind) {
    case ALL:
        return QVL_TARGET_YES;
    case LIST:
        return has_entry(r->list, name) ? QVL_TARGET_YES : QVL_TARGET_NO;
    case EXPRESSION:
        return match(r->expression, name);
    default:
        return QVL_TARGET_UNKNOWN;
    }
}

qvl_target qvl_adapter_targets_take(const qvl_adapter_targets *targets, const char *name)
{
    const qvl_target taken = apply(&targets->taken, name);
    if (taken != QVL_TARGET_YES || targets->excluded.kind == ABSENT)
        return taken;
    const qvl_target excluded = apply(&targets->excluded, name);
    return excluded == QVL_TARGET_YES  ? QVL_TARGET_NO
           : excluded == QVL_TARGET_NO ? QVL_TARGET_YES
                                       : QVL_TARGET_UNKNOWN;
}
