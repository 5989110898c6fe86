/* <image> in conversations: tokens, grids, paths, and everything that can be wrong with them. The
 * images' token counts follow from their sizes: 45 x 52 gives 4, 31 x 41 gives 6, 200 x 133 gives
 * 35. */
#include "src/data/encode.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tests/unit/encode_helpers.h"
#include "tests/unit/scratch_files.h"

#define TALK(question, answer, images)                                                             \
    "{\"messages\": [{\"role\": \"user\", \"content\": \"" question                                \
    "\"}, {\"role\": \"assistant\", \"content\": \"" answer "\"}], \"images\": " images "}"

#define PADS_2      "<|image_pad|><|image_pad|>"
#define PADS_4      PADS_2 PADS_2
#define PADS_6      PADS_4 PADS_2
#define PADS_35     PADS_6 PADS_6 PADS_6 PADS_6 PADS_6 PADS_4 "<|image_pad|>"
#define IMAGE(pads) "<|vision_start|>" pads "<|vision_end|>"

static void expect_encoded(const char *json, const qvl_encode_options *options,
                           const char *question, const char *answer)
{
    qvl_encoded found = {0};
    qvl_ids ids = {0}, labels = {0};
    qvl_text turn = {0};
    encode_ok(&found, json, options);
    expect_more(&ids, &labels, "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n",
                false);
    assert_int_equal(qvl_text_printf(&turn, NULL,
                                     "<|im_start|>user\n%s<|im_end|>\n<|im_start|>assistant\n",
                                     question),
                     QVL_OK);
    expect_more(&ids, &labels, turn.data, false);
    qvl_text_clear(&turn);
    assert_int_equal(qvl_text_printf(&turn, NULL, "%s<|im_end|>\n", answer), QVL_OK);
    expect_more(&ids, &labels, turn.data, true);
    assert_ids(&found.ids, &ids, "ids");
    assert_ids(&found.labels, &labels, "labels");
    qvl_text_fini(&turn);
    qvl_ids_fini(&ids);
    qvl_ids_fini(&labels);
    qvl_encoded_fini(&found);
}

static void tags_become_tokens(void **state)
{
    (void)state;
    const qvl_encode_options options = plain_options();
    expect_encoded(TALK("<image>Who?", "Me.", "[\"jpeg_420.jpg\"]"), &options, IMAGE(PADS_4) "Who?",
                   "Me.");
    expect_encoded(TALK("Who is <image>?", "Me.", "\"png_c2_d8.png\""), &options,
                   "Who is " IMAGE(PADS_6) "?", "Me.");
    expect_encoded(TALK("<image><image>", "a", "[\"png_c2_d8.png\", \"jpeg_420.jpg\"]"), &options,
                   IMAGE(PADS_6) IMAGE(PADS_4), "a");
    /* an answer may show one; the images are dealt out over all messages in order */
    expect_encoded(TALK("<image>x", "Here: <image>!", "[\"jpeg_photo.jpg\", \"jpeg_420.jpg\"]"),
                   &options, IMAGE(PADS_35) "x", "Here: " IMAGE(PADS_4) "!");
    expect_encoded(TALK("<image><image>", "a", "[\"jpeg_420.jpg\", \"jpeg_420.jpg\"]"), &options,
                   IMAGE(PADS_4) IMAGE(PADS_4), "a");
    expect_encoded(TALK("<image <image>> <imag", "a", "[\"jpeg_420.jpg\"]"), &options,
                   "<image " IMAGE(PADS_4) "> <imag", "a");
}

