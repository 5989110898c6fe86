#include "src/data/encode_block.h"

#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "io/record_file.h"
#include "src/base/files.h"
#include "src/base/memory.h"

/* What one thread works with. */
typedef struct worker {
    qvl_sample_encoder *encoder;
    qvl_conversation conversation;
    qvl_encoded encoded;
    qvl_text scratch;
} worker;

struct qvl_block_encoder {
    const qvl_selection *selection;
    worker *workers;
    int n_threads;
    int **fds;                         /* [infos][files], -1 until opened */
    qvl_text parts[QVL_BLOCK_RECORDS]; /* each record's piece of the message */
    qvl_err errors[QVL_BLOCK_RECORDS]; /* failures of the machine */
};

/* Fixed part of an entry; ids, labels, grids and text follow, padded to 4 bytes. */
typedef struct entry_header {
    int32_t outcome, n_ids, n_images, n_cut, status, n_text;
    uint32_t columns;
} entry_header;

void qvl_block_encoder_destroy(qvl_block_encoder *encoder)
{
    if (!encoder)
        return;
    for (int i = 0; encoder->workers && i < encoder->n_threads; i++) {
        qvl_sample_encoder_destroy(encoder->workers[i].encoder);
        qvl_conversation_fini(&encoder->workers[i].conversation);
        qvl_encoded_fini(&encoder->workers[i].encoded);
        qvl_text_fini(&encoder->workers[i].scratch);
    }
    for (size_t i = 0; encoder->fds && i < encoder->selection->n_infos; i++) {
        for (size_t f = 0; encoder->fds[i] && f < encoder->selection->infos[i].n_files; f++)
            if (encoder->fds[i][f] >= 0)
                close(encoder->fds[i][f]);
        free(encoder->fds[i]);
    }
    for (int i = 0; i < QVL_BLOCK_RECORDS; i++)
        qvl_text_fini(&encoder->parts[i]);
    free(encoder->fds);
    free(encoder->workers);
    free(encoder);
}

static qvl_status create_fds(qvl_block_encoder *encoder, qvl_err *err)
{
    const qvl_selection *s = encoder->selection;
    qvl_status rc = QVL_OK;
    QVL_TRY(qvl_alloc(&encoder->fds, s->n_infos, sizeof *encoder->fds, "files", err));
    for (size_t i = 0; i < s->n_infos; i++) {
        QVL_TRY(
            qvl_alloc(&encoder->fds[i], s->infos[i].n_files, sizeof **encoder->fds, "files", err));
        for (size_t f = 0; f < s->infos[i].n_files; f++)
            encoder->fds[i][f] = -1;
    }
out:
    return rc;
}

qvl_status qvl_block_encoder_create(qvl_block_encoder **out, const qvl_selection *selection,
                                    const qvl_tokenizer *tokenizer,
                                    const qvl_encode_options *options, int n_threads, qvl_err *err)
{
    qvl_block_encoder *encoder = NULL;
    qvl_status rc = qvl_alloc(&encoder, 1, sizeof *encoder, "encoder", err);
    if (rc != QVL_OK)
        return rc;
    encoder->selection = selection;
    encoder->n_threads = n_threads;
    QVL_TRY(create_fds(encoder, err));
    QVL_TRY(
        qvl_alloc(&encoder->workers, (size_t)n_threads, sizeof *encoder->workers, "encoder", err));
    for (int i = 0; i < n_threads; i++)
        QVL_TRY(qvl_sample_encoder_create(&encoder->workers[i].encoder, tokenizer, options, err));
    *out = encoder;
    return QVL_OK;
out:
    qvl_block_encoder_destroy(encoder);
    return rc;
}

static qvl_status open_files(qvl_block_encoder *encoder, const qvl_record_ref *refs, int64_t n,
                             qvl_err *err)
{
    for (int64_t i = 0; i < n; i++) {
        const char *path = encoder->selection->infos[refs[i].info].files[refs[i].file];
        int *fd = &encoder->fds[refs[i].info][refs[i].file];
        const qvl_status rc = *fd < 0 ? qvl_file_open(fd, path, err) : QVL_OK;
        if (rc != QVL_OK)
            return rc;
    }
    return QVL_OK;
}

