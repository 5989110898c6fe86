/* The demo: what qvl_demo writes is read back with qvl's own readers. */
#include "src/demo/demo.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>
#include <jansson.h>

#include "io/image.h"
#include "io/json_file.h"
#include "io/safetensors.h"
#include "io/tokenizer.h"
#include "src/base/files.h"
#include "src/base/sha256.h"
#include "src/config/config.h"
#include "src/demo/demo_tokenizer.h"

enum { SAMPLES = 30, LIMIT = 16 << 20 };

static char base[] = "demo_XXXXXX";

static qvl_status make(const char *directory, qvl_demo_size size, bool is_sparse, uint64_t seed,
                       qvl_err *err)
{
    const qvl_demo_options options = {.directory = directory,
                                      .size = size,
                                      .is_sparse = is_sparse,
                                      .n_samples = SAMPLES,
                                      .seed = seed};
    qvl_text report = {0};
    const qvl_status rc = qvl_demo_write(&report, &options, err);
    if (rc == QVL_OK)
        assert_non_null(strstr(report.data, "\nnext: "));
    qvl_text_fini(&report);
    return rc;
}

/* All tests run in a directory of their own, which has the demo "tiny". */
static int make_base(void **state)
{
    (void)state;
    if (!mkdtemp(base) || chdir(base) != 0)
        return -1;
    return make("tiny", QVL_DEMO_TINY, false, 42, NULL) == QVL_OK ? 0 : -1;
}

static int remove_base(void **state)
{
    (void)state;
    return chdir("..") == 0 && qvl_tree_remove(base, NULL) == QVL_OK ? 0 : -1;
}

static json_t *read_json(const char *path)
{
    json_t *value = NULL;
    qvl_err err = {0};
    if (qvl_json_read(&value, path, LIMIT, &err) != QVL_OK)
        fail_msg("%s", err.text);
    return value;
}

static int64_t elements_of_file(const char *directory, const char *name, size_t *n_tensors,
                                const json_t *map)
{
    char path[QVL_PATH_BYTES];
    qvl_safetensors *file = NULL;
    qvl_err err = {0};
    int64_t elements = 0;
    assert_int_equal(qvl_path_join(path, directory, name, NULL), QVL_OK);
    if (qvl_safetensors_open(&file, path, &err) != QVL_OK)
        fail_msg("%s", err.text);
    for (size_t i = 0; i < qvl_safetensors_count(file); i++) {
        const qvl_tensor *tensor = qvl_safetensors_at(file, i);
        assert_int_equal(tensor->type, QVL_TENSOR_BF16);
        assert_string_equal(json_string_value(json_object_get(map, tensor->name)), name);
        elements += qvl_tensor_elements(tensor);
    }
    *n_tensors += qvl_safetensors_count(file);
    qvl_safetensors_close(file);
    return elements;
}

/* The shards hold exactly what the index says; returns the parameters. */
static int64_t check_weights(const char *directory, int n_shards, size_t want_tensors)
{
    char path[QVL_PATH_BYTES], name[64];
    size_t n_tensors = 0;
    int64_t elements = 0;
    snprintf(path, sizeof path, "%s/model.safetensors.index.json", directory);
    json_t *index = read_json(path);
    const json_t *map = json_object_get(index, "weight_map");
    for (int i = 1; i <= n_shards; i++) {
        snprintf(name, sizeof name, "model-%05d-of-%05d.safetensors", i, n_shards);
        elements += elements_of_file(directory, name, &n_tensors, map);
    }
    assert_int_equal(n_tensors, want_tensors);
    assert_int_equal(json_object_size(map), want_tensors);
    assert_int_equal(
        json_integer_value(json_object_get(json_object_get(index, "metadata"), "total_size")),
        2 * elements);
    json_decref(index);
    return elements;
}

