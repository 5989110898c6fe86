/* output_dir at the begin of a run: go on, start anew, or refuse (REFERENCE 7.10). */
#include "src/train/output_dir.h"
#include "src/train/checkpoint.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "scratch_files.h"

#include "run_fixtures.h"

#include "checkpoint_state.h"

#include "output_dir_helpers.h"

static void new_directories_are_made(void **state)
{
    qvl_err err = {0};
    (void)state;
    scratch_path(output_dir, "new/deep/out");
    expect_ok(open_with("", 1000, &err), &err);
    assert_string_equal(resume, "");
    assert_true(qvl_file_is_directory(output_dir));
    assert_int_equal(count_in(output_dir, ""), 0);
}

static void newest_checkpoint_is_gone_on_from(void **state)
{
    (void)state;
    put_checkpoint(9);
    put_checkpoint(10);
    put("trainer_log.jsonl");
    expect_resume("", "checkpoint-10");
    assert_true(exists_in(output_dir, "trainer_log.jsonl"));
    put("adapter_model.safetensors"); /* a finished run, too: there is nothing left to do */
    put("train_results.json");
    expect_resume("", "checkpoint-10");
    expect_resume("resume_from_checkpoint: true\n", "checkpoint-10");
    expect_resume("resume_from_checkpoint: true\noverwrite_output_dir: true\n", "checkpoint-10");
    assert_true(exists_in(output_dir, "checkpoint-9"));
}

static void a_named_checkpoint_is_gone_on_from(void **state)
{
    qvl_err err = {0};
    (void)state;
    char line[QVL_PATH_BYTES + 64], named[QVL_PATH_BYTES];
    put_checkpoint(9);
    put_checkpoint(10);
    scratch_path(named, "out/checkpoint-9");
    snprintf(line, sizeof line, "resume_from_checkpoint: %s\n", named);
    expect_ok(open_with(line, 1000, &err), &err);
    assert_string_equal(resume, named);
    assert_true(exists_in(output_dir, "checkpoint-10"));
    expect_failure(open_with("resume_from_checkpoint: some/where/checkpoint-9\n", 1000, &err),
                   QVL_EMISSING, &err, "some/where/checkpoint-9 is not there|checkpoint-N");
    scratch_path(named, "out");
    snprintf(line, sizeof line, "resume_from_checkpoint: %s\n", named);
    expect_failure(open_with(line, 1000, &err), QVL_EMISSING, &err,
                   "no manifest.json|no checkpoint of qvl|checkpoint-N");
    put("adapter_config.json");
    expect_failure(open_with(line, 1000, &err), QVL_EMISSING, &err, "adapter_name_or_path");
    expect_failure(open_with("resume_from_checkpoint: \"false\"\n", 1000, &err), QVL_ECONFIG, &err,
                   "holds checkpoint-10|overwrite_output_dir: true");
    assert_true(exists_in(output_dir, "checkpoint-9"));
}

/* As report_to: tensorboard leaves it. */
static void make_events(void)
{
    char path[QVL_PATH_BYTES];
    assert_int_equal(qvl_path_join(path, output_dir, "runs/a", NULL), QVL_OK);
    assert_int_equal(qvl_directory_create(path, NULL), QVL_OK);
    put("runs/a/tfevents");
}

/* Published examples overwrite; a job that is started again shall not lose its work for that. */
static void overwriting_goes_on_with_the_same_run(void **state)
{
    (void)state;
    leave_config("overwrite_output_dir: true\nlogging_steps: 10\nlearning_rate: 1e-3\n");
    put_checkpoint(9);
    expect_resume("overwrite_output_dir: true\nlogging_steps: 10\nlearning_rate: 1e-3\n",
                  "checkpoint-9");
    expect_resume("overwrite_output_dir: true\nlogging_steps: 1\nlearning_rate: 1e-3\nmax_hours: "
                  "2\nsave_steps: 7\npeer_timeout: 60\nreport_to: tensorboard\nlogging_dir: e\n",
                  "checkpoint-9");
    make_events();
    expect_resume("overwrite_output_dir: true\nlogging_steps: 10\nlearning_rate: 2e-3\n", "");
    assert_false(exists_in(output_dir, "checkpoint-9"));
    assert_true(exists_in(output_dir, "runs/a/tfevents")); /* as with transformers */
}

