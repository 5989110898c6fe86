/* Where the activations of a pack lie.
 *
 * The plan has room for the longest pack, its n_kept layers and spare_bytes. When layers have to be
 * recomputed the arena is laid out anew for every pack, and what is left keeps more:
 *
 *     | common | x_in, kept u of all layers | the shared set | qkv, gate_up of n | the rest of m |
 *
 * First the results of two products in as many layers as fit: milliseconds saved for a byte, they
 * are worth more than the rest of a layer, which takes little time to compute. Then whole layers.
 * The last layer works in the shared set, which is still its own when backward begins. With host
 * memory to offload to, two of the places for qkv and gate_up are the buffers of many layers.
 */
#include <inttypes.h>
#include <stdio.h>

#include "src/model/decoder_internal.h"

/* ---- shapes ------------------------------------------------------------------------------------
 */

static void describe_layer(const qvl_decoder *d, activation_shape shapes[N_ACTIVATIONS])
{
    const qvl_text_dims *t = &d->dims.text;
    const int64_t q = t->H * t->Dh, qkv = q + 2 * t->KV * t->Dh;
    const size_t act = d->act_bytes, f32 = sizeof(float);
    const int64_t rank = qvl_lora_get_options(d->lora)->rank;
    const int64_t *tail = d->tail;
    int64_t u[QVL_N_GROUPS]; /* kept apart where there are no tails */
    for (int g = 0; g < QVL_N_GROUPS; g++)
        u[g] = tail[g] ? 0 : rank * qvl_lora_group_adapters(d->lora, (qvl_group)g);
    const activation_shape table[N_ACTIVATIONS] = {
        [INV1] = {"inv_rms 1", 1, f32},
        [H1] = {"norm 1", t->D + tail[QVL_GROUP_QKV], act},
        [QKV] = {"qkv", qkv, act},
        [LSE] = {"attention lse", t->H, f32},
        [ATTN] = {"attention", q + tail[QVL_GROUP_O], act},
        [U_QKV] = {"u qkv", u[QVL_GROUP_QKV], f32},
        [U_O] = {"u o", u[QVL_GROUP_O], f32},
        [X_MID] = {"x mid", t->D, act},
        [INV2] = {"inv_rms 2", 1, f32},
        [H2] = {"norm 2", t->D + tail[QVL_GROUP_GATE_UP], act},
        [GATE_UP] = {"gate_up", 2 * t->F, act},
        [U_GATE_UP] = {"u gate_up", u[QVL_GROUP_GATE_UP], f32},
        [H3] = {"swiglu", d->shares_h3 ? 0 : t->F + tail[QVL_GROUP_DOWN], act},
        [U_DOWN] = {"u down", u[QVL_GROUP_DOWN], f32}};
    for (int i = 0; i < N_ACTIVATIONS; i++)
        shapes[i] = table[i];
}

/* What the adapters' tails held, of all groups: a few bytes, and with them the passes over the
 * linears' inputs, down's widest of all, need not be made again. */
static activation_shape describe_kept_u(const qvl_decoder *d)
{
    int64_t used = 0;
    for (int g = 0; g < QVL_N_GROUPS; g++)
        used += d->used[g];
    return (activation_shape){"kept u", d->options.is_training ? used : 0, d->act_bytes};
}

static void describe_common(const qvl_decoder *d, activation_shape shapes[N_COMMON])
{
    const qvl_text_dims *t = &d->dims.text;
    const int64_t q = t->H * t->Dh, qkv = q + 2 * t->KV * t->Dh;
    const int64_t back = d->options.is_training ? 1 : 0;
    const size_t act = d->act_bytes, f32 = sizeof(float);
    /* the gradient of the residual stream moves from one to the other, and attention's output from
     * delta (decoder_run.c, spread_rows); the rows of attention that the loss reads are in dqkv */
    const int64_t wide = t->D > q ? t->D : q, attn = q + d->tail[QVL_GROUP_O];
    const int64_t h3 = d->shares_h3 ? t->F + d->tail[QVL_GROUP_DOWN] : 0;
    const activation_shape table[N_COMMON] = {
        [COSINE] = {"rotary cosine", t->Dh / 2, f32},
        [SINE] = {"rotary sine", t->Dh / 2, f32},
        [DELTA] = {"delta", wide, act},
        [X_FINAL] = {"x final", t->D, act},
        [H_FINAL] = {"norm final", t->D, act},
        [INV_FINAL] = {"inv_rms final", 1, f32},
        [DX] = {"dx", back * wide, act},
        [DH] = {"dh", back * (t->F > q ? t->F : q), act},
        [DQKV] = {"dqkv", back * (qkv > attn ? qkv : attn), act},
        [COMMON_H3] = {"swiglu", h3, act}};
    for (int i = 0; i < N_COMMON; i++)
        shapes[i] = table[i];
}

