/* layouts_check DIRECTORY [cpu | cuda | cuda_bf16 [LORA_TARGET]]: gradients do not depend on where
 * activations are, whatever is adapted (all; or some, as lora_target has them).
 *
 * Makes a model of nine layers in DIRECTORY, which must be empty, and runs forward and backward
 * over two samples with dropout: with everything kept, then with less and less memory, with and
 * without host memory to offload to. Every pass must give the same bits, and all ways of keeping a
 * layer must have been seen. A last layer that works on all tokens, not on the rows of the loss
 * alone, gives them but for rounding; a pack that supervises nothing gives zeros.
 */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "src/base/dropout_mask.h"
#include "src/base/memory.h"
#include "src/base/rng.h"
#include "src/demo/demo_model.h"
#include "src/model/decoder.h"
#include "src/model/model.h"
#ifdef QVL_WITH_CUDA
#include "kernels/cuda/device_cuda.h"
#endif

/* As many ids as qvl_demo's tokenizer has: its data can be trained on this model. */
enum { LAYERS = 9, IDS = 820, N_SAMPLES = 2, LONGEST = 150, TOKENS = LONGEST + LONGEST / 2 };

/* Packs as long as the longest, and longer ones; from nothing to spare to everything kept; without
 * offloading (1), with every second and with every third layer going to the host. */
enum { N_CAPACITIES = 2, N_SPARES = 14, N_STRIDES = 3 };

typedef struct check {
    qvl_log log;
    qvl_world *world;
    qvl_device *dev;
    qvl_model model;
    qvl_lora *lora;
    qvl_plan state_slots, slots;
    void *state_memory, *memory, *workspace, *pack_buffer;
    qvl_lora_buffers buffers;
    float *row_loss;
    qvl_decoder *decoder;
    qvl_pack pack;
    /* what was seen */
    int n, n_different, n_recomputing, n_partly, n_whole, n_away;
} check;

static qvl_status open_device(check *c, const char *device, qvl_err *err)
{
    if (strcmp(device, "cpu") == 0)
        return qvl_device_open_cpu(&c->dev, 0, err);
#ifdef QVL_WITH_CUDA
    const bool is_bf16 = strcmp(device, "cuda_bf16") == 0;
    if (is_bf16 || strcmp(device, "cuda") == 0)
        return qvl_device_open_cuda(&c->dev, 0, is_bf16 ? QVL_BF16 : QVL_F32, err);
#endif
    return qvl_fail(err, QVL_EUSAGE, "device %s", device);
}

static qvl_status open_model(check *c, const char *directory, const char *targets, qvl_err *err)
{
    qvl_lora_options options = {.rank = 4, .alpha = 8.0, .dropout = 0.1};
    qvl_model_dims dims;
    qvl_demo_weights written;
    qvl_status rc = QVL_OK;
    qvl_demo_dims(&dims, QVL_DEMO_TINY, IDS);
    dims.text.L = LAYERS;
    QVL_TRY(qvl_lora_parse_targets(options.targets, targets, err));
    QVL_TRY(qvl_demo_write_config(directory, &dims, err));
    QVL_TRY(qvl_demo_write_weights(&written, directory, &dims, 1, false, 1, err));
    QVL_TRY(qvl_model_open(&c->model, directory, NULL, NULL, c->dev, &options, &c->log, err));
    QVL_TRY(qvl_lora_create(&c->lora, &c->model.dims, &options, err));
    const qvl_weight_source source = {
        .files = c->model.files, .world = c->world, .n_threads = 2, .log = &c->log};
    QVL_TRY(qvl_weights_load(c->model.text, c->dev, &source, err));
out:
    return rc;
}

