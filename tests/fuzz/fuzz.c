#include "tests/fuzz/fuzz.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <fcntl.h>
#include <sys/stat.h>

#include "src/base/files.h"

enum { MAX_FILES = 16 };

typedef struct kept_file {
    char name[64], path[128];
    int fd;
} kept_file;

static char directory[64];
static pid_t owner;
static kept_file files[MAX_FILES];
static int n_files;

/* HDF5 asks for the sizes that a damaged file names, and forgets memory on its way out of an error.
 * What our own code asks for and does not get is a finding all the same: fuzz_expect refuses
 * QVL_EINTERNAL. */
const char *__asan_default_options(void);
const char *__asan_default_options(void)
{
    return "allocator_may_return_null=1:max_allocation_size_mb=1000:quarantine_size_mb=16";
}

const char *__lsan_default_options(void);
const char *__lsan_default_options(void)
{
    return "print_suppressions=0";
}

const char *__lsan_default_suppressions(void);
const char *__lsan_default_suppressions(void)
{
    return "leak:libhdf5\n";
}

void fuzz_check(bool holds, const char *condition, const char *file, int line)
{
    if (holds)
        return;
    fprintf(stderr, "%s:%d: %s does not hold\n", file, line, condition);
    abort();
}

void fuzz_expect(qvl_status status, const qvl_err *err)
{
    if (status == QVL_OK) {
        FUZZ_CHECK(err->text[0] == '\0');
        return;
    }
    FUZZ_CHECK(status == QVL_EDATA || status == QVL_EMISSING || status == QVL_ECONFIG ||
               status == QVL_EUSAGE);
    FUZZ_CHECK(err->status == status && err->text[0]);
    for (const char *c = err->text; *c; c++)
        FUZZ_CHECK(!iscntrl((unsigned char)*c));
}

static void remove_directory(void)
{
    if (getpid() == owner) /* and not in a child that libFuzzer forked */
        qvl_tree_remove(directory, NULL);
}

const char *fuzz_directory(void)
{
    if (!directory[0]) {
        const bool has_memory = access("/dev/shm", W_OK) == 0; /* where files cost nothing */
        snprintf(directory, sizeof directory, "%s/qvl_fuzz.XXXXXX",
                 has_memory ? "/dev/shm" : "/tmp");
        FUZZ_CHECK(mkdtemp(directory) != NULL);
        owner = getpid();
        atexit(remove_directory);
    }
    return directory;
}

static kept_file *file_of(const char *name)
{
    for (int i = 0; i < n_files; i++)
        if (strcmp(files[i].name, name) == 0)
            return &files[i];
    FUZZ_CHECK(n_files < MAX_FILES);
    kept_file *file = &files[n_files++];
    snprintf(file->name, sizeof file->name, "%s", name);
    snprintf(file->path, sizeof file->path, "%.60s/%.60s", fuzz_directory(), name);
    file->fd = open(file->path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    FUZZ_CHECK(file->fd >= 0);
    return file;
}

const char *fuzz_file(const char *name, const void *bytes, size_t n_bytes)
{
    const kept_file *file = file_of(name);
    FUZZ_CHECK(ftruncate(file->fd, 0) == 0);
    for (size_t done = 0; done < n_bytes;) {
        const ssize_t n = pwrite(file->fd, (const char *)bytes + done, n_bytes - done, (off_t)done);
        FUZZ_CHECK(n > 0);
        done += (size_t)n;
    }
    return file->path;
}

uint8_t fuzz_byte(fuzz_stream *in)
{
    return in->at < in->n ? in->data[in->at++] : 0;
}

int64_t fuzz_number(fuzz_stream *in)
{
    const uint8_t kind = fuzz_byte(in);
    uint64_t value = fuzz_byte(in);
    switch (kind % 4) {
    case 0:
        return (int64_t)value;
    case 1:
        return (int64_t)(((uint64_t)1 << (value % 64)) + (uint64_t)(kind >> 2) - 8);
    case 2:
        return -(int64_t)value;
    default:
        for (int i = 0; i < 7; i++)
            value = value << 8 | fuzz_byte(in);
        return (int64_t)value;
    }
}

void fuzz_split(const uint8_t **parts, size_t *sizes, int n, const uint8_t *data, size_t size)
{
    for (int i = 0; i < n; i++) {
        size_t length = size;
        if (i + 1 < n) {
            const size_t stated = size < 2 ? 0 : data[0] | (size_t)data[1] << 8;
            const size_t skip = size < 2 ? size : 2;
            data += skip;
            size -= skip;
            length = stated < size ? stated : size;
        }
        parts[i] = data;
        sizes[i] = length;
        data += length;
        size -= length;
    }
}
