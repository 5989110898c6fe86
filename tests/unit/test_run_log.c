/* The files that show a run: transformers' trainer_state.json, LLaMA-Factory's trainer_log.jsonl,
 * and going on with them (REFERENCE 8.8 to 8.10). The results: test_run_log_results.c. */
#include "src/train/run_log.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#include "scratch_files.h"

#include "run_log_helpers.h"

#include "library_sanitizers.h"

static int start(void **state)
{
    (void)state;
    scratch_directory(output_dir, "out");
    config = config_of(output_dir, "logging_steps: 5\nsave_steps: 0.25\nnum_train_epochs: 2.5\n"
                                   "per_device_train_batch_size: 3\n");
    return qvl_run_log_create(&run, output_dir, config, 30, NULL) != QVL_OK;
}

static void log_step(int64_t step, double loss)
{
    const qvl_log_event event = {.step = step,
                                 .epoch = (double)step / 12.0,
                                 .loss = loss,
                                 .grad_norm = 0.75,
                                 .learning_rate = 1e-5,
                                 .tokens_per_second = 1234.5678};
    qvl_err err = {0};
    expect_ok(qvl_run_log_train(run, &event, &err), &err);
}

/* The keys of a JSON object in their order in the text. */
static void expect_keys(const char *line, const char *want)
{
    char keys[512] = "";
    json_t *root = json_loads(line, JSON_DISABLE_EOF_CHECK, NULL), *value;
    const char *key;
    assert_non_null(root);
    json_object_foreach(root, key, value) sprintf(keys + strlen(keys), "%s ", key);
    assert_string_equal(keys, want);
    json_decref(root);
}

static void log_lines_have_llama_factorys_keys(void **state)
{
    (void)state;
    log_step(5, 1.23456789012345);
    log_eval(5, 1.5);
    qvl_text text = read_output("trainer_log.jsonl");
    const char *second = strchr(text.data, '\n') + 1;
    expect_keys(text.data, "current_steps total_steps loss lr epoch percentage elapsed_time "
                           "remaining_time grad_norm tokens_per_second ");
    expect_keys(second, "current_steps total_steps eval_loss epoch percentage elapsed_time "
                        "remaining_time ");
    static const char WANT[] =
        "{\"current_steps\": 5, \"total_steps\": 30, \"loss\": 1.23456789012345, \"lr\": 1e-05, "
        "\"epoch\": 0.4166666666666667, \"percentage\": 16.67, \"elapsed_time\": \"0:00:0";
    assert_memory_equal(text.data, WANT, sizeof WANT - 1);
    assert_non_null(strstr(text.data, "\"grad_norm\": 0.75, \"tokens_per_second\": 1234.6}\n"));
    assert_int_equal(text.data[text.len - 1], '\n');
    qvl_text_fini(&text);
}

/* Time that remains is the time a step of this process took, for the steps that are left. */
static void remaining_time_is_of_this_process(void **state)
{
    qvl_err err = {0};
    (void)state;
    run->started_s -= 100.0;       /* 100 s for 10 steps, 10 are left */
    run->elapsed_before_s = 500.0; /* of the run before */
    const qvl_log_event event = {.step = 20, .first_step = 10, .loss = 1.0};
    expect_ok(qvl_run_log_train(run, &event, &err), &err);
    qvl_text text = read_output("trainer_log.jsonl");
    assert_non_null(strstr(text.data, "\"elapsed_time\": \"0:10:00\""));
    assert_non_null(strstr(text.data, "\"remaining_time\": \"0:01:40\""));
    qvl_text_fini(&text);
    assert_true(qvl_run_log_elapsed(run) >= 600.0 && qvl_run_log_elapsed(run) < 660.0);
}

