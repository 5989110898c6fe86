/* Buffers with guards, and running an operation on them. */
#include "tests/kernels/kernel_test.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <setjmp.h>
#include <cmocka.h>

enum { GUARD_VALUE = 0xA5, POISON_VALUE = 0xFF };

static void release(qvl_kt *kt, qvl_kt_buffer *buffer)
{
    if (buffer->base)
        kt->dev->ops->release(kt->dev, buffer->base, QVL_MEM_DEVICE);
    free(buffer->image);
    free(buffer->result);
    *buffer = (qvl_kt_buffer){0};
}

void qvl_kt_clear(qvl_kt *kt)
{
    for (int i = 0; i < kt->n_buffers; i++)
        release(kt, &kt->buffers[i]);
    for (int i = 0; i < QVL_KT_MAX_DEVICES; i++)
        release(kt, &kt->workspaces[i]);
    for (int i = 0; i < kt->n_arrays; i++)
        free(kt->arrays[i]);
    kt->n_buffers = kt->n_arrays = 0;
    kt->is_open = kt->is_stopped = false;
}

static size_t type_bytes(const qvl_kt *kt, qvl_kt_type type)
{
    return type == QVL_KT_ACT ? kt->dev->act_bytes : type == QVL_KT_U8 ? 1 : 4;
}

static size_t whole_bytes(const qvl_kt_buffer *buffer)
{
    return buffer->bytes + 2 * QVL_KT_GUARD_BYTES;
}

static void must(const qvl_kt *kt, const char *what, qvl_status rc, const qvl_err *err)
{
    if (rc != QVL_OK)
        fail_msg("%s: %s: %s %s", kt->label, what, qvl_status_name(rc), err->text);
}

static void create(qvl_kt *kt, qvl_kt_buffer *buffer, const char *name, int64_t n, qvl_kt_type type)
{
    qvl_err err = {0};
    snprintf(buffer->name, sizeof buffer->name, "%s", name);
    buffer->n = n;
    buffer->type = type;
    buffer->bytes = (size_t)n * type_bytes(kt, type);
    buffer->image = malloc(whole_bytes(buffer));
    buffer->result = malloc(whole_bytes(buffer));
    assert_true(buffer->image && buffer->result);
    memset(buffer->image, GUARD_VALUE, whole_bytes(buffer));
    memset(buffer->image + QVL_KT_GUARD_BYTES, POISON_VALUE, buffer->bytes);
    must(kt, name,
         kt->dev->ops->alloc(kt->dev, &buffer->base, whole_bytes(buffer), QVL_MEM_DEVICE, name,
                             &err),
         &err);
    buffer->data = (unsigned char *)buffer->base + QVL_KT_GUARD_BYTES;
}

static void upload(qvl_kt *kt, const qvl_kt_buffer *buffer)
{
    qvl_err err = {0};
    const qvl_ops *ops = kt->dev->ops;
    must(kt, "upload",
         ops->upload(kt->dev, buffer->base, buffer->image, whole_bytes(buffer), QVL_LANE_COMPUTE,
                     &err),
         &err);
    must(kt, "wait", ops->wait(kt->dev, QVL_LANE_COMPUTE, &err), &err);
}

static void download(qvl_kt *kt, unsigned char *host, const qvl_kt_buffer *buffer)
{
    qvl_err err = {0};
    const qvl_ops *ops = kt->dev->ops;
    must(kt, "download",
         ops->download(kt->dev, host, buffer->base, whole_bytes(buffer), QVL_LANE_COMPUTE, &err),
         &err);
    must(kt, "wait", ops->wait(kt->dev, QVL_LANE_COMPUTE, &err), &err);
}

static qvl_kt_buffer *add(qvl_kt *kt, const char *name, int64_t n, qvl_kt_type type)
{
    assert_true(kt->is_open && kt->n_buffers < QVL_KT_MAX_BUFFERS);
    qvl_kt_buffer *buffer = &kt->buffers[kt->n_buffers++];
    create(kt, buffer, name, n, type);
    return buffer;
}

static void store(const qvl_kt *kt, unsigned char *data, int64_t i, double value, qvl_kt_type type)
{
    const float single = (float)value;
    const uint16_t half = qvl_bf16_from_float(single);
    if (type == QVL_KT_ACT && kt->dev->dtype == QVL_BF16)
        memcpy(data + 2 * i, &half, 2);
    else
        memcpy(data + 4 * i, &single, 4);
}

