/* Damaged safetensors files: thousands of them, drawn the same way every time. Opening one must
 * either fail with a text or give tensors whose bytes can all be read. */
#include "io/safetensors.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "scratch_files.h"
#include "src/base/rng.h"

enum { MAX_BYTES = 4096, N_DATA = 64 };

static const char *const HEADERS[] = {
    "{\"__metadata__\":{\"format\":\"pt\"},"
    "\"a\":{\"dtype\":\"F32\",\"shape\":[2,4],\"data_offsets\":[0,32]},"
    "\"b\":{\"dtype\":\"BF16\",\"shape\":[3],\"data_offsets\":[32,38]},"
    "\"c\":{\"dtype\":\"U8\",\"shape\":[26],\"data_offsets\":[38,64]}}",
    "{\"x\":{\"dtype\":\"I64\",\"shape\":[],\"data_offsets\":[0,8]},"
    "\"y\":{\"dtype\":\"F4\",\"shape\":[16],\"data_offsets\":[8,16]},"
    "\"none\":{\"dtype\":\"F16\",\"shape\":[0,7],\"data_offsets\":[16,16]},"
    "\"z\":{\"dtype\":\"F64\",\"shape\":[1,6],\"data_offsets\":[16,64]}}      ",
};

static uint64_t draw(uint64_t *rng, uint64_t below)
{
    return qvl_splitmix64(rng) % below;
}

typedef struct file_bytes {
    unsigned char bytes[MAX_BYTES];
    size_t n;
} file_bytes;

static void start(file_bytes *file, const char *header)
{
    const size_t n = strlen(header);
    memset(file->bytes, 0, 8);
    file->bytes[0] = (unsigned char)n;
    file->bytes[1] = (unsigned char)(n >> 8);
    memcpy(file->bytes + 8, header, n);
    for (size_t i = 0; i < N_DATA; i++)
        file->bytes[8 + n + i] = (unsigned char)i;
    file->n = 8 + n + N_DATA;
}

/* Replaces n_old bytes at a place by text; the length field follows if it is told to. */
static void splice(file_bytes *file, size_t at, size_t n_old, const char *text, bool adjusts)
{
    const size_t n_new = strlen(text);
    memmove(file->bytes + at + n_new, file->bytes + at + n_old, file->n - at - n_old);
    memcpy(file->bytes + at, text, n_new);
    file->n += n_new - n_old;
    if (adjusts) {
        const size_t length = file->bytes[0] + 256u * file->bytes[1] + n_new - n_old;
        file->bytes[0] = (unsigned char)length;
        file->bytes[1] = (unsigned char)(length >> 8);
    }
}

/* Another number where the header has one. */
static void change_number(file_bytes *file, uint64_t *rng)
{
    static const char *const NUMBERS[] = {
        "0",   "1",    "7",          "38",         "64",
        "-1",  "65",   "2147483648", "4294967296", "9223372036854775807",
        "1e3", "32.0", "null",       "[]",         "18446744073709551615"};
    const size_t stated = 8 + file->bytes[0] + 256u * file->bytes[1];
    const size_t end = stated < file->n ? stated : file->n; /* it may be damaged already */
    size_t at = 8 + draw(rng, end - 7), n = 0;
    while (at < end && (file->bytes[at] < '0' || file->bytes[at] > '9'))
        at++;
    while (at + n < end && file->bytes[at + n] >= '0' && file->bytes[at + n] <= '9')
        n++;
    splice(file, at, n, NUMBERS[draw(rng, sizeof NUMBERS / sizeof *NUMBERS)], true);
}

static void mutate(file_bytes *file, uint64_t *rng)
{
    static const char *const PIECES[] = {"{",  "}",   "[",     "]",   ",",   ":",    "\"",
                                         "\\", "\n",  " ",     "0",   "e9",  "\xff", "\xc3\xa9",
                                         "F4", "a\"", "\\u00", "nul", "{}{", "[[[["};
    const size_t at = draw(rng, file->n);
    switch (draw(rng, 7)) {
    case 0: /* a bit */
        file->bytes[at] ^= (unsigned char)(1u << draw(rng, 8));
        break;
    case 1: /* a byte */
        file->bytes[at] = (unsigned char)draw(rng, 256);
        break;
    case 2: /* truncated */
        file->n = at;
        break;
    case 3: /* a piece more */
        splice(file, at, 0, PIECES[draw(rng, sizeof PIECES / sizeof *PIECES)], draw(rng, 2) != 0);
        break;
    case 4: /* a piece less */
        splice(file, at, draw(rng, file->n - at < 8 ? file->n - at + 1 : 8), "", draw(rng, 2) != 0);
        break;
    case 5: /* the length field */
        file->bytes[draw(rng, 8)] = (unsigned char)draw(rng, 256);
        break;
    default:
        change_number(file, rng);
    }
}

/* Every byte that an accepted file offers can be read, and its tensors tile the data. */
static void read_everything(const qvl_safetensors *file, size_t n_bytes)
{
    uint64_t total = 0;
    unsigned sum = 0;
    for (size_t i = 0; i < qvl_safetensors_count(file); i++) {
        const qvl_tensor *tensor = qvl_safetensors_at(file, i);
        for (uint64_t k = 0; k < tensor->n_bytes; k++)
            sum += ((const unsigned char *)tensor->data)[k];
        total += tensor->n_bytes;
        assert_ptr_equal(qvl_safetensors_find(file, tensor->name), tensor);
        assert_true(qvl_tensor_elements(tensor) >= 0);
        assert_int_equal((uint64_t)qvl_tensor_elements(tensor) * qvl_tensor_type_bits(tensor->type),
                         tensor->n_bytes * 8);
        qvl_safetensors_release(file, tensor->data, (size_t)tensor->n_bytes);
    }
    assert_true(total < n_bytes && sum < 256u * MAX_BYTES);
}

static void damaged_files_never_crash(void **state)
{
    enum { ROUNDS = 12000 };
    uint64_t rng = 20260401;
    int accepted = 0;
    file_bytes bytes;
    char path[QVL_PATH_BYTES];
    (void)state;
    scratch_path(path, "x.safetensors");
    for (int round = 0; round < ROUNDS; round++) {
        qvl_safetensors *file = NULL;
        qvl_err err = {0};
        start(&bytes, HEADERS[round % 2]);
        for (uint64_t k = draw(&rng, 3); k < 3 && bytes.n > 8; k++)
            mutate(&bytes, &rng);
        write_file(path, bytes.bytes, bytes.n);
        const qvl_status rc = qvl_safetensors_open(&file, path, &err);
        if (rc == QVL_OK) {
            read_everything(file, bytes.n);
            accepted++;
        } else {
            assert_int_equal(rc, QVL_EDATA);
            assert_non_null(strstr(err.text, "x.safetensors"));
            assert_null(file);
        }
        qvl_safetensors_close(file);
    }
    assert_true(accepted > 100 && accepted < ROUNDS / 2); /* both ways were gone */
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(damaged_files_never_crash)};
    return cmocka_run_group_tests(tests, scratch_make, scratch_remove);
}
