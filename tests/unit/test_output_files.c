/* What is in output_dir and not of qvl: it stays, and a run that would replace it is refused. */
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

/* Refused by a run and by --check, whatever is to be overwritten; and all stays. */
static void expect_refused(const char *lines, const char *words)
{
    static const char *const MORE[] = {"", "overwrite_output_dir: true\n"};
    const size_t count = count_in(output_dir, "");
    char all[2 * QVL_PATH_BYTES];
    qvl_err err = {0};
    for (int i = 0; i < 2; i++) {
        snprintf(all, sizeof all, "%s%s", lines, MORE[i]);
        expect_failure(check_with(all, &err), QVL_ECONFIG, &err, words);
        expect_failure(open_with(all, 1000, &err), QVL_ECONFIG, &err, words);
        assert_int_equal(count_in(output_dir, ""), count);
    }
}

/* Files of others under the names of ours, where no run of qvl has been. */
static void files_of_others_are_not_replaced(void **state)
{
    static const char *const NAMES[] = {"adapter_config.json",    "adapter_model.safetensors",
                                        "trainer_log.jsonl",      "training_loss.png",
                                        "training_eval_loss.png", "tokenizer.json",
                                        "all_results.json",       "preprocessor_config.json"};
    (void)state;
    for (size_t i = 0; i < sizeof NAMES / sizeof *NAMES; i++) {
        scratch_directory(output_dir, "out");
        put(NAMES[i]);
        expect_refused("", "output_dir|not of");
        leave_config(""); /* a run of qvl left it */
        expect_resume("overwrite_output_dir: true\n", "");
    }
    scratch_directory(output_dir, "out");
    write_text_in(output_dir, "config.yaml", "# Model\n# of mine\nmodel_name_or_path: m\n");
    expect_refused("", "config.yaml was not written by qvl|nothing was removed");
    put_checkpoint(9); /* not in a directory of ours either */
    expect_refused("", "config.yaml was not written by qvl");
}

/* A directory or a pipe in the place of a file. */
static void only_files_make_way(void **state)
{
    static const char *const NAMES[] = {"trainer_log.jsonl", "adapter_model.safetensors",
                                        "training_loss.png", "tokenizer.json"};
    char path[QVL_PATH_BYTES];
    qvl_err err = {0};
    (void)state;
    leave_config("");
    put_checkpoint(9);
    for (size_t i = 0; i < sizeof NAMES / sizeof *NAMES; i++) {
        assert_int_equal(qvl_path_join(path, output_dir, NAMES[i], NULL), QVL_OK);
        assert_int_equal(mkdir(path, 0777), 0);
        expect_refused("", "is a directory, where the run writes a file|nothing was removed");
        assert_int_equal(rmdir(path), 0);
        assert_int_equal(mkfifo(path, 0666), 0);
        expect_refused("", "is no regular file, where the run writes a file");
        assert_int_equal(unlink(path), 0);
    }
    /* one that comes while the weights are loaded */
    qvl_config *config = config_of(output_dir, "learning_rate: 1\noverwrite_output_dir: true\n");
    assert_int_equal(qvl_path_join(path, output_dir, "trainer_log.jsonl/mine", NULL), QVL_OK);
    assert_int_equal(qvl_directory_create(path, NULL), QVL_OK);
    expect_failure(qvl_output_dir_begin(config, false, &err), QVL_ECONFIG, &err, "is a directory");
    assert_true(exists_in(output_dir, "trainer_log.jsonl/mine"));
    qvl_config_destroy(config);
}

