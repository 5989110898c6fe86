/* Checkpoints: what is saved comes back bit for bit, the newest whole one is found, and old ones
 * go.
 */
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
#include "library_sanitizers.h"
#include "io/manifest.h"

static char output_dir[QVL_PATH_BYTES];
static qvl_lora *lora;
static qvl_config *config;
static qvl_run_log *run;
static qvl_log console;

/* An empty output_dir, adapters, and a history of one entry. */
static int start(void **state)
{
    (void)state;
    qvl_log_init(&console, "test");
    scratch_directory(output_dir, "out");
    lora = small_lora(2, "all");
    config = config_of(output_dir, "");
    const qvl_log_event event = {.step = 1, .epoch = 0.5, .loss = 2.25, .learning_rate = 1e-4};
    return qvl_run_log_create(&run, output_dir, config, 30, NULL) != QVL_OK ||
           qvl_run_log_train(run, &event, NULL) != QVL_OK;
}

static int stop(void **state)
{
    (void)state;
    qvl_run_log_destroy(run);
    qvl_config_destroy(config);
    qvl_lora_destroy(lora);
    return 0;
}

static qvl_status save(int64_t step, int64_t keep, bool only_model, qvl_err *err)
{
    const qvl_checkpoint_options options = {
        .output_dir = output_dir, .base_model = "base", .only_model = only_model, .keep = keep};
    qvl_train_state training = new_state(lora);
    set_step(&training, lora, step);
    const qvl_status rc = qvl_checkpoint_save(&options, &training, lora, run, err);
    free_state(&training);
    return rc;
}

static void must_save(int64_t step, int64_t keep)
{
    qvl_err err = {0};
    expect_ok(save(step, keep, false, &err), &err);
}

static const char *found(void)
{
    static char path[QVL_PATH_BYTES];
    qvl_err err = {0};
    expect_ok(qvl_checkpoint_find(path, output_dir, &console, &err), &err);
    return path[0] ? qvl_path_name(path) : "";
}

static const char *path_of(const char *name)
{
    static char path[QVL_PATH_BYTES];
    assert_int_equal(qvl_path_join(path, output_dir, name, NULL), QVL_OK);
    return path;
}

static void what_is_saved_comes_back(void **state)
{
    qvl_train_state training = new_state(lora);
    qvl_text other_order = {0};
    qvl_err err = {0};
    (void)state;
    must_save(7, 0);
    assert_string_equal(found(), "checkpoint-7");
    assert_int_equal(count_in(output_dir, ""), 2); /* and trainer_log.jsonl */
    static const char *const FILES[] = {"adapter_config.json", "adapter_model.safetensors",
                                        "manifest.json", "optimizer.h5", "trainer_state.json"};
    for (size_t i = 0; i < 5; i++)
        assert_true(exists_in(path_of("checkpoint-7"), FILES[i]));
    assert_int_equal(count_in(path_of("checkpoint-7"), ""), 5);
    expect_ok(
        qvl_checkpoint_load(path_of("checkpoint-7"), &training, lora, NULL, &other_order, &err),
        &err);
    assert_int_equal(other_order.len, 0);
    expect_state(&training, lora, 7);
    free_state(&training);
    qvl_text_fini(&other_order);
}

static void history_comes_back(void **state)
{
    qvl_train_state training = new_state(lora);
    qvl_run_log *other = NULL;
    qvl_text other_order = {0};
    qvl_err err = {0};
    (void)state;
    must_save(3, 0);
    expect_ok(qvl_run_log_create(&other, output_dir, config, 30, &err), &err);
    expect_ok(
        qvl_checkpoint_load(path_of("checkpoint-3"), &training, lora, other, &other_order, &err),
        &err);
    assert_true(json_equal(other->history, run->history));
    assert_int_equal(json_array_size(other->history), 1);
    qvl_run_log_destroy(other);
    free_state(&training);
    qvl_text_fini(&other_order);
}

/* Another order of samples is told, another model refused. */
static void other_runs_are_told_apart(void **state)
{
    qvl_train_state training = new_state(lora);
    qvl_text other_order = {0};
    qvl_err err = {0};
    (void)state;
    must_save(7, 0);
    training.order[5] = '2';
    expect_ok(
        qvl_checkpoint_load(path_of("checkpoint-7"), &training, lora, NULL, &other_order, &err),
        &err);
    assert_string_equal(other_order.data, "seed: 1 there, 2 here");
    snprintf(training.identity, sizeof training.identity, "model=ab; lora_rank=3; data=cd");
    expect_failure(
        qvl_checkpoint_load(path_of("checkpoint-7"), &training, lora, NULL, &other_order, &err),
        QVL_EDATA, &err,
        "optimizer.h5: belongs to another model, data set or set of adapters (lora_rank: 2 there, "
        "3 here)");
    free_state(&training);
    qvl_lora *other = small_lora(4, "all"); /* another rank, if the identity did not tell */
    training = new_state(other);
    expect_failure(
        qvl_checkpoint_load(path_of("checkpoint-7"), &training, other, NULL, &other_order, &err),
        QVL_EDATA, &err, "parameters, the adapters have");
    free_state(&training);
    qvl_lora_destroy(other);
    qvl_text_fini(&other_order);
}

