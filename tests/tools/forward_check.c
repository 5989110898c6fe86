/* forward_check FIXTURE [cpu | cuda | cuda_bf16]: one forward and backward pass beside the values
 * that Hugging Face computed in float32.
 *
 * FIXTURE has model/, adapter_init/, train.h5 and expected.h5 (group /forward). Positions must be
 * equal; vision features, hidden states and logits within 1e-5 of the largest value, the loss
 * within 1e-5 relative, every adapter gradient within 1e-4 of that tensor's largest value; ten
 * times that on a GPU in float32, and 0.05 of the largest value in bf16. A failure names the
 * tensor, the place and both values.
 */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "io/dataset_h5.h"
#include "io/hdf5_tools.h"
#include "src/base/files.h"
#include "src/base/memory.h"
#include "src/model/decoder.h"
#include "src/model/lora_files.h"
#include "src/model/model.h"
#include "src/model/vision.h"
#ifdef QVL_WITH_CUDA
#include "kernels/cuda/device_cuda.h"
#endif

typedef struct check {
    const char *fixture, *device;
    double slack; /* of the tolerances; 0: 0.05 for all */
    qvl_log log;
    qvl_world *world;
    qvl_device *dev;
    qvl_model model;
    qvl_lora *lora;
    qvl_dataset *data;
    hid_t expected;
    char expected_path[QVL_PATH_BYTES];
    /* the sample */
    int64_t T, n_images;
    int32_t *ids, *labels, *grids;
    void **features;
    int64_t n_feature_tokens;
    /* device */
    qvl_plan vision_slots, slots, state_slots;
    void *vision_memory, *memory, *state_memory, *workspace;
    qvl_vision *vision;
    qvl_decoder *decoder;
    qvl_lora_buffers buffers;
    float *row_loss;
    int lora_slots[4], slot_row_loss, slot_a_act;
    qvl_pack pack;
    void *pack_buffer;
    int n_failed;
} check;

/* Largest distance over the largest value; the place where it is. A NaN is infinitely far. */
static void compare(check *c, const char *name, const float *got, const float *want, int64_t n,
                    double tolerance)
{
    double largest = 0.0, worst = 0.0;
    int64_t place = 0;
    tolerance = c->slack > 0.0 ? tolerance * c->slack : 0.05;
    for (int64_t i = 0; i < n; i++)
        largest = fmax(largest, fabs((double)want[i]));
    for (int64_t i = 0; i < n; i++) {
        const double distance = fabs((double)got[i] - (double)want[i]);
        if (!(distance <= worst)) {
            worst = isnan(distance) ? INFINITY : distance;
            place = i;
        }
    }
    const bool is_good = worst <= tolerance * largest;
    c->n_failed += !is_good;
    if (!is_good || strncmp(name, "gradient", 8) != 0)
        printf("%s %-24s worst %.2e of largest %.3e (allowed %.0e)\n",
               is_good ? "ok    " : "FAILED", name, worst / (largest > 0 ? largest : 1), largest,
               tolerance);
    if (!is_good)
        printf("       at %" PRId64 ": got %.9g, want %.9g\n", place, (double)got[place],
               (double)want[place]);
}

static qvl_status read_floats(check *c, float **out, const char *name, int64_t n, qvl_err *err)
{
    qvl_status rc = qvl_alloc(out, (size_t)n, sizeof **out, name, err);
    return rc == QVL_OK ? qvl_h5_read_array(c->expected, name, H5T_NATIVE_FLOAT, *out, n,
                                            c->expected_path, err)
                        : rc;
}

static qvl_status open_device(check *c, qvl_err *err)
{
    c->slack = 1.0;
    if (strcmp(c->device, "cpu") == 0)
        return qvl_device_open_cpu(&c->dev, 0, err);
#ifdef QVL_WITH_CUDA
    const bool is_bf16 = strcmp(c->device, "cuda_bf16") == 0;
    c->slack = is_bf16 ? 0.0 : 10.0;
    if (is_bf16 || strcmp(c->device, "cuda") == 0)
        return qvl_device_open_cuda(&c->dev, 0, is_bf16 ? QVL_BF16 : QVL_F32, err);
#endif
    return qvl_fail(err, QVL_EUSAGE, "device %s", c->device);
}

static qvl_status load(check *c, qvl_weights *weights, qvl_err *err)
{
    const qvl_weight_source source = {
        .files = c->model.files, .world = c->world, .n_threads = 2, .log = &c->log};
    return qvl_weights_load(weights, c->dev, &source, err);
}