/* Nothing goes that could not be made again. */
static void overwriting_spares_what_is_not_its_own(void **state)
{
    char line[QVL_PATH_BYTES + 64], path[QVL_PATH_BYTES];
    qvl_err err = {0};
    (void)state;
    put_checkpoint(9);
    put("adapter_model.safetensors");
    for (int i = 0; i < 2; i++) {
        scratch_path(path, i ? "out/checkpoint-9" : "out");
        snprintf(line, sizeof line, "overwrite_output_dir: true\nadapter_name_or_path: %s\n", path);
        expect_failure(open_with(line, 1000, &err), QVL_ECONFIG, &err,
                       "adapter_name_or_path|lies in output_dir|nothing was removed");
        expect_failure(check_with(line, &err), QVL_ECONFIG, &err, "lies in output_dir");
    }
    scratch_path(path, "out/checkpoint-11");
    expect_ok(qvl_directory_create(path, &err), &err);
    expect_failure(open_with("overwrite_output_dir: true\n", 1000, &err), QVL_ECONFIG, &err,
                   "checkpoint-11 has no manifest.json|nothing was removed");
    expect_failure(check_with("overwrite_output_dir: true\n", &err), QVL_ECONFIG, &err,
                   "checkpoint-11 has no manifest.json");
    assert_true(exists_in(output_dir, "checkpoint-9") &&
                exists_in(output_dir, "adapter_model.safetensors"));
    scratch_path(path, "out-2"); /* not inside, though its name begins alike */
    expect_ok(qvl_directory_create(path, &err), &err);
    snprintf(line, sizeof line, "overwrite_output_dir: true\nadapter_name_or_path: %s\n", path);
    scratch_path(path, "out/checkpoint-11");
    expect_ok(qvl_tree_remove(path, &err), &err);
    expect_resume(line, "");
    assert_false(exists_in(output_dir, "checkpoint-9"));
}

/* --check leaves no trace. */
static void a_check_makes_nothing(void **state)
{
    qvl_err err = {0};
    qvl_config *config = NULL;
    char parent[QVL_PATH_BYTES];
    (void)state;
    scratch_path(parent, "unmade");
    scratch_path(output_dir, "unmade/out");
    config = config_of(output_dir, "");
    expect_ok(qvl_output_dir_check(config, 1000, &console, &err), &err);
    assert_false(qvl_file_exists(parent));
    qvl_config_destroy(config);
    config = config_of(output_dir, "resume_from_checkpoint: true\n");
    expect_failure(qvl_output_dir_check(config, 1000, &console, &err), QVL_EMISSING, &err,
                   "has no checkpoint");
    qvl_config_destroy(config);
    config = config_of(output_dir, "resume_from_checkpoint: nowhere\n");
    expect_failure(qvl_output_dir_check(config, 1000, &console, &err), QVL_EMISSING, &err,
                   "nowhere is not there");
    qvl_config_destroy(config);
    config = config_of("/proc/out", "");
    assert_int_not_equal(qvl_output_dir_check(config, 1000, &console, &err), QVL_OK);
    qvl_config_destroy(config);
    assert_false(qvl_file_exists(parent));
}

static void overwriting_starts_anew(void **state)
{
    static const char *const GONE[] = {"adapter_model.safetensors", "trainer_state.json",
                                       "train_results.json",        "eval_results.json",
                                       "all_results.json",          "trainer_log.jsonl",
                                       "training_loss.png",         "training_eval_loss.png"};
    (void)state;
    put_checkpoint(9);
    put_checkpoint(10);
    for (size_t i = 0; i < sizeof GONE / sizeof *GONE; i++)
        put(GONE[i]);
    put("notes.txt");
    put("tokenized.h5");
    expect_resume("overwrite_output_dir: true\n", "");
    assert_int_equal(count_in(output_dir, ""), 3);
    assert_true(exists_in(output_dir, "notes.txt") && exists_in(output_dir, "tokenized.h5") &&
                exists_in(output_dir, "config.yaml"));
    put_checkpoint(3);
    expect_resume("overwrite_output_dir: true\nresume_from_checkpoint: \"false\"\n", "");
    assert_int_equal(count_in(output_dir, ""), 3);
}