static void set_common(qvl_decoder *d, void *const at[N_COMMON])
{
    d->cosine = at[COSINE];
    d->sine = at[SINE];
    d->delta = at[DELTA];
    d->x_final = at[X_FINAL];
    d->h_final = at[H_FINAL];
    d->inv_final = at[INV_FINAL];
    d->dx = at[DX];
    d->dh = at[DH];
    d->dqkv = at[DQKV];
    d->h3 = d->shares_h3 ? at[COMMON_H3] : NULL;
}

/* ---- the plan ----------------------------------------------------------------------------------
 */

/* One set of slots. */
static qvl_status plan_set(const qvl_decoder *d, qvl_plan *plan, const char *owner, int *slots,
                           const activation_shape *shapes, int n, qvl_err *err)
{
    char name[56];
    qvl_status rc = QVL_OK;
    for (int i = 0; i < n && rc == QVL_OK; i++) {
        snprintf(name, sizeof name, "%s %s", owner, shapes[i].name);
        rc = qvl_plan_add(plan, &slots[i], name, d->options.tokens * shapes[i].per_token,
                          shapes[i].element_bytes, err);
    }
    return rc;
}

static qvl_status plan_layers(qvl_decoder *d, qvl_plan *plan, qvl_err *err)
{
    const int64_t L = d->dims.text.L, first_kept = L - d->options.n_kept;
    activation_shape shapes[N_ACTIVATIONS];
    const activation_shape kept_u = describe_kept_u(d);
    int shared[N_ACTIVATIONS] = {0};
    char owner[32];
    qvl_status rc = QVL_OK;
    describe_layer(d, shapes);
    if (first_kept > 0)
        QVL_TRY(plan_set(d, plan, "recomputed", shared, shapes, N_ACTIVATIONS, err));
    for (int64_t l = 0; l < L; l++) {
        int *slots = d->slots + l * N_ACTIVATIONS;
        snprintf(owner, sizeof owner, "layer %d", (int)l);
        if (l >= first_kept)
            QVL_TRY(plan_set(d, plan, owner, slots, shapes, N_ACTIVATIONS, err));
        if (kept_u.per_token)
            QVL_TRY(plan_set(d, plan, owner, &d->layers[l].slot_kept_u, &kept_u, 1, err));
        for (int i = 0; i < N_ACTIVATIONS && l < first_kept; i++)
            slots[i] = shared[i];
        snprintf(owner, sizeof owner, "layer %d x in", (int)l);
        QVL_TRY(qvl_plan_add(plan, &d->layers[l].slot_x_in, owner,
                             d->options.tokens * d->dims.text.D, d->act_bytes, err));
    }
out:
    return rc;
}

qvl_status qvl_decoder_plan_buffers(qvl_decoder *d, qvl_plan *plan, qvl_err *err)
{
    const qvl_text_dims *t = &d->dims.text;
    activation_shape shapes[N_COMMON];
    int spare = 0;
    qvl_status rc = QVL_OK;
    describe_common(d, shapes);
    QVL_TRY(qvl_plan_add(plan, &d->slot_pack, "pack",
                         (int64_t)(qvl_pack_bytes(d->options.tokens) / 4), 4, err));
    QVL_TRY(
        qvl_plan_add(plan, &d->slot_inv_freq, "rotary frequencies", t->Dh / 2, sizeof(float), err));
    QVL_TRY(qvl_plan_add(plan, &d->slot_axis, "rotary axes", t->Dh / 2, sizeof(int32_t), err));
    QVL_TRY(plan_set(d, plan, "pack's", d->common_slots, shapes, N_COMMON, err));
    QVL_TRY(plan_layers(d, plan, err));
    if (d->options.n_kept < t->L)
        QVL_TRY(qvl_plan_add(plan, &spare, "to spare", (int64_t)d->options.spare_bytes, 1, err));
    /* guards lie where the plan put them */
    d->is_flexible = d->options.n_kept < t->L && qvl_plan_guard_bytes() == 0;
    d->arena_bytes = plan->total_bytes - plan->slots[d->common_slots[0]].offset;
out:
    return rc;
}

