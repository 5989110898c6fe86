#include "tests/kernels/linear_case.h"
#include "tests/kernels/ref/ref_activation.h"

#include <math.h>
#include <stdio.h>

#include "src/base/dropout_mask.h"

const char *qvl_linear_shape_text(char buffer[120], const qvl_linear_shape *shape)
{
    snprintf(buffer, 120, "T=%lld in=%lld out=%lld+%lld+%lld adapted=%x R=%lld drop=%g%s",
             (long long)shape->T, (long long)shape->in, (long long)shape->parts[0],
             (long long)shape->parts[1], (long long)shape->parts[2], shape->adapted,
             (long long)shape->rank, shape->drop_prob, shape->has_bias ? " bias" : "");
    return buffer;
}

/* Name of a buffer of this case; index -1: none. */
static const char *name_of(const qvl_linear_case *c, char buffer[32], const char *name, int index)
{
    if (index < 0)
        snprintf(buffer, 32, "%s%s", c->prefix, name);
    else
        snprintf(buffer, 32, "%s%s%d", c->prefix, name, index);
    return buffer;
}

/* Tokens as in a pack: samples of 5 tokens, numbered anyhow, the same way in all cases. */
static void fill_dropout(qvl_linear_case *c, qvl_kt *kt, double drop_prob)
{
    int32_t *sample = qvl_kt_ints(kt, c->T), *token = qvl_kt_ints(kt, c->T);
    for (int64_t t = 0; t < c->T; t++) {
        sample[t] = (int32_t)(t / 5 * 7919 % 100000);
        token[t] = (int32_t)(t % 5);
    }
    c->ref_dropout = (qvl_dropout){.threshold = qvl_dropout_threshold(drop_prob),
                                   .seed = 42,
                                   .step = 7,
                                   .sample = sample,
                                   .token = token};
    c->dropout = c->ref_dropout;
    char name[32];
    c->dropout.sample = qvl_kt_in_i32(kt, name_of(c, name, "sample", -1), sample, c->T);
    c->dropout.token = qvl_kt_in_i32(kt, name_of(c, name, "token", -1), token, c->T);
    c->drops = true;
}

static void fill_adapter(qvl_linear_case *c, qvl_kt *kt, int part, int64_t offset, int64_t out,
                         bool with_gradients)
{
    const int i = c->linear.n_adapters++;
    const int64_t n_a = c->linear.rank * c->linear.in, n_b = out * c->linear.rank;
    qvl_adapter *adapter = &c->linear.adapters[i];
    qvl_ref_adapter *ref = &c->ref.adapters[i];
    char name[32];
    ref->a = qvl_kt_random(kt, n_a, 1 / sqrt((double)c->linear.in), QVL_KT_F32);
    ref->b = qvl_kt_random(kt, n_b, 0.5 / sqrt((double)c->linear.rank), QVL_KT_F32);
    adapter->a = qvl_kt_in(kt, name_of(c, name, "a", i), ref->a, n_a, QVL_KT_F32);
    if (c->tail)
        adapter->a_act = qvl_kt_out(kt, name_of(c, name, "a_act", i),
                                    (c->linear.rank + 7) / 8 * 8 * c->linear.in, QVL_KT_ACT);
    adapter->b = qvl_kt_in(kt, name_of(c, name, "b", i), ref->b, n_b, QVL_KT_F32);
    if (with_gradients) {
        ref->da = qvl_kt_random(kt, n_a, 1, QVL_KT_F32);
        ref->db = qvl_kt_random(kt, n_b, 1, QVL_KT_F32);
        adapter->da = qvl_kt_inout(kt, name_of(c, name, "da", i), ref->da, n_a, QVL_KT_F32);
        adapter->db = qvl_kt_inout(kt, name_of(c, name, "db", i), ref->db, n_b, QVL_KT_F32);
    }
    adapter->out_offset = ref->out_offset = offset;
    adapter->out = ref->out = out;
    /* another mask for each linear of a case */
    adapter->module = ref->module = (uint32_t)(100 + 7 * part + 50 * (c->prefix[0] == 'd'));
}

/* Rows of width values with tail columns behind them, which are NaN, or those of tail_values.
 * Without a tail an input, else what the operation may write behind. */
