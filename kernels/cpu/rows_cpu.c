#include "kernels/cpu/cpu_backend.h"

#include <inttypes.h>
#include <string.h>

qvl_status qvl_cpu_embed(qvl_device *dev, const qvl_embed_args *args, qvl_err *err)
{
    const size_t row_bytes = (size_t)args->D * sizeof(float);
    (void)err;
#pragma omp parallel for num_threads(qvl_cpu_threads(dev)) schedule(static)
    for (int64_t t = 0; t < args->T; t++)
        memcpy((float *)args->x + t * args->D,
               (const float *)args->table + (int64_t)args->ids[t] * args->D, row_bytes);
    return QVL_OK;
}

qvl_status qvl_cpu_move_rows(qvl_device *dev, const qvl_move_rows_args *args, qvl_err *err)
{
    const size_t row_bytes = (size_t)args->D * sizeof(float);
    (void)err;
#pragma omp parallel for num_threads(qvl_cpu_threads(dev)) schedule(static)
    for (int64_t i = 0; i < args->n_rows; i++) {
        const int64_t to = args->dst_rows ? args->dst_rows[i] : i;
        const int64_t from = args->src_rows ? args->src_rows[i] : i;
        memcpy((float *)args->dst + to * args->D, (const float *)args->src + from * args->D,
               row_bytes);
    }
    return QVL_OK;
}

/* value[c][p] of each byte; computed in double and rounded once, as the reference processor does.
 */
static void fill_table(float table[3][256], const qvl_patches_args *args)
{
    for (int c = 0; c < 3; c++)
        for (int p = 0; p < 256; p++)
            table[c][p] =
                (float)(((double)p / 255.0 - (double)args->mean[c]) / (double)args->stddev[c]);
}

static void cut_patch(float *out, const qvl_patches_args *args, float table[3][256], int64_t row,
                      int64_t col)
{
    enum { SIDE = 14, PLANE = SIDE * SIDE };
    const int64_t width_px = args->cols * SIDE;
    for (int c = 0; c < 3; c++) {
        float *plane = out + c * 2 * PLANE;
        for (int y = 0; y < SIDE; y++) {
            const uint8_t *line = args->rgb + ((row * SIDE + y) * width_px + col * SIDE) * 3 + c;
            for (int x = 0; x < SIDE; x++)
                plane[y * SIDE + x] = table[c][line[3 * x]];
        }
        memcpy(plane + PLANE, plane, PLANE * sizeof *plane);
    }
}

qvl_status qvl_cpu_patches(qvl_device *dev, const qvl_patches_args *args, qvl_err *err)
{
    enum { PATCH = 3 * 2 * 14 * 14 };
    float table[3][256];
    const int64_t unit_cols = args->cols / 2, n_units = args->rows / 2 * unit_cols;
    if (args->rows % 2 || args->cols % 2)
        return qvl_fail(err, QVL_EINTERNAL, "patches: grid %" PRId64 " x %" PRId64 " is not even",
                        args->rows, args->cols);
    fill_table(table, args);
#pragma omp parallel for num_threads(qvl_cpu_threads(dev)) schedule(static)
    for (int64_t u = 0; u < n_units; u++) {
        const int64_t unit = args->unit_order[u];
        const int64_t row = unit / unit_cols * 2, col = unit % unit_cols * 2;
        for (int k = 0; k < 4; k++)
            cut_patch((float *)args->out + (4 * u + k) * PATCH, args, table, row + k / 2,
                      col + k % 2);
    }
    return QVL_OK;
}
