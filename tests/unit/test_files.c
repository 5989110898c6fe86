/* Paths, whole files, replacing and copying, directories. */
#include "src/base/files.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>

#include <cmocka.h>

#include "src/base/sha256.h"
#include "src/base/stop.h"
#include "tests/unit/scratch_files.h"

static void raise_term(int number)
{
    (void)number;
    raise(SIGTERM);
}

static void paths_are_joined(void **state)
{
    (void)state;
    char out[QVL_PATH_BYTES], longest[QVL_PATH_BYTES + 1];
    qvl_err err = {0};
    static const char *const CASES[][3] = {
        {"a", "b", "a/b"}, {"a/", "b", "a/b"}, {"", "b", "b"},         {"a", "/b", "/b"},
        {"/", "b", "/b"},  {"a", "", "a/"},    {"a", "../b", "a/../b"}};
    for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++) {
        expect_ok(qvl_path_join(out, CASES[i][0], CASES[i][1], &err), &err);
        assert_string_equal(out, CASES[i][2]);
    }
    memset(longest, 'x', sizeof longest);
    longest[QVL_PATH_BYTES - 1] = '\0';
    expect_ok(qvl_path_join(out, "", longest, &err), &err);
    expect_failure(qvl_path_join(out, "a", longest, &err), QVL_EDATA, &err, "longer than 4095");
    assert_string_equal(qvl_path_name("a/b.c"), "b.c");
    assert_string_equal(qvl_path_name("b"), "b");
    assert_string_equal(qvl_path_name("a/"), "");
}

static void files_are_read(void **state)
{
    (void)state;
    char path[QVL_PATH_BYTES], none[QVL_PATH_BYTES];
    qvl_err err = {0};
    qvl_text content = {0};
    int64_t size = -1;
    static char large[200000];
    memset(large, 'x', sizeof large);
    write_file(scratch_path(path, "large"), large, sizeof large);
    scratch_path(none, "none");
    expect_ok(qvl_file_read(&content, path, sizeof large, &err), &err);
    assert_int_equal(content.len, sizeof large);
    assert_memory_equal(content.data, large, sizeof large);
    assert_int_equal(content.data[content.len], 0);
    expect_failure(qvl_file_read(&content, path, sizeof large - 1, &err), QVL_EDATA, &err,
                   "large: larger than the limit of 199999 bytes");
    expect_ok(qvl_file_size(&size, path, &err), &err);
    assert_int_equal(size, sizeof large);
    write_file(path, "", 0);
    expect_ok(qvl_file_read(&content, path, 10, &err), &err);
    assert_int_equal(content.len, 0);
    assert_string_equal(content.data, "");
    expect_failure(qvl_file_read(&content, none, 10, &err), QVL_EMISSING, &err, "none: No such");
    expect_failure(qvl_file_read(&content, scratch, 10, &err), QVL_EMISSING, &err,
                   "is a directory, not a regular file");
    expect_failure(qvl_file_size(&size, none, &err), QVL_EMISSING, &err, "none: No such");
    expect_failure(qvl_file_size(&size, scratch, &err), QVL_EMISSING, &err, "not a regular file");
    qvl_text_fini(&content);
    assert_true(qvl_file_exists(path) && qvl_file_is_regular(path));
    assert_false(qvl_file_is_directory(path) || qvl_file_exists(none) || qvl_file_is_regular(none));
    assert_true(qvl_file_is_directory(scratch) && !qvl_file_is_regular(scratch));
}

static int on_a_fifo(const char *path)
{
    qvl_text content = {0};
    qvl_err err = {QVL_OK, ""};
    alarm(5);
    return qvl_file_read(&content, path, 10, &err) == QVL_EMISSING &&
                   strstr(err.text, "not a regular file")
               ? 0
               : 1;
}

