/* What a run leaves of its log when it ends: train_results.json, eval_results.json and
 * all_results.json as LLaMA-Factory writes them, and the tokens that include_num_input_tokens_seen
 * asks for (REFERENCE 8.8 to 8.10). */
#include "src/train/run_log.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "scratch_files.h"

#include "run_log_helpers.h"

#include "library_sanitizers.h"

static void open_log(const char *lines)
{
    scratch_directory(output_dir, "out");
    config = config_of(output_dir, lines);
    assert_int_equal(qvl_run_log_create(&run, output_dir, config, 30, NULL), QVL_OK);
}

static void finish(void)
{
    const qvl_final_metrics metrics = {.epoch = 2.5,
                                       .train_loss = 1.0 / 3.0,
                                       .runtime_s = 12.34567,
                                       .samples = 100,
                                       .total_flos = 2e12,
                                       .steps = 30};
    qvl_err err = {0};
    expect_ok(qvl_run_log_finish(run, &metrics, &err), &err);
}

static void expect_text(const char *name, const char *want)
{
    qvl_text text = read_output(name);
    assert_string_equal(text.data, want);
    qvl_text_fini(&text);
}

/* The keys of the last line of trainer_log.jsonl, in their order. */
static void expect_last_keys(const char *want)
{
    char keys[512] = "";
    const char *key;
    json_t *value;
    qvl_text text = read_output("trainer_log.jsonl");
    text.data[text.len - 1] = '\0';
    const char *line = strrchr(text.data, '\n');
    json_t *root = json_loads(line ? line : text.data, 0, NULL);
    assert_non_null(root);
    json_object_foreach(root, key, value) sprintf(keys + strlen(keys), "%s ", key);
    assert_string_equal(keys, want);
    json_decref(root);
    qvl_text_fini(&text);
}

static void training_results(void **state)
{
    (void)state;
    open_log("");
    log_eval(30, 0.5);
    finish();
    expect_text(
        "train_results.json",
        "{\n    \"epoch\": 2.5,\n    \"total_flos\": 2000000000000.0,\n"
        "    \"train_loss\": 0.3333333333333333,\n    \"train_runtime\": 12.3457,\n"
        "    \"train_samples_per_second\": 8.1,\n    \"train_steps_per_second\": 2.43\n}\n");
    expect_last_keys("current_steps total_steps epoch percentage elapsed_time remaining_time ");
    qvl_text text = read_output("trainer_log.jsonl"); /* a line more, without loss and lr */
    assert_non_null(strstr(strchr(text.data, '\n') + 1, "\"percentage\": 100.0"));
    qvl_text_fini(&text);
    const json_t *entry = json_array_get(run->history, 1); /* and an entry of the history */
    assert_int_equal(json_array_size(run->history), 2);
    assert_int_equal(json_integer_value(json_object_get(entry, "step")), 30);
    assert_non_null(json_object_get(entry, "train_runtime"));
    assert_null(json_object_get(entry, "eval_loss"));
}

/* The newest evaluation after the last step, in a file of its own and merged. */
static void evaluation_results(void **state)
{
    (void)state;
    open_log("");
    log_eval(20, 0.75);
    log_eval(30, 0.625);
    log_eval(30, 0.5);
    finish();
    expect_text("eval_results.json",
                "{\n    \"epoch\": 2.5,\n    \"eval_loss\": 0.5,\n    \"eval_runtime\": 2.0,\n"
                "    \"eval_samples_per_second\": 5.5,\n    \"eval_steps_per_second\": 2.0\n}\n");
    json_t *all = read_json("all_results.json"), *train = read_json("train_results.json");
    json_t *eval = read_json("eval_results.json");
    assert_int_equal(json_object_update(train, eval), 0);
    assert_true(json_equal(all, train));
    assert_int_equal(json_object_size(all), 10);
    json_decref(all);
    json_decref(train);
    json_decref(eval);
}

/* An evaluation of an earlier step is no result. */
static void results_without_evaluation(void **state)
{
    (void)state;
    open_log("");
    log_eval(20, 0.75);
    finish();
    assert_false(exists_in(output_dir, "eval_results.json"));
    json_t *all = read_json("all_results.json"), *train = read_json("train_results.json");
    assert_true(json_equal(all, train));
    json_decref(all);
    json_decref(train);
}