static qvl_status open_all(check *c, qvl_err *err)
{
    char path[QVL_PATH_BYTES];
    qvl_lora_options options;
    qvl_status rc = QVL_OK;
    QVL_TRY(open_device(c, err));
    QVL_TRY(qvl_path_join(path, c->fixture, "adapter_init", err));
    QVL_TRY(qvl_lora_read_options(&options, path, err));
    QVL_TRY(qvl_path_join(path, c->fixture, "model", err));
    QVL_TRY(qvl_model_open(&c->model, path, NULL, NULL, c->dev, &options, &c->log, err));
    QVL_TRY(qvl_lora_create(&c->lora, &c->model.dims, &options, err));
    QVL_TRY(qvl_path_join(path, c->fixture, "train.h5", err));
    QVL_TRY(qvl_dataset_open(&c->data, path, err));
    QVL_TRY(qvl_path_join(c->expected_path, c->fixture, "expected.h5", err));
    c->expected = H5Fopen(c->expected_path, H5F_ACC_RDONLY, H5P_DEFAULT);
    if (c->expected < 0)
        rc = qvl_h5_fail(err, QVL_EDATA, "%s", c->expected_path);
out:
    return rc;
}

static qvl_status alloc_workspace(check *c, const qvl_workspace_limits *limits, qvl_err *err)
{
    size_t bytes = 0;
    qvl_status rc = QVL_OK;
    if (c->workspace)
        c->dev->ops->release(c->dev, c->workspace, QVL_MEM_DEVICE);
    c->workspace = NULL;
    QVL_TRY(c->dev->ops->workspace_bytes(c->dev, &bytes, limits, err));
    QVL_TRY(c->dev->ops->alloc(c->dev, &c->workspace, bytes, QVL_MEM_DEVICE, "workspace", err));
    QVL_TRY(c->dev->ops->bind_workspace(c->dev, c->workspace, bytes, err));
out:
    return rc;
}

/* The first sample, and the features of its images. */
static qvl_status run_vision(check *c, qvl_err *err)
{
    const int32_t *images = NULL;
    const int64_t D = c->model.dims.text.D;
    int64_t most = 0;
    uint8_t *rgb = NULL;
    qvl_status rc = QVL_OK;
    c->T = qvl_dataset_length(c->data, 0);
    c->n_images = qvl_dataset_sample_images(c->data, 0, &images);
    QVL_TRY(qvl_alloc(&c->ids, (size_t)c->T, sizeof *c->ids, "sample", err));
    QVL_TRY(qvl_alloc(&c->labels, (size_t)c->T, sizeof *c->labels, "sample", err));
    QVL_TRY(qvl_alloc(&c->grids, 3 * (size_t)c->n_images, sizeof *c->grids, "sample", err));
    QVL_TRY(qvl_alloc(&c->features, (size_t)c->n_images, sizeof *c->features, "sample", err));
    QVL_TRY(qvl_dataset_read_sample(c->data, 0, c->ids, c->labels, err));
    for (int64_t i = 0; i < c->n_images; i++) {
        memcpy(c->grids + 3 * i, qvl_dataset_grid(c->data, images[i]), 3 * sizeof *c->grids);
        const int64_t patches = (int64_t)c->grids[3 * i + 1] * c->grids[3 * i + 2];
        most = patches > most ? patches : most;
        c->n_feature_tokens += patches / 4;
    }
    QVL_TRY(load(c, c->model.vision, err));
    QVL_TRY(qvl_vision_create(&c->vision, &c->model.dims, most, c->dev->act_bytes,
                              qvl_weights_vision(c->model.vision)->Fp, &c->vision_slots, err));
    QVL_TRY(c->dev->ops->alloc(c->dev, &c->vision_memory, c->vision_slots.total_bytes,
                               QVL_MEM_DEVICE, "vision", err));
    const qvl_workspace_limits limits = qvl_vision_limits(c->vision);
    QVL_TRY(alloc_workspace(c, &limits, err));
    QVL_TRY(qvl_vision_bind(c->vision, c->dev, &c->vision_slots, c->vision_memory,
                            qvl_weights_vision(c->model.vision), err));
    QVL_TRY(qvl_alloc(&rgb, (size_t)most * 588, 1, "image", err));
    for (int64_t i = 0; i < c->n_images; i++) {
        const int64_t rows = c->grids[3 * i + 1], cols = c->grids[3 * i + 2];
        QVL_TRY(qvl_alloc(&c->features[i], (size_t)(rows * cols / 4 * D), c->dev->act_bytes,
                          "features", err));
        QVL_TRY(qvl_dataset_read_rgb(c->data, images[i], rgb, err));
        QVL_TRY(qvl_vision_run(c->vision, c->features[i], rgb, rows, cols, err));
    }
out:
    free(rgb);
    return rc;
}

