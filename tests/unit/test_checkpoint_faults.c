/* Checkpoints when things go wrong: damage, full disks, and being killed at any moment. The last
 * whole one is always found, and nothing half-written is taken for one. */
#include "src/train/checkpoint.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>

#include <cmocka.h>

#include "scratch_files.h"

#include "run_fixtures.h"

#include "checkpoint_state.h"
#include "library_sanitizers.h"
#include "io/hdf5_tools.h"
#include "io/manifest.h"

static char output_dir[QVL_PATH_BYTES];
static qvl_lora *lora;
static qvl_config *config;
static qvl_run_log *run;
static qvl_log console;

static int start(void **state)
{
    (void)state;
    qvl_log_init(&console, "test");
    scratch_directory(output_dir, "out");
    lora = small_lora(2, "all");
    config = config_of(output_dir, "");
    return qvl_run_log_create(&run, output_dir, config, 30, NULL) != QVL_OK;
}

static int stop(void **state)
{
    (void)state;
    qvl_run_log_destroy(run);
    qvl_config_destroy(config);
    qvl_lora_destroy(lora);
    return 0;
}

static qvl_status save(int64_t step, int64_t keep, qvl_err *err)
{
    const qvl_checkpoint_options options = {
        .output_dir = output_dir, .base_model = "base", .keep = keep};
    qvl_train_state training = new_state(lora);
    set_step(&training, lora, step);
    const qvl_status rc = qvl_checkpoint_save(&options, &training, lora, run, err);
    free_state(&training);
    return rc;
}

static void must_save(int64_t step)
{
    qvl_err err = {0};
    expect_ok(save(step, 0, &err), &err);
}

static char *path_of(char out[QVL_PATH_BYTES], const char *name)
{
    assert_int_equal(qvl_path_join(out, output_dir, name, NULL), QVL_OK);
    return out;
}

/* The step of the newest whole checkpoint, whose state is that step's; -1 when there is none. */
static int64_t newest_whole(void)
{
    char path[QVL_PATH_BYTES];
    qvl_train_state training = new_state(lora);
    qvl_text other_order = {0};
    int64_t step = -1;
    qvl_err err = {0};
    expect_ok(qvl_checkpoint_find(path, output_dir, &console, &err), &err);
    if (path[0]) {
        expect_ok(qvl_checkpoint_load(path, &training, lora, NULL, &other_order, &err), &err);
        expect_state(&training, lora, training.step);
        step = strtoll(strrchr(path, '-') + 1, NULL, 10);
        assert_int_equal(step, training.step);
    }
    free_state(&training);
    qvl_text_fini(&other_order);
    return step;
}

/* Writes the warnings of the search to nowhere: there are many. */
static int64_t newest_whole_quietly(void)
{
    const int kept = dup(STDERR_FILENO), nowhere = open("/dev/null", O_WRONLY);
    assert_true(kept >= 0 && nowhere >= 0);
    dup2(nowhere, STDERR_FILENO);
    const int64_t step = newest_whole();
    dup2(kept, STDERR_FILENO);
    close(kept);
    close(nowhere);
    return step;
}

/* A byte turned over, an end cut off, a file gone: in each of its files. */
static void damaged_checkpoints_are_passed_over(void **state)
{
    static const char *const FILES[] = {"adapter_config.json", "adapter_model.safetensors",
                                        "manifest.json", "optimizer.h5", "trainer_state.json"};
    char path[QVL_PATH_BYTES], name[128];
    (void)state;
    must_save(10);
    for (int file = 0; file < 5; file++)
        for (int damage = 0; damage < 5; damage++) {
            struct stat st;
            must_save(20);
            assert_int_equal(newest_whole(), 20);
            snprintf(name, sizeof name, "checkpoint-20/%s", FILES[file]);
            path_of(path, name);
            assert_int_equal(stat(path, &st), 0);
            if (damage == 0)
                flip_byte(path, 0);
            else if (damage == 1)
                flip_byte(path, st.st_size / 2);
            else if (damage == 2)
                assert_int_equal(truncate(path, st.st_size - 2), 0);
            else if (damage == 3)
                assert_int_equal(truncate(path, 0), 0);
            else
                assert_int_equal(unlink(path), 0);
            assert_int_equal(newest_whole_quietly(), 10);
            assert_int_equal(qvl_tree_remove(path_of(path, "checkpoint-20"), NULL), QVL_OK);
        }
}

