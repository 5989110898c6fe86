#include "tests/kernels/ref/ref_head_loss.h"

#include <math.h>
#include <stdlib.h>

/* Fills p [V] with the softmax of row i's logits; returns its loss. */
static double loss_of_row(double *p, const qvl_ref_head_loss *args, int64_t i)
{
    const double *x = args->x + args->rows[i] * args->D;
    double largest = -INFINITY, sum = 0;
    for (int64_t v = 0; v < args->V; v++) {
        p[v] = 0;
        for (int64_t d = 0; d < args->D; d++)
            p[v] += x[d] * args->head[v * args->D + d];
        p[v] = qvl_ref_rounded(args->round, p[v]);
        largest = fmax(largest, p[v]);
    }
    const double target_logit = p[args->targets[i]];
    for (int64_t v = 0; v < args->V; v++) {
        p[v] = exp(p[v] - largest);
        sum += p[v];
    }
    for (int64_t v = 0; v < args->V; v++)
        p[v] /= sum;
    return largest + log(sum) - target_logit;
}

void qvl_ref_head_loss_run(double *row_loss, double *dx, const qvl_ref_head_loss *args)
{
    double *p = calloc((size_t)args->V, sizeof *p);
    for (int64_t i = 0; dx && i < args->T * args->D; i++)
        dx[i] = 0;
    for (int64_t i = 0; p && i < args->n_rows; i++) {
        row_loss[i] = loss_of_row(p, args, i);
        p[args->targets[i]] -= 1;
        for (int64_t v = 0; dx && v < args->V; v++) {
            const double g = qvl_ref_rounded(args->round, args->weights[i] * p[v]);
            for (int64_t d = 0; d < args->D; d++)
                dx[args->rows[i] * args->D + d] += g * args->head[v * args->D + d];
        }
    }
    for (int64_t i = 0; dx && i < args->T * args->D; i++)
        dx[i] = qvl_ref_rounded(args->round, dx[i]);
    free(p);
}