static float feature_at(const check *c, const void *features, int64_t i)
{
    return c->dev->dtype == QVL_F32 ? ((const float *)features)[i]
                                    : qvl_float_from_bf16(((const uint16_t *)features)[i]);
}

static qvl_status check_features(check *c, qvl_err *err)
{
    const int64_t D = c->model.dims.text.D, n = c->n_feature_tokens * D;
    float *want = NULL, *got = NULL;
    int64_t at = 0;
    qvl_status rc = QVL_OK;
    QVL_TRY(read_floats(c, &want, "forward/vision_features", n, err));
    QVL_TRY(qvl_alloc(&got, (size_t)n, sizeof *got, "features", err));
    for (int64_t i = 0; i < c->n_images; i++) {
        const int64_t count = (int64_t)c->grids[3 * i + 1] * c->grids[3 * i + 2] / 4 * D;
        for (int64_t k = 0; k < count; k++)
            got[at + k] = feature_at(c, c->features[i], k);
        at += count;
    }
    compare(c, "vision features", got, want, n, 1e-5);
out:
    free(want);
    free(got);
    return rc;
}

static qvl_status set_up_decoder(check *c, qvl_err *err)
{
    const qvl_decoder_options options = {
        .tokens = c->T, .n_kept = c->model.dims.text.L, .is_training = true};
    const size_t n = (size_t)qvl_lora_parameters(c->lora);
    char path[QVL_PATH_BYTES];
    float *host = NULL;
    qvl_status rc = QVL_OK;
    QVL_TRY(load(c, c->model.text, err));
    QVL_TRY(qvl_lora_plan(c->lora, &c->state_slots, true, c->lora_slots, err));
    QVL_TRY(qvl_plan_add(&c->state_slots, &c->slot_row_loss, "losses", c->T, sizeof(float), err));
    QVL_TRY(qvl_plan_add(&c->state_slots, &c->slot_a_act, "rounded adapters",
                         qvl_lora_act_elements(c->lora), c->dev->act_bytes, err));
    QVL_TRY(c->dev->ops->alloc(c->dev, &c->state_memory, c->state_slots.total_bytes, QVL_MEM_DEVICE,
                               "state", err));
    c->buffers.param = qvl_plan_at(&c->state_slots, c->state_memory, c->lora_slots[0]);
    c->buffers.grad = qvl_plan_at(&c->state_slots, c->state_memory, c->lora_slots[1]);
    c->buffers.act_bytes = c->dev->act_bytes;
    if (c->dev->tail_align)
        c->buffers.a_act = qvl_plan_at(&c->state_slots, c->state_memory, c->slot_a_act);
    c->row_loss = qvl_plan_at(&c->state_slots, c->state_memory, c->slot_row_loss);
    QVL_TRY(
        qvl_decoder_create(&c->decoder, &c->model.dims, c->lora, c->dev, &options, &c->slots, err));
    QVL_TRY(c->dev->ops->alloc(c->dev, &c->memory, c->slots.total_bytes, QVL_MEM_DEVICE, "decoder",
                               err));
    const qvl_workspace_limits limits = qvl_decoder_limits(c->decoder, c->T);
    QVL_TRY(alloc_workspace(c, &limits, err));
    QVL_TRY(qvl_decoder_bind(c->decoder, c->dev, &c->slots, c->memory,
                             qvl_weights_text(c->model.text), &c->buffers, err));
    QVL_TRY(qvl_alloc(&host, n, sizeof *host, "adapter", err));
    QVL_TRY(qvl_path_join(path, c->fixture, "adapter_init", err));
    QVL_TRY(qvl_lora_load(c->lora, host, path, err));
    QVL_TRY(c->dev->ops->upload(c->dev, c->buffers.param, host, n * sizeof *host, QVL_LANE_COMPUTE,
                                err));
    QVL_TRY(c->dev->ops->zero(c->dev, c->buffers.grad, n * sizeof *host, err));
    QVL_TRY(qvl_decoder_fold(c->decoder, err));
    QVL_TRY(c->dev->ops->wait(c->dev, QVL_LANE_COMPUTE, err));
out:
    free(host);
    return rc;
}

