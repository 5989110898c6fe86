/* report_to: tensorboard: which entries, under which tags, where; what happens when they cannot be
 * written. */
#include "src/train/event_log.h"

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

#include "io/json_file.h"
#include "library_sanitizers.h"

static char output_dir[QVL_PATH_BYTES], logging_dir[QVL_PATH_BYTES];
static qvl_log console;
static qvl_config *config;
static qvl_event_log *events;

static int start(void **state)
{
    (void)state;
    qvl_log_init(&console, "test");
    scratch_directory(output_dir, "out");
    scratch_path(logging_dir, "events");
    assert_int_equal(qvl_tree_remove(logging_dir, NULL), QVL_OK);
    return 0;
}

static int stop(void **state)
{
    (void)state;
    limit_files(0);
    qvl_event_log_destroy(events);
    qvl_config_destroy(config);
    events = NULL;
    config = NULL;
    return 0;
}

static qvl_status open_with(const char *lines, qvl_err *err)
{
    qvl_event_log_destroy(events);
    qvl_config_destroy(config);
    config = config_of(output_dir, lines);
    return qvl_event_log_create(&events, config, &console, err);
}

/* With logging_dir in scratch. */
static void open_there(void)
{
    char lines[QVL_PATH_BYTES + 64];
    qvl_err err = {0};
    snprintf(lines, sizeof lines, "report_to: tensorboard\nlogging_dir: %s\n", logging_dir);
    expect_ok(open_with(lines, &err), &err);
}

static void add(int step)
{
    json_t *entry = json_pack("{s:f,s:f,s:o,s:i,s:i}", "loss", 1.5, "eval_loss", 2.5, "grad_norm",
                              qvl_json_real(strtod("nan", NULL)), "train_runtime", 7, "step", step);
    assert_non_null(entry);
    qvl_event_log_add(events, entry);
    json_decref(entry);
}

/* The only name in a directory, which begins with prefix; the directory becomes its path. */
static void go_down(char directory[QVL_PATH_BYTES], const char *prefix)
{
    char **names = NULL, path[QVL_PATH_BYTES];
    size_t n = 0;
    assert_int_equal(qvl_directory_list(&names, &n, directory, NULL), QVL_OK);
    assert_int_equal(n, 1);
    assert_int_equal(strncmp(names[0], prefix, strlen(prefix)), 0);
    assert_int_equal(qvl_path_join(path, directory, names[0], NULL), QVL_OK);
    strcpy(directory, path);
    qvl_names_free(names, n);
}

static qvl_text read_events(const char *directory)
{
    char path[QVL_PATH_BYTES];
    strcpy(path, directory);
    go_down(path, "events.out.tfevents.");
    return read_file(path);
}

static size_t count_text(const qvl_text *bytes, const char *text)
{
    size_t count = 0;
    for (size_t i = 0; i + strlen(text) <= bytes->len; i++)
        count += memcmp(bytes->data + i, text, strlen(text)) == 0;
    return count;
}

static void expect_events(const char *directory, size_t n)
{
    qvl_text bytes = read_events(directory);
    assert_int_equal(count_text(&bytes, "brain.Event:2"), 1);
    assert_int_equal(count_text(&bytes, "train/loss"), n);
    assert_int_equal(count_text(&bytes, "eval/loss"), n);
    assert_int_equal(count_text(&bytes, "train/train_runtime"), n);
    assert_int_equal(count_text(&bytes, "step"), 0);
    assert_int_equal(count_text(&bytes, "grad_norm"), 0); /* not a number */
    qvl_text_fini(&bytes);
}

