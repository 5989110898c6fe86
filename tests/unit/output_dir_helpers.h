/* An output_dir of a test, what earlier runs left in it, and the begin of another. Included after
 * "scratch_files.h", "run_fixtures.h" and "checkpoint_state.h". */
#ifndef QVL_TESTS_UNIT_OUTPUT_DIR_HELPERS_H
#define QVL_TESTS_UNIT_OUTPUT_DIR_HELPERS_H

#include "src/train/checkpoint.h"
#include "src/train/output_dir.h"

static char output_dir[QVL_PATH_BYTES], resume[QVL_PATH_BYTES];
static qvl_log console;

static inline int start(void **state)
{
    (void)state;
    qvl_log_init(&console, "test");
    scratch_directory(output_dir, "out");
    return 0;
}

static inline void put(const char *name)
{
    write_text_in(output_dir, name, "{\"current_steps\": 1}\n");
}

static inline void put_checkpoint(int64_t step)
{
    const qvl_checkpoint_options options = {.output_dir = output_dir, .base_model = "base"};
    qvl_lora *lora = small_lora(2, "q_proj");
    qvl_config *config = config_of(output_dir, "");
    qvl_train_state training = new_state(lora);
    qvl_run_log *run = NULL;
    qvl_err err = {0};
    set_step(&training, lora, step);
    expect_ok(qvl_run_log_create(&run, output_dir, config, 30, &err), &err);
    expect_ok(qvl_checkpoint_save(&options, &training, lora, run, &err), &err);
    qvl_run_log_destroy(run);
    qvl_config_destroy(config);
    free_state(&training);
    qvl_lora_destroy(lora);
}

static inline qvl_status open_with(const char *lines, uint64_t needed_bytes, qvl_err *err)
{
    qvl_config *config = config_of(output_dir, lines);
    strcpy(resume, "?");
    const qvl_status rc = qvl_output_dir_open(resume, config, needed_bytes, &console, err);
    qvl_config_destroy(config);
    return rc;
}

static inline qvl_status check_with(const char *lines, qvl_err *err)
{
    qvl_config *config = config_of(output_dir, lines);
    const qvl_status rc = qvl_output_dir_check(config, 1000, &console, err);
    qvl_config_destroy(config);
    return rc;
}

/* As a run does until its first step, which leaves config.yaml. */
static inline void expect_resume(const char *lines, const char *name)
{
    qvl_config *config = config_of(output_dir, lines);
    qvl_err err = {0};
    const size_t count = qvl_file_is_directory(output_dir) ? count_in(output_dir, "") : 0;
    const size_t passing = count ? count_in(output_dir, ".tmp") : 0;
    expect_ok(open_with(lines, 1000, &err), &err);
    assert_string_equal(resume[0] ? qvl_path_name(resume) : "", name);
    assert_true(count_in(output_dir, "") >= count - passing); /* nothing goes before the begin */
    expect_ok(qvl_output_dir_begin(config, resume[0] != '\0', &err), &err);
    qvl_config_destroy(config);
}

/* As a run with these lines left it, killed. */
static inline void leave_config(const char *lines)
{
    qvl_config *config = config_of(output_dir, lines);
    qvl_err err = {0};
    expect_ok(qvl_output_dir_write_config(config, &err), &err);
    qvl_config_destroy(config);
}

#define DIRECTORY_TEST(name) cmocka_unit_test_setup(name, start)

#endif
