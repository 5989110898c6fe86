/* Which records are encoded, in which order, and when the digest changes. Random choices are
 * compared with what numpy drew: RandomState(seed) and default_rng(seed). */
#include "src/data/selection.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tests/mpi/mpi_leaks.h"
#include "tests/unit/scratch_files.h"

static qvl_world *world;
static qvl_log quiet;

static void write_records(const char *name, int n, const char *member)
{
    qvl_text text = {0};
    for (int i = 0; i < n; i++)
        assert_int_equal(
            qvl_text_printf(&text, NULL, "{\"instruction\": \"%d\", \"%s\": \"x\"}\n", i, member),
            QVL_OK);
    write_text_in(scratch, name, text.data ? text.data : "[]");
    qvl_text_fini(&text);
}

static const char INFO[] =
    "{\"ten\": {\"file_name\": \"ten.jsonl\"}, \"five\": {\"file_name\": \"five.jsonl\"},\n"
    "\"four_of_ten\": {\"file_name\": \"ten.jsonl\", \"num_samples\": 4},\n"
    "\"eight_of_five\": {\"file_name\": \"five.jsonl\", \"num_samples\": 8},\n"
    "\"two_of_ten\": {\"file_name\": \"ten.jsonl\", \"num_samples\": 2},\n"
    "\"pictures\": {\"file_name\": \"five.jsonl\", \"columns\": {\"images\": \"i\"}},\n"
    "\"many\": {\"file_name\": \"many\"}, \"large\": {\"file_name\": \"large.jsonl\"},\n"
    "\"none\": {\"file_name\": \"none.json\"}, \"wrong\": {\"file_name\": \"wrong.json\"}}\n";

static int make_all(void **state)
{
    char path[QVL_PATH_BYTES];
    qvl_err err = {0};
    if (scratch_make(state) != 0)
        return -1;
    qvl_log_init(&quiet, "test");
    if (qvl_world_create(&world, &quiet, &err) != QVL_OK)
        return -1;
    write_text_in(scratch, "dataset_info.json", INFO);
    write_records("ten.jsonl", 10, "output");
    write_records("five.jsonl", 5, "output");
    write_records("large.jsonl", 1097, "output");
    write_records("none.json", 0, "output");
    write_text_in(scratch, "wrong.json", "[{}\n{}]");
    scratch_directory(path, "many");
    write_records("many/b.jsonl", 2, "output");
    write_records("many/a.jsonl", 3, "output");
    return 0;
}

static int remove_all(void **state)
{
    qvl_world_destroy(world);
    return scratch_remove(state);
}

/* The configuration with these lines; dataset_dir is the test's directory. */
static qvl_config *config_of(const char *lines)
{
    qvl_text text = {0};
    qvl_config *config = NULL;
    qvl_err err = {0};
    assert_int_equal(qvl_text_printf(&text, NULL,
                                     "model_name_or_path: m\noutput_dir: o\ntemplate: qwen2_vl\n"
                                     "dataset_dir: %s\n%s\n",
                                     scratch, lines),
                     QVL_OK);
    expect_ok(qvl_config_parse(&config, text.data, text.len, "c", NULL, 0, &err), &err);
    qvl_text_fini(&text);
    return config;
}

static qvl_status make(qvl_selection *out, const char *lines, qvl_err *err)
{
    qvl_config *config = config_of(lines);
    *out = (qvl_selection){0};
    const qvl_status rc = qvl_selection_make(out, config, "tokenizer", "1 2", world, err);
    qvl_config_destroy(config);
    return rc;
}

/* "info.file.record" of each, training then evaluation after a bar. */
static void expect_selection(const char *lines, const char *expected)
{
    qvl_selection s = {0};
    qvl_text text = {0};
    qvl_err err = {0};
    expect_ok(make(&s, lines, &err), &err);
    assert_int_equal(qvl_text_puts(&text, "", NULL), QVL_OK);
    for (int64_t i = 0; i < s.n_train + s.n_eval; i++)
        assert_int_equal(qvl_text_printf(&text, NULL, "%s%d.%d.%lld", i == s.n_train ? "|" : " ",
                                         s.refs[i].info, s.refs[i].file,
                                         (long long)s.refs[i].record),
                         QVL_OK);
    if (strcmp(text.data, expected) != 0)
        fail_msg("%s\n  gives    %s\n  expected %s", lines, text.data, expected);
    assert_int_equal(strlen(s.digest), QVL_SHA256_TEXT_BYTES - 1);
    qvl_text_fini(&text);
    qvl_selection_fini(&s);
}

