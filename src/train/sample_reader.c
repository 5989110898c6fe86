#include "src/train/sample_reader.h"

#include <stdlib.h>

#include "src/base/memory.h"

typedef struct held_sample {
    int64_t number, first; /* its place in the tokens held */
} held_sample;

struct qvl_sample_reader {
    qvl_dataset *data;
    /* read ahead: labels of a sample lie behind its ids */
    held_sample *held;
    size_t held_capacity, tokens_capacity;
    int32_t *tokens;
    int64_t n_held, next; /* next: the one that is asked for if all goes as announced */
    /* the one that was not */
    int32_t *single;
    size_t single_capacity;
};

qvl_status qvl_sample_reader_create(qvl_sample_reader **out, qvl_dataset *data, qvl_err *err)
{
    const qvl_status rc = qvl_alloc(out, 1, sizeof **out, "samples", err);
    if (rc == QVL_OK)
        (*out)->data = data;
    return rc;
}

void qvl_sample_reader_destroy(qvl_sample_reader *reader)
{
    if (!reader)
        return;
    free(reader->held);
    free(reader->tokens);
    free(reader->single);
    free(reader);
}

static qvl_status hold(qvl_sample_reader *r, int64_t number, int64_t first, qvl_err *err)
{
    const int64_t length = qvl_dataset_length(r->data, number);
    qvl_status rc = QVL_OK;
    QVL_TRY(qvl_reserve(&r->tokens, &r->tokens_capacity, (size_t)(first + 2 * length),
                        sizeof *r->tokens, "samples", err));
    QVL_TRY(qvl_reserve(&r->held, &r->held_capacity, (size_t)r->n_held + 1, sizeof *r->held,
                        "samples", err));
    QVL_TRY(qvl_dataset_read_sample(r->data, number, r->tokens + first, r->tokens + first + length,
                                    err));
    r->held[r->n_held++] = (held_sample){number, first};
out:
    return rc;
}

void qvl_sample_reader_ahead(qvl_sample_reader *reader, const int64_t *numbers, int64_t n)
{
    qvl_err unsaid = {QVL_OK, ""};
    int64_t first = 0;
    reader->n_held = reader->next = 0;
    for (int64_t i = 0; i < n; i++) {
        const int64_t length = qvl_dataset_length(reader->data, numbers[i]);
        if (length > QVL_READ_AHEAD_TOKENS - first / 2 ||
            hold(reader, numbers[i], first, &unsaid) != QVL_OK)
            return;
        first += 2 * length;
    }
}

static const held_sample *find(qvl_sample_reader *r, int64_t number)
{
    if (r->next < r->n_held && r->held[r->next].number == number)
        return &r->held[r->next++];
    for (int64_t i = 0; i < r->n_held; i++)
        if (r->held[i].number == number) {
            r->next = i + 1;
            return &r->held[i];
        }
    return NULL;
}

qvl_status qvl_sample_reader_get(qvl_sample_reader *reader, int64_t number, const int32_t **ids,
                                 const int32_t **labels, qvl_err *err)
{
    const int64_t length = qvl_dataset_length(reader->data, number);
    const held_sample *held = find(reader, number);
    qvl_status rc = QVL_OK;
    *ids = held ? reader->tokens + held->first : NULL;
    if (!held) {
        QVL_TRY(qvl_reserve(&reader->single, &reader->single_capacity, (size_t)(2 * length),
                            sizeof *reader->single, "sample", err));
        QVL_TRY(qvl_dataset_read_sample(reader->data, number, reader->single,
                                        reader->single + length, err));
        *ids = reader->single;
    }
    *labels = *ids + length;
out:
    return rc;
}
