/* Image features on several ranks: each is computed by one rank and kept for all, the same bits as
 * when they are computed on request; a rank that fails stops all. */
#include "src/model/features.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "mpi_leaks.h"
#include "../unit/world_of_one.h"
#include "src/model/model.h"

static qvl_world *world;
static qvl_log console;
static qvl_device *real, dev;
static qvl_ops ops;
static qvl_model model;
static qvl_dataset *data;
static qvl_vision *vision;
static qvl_plan slots;
static void *activations, *workspace;

static void must(qvl_status rc, const qvl_err *err)
{
    if (rc != QVL_OK)
        print_error("%s: %s\n", qvl_status_name(rc), err->text);
    assert_int_equal(rc, QVL_OK);
}

/* The tiny model's tower with its weights, ready for the largest image of the data. */
static int set_up(void **state)
{
    qvl_log log;
    qvl_world alone = world_of_one(&log);
    const qvl_lora_options none = {.rank = 8};
    int64_t most = 0;
    size_t bytes = 0;
    qvl_err err = {0};
    (void)state;
    must(qvl_device_open_cpu(&real, 1, &err), &err);
    ops = *real->ops;
    dev = *real;
    dev.ops = &ops;
    must(qvl_model_open(&model, QVL_TEST_FIXTURES "/tiny/model", NULL, NULL, &dev, &none, &console,
                        &err),
         &err);
    must(qvl_dataset_open(&data, QVL_TEST_FIXTURES "/tiny/train.h5", &err), &err);
    for (int64_t i = 0; i < qvl_dataset_images(data); i++) {
        const int32_t *grid = qvl_dataset_grid(data, i);
        most = (int64_t)grid[1] * grid[2] > most ? (int64_t)grid[1] * grid[2] : most;
    }
    const qvl_weight_source source = {
        .files = model.files, .world = &alone, .n_threads = 1, .log = &console};
    must(qvl_weights_load(model.vision, &dev, &source, &err), &err);
    must(qvl_vision_create(&vision, &model.dims, most, dev.act_bytes,
                           qvl_weights_vision(model.vision)->Fp, &slots, &err),
         &err);
    must(ops.alloc(&dev, &activations, slots.total_bytes, QVL_MEM_DEVICE, "activations", &err),
         &err);
    qvl_plan_set_guards(&slots, activations);
    must(qvl_vision_bind(vision, &dev, &slots, activations, qvl_weights_vision(model.vision), &err),
         &err);
    const qvl_workspace_limits limits = qvl_vision_limits(vision);
    must(ops.workspace_bytes(&dev, &bytes, &limits, &err), &err);
    must(ops.alloc(&dev, &workspace, bytes, QVL_MEM_DEVICE, "workspace", &err), &err);
    must(ops.bind_workspace(&dev, workspace, bytes, &err), &err);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    qvl_vision_destroy(vision);
    ops.release(&dev, activations, QVL_MEM_DEVICE);
    ops.release(&dev, workspace, QVL_MEM_DEVICE);
    qvl_plan_fini(&slots);
    qvl_dataset_close(data);
    qvl_model_close(&model);
    qvl_device_close(real);
    return 0;
}

static void kept_features_are_those_on_request(void **state)
{
    qvl_features *kept = NULL, *asked = NULL;
    uint64_t total = 0;
    qvl_err err = {0};
    (void)state;
    must(qvl_features_create(&kept, data, &model.dims, dev.act_bytes, true, world, &err), &err);
    must(qvl_features_create(&asked, data, &model.dims, dev.act_bytes, false, world, &err), &err);
    must(qvl_features_compute(kept, vision, &console, &err), &err);
    qvl_features_set_vision(asked, vision);
    assert_true(qvl_dataset_images(data) > 4);
    for (int64_t i = 0; i < qvl_dataset_images(data); i++) {
        const int32_t *grid = qvl_dataset_grid(data, i);
        const size_t n_bytes = (size_t)(grid[1] * grid[2] / 4 * model.dims.text.D) * dev.act_bytes;
        const void *a = NULL, *b = NULL;
        must(qvl_features_get(kept, i, &a, &err), &err);
        must(qvl_features_get(asked, i, &b, &err), &err);
        assert_memory_equal(a, b, n_bytes);
        total += n_bytes;
        if (i % 2)
            qvl_features_forget(asked);
    }
    assert_int_equal(total, qvl_features_bytes(data, &model.dims, dev.act_bytes));
    qvl_features_destroy(kept);
    qvl_features_destroy(asked);
    qvl_features_destroy(NULL);
}

static int images_until_failure;

static qvl_status failing_patches(qvl_device *device, const qvl_patches_args *args, qvl_err *err)
{
    if (--images_until_failure < 0)
        return qvl_fail(err, QVL_EDEVICE, "the device of the last rank");
    return real->ops->patches(device, args, err);
}

static void a_failing_rank_stops_all(void **state)
{
    (void)state;
    for (int after = 0; after < 3; after++) {
        qvl_features *kept = NULL;
        qvl_err err = {0};
        must(qvl_features_create(&kept, data, &model.dims, dev.act_bytes, true, world, &err), &err);
        if (qvl_world_rank(world) == qvl_world_size(world) - 1)
            ops.patches = failing_patches;
        images_until_failure = after;
        assert_int_equal(qvl_features_compute(kept, vision, &console, &err), QVL_EDEVICE);
        assert_string_equal(err.text, "the device of the last rank");
        assert_int_equal(qvl_world_failed_rank(world), qvl_world_size(world) - 1);
        ops.patches = real->ops->patches;
        qvl_features_destroy(kept);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(kept_features_are_those_on_request),
        cmocka_unit_test(a_failing_rank_stops_all),
    };
    qvl_err err = {0};
    qvl_log_init(&console, "test_features");
    if (qvl_world_create(&world, &console, &err) != QVL_OK)
        return 1;
    qvl_world_set_deadline(world, 60.0);
    const int failed = cmocka_run_group_tests(tests, set_up, tear_down);
    if (failed)
        qvl_world_abort(world, QVL_EINTERNAL, "a test failed");
    qvl_world_destroy(world);
    return 0;
}