static void records_in_order(void **state)
{
    (void)state;
    expect_selection("dataset: five", " 0.0.0 0.0.1 0.0.2 0.0.3 0.0.4");
    expect_selection("dataset: many, five",
                     " 0.0.0 0.0.1 0.0.2 0.1.0 0.1.1 1.0.0 1.0.1 1.0.2 1.0.3 1.0.4");
    expect_selection("dataset: [five, ten]\nmax_samples: 3",
                     " 0.0.0 0.0.1 0.0.2 1.0.0 1.0.1 1.0.2");
    expect_selection("dataset: five\nmax_samples: 100", " 0.0.0 0.0.1 0.0.2 0.0.3 0.0.4");
    expect_selection("dataset: none", "");
    expect_selection("dataset: none, five\nmax_samples: 1", " 1.0.0");
    expect_selection("dataset: five\neval_dataset: ten,many\nmax_samples: 2",
                     " 0.0.0 0.0.1|1.0.0 1.0.1 2.0.0 2.0.1");
}

/* One generator goes through all data sets, those of the evaluation too. */
static void num_samples_draws(void **state)
{
    (void)state;
    expect_selection("dataset: four_of_ten, eight_of_five, two_of_ten",
                     " 0.0.8 0.0.1 0.0.5 0.0.0 1.0.1 1.0.0 1.0.3 1.0.4 1.0.2 1.0.4 1.0.3 1.0.2 "
                     "2.0.8 2.0.2");
    expect_selection("dataset: four_of_ten\neval_dataset: eight_of_five",
                     " 0.0.8 0.0.1 0.0.5 0.0.0|1.0.1 1.0.0 1.0.3 1.0.4 1.0.2 1.0.4 1.0.3 1.0.2");
    expect_selection("dataset: four_of_ten, eight_of_five, two_of_ten\nmax_samples: 2",
                     " 0.0.8 0.0.1 1.0.1 1.0.0 2.0.8 2.0.2");
}

static void val_size_splits(void **state)
{
    (void)state;
    /* default_rng(42).permutation(20): 15 9 14 | 7 12 10 6 19 ...; "five" is 10 to 14, "many" rest
     */
    const char twenty[] = " 0.0.7 1.0.2 1.0.0 0.0.6 2.1.1 0.0.3 0.0.0 2.0.1 0.0.5 1.0.1 2.1.0 "
                          "0.0.2 0.0.4 2.0.2 0.0.1 1.0.3 0.0.8|2.0.0 0.0.9 1.0.4";
    expect_selection("dataset: ten, five, many\nval_size: 0.13", twenty);
    expect_selection("dataset: ten, five, many\nval_size: 3", twenty);
    qvl_selection s = {0};
    qvl_err err = {0};
    expect_ok(make(&s, "dataset: large\nval_size: 0.1", &err), &err);
    static const int64_t TRAIN[] = {734, 471, 1061, 135, 152, 558, 180, 222};
    static const int64_t EVAL[] = {553, 514, 238, 243, 66, 232, 381, 304};
    assert_int_equal(s.n_train, 987);
    assert_int_equal(s.n_eval, 110);
    for (int i = 0; i < 8; i++) {
        assert_int_equal(s.refs[i].record, TRAIN[i]);
        assert_int_equal(s.refs[s.n_train + i].record, EVAL[i]);
    }
    qvl_selection_fini(&s);
    expect_failure(make(&s, "dataset: five\nval_size: 5", &err), QVL_ECONFIG, &err,
                   "val_size: 5 of 5 samples are kept apart, none is left to train on");
    qvl_selection_fini(&s);
    expect_failure(make(&s, "dataset: five\nval_size: 0.81", &err), QVL_ECONFIG, &err,
                   "val_size: 5 of 5");
    qvl_selection_fini(&s);
}

