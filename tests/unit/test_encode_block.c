/* Blocks of records as messages: what is kept, dropped and bad, in order, for any number of
 * threads. */
#include "src/data/encode_block.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tests/unit/encode_helpers.h"
#include "tests/unit/scratch_files.h"

enum { N_RECORDS = 200 };

static qvl_dataset_info *infos;
static size_t n_infos;
static qvl_record_ref refs[2 * N_RECORDS];

static const char *const KINDS[] = {
    "{\"messages\": [{\"role\": \"user\", \"content\": \"What is %d?\"}, {\"role\": \"assistant\", "
    "\"content\": \"It is %d.\"}]}",
    "{\"messages\": [{\"role\": \"user\", \"content\": \"<image>%d\"}, {\"role\": \"assistant\", "
    "\"content\": \"%d\"}], \"images\": [\"jpeg_420.jpg\"], \"system\": \"s\"}",
    "{\"messages\": [{\"role\": \"user\", \"content\": \"%d %d\"}]}",
    "{\"messages\": [{\"role\": \"robot\", \"content\": \"%d %d\"}]}",
    "{\"messages\": %d \"no JSON %d\"}",
    "{\"messages\": [{\"role\": \"user\", \"content\": \"<image>%d\"}, {\"role\": \"assistant\", "
    "\"content\": \"%d\"}], \"images\": [\"none.jpg\"]}",
};

static int make_all(void **state)
{
    qvl_err err = {0};
    if (scratch_make(state) || load_tokenizer(state))
        return -1;
    write_text_in(scratch, "dataset_info.json",
                  "{\"a\": {\"file_name\": \"a.jsonl\", \"formatting\": \"sharegpt\", \"columns\": "
                  "{\"messages\": \"messages\", \"images\": \"images\", \"system\": \"system\"}, "
                  "\"tags\": {\"role_tag\": \"role\", \"content_tag\": \"content\", \"user_tag\": "
                  "\"user\", \"assistant_tag\": \"assistant\"}}, \"b\": {\"file_name\": "
                  "\"b.json\"}}");
    qvl_text a = {0}, b = {0};
    for (int i = 0; i < N_RECORDS; i++) {
        char record[512];
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
        snprintf(record, sizeof record, KINDS[i % 6], i, i);
#pragma GCC diagnostic pop
        if (qvl_text_printf(&a, NULL, "%s\n", record) ||
            qvl_text_printf(&b, NULL, "%s{\"instruction\": \"%d\", \"output\": \"%d\"}",
                            i ? ",\n" : "[", i, i))
            return -1;
    }
    qvl_text_puts(&b, "]", NULL);
    write_text_in(scratch, "a.jsonl", a.data);
    write_text_in(scratch, "b.json", b.data);
    qvl_text_fini(&a);
    qvl_text_fini(&b);
    if (qvl_dataset_info_read(&infos, &n_infos, "a,b", scratch, &err) != QVL_OK)
        return -1;
    for (int i = 0; i < 2; i++) {
        qvl_record_list list = {0};
        if (qvl_record_list_scan(&list, infos[i].files[0], &err) != QVL_OK ||
            list.count != N_RECORDS)
            return -1;
        for (int k = 0; k < N_RECORDS; k++)
            refs[2 * k + i] = (qvl_record_ref){.info = i, .record = k, .span = list.spans[k]};
        qvl_record_list_fini(&list);
    }
    return 0;
}

static int remove_all(void **state)
{
    qvl_dataset_info_free(infos, n_infos);
    free_tokenizer(state);
    return scratch_remove(state);
}