static void grids_and_paths(void **state)
{
    (void)state;
    static const int32_t GRIDS[] = {1, 10, 14, 1, 6, 4, 1, 10, 14};
    static const char PATHS[] =
        QVL_TEST_FIXTURES "/images/jpeg_photo.jpg\0" QVL_TEST_FIXTURES
                          "/images/png_c2_d8.png\0" QVL_TEST_FIXTURES "/images/jpeg_photo.jpg";
    qvl_encode_options options = plain_options();
    qvl_encoded found = {0};
    encode_ok(&found,
              TALK("<image><image><image>", "a",
                   "[\"jpeg_photo.jpg\", \"png_c2_d8.png\", \"jpeg_photo.jpg\"]"),
              &options);
    assert_int_equal(found.n_images, 3);
    assert_memory_equal(found.grids, GRIDS, sizeof GRIDS);
    assert_int_equal(found.image_paths.len, sizeof PATHS);
    assert_memory_equal(found.image_paths.data, PATHS, sizeof PATHS);
    /* image_max_pixels shrinks 200 x 133 to 41 x 27, which becomes 41 x 28, and then 84 x 56 */
    options.limits.image_max_pixels = 1120;
    encode_ok(&found, TALK("<image>", "a", "[\"jpeg_photo.jpg\"]"), &options);
    assert_int_equal(found.n_images, 1);
    assert_int_equal(found.grids[1], 4);
    assert_int_equal(found.grids[2], 6);
    qvl_encoded_fini(&found);
}

/* media_dir first, then the path as it is. */
static void where_images_are(void **state)
{
    (void)state;
    char path[QVL_PATH_BYTES], json[QVL_PATH_BYTES + 256], cwd[QVL_PATH_BYTES];
    qvl_encode_options options = plain_options();
    qvl_encoded found = {0};
    assert_int_equal(qvl_file_copy(scratch_path(path, "here.jpg"),
                                   QVL_TEST_FIXTURES "/images/jpeg_420.jpg", NULL),
                     QVL_OK);
    snprintf(json, sizeof json, TALK("<image>", "a", "[\"%s\"]"), path);
    encode_ok(&found, json, &options);
    assert_string_equal(found.image_paths.data, path);
    options.media_dir = scratch;
    encode_ok(&found, TALK("<image>", "a", "[\"here.jpg\"]"), &options);
    assert_string_equal(found.image_paths.data, path);
    assert_non_null(getcwd(cwd, sizeof cwd));
    snprintf(json, sizeof json, TALK("<image>", "a", "[\"%.2000s/%.2000s\"]"), cwd, path);
    encode_ok(&found, json, &options);
    assert_int_equal(found.image_paths.data[0], '/');
    qvl_encoded_fini(&found);
}

static void expect_refused(const char *json, const qvl_encode_options *options, qvl_status status,
                           const char *words)
{
    qvl_encoded found = {0};
    qvl_err err = {0};
    expect_failure(encode_json(&found, json, options, &err), status, &err, words);
    qvl_encoded_fini(&found);
}

/* strict_paths: only what really is below media_dir. */
static void paths_outside_are_refused(void **state)
{
    (void)state;
    static const char *const OUTSIDE[] = {"../outside.jpg", "link.jpg", "inside/../../outside.jpg",
                                          "beside.jpg", "out/outside.jpg"};
    char media[QVL_PATH_BYTES], path[QVL_PATH_BYTES], cwd[QVL_PATH_BYTES], json[3 * QVL_PATH_BYTES];
    qvl_encode_options options = plain_options();
    qvl_encoded found = {0};
    scratch_directory(path, "inside_not");
    assert_int_equal(qvl_file_copy(scratch_path(path, "outside.jpg"),
                                   QVL_TEST_FIXTURES "/images/jpeg_420.jpg", NULL),
                     QVL_OK);
    assert_int_equal(qvl_file_copy(scratch_path(path, "inside_not/a.jpg"),
                                   QVL_TEST_FIXTURES "/images/jpeg_420.jpg", NULL),
                     QVL_OK);
    scratch_directory(media, "inside");
    assert_int_equal(qvl_directory_create(scratch_path(path, "inside/inside"), NULL), QVL_OK);
    assert_int_equal(qvl_file_copy(scratch_path(path, "inside/a.jpg"),
                                   QVL_TEST_FIXTURES "/images/jpeg_420.jpg", NULL),
                     QVL_OK);
    assert_int_equal(symlink("../outside.jpg", scratch_path(path, "inside/link.jpg")), 0);
    assert_int_equal(symlink("..", scratch_path(path, "inside/out")), 0);
    assert_int_equal(symlink("../inside_not/a.jpg", scratch_path(path, "inside/beside.jpg")), 0);
    assert_int_equal(symlink("a.jpg", scratch_path(path, "inside/alias.jpg")), 0);
    assert_int_equal(symlink("round.jpg", scratch_path(path, "inside/round.jpg")), 0);
    options.media_dir = media;
    for (size_t i = 0; i < sizeof OUTSIDE / sizeof *OUTSIDE; i++) {
        snprintf(json, sizeof json, TALK("<image>", "a", "[\"%s\"]"), OUTSIDE[i]);
        options.strict_paths = false;
        encode_ok(&found, json, &options);
        options.strict_paths = true;
        expect_refused(json, &options, QVL_EDATA, "lies outside of media_dir|strict_paths: true");
    }
    encode_ok(&found, TALK("<image>", "a", "[\"a.jpg\"]"), &options);
    encode_ok(&found, TALK("<image>", "a", "[\"inside/../alias.jpg\"]"), &options);
    assert_non_null(getcwd(cwd, sizeof cwd));
    snprintf(json, sizeof json, TALK("<image>", "a", "[\"%s/%s/a.jpg\"]"), cwd, media);
    encode_ok(&found, json, &options);
    expect_refused(TALK("<image>", "a", "[\"/etc/passwd\"]"), &options, QVL_EDATA, "lies outside");
    expect_refused(TALK("<image>", "a", "[\"none.jpg\"]"), &options, QVL_EMISSING, "No such file");
    expect_refused(TALK("<image>", "a", "[\"round.jpg\"]"), &options, QVL_EMISSING,
                   "symbolic links");
    qvl_encoded_fini(&found);
}