static qvl_status write_entry(qvl_text *out, const qvl_encoded *encoded, entry_header header,
                              const char *text, size_t n_text, qvl_err *err)
{
    static const char PADDING[4] = "";
    const bool is_kept = header.outcome == QVL_KEPT;
    qvl_status rc = QVL_OK;
    header.n_text = (int32_t)n_text;
    if (is_kept) {
        header.n_ids = (int32_t)encoded->ids.len;
        header.n_images = (int32_t)encoded->n_images;
        header.n_cut = (int32_t)encoded->n_cut;
    }
    QVL_TRY(qvl_text_add(out, (const char *)&header, sizeof header, err));
    if (is_kept) {
        const size_t bytes = encoded->ids.len * sizeof(int32_t);
        QVL_TRY(qvl_text_add(out, (const char *)encoded->ids.data, bytes, err));
        QVL_TRY(qvl_text_add(out, (const char *)encoded->labels.data, bytes, err));
        QVL_TRY(qvl_text_add(out, (const char *)encoded->grids,
                             encoded->n_images * 3 * sizeof(int32_t), err));
    }
    QVL_TRY(qvl_text_add(out, text, n_text, err));
    QVL_TRY(qvl_text_add(out, PADDING, (4 - n_text % 4) % 4, err));
out:
    return rc;
}

/* Reads, converts and encodes one record. What is wrong with the record becomes its entry. */
static qvl_status encode_one(qvl_block_encoder *encoder, worker *w, const qvl_record_ref *ref,
                             qvl_text *out, qvl_err *err)
{
    const qvl_dataset_info *info = &encoder->selection->infos[ref->info];
    qvl_err why = {QVL_OK, ""};
    json_t *record = NULL;
    entry_header header = {.outcome = QVL_KEPT};
    qvl_text_clear(out);
    qvl_status rc = qvl_record_read(&record, encoder->fds[ref->info][ref->file],
                                    info->files[ref->file], &ref->span, &w->scratch, &why);
    if (rc == QVL_OK) {
        header.columns = qvl_dataset_info_columns_of(info, record);
        rc = qvl_conversation_read(&w->conversation, record, info, &why);
    }
    if (rc == QVL_OK)
        rc = qvl_encode_sample(w->encoder, &w->encoded, &w->conversation, &why);
    json_decref(record);
    if (rc != QVL_OK && rc != QVL_EDATA && rc != QVL_EMISSING) {
        *err = why;
        return rc;
    }
    header.status = rc;
    if (rc != QVL_OK) {
        header.outcome = QVL_BAD;
        return write_entry(out, NULL, header, why.text, strlen(why.text) + 1, err);
    }
    if (w->encoded.dropped) {
        header.outcome = QVL_DROPPED;
        return write_entry(out, NULL, header, w->encoded.dropped, strlen(w->encoded.dropped) + 1,
                           err);
    }
    return write_entry(out, &w->encoded, header, w->encoded.image_paths.data,
                       w->encoded.image_paths.len, err);
}

qvl_status qvl_block_encode(qvl_block_encoder *encoder, qvl_text *out, const qvl_record_ref *refs,
                            int64_t n, qvl_err *err)
{
    qvl_status rc = open_files(encoder, refs, n, err);
    if (rc != QVL_OK)
        return rc;
#pragma omp parallel for num_threads(encoder->n_threads) schedule(dynamic)
    for (int64_t i = 0; i < n; i++) {
        encoder->errors[i].status = QVL_OK;
        encode_one(encoder, &encoder->workers[omp_get_thread_num()], &refs[i], &encoder->parts[i],
                   &encoder->errors[i]);
    }
    qvl_text_clear(out);
    for (int64_t i = 0; i < n && rc == QVL_OK; i++) {
        if (encoder->errors[i].status != QVL_OK)
            return qvl_fail(err, encoder->errors[i].status, "%s", encoder->errors[i].text);
        rc = qvl_text_add(out, encoder->parts[i].data, encoder->parts[i].len, err);
    }
    return rc;
}

int qvl_block_next(qvl_block_entry *out, const qvl_text *message, size_t *at)
{
    entry_header header;
    if (*at + sizeof header > message->len)
        return 0;
    memcpy(&header, message->data + *at, sizeof header);
    const int32_t *numbers = (const int32_t *)(const void *)(message->data + *at + sizeof header);
    *out = (qvl_block_entry){.outcome = (qvl_outcome)header.outcome,
                             .n_ids = header.n_ids,
                             .n_images = header.n_images,
                             .n_cut = header.n_cut,
                             .status = (qvl_status)header.status,
                             .columns = header.columns,
                             .ids = numbers,
                             .labels = numbers + header.n_ids,
                             .grids = numbers + 2 * (size_t)header.n_ids};
    const size_t n_numbers = 2 * (size_t)header.n_ids + 3 * (size_t)header.n_images;
    out->text = (const char *)(numbers + n_numbers);
    *at += sizeof header + n_numbers * sizeof(int32_t) + ((size_t)header.n_text + 3) / 4 * 4;
    return 1;
}