double qvl_kt_element(const qvl_kt *kt, const unsigned char *data, int64_t i, qvl_kt_type type)
{
    float single;
    uint16_t half;
    if (type == QVL_KT_ACT && kt->dev->dtype == QVL_BF16) {
        memcpy(&half, data + 2 * i, 2);
        return (double)qvl_float_from_bf16(half);
    }
    memcpy(&single, data + 4 * i, 4);
    return (double)single;
}

static void *add_values(qvl_kt *kt, const char *name, const double *values, int64_t n,
                        qvl_kt_type type, bool is_output)
{
    qvl_kt_buffer *buffer = add(kt, name, n, type);
    buffer->is_output = is_output;
    for (int64_t i = 0; i < n; i++)
        store(kt, buffer->image + QVL_KT_GUARD_BYTES, i, values[i], type);
    upload(kt, buffer);
    return buffer->data;
}

static void *add_bytes(qvl_kt *kt, const char *name, const void *bytes, int64_t n, qvl_kt_type type)
{
    qvl_kt_buffer *buffer = add(kt, name, n, type);
    if (n > 0)
        memcpy(buffer->image + QVL_KT_GUARD_BYTES, bytes, buffer->bytes);
    upload(kt, buffer);
    return buffer->data;
}

void *qvl_kt_in(qvl_kt *kt, const char *name, const double *values, int64_t n, qvl_kt_type type)
{
    return add_values(kt, name, values, n, type, false);
}

void *qvl_kt_inout(qvl_kt *kt, const char *name, const double *values, int64_t n, qvl_kt_type type)
{
    return add_values(kt, name, values, n, type, true);
}

void *qvl_kt_in_i32(qvl_kt *kt, const char *name, const int32_t *values, int64_t n)
{
    return add_bytes(kt, name, values, n, QVL_KT_I32);
}

void *qvl_kt_in_u8(qvl_kt *kt, const char *name, const uint8_t *values, int64_t n)
{
    return add_bytes(kt, name, values, n, QVL_KT_U8);
}

void *qvl_kt_out(qvl_kt *kt, const char *name, int64_t n, qvl_kt_type type)
{
    qvl_kt_buffer *buffer = add(kt, name, n, type);
    buffer->is_output = true;
    return buffer->data;
}

qvl_kt_buffer *qvl_kt_find(qvl_kt *kt, const char *name)
{
    for (int i = 0; i < kt->n_buffers; i++)
        if (strcmp(kt->buffers[i].name, name) == 0)
            return &kt->buffers[i];
    fail_msg("%s: the test has no buffer %s", kt->label, name);
    return NULL;
}

void qvl_kt_workspace(qvl_kt *kt, const qvl_workspace_limits *limits)
{
    qvl_err err = {0};
    for (int i = 0; i < kt->n_devices; i++) {
        size_t bytes = 0;
        must(kt, "workspace_bytes",
             kt->devices[i]->ops->workspace_bytes(kt->devices[i], &bytes, limits, &err), &err);
        release(kt, &kt->workspaces[i]);
        create(kt, &kt->workspaces[i], "workspace", (int64_t)bytes, QVL_KT_U8);
        kt->workspaces[i].is_scratch = true;
    }
}

/* ---- running ----------------------------------------------------------------------------------
 */

static void check_intact(qvl_kt *kt, const qvl_kt_buffer *buffer, const unsigned char *after)
{
    const unsigned char *behind = after + QVL_KT_GUARD_BYTES + buffer->bytes;
    int n_bad = 0, first = -1;
    for (int i = 0; i < QVL_KT_GUARD_BYTES; i++) {
        const bool is_bad[2] = {after[i] != GUARD_VALUE, behind[i] != GUARD_VALUE};
        if ((is_bad[0] || is_bad[1]) && n_bad == 0)
            first = is_bad[0] ? i - QVL_KT_GUARD_BYTES : i;
        n_bad += is_bad[0] + is_bad[1];
    }
    if (n_bad > 0)
        qvl_kt_fail(kt, "%s: %d guard bytes overwritten, the first %d bytes %s", buffer->name,
                    n_bad, first < 0 ? -first : first, first < 0 ? "before it" : "past its end");
    if (!buffer->is_output && !buffer->is_scratch &&
        memcmp(after, buffer->image, whole_bytes(buffer)) != 0)
        qvl_kt_fail(kt, "%s: an input was changed", buffer->name);
}

