#include "src/base/text.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "src/base/memory.h"

void qvl_text_fini(qvl_text *text)
{
    if (!text)
        return;
    free(text->data);
    *text = (qvl_text){0};
}

void qvl_text_clear(qvl_text *text)
{
    text->len = 0;
    if (text->data)
        text->data[0] = '\0';
}

qvl_status qvl_text_add(qvl_text *text, const char *bytes, size_t n_bytes, qvl_err *err)
{
    const qvl_status rc =
        qvl_reserve(&text->data, &text->capacity, text->len + n_bytes + 1, 1, "text", err);
    if (rc != QVL_OK)
        return rc;
    if (n_bytes)
        memcpy(text->data + text->len, bytes, n_bytes);
    text->len += n_bytes;
    text->data[text->len] = '\0';
    return QVL_OK;
}

qvl_status qvl_text_puts(qvl_text *text, const char *string, qvl_err *err)
{
    return qvl_text_add(text, string, strlen(string), err);
}

qvl_status qvl_text_printf(qvl_text *text, qvl_err *err, const char *format, ...)
{
    va_list args, again;
    va_start(args, format);
    va_copy(again, args);
    const int n = vsnprintf(NULL, 0, format, args);
    va_end(args);
    qvl_status rc = n < 0 ? qvl_fail(err, QVL_EINTERNAL, "format \"%s\"", format) : QVL_OK;
    if (rc == QVL_OK)
        rc = qvl_reserve(&text->data, &text->capacity, text->len + (size_t)n + 1, 1, "text", err);
    if (rc == QVL_OK) {
        vsnprintf(text->data + text->len, (size_t)n + 1, format, again);
        text->len += (size_t)n;
    }
    va_end(again);
    return rc;
}

int qvl_edit_distance(const char *a, const char *b)
{
    const size_t n = strlen(a), m = strlen(b);
    int row[66];
    if (n > 64 || m > 64)
        return 99;
    for (size_t j = 0; j <= m; j++)
        row[j] = (int)j;
    for (size_t i = 1; i <= n; i++) {
        int diagonal = row[0];
        row[0] = (int)i;
        for (size_t j = 1; j <= m; j++) {
            const int substitute = diagonal + (a[i - 1] != b[j - 1]);
            const int insert = row[j - 1] + 1, delete = row[j] + 1;
            diagonal = row[j];
            row[j] = substitute < insert ? substitute : insert;
            row[j] = row[j] < delete ? row[j] : delete;
        }
    }
    return row[m];
}

/* Bytes of the code point at p (n available), or 0 when it is malformed. */
static size_t utf8_length(const unsigned char *p, size_t n)
{
    if (p[0] < 0x80)
        return 1;
    if (p[0] < 0xc2)
        return 0;
    const size_t length = p[0] < 0xe0 ? 2 : p[0] < 0xf0 ? 3 : p[0] < 0xf5 ? 4 : 0;
    if (length == 0 || n < length)
        return 0;
    for (size_t i = 1; i < length; i++)
        if ((p[i] & 0xc0) != 0x80)
            return 0;
    if ((p[0] == 0xe0 && p[1] < 0xa0) || (p[0] == 0xed && p[1] > 0x9f) ||
        (p[0] == 0xf0 && p[1] < 0x90) || (p[0] == 0xf4 && p[1] > 0x8f))
        return 0;
    return length;
}

bool qvl_utf8_is_valid(const char *bytes, size_t n_bytes, size_t *bad_offset)
{
    for (size_t i = 0; i < n_bytes;) {
        const size_t length = utf8_length((const unsigned char *)bytes + i, n_bytes - i);
        if (length == 0) {
            if (bad_offset)
                *bad_offset = i;
            return false;
        }
        i += length;
    }
    return true;
}

void qvl_text_keep_one_line(char *text)
{
    unsigned char *c = (unsigned char *)text;
    const unsigned char *end = c + strlen(text);
    while (c < end) {
        const size_t length = utf8_length(c, (size_t)(end - c)), n = length ? length : 1;
        const bool is_control = c[0] < 0x20 || c[0] == 0x7f || (c[0] == 0xc2 && c[1] < 0xa0);
        if (length == 0 || is_control)
            memset(c, '?', n);
        c += n;
    }
}

bool qvl_parse_i64(const char *text, int64_t *out)
{
    char *end = NULL;
    if (!*text || *text == ' ' || *text == '\t')
        return false;
    errno = 0;
    const long long value = strtoll(text, &end, 10);
    if (errno || *end || end == text)
        return false;
    *out = value;
    return true;
}

/* The C locale is in force everywhere (no program calls setlocale), so the point is a point. */
bool qvl_parse_double(const char *text, double *out)
{
    char *end = NULL;
    if (!*text || strspn(text, "+-.0123456789eE") != strlen(text))
        return false;
    errno = 0;
    const double value = strtod(text, &end);
    if (*end || end == text || !isfinite(value))
        return false;
    *out = value;
    return true;
}

/* One more in the last digit of "1.23e-45". False when that carries through all digits. */
static bool next_decimal(char *digits)
{
    for (char *c = strchr(digits, 'e') - 1; c >= digits && *c != '-'; c--) {
        if (*c == '.')
            continue;
        if (*c != '9') {
            ++*c;
            return true;
        }
        *c = '0';
    }
    return false;
}

/* Whether precision digits are enough for value; digits then reads back as value. They are those
 * nearest to it, or the next further from zero: below a power of two doubles lie closer together
 * than above, and so only the one above may read back. */
static bool fits_precision(char digits[40], int precision, double value)
{
    snprintf(digits, 40, "%.*e", precision - 1, value);
    return strtod(digits, NULL) == value || (next_decimal(digits) && strtod(digits, NULL) == value);
}

const char *qvl_format_double(char buffer[40], double value)
{
    char digits[40];
    if (!isfinite(value)) {
        snprintf(buffer, 40, "%s", isnan(value) ? "NaN" : value > 0 ? "Infinity" : "-Infinity");
        return buffer;
    }
    int precision = 1;
    while (precision < 17 && !fits_precision(digits, precision, value))
        precision++;
    if (precision == 17)
        snprintf(digits, sizeof digits, "%.16e", value);
    const int exponent = atoi(strchr(digits, 'e') + 1);
    if (value != 0.0 && (exponent < -4 || exponent >= 16)) {
        snprintf(buffer, 40, "%s", digits);
        return buffer;
    }
    const int decimals = precision - 1 - exponent;
    snprintf(buffer, 40, "%.*f", decimals > 0 ? decimals : 1, value);
    return buffer;
}