static void faults(void **state)
{
    (void)state;
    qvl_selection s = {0};
    qvl_err err = {0};
    expect_failure(make(&s, "dataset: fife", &err), QVL_EMISSING, &err,
                   "no data set 'fife'; did you mean 'five'?");
    qvl_selection_fini(&s);
    expect_failure(make(&s, "dataset: five\neval_dataset: fife", &err), QVL_EMISSING, &err,
                   "no data set 'fife'");
    qvl_selection_fini(&s);
    expect_failure(make(&s, "dataset: five, wrong", &err), QVL_EDATA, &err,
                   "wrong.json:2: found '{', expected ',' or ']' after a record");
    qvl_selection_fini(&s);
}

static void sources_number_the_files(void **state)
{
    (void)state;
    static const int64_t SOURCES[] = {0, 0, 0, 0, 0, 1, 1, 1, 2, 2};
    qvl_selection s = {0};
    qvl_text text = {0};
    qvl_err err = {0};
    char expected[512], where[512];
    expect_ok(make(&s, "dataset: five, many", &err), &err);
    for (int i = 0; i < 10; i++)
        assert_int_equal(qvl_selection_source(&s, &s.refs[i]), SOURCES[i]);
    expect_ok(qvl_selection_join_sources(&text, &s, &err), &err);
    snprintf(expected, sizeof expected, "%s/five.jsonl\n%s/many/a.jsonl\n%s/many/b.jsonl", scratch,
             scratch, scratch);
    assert_string_equal(text.data, expected);
    snprintf(expected, sizeof expected, "%s/many/b.jsonl: sample 1", scratch);
    assert_string_equal(qvl_selection_describe(&s, &s.refs[9], where), expected);
    qvl_text_fini(&text);
    qvl_selection_fini(&s);
}

static void digest_of(char out[QVL_SHA256_TEXT_BYTES], const char *lines, const char *tokenizer,
                      const char *limits)
{
    qvl_config *config = config_of(lines);
    qvl_selection s = {0};
    qvl_err err = {0};
    expect_ok(qvl_selection_make(&s, config, tokenizer, limits, world, &err), &err);
    memcpy(out, s.digest, sizeof s.digest);
    qvl_selection_fini(&s);
    qvl_config_destroy(config);
}

static void expect_digests(const char *a, const char *b, bool are_equal)
{
    char digest_a[QVL_SHA256_TEXT_BYTES], digest_b[QVL_SHA256_TEXT_BYTES];
    digest_of(digest_a, a, "tokenizer", "1 2");
    digest_of(digest_b, b, "tokenizer", "1 2");
    if ((strcmp(digest_a, digest_b) == 0) != are_equal)
        fail_msg("the digests of \"%s\" and \"%s\" %s", a, b,
                 are_equal ? "differ" : "are the same");
}

