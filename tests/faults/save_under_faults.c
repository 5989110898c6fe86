/* Every call of a save, one after the other, failing once, failing from then on, coming up short,
 * or being the last: whatever is then in output_dir, the newest whole checkpoint loads, bit for
 * bit, and nothing half-written is taken for one.
 *
 *   save_under_faults LIBRARY          the test; starts itself under the library for every case:
 *   save_under_faults save DIRECTORY   saves step 10, then step 20 under faults, then again if it
 * failed save_under_faults load DIRECTORY   finds and loads under faults
 */
#include "src/train/checkpoint_writer.h"

#include <dlfcn.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>

#include <cmocka.h>

#include "../unit/scratch_files.h"

#include "../unit/run_fixtures.h"

#include "../unit/checkpoint_state.h"
#include "io/manifest.h"

/* How a child ends. */
enum { DONE = 0, DONE_AT_LAST = 10, FAILED = 11, WRONG = 12 };

static qvl_lora *lora;
static qvl_log console;

/* ---- under the library -------------------------------------------------------------------------
 */

static void call_library(const char *name, int argument)
{
    void *symbol = dlsym(RTLD_DEFAULT, name);
    void (*function)(int) = NULL;
    memcpy(&function, &symbol, sizeof function);
    if (function)
        function(argument);
}

static qvl_status save_once(qvl_checkpoint_writer *writer, const char *directory,
                            const qvl_train_state *state, const qvl_run_log *run)
{
    const qvl_checkpoint_options options = {.output_dir = directory, .base_model = "base"};
    qvl_checkpoint_image image = {0};
    qvl_write_result result;
    qvl_err err = {QVL_OK, ""};
    qvl_status rc = qvl_checkpoint_image_make(&image, &options, state, lora, run, &err);
    if (rc == QVL_OK)
        rc = qvl_checkpoint_writer_submit(writer, &image, &err);
    qvl_checkpoint_image_fini(&image);
    if (rc != QVL_OK)
        return rc;
    while (!qvl_checkpoint_writer_wait(writer, 1.0)) {
    }
    return qvl_checkpoint_writer_poll(writer, &result) ? result.err.status : QVL_EINTERNAL;
}

static int child_save(const char *directory)
{
    const qvl_checkpoint_options options = {.output_dir = directory, .base_model = "base"};
    qvl_config *config = config_of(directory, "");
    qvl_checkpoint_writer *writer = NULL;
    qvl_run_log *run = NULL;
    qvl_train_state state = new_state(lora);
    qvl_err err = {QVL_OK, ""};
    expect_ok(qvl_run_log_create(&run, directory, config, 30, &err), &err);
    set_step(&state, lora, 10);
    expect_ok(qvl_checkpoint_save(&options, &state, lora, run, &err), &err);
    expect_ok(qvl_checkpoint_writer_create(&writer, directory, 1, &err), &err);
    set_step(&state, lora, 20);
    call_library("qvl_faults_arm", 1);
    int code = DONE;
    if (save_once(writer, directory, &state, run) != QVL_OK)
        code = save_once(writer, directory, &state, run) == QVL_OK ? DONE_AT_LAST : FAILED;
    call_library("qvl_faults_arm", 0);
    call_library("qvl_faults_report", 0);
    qvl_checkpoint_writer_destroy(writer);
    return code;
}

static bool is_right(const qvl_train_state *got)
{
    const size_t bytes = (size_t)qvl_lora_parameters(lora) * sizeof(float);
    qvl_train_state want = new_state(lora);
    set_step(&want, lora, got->step);
    const bool is_same = memcmp(got->param, want.param, bytes) == 0 &&
                         memcmp(got->exp_avg, want.exp_avg, bytes) == 0 &&
                         memcmp(got->exp_avg_sq, want.exp_avg_sq, bytes) == 0 &&
                         got->total_tokens == want.total_tokens && got->loss_sum == want.loss_sum;
    free_state(&want);
    return is_same;
}

