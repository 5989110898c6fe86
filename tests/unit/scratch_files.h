/* Files of a test: a directory of its own, made before and removed after; and what an error must
 * say. Included after <cmocka.h>. */
#ifndef QVL_TESTS_UNIT_SCRATCH_FILES_H
#define QVL_TESTS_UNIT_SCRATCH_FILES_H

#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "src/base/files.h"
#include "src/base/status.h"
#include "src/base/text.h"

static char scratch[64];

static inline int scratch_make(void **state)
{
    (void)state;
    snprintf(scratch, sizeof scratch, "scratch_XXXXXX");
    return mkdtemp(scratch) ? 0 : -1;
}

static inline int scratch_remove(void **state)
{
    (void)state;
    return qvl_tree_remove(scratch, NULL) == QVL_OK ? 0 : -1;
}

static inline const char *scratch_path(char out[QVL_PATH_BYTES], const char *name)
{
    assert_int_equal(qvl_path_join(out, scratch, name, NULL), QVL_OK);
    return out;
}

/* A directory in the test's own, empty. */
static inline const char *scratch_directory(char out[QVL_PATH_BYTES], const char *name)
{
    scratch_path(out, name);
    assert_int_equal(qvl_tree_remove(out, NULL), QVL_OK);
    assert_int_equal(qvl_directory_create(out, NULL), QVL_OK);
    return out;
}

static inline void write_file(const char *path, const void *bytes, size_t n_bytes)
{
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(bytes, 1, n_bytes, file), n_bytes);
    assert_int_equal(fclose(file), 0);
}

static inline void write_text(const char *path, const char *text)
{
    write_file(path, text, strlen(text));
}

static inline void write_text_in(const char *directory, const char *name, const char *text)
{
    char path[QVL_PATH_BYTES];
    assert_int_equal(qvl_path_join(path, directory, name, NULL), QVL_OK);
    write_text(path, text);
}

/* The whole file; data is NUL-terminated. */
static inline qvl_text read_file(const char *path)
{
    qvl_text content = {0};
    assert_int_equal(qvl_file_read(&content, path, (size_t)1 << 30, NULL), QVL_OK);
    return content;
}

static inline bool exists_in(const char *directory, const char *name)
{
    char path[QVL_PATH_BYTES];
    assert_int_equal(qvl_path_join(path, directory, name, NULL), QVL_OK);
    return qvl_file_exists(path);
}

/* Names in the directory whose end is suffix ("" for all). */
static inline size_t count_in(const char *directory, const char *suffix)
{
    char **names = NULL;
    size_t n = 0, count = 0;
    assert_int_equal(qvl_directory_list(&names, &n, directory, NULL), QVL_OK);
    for (size_t i = 0; i < n; i++) {
        const size_t length = strlen(names[i]), tail = strlen(suffix);
        count += length >= tail && strcmp(names[i] + length - tail, suffix) == 0;
    }
    qvl_names_free(names, n);
    return count;
}

/* Copies the regular files of a directory into another one, which is made. */
static inline void copy_directory(const char *to, const char *from)
{
    char source[QVL_PATH_BYTES], target[QVL_PATH_BYTES];
    char **names = NULL;
    size_t n = 0;
    assert_int_equal(qvl_directory_create(to, NULL), QVL_OK);
    assert_int_equal(qvl_directory_list(&names, &n, from, NULL), QVL_OK);
    for (size_t i = 0; i < n; i++) {
        assert_int_equal(qvl_path_join(source, from, names[i], NULL), QVL_OK);
        assert_int_equal(qvl_path_join(target, to, names[i], NULL), QVL_OK);
        if (qvl_file_is_regular(source))
            assert_int_equal(qvl_file_copy(target, source, NULL), QVL_OK);
    }
    qvl_names_free(names, n);
}

/* Replaces every occurrence of old in a file by text; there must be one. */
static inline void edit_file(const char *path, const char *old, const char *text)
{
    qvl_text content = read_file(path), changed = {0};
    const char *at = content.data;
    assert_non_null(strstr(at, old));
    for (const char *hit; (hit = strstr(at, old)) != NULL; at = hit + strlen(old)) {
        assert_int_equal(qvl_text_add(&changed, at, (size_t)(hit - at), NULL), QVL_OK);
        assert_int_equal(qvl_text_puts(&changed, text, NULL), QVL_OK);
    }
    assert_int_equal(qvl_text_puts(&changed, at, NULL), QVL_OK);
    write_file(path, changed.data, changed.len);
    qvl_text_fini(&content);
    qvl_text_fini(&changed);
}

/* Turns one byte of a file over. */
static inline void flip_byte(const char *path, long offset)
{
    FILE *file = fopen(path, "r+b");
    assert_non_null(file);
    assert_int_equal(fseek(file, offset, offset < 0 ? SEEK_END : SEEK_SET), 0);
    const int byte = fgetc(file);
    assert_true(byte != EOF);
    assert_int_equal(fseek(file, -1, SEEK_CUR), 0);
    assert_int_equal(fputc(byte ^ 0x40, file), byte ^ 0x40);
    assert_int_equal(fclose(file), 0);
}

/* The call failed with this status, and its one line has all of words ("a|b"). Clears err. */
static inline void expect_failure(qvl_status got, qvl_status want, qvl_err *err, const char *words)
{
    char word[256];
    if (got != want)
        print_error("status %s \"%s\", expected %s with \"%s\"\n", qvl_status_name(got), err->text,
                    qvl_status_name(want), words);
    assert_int_equal(got, want);
    assert_int_equal(err->status, want);
    assert_null(strchr(err->text, '\n'));
    for (const char *at = words; *at;) {
        const size_t n = strcspn(at, "|");
        assert_true(n < sizeof word);
        memcpy(word, at, n);
        word[n] = '\0';
        if (!strstr(err->text, word))
            print_error("\"%s\" does not say \"%s\"\n", err->text, word);
        assert_non_null(strstr(err->text, word));
        at += n + (at[n] == '|');
    }
    qvl_err_clear(err);
}

/* The call succeeded; prints its text if not. */
static inline void expect_ok(qvl_status got, const qvl_err *err)
{
    if (got != QVL_OK)
        print_error("%s: %s\n", qvl_status_name(got), err->text);
    assert_int_equal(got, QVL_OK);
}

/* From here on no file of this process may grow beyond n_bytes (a write then fails with EFBIG, as
 * it fails with ENOSPC on a full disk); limit_files(0) takes the limit back. */
static inline void limit_files(rlim_t n_bytes)
{
    struct rlimit limit;
    signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &limit), 0);
    limit.rlim_cur = n_bytes ? n_bytes : limit.rlim_max;
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
}

#endif