static void digest_changes_with_what_matters(void **state)
{
    (void)state;
    static const char *const DIFFERENT[][2] = {
        {"dataset: five", "dataset: ten"},
        {"dataset: five, ten", "dataset: ten, five"},
        {"dataset: five", "dataset: five, five"},
        {"dataset: five", "dataset: five\ncutoff_len: 2047"},
        {"dataset: five", "dataset: five\ntrain_on_prompt: true"},
        {"dataset: five", "dataset: five\nmask_history: true"},
        {"dataset: five", "dataset: five\nsplit_special_tokens: true"},
        {"dataset: five", "dataset: five\ndefault_system: ''"},
        {"dataset: five", "dataset: five\ndefault_system: None"},
        {"dataset: five\ndefault_system: a", "dataset: five\ndefault_system: b"},
        {"dataset: five", "dataset: five\nmax_samples: 4"},
        {"dataset: five", "dataset: five\nval_size: 2"},
        {"dataset: five\nval_size: 2", "dataset: five\nval_size: 3"},
        {"dataset: five\nval_size: 2", "dataset: five\nval_size: 2\nseed: 1"},
        {"dataset: five", "dataset: five\neval_dataset: ten"},
        {"dataset: five\neval_dataset: ten", "dataset: five, ten"},
        {"dataset: ten", "dataset: four_of_ten"},
        {"dataset: four_of_ten", "dataset: four_of_ten\nseed: 1"},
        {"dataset: five\neval_dataset: four_of_ten", "dataset: five\neval_dataset: four_of_ten\n"
                                                     "seed: 1"},
        {"dataset: pictures", "dataset: pictures\nimage_max_pixels: 262144"},
        {"dataset: pictures", "dataset: pictures\nimage_min_pixels: 2048"},
        {"dataset: pictures", "dataset: pictures\nmedia_dir: elsewhere"},
        {"dataset: pictures", "dataset: pictures\nstrict_paths: true"},
        {"dataset: five", "dataset: five\non_bad_sample: skip"},
    };
    static const char *const EQUAL[][2] = {
        {"dataset: five", "dataset: five\nseed: 1"},
        {"dataset: five", "dataset: five\nmax_samples: 5"},
        {"dataset: five\nmax_samples: 100", "dataset: five\nmax_samples: 5"},
        {"dataset: ten\nval_size: 0.2", "dataset: ten\nval_size: 2"},
        {"dataset: five", "dataset: five\nimage_max_pixels: 262144\nmedia_dir: elsewhere"},
        {"dataset: five", "dataset: five\nstrict_paths: true\non_bad_sample: error"},
        {"dataset: five", "dataset: five\nlearning_rate: 1\ndata_seed: 5\nbf16: true\n"
                          "per_device_train_batch_size: 2\nlora_rank: 3\ntokenized_path: t.h5\n"
                          "overwrite_cache: true\nplot_loss: true"},
    };
    for (size_t i = 0; i < sizeof DIFFERENT / sizeof *DIFFERENT; i++)
        expect_digests(DIFFERENT[i][0], DIFFERENT[i][1], false);
    for (size_t i = 0; i < sizeof EQUAL / sizeof *EQUAL; i++)
        expect_digests(EQUAL[i][0], EQUAL[i][1], true);
}

static void digest_changes_with_files(void **state)
{
    (void)state;
    char before[QVL_SHA256_TEXT_BYTES], after[QVL_SHA256_TEXT_BYTES];
    digest_of(before, "dataset: five", "tokenizer", "1 2");
    digest_of(after, "dataset: five", "another", "1 2");
    assert_string_not_equal(before, after);
    digest_of(after, "dataset: five", "tokenizer", "1 3");
    assert_string_equal(before, after); /* no images */
    write_records("five.jsonl", 5, "outpuT");
    digest_of(after, "dataset: five", "tokenizer", "1 2");
    assert_string_not_equal(before, after);
    write_records("five.jsonl", 5, "output");
    digest_of(after, "dataset: five", "tokenizer", "1 2");
    assert_string_equal(before, after);
    digest_of(before, "dataset: pictures", "tokenizer", "1 2");
    digest_of(after, "dataset: pictures", "tokenizer", "1 3");
    assert_string_not_equal(before, after);
    /* the same data elsewhere */
    char path[QVL_PATH_BYTES], lines[QVL_PATH_BYTES];
    copy_directory(scratch_path(path, "copy"), scratch);
    snprintf(lines, sizeof lines, "dataset: [%.99s]\nmedia_dir: null", "pictures");
    qvl_config *config = config_of(lines);
    free(config->dataset_dir);
    config->dataset_dir = strdup(path);
    qvl_selection s = {0};
    qvl_err err = {0};
    expect_ok(qvl_selection_make(&s, config, "tokenizer", "1 2", world, &err), &err);
    assert_string_equal(before, s.digest);
    qvl_selection_fini(&s);
    qvl_config_destroy(config);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(records_in_order),
        cmocka_unit_test(num_samples_draws),
        cmocka_unit_test(val_size_splits),
        cmocka_unit_test(faults),
        cmocka_unit_test(sources_number_the_files),
        cmocka_unit_test(digest_changes_with_what_matters),
        cmocka_unit_test(digest_changes_with_files),
    };
    return cmocka_run_group_tests_name("selection", tests, make_all, remove_all);
}
