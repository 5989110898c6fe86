/* The list of a model's tensors, as on the hub (REFERENCE 1.3). */
#ifndef QVL_SRC_DEMO_TENSORS_H
#define QVL_SRC_DEMO_TENSORS_H

#include <stddef.h>
#include <stdint.h>

#include "src/base/status.h"
#include "src/model/dims.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct qvl_demo_tensor {
    char name[96];
    int n_dims;
    int64_t shape[5];
    double mean, std; /* of random values */
} qvl_demo_tensor;

/* In the order of the model: tower, embedding, layers, head. *out is the caller's, released with
 * free(). */
qvl_status qvl_demo_tensors(qvl_demo_tensor **out, size_t *out_count, const qvl_model_dims *dims,
                            qvl_err *err);

#ifdef __cplusplus
}
#endif
#endif