static void adapters_alone_cannot_be_resumed(void **state)
{
    qvl_train_state training = new_state(lora);
    qvl_text other_order = {0};
    qvl_err err = {0};
    (void)state;
    expect_ok(save(7, 0, true, &err), &err);
    assert_false(exists_in(path_of("checkpoint-7"), "optimizer.h5"));
    assert_true(exists_in(path_of("checkpoint-7"), "adapter_model.safetensors"));
    assert_string_equal(found(), "checkpoint-7");
    expect_failure(
        qvl_checkpoint_load(path_of("checkpoint-7"), &training, lora, NULL, &other_order, &err),
        QVL_EDATA, &err, "checkpoint-7: has no optimizer.h5|save_only_model|adapter_name_or_path");
    expect_failure(
        qvl_checkpoint_load(path_of("checkpoint-8"), &training, lora, NULL, &other_order, &err),
        QVL_EMISSING, &err, "checkpoint-8: no such checkpoint directory");
    free_state(&training);
    qvl_text_fini(&other_order);
}

/* Numbers, not names, tell which is newest; what is not a checkpoint's name is left alone. */
static void newest_is_by_number(void **state)
{
    static const char *const OTHERS[] = {
        "checkpoint-",    "checkpoint-x",   "checkpoint-99.tmp", "checkpoint--5",
        "checkpoint-050", "checkpoint-+60", "checkpoint- 70",    "checkpoint-99999999999999999999",
        "Checkpoint-80",  "run-90"};
    (void)state;
    assert_string_equal(found(), "");
    must_save(9, 0);
    must_save(10, 0);
    must_save(2, 0);
    for (size_t i = 0; i < sizeof OTHERS / sizeof *OTHERS; i++) {
        char copy[QVL_PATH_BYTES];
        assert_int_equal(qvl_path_join(copy, output_dir, OTHERS[i], NULL), QVL_OK);
        copy_directory(copy, path_of("checkpoint-10"));
    }
    assert_string_equal(found(), "checkpoint-10");
    must_save(11, 3);
    assert_string_equal(found(), "checkpoint-11");
    assert_true(exists_in(output_dir, "checkpoint-9") && exists_in(output_dir, "checkpoint-10"));
    assert_false(exists_in(output_dir, "checkpoint-2"));
    for (size_t i = 0; i < sizeof OTHERS / sizeof *OTHERS; i++)
        assert_true(exists_in(output_dir, OTHERS[i]));
    assert_int_equal(count_in(output_dir, ""), 4 + sizeof OTHERS / sizeof *OTHERS);
}

static void newest_k_are_kept(void **state)
{
    (void)state;
    for (int64_t step = 1; step <= 12; step++) {
        must_save(step, 3);
        assert_int_equal(count_in(output_dir, ""), 1 + (step < 3 ? step : 3));
    }
    assert_true(exists_in(output_dir, "checkpoint-10") && exists_in(output_dir, "checkpoint-11") &&
                exists_in(output_dir, "checkpoint-12"));
    must_save(13, 1);
    assert_int_equal(count_in(output_dir, ""), 2);
    must_save(14, 0); /* 0: all stay */
    assert_int_equal(count_in(output_dir, ""), 3);
    assert_int_equal(qvl_checkpoint_remove_all(output_dir, NULL), QVL_OK);
    assert_int_equal(count_in(output_dir, ""), 1);
    assert_int_equal(qvl_checkpoint_remove_all("no/such/directory", NULL), QVL_OK);
}

/* A run that went on from checkpoint-2 although there was a checkpoint-9: what it saves is kept,
 * and replaces what the other run saved under the same number. */