void qvl_decoder_take_buffers(qvl_decoder *d, const qvl_plan *plan, void *base)
{
    const int64_t L = d->dims.text.L;
    const bool has_kept_u = describe_kept_u(d).per_token > 0;
    void *common[N_COMMON];
    d->device_pack = qvl_plan_at(plan, base, d->slot_pack);
    d->inv_freq = qvl_plan_at(plan, base, d->slot_inv_freq);
    d->axis = qvl_plan_at(plan, base, d->slot_axis);
    for (int i = 0; i < N_COMMON; i++)
        common[i] = qvl_plan_at(plan, base, d->common_slots[i]);
    set_common(d, common);
    for (int64_t l = 0; l < L; l++) {
        decoder_layer *layer = &d->layers[l];
        layer->x_in = qvl_plan_at(plan, base, layer->slot_x_in);
        layer->level = l >= L - d->options.n_kept ? KEPT : RECOMPUTED;
        if (has_kept_u)
            layer->kept_u = qvl_plan_at(plan, base, layer->slot_kept_u);
        for (int i = 0; i < N_ACTIVATIONS; i++)
            layer->at[i] = qvl_plan_at(plan, base, d->slots[l * N_ACTIVATIONS + i]);
        if (d->h3)
            layer->at[H3] = d->h3;
    }
    d->arena = common[0];
    d->laid_out_tokens = d->is_flexible ? 0 : d->options.tokens;
}

/* ---- a layout for each pack --------------------------------------------------------------------
 */

/* Bytes of one buffer of T rows, and of the sets of buffers. */
static size_t padded(const activation_shape *shape, int64_t T)
{
    const size_t bytes = (size_t)(T * shape->per_token) * shape->element_bytes;
    return (bytes + QVL_PLAN_ALIGN_BYTES - 1) / QVL_PLAN_ALIGN_BYTES * QVL_PLAN_ALIGN_BYTES;
}

static bool is_kept_first(int activation)
{
    return activation == QKV || activation == GATE_UP;
}

typedef struct layout {
    activation_shape common[N_COMMON], layer[N_ACTIVATIONS], x_in, kept_u;
    size_t first_bytes, rest_bytes; /* of a layer: what is kept first, and the rest */
    size_t needed_bytes;            /* with every layer in the shared set */
    qvl_decoder_kept kept;          /* the last layer, in the shared set, is one of the whole */
} layout;

/* What n places for qkv and gate_up are used for when they are too few. The last AWAY_BUFFERS of
 * the layers that use the buffers in turn stay in them. */
static qvl_decoder_kept share_out(const qvl_decoder_offload *offload, int64_t L, int64_t n,
                                  size_t first_bytes)
{
    qvl_decoder_kept kept = {.n_whole = 1, .n_partly = n};
    if (!offload->host || n < AWAY_BUFFERS)
        return kept;
    const int64_t turns = (L - 2) / offload->stride + 1;
    const int64_t room = (int64_t)(offload->bytes / first_bytes);
    const int64_t sent = turns - AWAY_BUFFERS < room ? turns - AWAY_BUFFERS : room;
    if (sent <= 0)
        return kept;
    kept.n_away = sent + AWAY_BUFFERS;
    kept.n_partly = n - AWAY_BUFFERS < L - 1 - kept.n_away ? n - AWAY_BUFFERS : L - 1 - kept.n_away;
    return kept;
}

/* How many layers room bytes keep. */
static layout measure(const qvl_decoder *d, int64_t T, size_t room,
                      const qvl_decoder_offload *offload)
{
    const int64_t L = d->dims.text.L;
    layout to = {.x_in = {"x in", d->dims.text.D, d->act_bytes}, .kept_u = describe_kept_u(d)};
    describe_common(d, to.common);
    describe_layer(d, to.layer);
    for (int i = 0; i < N_COMMON; i++)
        to.needed_bytes += padded(&to.common[i], T);
    for (int i = 0; i < N_ACTIVATIONS; i++)
        *(is_kept_first(i) ? &to.first_bytes : &to.rest_bytes) += padded(&to.layer[i], T);
    to.needed_bytes +=
        (size_t)L * (padded(&to.x_in, T) + padded(&to.kept_u, T)) + to.first_bytes + to.rest_bytes;
    if (room < to.needed_bytes || T == 0)
        return to;
    const size_t left = room - to.needed_bytes;
    const int64_t n = (int64_t)(left / to.first_bytes);
    if (n < L - 1) {
        to.kept = share_out(offload, L, n, to.first_bytes);
        return to;
    }
    const int64_t whole = (int64_t)((left - (size_t)(L - 1) * to.first_bytes) / to.rest_bytes);
    to.kept.n_whole = whole < L - 1 ? whole + 1 : L;
    to.kept.n_partly = L - to.kept.n_whole;
    return to;
}

static void *take(char **at, const activation_shape *shape, int64_t T)
{
    void *taken = *at;
    *at += padded(shape, T);
    return taken;
}

