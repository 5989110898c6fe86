#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "src/base/memory.h"
#include "tests/tools/forward_check.h"

/* Packs as long as the sample, and a decoder for longer ones; from nothing to spare to everything
 * kept. */
enum { N_CAPACITIES = 2, N_SPARES = 24 };

typedef struct tally {
    int n, n_different, n_recomputing, n_partly, n_whole;
} tally;

static qvl_status download(check *c, float *to, qvl_err *err)
{
    const size_t bytes = (size_t)qvl_lora_parameters(c->lora) * sizeof(float);
    qvl_status rc = QVL_OK;
    QVL_TRY(c->dev->ops->download(c->dev, to, c->buffers.grad, bytes, QVL_LANE_COMPUTE, err));
    QVL_TRY(c->dev->ops->wait(c->dev, QVL_LANE_COMPUTE, err));
out:
    return rc;
}

static qvl_status run_pass(check *c, float *grad, qvl_err *err)
{
    const size_t bytes = (size_t)qvl_lora_parameters(c->lora) * sizeof(float);
    qvl_status rc = QVL_OK;
    QVL_TRY(c->dev->ops->zero(c->dev, c->buffers.grad, bytes, err));
    QVL_TRY(qvl_decoder_forward(c->decoder, &c->pack, NULL, err));
    QVL_TRY(qvl_decoder_loss(c->decoder, c->row_loss, true, err));
    QVL_TRY(qvl_decoder_backward(c->decoder, NULL, err));
    QVL_TRY(download(c, grad, err));
out:
    return rc;
}

static void count(check *c, tally *to, bool is_same)
{
    const qvl_decoder_kept kept = qvl_decoder_kept_of(c->decoder, c->T);
    const int64_t L = c->model.dims.text.L;
    to->n++;
    to->n_different += !is_same;
    to->n_recomputing += kept.n_whole + kept.n_partly < L;
    to->n_partly += kept.n_partly > 0;
    to->n_whole += kept.n_whole > 1 && kept.n_whole < L;
    if (!is_same)
        printf("       different: %zu bytes, %" PRId64 " layers kept, %" PRId64 " in part\n",
               c->slots.total_bytes, kept.n_whole, kept.n_partly);
}

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

qvl_status check_layouts(check *c, qvl_err *err)
{
    const size_t n = (size_t)qvl_lora_parameters(c->lora);
    float *want = NULL, *got = NULL;
    tally seen = {0};
    qvl_status rc = QVL_OK;
    QVL_TRY(qvl_alloc(&want, n, sizeof *want, "gradients", err));
    QVL_TRY(qvl_alloc(&got, n, sizeof *got, "gradients", err));
    QVL_TRY(download(c, want, err));
    for (int i = 0; i < N_CAPACITIES * N_SPARES; i++) {
        const int64_t tokens = i % N_CAPACITIES ? c->T + c->T / 3 : c->T;
        qvl_decoder_options options = {.tokens = tokens, .is_training = true};
        size_t least = 0, most = 0;
        QVL_TRY(measure(c, &least, &options, err));
        options.n_kept = c->model.dims.text.L;
        QVL_TRY(measure(c, &most, &options, err));
        options.n_kept = 0;
        options.spare_bytes = (most - least) / N_SPARES * (size_t)(i / N_CAPACITIES) / 256 * 256;
        QVL_TRY(make_decoder(c, &options, err));
        QVL_TRY(run_pass(c, got, err));
        count(c, &seen, memcmp(got, want, n * sizeof *got) == 0);
    }
    /* with guards layouts are fixed and nothing is kept in part; the last layer is always kept */
    const int64_t L = c->model.dims.text.L;
    const bool has_all = seen.n_recomputing && seen.n_partly && (L < 3 || seen.n_whole);
    const bool is_good = seen.n_different == 0 &&
                         (qvl_plan_guard_bytes() ? seen.n_recomputing == seen.n : L < 2 || has_all);
    printf("%s layouts                 %d, %d recompute, %d keep layers in part, %d whole ones; %d "
           "gave other gradients\n",
           is_good ? "ok    " : "FAILED", seen.n, seen.n_recomputing, seen.n_partly, seen.n_whole,
           seen.n_different);
    c->n_failed += !is_good;
out:
    free(want);
    free(got);
    return rc;
}