/* Adapters of which neither half is zero. */
static qvl_status make_state(check *c, qvl_err *err)
{
    const size_t n = (size_t)qvl_lora_parameters(c->lora), bytes = n * sizeof(float);
    int slots[4], slot_row_loss, slot_a_act;
    float *host = NULL;
    qvl_mt19937 rng;
    qvl_status rc = QVL_OK;
    QVL_TRY(qvl_lora_plan(c->lora, &c->state_slots, true, slots, err));
    QVL_TRY(qvl_plan_add(&c->state_slots, &slot_row_loss, "losses", TOKENS, sizeof(float), err));
    QVL_TRY(qvl_plan_add(&c->state_slots, &slot_a_act, "rounded adapters",
                         qvl_lora_act_elements(c->lora), c->dev->act_bytes, err));
    QVL_TRY(c->dev->ops->alloc(c->dev, &c->state_memory, c->state_slots.total_bytes, QVL_MEM_DEVICE,
                               "state", err));
    c->buffers.param = qvl_plan_at(&c->state_slots, c->state_memory, slots[0]);
    c->buffers.grad = qvl_plan_at(&c->state_slots, c->state_memory, slots[1]);
    c->buffers.act_bytes = c->dev->act_bytes;
    if (c->dev->tail_align)
        c->buffers.a_act = qvl_plan_at(&c->state_slots, c->state_memory, slot_a_act);
    c->row_loss = qvl_plan_at(&c->state_slots, c->state_memory, slot_row_loss);
    QVL_TRY(qvl_alloc(&host, n, sizeof *host, "adapters", err));
    qvl_mt19937_init(&rng, 2);
    qvl_torch_uniform(host, (int64_t)n, -0.05f, 0.05f, &rng);
    QVL_TRY(c->dev->ops->upload(c->dev, c->buffers.param, host, bytes, QVL_LANE_COMPUTE, err));
    QVL_TRY(c->dev->ops->wait(c->dev, QVL_LANE_COMPUTE, err));
out:
    free(host);
    return rc;
}

/* Prompts and answers in turn, or prompts only. */
static qvl_status fill_pack(check *c, bool has_answers, qvl_err *err)
{
    int32_t ids[LONGEST], labels[LONGEST];
    qvl_status rc = QVL_OK;
    qvl_pack_clear(&c->pack);
    for (int s = 0; s < N_SAMPLES; s++) {
        for (int i = 0; i < LONGEST; i++) {
            ids[i] = (i * 37 + s * 11) % 500;
            labels[i] = has_answers && i % 40 >= 20 ? ids[i] : -100;
        }
        QVL_TRY(qvl_pack_add(
            &c->pack,
            &(qvl_sample_view){
                .ids = ids, .labels = labels, .n = s ? LONGEST / 2 : LONGEST, .number = s},
            0.01f, &c->model.dims, err));
    }
    qvl_pack_finish(&c->pack);
out:
    return rc;
}

/* ---- one pass ----------------------------------------------------------------------------------
 */

static void release(check *c, void **memory)
{
    if (*memory)
        c->dev->ops->release(c->dev, *memory, QVL_MEM_DEVICE);
    *memory = NULL;
}

static qvl_status make_decoder(check *c, const qvl_decoder_options *options, qvl_err *err)
{
    const qvl_ops *ops = c->dev->ops;
    size_t bytes = 0;
    qvl_status rc = QVL_OK;
    qvl_decoder_destroy(c->decoder);
    c->decoder = NULL;
    qvl_plan_fini(&c->slots);
    release(c, &c->memory);
    release(c, &c->workspace);
    QVL_TRY(
        qvl_decoder_create(&c->decoder, &c->model.dims, c->lora, c->dev, options, &c->slots, err));
    const qvl_workspace_limits limits = qvl_decoder_limits(c->decoder, LONGEST);
    QVL_TRY(ops->workspace_bytes(c->dev, &bytes, &limits, err));
    QVL_TRY(ops->alloc(c->dev, &c->workspace, bytes, QVL_MEM_DEVICE, "workspace", err));
    QVL_TRY(ops->bind_workspace(c->dev, c->workspace, bytes, err));
    QVL_TRY(ops->alloc(c->dev, &c->memory, c->slots.total_bytes, QVL_MEM_DEVICE, "decoder", err));
    QVL_TRY(qvl_decoder_bind(c->decoder, c->dev, &c->slots, c->memory,
                             qvl_weights_text(c->model.text), &c->buffers, err));
    QVL_TRY(qvl_decoder_fold(c->decoder, err));
out:
    return rc;
}

/* Twice without a wait between them, as an evaluation and a step may follow each other: the first
 * is forward only. */
static qvl_status run_pass(check *c, float *grad, qvl_err *err)
{
    const size_t bytes = (size_t)qvl_lora_parameters(c->lora) * sizeof(float);
    const qvl_decoder_dropout dropout = {qvl_dropout_threshold(0.1), 3, 4};
    const qvl_ops *ops = c->dev->ops;
    qvl_status rc = QVL_OK;
    QVL_TRY(ops->zero(c->dev, c->buffers.grad, bytes, err));
    QVL_TRY(qvl_decoder_forward(c->decoder, &c->pack, NULL, err));
    QVL_TRY(qvl_decoder_forward(c->decoder, &c->pack, &dropout, err));
    QVL_TRY(qvl_decoder_loss(c->decoder, c->row_loss, true, err));
    QVL_TRY(qvl_decoder_backward(c->decoder, NULL, err));
    QVL_TRY(ops->download(c->dev, grad, c->buffers.grad, bytes, QVL_LANE_COMPUTE, err));
    QVL_TRY(ops->wait(c->dev, QVL_LANE_COMPUTE, err));
out:
    return rc;
}

