/* One encoder with the small tokenizer, for the tests of src/data/encode; include it after
 * cmocka.h. */
#ifndef QVL_TESTS_UNIT_ENCODE_HELPERS_H
#define QVL_TESTS_UNIT_ENCODE_HELPERS_H

#include "src/data/encode.h"

#include <jansson.h>

#include <stdlib.h>
#include <string.h>

static qvl_tokenizer *tokenizer;

static inline int load_tokenizer(void **state)
{
    (void)state;
    return qvl_tokenizer_load(&tokenizer, QVL_TEST_FIXTURES "/tokenizer/tokenizer.json", NULL) ==
                   QVL_OK
               ? 0
               : -1;
}

static inline int free_tokenizer(void **state)
{
    (void)state;
    qvl_tokenizer_destroy(tokenizer);
    return 0;
}

static inline qvl_encode_options plain_options(void)
{
    return (qvl_encode_options){.cutoff_len = 2048,
                                .media_dir = QVL_TEST_FIXTURES "/images",
                                .limits = qvl_image_limits_default,
                                .image_token = 903,
                                .video_token = -1};
}

static inline qvl_dataset_info openai_info(void)
{
    static char words[][12] = {"messages", "role",   "content", "user",     "assistant",
                               "tool",     "system", "images",  "function", "tools"};
    return (qvl_dataset_info){.formatting = QVL_SHAREGPT,
                              .messages = words[0],
                              .role_tag = words[1],
                              .content_tag = words[2],
                              .user_tag = words[3],
                              .assistant_tag = words[4],
                              .observation_tag = words[5],
                              .system_tag = words[6],
                              .images = words[7],
                              .function_tag = words[8],
                              .tools = words[9]};
}

/* Encodes the record that json is. */
static inline qvl_status encode_json(qvl_encoded *out, const char *json,
                                     const qvl_encode_options *options, qvl_err *err)
{
    json_error_t why;
    json_t *record = json_loads(json, 0, &why);
    qvl_sample_encoder *encoder = NULL;
    qvl_conversation conversation = {0};
    const qvl_dataset_info info = openai_info();
    if (!record)
        fail_msg("%s: %s", json, why.text);
    assert_int_equal(qvl_sample_encoder_create(&encoder, tokenizer, options, NULL), QVL_OK);
    qvl_status rc = qvl_conversation_read(&conversation, record, &info, err);
    if (rc == QVL_OK)
        rc = qvl_encode_sample(encoder, out, &conversation, err);
    qvl_conversation_fini(&conversation);
    qvl_sample_encoder_destroy(encoder);
    json_decref(record);
    return rc;
}

static inline void encode_ok(qvl_encoded *out, const char *json, const qvl_encode_options *options)
{
    qvl_err err = {0};
    if (encode_json(out, json, options, &err) != QVL_OK)
        fail_msg("%s: %s", json, err.text);
}

/* Appends the ids of text, and as many labels: the ids, or -100. */
static inline void expect_more(qvl_ids *ids, qvl_ids *labels, const char *text, bool is_supervised)
{
    static const int32_t IGNORED = -100;
    qvl_token_encoder *encoder = NULL;
    const size_t before = ids->len;
    assert_int_equal(qvl_token_encoder_create(&encoder, tokenizer, NULL), QVL_OK);
    assert_int_equal(qvl_tokenizer_encode(encoder, text, strlen(text), false, ids, NULL), QVL_OK);
    qvl_token_encoder_destroy(encoder);
    for (size_t i = before; i < ids->len; i++)
        assert_int_equal(qvl_ids_add(labels, is_supervised ? &ids->data[i] : &IGNORED, 1, NULL),
                         QVL_OK);
}

static inline void assert_ids(const qvl_ids *found, const qvl_ids *expected, const char *what)
{
    for (size_t i = 0; i < found->len && i < expected->len; i++)
        if (found->data[i] != expected->data[i])
            fail_msg("%s %zu is %d, expected %d", what, i, found->data[i], expected->data[i]);
    if (found->len != expected->len)
        fail_msg("%zu %s, expected %zu", found->len, what, expected->len);
}

#endif
