/* Records of a part: each rank encodes blocks of them, rank 0 takes the blocks in, in order. */
#include <inttypes.h>

#include "src/base/clock.h"
#include "src/base/memory.h"
#include "src/data/prepare_internal.h"

/* The message of one block to rank 0, which takes it in. */
static qvl_status take_block(qvl_part *part, int rank, int64_t first, qvl_text *message,
                             qvl_status *local, qvl_err *err)
{
    const bool is_root = qvl_world_rank(part->world) == 0;
    const bool is_mine = qvl_world_rank(part->world) == rank;
    uint64_t n_bytes = is_mine ? message->len : 0;
    qvl_block_entry entry;
    size_t at = 0;
    qvl_status rc = QVL_OK;
    if (is_mine && !is_root) {
        QVL_TRY(qvl_world_send(part->world, &n_bytes, sizeof n_bytes, 0, err));
        QVL_TRY(qvl_world_send(part->world, message->data, message->len, 0, err));
    } else if (!is_mine && is_root) {
        QVL_TRY(qvl_world_receive(part->world, &n_bytes, sizeof n_bytes, rank, err));
        qvl_text_clear(message);
        QVL_TRY(qvl_reserve(&message->data, &message->capacity, (size_t)n_bytes + 1, 1,
                            "encoded block", err));
        QVL_TRY(qvl_world_receive(part->world, message->data, (size_t)n_bytes, rank, err));
        message->len = (size_t)n_bytes;
    }
    for (int64_t i = first; is_root && *local == QVL_OK && qvl_block_next(&entry, message, &at);
         i++)
        *local = qvl_part_add(part, &part->refs[i], &entry, err);
out:
    return rc;
}

qvl_status qvl_part_records(qvl_part *part, qvl_block_encoder *encoder, qvl_err *err)
{
    const int n_ranks = qvl_world_size(part->world), rank = qvl_world_rank(part->world);
    const int64_t round_size = (int64_t)QVL_BLOCK_RECORDS * n_ranks;
    qvl_text own = {0}, received = {0};
    qvl_status rc = QVL_OK;
    for (int64_t round = 0; round < part->n_refs; round += round_size) {
        qvl_status local = QVL_OK;
        for (int r = 0; r < n_ranks; r++) {
            const int64_t first = round + (int64_t)r * QVL_BLOCK_RECORDS;
            const int64_t left = part->n_refs - first;
            const int64_t n = left < QVL_BLOCK_RECORDS ? left : QVL_BLOCK_RECORDS;
            if (r == rank && n > 0)
                local = qvl_block_encode(encoder, &own, part->refs + first, n, err);
        }
        QVL_TRY(qvl_world_agree(part->world, local, err));
        for (int r = 0; r < n_ranks; r++) {
            const int64_t first = round + (int64_t)r * QVL_BLOCK_RECORDS;
            if (first < part->n_refs)
                QVL_TRY(take_block(part, r, first, r == rank ? &own : &received, &local, err));
        }
        QVL_TRY(qvl_world_agree(part->world, local, err));
        const int64_t done = round + round_size < part->n_refs ? round + round_size : part->n_refs;
        const double seconds = qvl_clock_s() - part->started_s;
        qvl_log_live(part->log, "%s data: %" PRId64 " of %" PRId64 " records, %.0f a second",
                     part->name, done, part->n_refs, (double)done / (seconds > 0 ? seconds : 1));
    }
out:
    qvl_text_fini(&own);
    qvl_text_fini(&received);
    return rc;
}
