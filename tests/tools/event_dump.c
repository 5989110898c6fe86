/* Prints the scalars of event files, one a line: STEP TAG VALUE. Refuses (exit code 1) what
 * TensorBoard's reader refuses: lengths and checksums that do not fit, a first record that is not
 * the version; and what it does not mind but qvl promises: a file that ends within a record.
 *
 *     event_dump FILE ... */
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "io/event_file.h"

typedef struct reader {
    const unsigned char *at, *end;
    bool is_bad;
} reader;

static uint64_t little_endian(reader *r, int n_bytes)
{
    uint64_t value = 0;
    if (r->is_bad || r->end - r->at < n_bytes) {
        r->is_bad = true;
        return 0;
    }
    for (int i = 0; i < n_bytes; i++)
        value |= (uint64_t)*r->at++ << (8 * i);
    return value;
}

static uint64_t varint(reader *r)
{
    uint64_t value = 0;
    for (int shift = 0; shift < 64; shift += 7) {
        const uint64_t byte = little_endian(r, 1);
        value |= (byte & 0x7f) << shift;
        if (!(byte & 0x80))
            return value;
    }
    r->is_bad = true;
    return 0;
}

/* A part of r of so many bytes. */
static reader part(reader *r, uint64_t n_bytes)
{
    reader inner = {.at = r->at, .end = r->at};
    if (r->is_bad || (uint64_t)(r->end - r->at) < n_bytes) {
        r->is_bad = inner.is_bad = true;
        return inner;
    }
    inner.end = r->at += n_bytes;
    return inner;
}

static bool has_crc(const reader *data, uint64_t masked)
{
    const uint32_t crc = qvl_crc32c(data->at, (size_t)(data->end - data->at));
    return (uint32_t)((crc >> 15 | crc << 17) + 0xa282ead8u) == masked;
}

static void print_value(reader value, int64_t step)
{
    reader tag = {.is_bad = true};
    while (!value.is_bad && value.at < value.end) {
        const uint64_t key = varint(&value);
        if (key == (1 << 3 | 2)) {
            tag = part(&value, varint(&value));
        } else if (key == (2 << 3 | 5)) {
            const uint32_t bits = (uint32_t)little_endian(&value, 4);
            float number;
            memcpy(&number, &bits, sizeof number);
            printf("%" PRId64 " %.*s %.9g\n", step, (int)(tag.end - tag.at), (const char *)tag.at,
                   (double)number);
        } else {
            value.is_bad = true;
        }
    }
}

/* Whether it is an event: the version if it is the first, else scalars. */
static bool print_event(reader event, bool is_first)
{
    bool has_version = false;
    int64_t step = 0;
    while (!event.is_bad && event.at < event.end) {
        const uint64_t key = varint(&event);
        if (key == (1 << 3 | 1)) {
            little_endian(&event, 8);
        } else if (key == (2 << 3 | 0)) {
            step = (int64_t)varint(&event);
        } else if (key == (3 << 3 | 2)) {
            const reader version = part(&event, varint(&event));
            has_version =
                version.end - version.at == 13 && memcmp(version.at, "brain.Event:2", 13) == 0;
        } else if (key == (5 << 3 | 2)) {
            for (reader summary = part(&event, varint(&event)); summary.at < summary.end;) {
                event.is_bad |= varint(&summary) != (1 << 3 | 2);
                print_value(part(&summary, varint(&summary)), step);
                event.is_bad |= summary.is_bad;
                if (event.is_bad)
                    break;
            }
        } else {
            event.is_bad = true;
        }
    }
    return !event.is_bad && has_version == is_first;
}

static bool print_file(const char *path)
{
    qvl_text content = {0};
    qvl_err err = {QVL_OK, ""};
    if (qvl_file_read(&content, path, (size_t)1 << 30, &err) != QVL_OK) {
        fprintf(stderr, "%s\n", err.text);
        return false;
    }
    const unsigned char *begin = (const unsigned char *)content.data;
    reader file = {.at = begin, .end = begin + content.len, .is_bad = content.len == 0};
    while (!file.is_bad && file.at < file.end) {
        const bool is_first = file.at == begin;
        const reader head = {.at = file.at, .end = file.at + 8};
        const uint64_t n_bytes = little_endian(&file, 8);
        const uint64_t head_crc = little_endian(&file, 4);
        const reader event = part(&file, n_bytes);
        const uint64_t crc = little_endian(&file, 4);
        if (file.is_bad || !has_crc(&head, head_crc) || !has_crc(&event, crc) ||
            !print_event(event, is_first))
            file.is_bad = true;
    }
    if (file.is_bad)
        fprintf(stderr, "%s: a bad record before byte %td of %zu\n", path, file.at - begin,
                content.len);
    qvl_text_fini(&content);
    return !file.is_bad;
}

int main(int argc, char **argv)
{
    bool is_good = argc > 1;
    for (int i = 1; i < argc; i++)
        is_good = print_file(argv[i]) && is_good;
    return is_good ? 0 : 1;
}