/* Results without a checkpoint could only be overwritten. */
static void results_are_not_overwritten(void **state)
{
    static const char *const RESULTS[] = {"adapter_model.safetensors", "trainer_state.json",
                                          "train_results.json", "eval_results.json",
                                          "all_results.json"};
    qvl_err err = {0};
    (void)state;
    for (size_t i = 0; i < sizeof RESULTS / sizeof *RESULTS; i++) {
        scratch_directory(output_dir, "out");
        put(RESULTS[i]);
        put("trainer_log.jsonl");
        expect_failure(open_with("", 1000, &err), QVL_ECONFIG, &err,
                       "holds the results of a run|overwrite_output_dir: true");
        assert_int_equal(count_in(output_dir, ""), 2);
        leave_config("");
        expect_failure(open_with("", 1000, &err), QVL_ECONFIG, &err,
                       "holds the results of a run|no checkpoint to go on from|set "
                       "overwrite_output_dir: true");
        expect_failure(check_with("", &err), QVL_ECONFIG, &err, "holds the results of a run");
        expect_ok(check_with("overwrite_output_dir: true\n", &err), &err);
        assert_int_equal(count_in(output_dir, ""), 3);
    }
    expect_failure(open_with("resume_from_checkpoint: true\n", 1000, &err), QVL_EMISSING, &err,
                   "resume_from_checkpoint: true, but|has no checkpoint");
}

/* A run that was killed before its first checkpoint: the same command starts it again. */
static void a_log_alone_is_no_result(void **state)
{
    (void)state;
    put("trainer_log.jsonl");
    leave_config("");
    put("tokenized.h5");
    expect_resume("", "");
    assert_int_equal(count_in(output_dir, ""), 2);
    assert_false(exists_in(output_dir, "trainer_log.jsonl"));
}

/* Only our own half-written files go. */
static void leftovers_are_removed(void **state)
{
    static const char *const OURS[] = {"checkpoint-5.tmp", "checkpoint-5.gone.tmp",
                                       "tokenized.h5.1234.tmp", "adapter_config.json.1.tmp",
                                       ".qvl_write_test.tmp"};
    static const char *const OTHERS[] = {"notes.tmp", ".tmp",    "a.12x.tmp", "12.tmp",
                                         ".12.tmp",   "a12.tmp", "tmp",       "x.tmp.txt"};
    char path[QVL_PATH_BYTES];
    (void)state;
    for (size_t i = 0; i < sizeof OURS / sizeof *OURS; i++)
        put(OURS[i]);
    assert_int_equal(qvl_path_join(path, output_dir, "checkpoint-7.tmp/sub", NULL), QVL_OK);
    assert_int_equal(qvl_directory_create(path, NULL), QVL_OK);
    for (size_t i = 0; i < sizeof OTHERS / sizeof *OTHERS; i++)
        put(OTHERS[i]);
    expect_resume("", "");
    assert_int_equal(count_in(output_dir, ""), 1 + sizeof OTHERS / sizeof *OTHERS);
}

/* A save was killed between taking the old checkpoint-5 away and putting the new one in place. */
static void a_checkpoint_that_made_way_comes_back(void **state)
{
    char path[QVL_PATH_BYTES];
    (void)state;
    assert_int_equal(qvl_path_join(path, output_dir, "checkpoint-5.old.tmp", NULL), QVL_OK);
    assert_int_equal(qvl_directory_create(path, NULL), QVL_OK);
    put("checkpoint-5.old.tmp/manifest.json");
    assert_int_equal(qvl_checkpoint_clean(output_dir, NULL), QVL_OK);
    assert_int_equal(count_in(output_dir, ""), 1);
    assert_true(exists_in(output_dir, "checkpoint-5/manifest.json"));
    /* and goes where the new one is in place */
    assert_int_equal(qvl_directory_create(path, NULL), QVL_OK);
    assert_int_equal(qvl_checkpoint_clean(output_dir, NULL), QVL_OK);
    assert_int_equal(count_in(output_dir, ""), 1);
}

