/* Small facts to ask about: sums, days, opposites. */
#ifndef QVL_SRC_DEMO_FACTS_H
#define QVL_SRC_DEMO_FACTS_H

#include <stddef.h>

#include "src/base/status.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct qvl_fact {
    char question[96];
    char input[24]; /* what the question is about, or empty */
    char answer[96];
    char brief[24]; /* the answer in one word */
} qvl_fact;

/* All of them, always the same; *out is the caller's, released with free(). */
qvl_status qvl_demo_facts(qvl_fact **out, size_t *out_count, qvl_err *err);

#ifdef __cplusplus
}
#endif
#endif
