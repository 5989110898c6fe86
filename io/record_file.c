#include "io/record_file.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "src/base/files.h"
#include "src/base/memory.h"

enum { DEPTH_LIMIT = 2048 }; /* jansson's own */

/* Only what separates records matters here: brackets, strings, and commas at the top. Whatever else
 * is wrong inside a record is found when it is parsed. In an array, brackets that do not match
 * leave nothing to go on from; where each record has a line, the next line is. */
typedef enum place {
    AT_START,      /* nothing but blanks so far */
    BEFORE_RECORD, /* in an array: after '[' or ',' */
    AFTER_RECORD,  /* in an array: after '}' */
    BETWEEN_LINES, /* JSON lines: before or after a record */
    IN_RECORD,
    IN_BAD_LINE, /* JSON lines: what is wrong ends with the line */
    AFTER_ARRAY
} place;

typedef struct scanner {
    const char *path;
    place at;
    bool is_array, in_string, is_escaped, after_comma;
    bool has_lines; /* JSON lines whose records have a line each: what is torn is a bad record */
    int depth;
    char open[DEPTH_LIMIT]; /* what each level of the record began with */
    int64_t offset, line;
    qvl_record_span span;
    qvl_record_list *list;
    qvl_err *err;
} scanner;

static qvl_status unexpected(const scanner *s, unsigned char c, const char *expected)
{
    char shown[8] = {(char)c, 0};
    return qvl_fail(s->err, QVL_EDATA, "%s:%" PRId64 ": found '%s', expected %s", s->path, s->line,
                    c >= 0x20 && c < 0x7f ? shown : "another byte", expected);
}

static void begin_record(scanner *s)
{
    s->span = (qvl_record_span){.offset = s->offset, .line = s->line};
    s->at = IN_RECORD;
    s->open[0] = '{';
    s->depth = 1;
}

/* The record ends before end. */
static qvl_status end_record(scanner *s, int64_t end)
{
    qvl_record_list *list = s->list;
    const qvl_status rc = qvl_reserve(&list->spans, &list->capacity, list->count + 1,
                                      sizeof *list->spans, "record list", s->err);
    if (rc != QVL_OK)
        return rc;
    s->span.length = end - s->span.offset;
    list->spans[list->count++] = s->span;
    s->at = s->is_array ? AFTER_RECORD : BETWEEN_LINES;
    s->in_string = s->is_escaped = s->after_comma = false;
    return QVL_OK;
}

/* Where records have a line each, this one is taken up to the line's end and found wrong when it is
 * parsed. */
static qvl_status spoil(scanner *s)
{
    s->at = IN_BAD_LINE;
    return QVL_OK;
}

static qvl_status enter(scanner *s, unsigned char c)
{
    if (s->depth >= DEPTH_LIMIT && s->has_lines)
        return spoil(s);
    if (s->depth >= DEPTH_LIMIT)
        return qvl_fail(s->err, QVL_EDATA, "%s:%" PRId64 ": nested deeper than %d", s->path,
                        s->line, DEPTH_LIMIT);
    s->open[s->depth++] = (char)c;
    return QVL_OK;
}

static qvl_status leave(scanner *s, unsigned char c)
{
    const char expected = s->open[s->depth - 1] == '{' ? '}' : ']';
    if (c != (unsigned char)expected && s->has_lines)
        return spoil(s);
    if (c != (unsigned char)expected)
        return qvl_fail(s->err, QVL_EDATA,
                        "%s:%" PRId64 ": found '%c', expected '%c' in the record that begins in "
                        "line %" PRId64,
                        s->path, s->line, c, expected, s->span.line);
    return --s->depth == 0 ? end_record(s, s->offset + 1) : QVL_OK;
}