static void check_same_bits(qvl_kt *kt, const qvl_kt_buffer *buffer, const unsigned char *after,
                            int i_device)
{
    const unsigned char *first = buffer->result + QVL_KT_GUARD_BYTES;
    const unsigned char *data = after + QVL_KT_GUARD_BYTES;
    size_t n_bad = 0, at = 0;
    for (size_t i = 0; i < buffer->bytes; i++)
        if (data[i] != first[i] && n_bad++ == 0)
            at = i;
    if (n_bad == 0)
        return;
    const int64_t element = (int64_t)(at / type_bytes(kt, buffer->type));
    qvl_kt_fail(kt,
                "%s: %zu bytes differ from the first run (%s), the first in element %lld: "
                "%.9g, was %.9g",
                buffer->name, n_bad, i_device == 0 ? "same call again" : "other number of threads",
                (long long)element, qvl_kt_element(kt, data, element, buffer->type),
                qvl_kt_element(kt, first, element, buffer->type));
}

/* Downloads a buffer after run number i_run; the first run's outputs are what is compared later. */
static void inspect(qvl_kt *kt, qvl_kt_buffer *buffer, int i_run, int i_device)
{
    if (i_run == 0) {
        download(kt, buffer->result, buffer);
        check_intact(kt, buffer, buffer->result);
        return;
    }
    unsigned char *after = malloc(whole_bytes(buffer));
    assert_non_null(after);
    download(kt, after, buffer);
    check_intact(kt, buffer, after);
    if (buffer->is_output)
        check_same_bits(kt, buffer, after, i_device);
    free(after);
}

static bool run_once(qvl_kt *kt, qvl_kt_op op, const void *args, int i_run, int i_device)
{
    qvl_device *dev = kt->devices[i_device];
    qvl_kt_buffer *workspace = &kt->workspaces[i_device];
    qvl_err err = {0};
    upload(kt, workspace);
    for (int i = 0; i < kt->n_buffers; i++)
        if (kt->buffers[i].is_output)
            upload(kt, &kt->buffers[i]);
    must(kt, "bind_workspace",
         dev->ops->bind_workspace(dev, workspace->data, workspace->bytes, &err), &err);
    qvl_status rc = op(dev, args, &err);
    if (rc == QVL_OK)
        rc = dev->ops->wait(dev, QVL_LANE_COMPUTE, &err);
    if (rc != QVL_OK) {
        qvl_kt_fail(kt, "%s: %s", qvl_status_name(rc), err.text);
        kt->is_stopped = true;
        return false;
    }
    for (int i = 0; i < kt->n_buffers; i++)
        inspect(kt, &kt->buffers[i], i_run, i_device);
    inspect(kt, workspace, 0, i_device);
    return true;
}

void qvl_kt_run(qvl_kt *kt, qvl_kt_op op, const void *args)
{
    assert_true(kt->is_open);
    if (!kt->workspaces[0].base)
        qvl_kt_workspace(kt, &(qvl_workspace_limits){0});
    if (!run_once(kt, op, args, 0, 0) || !run_once(kt, op, args, 1, 0))
        return;
    for (int i = 1; i < kt->n_devices; i++)
        if (!run_once(kt, op, args, 1 + i, i))
            return;
}

void qvl_kt_run_starved(qvl_kt *kt, qvl_kt_op op, const void *args)
{
    assert_true(kt->is_open && kt->workspaces[0].base);
    qvl_err err = {0};
    kt->n_checks++;
    kt->is_stopped = true;
    if (kt->workspaces[0].bytes == 0)
        return;
    must(kt, "bind_workspace",
         kt->dev->ops->bind_workspace(kt->dev, kt->workspaces[0].data, 0, &err), &err);
    const qvl_status rc = op(kt->dev, args, &err);
    if (rc != QVL_EINTERNAL || err.text[0] == '\0')
        qvl_kt_fail(kt, "without workspace: %s '%s', expected QVL_EINTERNAL and a text",
                    qvl_status_name(rc), err.text);
}
