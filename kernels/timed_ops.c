#include "kernels/timed_ops.h"

/* The device's own table while the timed one is in its place. */
static struct {
    const qvl_ops *own;
    qvl_ops table;
    int n;
    qvl_timed_op op[QVL_MARKS / 2];
} timed;

const char *qvl_timed_op_name(qvl_timed_op op)
{
    static const char *const NAMES[QVL_N_TIMED] = {
        "embedding",        "norm",          "linear",
        "rotation",         "attention",     "SwiGLU",
        "SwiGLU and down",  "head and loss", "norm, backward",
        "linear, backward", "MLP, backward", "attention, backward",
        "optimiser"};
    return NAMES[op];
}

/* Runs one call between two marks. */
#define TIMED(op_name, call)                                                                       \
    do {                                                                                           \
        const int slot = 2 * timed.n;                                                              \
        if (slot + 2 > QVL_MARKS)                                                                  \
            return timed.own->call;                                                                \
        qvl_status rc = timed.own->mark(dev, slot, err);                                           \
        if (rc == QVL_OK)                                                                          \
            rc = timed.own->call;                                                                  \
        if (rc == QVL_OK)                                                                          \
            rc = timed.own->mark(dev, slot + 1, err);                                              \
        timed.op[timed.n++] = op_name;                                                             \
        return rc;                                                                                 \
    } while (0)

#define TIMED_FUNCTION(function, op_name)                                                          \
    static qvl_status timed_##function(qvl_device *dev, const qvl_##function##_args *args,         \
                                       qvl_err *err)                                               \
    {                                                                                              \
        TIMED(op_name, function(dev, args, err));                                                  \
    }

TIMED_FUNCTION(embed, QVL_TIMED_EMBED)
TIMED_FUNCTION(move_rows, QVL_TIMED_EMBED)
TIMED_FUNCTION(norm, QVL_TIMED_NORM)
TIMED_FUNCTION(norm_backward, QVL_TIMED_NORM_BACKWARD)
TIMED_FUNCTION(linear, QVL_TIMED_LINEAR)
TIMED_FUNCTION(linear_backward, QVL_TIMED_LINEAR_BACKWARD)
TIMED_FUNCTION(rotate, QVL_TIMED_ROTATE)
TIMED_FUNCTION(attention, QVL_TIMED_ATTENTION)
TIMED_FUNCTION(attention_backward, QVL_TIMED_ATTENTION_BACKWARD)
TIMED_FUNCTION(swiglu, QVL_TIMED_SWIGLU)
TIMED_FUNCTION(mlp, QVL_TIMED_MLP)
TIMED_FUNCTION(mlp_backward, QVL_TIMED_MLP_BACKWARD)
TIMED_FUNCTION(head_loss, QVL_TIMED_HEAD_LOSS)
TIMED_FUNCTION(sum_squares, QVL_TIMED_OPTIMISER)
TIMED_FUNCTION(adamw, QVL_TIMED_OPTIMISER)
TIMED_FUNCTION(fold, QVL_TIMED_OPTIMISER)

/* The phases of a step are not marked meanwhile: the slots are the operations'. */
static qvl_status no_mark(qvl_device *dev, int slot, qvl_err *err)
{
    (void)dev;
    (void)slot;
    (void)err;
    return QVL_OK;
}

static qvl_status nothing_between(qvl_device *dev, double *out_ms, int from, int to, qvl_err *err)
{
    (void)dev;
    (void)from;
    (void)to;
    (void)err;
    *out_ms = 0.0;
    return QVL_OK;
}

void qvl_timed_ops_begin(qvl_device *dev)
{
    timed.own = dev->ops;
    timed.n = 0;
    timed.table = *dev->ops;
    timed.table.embed = timed_embed;
    timed.table.move_rows = timed_move_rows;
    timed.table.norm = timed_norm;
    timed.table.norm_backward = timed_norm_backward;
    timed.table.linear = timed_linear;
    timed.table.linear_backward = timed_linear_backward;
    timed.table.rotate = timed_rotate;
    timed.table.attention = timed_attention;
    timed.table.attention_backward = timed_attention_backward;
    timed.table.swiglu = timed_swiglu;
    timed.table.mlp = timed_mlp;
    timed.table.mlp_backward = timed_mlp_backward;
    timed.table.head_loss = timed_head_loss;
    timed.table.sum_squares = timed_sum_squares;
    timed.table.adamw = timed_adamw;
    timed.table.fold = timed_fold;
    timed.table.mark = no_mark;
    timed.table.between = nothing_between;
    dev->ops = &timed.table;
}

qvl_status qvl_timed_ops_end(qvl_device *dev, qvl_op_times *times, qvl_err *err)
{
    qvl_status rc = QVL_OK;
    double ms = 0.0;
    dev->ops = timed.own;
    QVL_TRY(dev->ops->wait(dev, QVL_LANE_COMPUTE, err));
    for (int i = 0; i < timed.n; i++) {
        QVL_TRY(dev->ops->between(dev, &ms, 2 * i, 2 * i + 1, err));
        times->ms[timed.op[i]] += ms;
        times->calls[timed.op[i]]++;
    }
out:
    return rc;
}
