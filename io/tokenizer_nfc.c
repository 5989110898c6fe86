/* Unicode normalisation form C.
 *
 * Text is copied up to the first character that NFC could touch; from the starter before it to the
 * next safe starter it is decomposed, put in canonical order and composed. A safe starter has
 * combining class 0 and never joins with what stands before it, so NFC works on each side of it
 * separately. Most texts have no character at or past U+0300 and are only looked at.
 *
 * Data and composition come from utf8proc. Two things are done here instead of by its one-call
 * functions: ordering (theirs takes quadratic time on a long run of marks), and U+11A7: it stands
 * one before the first trailing jamo and joins with nothing, but utf8proc 2.8 lets a syllable
 * swallow it.
 */
#include "io/tokenizer_internal.h"

#include <string.h>

#include <utf8proc.h>

#include "src/base/memory.h"

/* Longest canonical decomposition of a code point, in code points. */
enum { MAX_DECOMPOSED = 4, SHORT_RUN = 16 };

/* Decodes the code point at text, which is valid UTF-8. */
static int32_t decode(const char *text, size_t *length)
{
    const unsigned char *p = (const unsigned char *)text;
    if (p[0] < 0x80) {
        *length = 1;
        return p[0];
    }
    if (p[0] < 0xe0) {
        *length = 2;
        return (p[0] & 0x1f) << 6 | (p[1] & 0x3f);
    }
    if (p[0] < 0xf0) {
        *length = 3;
        return (p[0] & 0x0f) << 12 | (p[1] & 0x3f) << 6 | (p[2] & 0x3f);
    }
    *length = 4;
    return (p[0] & 0x07) << 18 | (p[1] & 0x3f) << 12 | (p[2] & 0x3f) << 6 | (p[3] & 0x3f);
}

static int combining_class(int32_t point)
{
    return (int)utf8proc_get_property(point)->combining_class;
}

/* Errs on the side of false: marks, jamo, anything with a decomposition, and the scripts from
 * U+10000 to U+1EFFF, where new composites may still be encoded. */
static bool is_safe_starter(int32_t point)
{
    if (point < 0x300 || (point >= 0x3400 && point < 0xa000) || (point >= 0xac00 && point < 0xd7a4))
        return true;
    if ((point >= 0x1100 && point < 0x1200) || (point >= 0x10000 && point < 0x1f000))
        return false;
    const utf8proc_property_t *property = utf8proc_get_property(point);
    return property->combining_class == 0 && property->decomp_seqindex == UINT16_MAX &&
           property->category != UTF8PROC_CATEGORY_MN &&
           property->category != UTF8PROC_CATEGORY_MC && property->category != UTF8PROC_CATEGORY_ME;
}

/* A stable sort by combining class: by insertion when short, else by counting. */
static qvl_status sort_marks(qvl_token_encoder *e, int32_t *points, size_t n, qvl_err *err)
{
    size_t starts[257] = {0};
    if (n <= SHORT_RUN) {
        for (size_t i = 1; i < n; i++) {
            const int32_t point = points[i];
            size_t k = i;
            for (; k > 0 && combining_class(points[k - 1]) > combining_class(point); k--)
                points[k] = points[k - 1];
            points[k] = point;
        }
        return QVL_OK;
    }
    const qvl_status rc =
        qvl_reserve(&e->sorted, &e->sorted_capacity, n, sizeof *e->sorted, "combining marks", err);
    if (rc != QVL_OK)
        return rc;
    for (size_t i = 0; i < n; i++)
        starts[(combining_class(points[i]) & 0xff) + 1]++;
    for (int i = 1; i < 257; i++)
        starts[i] += starts[i - 1];
    for (size_t i = 0; i < n; i++)
        e->sorted[starts[combining_class(points[i]) & 0xff]++] = points[i];
    memcpy(points, e->sorted, n * sizeof *points);
    return QVL_OK;
}

static qvl_status order_marks(qvl_token_encoder *e, size_t n, qvl_err *err)
{
    for (size_t i = 0; i < n; i++) {
        size_t end = i;
        while (end < n && combining_class(e->points[end]) != 0)
            end++;
        if (end - i > 1) {
            const qvl_status rc = sort_marks(e, e->points + i, end - i, err);
            if (rc != QVL_OK)
                return rc;
        }
        i = end; /* a starter, or the end */
    }
    return QVL_OK;
}

