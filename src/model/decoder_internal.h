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

/* What every pack needs once, a row a token. */
enum { COSINE, SINE, DELTA, X_FINAL, H_FINAL, INV_FINAL, DX, DH, DQKV, COMMON_H3, N_COMMON };

/* How much of a layer is still there when backward comes to it. */
typedef enum keep_level {
    RECOMPUTED,  /* x_in only */
    PARTLY_KEPT, /* also qkv and gate_up: the products that cost most for their bytes */
    AWAY,        /* the same, in host memory for a while */
    KEPT
} keep_level;

typedef struct decoder_layer {
    int slot_x_in, slot_kept_u;
    keep_level level;
    int64_t turn; /* of an AWAY layer: how many there are below it */
    void *x_in;
    void *kept_u; /* of all groups, one after the other; NULL: there are no tails */
    void *at[N_ACTIVATIONS];
    qvl_linear *linear; /* [QVL_N_GROUPS] */
} decoder_layer;

struct qvl_decoder {
    qvl_model_dims dims;
    const qvl_lora *lora;
    size_t act_bytes;
    int64_t tail[QVL_N_GROUPS]; /* columns behind the inputs of each group */
    int64_t used[QVL_N_GROUPS]; /* of them, by adapters */
    bool shares_h3;             /* backward does not read it: one for all layers will do */
    qvl_decoder_options options;
    int *slots; /* [L, N_ACTIVATIONS] */
    int slot_pack, slot_inv_freq, slot_axis, common_slots[N_COMMON];
    decoder_layer *layers; /* [L] */
    qvl_linear *linears;   /* [L, QVL_N_GROUPS] */
    /* bound */
    qvl_device *dev;
    const qvl_text_weights *weights;
    void *device_pack;
    float *inv_freq, *cosine, *sine, *inv_final;
    int32_t *axis;
    void *delta, *x_final, *h_final, *dx, *dh, *dqkv, *h3; /* h3: NULL, or all layers' */
    /* the pack in work: views into device_pack, and its host side */
    qvl_pack on_device;
    const qvl_pack *pack;
    qvl_dropout dropout;
    bool has_dropout;
    int64_t n_rows; /* that operations work on: all tokens, or those that the loss reads */
    /* what is laid out anew for every pack if the layout is flexible, see decoder_layout.c */
    bool is_flexible;
    int64_t laid_out_tokens;
    size_t arena_bytes;
    char *arena;
    qvl_decoder_kept kept;
    size_t first_bytes; /* of a layer's qkv and gate_up, together */
    qvl_decoder_offload offload;
};

/* decoder_layout.c. Adds all buffers for options.tokens to plan; takes their places in the
 * allocation at base; lays them out for packs of T tokens. */
qvl_status qvl_decoder_plan_buffers(qvl_decoder *d, qvl_plan *plan, qvl_err *err);
void qvl_decoder_take_buffers(qvl_decoder *d, const qvl_plan *plan, void *base);
qvl_status qvl_decoder_lay_out(qvl_decoder *d, int64_t T, qvl_err *err);
enum { AWAY_BUFFERS = 2 };

/* decoder_pack.c. Lays out, uploads, and fills x_in of the first layer. */
qvl_status qvl_decoder_start_pack(qvl_decoder *d, const qvl_pack *pack,
                                  const qvl_decoder_dropout *dropout, qvl_err *err);

/* decoder_rows.c. All tokens, as forward begins; the last layer between attention and o, and back.
 */
void qvl_decoder_work_on_tokens(qvl_decoder *d);
bool qvl_decoder_ends_in_loss_rows(const qvl_decoder *d, const decoder_layer *layer);
void *qvl_decoder_attention_output(const qvl_decoder *d,
                                   const decoder_layer *layer); /* o's input */
qvl_status qvl_decoder_gather_rows(qvl_decoder *d, decoder_layer *layer, qvl_err *err);
qvl_status qvl_decoder_spread_rows(qvl_decoder *d, qvl_err *err);

/* decoder_offload.c. For AWAY layers: before the first of a pack; when qkv and gate_up are made;
 * before backward of the layer. */
qvl_status qvl_decoder_start_away(qvl_decoder *d, qvl_err *err);
qvl_status qvl_decoder_send_away(qvl_decoder *d, const decoder_layer *layer, qvl_err *err);
qvl_status qvl_decoder_bring_back(qvl_decoder *d, int64_t l, qvl_err *err);

#endif
