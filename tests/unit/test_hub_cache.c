/* Model directories, and hub names in the local cache. */
#include "io/hub_cache.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tests/unit/scratch_files.h"

static const char *const VARIABLES[] = {"HF_HUB_CACHE", "HF_HOME", "XDG_CACHE_HOME", "HOME"};

static void set_variables(const char *hub, const char *home, const char *xdg, const char *user)
{
    const char *const values[] = {hub, home, xdg, user};
    char path[QVL_PATH_BYTES];
    for (int i = 0; i < 4; i++)
        if (values[i])
            setenv(VARIABLES[i], scratch_path(path, values[i]), 1);
        else
            unsetenv(VARIABLES[i]);
}

/* root/models--o--m with the branch main at commit abc, and the tag v1 at def. */
static void make_cache(const char *root)
{
    char path[QVL_PATH_BYTES], model[QVL_PATH_BYTES];
    snprintf(model, sizeof model, "%s/%s/models--o--m", scratch, root);
    static const char *const PARTS[] = {"refs", "snapshots/abc", "snapshots/def"};
    for (int i = 0; i < 3; i++) {
        assert_int_equal(qvl_path_join(path, model, PARTS[i], NULL), QVL_OK);
        assert_int_equal(qvl_directory_create(path, NULL), QVL_OK);
    }
    write_text_in(model, "refs/main", "abc");
    write_text_in(model, "refs/v1", "def\n");
    write_text_in(model, "refs/gone", "123");
}

static void expect_found(const char *cache_dir, const char *revision, const char *expected)
{
    char out[QVL_PATH_BYTES], path[QVL_PATH_BYTES];
    qvl_err err = {0};
    expect_ok(qvl_hub_find(out, "o/m", cache_dir, revision, &err), &err);
    assert_string_equal(out, scratch_path(path, expected));
}

static void a_directory_is_itself(void **state)
{
    (void)state;
    char path[QVL_PATH_BYTES], out[QVL_PATH_BYTES];
    qvl_err err = {0};
    scratch_directory(path, "o/m"); /* it has the form of a hub name too */
    expect_ok(qvl_hub_find(out, path, NULL, "main", &err), &err);
    assert_string_equal(out, path);
}

static void caches_are_searched_in_order(void **state)
{
    (void)state;
    char path[QVL_PATH_BYTES];
    make_cache("hub");
    make_cache("home/hub");
    make_cache("xdg/huggingface/hub");
    make_cache("user/.cache/huggingface/hub");
    make_cache("given");
    set_variables("hub", "home", "xdg", "user");
    expect_found(scratch_path(path, "given"), "main", "given/models--o--m/snapshots/abc");
    expect_found(NULL, "main", "hub/models--o--m/snapshots/abc");
    expect_found("", "main", "hub/models--o--m/snapshots/abc");
    set_variables(NULL, "home", "xdg", "user");
    expect_found(NULL, "main", "home/hub/models--o--m/snapshots/abc");
    set_variables(NULL, NULL, "xdg", "user");
    expect_found(NULL, NULL, "xdg/huggingface/hub/models--o--m/snapshots/abc");
    set_variables(NULL, NULL, NULL, "user");
    expect_found(NULL, "v1", "user/.cache/huggingface/hub/models--o--m/snapshots/def");
    expect_found(NULL, "def", "user/.cache/huggingface/hub/models--o--m/snapshots/def");
    setenv("HF_HUB_CACHE", "", 1); /* empty is unset */
    expect_found(NULL, "main", "user/.cache/huggingface/hub/models--o--m/snapshots/abc");
}

static void what_is_not_there_is_said(void **state)
{
    (void)state;
    char out[QVL_PATH_BYTES];
    qvl_err err = {0};
    make_cache("hub");
    set_variables("hub", NULL, NULL, NULL);
    expect_failure(qvl_hub_find(out, "o/other", NULL, "main", &err), QVL_EMISSING, &err,
                   "o/other: neither a directory nor in the hub cache|/hub (revision main)|nothing "
                   "is fetched");
    expect_failure(qvl_hub_find(out, "o/m", NULL, "v2", &err), QVL_EMISSING, &err, "(revision v2)");
    expect_failure(qvl_hub_find(out, "o/m", NULL, "gone", &err), QVL_EMISSING, &err,
                   "(revision gone)");
    static const char *const NO_NAMES[] = {"m", "./o/m", "../o", "/o/m", "o/", "o/m/x", "", "o//m"};
    for (size_t i = 0; i < sizeof NO_NAMES / sizeof *NO_NAMES; i++)
        expect_failure(qvl_hub_find(out, NO_NAMES[i], NULL, "main", &err), QVL_EMISSING, &err,
                       "no such model directory");
}

/* What a branch names is a directory of snapshots, and nothing that leads out of it. */
static void a_branch_names_a_commit(void **state)
{
    (void)state;
    char out[QVL_PATH_BYTES], path[QVL_PATH_BYTES];
    qvl_err err = {0};
    make_cache("hub");
    set_variables("hub", NULL, NULL, NULL);
    static const char *const BAD[] = {"", "\n", "../../../../outside", "/etc", ".", "..", "abc/.."};
    scratch_path(path, "hub/models--o--m/refs/main");
    for (size_t i = 0; i < sizeof BAD / sizeof *BAD; i++) {
        write_text(path, BAD[i]);
        expect_failure(qvl_hub_find(out, "o/m", NULL, "main", &err), QVL_EDATA, &err,
                       "refs/main: is not a revision");
    }
    write_file(path, "abc\0def", 7);
    expect_failure(qvl_hub_find(out, "o/m", NULL, "main", &err), QVL_EDATA, &err,
                   "refs/main: is not a revision");
    assert_int_equal(unlink(path), 0);
    assert_int_equal(mkfifo(path, 0600), 0);
    expect_failure(qvl_hub_find(out, "o/m", NULL, "main", &err), QVL_EMISSING, &err,
                   "refs/main: not a regular file");
    assert_int_equal(unlink(path), 0);
    write_text(path, "abc\r\n");
    expect_found(NULL, "main", "hub/models--o--m/snapshots/abc");
}

/* Not beneath the working directory either. */
static void without_a_home_nothing_is_searched(void **state)
{
    (void)state;
    char out[QVL_PATH_BYTES], before[QVL_PATH_BYTES];
    qvl_err err = {0};
    make_cache(".cache/huggingface/hub");
    set_variables(NULL, NULL, NULL, NULL);
    assert_int_equal(qvl_tree_remove(scratch_path(before, "o"), NULL), QVL_OK);
    assert_non_null(getcwd(before, sizeof before));
    assert_int_equal(chdir(scratch), 0);
    expect_failure(qvl_hub_find(out, "o/m", NULL, "main", &err), QVL_EMISSING, &err,
                   "o/m: neither a directory nor in a hub cache|HOME is not set");
    assert_int_equal(chdir(before), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_directory_is_itself),
        cmocka_unit_test(caches_are_searched_in_order),
        cmocka_unit_test(what_is_not_there_is_said),
        cmocka_unit_test(a_branch_names_a_commit),
        cmocka_unit_test(without_a_home_nothing_is_searched),
    };
    return cmocka_run_group_tests_name("hub_cache", tests, scratch_make, scratch_remove);
}