/* ---- all layouts -------------------------------------------------------------------------------
 */

/* Bytes of activations. */
static qvl_status measure(check *c, size_t *out, const qvl_decoder_options *options, qvl_err *err)
{
    qvl_plan slots = {0};
    qvl_decoder *decoder = NULL;
    const qvl_status rc =
        qvl_decoder_create(&decoder, &c->model.dims, c->lora, c->dev, options, &slots, err);
    *out = slots.total_bytes;
    qvl_decoder_destroy(decoder);
    qvl_plan_fini(&slots);
    return rc;
}

static void count(check *c, bool is_same)
{
    const qvl_decoder_kept kept = qvl_decoder_kept_of(c->decoder, c->pack.T);
    c->n++;
    c->n_different += !is_same;
    c->n_recomputing += kept.n_whole + kept.n_partly + kept.n_away < LAYERS;
    c->n_partly += kept.n_partly > 0;
    c->n_whole += kept.n_whole > 1 && kept.n_whole < LAYERS;
    c->n_away += kept.n_away > 0;
    if (!is_same)
        printf("different: %zu bytes, %" PRId64 " layers kept, %" PRId64 " in part, %" PRId64
               " away\n",
               c->slots.total_bytes, kept.n_whole, kept.n_partly, kept.n_away);
}

static qvl_status try_layout(check *c, int i, const float *want, float *got, qvl_err *err)
{
    const int spare = i / N_CAPACITIES % N_SPARES, stride = 1 + i / N_CAPACITIES / N_SPARES;
    const size_t grad_bytes = (size_t)qvl_lora_parameters(c->lora) * sizeof *got;
    qvl_decoder_options options = {.tokens = i % N_CAPACITIES ? TOKENS + TOKENS / 3 : TOKENS,
                                   .is_training = true,
                                   .loss_rows_only = true};
    qvl_decoder_offload offload = {.stride = stride};
    size_t least = 0, most = 0;
    qvl_status rc = QVL_OK;
    QVL_TRY(measure(c, &least, &options, err));
    options.n_kept = LAYERS;
    QVL_TRY(measure(c, &most, &options, err));
    options.n_kept = 0;
    options.spare_bytes = (most - least) / N_SPARES * (size_t)spare / 256 * 256;
    QVL_TRY(make_decoder(c, &options, err));
    if (stride > 1)
        offload.bytes = qvl_decoder_offload_bytes(c->decoder, stride);
    if (spare % 5 == 4)
        offload.bytes /= 2; /* less than would be used */
    if (offload.bytes) {
        QVL_TRY(c->dev->ops->alloc(c->dev, &offload.host, offload.bytes, QVL_MEM_HOST, "offloaded",
                                   err));
        qvl_decoder_set_offload(c->decoder, &offload);
    }
    QVL_TRY(run_pass(c, got, err));
    count(c, memcmp(got, want, grad_bytes) == 0);
out:
    if (offload.host)
        c->dev->ops->release(c->dev, offload.host, QVL_MEM_HOST);
    return rc;
}

/* With guards layouts are fixed and nothing is kept in part. The last layer is always kept. */
static bool is_good(const check *c)
{
    const bool has_seen_all = c->n_recomputing && c->n_partly && c->n_whole && c->n_away;
    return c->n_different == 0 &&
           (qvl_plan_guard_bytes() ? c->n_recomputing == c->n : has_seen_all);
}

/* The largest of the values, and the largest distance of other from them. */
static void compare(double *largest, double *distance, const float *values, const float *other,
                    size_t n)
{
    *largest = *distance = 0.0;
    for (size_t i = 0; i < n; i++) {
        *largest = fmax(*largest, fabs((double)values[i]));
        *distance = fmax(*distance, fabs((double)values[i] - (double)other[i]));
    }
}

/* A last layer that works on all tokens: the bits differ where sums are cut elsewhere. */
static qvl_status check_all_rows(check *c, const float *want, float *got, qvl_err *err)
{
    const qvl_decoder_options options = {.tokens = TOKENS, .n_kept = LAYERS, .is_training = true};
    const size_t n = (size_t)qvl_lora_parameters(c->lora);
    const double allowed = c->dev->dtype == QVL_BF16 ? 2e-2 : 1e-5;
    double largest = 0.0, distance = 0.0;
    qvl_status rc = QVL_OK;
    QVL_TRY(make_decoder(c, &options, err));
    QVL_TRY(run_pass(c, got, err));
    compare(&largest, &distance, want, got, n);
    const bool is_same = distance <= allowed * largest;
    printf("%s a last layer that works on all %" PRId64 " tokens instead of %" PRId64
           ": gradients %.2g of the largest apart (allowed %.0e)\n",
           is_same ? "ok    " : "FAILED", c->pack.T, c->pack.n_rows, distance / largest, allowed);
    if (!is_same)
        rc = qvl_fail(err, QVL_EINTERNAL, "the last layer's rows make a difference");
out:
    return rc;
}