/* A damaged one is warned of by name; a checkpoint of that step is then written anew. */
static void damaged_checkpoints_are_replaced(void **state)
{
    char path[QVL_PATH_BYTES];
    (void)state;
    must_save(20);
    flip_byte(path_of(path, "checkpoint-20/optimizer.h5"), 3000);
    FILE *capture = tmpfile();
    assert_non_null(capture);
    fflush(stderr);
    const int kept = dup(STDERR_FILENO);
    dup2(fileno(capture), STDERR_FILENO);
    const int64_t step = newest_whole();
    fflush(stderr);
    dup2(kept, STDERR_FILENO);
    close(kept);
    char text[2048] = "";
    rewind(capture);
    assert_true(fread(text, 1, sizeof text - 1, capture) > 0);
    fclose(capture);
    assert_int_equal(step, -1);
    assert_non_null(strstr(text, "warning: "));
    assert_non_null(strstr(text, "checkpoint-20 is not whole and is passed over"));
    assert_non_null(strstr(text, "optimizer.h5"));
    must_save(20);
    assert_int_equal(newest_whole(), 20);
}

/* Renamed directories and files put in place of one. */
static void impostors_are_passed_over(void **state)
{
    char path[QVL_PATH_BYTES], other[QVL_PATH_BYTES];
    (void)state;
    must_save(10);
    copy_directory(path_of(path, "checkpoint-30"), path_of(other, "checkpoint-10"));
    assert_int_equal(newest_whole_quietly(), 10); /* its manifest is of step 10 */
    write_text(path_of(path, "checkpoint-40"), "a file");
    assert_int_equal(qvl_directory_create(path_of(path, "checkpoint-50"), NULL), QVL_OK);
    assert_int_equal(newest_whole_quietly(), 10);
}

/* optimizer.h5 with a member missing or wrong, under a manifest that agrees. */
static void incomplete_states_are_refused(void **state)
{
    static const char *const ATTRIBUTES[] = {"format",     "version",      "step",    "parameters",
                                             "loss_steps", "total_tokens", "identity"};
    static const char *const ARRAYS[] = {"sums", "exp_avg", "exp_avg_sq"};
    char path[QVL_PATH_BYTES], directory[QVL_PATH_BYTES];
    qvl_train_state training = new_state(lora);
    qvl_text other_order = {0};
    qvl_err err = {0};
    (void)state;
    path_of(path, "checkpoint-20/optimizer.h5");
    path_of(directory, "checkpoint-20");
    for (int i = 0; i < 10; i++) {
        must_save(20);
        const hid_t file = H5Fopen(path, H5F_ACC_RDWR, H5P_DEFAULT);
        assert_true(file >= 0);
        if (i < 7)
            assert_true(H5Adelete(file, ATTRIBUTES[i]) >= 0);
        else
            assert_true(H5Ldelete(file, ARRAYS[i - 7], H5P_DEFAULT) >= 0);
        H5Fclose(file);
        expect_ok(qvl_manifest_write(directory, 20, &err), &err);
        expect_failure(qvl_checkpoint_load(directory, &training, lora, NULL, &other_order, &err),
                       QVL_EDATA, &err, "optimizer.h5");
    }
    must_save(20);
    expect_ok(qvl_manifest_write(directory, 21, &err), &err);
    expect_failure(qvl_checkpoint_load(directory, &training, lora, NULL, &other_order, &err),
                   QVL_EDATA, &err, "of step 20, the manifest of step 21");
    write_text(path, "no HDF5");
    expect_ok(qvl_manifest_write(directory, 20, &err), &err);
    expect_failure(qvl_checkpoint_load(directory, &training, lora, NULL, &other_order, &err),
                   QVL_EDATA, &err, "optimizer.h5");
    free_state(&training);
    qvl_text_fini(&other_order);
}

