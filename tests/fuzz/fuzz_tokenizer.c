/* tokenizer.json; one that is accepted then encodes a text and decodes every id. */
#include <stdlib.h>
#include <string.h>

#include "io/tokenizer.h"
#include "tests/fuzz/fuzz.h"

static void use(const qvl_tokenizer *tokenizer)
{
    static const char TEXT[] = "<|im_start|>user\n It's 12 o'clock, caf\xc3\xa9 e\xcc\x81 "
                               "\xe4\xbd\xa0\xe5\xa5\xbd\r\n\n  x "
                               "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
                               "aaaaaaaaaaaaaaaaa<|im_end|>";
    qvl_token_encoder *encoder = NULL;
    qvl_ids ids = {0};
    qvl_text text = {0};
    qvl_err err = {0};
    size_t n = 0;
    FUZZ_CHECK(qvl_token_encoder_create(&encoder, tokenizer, &err) == QVL_OK);
    fuzz_expect(qvl_tokenizer_encode(encoder, TEXT, sizeof TEXT - 1, false, &ids, &err), &err);
    for (size_t i = 0; i < ids.len; i++)
        FUZZ_CHECK(qvl_tokenizer_token_bytes(tokenizer, ids.data[i], &n) != NULL);
    qvl_err_clear(&err);
    fuzz_expect(qvl_tokenizer_decode(tokenizer, ids.data, ids.len, false, &text, &err), &err);
    for (int32_t id = 0; id < qvl_tokenizer_n_ids(tokenizer) && id < 4096; id++) {
        qvl_text_clear(&text);
        FUZZ_CHECK(qvl_tokenizer_decode(tokenizer, &id, 1, true, &text, NULL) == QVL_OK);
    }
    qvl_ids_fini(&ids);
    qvl_text_fini(&text);
    qvl_token_encoder_destroy(encoder);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    qvl_tokenizer *tokenizer = NULL;
    qvl_err err = {0};
    const qvl_status rc =
        qvl_tokenizer_load(&tokenizer, fuzz_file("tokenizer.json", data, size), &err);
    fuzz_expect(rc, &err);
    if (rc == QVL_OK)
        use(tokenizer);
    qvl_tokenizer_destroy(tokenizer);
    return 0;
}
