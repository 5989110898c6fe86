/* Loading: pieces of tensors, several at once, each byte from the files once for the whole job. */
#include <omp.h>
#include <stdlib.h>
#include <string.h>

#include "src/base/clock.h"
#include "src/base/memory.h"
#include "src/base/stop.h"
#include "src/model/weights_internal.h"

/* What is loaded at a time: small beside a layer, so that threads end together. */
static const size_t PIECE_BYTES = (size_t)8 << 20;

typedef struct piece {
    const weight_item *item;
    const qvl_safetensors *file;
    const qvl_tensor *tensor;
    int64_t first, rows; /* of the tensor */
} piece;

typedef struct loading {
    qvl_weights *weights;
    const qvl_weight_source *source;
    const char *half; /* for messages */
    piece *pieces;
    size_t n_pieces, capacity;
    int *owners; /* [slots], rank that reads a slot; NULL: this one reads all */
    uint64_t done, total;
} loading;

static void bind(qvl_weights *w)
{
    for (size_t i = 0; i < w->plan.n_slots; i++)
        *w->bindings[i] = qvl_plan_at(&w->plan, w->base, (int)i);
    if (w->half != QVL_WEIGHTS_TEXT)
        return;
    w->text.embed = w->embed_base;
    if (w->dims.text.is_tied)
        w->text.head = w->embed_base;
}

static char *place_of(const qvl_weights *w, const weight_item *item)
{
    return item->slot == QVL_EMBED_SLOT ? w->embed_base
                                        : qvl_plan_at(&w->plan, w->base, item->slot);
}

static size_t row_bytes_of(const weight_item *item, const qvl_tensor *tensor)
{
    qvl_dtype type = QVL_F32;
    qvl_tensor_float_type(tensor, &type);
    return (size_t)item->cols * qvl_dtype_bytes(type);
}

/* Converts and copies rows of a tensor, which lie at source, to their place. */
static qvl_status put_rows(qvl_weights *w, const piece *p, const void *source, qvl_err *err)
{
    const weight_item *item = p->item;
    const int64_t stride = item->n_dims == 1 ? item->cols : item->stride;
    qvl_dtype type = QVL_F32;
    qvl_tensor_float_type(p->tensor, &type);
    char *to = place_of(w, item) +
               (size_t)((item->first_row + p->first) * item->stride) * w->layout.act_bytes;
    return w->dev->ops->load_rows(w->dev, to, stride, source, type, p->rows, item->cols, err);
}

static const void *bytes_of(const piece *p)
{
    return (const char *)p->tensor->data + (size_t)p->first * row_bytes_of(p->item, p->tensor);
}

/* ---- several threads, straight to the device ---------------------------------------------------
 */

static qvl_status add_pieces(loading *l, const weight_item *item, qvl_err *err)
{
    const qvl_safetensors *file = NULL;
    const qvl_tensor *tensor = qvl_weight_files_find(l->source->files, item->name, &file);
    const size_t row_bytes = row_bytes_of(item, tensor);
    const int64_t step = row_bytes < PIECE_BYTES ? (int64_t)(PIECE_BYTES / row_bytes) : 1;
    qvl_status rc = QVL_OK;
    for (int64_t first = 0; first < item->rows && rc == QVL_OK; first += step) {
        const int64_t rows = item->rows - first < step ? item->rows - first : step;
        rc = qvl_reserve(&l->pieces, &l->capacity, l->n_pieces + 1, sizeof *l->pieces, "loading",
                         err);
        if (rc == QVL_OK)
            l->pieces[l->n_pieces++] = (piece){item, file, tensor, first, rows};
    }
    return rc;
}

/* Slots go to the rank that has least to read so far. */
static qvl_status share_slots(loading *l, qvl_err *err)
{
    const qvl_weights *w = l->weights;
    const int n_ranks = qvl_world_size(l->source->world);
    uint64_t *load = NULL;
    qvl_status rc = QVL_OK;
    QVL_TRY(qvl_alloc(&l->owners, w->plan.n_slots, sizeof *l->owners, "loading", err));
    QVL_TRY(qvl_alloc(&load, (size_t)n_ranks, sizeof *load, "loading", err));
    for (size_t i = 0; i < w->plan.n_slots; i++) {
        int least = 0;
        for (int r = 1; r < n_ranks; r++)
            least = load[r] < load[least] ? r : least;
        l->owners[i] = least;
        load[least] += w->plan.slots[i].bytes;
    }
out:
    free(load);
    return rc;
}

static bool is_mine(const loading *l, const weight_item *item)
{
    const int rank = qvl_world_rank(l->source->world);
    if (!l->owners)
        return true;
    return item->slot == QVL_EMBED_SLOT ? rank == 0 : l->owners[item->slot] == rank;
}