static void *add_rows(qvl_kt *kt, const char *name, const double *values, const double *tail_values,
                      int64_t rows, int64_t width, int64_t tail)
{
    const int64_t stride = width + tail;
    double *all = qvl_kt_doubles(kt, rows * stride);
    for (int64_t r = 0; r < rows; r++)
        for (int64_t i = 0; i < stride; i++)
            all[r * stride + i] = i < width     ? values[r * width + i]
                                  : tail_values ? tail_values[r * tail + i - width]
                                                : NAN;
    return tail ? qvl_kt_inout(kt, name, all, rows * stride, QVL_KT_ACT)
                : qvl_kt_in(kt, name, all, rows * stride, QVL_KT_ACT);
}

/* u as forward leaves it behind x: each adapter's ranks rounded up to 8. */
static double *spread_u(const qvl_linear_case *c, qvl_kt *kt, const double *u)
{
    const int64_t rank = c->linear.rank, R8 = (rank + 7) / 8 * 8;
    double *tail = qvl_kt_doubles(kt, c->T * c->tail);
    for (int64_t t = 0; t < c->T; t++)
        for (int64_t k = 0; k < c->u_width; k++)
            tail[t * c->tail + k / rank * R8 + k % rank] = u[t * c->u_width + k];
    return tail;
}

int64_t qvl_linear_case_used(const qvl_linear_case *c)
{
    return qvl_tail_used(c->linear.n_adapters, c->linear.rank);
}

double *qvl_linear_case_kept(const qvl_linear_case *c, qvl_kt *kt, const double *u)
{
    const int64_t used = qvl_linear_case_used(c);
    const double *tail = spread_u(c, kt, u);
    double *kept = qvl_kt_doubles(kt, c->T * used);
    for (int64_t t = 0; t < c->T; t++)
        for (int64_t k = 0; k < used; k++)
            kept[t * used + k] = qvl_kt_round(kt, tail[t * c->tail + k], QVL_KT_ACT);
    return kept;
}

static double *tail_of_x(const qvl_linear_case *c, qvl_kt *kt)
{
    double *y = qvl_kt_doubles(kt, c->T * c->linear.out),
           *u = qvl_kt_doubles(kt, c->T * c->u_width);
    qvl_ref_linear_forward(y, u, c->x, &c->ref, c->T, c->drops ? &c->ref_dropout : NULL);
    return spread_u(c, kt, u);
}

int64_t qvl_linear_case_stride(const qvl_linear_case *c)
{
    return c->linear.in + c->tail;
}

static void check_folded(qvl_kt *kt, const qvl_linear_case *c)
{
    const qvl_linear *lin = &c->linear;
    const int64_t R8 = (lin->rank + 7) / 8 * 8, stride = lin->in + c->tail;
    double *weight = qvl_kt_doubles(kt, lin->out * stride);
    char name[32];
    for (int64_t o = 0; o < lin->out; o++)
        for (int64_t i = 0; i < lin->in; i++)
            weight[o * stride + i] = c->ref.weight[o * lin->in + i];
    for (int i = 0; i < lin->n_adapters; i++) {
        const qvl_ref_adapter *ref = &c->ref.adapters[i];
        double *a = qvl_kt_doubles(kt, R8 * lin->in);
        for (int64_t k = 0; k < lin->rank * lin->in; k++)
            a[k] = qvl_kt_round(kt, ref->a[k], QVL_KT_ACT);
        qvl_kt_check(kt, name_of(c, name, "a_act", i), a, lin->in, QVL_KT_EXACT);
        for (int64_t o = 0; o < ref->out; o++)
            for (int64_t r = 0; r < lin->rank; r++)
                weight[(ref->out_offset + o) * stride + lin->in + i * R8 + r] =
                    qvl_kt_round(kt, (double)lin->scale * ref->b[o * lin->rank + r], QVL_KT_ACT);
    }
    qvl_kt_check_columns(kt, name_of(c, name, "weight", -1), weight, stride, 0,
                         lin->in + lin->n_adapters * R8, QVL_KT_EXACT);
}

void qvl_linear_case_check_adapters(qvl_kt *kt, const qvl_linear_case *c)
{
    char name[32];
    for (int i = 0; i < c->ref.n_adapters; i++) {
        const qvl_ref_adapter *ref = &c->ref.adapters[i];
        qvl_kt_check(kt, name_of(c, name, "da", i), ref->da, c->ref.rank * c->ref.in,
                     QVL_KT_PRODUCT);
        qvl_kt_check(kt, name_of(c, name, "db", i), ref->db, ref->out * c->ref.rank,
                     QVL_KT_PRODUCT);
    }
}