/* Finds and loads; a state that is taken must be right. */
static int load(const char *directory, int64_t *out_step, qvl_err *err)
{
    char path[QVL_PATH_BYTES];
    qvl_train_state state = new_state(lora);
    qvl_text other = {0};
    int code = FAILED;
    *out_step = -1;
    call_library("qvl_faults_arm", 1);
    qvl_status rc = qvl_checkpoint_find(path, directory, &console, err);
    if (rc == QVL_OK && path[0])
        rc = qvl_checkpoint_load(path, &state, lora, NULL, &other, err);
    call_library("qvl_faults_arm", 0);
    if (rc == QVL_OK && path[0]) {
        *out_step = state.step;
        code = is_right(&state) ? DONE : WRONG;
    }
    free_state(&state);
    qvl_text_fini(&other);
    return code;
}

static int child_load(const char *directory)
{
    qvl_err err = {QVL_OK, ""};
    int64_t step = 0;
    const int code = load(directory, &step, &err);
    call_library("qvl_faults_report", 0);
    return code == DONE && step != 20 ? WRONG : code;
}

/* ---- the test ----------------------------------------------------------------------------------
 */

typedef struct fault {
    const char *call, *how;
    long nth, times;
} fault;

static const char *library, *self;
static int n_cases, n_failures;

/* Exit code of the child, or minus its signal. */
static int run_child(const char *what, const char *directory, const fault *f, const char *report)
{
    char number[2][24];
    snprintf(number[0], sizeof number[0], "%ld", f->nth);
    snprintf(number[1], sizeof number[1], "%ld", f->times);
    const pid_t child = fork();
    if (child == 0) {
        setenv("LD_PRELOAD", library, 1);
        setenv("QVL_FAULT_CALL", f->call, 1);
        setenv("QVL_FAULT_HOW", f->how, 1);
        setenv("QVL_FAULT_NTH", number[0], 1);
        setenv("QVL_FAULT_TIMES", number[1], 1);
        setenv("QVL_FAULT_COUNTS", report, 1);
        if (freopen("/dev/null", "w", stderr))
            execl(self, self, what, directory, (char *)NULL);
        _exit(127);
    }
    int status = 0;
    if (child < 0 || waitpid(child, &status, 0) != child)
        return 127;
    return WIFSIGNALED(status) ? -WTERMSIG(status) : WEXITSTATUS(status);
}

static void complain(const char *what, const fault *f, int code, int64_t step, const char *why)
{
    n_failures++;
    printf("FAILED %s, call %s %ld (%ld times) %s: exit %d, newest %lld: %s\n", what, f->call,
           f->nth, f->times, f->how, code, (long long)step, why);
}

static long count_of(const char *report, const char *call)
{
    char name[32];
    long n = 0, found = 0;
    FILE *file = fopen(report, "r");
    while (file && fscanf(file, "%31s %ld", name, &n) == 2)
        if (strcmp(name, call) == 0)
            found = n;
    if (file)
        fclose(file);
    return found;
}

static void save_case(const char *directory, const char *report, const fault *f)
{
    qvl_err err = {QVL_OK, ""};
    int64_t step = -1;
    const bool is_kill = strcmp(f->how, "kill") == 0, is_memory = strcmp(f->call, "malloc") == 0;
    n_cases++;
    qvl_tree_remove(directory, NULL);
    qvl_directory_create(directory, NULL);
    const int code = run_child("save", directory, f, report);
    qvl_checkpoint_clean(directory, &err);
    const size_t n_left = count_in(directory, ""), n_half = count_in(directory, ".tmp");
    const int loaded = load(directory, &step, &err);
    if (loaded != DONE)
        complain("save", f, code, step, err.text);
    else if (is_memory) /* HDF5 may crash for want of memory: the files are what counts */
        return;
    else if (is_kill ? code != -SIGKILL : code != DONE && code != DONE_AT_LAST && code != FAILED)
        complain("save", f, code, step, "did not end as it should");
    else if (step != 10 && step != 20)
        complain("save", f, code, step, err.text);
    else if ((code == DONE || code == DONE_AT_LAST) && step != 20)
        complain("save", f, code, step, "the save that was reported is not there");
    else if (code == FAILED && f->times == 1)
        complain("save", f, code, step, "the second attempt failed too");
    else if (n_half || n_left > 2)
        complain("save", f, code, step, "something else is left");
}