/* All fields of REFERENCE 8.9, and ours at the end. */
static void state_has_transformers_fields(void **state)
{
    static const char *const NULLS[] = {"best_global_step", "best_metric", "best_model_checkpoint",
                                        "trial_name", "trial_params"};
    static const struct {
        const char *key;
        int64_t value;
    } INTEGERS[] = {{"eval_steps", 5}, {"global_step", 10},          {"logging_steps", 5},
                    {"max_steps", 30}, {"num_input_tokens_seen", 0}, {"num_train_epochs", 3},
                    {"save_steps", 8}, {"train_batch_size", 3}};
    qvl_err err = {0};
    (void)state;
    log_step(5, 2.0);
    log_eval(10, 1.5);
    run->total_flos = 1.5e15;
    expect_ok(qvl_run_log_save_state(run, output_dir, 10, 0.8, &err), &err);
    json_t *root = read_json("trainer_state.json");
    assert_int_equal(json_object_size(root), 21);
    for (size_t i = 0; i < sizeof NULLS / sizeof *NULLS; i++)
        assert_true(json_is_null(json_object_get(root, NULLS[i])));
    for (size_t i = 0; i < sizeof INTEGERS / sizeof *INTEGERS; i++) {
        const json_t *value = json_object_get(root, INTEGERS[i].key);
        assert_true(json_is_integer(value));
        assert_int_equal(json_integer_value(value), INTEGERS[i].value);
    }
    assert_true(json_real_value(json_object_get(root, "epoch")) == 0.8);
    assert_true(json_real_value(json_object_get(root, "total_flos")) == 1.5e15);
    assert_true(json_is_false(json_object_get(root, "is_hyper_param_search")));
    assert_true(json_is_true(json_object_get(root, "is_local_process_zero")));
    assert_true(json_is_true(json_object_get(root, "is_world_process_zero")));
    const json_t *control =
        json_object_get(json_object_get(root, "stateful_callbacks"), "TrainerControl");
    const json_t *args = json_object_get(control, "args");
    assert_int_equal(json_object_size(args), 5);
    assert_true(json_is_true(json_object_get(args, "should_save")));
    assert_true(json_is_false(json_object_get(args, "should_training_stop")));
    assert_int_equal(json_object_size(json_object_get(control, "attributes")), 0);
    const json_t *history = json_object_get(root, "log_history");
    assert_int_equal(json_array_size(history), 2);
    assert_true(json_real_value(json_object_get(json_array_get(history, 0), "loss")) == 2.0);
    assert_true(json_real_value(json_object_get(json_array_get(history, 1), "eval_loss")) == 1.5);
    json_decref(root);
    qvl_text text = read_output("trainer_state.json"); /* sorted, indented by 2, a line's end */
    assert_memory_equal(text.data, "{\n  \"best_global_step\": null,\n", 30);
    assert_memory_equal(text.data + text.len - 3, "\n}\n", 3);
    assert_non_null(strstr(text.data, "\n    {\n      \"epoch\": 0.4166666666666667,\n"
                                      "      \"grad_norm\": 0.75,\n"
                                      "      \"learning_rate\": 1e-05,\n      \"loss\": 2.0,\n"
                                      "      \"step\": 5\n    },\n"));
    qvl_text_fini(&text);
    expect_ok(qvl_run_log_save_state(run, output_dir, 30, 2.5, &err), &err);
    text = read_output("trainer_state.json");
    assert_non_null(strstr(text.data, "\"should_training_stop\": true"));
    qvl_text_fini(&text);
}

/* History comes back; lines of later steps, and a half-written one, go. */
static void going_on_cuts_the_log(void **state)
{
    qvl_run_log *other = NULL;
    char path[QVL_PATH_BYTES];
    qvl_err err = {0};
    (void)state;
    log_step(5, 2.0);
    log_step(10, 1.75);
    run->started_s -= 50.0;
    expect_ok(qvl_run_log_save_state(run, output_dir, 10, 0.8, &err), &err);
    log_eval(10, 1.5);
    log_step(15, 1.25);
    log_step(100, 1.0);
    assert_int_equal(qvl_path_join(path, output_dir, "trainer_log.jsonl", NULL), QVL_OK);
    FILE *file = fopen(path, "a");
    assert_non_null(file);
    fputs("{\"current_steps\": 7, \"total_st", file);
    fclose(file);
    expect_ok(qvl_run_log_create(&other, output_dir, config, 30, &err), &err);
    expect_ok(qvl_run_log_load_state(other, output_dir, &err), &err);
    assert_int_equal(json_array_size(other->history), 2);
    assert_true(other->elapsed_before_s >= 50.0 && qvl_run_log_elapsed(other) >= 50.0);
    qvl_text text = read_file(path);
    int lines = 0;
    for (const char *c = text.data; *c; c++)
        lines += *c == '\n';
    assert_int_equal(lines, 3); /* 5, 10 and the evaluation after 10 */
    assert_null(strstr(text.data, "\"current_steps\": 15"));
    assert_null(strstr(text.data, "\"current_steps\": 7"));
    qvl_text_fini(&text);
    qvl_run_log_destroy(other);
    assert_int_equal(count_in(output_dir, ".tmp"), 0);
}

static void a_long_log_is_cut_quickly(void **state)
{
    enum { LINES = 100000 };
    qvl_run_log *other = NULL;
    char path[QVL_PATH_BYTES];
    qvl_text text = {0};
    qvl_err err = {0};
    (void)state;
    for (int i = 1; i <= LINES; i++)
        assert_int_equal(
            qvl_text_printf(&text, NULL, "{\"current_steps\": %d, \"loss\": 1.0}\n", i), QVL_OK);
    assert_int_equal(qvl_path_join(path, output_dir, "trainer_log.jsonl", NULL), QVL_OK);
    write_file(path, text.data, text.len);
    qvl_text_fini(&text);
    expect_ok(qvl_run_log_save_state(run, output_dir, LINES / 2, 0.8, &err), &err);
    expect_ok(qvl_run_log_create(&other, output_dir, config, LINES, &err), &err);
    const time_t before = time(NULL);
    expect_ok(qvl_run_log_load_state(other, output_dir, &err), &err);
    assert_true(time(NULL) - before < 10);
    text = read_file(path);
    assert_non_null(strstr(text.data, "{\"current_steps\": 50000, "));
    assert_null(strstr(text.data, "{\"current_steps\": 50001, "));
    qvl_text_fini(&text);
    qvl_run_log_destroy(other);
}