static void tiny_model_reads_back(void **state)
{
    qvl_model_dims dims;
    qvl_err err = {0};
    (void)state;
    if (qvl_model_dims_read(&dims, "tiny/model", &err) != QVL_OK)
        fail_msg("%s", err.text);
    assert_int_equal(dims.text.D, 128);
    assert_int_equal(dims.text.Dh, 32);
    assert_int_equal(dims.text.V % 64, 0);
    assert_int_equal(dims.vision.F, 172);
    assert_true(!dims.vision.is_full_attention[0] && dims.vision.is_full_attention[1] &&
                !dims.vision.is_full_attention[2] && dims.vision.is_full_attention[3]);
    assert_int_equal(check_weights("tiny/model", 2, 105), qvl_model_parameters(&dims));
    assert_true(qvl_file_is_regular("tiny/model/generation_config.json"));
    assert_true(qvl_file_is_regular("tiny/model/preprocessor_config.json"));
    assert_true(qvl_file_is_regular("tiny/model/tokenizer_config.json"));
}

static void weights_are_spread_as_intended(void **state)
{
    qvl_safetensors *file = NULL;
    double sum = 0.0, squares = 0.0;
    (void)state;
    assert_int_equal(
        qvl_safetensors_open(&file, "tiny/model/model-00001-of-00002.safetensors", NULL), QVL_OK);
    const qvl_tensor *tensor = qvl_safetensors_find(file, "model.embed_tokens.weight");
    assert_non_null(tensor);
    const int64_t n = qvl_tensor_elements(tensor);
    const uint16_t *values = tensor->data;
    for (int64_t i = 0; i < n; i++) {
        const double value = qvl_float_from_bf16(values[i]);
        sum += value;
        squares += value * value;
    }
    /* std 1; four standard errors of 106,000 numbers are 0.0123 for the mean, 0.0174 here */
    assert_true(n > 100000 && sum / (double)n < 0.013 && sum / (double)n > -0.013);
    assert_true(squares / (double)n < 1.018 && squares / (double)n > 0.982);
    qvl_safetensors_close(file);
}

static void check_tokenizer(const char *directory, int64_t want_first)
{
    static const char TEXT[] = "<|im_start|>user\nAre there three red circles?\xf0\x9f\x98\x80";
    static const struct {
        const char *key, *token;
    } NAMED[] = {{"image_token_id", "<|image_pad|>"},
                 {"video_token_id", "<|video_pad|>"},
                 {"vision_start_token_id", "<|vision_start|>"},
                 {"vision_end_token_id", "<|vision_end|>"},
                 {"eos_token_id", "<|im_end|>"},
                 {"bos_token_id", "<|endoftext|>"},
                 {"vision_token_id", "<|vision_pad|>"}};
    char path[QVL_PATH_BYTES];
    qvl_tokenizer *tokenizer = NULL;
    qvl_token_encoder *encoder = NULL;
    qvl_ids ids = {0};
    qvl_text back = {0};
    qvl_err err = {0};
    snprintf(path, sizeof path, "%s/tokenizer.json", directory);
    if (qvl_tokenizer_load(&tokenizer, path, &err) != QVL_OK)
        fail_msg("%s", err.text);
    snprintf(path, sizeof path, "%s/config.json", directory);
    json_t *config = read_json(path);
    for (size_t i = 0; i < sizeof NAMED / sizeof NAMED[0]; i++)
        assert_int_equal(qvl_tokenizer_token_id(tokenizer, NAMED[i].token),
                         json_integer_value(json_object_get(config, NAMED[i].key)));
    const int32_t first = qvl_tokenizer_token_id(tokenizer, "<|endoftext|>");
    if (want_first)
        assert_int_equal(first, want_first);
    assert_int_equal(qvl_tokenizer_n_ids(tokenizer), first + QVL_N_ADDED);
    assert_true(qvl_tokenizer_n_ids(tokenizer) <=
                json_integer_value(json_object_get(config, "vocab_size")));
    assert_true(qvl_tokenizer_is_special(tokenizer, first + QVL_ADDED_VIDEO_PAD));
    assert_false(qvl_tokenizer_is_special(tokenizer, first + QVL_ADDED_VIDEO_PAD + 1));
    assert_int_equal(qvl_token_encoder_create(&encoder, tokenizer, NULL), QVL_OK);
    assert_int_equal(qvl_tokenizer_encode(encoder, TEXT, sizeof TEXT - 1, false, &ids, NULL),
                     QVL_OK);
    /* im_start, user, newline, five words, "?", and the four bytes of a face */
    assert_int_equal(ids.len, 13);
    assert_int_equal(qvl_tokenizer_decode(tokenizer, ids.data, ids.len, false, &back, NULL),
                     QVL_OK);
    assert_string_equal(back.data, TEXT);
    json_decref(config);
    qvl_ids_fini(&ids);
    qvl_text_fini(&back);
    qvl_token_encoder_destroy(encoder);
    qvl_tokenizer_destroy(tokenizer);
}