static qvl_status run_decoder(check *c, qvl_err *err)
{
    const int64_t supervised = qvl_supervised_tokens(c->labels, c->T);
    qvl_status rc = QVL_OK;
    QVL_TRY(qvl_alloc(&c->pack_buffer, qvl_pack_bytes(c->T), 1, "pack", err));
    qvl_pack_init(&c->pack, c->T, c->pack_buffer);
    QVL_TRY(qvl_pack_add(&c->pack,
                         &(qvl_sample_view){.ids = c->ids,
                                            .labels = c->labels,
                                            .n = c->T,
                                            .grids = c->grids,
                                            .features = (const void *const *)c->features,
                                            .n_images = c->n_images},
                         1.0f / (float)supervised, &c->model.dims, err));
    qvl_pack_finish(&c->pack);
    QVL_TRY(qvl_decoder_forward(c->decoder, &c->pack, NULL, err));
out:
    return rc;
}

static qvl_status check_positions(check *c, qvl_err *err)
{
    int32_t *want = NULL;
    int64_t wrong = 0;
    qvl_status rc = QVL_OK;
    QVL_TRY(qvl_alloc(&want, 3 * (size_t)c->T, sizeof *want, "positions", err));
    QVL_TRY(qvl_h5_read_array(c->expected, "forward/position_ids", H5T_NATIVE_INT32, want, 3 * c->T,
                              c->expected_path, err));
    for (int64_t i = 0; i < 3 * c->T; i++)
        wrong += want[i] != c->pack.positions[i];
    printf("%s position ids            %" PRId64 " of %" PRId64 " differ\n",
           wrong ? "FAILED" : "ok    ", wrong, 3 * c->T);
    c->n_failed += wrong != 0;
out:
    free(want);
    return rc;
}

static qvl_status check_hidden(check *c, qvl_err *err)
{
    const qvl_text_dims *t = &c->model.dims.text;
    const int64_t n = c->T * t->D;
    float *want = NULL, *got = NULL;
    char name[32];
    qvl_status rc = QVL_OK;
    QVL_TRY(read_floats(c, &want, "forward/hidden_states", (t->L + 1) * n, err));
    QVL_TRY(qvl_alloc(&got, (size_t)n, sizeof *got, "hidden states", err));
    for (int64_t l = 0; l <= t->L; l++) {
        QVL_TRY(qvl_decoder_fetch_hidden(c->decoder, got, l, err));
        snprintf(name, sizeof name, "hidden states %d", (int)l);
        compare(c, name, got, want + l * n, n, 1e-5);
    }
out:
    free(want);
    free(got);
    return rc;
}

static qvl_status check_loss(check *c, qvl_err *err)
{
    float *losses = NULL, *want = NULL;
    double loss = 0.0;
    qvl_status rc = QVL_OK;
    QVL_TRY(qvl_alloc(&losses, (size_t)c->T, sizeof *losses, "losses", err));
    QVL_TRY(qvl_decoder_loss(c->decoder, c->row_loss, true, err));
    QVL_TRY(c->dev->ops->download(c->dev, losses, c->row_loss,
                                  (size_t)c->pack.n_rows * sizeof *losses, QVL_LANE_COMPUTE, err));
    QVL_TRY(c->dev->ops->wait(c->dev, QVL_LANE_COMPUTE, err));
    for (int64_t i = 0; i < c->pack.n_rows; i++)
        loss += (double)c->pack.weights[i] * (double)losses[i];
    QVL_TRY(read_floats(c, &want, "forward/loss", 1, err));
    const float got = (float)loss;
    compare(c, "loss", &got, want, 1, 1e-5);
out:
    free(losses);
    free(want);
    return rc;
}