static void check_entry(const qvl_block_entry *entry, const qvl_record_ref *ref)
{
    const int kind = ref->info == 0 ? (int)(ref->record % 6) : 0;
    const uint32_t messages = 1u << 4, system = 1u << 5, images = 1u << 7;
    if (ref->info == 1) {
        assert_int_equal(entry->outcome, QVL_KEPT);
        assert_int_equal(entry->columns, 1u | 1u << 2); /* prompt and response */
        return;
    }
    switch (kind) {
    case 0:
        assert_int_equal(entry->outcome, QVL_KEPT);
        assert_int_equal(entry->n_images, 0);
        assert_int_equal(entry->columns, messages);
        break;
    case 1:
        assert_int_equal(entry->outcome, QVL_KEPT);
        assert_int_equal(entry->n_images, 1);
        assert_int_equal(entry->grids[1] * entry->grids[2], 16);
        assert_string_equal(entry->text, QVL_TEST_FIXTURES "/images/jpeg_420.jpg");
        assert_int_equal(entry->columns, messages | system | images);
        break;
    case 2:
        assert_int_equal(entry->outcome, QVL_DROPPED);
        assert_string_equal(entry->text, "its last turn has no answer");
        break;
    case 3:
        assert_int_equal(entry->outcome, QVL_BAD);
        assert_int_equal(entry->status, QVL_EDATA);
        assert_string_equal(entry->text, "message 0 has the role \"robot\", which no tag names");
        break;
    case 4:
        assert_int_equal(entry->outcome, QVL_BAD);
        assert_non_null(strstr(entry->text, "a.jsonl:"));
        assert_int_equal(atoi(strstr(entry->text, "a.jsonl:") + 8), ref->record + 1);
        assert_int_equal(entry->columns, 0);
        break;
    default:
        assert_int_equal(entry->outcome, QVL_BAD);
        assert_int_equal(entry->status, QVL_EMISSING);
    }
    if (entry->outcome != QVL_KEPT)
        assert_int_equal(entry->n_ids + entry->n_images + entry->n_cut, 0);
}

static void records_in_order(void **state)
{
    (void)state;
    const qvl_selection selection = {.infos = infos, .n_infos = n_infos};
    const qvl_encode_options options = plain_options();
    qvl_text messages[3] = {{0}};
    for (int threads = 1; threads <= 3; threads++) {
        qvl_block_encoder *encoder = NULL;
        qvl_block_entry entry;
        qvl_err err = {0};
        qvl_text *message = &messages[threads - 1];
        expect_ok(
            qvl_block_encoder_create(&encoder, &selection, tokenizer, &options, threads, &err),
            &err);
        expect_ok(qvl_block_encode(encoder, message, refs + 100, 3, &err), &err); /* is replaced */
        expect_ok(qvl_block_encode(encoder, message, refs, QVL_BLOCK_RECORDS, &err), &err);
        size_t at = 0;
        int i = 0;
        for (; qvl_block_next(&entry, message, &at); i++) {
            check_entry(&entry, &refs[i]);
            if (entry.outcome == QVL_KEPT)
                assert_int_equal(entry.ids[0], 901); /* <|im_start|> */
        }
        assert_int_equal(i, QVL_BLOCK_RECORDS);
        assert_int_equal(at, message->len);
        assert_int_equal(message->len, messages[0].len);
        assert_memory_equal(message->data, messages[0].data, message->len);
        qvl_block_encoder_destroy(encoder);
    }
    for (int i = 0; i < 3; i++)
        qvl_text_fini(&messages[i]);
}

static void a_file_that_went_away(void **state)
{
    (void)state;
    const qvl_selection selection = {.infos = infos, .n_infos = n_infos};
    const qvl_encode_options options = plain_options();
    char path[QVL_PATH_BYTES], moved[QVL_PATH_BYTES];
    qvl_block_encoder *encoder = NULL;
    qvl_text message = {0};
    qvl_err err = {0};
    expect_ok(qvl_block_encoder_create(&encoder, &selection, tokenizer, &options, 2, &err), &err);
    scratch_path(path, "b.json");
    assert_int_equal(rename(path, scratch_path(moved, "moved")), 0);
    expect_failure(qvl_block_encode(encoder, &message, refs, 4, &err), QVL_EMISSING, &err,
                   "b.json");
    /* one that shrank meanwhile makes its records bad */
    write_text(path, "[");
    expect_ok(qvl_block_encode(encoder, &message, refs + 1, 1, &err), &err);
    qvl_block_entry entry;
    size_t at = 0;
    assert_int_equal(qvl_block_next(&entry, &message, &at), 1);
    assert_int_equal(entry.outcome, QVL_BAD);
    assert_non_null(strstr(entry.text, "b.json: ends at byte 1"));
    assert_int_equal(rename(moved, path), 0);
    qvl_block_encoder_destroy(encoder);
    qvl_text_fini(&message);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(records_in_order),
        cmocka_unit_test(a_file_that_went_away),
    };
    return cmocka_run_group_tests_name("encode_block", tests, make_all, remove_all);
}