/* A disk that is full after any number of bytes of a file. */
static void full_disks_leave_the_last_one(void **state)
{
    int failures = 0;
    (void)state;
    must_save(10);
    for (rlim_t limit = 1; limit < 40000; limit += 1 + limit / 8) {
        qvl_err err = {0};
        limit_files(limit);
        const qvl_status rc = save(20, 1, &err);
        limit_files(0);
        if (rc == QVL_OK)
            break;
        expect_failure(rc, QVL_EIO, &err, "checkpoint-20");
        assert_int_equal(count_in(output_dir, ""), 1);
        assert_int_equal(newest_whole(), 10);
        failures++;
    }
    assert_true(failures > 20);
    assert_int_equal(newest_whole(), 20); /* there was room at last */
    assert_int_equal(count_in(output_dir, ""), 1);
}

static void directories_that_are_gone(void **state)
{
    qvl_err err = {0};
    (void)state;
    assert_int_equal(qvl_tree_remove(output_dir, NULL), QVL_OK);
    expect_failure(save(20, 1, &err), QVL_EIO, &err, "checkpoint-20|No such file");
    assert_int_equal(newest_whole(), -1);
}

/* A process that saves and saves, killed at some moment: whatever is then found is whole, not older
 * than the last save that it reported, and of one of its steps. */
static void killed_at_any_moment(void **state)
{
    enum { ROUNDS = 40, KEEP = 2 };
    uint64_t rng = 3;
    int64_t step = 1;
    (void)state;
    must_save(step);
    for (int round = 0; round < ROUNDS; round++) {
        int reports[2], status = 0;
        int64_t reported = step, last = 0;
        assert_int_equal(pipe(reports), 0);
        const pid_t child = fork();
        assert_true(child >= 0);
        if (child == 0) {
            qvl_err err = {0};
            close(reports[0]);
            for (int64_t next = step + 1;; next++)
                if (save(next, KEEP, &err) != QVL_OK ||
                    write(reports[1], &next, sizeof next) != sizeof next)
                    _exit(1);
        }
        close(reports[1]);
        if (read(reports[0], &last, sizeof last) == sizeof last)
            reported = last;
        const long wait_ns = (long)(qvl_splitmix64(&rng) % 8000000);
        nanosleep(&(struct timespec){.tv_nsec = wait_ns}, NULL);
        assert_int_equal(kill(child, SIGKILL), 0);
        while (read(reports[0], &last, sizeof last) == sizeof last)
            reported = last;
        close(reports[0]);
        assert_int_equal(waitpid(child, &status, 0), child);
        assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
        assert_true(count_in(output_dir, ".tmp") <= 2); /* half written, half removed */
        assert_int_equal(qvl_checkpoint_clean(output_dir, NULL), QVL_OK); /* as every start does */
        const int64_t found = newest_whole_quietly();
        assert_true(found == reported || found == reported + 1);
        assert_int_equal(count_in(output_dir, ".tmp"), 0);
        assert_true(count_in(output_dir, "") <= KEEP + 1);
        step = found;
    }
    assert_true(step > ROUNDS);
}

#define RUN_TEST(name) cmocka_unit_test_setup_teardown(name, start, stop)

int main(void)
{
    const struct CMUnitTest tests[] = {
        RUN_TEST(damaged_checkpoints_are_passed_over),
        RUN_TEST(damaged_checkpoints_are_replaced),
        RUN_TEST(impostors_are_passed_over),
        RUN_TEST(incomplete_states_are_refused),
        RUN_TEST(full_disks_leave_the_last_one),
        RUN_TEST(directories_that_are_gone),
        RUN_TEST(killed_at_any_moment),
    };
    qvl_h5_quiet();
    return cmocka_run_group_tests(tests, scratch_make, scratch_remove);
}
