/* Any text through the tokenizer, and back. */
#include <stdlib.h>
#include <string.h>

#include "io/tokenizer.h"
#include "tests/fuzz/fuzz.h"

static bool is_ascii(const uint8_t *text, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (text[i] >= 0x80)
            return false;
    return true;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static qvl_tokenizer *tokenizer;
    static qvl_token_encoder *encoder;
    qvl_err err = {0};
    qvl_ids ids = {0};
    qvl_text text = {0};
    if (!tokenizer) {
        FUZZ_CHECK(qvl_tokenizer_load(&tokenizer, QVL_TEST_FIXTURES "/tokenizer/tokenizer.json",
                                      &err) == QVL_OK);
        FUZZ_CHECK(qvl_token_encoder_create(&encoder, tokenizer, &err) == QVL_OK);
    }
    if (size == 0)
        return 0;
    const char *bytes = (const char *)data + 1;
    const qvl_status rc = qvl_tokenizer_encode(encoder, bytes, size - 1, data[0] & 1, &ids, &err);
    fuzz_expect(rc, &err);
    FUZZ_CHECK((rc == QVL_OK) == qvl_utf8_is_valid(bytes, size - 1, NULL));
    for (size_t i = 0; i < ids.len; i++)
        FUZZ_CHECK(ids.data[i] >= 0 && ids.data[i] < qvl_tokenizer_n_ids(tokenizer));
    FUZZ_CHECK(qvl_tokenizer_decode(tokenizer, ids.data, ids.len, false, &text, &err) == rc ||
               rc != QVL_OK);
    if (rc == QVL_OK && is_ascii(data + 1, size - 1))
        FUZZ_CHECK(text.len == size - 1 && (size == 1 || memcmp(text.data, bytes, size - 1) == 0));
    qvl_ids_fini(&ids);
    qvl_text_fini(&text);
    return 0;
}