static int64_t tokens_of(const json_t *object)
{
    const json_t *value = json_object_get(object, "num_input_tokens_seen");
    return value ? json_integer_value(value) : -1;
}

/* Every entry, the results and the state have them; LLaMA-Factory's lines a rate and a sum. */
static void tokens_are_counted(void **state)
{
    static const char *const VALUES[] = {"true", "all", "non_padding"};
    (void)state;
    for (size_t i = 0; i < sizeof VALUES / sizeof *VALUES; i++) {
        char line[80];
        qvl_err err = {0};
        snprintf(line, sizeof line, "include_num_input_tokens_seen: %s\n", VALUES[i]);
        open_log(line);
        run->started_s -= 100.0;
        run->total_tokens = 1000;
        const qvl_log_event event = {.step = 15, .epoch = 1.25, .loss = 1.0};
        expect_ok(qvl_run_log_train(run, &event, &err), &err);
        expect_last_keys("current_steps total_steps loss lr epoch percentage elapsed_time "
                         "remaining_time throughput total_tokens grad_norm tokens_per_second ");
        run->total_tokens = 3000000000;
        log_eval(30, 0.5);
        expect_last_keys("current_steps total_steps eval_loss epoch percentage elapsed_time "
                         "remaining_time throughput total_tokens ");
        finish();
        expect_last_keys("current_steps total_steps epoch percentage elapsed_time remaining_time "
                         "throughput total_tokens ");
        assert_int_equal(tokens_of(json_array_get(run->history, 0)), 1000);
        assert_int_equal(tokens_of(json_array_get(run->history, 1)), 3000000000);
        assert_int_equal(tokens_of(json_array_get(run->history, 2)), 3000000000);
        qvl_text text = read_output("trainer_log.jsonl");
        double throughput = 0.0;
        assert_int_equal(sscanf(strstr(text.data, "\"throughput\""),
                                "\"throughput\": %lf, \"total_tokens\": 1000,", &throughput),
                         1);
        assert_true(throughput > 5.0 && throughput <= 10.0);
        assert_non_null(strstr(text.data, "\"total_tokens\": 3000000000}\n"));
        qvl_text_fini(&text);
        expect_ok(qvl_run_log_save_state(run, output_dir, 30, 2.5, &err), &err);
        static const char *const FILES[] = {"train_results.json", "eval_results.json",
                                            "all_results.json", "trainer_state.json"};
        for (size_t f = 0; f < sizeof FILES / sizeof *FILES; f++) {
            json_t *root = read_json(FILES[f]);
            assert_int_equal(tokens_of(root), 3000000000);
            json_decref(root);
        }
        if (i + 1 < sizeof VALUES / sizeof *VALUES)
            stop(state);
    }
}

/* Not asked for: no word of them. */
static void tokens_are_not_counted(void **state)
{
    qvl_err err = {0};
    (void)state;
    open_log("include_num_input_tokens_seen: false\n");
    run->total_tokens = 1000;
    log_eval(30, 0.5);
    finish();
    assert_int_equal(tokens_of(json_array_get(run->history, 0)), -1);
    assert_int_equal(tokens_of(json_array_get(run->history, 1)), -1);
    expect_last_keys("current_steps total_steps epoch percentage elapsed_time remaining_time ");
    expect_ok(qvl_run_log_save_state(run, output_dir, 30, 2.5, &err), &err);
    json_t *root = read_json("trainer_state.json");
    assert_int_equal(tokens_of(root), 0);
    json_decref(root);
}

#define RESULTS_TEST(name) cmocka_unit_test_teardown(name, stop)

int main(void)
{
    const struct CMUnitTest tests[] = {
        RESULTS_TEST(training_results),           RESULTS_TEST(evaluation_results),
        RESULTS_TEST(results_without_evaluation), RESULTS_TEST(tokens_are_counted),
        RESULTS_TEST(tokens_are_not_counted),
    };
    return cmocka_run_group_tests(tests, scratch_make, scratch_remove);
}