static void tokenizer_reads_back(void **state)
{
    (void)state;
    check_tokenizer("tiny/model", 0);
}

static size_t count_places(const char *text)
{
    size_t count = 0;
    for (; (text = strstr(text, "<image>")) != NULL; text++)
        count++;
    return count;
}

static void check_picture(const char *name)
{
    char path[QVL_PATH_BYTES];
    qvl_image image = {0};
    qvl_err err = {0};
    assert_int_equal(qvl_path_join(path, "tiny/data", name, NULL), QVL_OK);
    if (qvl_image_load(&image, path, &err) != QVL_OK)
        fail_msg("%s", err.text);
    assert_int_equal(image.mode, QVL_MODE_RGB);
    assert_in_range(image.width, 56, 168);
    assert_in_range(image.height, 56, 168);
    qvl_image_fini(&image);
}

static void shapes_name_the_pictures_they_show(void **state)
{
    json_t *samples = read_json("tiny/data/demo_shapes.json");
    size_t i, k, n_two = 0, n_turns = 0;
    json_t *sample, *part;
    (void)state;
    assert_int_equal(json_array_size(samples), SAMPLES);
    json_array_foreach(samples, i, sample)
    {
        const json_t *messages = json_object_get(sample, "messages");
        json_t *images = json_object_get(sample, "images");
        size_t n_places = 0;
        json_array_foreach(messages, k, part)
        {
            assert_string_equal(json_string_value(json_object_get(part, "role")),
                                k % 2 ? "assistant" : "user");
            n_places += count_places(json_string_value(json_object_get(part, "content")));
        }
        json_array_foreach(images, k, part) check_picture(json_string_value(part));
        assert_int_equal(n_places, json_array_size(images));
        n_two += json_array_size(images) > 1;
        n_turns += json_array_size(messages) / 2;
    }
    assert_true(n_two > 0 && n_turns > SAMPLES);
    json_decref(samples);
}

static void text_data_is_well_formed(void **state)
{
    qvl_text lines = {0};
    size_t n_lines = 0, n_inputs = 0, i;
    json_t *sample;
    (void)state;
    assert_int_equal(qvl_file_read(&lines, "tiny/data/demo_facts.jsonl", LIMIT, NULL), QVL_OK);
    for (char *line = strtok(lines.data, "\n"); line; line = strtok(NULL, "\n")) {
        json_t *fact = json_loads(line, JSON_REJECT_DUPLICATES, NULL);
        assert_true(json_is_string(json_object_get(fact, "instruction")));
        assert_true(json_string_length(json_object_get(fact, "output")) > 0);
        n_inputs += json_string_length(json_object_get(fact, "input")) > 0;
        n_lines++;
        json_decref(fact);
    }
    assert_true(n_lines > 100 && n_inputs > 20 && n_inputs < n_lines);
    qvl_text_fini(&lines);
    json_t *chats = read_json("tiny/data/demo_chat.json");
    size_t n_systems = 0;
    json_array_foreach(chats, i, sample)
    {
        const json_t *first = json_array_get(json_object_get(sample, "messages"), 0);
        n_systems += strcmp(json_string_value(json_object_get(first, "role")), "system") == 0;
    }
    assert_true(n_systems > 0 && n_systems < json_array_size(chats));
    json_decref(chats);
}

