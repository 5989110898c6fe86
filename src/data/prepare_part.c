#include "src/data/prepare_internal.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "src/base/clock.h"
#include "src/base/memory.h"

void qvl_sample_table_fini(qvl_sample_table *table)
{
    free(table->length);
    free(table->supervised);
    *table = (qvl_sample_table){0};
}

void qvl_part_fini(qvl_part *part)
{
    qvl_dataset_writer_discard(part->writer);
    qvl_image_list_fini(&part->images);
    qvl_image_list_fini(&part->faulty);
    qvl_sample_table_fini(&part->table);
    qvl_text_fini(&part->dropped_lines);
    qvl_text_fini(&part->bad_lines);
    free(part->columns);
    *part = (qvl_part){0};
}

void qvl_part_restart(qvl_part *part)
{
    qvl_part next = {.world = part->world,
                     .log = part->log,
                     .selection = part->selection,
                     .refs = part->refs,
                     .n_refs = part->n_refs,
                     .name = part->name,
                     .started_s = part->started_s,
                     .faulty = part->images};
    part->images = (qvl_image_list){0};
    qvl_part_fini(part);
    *part = next;
}

qvl_status qvl_part_add_bad(qvl_part *part, const qvl_record_ref *ref, qvl_status status,
                            const char *text, qvl_err *err)
{
    char where[512];
    qvl_selection_describe(part->selection, ref, where);
    if (part->n_bad == 0)
        qvl_fail(&part->first_bad, status, "%s: %s", where, text);
    if (part->n_bad++ < QVL_LISTED_BAD)
        return qvl_text_printf(&part->bad_lines, err, "  %s: %s\n", where, text);
    return QVL_OK;
}

static qvl_status add_dropped(qvl_part *part, const qvl_record_ref *ref, const char *text,
                              qvl_err *err)
{
    char where[512];
    int k = 0;
    while (k < part->n_reasons && strcmp(part->reasons[k].text, text) != 0)
        k++;
    if (k < QVL_REASONS) {
        snprintf(part->reasons[k].text, sizeof part->reasons[k].text, "%s", text);
        part->reasons[k].count++;
        part->n_reasons = k < part->n_reasons ? part->n_reasons : k + 1;
    }
    if (part->n_dropped++ >= QVL_LISTED_DROPPED)
        return QVL_OK;
    return qvl_text_printf(&part->dropped_lines, err, "  %s: %s\n",
                           qvl_selection_describe(part->selection, ref, where), text);
}

/* The first fault among the images of a record, as the pass before found them. */
static qvl_status find_fault(const qvl_part *part, const qvl_block_entry *entry,
                             const char **out_text)
{
    const char *path = entry->text;
    qvl_status status = QVL_OK;
    for (int32_t i = 0; i < entry->n_images && status == QVL_OK; i++) {
        status = qvl_image_list_fault(&part->faulty, path, out_text);
        path += strlen(path) + 1;
    }
    return status;
}

/* A row of the table. */
static qvl_status add_row(qvl_part *part, const qvl_block_entry *entry, qvl_err *err)
{
    qvl_sample_table *table = &part->table;
    const size_t needed = (size_t)table->n_samples + 1;
    int32_t supervised = 0;
    qvl_status rc = QVL_OK;
    QVL_TRY(qvl_reserve(&table->length, &part->table_capacity, needed, sizeof *table->length,
                        "sample table", err));
    QVL_TRY(qvl_reserve(&table->supervised, &part->supervised_capacity, needed,
                        sizeof *table->supervised, "sample table", err));
    for (int32_t i = 1; i < entry->n_ids; i++)
        supervised += entry->labels[i] != -100;
    table->length[table->n_samples] = entry->n_ids;
    table->supervised[table->n_samples++] = supervised;
    table->n_tokens += entry->n_ids;
    part->n_supervised += supervised;
    part->n_cut_samples += entry->n_cut > 0;
out:
    return rc;
}

static qvl_status add_kept(qvl_part *part, const qvl_record_ref *ref, const qvl_block_entry *entry,
                           qvl_err *err)
{
    int32_t *numbers = NULL;
    const char *path = entry->text, *text = NULL;
    const qvl_status fault = find_fault(part, entry, &text);
    qvl_status rc = QVL_OK;
    if (fault != QVL_OK)
        return qvl_part_add_bad(part, ref, fault, text, err);
    QVL_TRY(qvl_alloc(&numbers, (size_t)entry->n_images, sizeof *numbers, "image numbers", err));
    for (int32_t i = 0; i < entry->n_images; i++) {
        QVL_TRY(qvl_image_list_add(&part->images, &numbers[i], path, entry->grids + 3 * i, err));
        path += strlen(path) + 1;
    }
    part->n_image_uses += entry->n_images;
    QVL_TRY(add_row(part, entry, err));
    if (part->writer)
        QVL_TRY(qvl_dataset_writer_add_sample(
            part->writer,
            &(qvl_dataset_sample){.ids = entry->ids,
                                  .labels = entry->labels,
                                  .images = numbers,
                                  .n = entry->n_ids,
                                  .n_images = entry->n_images,
                                  .source = qvl_selection_source(part->selection, ref),
                                  .record = ref->record},
            err));
out:
    free(numbers);
    return rc;
}

