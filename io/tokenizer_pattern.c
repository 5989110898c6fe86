/* The split expression is written for Oniguruma and runs on PCRE2.
 *
 * The two read most of an expression alike, but not all: \s means U+180E to PCRE2 only, \w, \h, ^
 * and $ differ, and so do {,n}, a class in a class and inline flags. So the expression is walked
 * once: what both read alike is passed on, \s and \S are written out, anything else is refused.
 *
 *     passed    characters, ., |, ( ), (?: (?i: (?= (?! (?> (?<= (?<!, * + ? with ? or +, {n},
 * {n,}, {n,m}, \r \n \t \d \D, \p{..} \P{..} with a general category, \ and punctuation, [ ] of
 * these with ranges
 */
#include "io/tokenizer_internal.h"

#include <ctype.h>
#include <string.h>

/* Unicode's White_Space, and all other code points. */
#define SPACE_RANGES                                                                               \
    "\\x{9}-\\x{d}\\x{20}\\x{85}\\x{a0}\\x{1680}\\x{2000}-\\x{200a}\\x{2028}\\x{2029}\\x{202f}"    \
    "\\x{205f}\\x{3000}"
#define OTHER_RANGES                                                                               \
    "\\x{0}-\\x{8}\\x{e}-\\x{1f}\\x{21}-\\x{84}\\x{86}-\\x{9f}\\x{a1}-\\x{167f}"                   \
    "\\x{1681}-\\x{1fff}\\x{200b}-\\x{2027}\\x{202a}-\\x{202e}\\x{2030}-\\x{205e}"                 \
    "\\x{2060}-\\x{2fff}\\x{3001}-\\x{10ffff}"

typedef struct scan {
    const qvl_tokenizer_file *file;
    const char *where;
    const char *start, *at;
    qvl_text *out;
} scan;

static qvl_status refuse(const scan *s, const char *reason)
{
    return qvl_fail(s->file->err, QVL_EDATA, "%s: %s has %s at byte %zu: \"%.60s\"", s->file->path,
                    s->where, reason, (size_t)(s->at - s->start), s->at);
}

static qvl_status emit(scan *s, const char *bytes, size_t n_bytes)
{
    return qvl_text_add(s->out, bytes, n_bytes, s->file->err);
}

/* Passes n bytes on as they are. */
static qvl_status copy(scan *s, size_t n_bytes)
{
    const char *from = s->at;
    s->at += n_bytes;
    return emit(s, from, n_bytes);
}

/* \p{L}, \P{Lu}: names of scripts and others are read differently. */
static qvl_status property(scan *s)
{
    static const char *const CATEGORIES[] = {
        "L",  "Lu", "Ll", "Lt", "Lm", "Lo", "M",  "Mn", "Mc", "Me", "N",  "Nd",
        "Nl", "No", "P",  "Pc", "Pd", "Ps", "Pe", "Pi", "Pf", "Po", "S",  "Sm",
        "Sc", "Sk", "So", "Z",  "Zs", "Zl", "Zp", "C",  "Cc", "Cf", "Co",
    };
    const char *close = s->at[2] == '{' ? strchr(s->at + 3, '}') : NULL;
    const size_t length = close ? (size_t)(close - (s->at + 3)) : 0;
    for (size_t i = 0; close && i < sizeof CATEGORIES / sizeof *CATEGORIES; i++)
        if (strlen(CATEGORIES[i]) == length && memcmp(CATEGORIES[i], s->at + 3, length) == 0)
            return copy(s, length + 4);
    return refuse(s, "a property that is no general category");
}

/* Whether an escape sequence at p stands for more than one character. */
static bool is_set_escape(const char *p)
{
    return p[0] == '\\' && p[1] != '\0' && strchr("sSdDpP", p[1]) != NULL;
}

static qvl_status escape(scan *s, bool in_class, bool *is_set)
{
    const char c = s->at[1];
    *is_set = is_set_escape(s->at);
    if (c == 's' || c == 'S') {
        const char *text = in_class ? (c == 's' ? SPACE_RANGES : OTHER_RANGES)
                                    : (c == 's' ? "[" SPACE_RANGES "]" : "[^" SPACE_RANGES "]");
        s->at += 2;
        return emit(s, text, strlen(text));
    }
    if (c == 'p' || c == 'P')
        return property(s);
    if (c != '\0' && (strchr("rntdD", c) || ispunct((unsigned char)c)))
        return copy(s, 2);
    return refuse(s, "an escape sequence that is not supported");
}

/* From [ to its ]. A - beside a set is refused: it could be a range or a character. */
static qvl_status char_class(scan *s)
{
    bool after_set = false;
    qvl_status rc = copy(s, s->at[1] == '^' ? 2 : 1);
    if (rc == QVL_OK && *s->at == ']')
        return refuse(s, "an empty class");
    while (rc == QVL_OK && *s->at != ']') {
        const char *next = s->at + 1;
        bool is_set = false;
        if (*s->at == '\0')
            return refuse(s, "a class that does not end");
        if (*s->at == '[' || (*s->at == '&' && *next == '&'))
            return refuse(s, "a class in a class");
        if (*s->at == '-' && *next != ']' && (after_set || is_set_escape(next)))
            return refuse(s, "a range that begins or ends with a set");
        rc = *s->at == '\\' ? escape(s, true, &is_set) : copy(s, 1);
        after_set = is_set;
    }
    return rc == QVL_OK ? copy(s, 1) : rc;
}