static void a_run_from_an_older_checkpoint(void **state)
{
    qvl_train_state training = new_state(lora);
    qvl_text other_order = {0};
    qvl_err err = {0};
    (void)state;
    must_save(2, 0);
    must_save(4, 0);
    must_save(9, 0);
    must_save(3, 1);
    assert_true(exists_in(output_dir, "checkpoint-3"));
    assert_int_equal(count_in(output_dir, ""), 2);
    /* another state under the number 3 */
    const qvl_checkpoint_options options = {.output_dir = output_dir, .base_model = "base"};
    set_step(&training, lora, 8);
    training.step = 3;
    expect_ok(qvl_checkpoint_save(&options, &training, lora, run, &err), &err);
    expect_ok(
        qvl_checkpoint_load(path_of("checkpoint-3"), &training, lora, NULL, &other_order, &err),
        &err);
    assert_int_equal(training.step, 3);
    training.step = 8;
    expect_state(&training, lora, 8);
    assert_int_equal(count_in(output_dir, ""), 2);
    free_state(&training);
    qvl_text_fini(&other_order);
}

/* Leftovers of a save that was killed are no hindrance. */
static void leftovers_are_overwritten(void **state)
{
    (void)state;
    assert_int_equal(qvl_directory_create(path_of("checkpoint-5.tmp/sub"), NULL), QVL_OK);
    assert_int_equal(qvl_directory_create(path_of("checkpoint-5.old.tmp"), NULL), QVL_OK);
    write_text(path_of("checkpoint-5.tmp/optimizer.h5"), "half");
    assert_string_equal(found(), "");
    must_save(5, 0);
    assert_string_equal(found(), "checkpoint-5");
    assert_int_equal(count_in(output_dir, ".tmp"), 0);
}

/* Nor removed, nor counted, nor replaced. */
static void checkpoints_of_others_are_left_alone(void **state)
{
    static const char *const OTHERS[] = {"checkpoint-1", "checkpoint-4", "checkpoint-90"};
    const qvl_checkpoint_options options = {.output_dir = output_dir, .base_model = "base"};
    qvl_train_state training = new_state(lora);
    char first[QVL_PATH_BYTES];
    size_t count = 0;
    qvl_err err = {0};
    (void)state;
    for (int i = 0; i < 3; i++) {
        assert_int_equal(qvl_directory_create(path_of(OTHERS[i]), NULL), QVL_OK);
        write_text_in(path_of(OTHERS[i]), "pytorch_model.bin", "precious");
    }
    write_text_in(path_of("checkpoint-4"), "manifest.json", "{\"files\": []}"); /* not ours */
    for (int64_t step = 5; step <= 8; step++)
        must_save(step, 2);
    must_save(9, 1);
    assert_true(exists_in(output_dir, "checkpoint-9"));
    assert_false(exists_in(output_dir, "checkpoint-8"));
    assert_string_equal(found(), "checkpoint-9");
    expect_ok(qvl_checkpoint_find_others(first, &count, output_dir, &err), &err);
    assert_int_equal(count, 3);
    assert_string_equal(qvl_path_name(first), "checkpoint-1");
    set_step(&training, lora, 4);
    expect_failure(qvl_checkpoint_save(&options, &training, lora, run, &err), QVL_EIO, &err,
                   "checkpoint-4 is there, and no checkpoint of qvl");
    assert_int_equal(qvl_directory_create(path_of("checkpoint-3.tmp/sub"), NULL), QVL_OK);
    write_text_in(path_of("checkpoint-3.tmp"), "notes.txt", "precious");
    set_step(&training, lora, 3);
    expect_failure(qvl_checkpoint_save(&options, &training, lora, run, &err), QVL_EIO, &err,
                   "checkpoint-3.tmp is not qvl's and is left alone");
    assert_int_equal(qvl_checkpoint_clean(output_dir, NULL), QVL_OK);
    assert_int_equal(qvl_checkpoint_remove_all(output_dir, NULL), QVL_OK);
    assert_true(exists_in(output_dir, "checkpoint-3.tmp/notes.txt"));
    for (int i = 0; i < 3; i++)
        assert_true(exists_in(path_of(OTHERS[i]), "pytorch_model.bin"));
    free_state(&training);
}

#define RUN_TEST(name) cmocka_unit_test_setup_teardown(name, start, stop)

int main(void)
{
    const struct CMUnitTest tests[] = {
        RUN_TEST(what_is_saved_comes_back),
        RUN_TEST(history_comes_back),
        RUN_TEST(other_runs_are_told_apart),
        RUN_TEST(adapters_alone_cannot_be_resumed),
        RUN_TEST(newest_is_by_number),
        RUN_TEST(newest_k_are_kept),
        RUN_TEST(a_run_from_an_older_checkpoint),
        RUN_TEST(leftovers_are_overwritten),
        RUN_TEST(checkpoints_of_others_are_left_alone),
    };
    return cmocka_run_group_tests(tests, scratch_make, scratch_remove);
}