qvl_status qvl_part_add(qvl_part *part, const qvl_record_ref *ref, const qvl_block_entry *entry,
                        qvl_err *err)
{
    qvl_status rc = QVL_OK;
    if (!part->columns)
        QVL_TRY(qvl_alloc(&part->columns, part->selection->n_infos, sizeof *part->columns,
                          "columns", err));
    part->columns[ref->info] |= entry->columns;
    switch (entry->outcome) {
    case QVL_KEPT:
        return add_kept(part, ref, entry, err);
    case QVL_DROPPED:
        return add_dropped(part, ref, entry->text, err);
    default:
        return qvl_part_add_bad(part, ref, entry->status, entry->text, err);
    }
out:
    return rc;
}

static int compare_lengths(const void *a, const void *b)
{
    return *(const int32_t *)a < *(const int32_t *)b ? -1
                                                     : *(const int32_t *)a > *(const int32_t *)b;
}

static void report_tokens(const qvl_part *part)
{
    const qvl_sample_table *t = &part->table;
    char count[32];
    int32_t *sorted = malloc((size_t)(t->n_samples ? t->n_samples : 1) * sizeof *sorted);
    if (!sorted || t->n_samples == 0) {
        free(sorted);
        return;
    }
    memcpy(sorted, t->length, (size_t)t->n_samples * sizeof *sorted);
    qsort(sorted, (size_t)t->n_samples, sizeof *sorted, compare_lengths);
    qvl_log_line(
        part->log,
        "  tokens      %s: shortest %d, median %d, mean %.1f, longest %d; %.1f %% supervised",
        qvl_format_count(count, t->n_tokens), sorted[0], sorted[t->n_samples / 2],
        (double)t->n_tokens / (double)t->n_samples, sorted[t->n_samples - 1],
        100.0 * (double)part->n_supervised / (double)t->n_tokens);
    free(sorted);
}

static void report_images(const qvl_part *part)
{
    int64_t least = INT64_MAX, most = 0, sum = 0;
    for (size_t i = 0; i < part->images.count; i++) {
        const int32_t *grid = part->images.images[i].grid;
        const int64_t tokens = (int64_t)grid[0] * grid[1] * grid[2] / 4;
        least = tokens < least ? tokens : least;
        most = tokens > most ? tokens : most;
        sum += tokens;
    }
    if (part->images.count)
        qvl_log_line(part->log,
                     "  images      %zu, used %" PRId64 " times; tokens an image: least %" PRId64
                     ", mean %.1f, most %" PRId64,
                     part->images.count, part->n_image_uses, least,
                     (double)sum / (double)part->images.count, most);
}

/* The lines gathered, and how many more there are. */
static void report_lines(const qvl_part *part, const char *title, const qvl_text *lines,
                         int64_t count, int64_t limit)
{
    if (count == 0)
        return;
    qvl_log_line(part->log, "%s", title);
    for (const char *line = lines->data; line && *line;) {
        const size_t n = strcspn(line, "\n");
        qvl_log_line(part->log, "%.*s", (int)n, line);
        line += n + (line[n] == '\n');
    }
    if (count > limit)
        qvl_log_line(part->log, "  ... and %" PRId64 " more", count - limit);
}

/* A column that no record has may be misspelt in dataset_info.json; it counts as empty. */
static void report_columns(const qvl_part *part, int32_t number)
{
    const qvl_dataset_info *info = &part->selection->infos[number];
    const uint32_t missing =
        qvl_dataset_info_columns(info) & ~(part->columns ? part->columns[number] : 0);
    const char *name = NULL, *key;
    for (int bit = 0; (key = qvl_dataset_info_column(info, bit, &name)) != NULL; bit++)
        if (missing & 1u << bit)
            qvl_log_line(part->log, "              none of them has \"%s\" (columns.%s)", name,
                         key);
}

void qvl_part_report(const qvl_part *part)
{
    const double seconds = qvl_clock_s() - part->started_s;
    char kept[32];
    if (part->n_refs == 0)
        return;
    qvl_log_line(part->log, "%s data: %" PRId64 " records in %.1f s (%.0f a second)", part->name,
                 part->n_refs, seconds, (double)part->n_refs / (seconds > 0 ? seconds : 1));
    for (size_t i = 0; i < part->selection->n_infos; i++) {
        int64_t n = 0;
        for (int64_t k = 0; k < part->n_refs; k++)
            n += part->refs[k].info == (int32_t)i;
        if (n) {
            qvl_log_line(part->log, "  data set    %s: %" PRId64 " records",
                         part->selection->infos[i].name, n);
            report_columns(part, (int32_t)i);
        }
    }
    qvl_log_line(part->log,
                 "  samples     %s kept, %" PRId64 " dropped, %" PRId64 " bad; %" PRId64
                 " were cut to cutoff_len",
                 qvl_format_count(kept, part->table.n_samples), part->n_dropped, part->n_bad,
                 part->n_cut_samples);
    report_tokens(part);
    report_images(part);
    report_lines(part, "dropped, as LLaMA-Factory does:", &part->dropped_lines, part->n_dropped,
                 QVL_LISTED_DROPPED);
}

void qvl_part_report_bad(const qvl_part *part)
{
    report_lines(part, "bad:", &part->bad_lines, part->n_bad, QVL_LISTED_BAD);
}