static void show_progress(loading *l)
{
    qvl_log_live(l->source->log, "loading the %s: %3.0f %%", l->half,
                 l->total ? 100.0 * (double)l->done / (double)l->total : 100.0);
}

static qvl_status run_pieces(loading *l, qvl_err *err)
{
    qvl_status rc = QVL_OK;
    for (size_t i = 0; i < l->n_pieces; i++)
        l->total +=
            (uint64_t)l->pieces[i].rows * row_bytes_of(l->pieces[i].item, l->pieces[i].tensor);
#pragma omp parallel for num_threads(l->source->n_threads) schedule(dynamic, 1)
    for (size_t i = 0; i < l->n_pieces; i++) {
        const piece *p = &l->pieces[i];
        qvl_err own = {QVL_OK, ""};
        qvl_status before;
#pragma omp atomic read
        before = rc;
        if (before != QVL_OK)
            continue;
        qvl_status loaded = qvl_stop_check("loading the model", &own);
        if (loaded == QVL_OK)
            loaded = put_rows(l->weights, p, bytes_of(p), &own);
        qvl_safetensors_release(p->file, bytes_of(p),
                                (size_t)p->rows * row_bytes_of(p->item, p->tensor));
#pragma omp critical
        {
            if (loaded != QVL_OK && rc == QVL_OK) {
                rc = loaded;
                *err = own;
            }
            l->done += (uint64_t)p->rows * row_bytes_of(p->item, p->tensor);
            if (omp_get_thread_num() == 0)
                show_progress(l);
        }
    }
    return rc == QVL_OK ? l->weights->dev->ops->wait(l->weights->dev, QVL_LANE_COPY, err) : rc;
}

/* What one rank read, to all others. Behind a broadcast whose peer is stopped a call to CUDA or
 * NCCL may not return. */
static qvl_status broadcast_slots(loading *l, qvl_err *err)
{
    qvl_weights *w = l->weights;
    qvl_exchange *exchange = l->source->exchange;
    qvl_status rc = QVL_OK;
    qvl_exchange_expect(exchange, true);
    for (size_t i = 0; i < w->plan.n_slots; i++)
        QVL_TRY(qvl_exchange_broadcast(exchange, qvl_plan_at(&w->plan, w->base, (int)i),
                                       w->plan.slots[i].bytes, l->owners[i], err));
    if (w->embed_base && w->embed_where == QVL_MEM_DEVICE)
        QVL_TRY(qvl_exchange_broadcast(exchange, w->embed_base, (size_t)w->embed_bytes, 0, err));
    QVL_TRY(w->dev->ops->wait(w->dev, QVL_LANE_REDUCE, err));
out:
    qvl_exchange_expect(exchange, false);
    return rc;
}

static qvl_status load_in_pieces(loading *l, qvl_err *err)
{
    qvl_weights *w = l->weights;
    qvl_world *world = l->source->world;
    const bool is_shared = l->source->exchange != NULL;
    qvl_status rc = is_shared ? share_slots(l, err) : QVL_OK;
    for (size_t i = 0; i < w->n_items && rc == QVL_OK; i++)
        if (is_mine(l, &w->items[i]))
            rc = add_pieces(l, &w->items[i], err);
    if (rc == QVL_OK)
        rc = run_pieces(l, err);
    QVL_TRY(qvl_world_agree(world, rc, err));
    if (!is_shared)
        return QVL_OK;
    QVL_TRY(qvl_world_agree(world, broadcast_slots(l, err), err));
    if (w->embed_base && w->embed_where == QVL_MEM_HOST)
        QVL_TRY(qvl_world_broadcast(world, w->embed_base, (size_t)w->embed_bytes, 0, err));
out:
    return rc;
}

/* ---- rank 0 reads, the others receive ----------------------------------------------------------
 */

/* Rows of one tensor at a time, as many as buffer holds, so that the others need little to receive
 * them. A rank whose device fails goes on receiving: the others would wait for it. */
