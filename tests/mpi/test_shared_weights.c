/* Loading a model on several ranks: rank 0 reads, all have the same; a rank whose device fails does
 * not leave the others waiting. */
#include "src/model/weights.h"
#include "src/base/stop.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "mpi_leaks.h"
#include "../unit/world_of_one.h"

static qvl_world *world;
static qvl_log console;
static qvl_device *dev;

static void must(qvl_status rc, const qvl_err *err)
{
    if (rc != QVL_OK)
        print_error("%s: %s\n", qvl_status_name(rc), err->text);
    assert_int_equal(rc, QVL_OK);
}

static qvl_weights *load(const char *directory, qvl_weights_half half, qvl_device *on,
                         qvl_world *with, qvl_status want)
{
    qvl_weight_files *files = NULL;
    qvl_weights *weights = NULL;
    qvl_model_dims dims;
    qvl_err err = {0};
    must(qvl_model_dims_read(&dims, directory, &err), &err);
    must(qvl_weight_files_open(&files, directory, &err), &err);
    const qvl_weight_layout layout = {.width_align = 8, .act_bytes = on->act_bytes};
    const qvl_weight_source source = {
        .files = files, .world = with, .n_threads = 2, .log = &console};
    must(qvl_weights_create(&weights, half, &dims, &layout, &err), &err);
    const qvl_status rc = qvl_weights_load(weights, on, &source, &err);
    if (rc != want)
        print_error("%s: %s\n", qvl_status_name(rc), err.text);
    assert_int_equal(rc, want);
    if (want != QVL_OK)
        assert_string_equal(err.text, "the device of the last rank");
    qvl_weight_files_close(files);
    return weights;
}

/* Every slot holds what a rank alone reads from the files. */
static void all_ranks_have_the_files(void **state)
{
    static const char *const MODELS[] = {QVL_TEST_FIXTURES "/tiny/model",
                                         QVL_TEST_FIXTURES "/tied/model"};
    qvl_log log;
    qvl_world alone = world_of_one(&log);
    (void)state;
    for (int m = 0; m < 2; m++)
        for (int half = 0; half < 2; half++) {
            qvl_weights *shared = load(MODELS[m], (qvl_weights_half)half, dev, world, QVL_OK);
            qvl_weights *own = load(MODELS[m], (qvl_weights_half)half, dev, &alone, QVL_OK);
            void *const bases[] = {half ? qvl_weights_vision(shared)->patch_embed
                                        : qvl_weights_text(shared)->layers[0].norm1,
                                   half ? qvl_weights_vision(own)->patch_embed
                                        : qvl_weights_text(own)->layers[0].norm1};
            if (!half)
                assert_memory_equal(qvl_weights_text(shared)->embed, qvl_weights_text(own)->embed,
                                    qvl_weights_embed_bytes(own));
            const qvl_plan *plan = qvl_weights_plan(own);
            for (size_t i = 0; i < plan->n_slots; i++)
                assert_memory_equal(qvl_plan_at(plan, bases[0], (int)i),
                                    qvl_plan_at(plan, bases[1], (int)i), plan->slots[i].bytes);
            assert_int_equal(qvl_weights_text(shared)->is_bf16, qvl_weights_text(own)->is_bf16);
            qvl_weights_destroy(shared);
            qvl_weights_destroy(own);
        }
}

static atomic_int rows_until_failure;
static const qvl_ops *real_ops;

static qvl_status failing_load_rows(qvl_device *device, void *dst, int64_t dst_stride,
                                    const void *src_host, qvl_dtype src_dtype, int64_t rows,
                                    int64_t cols, qvl_err *err)
{
    if (--rows_until_failure < 0)
        return qvl_fail(err, QVL_EDEVICE, "the device of the last rank");
    return real_ops->load_rows(device, dst, dst_stride, src_host, src_dtype, rows, cols, err);
}

static void a_failing_device_stops_all(void **state)
{
    (void)state;
    real_ops = dev->ops;
    for (int after = 0; after < 39; after += 13) { /* of 39 tensors */
        qvl_ops ops = *dev->ops;
        qvl_device copy = *dev;
        if (qvl_world_rank(world) == qvl_world_size(world) - 1)
            ops.load_rows = failing_load_rows;
        copy.ops = &ops;
        rows_until_failure = after;
        qvl_weights_destroy(
            load(QVL_TEST_FIXTURES "/tiny/model", QVL_WEIGHTS_TEXT, &copy, world, QVL_EDEVICE));
    }
}

/* Asked for on the last rank, in the middle: all end, with its reason. The request stays, so this
 * comes last. */
static void a_stop_ends_loading(void **state)
{
    qvl_weight_files *files = NULL;
    qvl_weights *weights = NULL;
    qvl_model_dims dims;
    qvl_err err = {0};
    (void)state;
    must(qvl_model_dims_read(&dims, QVL_TEST_FIXTURES "/tiny/model", &err), &err);
    must(qvl_weight_files_open(&files, QVL_TEST_FIXTURES "/tiny/model", &err), &err);
    const qvl_weight_layout layout = {.width_align = 8, .act_bytes = dev->act_bytes};
    const qvl_weight_source source = {
        .files = files, .world = world, .n_threads = 2, .log = &console};
    must(qvl_weights_create(&weights, QVL_WEIGHTS_TEXT, &dims, &layout, &err), &err);
    must(qvl_world_barrier(world, &err), &err);
    if (qvl_world_rank(world) == qvl_world_size(world) - 1)
        qvl_stop_request(15);
    assert_int_equal(qvl_weights_load(weights, dev, &source, &err), QVL_ESTOPPED);
    assert_non_null(strstr(err.text, "SIGTERM"));
    qvl_weights_destroy(weights);
    qvl_weight_files_close(files);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(all_ranks_have_the_files),
        cmocka_unit_test(a_failing_device_stops_all),
        cmocka_unit_test(a_stop_ends_loading),
    };
    qvl_err err = {0};
    qvl_log_init(&console, "test_shared_weights");
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
