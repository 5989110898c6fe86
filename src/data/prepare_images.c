#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "src/base/memory.h"
#include "src/data/prepare_internal.h"

/* One image of a round, as it came out. */
typedef struct result {
    qvl_prepared_image image;
    qvl_err why;
} result;

/* What rank 0 is told of a result before the pixels. */
typedef struct result_header {
    int32_t grid[3], status;
    int64_t n_bytes;
    char text[QVL_ERR_TEXT_BYTES];
} result_header;

/* Paths of all images, to all ranks. */
static qvl_status share_paths(qvl_part *part, char **out_paths, int64_t **out_offsets,
                              int64_t *out_count, qvl_err *err)
{
    int64_t sizes[2] = {(int64_t)part->images.count, (int64_t)part->images.paths.len};
    char *paths = NULL;
    int64_t *offsets = NULL;
    qvl_status rc = QVL_OK;
    QVL_TRY(qvl_world_broadcast(part->world, sizes, sizeof sizes, 0, err));
    rc = qvl_alloc(&paths, (size_t)sizes[1], 1, "image paths", err);
    if (rc == QVL_OK)
        rc = qvl_alloc(&offsets, (size_t)sizes[0], sizeof *offsets, "image paths", err);
    QVL_TRY(qvl_world_agree(part->world, rc, err));
    if (qvl_world_rank(part->world) == 0 && sizes[1]) {
        memcpy(paths, part->images.paths.data, (size_t)sizes[1]);
        for (int64_t i = 0; i < sizes[0]; i++)
            offsets[i] = (int64_t)part->images.images[i].path;
    }
    QVL_TRY(qvl_world_broadcast(part->world, paths, (size_t)sizes[1], 0, err));
    QVL_TRY(qvl_world_broadcast(part->world, offsets, (size_t)sizes[0] * sizeof *offsets, 0, err));
    *out_paths = paths;
    *out_offsets = offsets;
    *out_count = sizes[0];
    return QVL_OK;
out:
    free(paths);
    free(offsets);
    return rc;
}

static void decode(result *results, int64_t n, const char *paths, const int64_t *offsets,
                   const qvl_image_limits *limits, int n_threads)
{
#pragma omp parallel for num_threads(n_threads) schedule(dynamic)
    for (int64_t i = 0; i < n; i++) {
        results[i] = (result){0};
        qvl_image_prepare(&results[i].image, paths + offsets[i], limits, &results[i].why);
    }
}

static result_header describe(const result *from)
{
    result_header header = {.status = from->why.status};
    memcpy(header.grid, from->image.grid_thw, sizeof header.grid);
    memcpy(header.text, from->why.text, sizeof header.text);
    if (from->why.status == QVL_OK)
        header.n_bytes = (int64_t)from->image.size.width * from->image.size.height * 3;
    return header;
}

static qvl_status mark(qvl_part *part, int64_t index, qvl_status status, const char *text,
                       qvl_err *err)
{
    part->n_faulty++;
    return qvl_image_list_mark(&part->images, (size_t)index, status, text, err);
}

/* On rank 0: image number index, with its pixels. */
static qvl_status accept(qvl_part *part, int64_t index, const result_header *header,
                         const uint8_t *rgb, qvl_err *err)
{
    const qvl_listed_image *image = &part->images.images[index];
    const int64_t patches = (int64_t)image->grid[1] * image->grid[2];
    const qvl_status status = (qvl_status)header->status;
    if (status == QVL_EDATA || status == QVL_EMISSING)
        return mark(part, index, status, header->text, err);
    if (status != QVL_OK)
        return qvl_fail(err, status, "%s", header->text);
    if (memcmp(header->grid, image->grid, sizeof header->grid) != 0)
        return mark(part, index, QVL_EDATA, "its image changed while it was read", err);
    part->table.n_images++;
    part->table.n_image_tokens += patches / 4;
    part->table.max_patches = patches > part->table.max_patches ? patches : part->table.max_patches;
    return part->writer ? qvl_dataset_writer_add_image(part->writer, image->grid, rgb, err)
                        : QVL_OK;
}

/* The results of one rank, in order, to rank 0. Local faults are kept in *local; the messages flow
 * in any case. */
static qvl_status collect(qvl_part *part, int rank, int64_t first, int64_t n, result *results,
                          qvl_status *local, qvl_err *local_err, qvl_err *err)
{
    const bool is_root = qvl_world_rank(part->world) == 0,
               is_mine = rank == qvl_world_rank(part->world);
    uint8_t *pixels = NULL;
    qvl_status rc = QVL_OK;
    for (int64_t i = 0; i < n; i++) {
        result_header header = {.status = QVL_OK};
        const uint8_t *rgb = NULL;
        if (is_mine) {
            header = describe(&results[i]);
            rgb = results[i].image.rgb;
        }
        if (is_mine && !is_root) {
            QVL_TRY(qvl_world_send(part->world, &header, sizeof header, 0, err));
            QVL_TRY(qvl_world_send(part->world, rgb, (size_t)header.n_bytes, 0, err));
        } else if (!is_mine && is_root) {
            QVL_TRY(qvl_world_receive(part->world, &header, sizeof header, rank, err));
            free(pixels);
            pixels = malloc((size_t)(header.n_bytes ? header.n_bytes : 1));
            if (!pixels) {
                rc = qvl_fail_memory(err, (unsigned long long)header.n_bytes, "image");
                goto out;
            }
            QVL_TRY(qvl_world_receive(part->world, pixels, (size_t)header.n_bytes, rank, err));
            rgb = pixels;
        }
        if (is_root && *local == QVL_OK)
            *local = accept(part, first + i, &header, rgb, local_err);
    }
out:
    free(pixels);
    return rc;
}

qvl_status qvl_part_images(qvl_part *part, const qvl_image_limits *limits, int n_threads,
                           qvl_err *err)
{
    const int n_ranks = qvl_world_size(part->world), rank = qvl_world_rank(part->world);
    int64_t widest = 2 * n_threads, count = 0, *offsets = NULL;
    char *paths = NULL;
    result *results = NULL;
    qvl_status rc = QVL_OK;
    QVL_TRY(qvl_world_max_i64(part->world, &widest, 1, err));
    QVL_TRY(share_paths(part, &paths, &offsets, &count, err));
    rc = qvl_alloc(&results, (size_t)widest, sizeof *results, "images", err);
    QVL_TRY(qvl_world_agree(part->world, rc, err));
    for (int64_t round = 0; round < count; round += widest * n_ranks) {
        qvl_status local = QVL_OK;
        const int64_t mine = round + widest * rank;
        const int64_t n_mine = mine < count ? (count - mine < widest ? count - mine : widest) : 0;
        decode(results, n_mine, paths, offsets + (n_mine ? mine : 0), limits, n_threads);
        for (int r = 0; r < n_ranks && rc == QVL_OK; r++) {
            const int64_t first = round + widest * r;
            const int64_t n = first < count ? (count - first < widest ? count - first : widest) : 0;
            rc = collect(part, r, first, n, results, &local, err, err);
        }
        for (int64_t i = 0; i < n_mine; i++)
            qvl_prepared_image_fini(&results[i].image);
        QVL_TRY(qvl_world_agree(part->world, rc == QVL_OK ? local : rc, err));
        qvl_log_live(part->log, "%s images: %" PRId64 " of %" PRId64, part->name,
                     round + widest * n_ranks < count ? round + widest * n_ranks : count, count);
    }
out:
    free(results);
    free(paths);
    free(offsets);
    return rc;
}