static qvl_status check_gradients(check *c, qvl_err *err)
{
    const int64_t n = qvl_lora_parameters(c->lora), count = 2 * qvl_lora_modules(c->lora);
    float *grad = NULL, *want = NULL;
    char module[64], name[160];
    const int failed_before = c->n_failed;
    qvl_status rc = QVL_OK;
    QVL_TRY(qvl_decoder_backward(c->decoder, NULL, err));
    QVL_TRY(qvl_alloc(&grad, (size_t)n, sizeof *grad, "gradients", err));
    QVL_TRY(c->dev->ops->download(c->dev, grad, c->buffers.grad, (size_t)n * sizeof *grad,
                                  QVL_LANE_COMPUTE, err));
    QVL_TRY(c->dev->ops->wait(c->dev, QVL_LANE_COMPUTE, err));
    for (int64_t i = 0; i < count; i++) {
        const qvl_lora_matrix m = qvl_lora_matrix_at(c->lora, i);
        snprintf(name, sizeof name,
                 "forward/grad/base_model.model.model.language_model.%s.lora_%c.weight",
                 qvl_lora_module_name(module, m.layer, m.site), m.is_b ? 'B' : 'A');
        free(want);
        want = NULL;
        QVL_TRY(read_floats(c, &want, name, m.rows * m.cols, err));
        snprintf(name, sizeof name, "gradient %s %c", module, m.is_b ? 'B' : 'A');
        compare(c, name, grad + m.offset, want, m.rows * m.cols, 1e-4);
    }
    printf("%s gradients               of %" PRId64 " tensors\n",
           c->n_failed == failed_before ? "ok    " : "FAILED", count);
out:
    free(grad);
    free(want);
    return rc;
}

static qvl_status check_logits(check *c, qvl_err *err)
{
    const int64_t n = c->T * c->model.dims.text.V;
    float *want = NULL, *got = NULL;
    qvl_status rc = QVL_OK;
    QVL_TRY(read_floats(c, &want, "forward/logits", n, err));
    QVL_TRY(qvl_alloc(&got, (size_t)n, sizeof *got, "logits", err));
    QVL_TRY(qvl_decoder_fetch_logits(c->decoder, got, err));
    compare(c, "logits", got, want, n, 1e-5);
    /* They took the room of an activation that backward needs. */
    QVL_TRY(qvl_decoder_forward(c->decoder, &c->pack, NULL, err));
out:
    free(want);
    free(got);
    return rc;
}

static void close_all(check *c)
{
    void *const memory[] = {c->vision_memory, c->memory, c->state_memory, c->workspace};
    for (size_t i = 0; i < sizeof memory / sizeof *memory; i++)
        if (memory[i])
            c->dev->ops->release(c->dev, memory[i], QVL_MEM_DEVICE);
    for (int64_t i = 0; c->features && i < c->n_images; i++)
        free(c->features[i]);
    free(c->features);
    free(c->ids);
    free(c->labels);
    free(c->grids);
    free(c->pack_buffer);
    qvl_pack_fini(&c->pack);
    qvl_vision_destroy(c->vision);
    qvl_decoder_destroy(c->decoder);
    qvl_plan_fini(&c->vision_slots);
    qvl_plan_fini(&c->slots);
    qvl_plan_fini(&c->state_slots);
    if (c->expected >= 0)
        H5Fclose(c->expected);
    qvl_dataset_close(c->data);
    qvl_lora_destroy(c->lora);
    qvl_model_close(&c->model);
    qvl_device_close(c->dev);
    qvl_world_destroy(c->world);
}

int main(int argc, char **argv)
{
    static qvl_status (*const STEPS[])(check *, qvl_err *) = {
        open_all,        run_vision,   check_features, set_up_decoder, run_decoder,
        check_positions, check_hidden, check_logits,   check_loss,     check_gradients};
    qvl_err err = {QVL_OK, ""};
    check c = {.expected = H5I_INVALID_HID};
    if (argc < 2 || argc > 3) {
        fprintf(stderr, "usage: forward_check FIXTURE [cpu | cuda | cuda_bf16]\n");
        return QVL_EUSAGE;
    }
    c.fixture = argv[1];
    c.device = argc > 2 ? argv[2] : "cpu";
    qvl_h5_quiet();
    qvl_log_init(&c.log, "forward_check");
    c.log.is_terminal = false;
    qvl_status rc = qvl_world_create(&c.world, &c.log, &err);
    for (size_t i = 0; rc == QVL_OK && i < sizeof STEPS / sizeof *STEPS; i++)
        rc = STEPS[i](&c, &err);
    if (rc != QVL_OK)
        fprintf(stderr, "forward_check: %s\n", err.text);
    const int code = rc != QVL_OK ? (int)rc : c.n_failed ? 1 : 0;
    close_all(&c);
    return code;
}