/* Nobody writes; the stop that is asked for ends the wait. */
static int stopped_on_a_fifo(const char *path)
{
    const struct itimerval soon = {.it_value = {.tv_usec = 200000}};
    qvl_text content = {0};
    qvl_err err = {QVL_OK, ""};
    qvl_stop_install();
    signal(SIGALRM, raise_term);
    setitimer(ITIMER_REAL, &soon, NULL);
    return qvl_file_read_any(&content, path, 10, &err) == QVL_ESTOPPED &&
                   strstr(err.text, "SIGTERM) while waiting for ")
               ? 0
               : 1;
}

/* The writer comes late, and writes in two parts. */
static int written_to_a_fifo(const char *path)
{
    static const struct timespec PAUSE = {.tv_nsec = 150000000};
    qvl_text content = {0};
    alarm(20);
    if (fork() == 0) {
        nanosleep(&PAUSE, NULL);
        const int fd = open(path, O_WRONLY);
        const ssize_t first = write(fd, "ab", 2);
        nanosleep(&PAUSE, NULL);
        _exit(first == 2 && write(fd, "cd", 2) == 2 ? 0 : 1);
    }
    return qvl_file_read_any(&content, path, 10, NULL) == QVL_OK && content.len == 4 &&
                   memcmp(content.data, "abcd", 4) == 0
               ? 0
               : 1;
}

static int in_child(int (*f)(const char *), const char *path)
{
    int status = 0;
    const pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0)
        _exit(f(path));
    assert_int_equal(waitpid(child, &status, 0), child);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}

static void odd_files_are_not_waited_for(void **state)
{
    (void)state;
    char path[QVL_PATH_BYTES], link[QVL_PATH_BYTES], digest[QVL_SHA256_TEXT_BYTES];
    qvl_err err = {0};
    qvl_text content = {0};
    int fd = -1;
    assert_int_equal(mkfifo(scratch_path(path, "fifo"), 0600), 0);
    assert_int_equal(in_child(on_a_fifo, path), 0);
    assert_int_equal(in_child(stopped_on_a_fifo, path), 0);
    assert_int_equal(in_child(written_to_a_fifo, path), 0);
    expect_failure(qvl_file_open(&fd, path, &err), QVL_EMISSING, &err, "fifo: not a regular file");
    assert_int_equal(fd, -1);
    expect_failure(qvl_sha256_file(digest, path, &err), QVL_EMISSING, &err, "not a regular file");
    expect_failure(qvl_file_copy(scratch_path(link, "copy"), path, &err), QVL_EMISSING, &err,
                   "not a regular file");
    expect_failure(qvl_file_open(&fd, "/dev/zero", &err), QVL_EMISSING, &err, "not a regular file");
    expect_failure(qvl_file_read(&content, "-", 9, &err), QVL_EMISSING, &err, "-: No such file");
    expect_failure(qvl_file_read_any(&content, "/dev/zero", 9, &err), QVL_EDATA, &err, "9 bytes");
    expect_failure(qvl_file_read_any(&content, scratch, 9, &err), QVL_EMISSING, &err, "directory");
    assert_int_equal(symlink("loop", scratch_path(link, "loop")), 0);
    expect_failure(qvl_file_open(&fd, link, &err), QVL_EMISSING, &err, "Too many levels");
    write_text(scratch_path(path, "plain"), "plain");
    expect_ok(qvl_file_open(&fd, path, &err), &err);
    assert_int_equal(fcntl(fd, F_GETFL) & O_NONBLOCK, 0);
    assert_int_equal(fcntl(fd, F_GETFD), FD_CLOEXEC);
    close(fd);
    qvl_text_fini(&content);
}

static void parts_of_a_file(void **state)
{
    (void)state;
    char path[QVL_PATH_BYTES], bytes[8] = "";
    qvl_err err = {0};
    write_text(scratch_path(path, "part"), "0123456789");
    const int fd = open(path, O_RDONLY);
    assert_true(fd >= 0);
    expect_ok(qvl_file_read_at(fd, bytes, 4, 6, path, &err), &err);
    assert_memory_equal(bytes, "6789", 4);
    expect_ok(qvl_file_read_at(fd, bytes, 0, 100, path, &err), &err);
    expect_failure(qvl_file_read_at(fd, bytes, 4, 7, path, &err), QVL_EDATA, &err,
                   "part: ends at byte 10, 1 more were expected");
    close(fd);
    expect_failure(qvl_file_read_at(fd, bytes, 4, 0, path, &err), QVL_EIO, &err, "Bad file");
}