static qvl_status receive_item(loading *l, const weight_item *item, const qvl_tensor *tensor,
                               void *buffer, size_t buffer_bytes, qvl_err *err)
{
    qvl_world *world = l->source->world;
    const size_t row_bytes = row_bytes_of(item, tensor);
    qvl_status rc = QVL_OK, loaded = QVL_OK;
    if (row_bytes > buffer_bytes)
        return qvl_fail(err, QVL_EDATA, "tensor %s: a row of %zu bytes is over the limit of %zu",
                        item->name, row_bytes, buffer_bytes);
    const int64_t step = (int64_t)(buffer_bytes / row_bytes);
    for (int64_t first = 0; first < item->rows; first += step) {
        const int64_t rows = item->rows - first < step ? item->rows - first : step;
        const piece p = {.item = item, .tensor = tensor, .first = first, .rows = rows};
        if (qvl_world_rank(world) == 0)
            memcpy(buffer, bytes_of(&p), (size_t)rows * row_bytes);
        QVL_TRY(qvl_world_broadcast(world, buffer, (size_t)rows * row_bytes, 0, err));
        if (loaded == QVL_OK)
            loaded = put_rows(l->weights, &p, buffer, err);
    }
    rc = loaded;
out:
    return rc;
}

static qvl_status load_and_receive(loading *l, qvl_err *err)
{
    const size_t buffer_bytes = (size_t)64 << 20;
    const qvl_weight_source *source = l->source;
    qvl_weights *w = l->weights;
    void *buffer = NULL;
    qvl_status rc = qvl_alloc(&buffer, buffer_bytes, 1, "loading", err);
    QVL_TRY(qvl_world_agree(source->world, rc, err));
    for (size_t i = 0; i < w->n_items; i++)
        l->total += qvl_weight_files_find(source->files, w->items[i].name, NULL)->n_bytes;
    for (size_t i = 0; i < w->n_items; i++) {
        const qvl_safetensors *file = NULL;
        const qvl_tensor *tensor = qvl_weight_files_find(source->files, w->items[i].name, &file);
        const qvl_status loaded = receive_item(l, &w->items[i], tensor, buffer, buffer_bytes, err);
        if (qvl_world_rank(source->world) == 0)
            qvl_safetensors_release(file, tensor->data, (size_t)tensor->n_bytes);
        l->done += tensor->n_bytes;
        show_progress(l);
        QVL_TRY(qvl_world_agree(source->world, loaded, err));
    }
out:
    free(buffer);
    return rc;
}

/* ---- both --------------------------------------------------------------------------------------
 */

static qvl_status allocate(qvl_weights *w, const char *half, qvl_err *err)
{
    const qvl_ops *ops = w->dev->ops;
    qvl_status rc = QVL_OK;
    QVL_TRY(ops->alloc(w->dev, &w->base, w->plan.total_bytes, QVL_MEM_DEVICE, half, err));
    if (w->embed_bytes)
        QVL_TRY(ops->alloc(w->dev, &w->embed_base, (size_t)w->embed_bytes, w->embed_where,
                           "token embedding", err));
    if (w->layout.width_align > 1) /* the padding */
        QVL_TRY(ops->zero(w->dev, w->base, w->plan.total_bytes, err));
    QVL_TRY(ops->order(w->dev, QVL_LANE_COPY, QVL_LANE_COMPUTE, err));
out:
    return rc;
}

/* Every byte is read once by one rank of the job. */
static void report(const loading *l, double seconds)
{
    const qvl_weights *w = l->weights;
    const int n_ranks = qvl_world_size(l->source->world);
    uint64_t bytes = 0;
    char text[32];
    for (size_t i = 0; i < w->n_items; i++)
        bytes += qvl_weight_files_find(l->source->files, w->items[i].name, NULL)->n_bytes;
    qvl_log_line(l->source->log, "loaded the %s: %s read once%s, %.2f s", l->half,
                 qvl_format_bytes(text, bytes),
                 n_ranks == 1          ? ""
                 : l->source->exchange ? ", shared out between ranks and broadcast"
                                       : ", broadcast",
                 seconds);
}

qvl_status qvl_weights_load(qvl_weights *weights, qvl_device *dev, const qvl_weight_source *source,
                            qvl_err *err)
{
    loading l = {.weights = weights,
                 .source = source,
                 .half = weights->half == QVL_WEIGHTS_TEXT ? "language model" : "vision tower"};
    qvl_status rc = QVL_OK;
    const double start_s = qvl_clock_s();
    weights->dev = dev;
    QVL_TRY(qvl_world_agree(source->world, allocate(weights, l.half, err), err));
    bind(weights);
    for (size_t i = 0; i < weights->n_items; i++)
        weights->text.is_bf16 |=
            qvl_weight_files_find(source->files, weights->items[i].name, NULL)->type ==
            QVL_TENSOR_BF16;
    if (qvl_world_size(source->world) == 1 || source->exchange)
        rc = load_in_pieces(&l, err);
    else
        rc = load_and_receive(&l, err);
    if (rc == QVL_OK)
        report(&l, qvl_clock_s() - start_s);
out:
    free(l.pieces);
    free(l.owners);
    return rc;
}