static void what_is_wrong(void **state)
{
    (void)state;
    static const struct {
        const char *json;
        qvl_status status;
        const char *words;
    } CASES[] = {
        {TALK("<image>", "a", "[]"), QVL_EDATA, "0 images, but 1 <image> in its messages"},
        {TALK("x", "a", "[\"jpeg_420.jpg\"]"), QVL_EDATA, "1 images, but 0 <image>"},
        {TALK("<image>", "<image>", "[\"jpeg_420.jpg\"]"), QVL_EDATA, "1 images, but 2 <image>"},
        {TALK("<image>", "a", "[\"jpeg_420.jpg\", \"jpeg_420.jpg\"]"), QVL_EDATA,
         "2 images, but 1 <image>"},
        {TALK("<video>", "a", "[]"), QVL_EDATA, "<video> or <audio> in its messages"},
        {TALK("x", "<audio>", "[]"), QVL_EDATA, "<video> or <audio> in its messages"},
        {TALK("<image>", "a", "[\"nowhere.jpg\"]"), QVL_EMISSING, "images/nowhere.jpg: No such"},
        {TALK("<image>", "a", "[\".\"]"), QVL_EMISSING, "images/."},
        {TALK("<image>", "a", "[\"bad_empty.jpg\"]"), QVL_EDATA, "bad_empty.jpg: "},
        {TALK("<image>", "a", "[\"bad_huge.png\"]"), QVL_EDATA, "bad_huge.png: "},
        {TALK("<image>", "a", "[\"bad_gif.jpg\"]"), QVL_EDATA, "bad_gif.jpg: |GIF"},
        {TALK("<|image_pad|>", "a", "[]"), QVL_EDATA,
         "1 image tokens for images of 0; its text holds <|image_pad|>"},
        {TALK("<image><|image_pad|>", "a", "[\"jpeg_420.jpg\"]"), QVL_EDATA,
         "5 image tokens for images of 4; its text holds <|image_pad|>"},
    };
    const qvl_encode_options options = plain_options();
    for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++)
        expect_refused(CASES[i].json, &options, CASES[i].status, CASES[i].words);
    qvl_encode_options other = plain_options();
    other.split_special_tokens = true;
    expect_refused(TALK("<image>", "a", "[\"jpeg_420.jpg\"]"), &other, QVL_EDATA,
                   "split_special_tokens: true takes the tokens of its images apart");
    other = plain_options();
    other.video_token = 904; /* <tool_call> stands for <|video_pad|> here */
    expect_refused(TALK("<tool_call>", "a", "[]"), &other, QVL_EDATA,
                   "its text holds <|video_pad|>");
}