static void config_is_accepted(void **state)
{
    qvl_text yaml = {0};
    qvl_config *config = NULL;
    qvl_err err = {0};
    (void)state;
    assert_int_equal(qvl_file_read(&yaml, "tiny/demo.yaml", LIMIT, NULL), QVL_OK);
    if (qvl_config_parse(&config, yaml.data, yaml.len, "demo.yaml", NULL, 0, &err) != QVL_OK)
        fail_msg("%s", err.text);
    assert_string_equal(config->model_name_or_path, "tiny/model");
    assert_string_equal(config->dataset_dir, "tiny/data");
    qvl_config_destroy(config);
    qvl_text_fini(&yaml);
}

/* Path and digest of every file below the working directory's "demo", sorted by path. */
static void digest_of_demo(qvl_text *out, const char *directory)
{
    char **names = NULL, path[QVL_PATH_BYTES], digest[QVL_SHA256_TEXT_BYTES];
    size_t count = 0;
    assert_int_equal(qvl_directory_list(&names, &count, directory, NULL), QVL_OK);
    for (size_t i = 0; i < count; i++) {
        assert_int_equal(qvl_path_join(path, directory, names[i], NULL), QVL_OK);
        if (qvl_file_is_directory(path)) {
            digest_of_demo(out, path);
            continue;
        }
        assert_int_equal(qvl_sha256_file(digest, path, NULL), QVL_OK);
        assert_int_equal(qvl_text_printf(out, NULL, "%s %s\n", path, digest), QVL_OK);
    }
    qvl_names_free(names, count);
}

static void same_seed_gives_same_bytes(void **state)
{
    static const struct {
        const char *place;
        uint64_t seed;
    } RUNS[3] = {{"first", 7}, {"second", 7}, {"other", 8}};
    qvl_text digests[3] = {{0}};
    (void)state;
    for (int i = 0; i < 3; i++) {
        assert_int_equal(mkdir(RUNS[i].place, 0777), 0);
        assert_int_equal(chdir(RUNS[i].place), 0);
        assert_int_equal(make("demo", QVL_DEMO_TINY, false, RUNS[i].seed, NULL), QVL_OK);
        digest_of_demo(&digests[i], "demo");
        assert_int_equal(chdir(".."), 0);
    }
    assert_string_equal(digests[0].data, digests[1].data);
    assert_string_not_equal(digests[0].data, digests[2].data);
    for (int i = 0; i < 3; i++)
        qvl_text_fini(&digests[i]);
}

static void same_options_again_are_fine(void **state)
{
    qvl_text before = {0}, after = {0};
    (void)state;
    digest_of_demo(&before, "tiny");
    assert_int_equal(unlink("tiny/data/dataset_info.json"), 0);
    assert_int_equal(make("tiny", QVL_DEMO_TINY, false, 42, NULL), QVL_OK);
    digest_of_demo(&after, "tiny");
    assert_string_equal(before.data, after.data);
    qvl_text_fini(&before);
    qvl_text_fini(&after);
}

static uint64_t blocks_of(const char *path)
{
    struct stat st;
    assert_int_equal(stat(path, &st), 0);
    return (uint64_t)st.st_blocks * 512;
}