static void files_are_replaced(void **state)
{
    (void)state;
    char path[QVL_PATH_BYTES], other[QVL_PATH_BYTES], directory[QVL_PATH_BYTES];
    qvl_err err = {0};
    scratch_directory(directory, "replaced");
    assert_int_equal(qvl_path_join(path, directory, "f", NULL), QVL_OK);
    assert_int_equal(qvl_path_join(other, directory, "g", NULL), QVL_OK);
    expect_ok(qvl_file_replace(path, "old", 3, &err), &err);
    expect_ok(qvl_file_replace(path, "new\0er", 6, &err), &err);
    expect_ok(qvl_file_copy(other, path, &err), &err);
    qvl_text content = read_file(other);
    assert_int_equal(content.len, 6);
    assert_memory_equal(content.data, "new\0er", 6);
    qvl_text_fini(&content);
    assert_int_equal(count_in(directory, ""), 2);
    /* a write that fails leaves the old content, and nothing else */
    static char large[65536];
    limit_files(4096);
    expect_failure(qvl_file_replace(path, large, sizeof large, &err), QVL_EIO, &err, "write |/f");
    limit_files(0);
    content = read_file(path);
    assert_memory_equal(content.data, "new\0er", 6);
    qvl_text_fini(&content);
    assert_int_equal(count_in(directory, ""), 2);
    expect_failure(qvl_file_replace("/proc/nowhere/f", "x", 1, &err), QVL_EIO, &err,
                   "/proc/nowhere/f");
    scratch_path(other, "replaced"); /* a directory is not replaced */
    expect_failure(qvl_file_replace(other, "x", 1, &err), QVL_EIO, &err, "rename to");
    assert_int_equal(count_in(scratch, ".tmp"), 0);
}

static void directories_are_made(void **state)
{
    (void)state;
    char path[QVL_PATH_BYTES], file[QVL_PATH_BYTES];
    qvl_err err = {0};
    expect_ok(qvl_directory_create(scratch_path(path, "made/a/b"), &err), &err);
    assert_true(qvl_file_is_directory(path));
    expect_ok(qvl_directory_create(path, &err), &err);
    expect_ok(qvl_directory_create(scratch_path(path, "made//c/"), &err), &err);
    assert_true(exists_in(scratch, "made/c"));
    expect_ok(qvl_directory_create("", &err), &err);
    expect_ok(qvl_directory_create("/", &err), &err);
    expect_ok(qvl_directory_create(".", &err), &err);
    write_text(scratch_path(file, "made/f"), "x");
    expect_failure(qvl_directory_create(scratch_path(path, "made/f/g"), &err), QVL_EIO, &err,
                   "create directory |made/f");
    expect_failure(qvl_directory_create("/proc/nowhere/x", &err), QVL_EIO, &err, "/proc/nowhere");
}

