#include "io/json_file.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "src/base/files.h"
#include "src/base/memory.h"

qvl_status qvl_json_read(json_t **out, const char *path, size_t limit_bytes, qvl_err *err)
{
    qvl_text content = {0};
    json_error_t why;
    qvl_status rc = qvl_file_read(&content, path, limit_bytes, err);
    if (rc == QVL_OK) {
        const size_t skip =
            content.len >= 3 && memcmp(content.data, "\xef\xbb\xbf", 3) == 0 ? 3 : 0;
        *out = json_loadb(content.data + skip, content.len - skip, JSON_REJECT_DUPLICATES, &why);
        if (!*out)
            rc = qvl_fail(err, QVL_EDATA, "%s:%d:%d: %s", path, why.line, why.column, why.text);
    }
    qvl_text_fini(&content);
    return rc;
}

static const char *kind_of(const json_t *value)
{
    switch (json_typeof(value)) {
    case JSON_OBJECT:
        return "an object";
    case JSON_ARRAY:
        return "a list";
    case JSON_STRING:
        return "a text";
    case JSON_INTEGER:
        return "a whole number";
    case JSON_REAL:
        return "a number";
    case JSON_TRUE:
    case JSON_FALSE:
        return "a boolean";
    default:
        return "null";
    }
}

static const json_t *find(const json_t *object, const char *key)
{
    const json_t *value = json_object_get(object, key);
    return value && !json_is_null(value) ? value : NULL;
}

qvl_status qvl_json_get_i64(int64_t *out, const json_t *object, const char *key, int64_t min,
                            int64_t max, const char *where, qvl_err *err)
{
    const json_t *value = find(object, key);
    if (!value)
        return QVL_OK;
    if (!json_is_integer(value))
        return qvl_fail(err, QVL_EDATA, "%s: %s is %s, expected a whole number", where, key,
                        kind_of(value));
    const int64_t number = json_integer_value(value);
    if (number < min || number > max)
        return qvl_fail(err, QVL_EDATA, "%s: %s is %" PRId64 ", expected %" PRId64 " to %" PRId64,
                        where, key, number, min, max);
    *out = number;
    return QVL_OK;
}

qvl_status qvl_json_get_double(double *out, const json_t *object, const char *key,
                               const char *where, qvl_err *err)
{
    const json_t *value = find(object, key);
    if (value && !json_is_number(value))
        return qvl_fail(err, QVL_EDATA, "%s: %s is %s, expected a number", where, key,
                        kind_of(value));
    if (value)
        *out = json_number_value(value);
    return QVL_OK;
}

qvl_status qvl_json_get_bool(bool *out, const json_t *object, const char *key, const char *where,
                             qvl_err *err)
{
    const json_t *value = find(object, key);
    if (value && !json_is_boolean(value))
        return qvl_fail(err, QVL_EDATA, "%s: %s is %s, expected true or false", where, key,
                        kind_of(value));
    if (value)
        *out = json_is_true(value);
    return QVL_OK;
}

qvl_status qvl_json_get_text(const char **out, const json_t *object, const char *key,
                             const char *where, qvl_err *err)
{
    const json_t *value = find(object, key);
    if (value && !json_is_string(value))
        return qvl_fail(err, QVL_EDATA, "%s: %s is %s, expected a text", where, key,
                        kind_of(value));
    if (value)
        *out = json_string_value(value);
    return QVL_OK;
}

qvl_status qvl_json_add_string(qvl_text *out, const char *text, size_t n_bytes, qvl_err *err)
{
    qvl_status rc = qvl_text_puts(out, "\"", err);
    for (size_t i = 0; rc == QVL_OK && i < n_bytes; i++) {
        const unsigned char c = (unsigned char)text[i];
        switch (c) {
        case '"':
            rc = qvl_text_puts(out, "\\\"", err);
            break;
        case '\\':
            rc = qvl_text_puts(out, "\\\\", err);
            break;
        case '\n':
            rc = qvl_text_puts(out, "\\n", err);
            break;
        case '\r':
            rc = qvl_text_puts(out, "\\r", err);
            break;
        case '\t':
            rc = qvl_text_puts(out, "\\t", err);
            break;
        case '\b':
            rc = qvl_text_puts(out, "\\b", err);
            break;
        case '\f':
            rc = qvl_text_puts(out, "\\f", err);
            break;
        default:
            rc = c < 0x20 ? qvl_text_printf(out, err, "\\u%04x", c)
                          : qvl_text_add(out, text + i, 1, err);
        }
    }
    return rc == QVL_OK ? qvl_text_puts(out, "\"", err) : rc;
}

