/* What is wrong with the data as a whole, once every record was looked at. */
#include <inttypes.h>
#include <unistd.h>

#include "src/base/files.h"
#include "src/data/prepare_internal.h"

/* ---- columns that no record has ----------------------------------------------------------------
 */

/* The members of a record: "a", "b", ... */
static qvl_status list_members(qvl_text *out, const json_t *record, qvl_err *err)
{
    enum { LISTED = 8, LISTED_BYTES = 300 };
    const char *name;
    json_t *value;
    int n = 0;
    qvl_status rc = json_object_size(record) ? QVL_OK : qvl_text_puts(out, "no members", err);
    json_object_foreach((json_t *)(uintptr_t)record, name, value)
    {
        if (rc != QVL_OK)
            break;
        if (n++ == LISTED || out->len > LISTED_BYTES)
            return qvl_text_puts(out, ", ...", err);
        rc = qvl_text_printf(out, err, "%s\"%.60s\"", n > 1 ? ", " : "", name);
    }
    return rc;
}

/* The first record of a data set that can be read, and its members. NULL when there is none: that
 * its records are bad says more then than a column. */
static const qvl_record_ref *read_members(qvl_text *out, const qvl_selection *s, int32_t number)
{
    enum { TRIED = 100 };
    const qvl_record_ref *ref = s->refs, *end = s->refs + s->n_train + s->n_eval;
    qvl_text scratch = {0};
    json_t *record = NULL;
    bool is_read = false;
    for (int tried = 0; ref < end && tried < TRIED; ref++) {
        if (ref->info != number)
            continue;
        const char *path = s->infos[number].files[ref->file];
        int fd = -1;
        qvl_status rc = qvl_file_open(&fd, path, NULL);
        if (rc == QVL_OK)
            rc = qvl_record_read(&record, fd, path, &ref->span, &scratch, NULL);
        if (fd >= 0)
            close(fd);
        if (rc == QVL_OK)
            break;
        tried++;
    }
    is_read = record && list_members(out, record, NULL) == QVL_OK;
    qvl_text_fini(&scratch);
    json_decref(record);
    return is_read ? ref : NULL;
}

static qvl_status fail_column(const qvl_selection *s, int32_t number, uint32_t missing,
                              int64_t n_records, qvl_err *err)
{
    const qvl_dataset_info *info = &s->infos[number];
    const char *name = NULL, *key = NULL;
    qvl_text members = {0};
    qvl_status rc = QVL_OK;
    const qvl_record_ref *ref = read_members(&members, s, number);
    int bit = 0;
    while (!(missing & 1u << bit))
        bit++;
    key = qvl_dataset_info_column(info, bit, &name);
    if (ref)
        rc = qvl_fail(err, QVL_EDATA,
                      "%.400s: columns.%s of data set '%.100s' in dataset_info.json is \"%.100s\", "
                      "which none of its %" PRId64 " records has; the first has %s",
                      info->files[ref->file], key, info->name, name, n_records, members.data);
    qvl_text_fini(&members);
    return rc;
}

/* The records of a data set may be in both parts. */
static qvl_status judge_columns(const qvl_part *parts, int n_parts, qvl_err *err)
{
    const qvl_selection *s = parts->selection;
    qvl_status rc = QVL_OK;
    for (size_t i = 0; i < s->n_infos && rc == QVL_OK; i++) {
        uint32_t missing = qvl_dataset_info_needed(&s->infos[i]);
        int64_t n = 0;
        for (int p = 0; p < n_parts; p++)
            missing &= parts[p].columns ? ~parts[p].columns[i] : ~0u;
        for (int64_t k = 0; missing && k < s->n_train + s->n_eval; k++)
            n += s->refs[k].info == (int32_t)i;
        if (n)
            rc = fail_column(s, (int32_t)i, missing, n, err);
    }
    return rc;
}

/* ---- no samples --------------------------------------------------------------------------------
 */

static bool has_record(const qvl_record_ref *refs, int64_t n, size_t info)
{
    for (int64_t i = 0; i < n; i++)
        if (refs[i].info == (int32_t)info)
            return true;
    return false;
}

/* The data sets of a part; of one without records those that have none anywhere. */
static qvl_status list_data_sets(qvl_text *out, const qvl_part *part, qvl_err *err)
{
    const qvl_selection *s = part->selection;
    qvl_status rc = qvl_text_puts(out, "", err);
    for (size_t i = 0; i < s->n_infos && rc == QVL_OK; i++)
        if (part->n_refs ? has_record(part->refs, part->n_refs, i)
                         : !has_record(s->refs, s->n_train + s->n_eval, i))
            rc = qvl_text_printf(out, err, "%s%.100s", out->len ? ", " : "", s->infos[i].name);
    return rc;
}

static qvl_status fail_empty(const qvl_part *part, qvl_err *err)
{
    qvl_text names = {0}, why = {0};
    int most = 0;
    qvl_status rc = QVL_OK;
    QVL_TRY(list_data_sets(&names, part, err));
    for (int k = 1; k < part->n_reasons; k++)
        most = part->reasons[k].count > part->reasons[most].count ? k : most;
    if (part->n_dropped && part->n_dropped >= part->n_bad)
        QVL_TRY(qvl_text_printf(&why, err, "%" PRId64 " of the dropped: %s",
                                part->reasons[most].count, part->reasons[most].text));
    else if (part->n_bad)
        QVL_TRY(qvl_text_printf(&why, err, "the first of the bad: %s", part->first_bad.text));
    else
        QVL_TRY(qvl_text_puts(&why, "the data files hold no records", err));
    rc = qvl_fail(err, QVL_EDATA,
                  "no samples are left of the %s data, %.300s (%" PRId64 " records, %" PRId64
                  " dropped, %" PRId64 " bad); %s",
                  part->name, names.data, part->n_refs, part->n_dropped, part->n_bad, why.data);
out:
    qvl_text_fini(&names);
    qvl_text_fini(&why);
    return rc;
}

/* ---- all of it ---------------------------------------------------------------------------------
 */

qvl_status qvl_parts_judge(const qvl_part *parts, int n_parts, bool skips, qvl_err *err)
{
    const qvl_err *first = NULL;
    int64_t n_bad = 0;
    const qvl_status rc = judge_columns(parts, n_parts, err);
    if (rc != QVL_OK)
        return rc;
    for (int i = 0; i < n_parts; i++) {
        first = !first && parts[i].n_bad ? &parts[i].first_bad : first;
        n_bad += parts[i].n_bad;
    }
    for (int i = 0; i < n_parts && n_bad > (skips ? 0 : 1); i++)
        qvl_part_report_bad(&parts[i]);
    if (skips && n_bad)
        qvl_log_line(parts->log, "bad samples left out (on_bad_sample: skip): %" PRId64, n_bad);
    if (n_bad > 1 && !skips)
        return qvl_fail(err, first->status, "%s (and %" PRId64 " more bad samples)", first->text,
                        n_bad - 1);
    if (n_bad && !skips)
        return qvl_fail(err, first->status, "%s", first->text);
    for (int i = 0; i < n_parts; i++)
        if (parts[i].table.n_samples == 0)
            return fail_empty(&parts[i], err);
    return QVL_OK;
}
