#include "io/tokenizer_internal.h"

/* How many bytes at p (n available) begin a UTF-8 sequence that goes wrong after them; 1 when the
 * first byte does already. Each such stretch becomes one U+FFFD, as Unicode recommends. */
static size_t malformed_bytes(const unsigned char *p, size_t n)
{
    const size_t length = p[0] < 0xc2 ? 1 : p[0] < 0xe0 ? 2 : p[0] < 0xf0 ? 3 : p[0] < 0xf5 ? 4 : 1;
    const unsigned char low = p[0] == 0xe0 ? 0xa0 : p[0] == 0xf0 ? 0x90 : 0x80;
    const unsigned char high = p[0] == 0xed ? 0x9f : p[0] == 0xf4 ? 0x8f : 0xbf;
    size_t good = 1;
    if (length > 1 && n > 1 && p[1] >= low && p[1] <= high)
        for (good = 2; good < length && good < n && (p[good] & 0xc0) == 0x80;)
            good++;
    return good;
}

/* Appends bytes[0..n), malformed sequences replaced. */
static qvl_status add_repaired(qvl_text *out, const char *bytes, size_t n, qvl_err *err)
{
    static const char REPLACEMENT[] = "\xef\xbf\xbd";
    qvl_status rc = QVL_OK;
    for (size_t at = 0; at < n;) {
        size_t bad = 0;
        if (qvl_utf8_is_valid(bytes + at, n - at, &bad))
            return qvl_text_add(out, bytes + at, n - at, err);
        QVL_TRY(qvl_text_add(out, bytes + at, bad, err));
        QVL_TRY(qvl_text_puts(out, REPLACEMENT, err));
        at += bad;
        at += malformed_bytes((const unsigned char *)bytes + at, n - at);
    }
out:
    return rc;
}

/* Repaired as a whole: the text of an added token is UTF-8, so it neither joins with a sequence
 * that is cut short before it nor changes. */
qvl_status qvl_tokenizer_decode(const qvl_tokenizer *tokenizer, const int32_t *ids, size_t n,
                                bool skip_special, qvl_text *out, qvl_err *err)
{
    qvl_text bytes = {0};
    qvl_status rc = QVL_OK;
    for (size_t i = 0; i < n; i++) {
        if (ids[i] < 0) {
            rc = qvl_fail(err, QVL_EDATA, "token id %d at %zu, expected 0 or more", ids[i], i);
            goto out;
        }
        size_t n_bytes = 0;
        const char *token = qvl_tokenizer_token_bytes(tokenizer, ids[i], &n_bytes);
        if (token && !(skip_special && qvl_tokenizer_is_special(tokenizer, ids[i])))
            QVL_TRY(qvl_text_add(&bytes, token, n_bytes, err));
    }
    rc = add_repaired(out, bytes.data, bytes.len, err);
out:
    qvl_text_fini(&bytes);
    return rc;
}
