/* Files and directories. Paths are bytes; relative ones are relative to the working directory. */
#ifndef QVL_SRC_BASE_FILES_H
#define QVL_SRC_BASE_FILES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "src/base/status.h"
#include "src/base/text.h"

#ifdef __cplusplus
extern "C" {
#endif

#define QVL_PATH_BYTES 4096

/* "directory/name"; name alone when it is absolute or directory is empty. QVL_EINTERNAL if it does
 * not fit. */
qvl_status qvl_path_join(char out[QVL_PATH_BYTES], const char *directory, const char *name,
                         qvl_err *err);

/* Pointer to what follows the last slash of path. */
const char *qvl_path_name(const char *path);

bool qvl_file_exists(const char *path);     /* anything is there */
bool qvl_file_is_regular(const char *path); /* a regular file, links followed */
bool qvl_file_is_directory(const char *path);

/* Size of a regular file. QVL_EMISSING when it is not there or is a directory. */
qvl_status qvl_file_size(int64_t *out_bytes, const char *path, qvl_err *err);

/* Opens a regular file for reading. Anything else, which might be waited for, is QVL_EMISSING; what
 * opens files by itself (libhdf5) asks qvl_file_size before. */
qvl_status qvl_file_open(int *out_fd, const char *path, qvl_err *err);

/* The whole file in *out (cleared first). Over limit_bytes is QVL_EDATA. */
qvl_status qvl_file_read(qvl_text *out, const char *path, size_t limit_bytes, qvl_err *err);

/* The same of anything that can be read, a pipe for one; "-" is standard input. It is waited for
 * until a stop is asked for (QVL_ESTOPPED). */
qvl_status qvl_file_read_any(qvl_text *out, const char *path, size_t limit_bytes, qvl_err *err);

/* Reads exactly n_bytes at offset of an open file; path is for the message. Past the end is
 * QVL_EDATA. */
qvl_status qvl_file_read_at(int fd, void *out, size_t n_bytes, int64_t offset, const char *path,
                            qvl_err *err);

/* All of it, interrupted and short writes continued. */
qvl_status qvl_file_write_fd(int fd, const void *bytes, size_t n_bytes, const char *path,
                             qvl_err *err);

/* Writes and flushes a file in place: for a directory that is not yet under its own name. */
qvl_status qvl_file_write(const char *path, const void *bytes, size_t n_bytes, qvl_err *err);

/* Replaces path by these bytes: written beside it under another name, flushed, renamed, directory
 * flushed. On failure path keeps its old content and nothing else is left behind. */
qvl_status qvl_file_replace(const char *path, const void *bytes, size_t n_bytes, qvl_err *err);

/* Copies a regular file with qvl_file_replace's guarantees. */
qvl_status qvl_file_copy(const char *to, const char *from, qvl_err *err);

/* Flushes a file or directory that is named, not open; and the directory that holds path. */
qvl_status qvl_file_flush(const char *path, qvl_err *err);
qvl_status qvl_file_flush_parent(const char *path, qvl_err *err);

/* Makes the directory and its parents; one that exists is fine. */
qvl_status qvl_directory_create(const char *path, qvl_err *err);

/* The same; first becomes the outermost directory that had to be made, "" when all were there. When
 * what the directory was made for fails, qvl_directory_take_back removes what was made, from path
 * outwards to first, as far as it is empty. */
qvl_status qvl_directory_create_from(char first[QVL_PATH_BYTES], const char *path, qvl_err *err);
void qvl_directory_take_back(const char *path, const char *first);

/* Removes a tree; links are removed, not followed. A missing one is fine. */
qvl_status qvl_tree_remove(const char *path, qvl_err *err);

/* Names in a directory without "." and "..", sorted by bytes. Release with qvl_names_free. */
qvl_status qvl_directory_list(char ***out_names, size_t *out_count, const char *path, qvl_err *err);
void qvl_names_free(char **names, size_t count);

/* Bytes that an unprivileged user may still write to the file system of path. */
qvl_status qvl_disk_free(uint64_t *out_bytes, const char *path, qvl_err *err);

#ifdef __cplusplus
}
#endif
#endif