static qvl_status check_no_rows(check *c, float *got, qvl_err *err)
{
    double largest = 0.0, distance = 0.0;
    qvl_status rc = run_pass(c, got, err);
    QVL_TRY(rc);
    compare(&largest, &distance, got, got, (size_t)qvl_lora_parameters(c->lora));
    printf("%s %" PRId64 " tokens of which none is supervised: largest gradient %g\n",
           largest == 0.0 ? "ok    " : "FAILED", c->pack.T, largest);
    if (!(largest == 0.0))
        rc = qvl_fail(err, QVL_EINTERNAL, "gradients without a supervised token");
out:
    return rc;
}

static qvl_status check_all(check *c, qvl_err *err)
{
    const size_t n = (size_t)qvl_lora_parameters(c->lora);
    const qvl_decoder_options all = {
        .tokens = TOKENS, .n_kept = LAYERS, .is_training = true, .loss_rows_only = true};
    float *want = NULL, *got = NULL;
    double largest = 0.0, distance = 0.0;
    qvl_status rc = QVL_OK;
    QVL_TRY(qvl_alloc(&want, n, sizeof *want, "gradients", err));
    QVL_TRY(qvl_alloc(&got, n, sizeof *got, "gradients", err));
    QVL_TRY(make_decoder(c, &all, err));
    QVL_TRY(fill_pack(c, false, err));
    QVL_TRY(check_no_rows(c, want, err));
    QVL_TRY(fill_pack(c, true, err));
    QVL_TRY(run_pass(c, want, err));
    compare(&largest, &distance, want, want, n);
    for (int i = 0; i < N_CAPACITIES * N_SPARES * N_STRIDES; i++)
        QVL_TRY(try_layout(c, i, want, got, err));
    printf("%s %d layouts: %d recompute, %d keep layers in part, %d whole ones, %d send some away; "
           "%d gave other gradients than everything kept (largest %.3g)\n",
           is_good(c) && largest > 0.0 ? "ok    " : "FAILED", c->n, c->n_recomputing, c->n_partly,
           c->n_whole, c->n_away, c->n_different, largest);
    if (!is_good(c) || !(largest > 0.0))
        rc = qvl_fail(err, QVL_EINTERNAL, "not all layouts are right");
    QVL_TRY(rc);
    rc = check_all_rows(c, want, got, err);
out:
    free(want);
    free(got);
    return rc;
}

static void close_all(check *c)
{
    if (c->dev) {
        release(c, &c->memory);
        release(c, &c->workspace);
        release(c, &c->state_memory);
    }
    qvl_decoder_destroy(c->decoder);
    qvl_pack_fini(&c->pack);
    free(c->pack_buffer);
    qvl_plan_fini(&c->slots);
    qvl_plan_fini(&c->state_slots);
    qvl_lora_destroy(c->lora);
    qvl_model_close(&c->model);
    qvl_device_close(c->dev);
    qvl_world_destroy(c->world);
}

int main(int argc, char **argv)
{
    qvl_err err = {QVL_OK, ""};
    check c = {0};
    if (argc < 2 || argc > 4) {
        fprintf(stderr, "usage: layouts_check DIRECTORY [cpu | cuda | cuda_bf16 [LORA_TARGET]]\n");
        return QVL_EUSAGE;
    }
    qvl_log_init(&c.log, "layouts_check");
    c.log.is_terminal = false;
    qvl_status rc = qvl_world_create(&c.world, &c.log, &err);
    if (rc == QVL_OK)
        rc = open_device(&c, argc > 2 ? argv[2] : "cpu", &err);
    if (rc == QVL_OK)
        rc = open_model(&c, argv[1], argc > 3 ? argv[3] : "all", &err);
    if (rc == QVL_OK)
        rc = make_state(&c, &err);
    if (rc == QVL_OK)
        rc = qvl_alloc(&c.pack_buffer, qvl_pack_bytes(TOKENS), 1, "pack", &err);
    if (rc == QVL_OK) {
        qvl_pack_init(&c.pack, TOKENS, c.pack_buffer);
        rc = check_all(&c, &err);
    }
    if (rc != QVL_OK)
        fprintf(stderr, "layouts_check: %s\n", err.text);
    close_all(&c);
    return (int)rc;
}