/* Composes points[0..n) and appends them as UTF-8. */
static qvl_status compose(qvl_token_encoder *e, int32_t *points, size_t n, qvl_err *err)
{
    const utf8proc_ssize_t composed =
        utf8proc_normalize_utf32(points, (utf8proc_ssize_t)n, UTF8PROC_STABLE | UTF8PROC_COMPOSE);
    if (composed < 0)
        return qvl_fail(err, QVL_EINTERNAL, "utf8proc: %s", utf8proc_errmsg(composed));
    for (utf8proc_ssize_t i = 0; i < composed; i++) {
        utf8proc_uint8_t bytes[4];
        const utf8proc_ssize_t length = utf8proc_encode_char(points[i], bytes);
        const qvl_status rc = qvl_text_add(&e->nfc, (const char *)bytes, (size_t)length, err);
        if (rc != QVL_OK)
            return rc;
    }
    return QVL_OK;
}

/* Appends NFC of a segment. */
static qvl_status normalize_segment(qvl_token_encoder *e, const char *text, size_t n_bytes,
                                    qvl_err *err)
{
    size_t n = 0, length = 0, start = 0;
    qvl_status rc = QVL_OK;
    for (size_t i = 0; i < n_bytes; i += length) {
        int boundary = 0;
        const int32_t point = decode(text + i, &length);
        QVL_TRY(qvl_reserve(&e->points, &e->points_capacity, n + MAX_DECOMPOSED, sizeof *e->points,
                            "code points", err));
        const utf8proc_ssize_t made = utf8proc_decompose_char(
            point, e->points + n, MAX_DECOMPOSED, UTF8PROC_STABLE | UTF8PROC_DECOMPOSE, &boundary);
        if (made < 0 || made > MAX_DECOMPOSED) {
            rc = qvl_fail(err, QVL_EINTERNAL, "utf8proc: U+%04X decomposes to %ld code points",
                          (unsigned)point, (long)made);
            goto out;
        }
        n += (size_t)made;
    }
    QVL_TRY(order_marks(e, n, err));
    for (size_t i = 1; i < n; i++)
        if (e->points[i] == 0x11a7) {
            QVL_TRY(compose(e, e->points + start, i - start, err));
            start = i;
        }
    rc = compose(e, e->points + start, n - start, err);
out:
    return rc;
}

/* Whether all code points are below U+0300: no byte is 0xcc or more. */
static bool is_below_marks(const char *text, size_t n_bytes)
{
    unsigned char any = 0;
    for (size_t i = 0; i < n_bytes; i++)
        any |= (unsigned char)text[i] >= 0xcc;
    return !any;
}

qvl_status qvl_token_encoder_normalize(const char **out, size_t *out_bytes,
                                       qvl_token_encoder *encoder, const char *text, size_t n_bytes,
                                       qvl_err *err)
{
    size_t copied = 0, starter = 0, length = 0;
    qvl_status rc = QVL_OK;
    *out = text;
    *out_bytes = n_bytes;
    if (is_below_marks(text, n_bytes))
        return QVL_OK;
    qvl_text_clear(&encoder->nfc);
    for (size_t i = 0; i < n_bytes;) {
        if (is_safe_starter(decode(text + i, &length))) {
            starter = i;
            i += length;
            continue;
        }
        QVL_TRY(qvl_text_add(&encoder->nfc, text + copied, starter - copied, err));
        do
            i += length;
        while (i < n_bytes && !is_safe_starter(decode(text + i, &length)));
        QVL_TRY(normalize_segment(encoder, text + starter, i - starter, err));
        copied = i; /* a safe starter, or the end */
    }
    if (copied == 0)
        return QVL_OK;
    QVL_TRY(qvl_text_add(&encoder->nfc, text + copied, n_bytes - copied, err));
    *out = encoder->nfc.data;
    *out_bytes = encoder->nfc.len;
out:
    return rc;
}
