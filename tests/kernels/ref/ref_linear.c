#include "tests/kernels/ref/ref_linear.h"

#include "src/base/dropout_mask.h"

double qvl_ref_drop_factor(const qvl_dropout *dropout, uint32_t module, int64_t t, int64_t column)
{
    if (!dropout)
        return 1;
    uint16_t bits[QVL_DROPOUT_GROUP];
    qvl_dropout_bits(bits, (uint32_t)(column / QVL_DROPOUT_GROUP), module,
                     (uint32_t)dropout->token[t], (uint32_t)dropout->sample[t], dropout->seed,
                     dropout->step);
    if (bits[column % QVL_DROPOUT_GROUP] < dropout->threshold)
        return 0;
    return 65536.0 / (65536.0 - (double)dropout->threshold);
}

/* u_row[r] = a[r,:] . drop(x_row) */
static void project(double *u_row, const double *x_row, const qvl_ref_linear *linear, int i,
                    int64_t t, const qvl_dropout *dropout)
{
    const qvl_ref_adapter *adapter = &linear->adapters[i];
    for (int64_t r = 0; r < linear->rank; r++)
        u_row[r] = 0;
    for (int64_t k = 0; k < linear->in; k++) {
        const double dropped = x_row[k] * qvl_ref_drop_factor(dropout, adapter->module, t, k);
        for (int64_t r = 0; r < linear->rank; r++)
            u_row[r] += adapter->a[r * linear->in + k] * dropped;
    }
}

void qvl_ref_linear_forward(double *y, double *u, const double *x, const qvl_ref_linear *linear,
                            int64_t T, const qvl_dropout *dropout)
{
    const int64_t in = linear->in, out = linear->out, R = linear->rank;
    const int64_t u_width = linear->n_adapters * R;
    for (int64_t t = 0; t < T; t++) {
        for (int64_t o = 0; o < out; o++) {
            double sum = linear->bias ? linear->bias[o] : 0;
            for (int64_t k = 0; k < in; k++)
                sum += x[t * in + k] * linear->weight[o * in + k];
            y[t * out + o] = sum;
        }
        for (int i = 0; i < linear->n_adapters; i++) {
            const qvl_ref_adapter *adapter = &linear->adapters[i];
            double *u_row = u + t * u_width + i * R;
            project(u_row, x + t * in, linear, i, t, dropout);
            for (int64_t o = 0; o < adapter->out; o++) {
                double sum = 0;
                for (int64_t r = 0; r < R; r++)
                    sum += u_row[r] * adapter->b[o * R + r];
                y[t * out + adapter->out_offset + o] += linear->scale * sum;
            }
        }
    }
}

/* One token of one adapter, one rank component r: with g = scale * sum_o dy_o b[o,r],
 *   db[o,r] += scale dy_o u_r    da[r,:] += g drop(x)    dx += g a[r,:] * factor */
static void adapter_backward(double *dx_row, const double *dy_part, const double *x_row,
                             const qvl_ref_linear *linear, int i, int64_t r, int64_t t,
                             const qvl_dropout *dropout)
{
    const qvl_ref_adapter *adapter = &linear->adapters[i];
    const int64_t in = linear->in, R = linear->rank;
    double u = 0, g = 0;
    for (int64_t o = 0; o < adapter->out; o++)
        g += linear->scale * dy_part[o] * adapter->b[o * R + r];
    for (int64_t k = 0; k < in; k++) {
        const double factor = qvl_ref_drop_factor(dropout, adapter->module, t, k);
        const double a = adapter->a[r * in + k];
        u += a * x_row[k] * factor;
        adapter->da[r * in + k] += g * x_row[k] * factor;
        if (dx_row)
            dx_row[k] += g * a * factor;
    }
    for (int64_t o = 0; o < adapter->out; o++)
        adapter->db[o * R + r] += linear->scale * dy_part[o] * u;
}

void qvl_ref_linear_backward(double *dx, const double *dy, const double *x,
                             const qvl_ref_linear *linear, int64_t T, const qvl_dropout *dropout)
{
    const int64_t in = linear->in, out = linear->out;
    for (int64_t t = 0; t < T; t++) {
        double *dx_row = dx ? dx + t * in : NULL;
        if (dx_row) {
            for (int64_t k = 0; k < in; k++)
                dx_row[k] = 0;
            for (int64_t o = 0; o < out; o++)
                for (int64_t k = 0; k < in; k++)
                    dx_row[k] += dy[t * out + o] * linear->weight[o * in + k];
        }
        for (int i = 0; i < linear->n_adapters; i++)
            for (int64_t r = 0; r < linear->rank; r++)
                adapter_backward(dx_row, dy + t * out + linear->adapters[i].out_offset, x + t * in,
                                 linear, i, r, t, dropout);
    }
}
