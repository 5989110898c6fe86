/* dataset_info.json: which files a data set is, and where its columns are (REFERENCE 7.1). */
#ifndef QVL_SRC_DATA_DATASET_INFO_H
#define QVL_SRC_DATA_DATASET_INFO_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <jansson.h>

#include "src/base/status.h"
#include "src/base/text.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef enum qvl_formatting { QVL_ALPACA, QVL_SHAREGPT, QVL_OPENAI } qvl_formatting;

/* Texts are owned; NULL where LLaMA-Factory has None. */
typedef struct qvl_dataset_info {
    char *name;
    char **files; /* paths */
    size_t n_files;
    qvl_formatting formatting;
    int64_t num_samples; /* -1: none */
    /* columns */
    bool names_columns; /* the entry has columns; else these are LLaMA-Factory's defaults */
    char *prompt, *query, *response, *history, *messages, *system, *tools, *images, *videos,
        *audios;
    /* tags */
    char *role_tag, *content_tag, *user_tag, *assistant_tag, *observation_tag, *function_tag,
        *system_tag;
} qvl_dataset_info;

/* Looks the comma-separated names up in dataset_dir/dataset_info.json. *out [*count] is the
 * caller's. QVL_EMISSING for a name or file that is not there, QVL_EDATA for an entry that is wrong
 * or asks for what is not done (hub data sets, scripts, other file types). */
qvl_status qvl_dataset_info_read(qvl_dataset_info **out, size_t *count, const char *names,
                                 const char *dataset_dir, qvl_err *err);
void qvl_dataset_info_free(qvl_dataset_info *infos, size_t count);

/* Columns that the entry names and its format reads, as bits; those of them that the record (an
 * object) has. */
uint32_t qvl_dataset_info_columns(const qvl_dataset_info *info);
uint32_t qvl_dataset_info_columns_of(const qvl_dataset_info *info, const json_t *record);
/* Of those columns the ones without which its records mean nothing: prompt, response or messages,
 * where the entry names them. LLaMA-Factory ends with a KeyError when the data do not have them. */
uint32_t qvl_dataset_info_needed(const qvl_dataset_info *info);
/* The column of a bit's number: its key in the entry, and its name in the records. NULL past the
 * last. */
const char *qvl_dataset_info_column(const qvl_dataset_info *info, int bit, const char **out_name);

/* Appends everything of an entry that influences the encoding, for the digest. */
qvl_status qvl_dataset_info_describe(qvl_text *out, const qvl_dataset_info *info, qvl_err *err);

#ifdef __cplusplus
}
#endif
#endif