/* From the last layer down: whole ones, then those kept in part; every stride-th from the first up
 * goes away. */
static void set_levels(qvl_decoder *d)
{
    const int64_t L = d->dims.text.L, stride = d->offload.stride;
    int64_t whole = d->kept.n_whole, partly = d->kept.n_partly;
    for (int64_t l = L - 1; l >= 0; l--) {
        decoder_layer *layer = &d->layers[l];
        layer->level = RECOMPUTED;
        if (whole > 0) {
            layer->level = KEPT;
            whole--;
        } else if (d->kept.n_away && l % stride == 0 && l / stride < d->kept.n_away) {
            layer->level = AWAY;
            layer->turn = l / stride;
        } else if (partly > 0) {
            layer->level = PARTLY_KEPT;
            partly--;
        }
    }
}

/* Where the layer's activations lie. qkv and gate_up of one layer lie side by side. */
static void place_layer(decoder_layer *layer, char **at, const layout *to, int64_t T,
                        void *const shared[N_ACTIVATIONS], char *buffers)
{
    char *buffer = buffers + (size_t)(layer->turn % AWAY_BUFFERS) * to->first_bytes;
    for (int i = 0; i < N_ACTIVATIONS; i++) {
        const bool is_first = is_kept_first(i);
        if (layer->level == KEPT || (layer->level == PARTLY_KEPT && is_first))
            layer->at[i] = take(at, &to->layer[i], T);
        else if (layer->level == AWAY && is_first)
            layer->at[i] = take(&buffer, &to->layer[i], T);
        else
            layer->at[i] = shared[i];
    }
}

qvl_status qvl_decoder_lay_out(qvl_decoder *d, int64_t T, qvl_err *err)
{
    const int64_t L = d->dims.text.L;
    char *at = d->arena;
    void *common[N_COMMON], *shared[N_ACTIVATIONS];
    if (!d->is_flexible || T == d->laid_out_tokens)
        return QVL_OK;
    const layout to = measure(d, T, d->arena_bytes, &d->offload);
    if (to.needed_bytes > d->arena_bytes)
        return qvl_fail(err, QVL_EINTERNAL,
                        "%" PRId64 " tokens need %zu bytes of activations, there are %zu", T,
                        to.needed_bytes, d->arena_bytes);
    d->kept = to.kept;
    d->first_bytes = to.first_bytes;
    for (int i = 0; i < N_COMMON; i++)
        common[i] = take(&at, &to.common[i], T);
    set_common(d, common);
    for (int64_t l = 0; l < L; l++) {
        d->layers[l].x_in = take(&at, &to.x_in, T);
        d->layers[l].kept_u = to.kept_u.per_token ? take(&at, &to.kept_u, T) : NULL;
    }
    for (int i = 0; i < N_ACTIVATIONS; i++)
        shared[i] = take(&at, &to.layer[i], T);
    char *const buffers = at;
    at += to.kept.n_away ? AWAY_BUFFERS * to.first_bytes : 0;
    set_levels(d);
    for (int i = 0; i < N_ACTIVATIONS; i++)
        d->layers[L - 1].at[i] = shared[i];
    for (int64_t l = L - 2; l >= 0; l--)
        place_layer(&d->layers[l], &at, &to, T, shared, buffers);
    for (int64_t l = 0; l < L && d->h3; l++)
        d->layers[l].at[H3] = d->h3;
    d->laid_out_tokens = T;
    return QVL_OK;
}

qvl_decoder_kept qvl_decoder_kept_of(const qvl_decoder *d, int64_t T)
{
    if (!d->is_flexible)
        return (qvl_decoder_kept){.n_whole = d->options.n_kept};
    return measure(d, T, d->arena_bytes, &d->offload).kept;
}

void qvl_decoder_set_offload(qvl_decoder *d, const qvl_decoder_offload *offload)
{
    d->offload = *offload;
    d->laid_out_tokens = d->is_flexible ? 0 : d->options.tokens;
}

/* Shorter packs need less for a layer, but longer ones may leave no room for the buffers. */
size_t qvl_decoder_offload_bytes(const qvl_decoder *d, int64_t stride)
{
    const qvl_decoder_offload any = {.host = d->layers, .bytes = SIZE_MAX / 2, .stride = stride};
    if (!d->is_flexible)
        return 0;
    for (int64_t T = d->options.tokens; T > 0; T -= T > 64 ? 64 : T) {
        const layout to = measure(d, T, d->arena_bytes, &any);
        if (to.kept.n_away)
            return (size_t)(to.kept.n_away - AWAY_BUFFERS) * to.first_bytes;
    }
    return 0;
}
