/* What planning and loading of weights share. */
#ifndef QVL_SRC_MODEL_WEIGHTS_INTERNAL_H
#define QVL_SRC_MODEL_WEIGHTS_INTERNAL_H

#include "src/model/weights.h"

enum { QVL_EMBED_SLOT = -1 }; /* the token embedding is no slot of the plan */

/* One tensor of the checkpoint: rows x cols values that go to row first_row of a slot whose rows
 * are stride elements apart. shape is what the file must say. */
typedef struct weight_item {
    char name[96];
    int n_dims;
    int64_t shape[5];
    int slot;
    int64_t first_row, rows, cols, stride;
} weight_item;

struct qvl_weights {
    qvl_weights_half half;
    qvl_model_dims dims;
    qvl_weight_layout layout;
    qvl_plan plan;
    weight_item *items;
    size_t n_items, capacity;
    qvl_device *dev; /* once loaded */
    void *base, *embed_base;
    uint64_t embed_bytes; /* 0 for the tower */
    qvl_mem embed_where;
    qvl_text_weights text;
    qvl_vision_weights vision;
    void ***bindings; /* where the pointer of each slot goes */
    size_t binding_capacity;
};

#endif
