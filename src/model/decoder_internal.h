/* What the files of the decoder share. */
#ifndef QVL_SRC_MODEL_DECODER_INTERNAL_H
#define QVL_SRC_MODEL_DECODER_INTERNAL_H

#include "src/model/decoder.h"

/* Activations of a layer that backward reads. */
enum {
    INV1,
    H1,
    QKV,
    LSE,
    ATTN,
    U_QKV,
    U_O,
    X_MID,
    INV2,
    H2,
    GATE_UP,
    U_GATE_UP,
    H3,
    U_DOWN,
    N_ACTIVATIONS
};

typedef struct activation_shape {
    const char *name;
    int64_t per_token; /* elements */
    size_t element_bytes;
} activation_shape;

typedef struct decoder_layer {
    int slot_x_in;
    void *x_in;
    void *at[N_ACTIVATIONS];
    qvl_linear *linear; /* [QVL_N_GROUPS] */
} decoder_layer;

struct qvl_decoder {
    qvl_model_dims dims;
    const qvl_lora *lora;
    size_t act_bytes;
    int64_t tail[QVL_N_GROUPS]; /* columns behind the inputs of each group */
    qvl_decoder_options options;
    int *slots; /* [L, N_ACTIVATIONS] */
    int slot_pack, slot_inv_freq, slot_axis, slot_cosine, slot_sine, slot_delta, slot_x_final,
        slot_h_final, slot_inv_final, slot_dx, slot_dh, slot_dqkv;
    decoder_layer *layers; /* [L] */
    qvl_linear *linears;   /* [L, QVL_N_GROUPS] */
    /* bound */
    qvl_device *dev;
    const qvl_text_weights *weights;
    void *device_pack;
    float *inv_freq, *cosine, *sine, *inv_final;
    int32_t *axis;
    void *delta, *x_final, *h_final, *dx, *dh, *dqkv;
    /* the pack in work: views into device_pack, and its host side */
    qvl_pack on_device;
    const qvl_pack *pack;
    qvl_dropout dropout;
    bool has_dropout;
};

#endif