static void report_to_says_whether(void **state)
{
    static const struct {
        const char *line;
        bool is_on;
    } CASES[] = {{"", false},
                 {"report_to:\n", false},
                 {"report_to: none\n", false},
                 {"report_to: []\n", false},
                 {"report_to: all\n", true},
                 {"report_to: tensorboard\n", true},
                 {"report_to: [none, tensorboard]\n", true},
                 {"report_to:\n- tensorboard\n", true}};
    qvl_err err = {0};
    (void)state;
    for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++) {
        expect_ok(open_with(CASES[i].line, &err), &err);
        assert_int_equal(events != NULL, CASES[i].is_on);
    }
    assert_int_equal(count_in(output_dir, ""), 0); /* nothing before the first entry */
    expect_ok(open_with("", &err), &err);
    add(1);
    assert_int_equal(count_in(output_dir, ""), 0);
}

static void the_place_is_transformers(void **state)
{
    char directory[QVL_PATH_BYTES], host[256] = "";
    qvl_err err = {0};
    int day, hour, minute, second, n = 0;
    (void)state;
    expect_ok(open_with("report_to: tensorboard\n", &err), &err);
    add(5);
    add(6);
    strcpy(directory, output_dir);
    go_down(directory, "runs");
    go_down(directory, "");
    const char *name = qvl_path_name(directory);
    assert_int_equal(sscanf(name + 3, "%2d_%2d-%2d-%2d_%n", &day, &hour, &minute, &second, &n), 4);
    gethostname(host, sizeof host - 1);
    assert_string_equal(name + 3 + n, host);
    expect_events(directory, 2);
}

static void logging_dir_may_have_several_runs(void **state)
{
    (void)state;
    open_there();
    assert_false(qvl_file_exists(logging_dir));
    add(5);
    expect_events(logging_dir, 1);
    open_there();
    add(6);
    assert_int_equal(count_in(logging_dir, ".0") + count_in(logging_dir, ".1"), 2);
    assert_int_equal(count_in(logging_dir, ""), 2);
}

static void a_directory_that_cannot_be_had_is_refused(void **state)
{
    qvl_err err = {0};
    (void)state;
    write_text(logging_dir, "a file");
    char lines[QVL_PATH_BYTES + 64];
    snprintf(lines, sizeof lines, "report_to: tensorboard\nlogging_dir: %s/here\n", logging_dir);
    expect_failure(open_with(lines, &err), QVL_EIO, &err, "events|Not a directory");
    assert_null(events);
}

static void events_of_a_full_disk_come_later(void **state)
{
    (void)state;
    open_there();
    add(1);
    limit_files(100);
    for (int step = 2; step < 300; step++)
        add(step);
    limit_files(0);
    add(300);
    expect_events(logging_dir, 300);
    limit_files(100);
    add(301);
    limit_files(0);
    qvl_event_log_destroy(events); /* tries once more */
    events = NULL;
    expect_events(logging_dir, 301);
}

static void output_dir_taken_away_is_not_made_anew(void **state)
{
    char gone[QVL_PATH_BYTES], directory[QVL_PATH_BYTES];
    qvl_err err = {0};
    (void)state;
    scratch_path(gone, "gone");
    expect_ok(open_with("report_to: tensorboard\n", &err), &err);
    assert_int_equal(rename(output_dir, gone), 0);
    add(1);
    assert_false(qvl_file_exists(output_dir));
    assert_int_equal(rename(gone, output_dir), 0);
    add(2);
    strcpy(directory, output_dir);
    go_down(directory, "runs");
    go_down(directory, "");
    expect_events(directory, 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(report_to_says_whether, start, stop),
        cmocka_unit_test_setup_teardown(the_place_is_transformers, start, stop),
        cmocka_unit_test_setup_teardown(logging_dir_may_have_several_runs, start, stop),
        cmocka_unit_test_setup_teardown(a_directory_that_cannot_be_had_is_refused, start, stop),
        cmocka_unit_test_setup_teardown(events_of_a_full_disk_come_later, start, stop),
        cmocka_unit_test_setup_teardown(output_dir_taken_away_is_not_made_anew, start, stop),
    };
    return cmocka_run_group_tests_name("event_log", tests, scratch_make, scratch_remove);
}