static qvl_status inside_record(scanner *s, unsigned char c)
{
    if (s->offset - s->span.offset > QVL_RECORD_LIMIT_BYTES)
        return qvl_fail(s->err, QVL_EDATA,
                        "%s:%" PRId64 ": the record that begins here has no end within %d MiB",
                        s->path, s->span.line, QVL_RECORD_LIMIT_BYTES >> 20);
    if (c == '\n' && s->in_string && !s->is_array)
        s->has_lines = true; /* no string goes on in another line: this one is torn */
    if (c == '\n' && s->has_lines)
        return end_record(s, s->offset);
    if (s->at == IN_BAD_LINE)
        return QVL_OK;
    if (s->in_string) {
        if (s->is_escaped)
            s->is_escaped = false;
        else if (c == '\\')
            s->is_escaped = true;
        else if (c == '"')
            s->in_string = false;
        return QVL_OK;
    }
    if (c == '"')
        s->in_string = true;
    else if (c == '{' || c == '[')
        return enter(s, c);
    else if (c == '}' || c == ']')
        return leave(s, c);
    return QVL_OK;
}

static qvl_status outside_record(scanner *s, unsigned char c)
{
    if (c == '\n' && s->at == BETWEEN_LINES && s->span.line == s->line)
        s->has_lines = true; /* a record began and ended in this line */
    if (c == ' ' || c == '\t' || c == '\r' || c == '\n')
        return QVL_OK;
    switch (s->at) {
    case AT_START:
        if (c == '[') {
            s->is_array = true;
            s->at = BEFORE_RECORD;
            return QVL_OK;
        }
        if (c != '{')
            return unexpected(s, c, "'[' or '{' (a JSON array of objects, or JSON lines)");
        begin_record(s);
        return QVL_OK;
    case BEFORE_RECORD:
        if (c == ']' && !s->after_comma) {
            s->at = AFTER_ARRAY;
            return QVL_OK;
        }
        if (c != '{')
            return unexpected(s, c, "an object '{'");
        begin_record(s);
        return QVL_OK;
    case AFTER_RECORD:
        if (c != ',' && c != ']')
            return unexpected(s, c, "',' or ']' after a record");
        s->after_comma = c == ',';
        s->at = c == ',' ? BEFORE_RECORD : AFTER_ARRAY;
        return QVL_OK;
    case BETWEEN_LINES:
        if (c != '{' && !s->has_lines)
            return unexpected(s, c, "an object '{' on each line");
        begin_record(s);
        return c == '{' ? QVL_OK : spoil(s);
    default:
        return unexpected(s, c, "nothing after the array");
    }
}

static qvl_status scan_block(scanner *s, const unsigned char *block, size_t n)
{
    for (size_t i = 0; i < n; i++, s->offset++) {
        const unsigned char c = block[i];
        const bool is_inside = s->at == IN_RECORD || s->at == IN_BAD_LINE;
        const qvl_status rc = is_inside ? inside_record(s, c) : outside_record(s, c);
        if (rc != QVL_OK)
            return rc;
        s->line += c == '\n';
    }
    return QVL_OK;
}

static qvl_status check_end(scanner *s)
{
    if (s->has_lines && (s->at == IN_RECORD || s->at == IN_BAD_LINE))
        return end_record(s, s->offset); /* the last line is torn */
    if (s->at == IN_RECORD)
        return qvl_fail(s->err, QVL_EDATA,
                        "%s:%" PRId64
                        ": the record that begins here does not end (truncated file?)",
                        s->path, s->span.line);
    if (s->at == BEFORE_RECORD || s->at == AFTER_RECORD)
        return qvl_fail(s->err, QVL_EDATA, "%s:%" PRId64 ": the array does not end with ']'",
                        s->path, s->line);
    if (s->at == AT_START)
        return qvl_fail(s->err, QVL_EDATA, "%s: is empty", s->path);
    return QVL_OK;
}

