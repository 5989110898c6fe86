#include "src/base/memory.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

bool qvl_mul_overflows(size_t *out, size_t a, size_t b)
{
    return __builtin_mul_overflow(a, b, out);
}

bool qvl_mul3_overflows(size_t *out, size_t a, size_t b, size_t c)
{
    size_t ab = 0;
    return __builtin_mul_overflow(a, b, &ab) || __builtin_mul_overflow(ab, c, out);
}

bool qvl_add_overflows(size_t *out, size_t a, size_t b)
{
    return __builtin_add_overflow(a, b, out);
}

bool qvl_mul_i64_overflows(int64_t *out, int64_t a, int64_t b)
{
    return __builtin_mul_overflow(a, b, out);
}

qvl_status qvl_alloc(void *out_pointer, size_t count, size_t element_bytes, const char *what,
                     qvl_err *err)
{
    size_t bytes = 0;
    void *memory = NULL;
    if (qvl_mul_overflows(&bytes, count, element_bytes))
        return qvl_fail(err, QVL_EINTERNAL, "%s: %zu elements of %zu bytes overflow", what, count,
                        element_bytes);
    memory = calloc(count ? count : 1, element_bytes ? element_bytes : 1);
    if (!memory)
        return qvl_fail_memory(err, bytes, what);
    memcpy(out_pointer, &memory, sizeof memory);
    return QVL_OK;
}

qvl_status qvl_reserve(void *inout_pointer, size_t *capacity, size_t needed, size_t element_bytes,
                       const char *what, qvl_err *err)
{
    size_t bytes = 0, grown = *capacity ? *capacity : 64;
    void *memory = NULL;
    if (needed <= *capacity)
        return QVL_OK;
    while (grown < needed)
        if (qvl_mul_overflows(&grown, grown, 2))
            return qvl_fail(err, QVL_EINTERNAL, "%s: %zu elements overflow", what, needed);
    if (qvl_mul_overflows(&bytes, grown, element_bytes))
        return qvl_fail(err, QVL_EINTERNAL, "%s: %zu elements overflow", what, needed);
    memcpy(&memory, inout_pointer, sizeof memory);
    memory = realloc(memory, bytes);
    if (!memory)
        return qvl_fail_memory(err, bytes, what);
    memcpy(inout_pointer, &memory, sizeof memory);
    *capacity = grown;
    return QVL_OK;
}

qvl_status qvl_copy_text(char **out, const char *text, qvl_err *err)
{
    *out = NULL;
    if (!text)
        return QVL_OK;
    *out = strdup(text);
    return *out ? QVL_OK : qvl_fail_memory(err, strlen(text) + 1, "text");
}

const char *qvl_format_bytes(char buffer[32], uint64_t bytes)
{
    static const char *const UNITS[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB"};
    double value = (double)bytes;
    size_t unit = 0;
    while (value >= 1024.0 && unit + 1 < sizeof UNITS / sizeof *UNITS) {
        value /= 1024.0;
        unit++;
    }
    snprintf(buffer, 32, unit ? "%.2f %s" : "%.0f %s", value, UNITS[unit]);
    return buffer;
}

const char *qvl_format_count(char buffer[32], int64_t count)
{
    char digits[24];
    size_t used = 0;
    const int n = snprintf(digits, sizeof digits, "%lld", (long long)count);
    for (int i = 0; i < n; i++) {
        const int left = n - i;
        buffer[used++] = digits[i];
        if (left > 1 && left % 3 == 1 && digits[i] != '-')
            buffer[used++] = ',';
    }
    buffer[used] = '\0';
    return buffer;
}
