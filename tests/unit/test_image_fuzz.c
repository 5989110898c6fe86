/* Damaged copies of the fixtures: bytes changed, cut off, doubled. Whatever comes out must be
 * either an image or one line of text; the sanitizers watch the rest. The damage is the same in
 * each run. */
#include "io/image_pipeline.h"
#include "src/base/files.h"
#include "src/base/rng.h"
#include "tests/unit/image_fixtures.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

enum { ROUNDS = 60, MAX_PIXELS = 1 << 20 };

static int n_images, n_errors;

/* A damaged copy of *original in memory of exactly its size. */
static uint8_t *damage(size_t *out_bytes, const qvl_text *original, uint64_t *random)
{
    const uint64_t kind = qvl_splitmix64(random) % 4;
    size_t n = original->len;
    if (kind == 0)
        n = qvl_splitmix64(random) % (n + 1);
    uint8_t *copy = malloc(n ? n : 1);
    memcpy(copy, original->data, n);
    if (kind == 1 && n > 1) { /* a part over another part */
        const size_t from = qvl_splitmix64(random) % n, to = qvl_splitmix64(random) % n;
        const size_t most = n - (from > to ? from : to);
        memmove(copy + to, copy + from, qvl_splitmix64(random) % (most + 1));
    }
    const uint64_t n_bytes = kind == 0 ? 0 : 1 + qvl_splitmix64(random) % 8;
    for (uint64_t i = 0; i < n_bytes && n; i++) {
        /* headers decide most, so half of the bytes are among the first 64 */
        const size_t range = i % 2 && n > 64 ? 64 : n;
        const uint64_t r = qvl_splitmix64(random);
        copy[(r >> 8) % range] =
            (uint8_t)(r & 1 ? r >> 1 : copy[(r >> 8) % range] ^ (2u << (r >> 1) % 7));
    }
    *out_bytes = n;
    return copy;
}

static void try_one(const uint8_t *bytes, size_t n_bytes)
{
    qvl_image_limits limits = qvl_image_limits_default;
    qvl_err err = {0};
    qvl_image_info info;
    qvl_prepared_image prepared = {0};
    limits.image_max_pixels = 4096;
    qvl_status rc = qvl_image_probe_memory(&info, bytes, n_bytes, "fuzz", &err);
    if (rc == QVL_OK && (int64_t)info.width * info.height > MAX_PIXELS)
        return; /* a large image, correctly announced: only slow */
    if (rc == QVL_OK)
        rc = qvl_image_prepare_memory(&prepared, bytes, n_bytes, "fuzz", &limits, &err);
    if (rc == QVL_OK) {
        assert_non_null(prepared.rgb);
        assert_string_equal(err.text, "");
        n_images++;
    } else {
        assert_int_equal(rc, QVL_EDATA);
        assert_null(prepared.rgb);
        assert_ptr_equal(strstr(err.text, "fuzz: "), err.text);
        assert_null(strchr(err.text, '\n'));
        n_errors++;
    }
    qvl_prepared_image_fini(&prepared);
}

static void fuzz_file(const fixture *f)
{
    qvl_text original = {0};
    uint64_t random = 0;
    assert_int_equal(qvl_file_read(&original, f->path, 1 << 20, NULL), QVL_OK);
    for (const char *c = f->name; *c; c++)
        random = random * 31 + (uint8_t)*c;
    for (int round = 0; round < ROUNDS; round++) {
        size_t n_bytes = 0;
        uint8_t *bytes = damage(&n_bytes, &original, &random);
        try_one(bytes, n_bytes);
        free(bytes);
    }
    qvl_text_fini(&original);
}

static void test_damaged_files(void **state)
{
    (void)state;
    assert_in_range(fixtures_each("image", fuzz_file), 50, 1000);
    assert_in_range(fixtures_each("refuse", fuzz_file), 20, 1000);
    /* both ways out were taken often, so the damage is neither too light nor too heavy */
    assert_in_range(n_images, 300, 1000000);
    assert_in_range(n_errors, 300, 1000000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_damaged_files)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
