/* The images of a data set, each once: a path gets its number when it is first seen. */
#ifndef QVL_SRC_DATA_IMAGE_LIST_H
#define QVL_SRC_DATA_IMAGE_LIST_H

#include <stddef.h>
#include <stdint.h>

#include "src/base/status.h"
#include "src/base/text.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct qvl_listed_image {
    size_t path; /* offset in paths */
    int32_t grid[3];
    uint32_t fault; /* 1 + offset in faults; 0: none is known */
} qvl_listed_image;

/* Start with {0}. */
typedef struct qvl_image_list {
    qvl_listed_image *images;
    size_t count, capacity;
    qvl_text paths;  /* each ended by a NUL */
    qvl_text faults; /* a status as one byte and a text, ended by a NUL */
    uint32_t *table; /* number + 1 by hash; 0 is free */
    size_t table_size;
} qvl_image_list;

void qvl_image_list_fini(qvl_image_list *list);

/* *out is the number of the image at path, added if it is new. */
qvl_status qvl_image_list_add(qvl_image_list *list, int32_t *out, const char *path,
                              const int32_t grid[3], qvl_err *err);

/* Keeps what is wrong with image number index. */
qvl_status qvl_image_list_mark(qvl_image_list *list, size_t index, qvl_status status,
                               const char *text, qvl_err *err);
/* What is wrong with the image at path: QVL_OK when it is not known or nothing is; *out_text is
 * borrowed. */
qvl_status qvl_image_list_fault(const qvl_image_list *list, const char *path,
                                const char **out_text);

#ifdef __cplusplus
}
#endif
#endif