qvl_status qvl_record_list_scan(qvl_record_list *out, const char *path, qvl_err *err)
{
    enum { BLOCK = 1 << 20 };
    scanner s = {.path = path, .line = 1, .list = out, .err = err};
    qvl_sha256 *hash = NULL;
    unsigned char *block = NULL;
    int fd = -1;
    qvl_status rc = QVL_OK;
    QVL_TRY(qvl_alloc(&block, BLOCK, 1, "reading", err));
    QVL_TRY(qvl_sha256_create(&hash, err));
    QVL_TRY(qvl_file_open(&fd, path, err));
    for (;;) {
        const ssize_t n = read(fd, block, BLOCK);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0) {
            rc = qvl_fail_errno(err, errno, 0, "%s", path);
            goto out;
        }
        if (n == 0)
            break;
        QVL_TRY(qvl_sha256_add(hash, block, (size_t)n, err));
        const size_t skip =
            s.offset == 0 && n >= 3 && memcmp(block, "\xef\xbb\xbf", 3) == 0 ? 3 : 0;
        s.offset += (int64_t)skip;
        QVL_TRY(scan_block(&s, block + skip, (size_t)n - skip));
    }
    QVL_TRY(check_end(&s));
    rc = qvl_sha256_finish(hash, out->sha256, err);
    hash = NULL;
out:
    qvl_sha256_destroy(hash);
    if (fd >= 0)
        close(fd);
    free(block);
    return rc;
}

void qvl_record_list_fini(qvl_record_list *list)
{
    free(list->spans);
    *list = (qvl_record_list){0};
}

/* Length of the number at text, and whether it is a whole one that 64 bits do not hold. */
static size_t number_length(const char *text, size_t n, bool *is_long)
{
    char digits[24];
    int64_t value = 0;
    size_t length = 0;
    while (length < n && strchr("+-.0123456789eE", text[length]) && text[length])
        length++;
    *is_long = length >= 19 && !memchr(text, '.', length) && !memchr(text, 'e', length) &&
               !memchr(text, 'E', length);
    if (*is_long && length < sizeof digits) {
        memcpy(digits, text, length);
        digits[length] = '\0';
        *is_long = !qvl_parse_i64(digits, &value);
    }
    return length;
}

/* Whole numbers past 64 bits are legal JSON, and where nobody reads them they do no harm. Written
 * as reals ("1...9.0") jansson takes them; nothing else of the record changes. */
static qvl_status write_long_as_reals(qvl_text *out, const char *text, size_t n, qvl_err *err)
{
    bool in_string = false;
    qvl_status rc = QVL_OK;
    for (size_t i = 0; i < n && rc == QVL_OK;) {
        bool is_long = false;
        size_t length = 1;
        if (in_string && text[i] == '\\')
            length = i + 1 < n ? 2 : 1;
        else if (text[i] == '"')
            in_string = !in_string;
        else if (!in_string && (text[i] == '-' || (text[i] >= '0' && text[i] <= '9')))
            length = number_length(text + i, n - i, &is_long);
        rc = qvl_text_add(out, text + i, length, err);
        if (rc == QVL_OK && is_long)
            rc = qvl_text_puts(out, ".0", err);
        i += length;
    }
    return rc;
}

qvl_status qvl_record_read(json_t **out, int fd, const char *path, const qvl_record_span *span,
                           qvl_text *scratch, qvl_err *err)
{
    json_error_t why;
    qvl_text rewritten = {0};
    qvl_text_clear(scratch);
    qvl_status rc =
        qvl_reserve(&scratch->data, &scratch->capacity, (size_t)span->length + 1, 1, "record", err);
    if (rc == QVL_OK)
        rc = qvl_file_read_at(fd, scratch->data, (size_t)span->length, span->offset, path, err);
    if (rc != QVL_OK)
        return rc;
    *out = json_loadb(scratch->data, (size_t)span->length, JSON_ALLOW_NUL, &why);
    if (!*out && json_error_code(&why) == json_error_numeric_overflow) {
        rc = write_long_as_reals(&rewritten, scratch->data, (size_t)span->length, err);
        if (rc == QVL_OK)
            *out = json_loadb(rewritten.data, rewritten.len, JSON_ALLOW_NUL, &why);
        qvl_text_fini(&rewritten);
    }
    if (!*out && rc == QVL_OK)
        rc = qvl_fail(err, QVL_EDATA, "%s:%" PRId64 ": %s", path, span->line + why.line - 1,
                      why.text);
    if (rc == QVL_OK && !json_is_object(*out)) { /* a bad line */
        json_decref(*out);
        *out = NULL;
        rc = qvl_fail(err, QVL_EDATA, "%s:%" PRId64 ": a record must be an object '{'", path,
                      span->line);
    }
    return rc;
}