static void places_that_cannot_be_used(void **state)
{
    char file[QVL_PATH_BYTES];
    qvl_err err = {0};
    (void)state;
    expect_failure(open_with("", UINT64_MAX / 2, &err), QVL_EIO, &err,
                   "output_dir|free, the adapter and a checkpoint need");
    write_text(scratch_path(file, "a file"), "");
    snprintf(output_dir, sizeof output_dir, "%.100s", file);
    expect_failure(open_with("", 1000, &err), QVL_EIO, &err, "output_dir: |a file is no directory");
    scratch_path(output_dir, "a file/below");
    expect_failure(open_with("", 1000, &err), QVL_EIO, &err, "output_dir: |a file");
    scratch_path(output_dir, "a link");
    assert_int_equal(symlink("nowhere", output_dir), 0);
    expect_failure(open_with("", 1000, &err), QVL_EIO, &err,
                   "output_dir: |a link is a link that leads to no directory");
    snprintf(output_dir, sizeof output_dir, "%03970d", 1);
    expect_failure(open_with("", 1000, &err), QVL_ECONFIG, &err,
                   "output_dir: a path of 3970 bytes");
    scratch_path(output_dir, "fresh"); /* not made in vain */
    expect_failure(open_with("", UINT64_MAX / 2, &err), QVL_EIO, &err, "need");
    assert_false(qvl_file_exists(output_dir));
}

/* config.yaml reads back to the same configuration. */
static void configuration_is_written(void **state)
{
    char path[QVL_PATH_BYTES];
    qvl_config *config = config_of(output_dir, "learning_rate: 3e-4\nlora_rank: 16\n");
    qvl_config *again = NULL;
    qvl_text first = {0}, second = {0};
    qvl_err err = {0};
    (void)state;
    expect_ok(qvl_output_dir_write_config(config, &err), &err);
    assert_int_equal(qvl_path_join(path, output_dir, "config.yaml", NULL), QVL_OK);
    qvl_text text = read_file(path);
    expect_ok(qvl_config_parse(&again, text.data, text.len, path, NULL, 0, &err), &err);
    assert_int_equal(again->lora_rank, 16);
    assert_true(again->learning_rate == 3e-4);
    assert_int_equal(qvl_config_format(&first, config, NULL), QVL_OK);
    assert_int_equal(qvl_config_format(&second, again, NULL), QVL_OK);
    assert_string_equal(first.data, second.data);
    qvl_text_fini(&text);
    qvl_text_fini(&first);
    qvl_text_fini(&second);
    qvl_config_destroy(config);
    qvl_config_destroy(again);
}

static void tokenizer_is_copied(void **state)
{
    char model[QVL_PATH_BYTES], path[QVL_PATH_BYTES];
    qvl_err err = {0};
    (void)state;
    scratch_directory(model, "model");
    write_text_in(model, "tokenizer.json", "tokens");
    write_text_in(model, "chat_template.jinja", "template");
    write_text_in(model, "model.safetensors", "weights");
    write_text_in(model, "config.json", "{}");
    assert_int_equal(qvl_path_join(path, model, "vocab.json", NULL), QVL_OK);
    assert_int_equal(mkfifo(path, 0600), 0); /* nobody waits for it */
    expect_ok(qvl_output_dir_copy_tokenizer(output_dir, model, &console, &err), &err);
    assert_int_equal(count_in(output_dir, ""), 2);
    assert_int_equal(qvl_path_join(path, output_dir, "tokenizer.json", NULL), QVL_OK);
    qvl_text text = read_file(path);
    assert_string_equal(text.data, "tokens");
    qvl_text_fini(&text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        DIRECTORY_TEST(new_directories_are_made),
        DIRECTORY_TEST(newest_checkpoint_is_gone_on_from),
        DIRECTORY_TEST(a_named_checkpoint_is_gone_on_from),
        DIRECTORY_TEST(overwriting_starts_anew),
        DIRECTORY_TEST(overwriting_goes_on_with_the_same_run),
        DIRECTORY_TEST(overwriting_spares_what_is_not_its_own),
        DIRECTORY_TEST(a_check_makes_nothing),
        DIRECTORY_TEST(results_are_not_overwritten),
        DIRECTORY_TEST(a_log_alone_is_no_result),
        DIRECTORY_TEST(leftovers_are_removed),
        DIRECTORY_TEST(a_checkpoint_that_made_way_comes_back),
        DIRECTORY_TEST(places_that_cannot_be_used),
        DIRECTORY_TEST(configuration_is_written),
        DIRECTORY_TEST(tokenizer_is_copied),
    };
    return cmocka_run_group_tests(tests, scratch_make, scratch_remove);
}