/* 22 tokens of system text and 2 of "user" are before the image, 14 of <|vision_start|> too. */
static void cuts_in_images(void **state)
{
    (void)state;
    const char one[] = TALK("<image>", "Yes.", "[\"jpeg_photo.jpg\"]");
    const char late[] = "{\"messages\": [{\"role\": \"user\", \"content\": \"a\"}, {\"role\": "
                        "\"assistant\", \"content\": \"b\"}, {\"role\": \"user\", \"content\": "
                        "\"<image>\"}, {\"role\": \"assistant\", \"content\": \"c\"}], \"images\": "
                        "[\"jpeg_420.jpg\"]}";
    qvl_encode_options options = plain_options();
    qvl_encoded found = {0};
    encode_ok(&found, one, &options);
    const int64_t whole = (int64_t)found.ids.len;
    int64_t first = 0;
    while (found.ids.data[first] != 903)
        first++;
    int64_t n_answer = 0;
    for (size_t i = 0; i < found.labels.len; i++)
        n_answer += found.labels.data[i] != -100;
    /* the prompt may lose all that is behind the image, but no token of it */
    options.cutoff_len = first + 35 + n_answer;
    assert_true(options.cutoff_len < whole);
    encode_ok(&found, one, &options);
    assert_int_equal(found.ids.data[first + 34], 903);
    assert_int_equal(found.labels.data[first + 35], found.ids.data[first + 35]);
    options.cutoff_len--;
    expect_refused(one, &options, QVL_EDATA,
                   "cuts its images: 34 of 35 image tokens are left; raise cutoff_len or lower "
                   "image_max_pixels");
    options.cutoff_len = 30;
    expect_refused(one, &options, QVL_EDATA,
                   "cutoff_len 30 cuts its images: they need 35 image tokens or more");
    /* a pair with an image that is left out altogether */
    options.cutoff_len = 40;
    expect_refused(late, &options, QVL_EDATA, "cutoff_len 40 cuts its images: 0 of 4");
    qvl_encoded_fini(&found);
}

/* A record whose text would be far longer than itself is refused, not written out; and one with
 * more images than any text has room for, before they are looked for. */
static void many_images_are_refused(void **state)
{
    (void)state;
    enum { N = 2000 };
    qvl_encode_options options = plain_options();
    for (int is_there = 0; is_there < 2; is_there++) {
        qvl_text json = {0};
        qvl_text_puts(&json, "{\"messages\": [{\"role\": \"user\", \"content\": \"", NULL);
        for (int i = 0; i < N; i++)
            qvl_text_puts(&json, "<image>", NULL);
        qvl_text_puts(&json, "\"}, {\"role\": \"assistant\", \"content\": \"a\"}], \"images\": [",
                      NULL);
        for (int i = 0; i < N; i++)
            qvl_text_printf(&json, NULL, "%s\"%s\"", i ? "," : "",
                            is_there ? "jpeg_photo.jpg" : "nowhere");
        assert_int_equal(qvl_text_puts(&json, "]}", NULL), QVL_OK);
        options.cutoff_len = is_there ? 2048 : N - 1;
        expect_refused(json.data, &options, QVL_EDATA,
                       is_there ? "cutoff_len 2048 cuts its images: they need 2065 image tokens"
                                : "cutoff_len 1999 cuts its images: they need 2000 image tokens");
        qvl_text_fini(&json);
    }
}

static int make_all(void **state)
{
    return scratch_make(state) || load_tokenizer(state);
}

static int remove_all(void **state)
{
    free_tokenizer(state);
    return scratch_remove(state);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tags_become_tokens),      cmocka_unit_test(grids_and_paths),
        cmocka_unit_test(where_images_are),        cmocka_unit_test(paths_outside_are_refused),
        cmocka_unit_test(what_is_wrong),           cmocka_unit_test(cuts_in_images),
        cmocka_unit_test(many_images_are_refused),
    };
    return cmocka_run_group_tests_name("encode_images", tests, make_all, remove_all);
}