/* What a run reads is not what it writes. */
static void inputs_are_not_replaced(void **state)
{
    static const char *const TAKEN[] = {
        "config.yaml",       "trainer_log.jsonl", "all_results.json",
        "tokenizer.json",    ".qvl_lock",         "checkpoint-5",
        "checkpoint-5/x.h5", "x.h5.17.tmp",       "save"};
    static const char *const WAYS[] = {"out", "another", "./another/.//"};
    static const char *const FREE[] = {"tokenized.h5", "data/x.h5", "checkpoint-5.h5"};
    char line[QVL_PATH_BYTES + 64], path[QVL_PATH_BYTES], link[QVL_PATH_BYTES];
    qvl_err err = {0};
    (void)state;
    scratch_path(link, "another");
    assert_int_equal(symlink("out", link), 0);
    for (size_t i = 0; i < sizeof TAKEN / sizeof *TAKEN; i++)
        for (size_t w = 0; w < sizeof WAYS / sizeof *WAYS; w++) {
            snprintf(line, sizeof line, "tokenized_path: %s/%s/%s\n", scratch, WAYS[w], TAKEN[i]);
            expect_refused(line, "tokenized_path|is what a run writes or removes");
        }
    for (size_t i = 0; i < sizeof FREE / sizeof *FREE; i++) {
        snprintf(line, sizeof line, "tokenized_path: %s/out/%s\n", scratch, FREE[i]);
        expect_resume(line, "");
    }
    scratch_path(output_dir, "unmade/out"); /* before the directory is there */
    snprintf(line, sizeof line, "tokenized_path: %s/unmade/out/config.yaml\n", scratch);
    expect_failure(open_with(line, 1000, &err), QVL_ECONFIG, &err, "tokenized_path");
    scratch_path(path, "unmade");
    assert_false(qvl_file_exists(path));
    scratch_directory(output_dir, "out"); /* an adapter, even one that qvl left there */
    leave_config("");
    put_checkpoint(9);
    put("adapter_model.safetensors");
    snprintf(line, sizeof line, "adapter_name_or_path: %s/another\n", scratch);
    expect_refused(line, "adapter_name_or_path|lies in output_dir|nothing was removed");
    assert_int_equal(unlink(link), 0);
}

/* output_dir: . beside the configuration. */
static void the_configuration_is_not_replaced(void **state)
{
    char path[QVL_PATH_BYTES];
    qvl_text text = {0};
    qvl_err err = {0};
    (void)state;
    for (int i = 0; i < 3; i++) {
        scratch_directory(output_dir, "out");
        qvl_config *config = config_of(output_dir, "");
        assert_int_equal(
            qvl_path_join(path, output_dir, i ? "config.yaml" : "trainer_log.jsonl", NULL), QVL_OK);
        config->name = path;
        qvl_text_clear(&text);
        expect_ok(qvl_config_format(&text, config, &err), &err);
        if (i < 2)
            expect_ok(qvl_text_puts(&text, "# mine\n", &err), &err);
        write_text(path, text.data);
        if (i < 2) {
            expect_failure(qvl_output_dir_open(resume, config, 1000, &console, &err), QVL_ECONFIG,
                           &err, "output_dir: the configuration|would be replaced");
            expect_failure(qvl_output_dir_check(config, 1000, &console, &err), QVL_ECONFIG, &err,
                           "output_dir: the configuration|would be replaced");
        } else { /* what a run wrote, as it is: it would be written again */
            expect_ok(qvl_output_dir_open(resume, config, 1000, &console, &err), &err);
        }
        qvl_config_destroy(config);
    }
    qvl_text_fini(&text);
}

/* Directories of others under the names of checkpoints. */
static void checkpoints_of_others_stay(void **state)
{
    static const char *const NAMES[] = {"checkpoint-2/mine", "checkpoint-7.tmp/mine",
                                        "checkpoint-7.old.tmp/mine", "checkpoint-7.gone.tmp/mine",
                                        "adapter_model.safetensors.12.tmp/mine"};
    char path[QVL_PATH_BYTES];
    (void)state;
    for (size_t i = 0; i < sizeof NAMES / sizeof *NAMES; i++) {
        assert_int_equal(qvl_path_join(path, output_dir, NAMES[i], NULL), QVL_OK);
        assert_int_equal(qvl_directory_create(path, NULL), QVL_OK);
        write_text_in(path, "notes.txt", "precious");
    }
    expect_resume("", "");
    put_checkpoint(5);
    expect_resume("", "checkpoint-5");
    for (size_t i = 0; i < sizeof NAMES / sizeof *NAMES; i++)
        assert_true(exists_in(output_dir, NAMES[i]));
    assert_false(exists_in(output_dir, "checkpoint-7"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        DIRECTORY_TEST(files_of_others_are_not_replaced),
        DIRECTORY_TEST(only_files_make_way),
        DIRECTORY_TEST(inputs_are_not_replaced),
        DIRECTORY_TEST(the_configuration_is_not_replaced),
        DIRECTORY_TEST(checkpoints_of_others_stay),
    };
    return cmocka_run_group_tests(tests, scratch_make, scratch_remove);
}
