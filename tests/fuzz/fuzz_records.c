/* dataset_info.json and a data file: records are found, read, converted and encoded, as a rank does
 * it. The images that they may name are a good one and a broken one. */
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "io/record_file.h"
#include "src/data/conversation.h"
#include "src/data/dataset_info.h"
#include "src/data/encode.h"
#include "tests/fuzz/fuzz.h"

enum { MOST_RECORDS = 64 };

typedef struct reader {
    qvl_tokenizer *tokenizer;
    qvl_sample_encoder *encoder;
    qvl_conversation conversation;
    qvl_encoded encoded;
    qvl_text scratch;
} reader;

/* Made once; what is in it must not depend on the inputs before. */
static reader *the_reader(void)
{
    static reader r;
    qvl_err err = {0};
    qvl_text png = {0};
    if (r.tokenizer)
        return &r;
    FUZZ_CHECK(qvl_file_read(&png, QVL_TEST_FIXTURES "/images/png_c2_d8.png", 1 << 20, &err) ==
               QVL_OK);
    fuzz_file("a.png", png.data, png.len);
    fuzz_file("b.png", png.data, png.len / 2);
    qvl_text_fini(&png);
    FUZZ_CHECK(qvl_tokenizer_load(&r.tokenizer, QVL_TEST_FIXTURES "/tokenizer/tokenizer.json",
                                  &err) == QVL_OK);
    const qvl_encode_options options = {.cutoff_len = 128,
                                        .media_dir = fuzz_directory(),
                                        .limits = qvl_image_limits_default,
                                        .image_token =
                                            qvl_tokenizer_token_id(r.tokenizer, "<|image_pad|>"),
                                        .video_token = -1};
    FUZZ_CHECK(qvl_sample_encoder_create(&r.encoder, r.tokenizer, &options, &err) == QVL_OK);
    return &r;
}

static void check_encoded(const qvl_encoded *e, const qvl_tokenizer *tokenizer)
{
    if (e->dropped)
        return;
    FUZZ_CHECK(e->ids.len == e->labels.len && e->ids.len > 0 && e->ids.len <= 128);
    for (size_t i = 0; i < e->ids.len; i++)
        FUZZ_CHECK(e->ids.data[i] >= 0 && e->ids.data[i] < qvl_tokenizer_n_ids(tokenizer));
}

static void read_record(reader *r, const qvl_dataset_info *info, int fd, const char *path,
                        const qvl_record_span *span)
{
    json_t *record = NULL;
    qvl_err err = {0};
    qvl_status rc = qvl_record_read(&record, fd, path, span, &r->scratch, &err);
    if (rc == QVL_OK) {
        qvl_dataset_info_columns_of(info, record);
        rc = qvl_conversation_read(&r->conversation, record, info, &err);
    }
    if (rc == QVL_OK)
        rc = qvl_encode_sample(r->encoder, &r->encoded, &r->conversation, &err);
    fuzz_expect(rc, &err);
    if (rc == QVL_OK)
        check_encoded(&r->encoded, r->tokenizer);
    json_decref(record);
}

static void read_file(reader *r, const qvl_dataset_info *info, const char *path)
{
    qvl_record_list list = {0};
    qvl_err err = {0};
    const qvl_status rc = qvl_record_list_scan(&list, path, &err);
    fuzz_expect(rc, &err);
    const int fd = open(path, O_RDONLY | O_CLOEXEC);
    for (size_t i = 0; rc == QVL_OK && fd >= 0 && i < list.count && i < MOST_RECORDS; i++)
        read_record(r, info, fd, path, &list.spans[i]);
    if (fd >= 0)
        close(fd);
    qvl_record_list_fini(&list);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    reader *r = the_reader();
    const uint8_t *parts[2];
    size_t sizes[2], count = 0;
    qvl_dataset_info *infos = NULL;
    qvl_err err = {0};
    fuzz_split(parts, sizes, 2, data, size);
    fuzz_file("dataset_info.json", parts[0], sizes[0]);
    const char *path = fuzz_file("data.json", parts[1], sizes[1]);
    const qvl_status rc = qvl_dataset_info_read(&infos, &count, "d", fuzz_directory(), &err);
    fuzz_expect(rc, &err);
    if (rc == QVL_OK)
        read_file(r, &infos[0], path);
    qvl_dataset_info_free(infos, count);
    return 0;
}
