/* The log of a run in a directory of its own, for the tests of what it writes. CMocka and
 * scratch_files.h come before it. */
#ifndef QVL_TESTS_UNIT_RUN_LOG_HELPERS_H
#define QVL_TESTS_UNIT_RUN_LOG_HELPERS_H

#include "io/json_file.h"
#include "run_fixtures.h"
#include "src/train/run_log.h"

static char output_dir[QVL_PATH_BYTES];
static qvl_config *config;
static qvl_run_log *run;

static int stop(void **state)
{
    (void)state;
    qvl_run_log_destroy(run);
    qvl_config_destroy(config);
    return 0;
}

static void log_eval(int64_t step, double loss)
{
    const qvl_log_event event = {.step = step, .epoch = (double)step / 12.0};
    qvl_err err = {0};
    expect_ok(qvl_run_log_eval(run, &event, loss, 2.0, 11, 4, &err), &err);
}

static qvl_text read_output(const char *name)
{
    char path[QVL_PATH_BYTES];
    assert_int_equal(qvl_path_join(path, output_dir, name, NULL), QVL_OK);
    return read_file(path);
}

static json_t *read_json(const char *name)
{
    char path[QVL_PATH_BYTES];
    json_t *root = NULL;
    assert_int_equal(qvl_path_join(path, output_dir, name, NULL), QVL_OK);
    assert_int_equal(qvl_json_read(&root, path, 1 << 20, NULL), QVL_OK);
    return root;
}

#endif