qvl_status qvl_json_dump_python(qvl_text *out, const json_t *value, qvl_err *err)
{
    char number[40];
    const char *key;
    json_t *child;
    size_t index;
    qvl_status rc = QVL_OK;
    switch (json_typeof(value)) {
    case JSON_OBJECT:
        QVL_TRY(qvl_text_puts(out, "{", err));
        index = 0;
        json_object_foreach((json_t *)(uintptr_t)value, key, child)
        {
            if (index++)
                QVL_TRY(qvl_text_puts(out, ", ", err));
            QVL_TRY(qvl_json_add_string(out, key, strlen(key), err));
            QVL_TRY(qvl_text_puts(out, ": ", err));
            QVL_TRY(qvl_json_dump_python(out, child, err));
        }
        return qvl_text_puts(out, "}", err);
    case JSON_ARRAY:
        QVL_TRY(qvl_text_puts(out, "[", err));
        json_array_foreach(value, index, child)
        {
            if (index)
                QVL_TRY(qvl_text_puts(out, ", ", err));
            QVL_TRY(qvl_json_dump_python(out, child, err));
        }
        return qvl_text_puts(out, "]", err);
    case JSON_STRING:
        return qvl_json_add_string(out, json_string_value(value), json_string_length(value), err);
    case JSON_INTEGER:
        return qvl_text_printf(out, err, "%" JSON_INTEGER_FORMAT, json_integer_value(value));
    case JSON_REAL:
        return qvl_text_puts(out, qvl_format_double(number, json_real_value(value)), err);
    case JSON_TRUE:
        return qvl_text_puts(out, "true", err);
    case JSON_FALSE:
        return qvl_text_puts(out, "false", err);
    default:
        return qvl_text_puts(out, "null", err);
    }
out:
    return rc;
}

json_t *qvl_json_real(double value)
{
    char text[40];
    return isfinite(value) ? json_real(value) : json_string(qvl_format_double(text, value));
}

static int compare_keys(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static qvl_status new_line(qvl_text *out, int indent, int depth, qvl_err *err)
{
    return qvl_text_printf(out, err, "\n%*s", indent * depth, "");
}

static qvl_status dump_indented(qvl_text *out, const json_t *value, int indent, int depth,
                                qvl_err *err);

static qvl_status dump_object(qvl_text *out, const json_t *value, int indent, int depth,
                              qvl_err *err)
{
    const size_t n = json_object_size(value);
    const char **keys = NULL, *key;
    json_t *child;
    size_t i = 0;
    qvl_status rc = QVL_OK;
    QVL_TRY(qvl_alloc(&keys, n, sizeof *keys, "JSON keys", err));
    json_object_foreach((json_t *)(uintptr_t)value, key, child) keys[i++] = key;
    if (n)
        qsort(keys, n, sizeof *keys, compare_keys);
    QVL_TRY(qvl_text_puts(out, "{", err));
    for (i = 0; i < n; i++) {
        if (i)
            QVL_TRY(qvl_text_puts(out, ",", err));
        QVL_TRY(new_line(out, indent, depth + 1, err));
        QVL_TRY(qvl_json_add_string(out, keys[i], strlen(keys[i]), err));
        QVL_TRY(qvl_text_puts(out, ": ", err));
        QVL_TRY(dump_indented(out, json_object_get(value, keys[i]), indent, depth + 1, err));
    }
    if (n)
        QVL_TRY(new_line(out, indent, depth, err));
    QVL_TRY(qvl_text_puts(out, "}", err));
out:
    free(keys);
    return rc;
}

static qvl_status dump_indented(qvl_text *out, const json_t *value, int indent, int depth,
                                qvl_err *err)
{
    json_t *child;
    size_t i;
    qvl_status rc = QVL_OK;
    if (json_is_object(value))
        return dump_object(out, value, indent, depth, err);
    if (!json_is_array(value) || json_array_size(value) == 0)
        return qvl_json_dump_python(out, value, err);
    QVL_TRY(qvl_text_puts(out, "[", err));
    json_array_foreach(value, i, child)
    {
        if (i)
            QVL_TRY(qvl_text_puts(out, ",", err));
        QVL_TRY(new_line(out, indent, depth + 1, err));
        QVL_TRY(dump_indented(out, child, indent, depth + 1, err));
    }
    QVL_TRY(new_line(out, indent, depth, err));
    QVL_TRY(qvl_text_puts(out, "]", err));
out:
    return rc;
}

qvl_status qvl_json_dump_indented(qvl_text *out, const json_t *value, int indent, qvl_err *err)
{
    return dump_indented(out, value, indent, 0, err);
}