/* Totals of REFERENCE 1.3. */
static void sparse_models_have_real_shapes(void **state)
{
    static const struct {
        const char *directory;
        qvl_demo_size size;
        int n_shards;
        size_t n_tensors;
        int64_t n_parameters;
    } CASES[2] = {{"b7", QVL_DEMO_7B, 5, 729, 8292166656}, {"b3", QVL_DEMO_3B, 2, 824, 3754622976}};
    (void)state;
    for (int i = 0; i < 2; i++) {
        char path[QVL_PATH_BYTES];
        qvl_model_dims dims;
        qvl_err err = {0};
        uint64_t on_disk = 0;
        if (make(CASES[i].directory, CASES[i].size, true, 42, &err) != QVL_OK)
            fail_msg("%s", err.text);
        snprintf(path, sizeof path, "%s/model", CASES[i].directory);
        assert_int_equal(check_weights(path, CASES[i].n_shards, CASES[i].n_tensors),
                         CASES[i].n_parameters);
        if (qvl_model_dims_read(&dims, path, &err) != QVL_OK)
            fail_msg("%s", err.text);
        assert_int_equal(qvl_model_parameters(&dims), CASES[i].n_parameters);
        check_tokenizer(path, 151643);
        for (int k = 1; k <= CASES[i].n_shards; k++) {
            snprintf(path, sizeof path, "%s/model/model-%05d-of-%05d.safetensors",
                     CASES[i].directory, k, CASES[i].n_shards);
            on_disk += blocks_of(path);
        }
        assert_true(on_disk < (uint64_t)8 << 20);
    }
}

static void expect_refusal(const char *directory, qvl_demo_size size, bool is_sparse,
                           qvl_status want, const char *text)
{
    qvl_err err = {0};
    assert_int_equal(make(directory, size, is_sparse, 42, &err), want);
    if (!strstr(err.text, text))
        fail_msg("\"%s\" does not say \"%s\"", err.text, text);
}

static void what_is_not_ours_is_left_alone(void **state)
{
    qvl_text content = {0};
    char **names = NULL;
    size_t count = 0;
    (void)state;
    assert_int_equal(mkdir("foreign", 0777), 0);
    assert_int_equal(qvl_file_replace("foreign/demo.yaml", "mine", 4, NULL), QVL_OK);
    expect_refusal("foreign", QVL_DEMO_TINY, false, QVL_EUSAGE, "foreign: is not empty");
    assert_int_equal(qvl_directory_list(&names, &count, "foreign", NULL), QVL_OK);
    assert_int_equal(count, 1);
    assert_int_equal(qvl_file_read(&content, "foreign/demo.yaml", 100, NULL), QVL_OK);
    assert_string_equal(content.data, "mine");
    qvl_names_free(names, count);
    qvl_text_fini(&content);
    expect_refusal("foreign/demo.yaml", QVL_DEMO_TINY, false, QVL_EIO, "not a directory");
    expect_refusal("tiny", QVL_DEMO_3B, true, QVL_EUSAGE, "made with other options");
}

static void wrong_options_are_refused(void **state)
{
    const qvl_demo_options options = {.directory = "none", .n_samples = 0};
    qvl_text report = {0};
    (void)state;
    expect_refusal("none", QVL_DEMO_7B, false, QVL_EUSAGE, "--sparse");
    expect_refusal("", QVL_DEMO_TINY, false, QVL_EUSAGE, "empty");
    expect_refusal("a\nb", QVL_DEMO_TINY, false, QVL_EUSAGE, "control characters");
    expect_refusal("a\xff", QVL_DEMO_TINY, false, QVL_EUSAGE, "UTF-8");
    assert_int_equal(qvl_demo_write(&report, &options, NULL), QVL_EUSAGE);
    assert_false(qvl_file_exists("none"));
    qvl_text_fini(&report);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tiny_model_reads_back),
        cmocka_unit_test(weights_are_spread_as_intended),
        cmocka_unit_test(tokenizer_reads_back),
        cmocka_unit_test(shapes_name_the_pictures_they_show),
        cmocka_unit_test(text_data_is_well_formed),
        cmocka_unit_test(config_is_accepted),
        cmocka_unit_test(same_seed_gives_same_bytes),
        cmocka_unit_test(same_options_again_are_fine),
        cmocka_unit_test(sparse_models_have_real_shapes),
        cmocka_unit_test(what_is_not_ours_is_left_alone),
        cmocka_unit_test(wrong_options_are_refused),
    };
    return cmocka_run_group_tests(tests, make_base, remove_base);
}