static void directories_are_taken_back(void **state)
{
    (void)state;
    char path[QVL_PATH_BYTES], first[QVL_PATH_BYTES], expected[QVL_PATH_BYTES];
    qvl_err err = {0};
    expect_ok(qvl_directory_create(scratch_path(path, "back"), &err), &err);
    expect_ok(qvl_directory_create_from(first, scratch_path(path, "back/a/b//c/"), &err), &err);
    assert_string_equal(first, scratch_path(expected, "back/a"));
    qvl_directory_take_back(path, first);
    assert_false(exists_in(scratch, "back/a"));
    assert_true(exists_in(scratch, "back")); /* it was there before */

    expect_ok(qvl_directory_create_from(first, scratch_path(path, "back/a/b"), &err), &err);
    write_text(scratch_path(expected, "back/a/f"), "x");
    qvl_directory_take_back(path, first);
    assert_false(exists_in(scratch, "back/a/b"));
    assert_true(exists_in(scratch, "back/a")); /* somebody uses it */

    expect_ok(qvl_directory_create_from(first, scratch_path(path, "back/a"), &err), &err);
    assert_string_equal(first, "");
    unlink(expected);
    qvl_directory_take_back(path, first);
    assert_true(exists_in(scratch, "back/a"));
    qvl_directory_take_back("elsewhere", path);
    assert_true(exists_in(scratch, "back/a"));

    /* one that fails half-way takes back its own half */
    write_text(scratch_path(expected, "back/f"), "x");
    char deep[QVL_PATH_BYTES];
    snprintf(deep, sizeof deep, "%s/back/new/%0300d", scratch, 0);
    expect_failure(qvl_directory_create_from(first, deep, &err), QVL_EIO, &err, "too long");
    assert_false(exists_in(scratch, "back/new"));
}

static void trees_are_removed(void **state)
{
    (void)state;
    char path[QVL_PATH_BYTES], kept[QVL_PATH_BYTES], link_path[QVL_PATH_BYTES];
    qvl_err err = {0};
    expect_ok(qvl_directory_create(scratch_path(path, "tree/a/b"), &err), &err);
    expect_ok(qvl_directory_create(scratch_path(kept, "kept"), &err), &err);
    write_text(scratch_path(path, "kept/f"), "x");
    write_text(scratch_path(path, "tree/a/b/f"), "x");
    assert_int_equal(symlink("../../kept", scratch_path(link_path, "tree/link")), 0);
    expect_ok(qvl_tree_remove(scratch_path(path, "tree"), &err), &err);
    assert_false(qvl_file_exists(path));
    assert_true(exists_in(scratch, "kept/f"));
    expect_ok(qvl_tree_remove(path, &err), &err);
}

static void directories_are_listed(void **state)
{
    (void)state;
    static const char *const NAMES[] = {".hidden", "B", "a10", "a2", "b"};
    char directory[QVL_PATH_BYTES], **names = NULL;
    size_t count = 0;
    uint64_t free_bytes = 0;
    qvl_err err = {0};
    scratch_directory(directory, "list");
    expect_ok(qvl_directory_list(&names, &count, directory, &err), &err);
    assert_int_equal(count, 0);
    qvl_names_free(names, count);
    for (size_t i = 0; i < 5; i++)
        write_text_in(directory, NAMES[4 - i], "");
    expect_ok(qvl_directory_list(&names, &count, directory, &err), &err);
    assert_int_equal(count, 5);
    for (size_t i = 0; i < 5; i++)
        assert_string_equal(names[i], NAMES[i]);
    qvl_names_free(names, count);
    expect_failure(qvl_directory_list(&names, &count, "nowhere", &err), QVL_EMISSING, &err,
                   "nowhere");
    assert_null(names);
    expect_ok(qvl_disk_free(&free_bytes, directory, &err), &err);
    assert_true(free_bytes > 0);
    expect_failure(qvl_disk_free(&free_bytes, "nowhere", &err), QVL_EIO, &err, "nowhere");
    expect_ok(qvl_file_flush(directory, &err), &err);
    expect_ok(qvl_file_flush_parent("no_slash", &err), &err);
    expect_failure(qvl_file_flush("nowhere", &err), QVL_EIO, &err, "flush nowhere");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(paths_are_joined),
        cmocka_unit_test(files_are_read),
        cmocka_unit_test(parts_of_a_file),
        cmocka_unit_test(files_are_replaced),
        cmocka_unit_test(directories_are_made),
        cmocka_unit_test(directories_are_taken_back),
        cmocka_unit_test(trees_are_removed),
        cmocka_unit_test(directories_are_listed),
        cmocka_unit_test(odd_files_are_not_waited_for),
    };
    return cmocka_run_group_tests_name("files", tests, scratch_make, scratch_remove);
}