static qvl_status group(scan *s)
{
    static const char *const OPENINGS[] = {"(?:", "(?i:", "(?=", "(?!", "(?>", "(?<=", "(?<!"};
    if (s->at[1] == '*')
        return refuse(s, "a verb");
    if (s->at[1] != '?')
        return copy(s, 1);
    for (size_t i = 0; i < sizeof OPENINGS / sizeof *OPENINGS; i++)
        if (strncmp(s->at, OPENINGS[i], strlen(OPENINGS[i])) == 0)
            return copy(s, strlen(OPENINGS[i]));
    return refuse(s, "a group of this kind");
}

/* {n}, {n,} or {n,m}; of what may follow, only {n,m}? has one meaning. */
static qvl_status counted(scan *s)
{
    const char *p = s->at + 1;
    const size_t low = strspn(p, "0123456789");
    bool is_range = false;
    p += low;
    if (low && *p == ',') {
        is_range = true;
        p++;
        p += strspn(p, "0123456789");
    }
    if (low == 0 || *p != '}' || p[1] == '+' || (p[1] == '?' && !is_range))
        return refuse(s, "a repetition of this form");
    return copy(s, (size_t)(p + 1 - s->at));
}

/* The expression for PCRE2, appended to *out. */
static qvl_status translate(qvl_text *out, const qvl_tokenizer_file *file, const char *where,
                            const char *pattern)
{
    scan s = {.file = file, .where = where, .start = pattern, .at = pattern, .out = out};
    qvl_status rc = QVL_OK;
    bool is_set = false;
    while (rc == QVL_OK && *s.at) {
        switch (*s.at) {
        case '\\':
            rc = escape(&s, false, &is_set);
            break;
        case '[':
            rc = char_class(&s);
            break;
        case '(':
            rc = group(&s);
            break;
        case '{':
            rc = counted(&s);
            break;
        case '^':
        case '$':
            rc = refuse(&s, "an anchor");
            break;
        default:
            rc = copy(&s, 1);
        }
    }
    return rc;
}

static qvl_status compile(const qvl_tokenizer_file *file, const char *where, const char *pattern,
                          const char *translated)
{
    qvl_tokenizer *tok = file->tokenizer;
    pcre2_compile_context *context = pcre2_compile_context_create(NULL);
    uint32_t matches_empty = 0;
    int code = 0;
    PCRE2_SIZE offset = 0;
    PCRE2_UCHAR text[160];
    if (!context)
        return qvl_fail(file->err, QVL_EINTERNAL, "out of memory for %s", where);
    pcre2_set_newline(context, PCRE2_NEWLINE_LF); /* what . leaves out */
    tok->split =
        pcre2_compile((PCRE2_SPTR)translated, PCRE2_ZERO_TERMINATED,
                      PCRE2_UTF | PCRE2_UCP | PCRE2_NEVER_BACKSLASH_C, &code, &offset, context);
    pcre2_compile_context_free(context);
    if (!tok->split) {
        if (pcre2_get_error_message(code, text, sizeof text) < 0)
            text[0] = '\0';
        return qvl_fail(file->err, QVL_EDATA, "%s: %s \"%.300s\": %s", file->path, where, pattern,
                        (const char *)text);
    }
    if (pcre2_pattern_info(tok->split, PCRE2_INFO_MATCHEMPTY, &matches_empty) != 0 || matches_empty)
        return qvl_fail(file->err, QVL_EDATA,
                        "%s: %s \"%.300s\" can match nothing, expected one character or more",
                        file->path, where, pattern);
    tok->has_jit = pcre2_jit_compile(tok->split, PCRE2_JIT_COMPLETE) == 0;
    return QVL_OK;
}

qvl_status qvl_tokenizer_compile_split(const qvl_tokenizer_file *file, const char *where,
                                       const char *pattern)
{
    qvl_text translated = {0};
    qvl_status rc = QVL_OK;
    if (strlen(pattern) > QVL_SPLIT_PATTERN_BYTES) {
        rc = qvl_fail(file->err, QVL_EDATA, "%s: %s has %zu bytes, expected %d or less", file->path,
                      where, strlen(pattern), QVL_SPLIT_PATTERN_BYTES);
        goto out;
    }
    if (*pattern == '\0') {
        rc = qvl_fail(file->err, QVL_EDATA, "%s: %s is empty", file->path, where);
        goto out;
    }
    QVL_TRY(translate(&translated, file, where, pattern));
    QVL_TRY(compile(file, where, pattern, translated.data));
out:
    qvl_text_fini(&translated);
    return rc;
}