static void bad_states_are_refused(void **state)
{
    static const struct {
        const char *json, *words;
    } CASES[] = {{"{", "trainer_state.json:1"},
                 {"{}", "log_history is not a list"},
                 {"{\"log_history\": {}}", "log_history is not a list"},
                 {"{\"log_history\": [], \"global_step\": -1}", "global_step is -1"},
                 {"{\"log_history\": [], \"global_step\": \"1\"}", "global_step is a text"}};
    qvl_err err = {0};
    (void)state;
    expect_failure(qvl_run_log_load_state(run, output_dir, &err), QVL_EMISSING, &err,
                   "trainer_state.json");
    for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++) {
        write_text_in(output_dir, "trainer_state.json", CASES[i].json);
        expect_failure(qvl_run_log_load_state(run, output_dir, &err), QVL_EDATA, &err,
                       CASES[i].words);
    }
}

static void plots_are_drawn(void **state)
{
    qvl_err err = {0};
    (void)state;
    log_step(5, 2.0);
    log_step(10, 1.5);
    expect_ok(qvl_run_log_plot(run, &err), &err);
    assert_true(exists_in(output_dir, "training_loss.png"));
    assert_false(exists_in(output_dir, "training_eval_loss.png"));
    log_eval(10, 1.75);
    expect_ok(qvl_run_log_plot(run, &err), &err);
    assert_true(exists_in(output_dir, "training_eval_loss.png"));
}

/* A disk that is full: QVL_EIO, and the state that was there stays. */
static void full_disks_are_told(void **state)
{
    qvl_err err = {0};
    (void)state;
    log_step(5, 2.0);
    expect_ok(qvl_run_log_save_state(run, output_dir, 5, 0.4, &err), &err);
    qvl_text before = read_output("trainer_state.json");
    limit_files(60);
    const qvl_log_event event = {.step = 10, .loss = 1.0};
    const qvl_status log_rc = qvl_run_log_train(run, &event, &err);
    qvl_err state_err = {0};
    const qvl_status state_rc = qvl_run_log_save_state(run, output_dir, 10, 0.8, &state_err);
    limit_files(0);
    expect_failure(log_rc, QVL_EIO, &err, "trainer_log.jsonl");
    expect_failure(state_rc, QVL_EIO, &state_err, "trainer_state.json");
    qvl_text after = read_output("trainer_state.json");
    assert_string_equal(before.data, after.data);
    qvl_text_fini(&before);
    qvl_text_fini(&after);
    assert_int_equal(count_in(output_dir, ""), 2);
}

/* A full disk is told of at the first line and each hundredth; with room again every line comes. */
static void a_full_disk_is_told_now_and_then(void **state)
{
    enum { LINES = 250 };
    (void)state;
    log_step(1, 2.0);
    limit_files(60);
    int n_told = 0;
    for (int i = 0; i < LINES; i++) {
        qvl_err err = {0};
        char text[40];
        const qvl_log_event event = {.step = 2 + i, .loss = 1.0};
        const qvl_status rc = qvl_run_log_train(run, &event, &err);
        if (i != 0 && i != 99 && i != 199) {
            expect_ok(rc, &err);
            continue;
        }
        snprintf(text, sizeof text, "(%d line%s in a row)", i + 1, i ? "s" : "");
        expect_failure(rc, QVL_EIO, &err, text);
        n_told++;
    }
    limit_files(0);
    assert_int_equal(n_told, 3);
    assert_int_equal(run->n_late, LINES);
    log_step(2 + LINES, 1.0);
    assert_int_equal(run->n_in_row, 0);
    qvl_text lines = read_output("trainer_log.jsonl");
    const char *at = lines.data;
    for (int i = 1; i <= LINES + 2; i++) {
        char text[40];
        snprintf(text, sizeof text, "{\"current_steps\": %d,", i);
        assert_int_equal(strncmp(at, text, strlen(text)), 0);
        at = strchr(at, '\n') + 1;
    }
    assert_string_equal(at, "");
    qvl_text_fini(&lines);
}

#define LOG_TEST(name) cmocka_unit_test_setup_teardown(name, start, stop)

int main(void)
{
    const struct CMUnitTest tests[] = {
        LOG_TEST(log_lines_have_llama_factorys_keys),
        LOG_TEST(remaining_time_is_of_this_process),
        LOG_TEST(state_has_transformers_fields),
        LOG_TEST(going_on_cuts_the_log),
        LOG_TEST(a_long_log_is_cut_quickly),
        LOG_TEST(bad_states_are_refused),
        LOG_TEST(plots_are_drawn),
        LOG_TEST(full_disks_are_told),
        LOG_TEST(a_full_disk_is_told_now_and_then),
    };
    return cmocka_run_group_tests(tests, scratch_make, scratch_remove);
}