void qvl_linear_case_check(qvl_kt *kt, const qvl_linear_case *c, const double *u)
{
    const int64_t in = c->linear.in, stride = in + c->tail, rank = c->linear.rank;
    char name[32];
    if (!c->tail || c->T == 0)
        return;
    double *x = qvl_kt_doubles(kt, c->T * stride);
    const double *tail = u ? spread_u(c, kt, u) : NULL;
    for (int64_t t = 0; t < c->T; t++)
        for (int64_t i = 0; i < stride; i++)
            x[t * stride + i] = i < in ? c->x[t * in + i] : u ? tail[t * c->tail + i - in] : 0;
    name_of(c, name, "x", -1);
    qvl_kt_check_columns(kt, name, x, stride, 0, in, QVL_KT_EXACT);
    for (int64_t i = 0; u && i < c->linear.n_adapters; i++)
        qvl_kt_check_columns(kt, name, x, stride, in + i * ((rank + 7) / 8 * 8), rank,
                             QVL_KT_PRODUCT);
    check_folded(kt, c);
}

void qvl_linear_case_fill(qvl_linear_case *out, qvl_kt *kt, const qvl_linear_shape *shape,
                          bool with_gradients)
{
    const int64_t n = shape->T * qvl_kt_width(kt, shape->in);
    qvl_linear_case_fill_x(out, kt, shape, "", qvl_kt_random(kt, n, 1, QVL_KT_ACT), with_gradients);
}

void qvl_linear_case_fill_x(qvl_linear_case *out, qvl_kt *kt, const qvl_linear_shape *shape,
                            const char *prefix, const double *x, bool with_gradients)
{
    int64_t parts[QVL_MAX_FUSED], offset = 0;
    char name[32];
    *out = (qvl_linear_case){.T = shape->T, .prefix = prefix};
    qvl_linear *linear = &out->linear;
    linear->in = qvl_kt_width(kt, shape->in);
    for (int p = 0; p < QVL_MAX_FUSED; p++)
        linear->out += parts[p] = qvl_kt_width(kt, shape->parts[p]);
    linear->rank = shape->rank;
    linear->scale = 2;
    int64_t n_adapters = 0;
    for (int p = 0; p < QVL_MAX_FUSED; p++)
        n_adapters += shape->adapted >> p & 1u;
    if (n_adapters)
        out->tail = qvl_tail_columns(kt->dev->tail_align, n_adapters, shape->rank);
    linear->weight_stride = linear->in + out->tail;
    out->ref =
        (qvl_ref_linear){.in = linear->in, .out = linear->out, .rank = linear->rank, .scale = 2};
    out->ref.weight =
        qvl_kt_random(kt, linear->out * linear->in, 1 / sqrt((double)linear->in), QVL_KT_ACT);
    linear->weight = add_rows(kt, name_of(out, name, "weight", -1), out->ref.weight, NULL,
                              linear->out, linear->in, out->tail);
    if (shape->has_bias) {
        out->ref.bias = qvl_kt_random(kt, linear->out, 1, QVL_KT_ACT);
        linear->bias =
            qvl_kt_in(kt, name_of(out, name, "bias", -1), out->ref.bias, linear->out, QVL_KT_ACT);
    }
    out->x = x;
    if (shape->drop_prob > 0)
        fill_dropout(out, kt, shape->drop_prob);
    for (int p = 0; p < QVL_MAX_FUSED; offset += parts[p++])
        if (shape->adapted >> p & 1u)
            fill_adapter(out, kt, p, offset, parts[p], with_gradients);
    out->ref.n_adapters = linear->n_adapters;
    out->u_width = linear->n_adapters * linear->rank;
    const double *u = with_gradients && out->tail ? tail_of_x(out, kt) : NULL;
    out->x_device =
        add_rows(kt, name_of(out, name, "x", -1), out->x, u, shape->T, linear->in, out->tail);
    const bool has_adapters = linear->n_adapters > 0;
    qvl_kt_workspace(kt, &(qvl_workspace_limits){.tokens = shape->T,
                                                 .in_max = has_adapters ? linear->in : 0,
                                                 .out_max = has_adapters ? linear->out : 0,
                                                 .rank = has_adapters ? linear->rank : 0,
                                                 .backward = with_gradients,
                                                 .dropout = out->drops});
}

double *qvl_linear_case_swiglu(qvl_kt *kt, const double *gate_up, int64_t T, int64_t F)
{
    double *h = qvl_kt_doubles(kt, T * F);
    qvl_ref_swiglu(h, gate_up, T, F);
    for (int64_t i = 0; i < T * F; i++)
        h[i] = qvl_kt_round(kt, h[i], QVL_KT_ACT);
    return h;
}