static void save_cases(const char *directory, const char *report)
{
    static const char *const CALLS[] = {"open",  "write", "fsync",    "close",  "rename",
                                        "mkdir", "read",  "truncate", "remove", "malloc"};
    static const char *const HOWS[] = {"kill", "EIO", "ENOSPC", "EINTR", "short"};
    const fault none = {"none", "EIO", 0, 0};
    if (run_child("save", directory, &none, report) != DONE)
        complain("save", &none, 0, 0, "without a fault");
    char counted[QVL_PATH_BYTES + 8];
    snprintf(counted, sizeof counted, "%s.first", report);
    rename(report, counted);
    for (size_t c = 0; c < sizeof CALLS / sizeof *CALLS; c++) {
        const long n = count_of(counted, CALLS[c]);
        const bool is_write = strcmp(CALLS[c], "write") == 0;
        const bool is_memory = strcmp(CALLS[c], "malloc") == 0;
        printf("%s: %ld calls of a save\n", CALLS[c], n);
        for (long i = 1; i <= n; i++) {
            for (int h = is_memory ? 1 : 0; h < (is_write ? 5 : 2); h++)
                save_case(directory, report, &(fault){CALLS[c], HOWS[h], i, 1});
            if (!is_memory)
                save_case(directory, report, &(fault){CALLS[c], "ENOSPC", i, -1});
        }
    }
}

static void load_cases(const char *directory, const char *report)
{
    static const char *const CALLS[] = {"open", "read", "close"};
    char counted[QVL_PATH_BYTES + 8];
    const fault none = {"none", "EIO", 0, 0};
    qvl_tree_remove(directory, NULL);
    qvl_directory_create(directory, NULL);
    run_child("save", directory, &none, report);
    if (run_child("load", directory, &none, report) != DONE)
        complain("load", &none, 0, 0, "without a fault");
    snprintf(counted, sizeof counted, "%s.first", report);
    rename(report, counted);
    for (size_t c = 0; c < sizeof CALLS / sizeof *CALLS; c++) {
        const long n = count_of(counted, CALLS[c]);
        printf("%s: %ld calls of a load\n", CALLS[c], n);
        for (long i = 1; i <= n; i++)
            for (int h = 0; h < 2; h++) {
                const fault f = {CALLS[c], h ? "short" : "EIO", i, 1};
                const int code = run_child("load", directory, &f, report);
                n_cases++;
                /* A read that fails may mean an older checkpoint, or none: never a wrong one. */
                if (code != DONE && (code != FAILED || h))
                    complain("load", &f, code, 0, "neither loaded nor refused");
            }
    }
}

int main(int argc, char **argv)
{
    char directory[QVL_PATH_BYTES], report[QVL_PATH_BYTES];
    qvl_log_init(&console, "save_under_faults");
    lora = small_lora(2, "q_proj");
    if (argc == 3 && strcmp(argv[1], "save") == 0)
        return child_save(argv[2]);
    if (argc == 3 && strcmp(argv[1], "load") == 0)
        return child_load(argv[2]);
    if (argc != 2 || scratch_make(NULL) != 0)
        return 64;
    library = argv[1];
    self = argv[0];
    scratch_path(directory, "out");
    scratch_path(report, "counts");
    qvl_directory_create(directory, NULL);
    save_cases(directory, report);
    load_cases(directory, report);
    scratch_remove(NULL);
    printf("%d cases, %d failures\n", n_cases, n_failures);
    return n_failures > 0 || n_cases < 300;
}
