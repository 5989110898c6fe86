/* Adapters compared across ranks: one bit on one rank is seen by all. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "mpi_leaks.h"
#include "src/base/checksum.h"
#include "src/base/memory.h"
#include "src/train/run.h"

static qvl_world *world;
static qvl_log console;
static qvl_device *dev;

static void a_bit_is_seen(void **state)
{
    const qvl_model_dims dims = {.text = {.D = 8, .F = 12, .L = 2, .H = 2, .KV = 1, .Dh = 4}};
    qvl_lora_options options = {.rank = 2, .alpha = 4.0};
    qvl_run run = {.world = world, .dev = dev};
    qvl_err err = {0};
    const bool is_last = qvl_world_rank(world) == qvl_world_size(world) - 1;
    (void)state;
    assert_int_equal(qvl_lora_parse_targets(options.targets, "all", &err), QVL_OK);
    assert_int_equal(qvl_lora_create(&run.lora, &dims, &options, &err), QVL_OK);
    const size_t n = (size_t)qvl_lora_parameters(run.lora);
    assert_int_equal(qvl_alloc(&run.buffers.param, n, sizeof(float), "p", &err), QVL_OK);
    assert_int_equal(qvl_alloc(&run.state.param, n, sizeof(float), "p", &err), QVL_OK);
    for (size_t i = 0; i < n; i++)
        run.buffers.param[i] = (float)i * 0.25f;
    run.state.step = 300;
    assert_int_equal(qvl_run_compare_ranks(&run, &err), QVL_OK);
    if (is_last)
        ((unsigned char *)run.buffers.param)[4 * (n / 2)] ^= 1;
    const qvl_status rc = qvl_run_compare_ranks(&run, &err);
    if (qvl_world_size(world) == 1) {
        assert_int_equal(rc, QVL_OK);
    } else {
        assert_int_equal(rc, QVL_EDEVICE);
        assert_non_null(strstr(err.text, "after step 300 ranks 0 and "));
    }
    free(run.buffers.param);
    free(run.state.param);
    qvl_lora_destroy(run.lora);
}

/* Every bit of every length up to a few words changes the sum; so does another length. */
static void checksums_see_every_bit(void **state)
{
    unsigned char bytes[72];
    (void)state;
    for (size_t i = 0; i < sizeof bytes; i++)
        bytes[i] = (unsigned char)(i * 37);
    for (size_t n = 0; n <= sizeof bytes; n++) {
        const uint64_t whole = qvl_checksum(bytes, n);
        assert_int_equal(whole, qvl_checksum(bytes, n));
        if (n)
            assert_true(whole != qvl_checksum(bytes, n - 1));
        for (size_t bit = 0; bit < 8 * n; bit++) {
            bytes[bit / 8] ^= (unsigned char)(1 << bit % 8);
            assert_true(whole != qvl_checksum(bytes, n));
            bytes[bit / 8] ^= (unsigned char)(1 << bit % 8);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(checksums_see_every_bit),
        cmocka_unit_test(a_bit_is_seen),
    };
    qvl_err err = {0};
    qvl_log_init(&console, "test_rank_check");
    if (qvl_world_create(&world, &console, &err) != QVL_OK ||
        qvl_device_open_cpu(&dev, 1, &err) != QVL_OK)
        return 1;
    qvl_world_set_deadline(world, 60.0);
    const int failed = cmocka_run_group_tests(tests, NULL, NULL);
    if (failed)
        qvl_world_abort(world, QVL_EINTERNAL, "a test failed");
    qvl_device_close(dev);
    qvl_world_destroy(world);
    return 0;
}
