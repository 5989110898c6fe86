/* A fused linear with adapters and dropout, on the device and for the reference. */
#ifndef QVL_TESTS_KERNELS_LINEAR_CASE_H
#define QVL_TESTS_KERNELS_LINEAR_CASE_H

#include "tests/kernels/kernel_test.h"
#include "tests/kernels/ref/ref_linear.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct qvl_linear_shape {
    int64_t T, in;
    int64_t parts[QVL_MAX_FUSED]; /* outputs of each part, 0 ends the list */
    unsigned adapted;             /* bit p: part p has an adapter */
    int64_t rank;
    double drop_prob; /* 0: dropout is NULL */
    bool has_bias;
} qvl_linear_shape;

typedef struct qvl_linear_case {
    qvl_linear linear;   /* device pointers */
    qvl_ref_linear ref;  /* host pointers */
    qvl_dropout dropout; /* device pointers */
    qvl_dropout ref_dropout;
    bool drops;
    const char *prefix;
    int64_t T, u_width;
    int64_t tail;    /* columns behind the rows of x and of the weight, see ops.h; 0: none */
    const double *x; /* [T, in] */
    void *x_device;  /* [T, in + tail] */
} qvl_linear_case;

/* A line for qvl_kt_begin. */
const char *qvl_linear_shape_text(char buffer[120], const qvl_linear_shape *shape);

/* Fills the open case's buffers: x, weight, bias, a0 b0 .., sample, token; with_gradients also da0
 * db0 .., which hold random values before the run, and with tails x holds u. Widths are rounded up
 * to the device's alignment. Base and adapters contribute about equally. Sets the workspace to
 * exactly this size. */
void qvl_linear_case_fill(qvl_linear_case *out, qvl_kt *kt, const qvl_linear_shape *shape,
                          bool with_gradients);

/* The same on this x [T, in], in as the device wants it; prefix: of the buffers' names, where a
 * case has two linears. */
void qvl_linear_case_fill_x(qvl_linear_case *out, qvl_kt *kt, const qvl_linear_shape *shape,
                            const char *prefix, const double *x, bool with_gradients);

/* x of the down projection: swiglu(gate_up [T, 2F]), rounded as the device keeps it [T, F]. */
double *qvl_linear_case_swiglu(qvl_kt *kt, const double *gate_up, int64_t T, int64_t F);

/* Of kept_u's rows; and u [T, u_width] as it lies there, rounded as the device keeps it. */
int64_t qvl_linear_case_used(const qvl_linear_case *c);
double *qvl_linear_case_kept(const qvl_linear_case *c, qvl_kt *kt, const double *u);

/* Distance of x's rows, for the arguments. */
int64_t qvl_linear_case_stride(const qvl_linear_case *c);

/* Checks da0 db0 .. against the reference's. */
void qvl_linear_case_check_adapters(qvl_kt *kt, const qvl_linear_case *c);

/* Where there are tails: checks that the operation left x, the weight and A as they were, or as
 * fold makes them, and u, if it is not NULL, against the tail of x. */
void qvl_linear_case_check(qvl_kt *kt, const qvl_linear_case *c, const double *u);

#ifdef __cplusplus
}
#endif
#endif
