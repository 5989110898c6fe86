/* Harness of the kernel tests: one case = buffers on a device, one operation, checks.
 *
 *     qvl_kt_begin(kt, "norm T=%d", T);
 *     double *x = qvl_kt_random(kt, n, 1.0, QVL_KT_ACT);        rounded to the device's type
 * already args.x = qvl_kt_in(kt, "x", x, n, QVL_KT_ACT);            uploaded; must come back
 * unchanged args.y = qvl_kt_out(kt, "y", n, QVL_KT_ACT);              NaN before each run
 *     qvl_kt_run(kt, call_norm, &args);                         see below
 *     qvl_kt_check(kt, "y", want, D, QVL_KT_REDUCED);           want: double, from
 * tests/kernels/ref qvl_kt_end(kt); and qvl_kt_verdict(kt) as the last line of each CMocka test.
 *
 * Every buffer has 256 guard bytes 0xA5 before and behind it (the byte after the last element is
 * the first guard byte). qvl_kt_run starts the operation twice on the device, and on the CPU once
 * more with 1 and with 3 threads (the device itself has 2); before each run outputs and workspace
 * are filled anew; after each run guards and inputs must be intact and outputs have the same bits.
 *
 * The device is that of the environment: QVL_TEST_DEVICE cpu (default) or cuda, QVL_TEST_DTYPE f32
 * (default) or bf16. What cannot run here exits with 77 (skipped), or fails with QVL_REQUIRE_GPU=1.
 * Device memory is touched through the device's transfers only.
 */
#ifndef QVL_TESTS_KERNELS_KERNEL_TEST_H
#define QVL_TESTS_KERNELS_KERNEL_TEST_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kernels/ops.h"

#ifdef __cplusplus
extern "C" {
#endif

enum {
    QVL_KT_GUARD_BYTES = 256,
    QVL_KT_MAX_BUFFERS = 32, /* of one case */
    QVL_KT_MAX_ARRAYS = 64,  /* host arrays of one case */
    QVL_KT_MAX_DEVICES = 3,
    QVL_KT_SKIP = 77
};

typedef enum qvl_kt_type { QVL_KT_ACT, QVL_KT_F32, QVL_KT_I32, QVL_KT_U8 } qvl_kt_type;

/* How closely a tensor must be met; the numbers stand in kernel_compare.c. */
typedef enum qvl_kt_tolerance {
    QVL_KT_EXACT,   /* copies, zeros, single roundings */
    QVL_KT_ELEMENT, /* a few operations on one element */
    QVL_KT_REDUCED, /* norms: a sum over a row, then elements */
    QVL_KT_PRODUCT, /* matrix products */
    QVL_KT_SOFTMAX, /* logsumexp and softmax of products, products of that */
    QVL_KT_FLOAT,   /* float32 arithmetic on every device */
    QVL_KT_N_TOLERANCES
} qvl_kt_tolerance;

typedef struct qvl_kt_buffer {
    char name[32];
    qvl_kt_type type;
    bool is_output, is_scratch; /* neither: an input */
    bool is_checked;            /* an output that the test has looked at */
    int64_t n;
    size_t bytes;
    void *base, *data;     /* device: start of the allocation, and of the data in it */
    unsigned char *image;  /* host: guard, what is uploaded before a run, guard */
    unsigned char *result; /* host: the allocation after the first run */
} qvl_kt_buffer;

typedef struct qvl_kt {
    qvl_device *devices[QVL_KT_MAX_DEVICES]; /* on the CPU with 2, 1 and 3 threads */
    int n_devices;
    qvl_device *dev; /* devices[0] */
    qvl_kt_buffer workspaces[QVL_KT_MAX_DEVICES];
    qvl_kt_buffer buffers[QVL_KT_MAX_BUFFERS];
    int n_buffers;
    void *arrays[QVL_KT_MAX_ARRAYS];
    int n_arrays;
    char label[192];
    uint64_t random; /* seeded by the label, so a case does not depend on those before it */
    bool is_open;    /* between begin and end */
    bool is_stopped; /* the operation failed: nothing to compare */
    int n_failures;  /* since the last verdict */
    int n_checks;    /* since the last verdict */
    double worst;    /* largest error / allowed since the last verdict, and where */
    char worst_at[256];
} qvl_kt;

typedef qvl_status (*qvl_kt_op)(qvl_device *dev, const void *args, qvl_err *err);

/* 0, or the exit code of the program: 77 when the device is not there, 1 when it should be. */
int qvl_kt_open(qvl_kt *kt);
/* Ends the program: exit_code is CMocka's. Not 0 when a failure was never asserted. */
int qvl_kt_close(qvl_kt *kt, int exit_code);

/* ---- a case ---- */
void qvl_kt_begin(qvl_kt *kt, const char *format, ...) QVL_PRINTF(2, 3);
void qvl_kt_end(qvl_kt *kt);
/* Fails the CMocka test when anything was wrong since the last verdict, or nothing was checked. */
void qvl_kt_verdict(qvl_kt *kt);

/* Counts and prints one failure of the open case. */
void qvl_kt_fail(qvl_kt *kt, const char *format, ...) QVL_PRINTF(2, 3);

/* ---- host arrays, freed by qvl_kt_end ---- */
double *qvl_kt_doubles(qvl_kt *kt, int64_t n); /* zeros */
int32_t *qvl_kt_ints(qvl_kt *kt, int64_t n);   /* zeros */
double *qvl_kt_copy(qvl_kt *kt, const double *values, int64_t n);
/* About normal with this standard deviation, at most 3.5 of them; rounded to type. */
double *qvl_kt_random(qvl_kt *kt, int64_t n, double deviation, qvl_kt_type type);
/* Whole numbers -limit .. limit. */
double *qvl_kt_whole(qvl_kt *kt, int64_t n, int64_t limit);
/* 0 .. n-1 in a random order. */
int32_t *qvl_kt_permutation(qvl_kt *kt, int64_t n);
int64_t qvl_kt_below(qvl_kt *kt, int64_t limit); /* 0 .. limit-1 */
double qvl_kt_round(const qvl_kt *kt, double value, qvl_kt_type type);
/* width rounded up to what the device wants of weights. */
int64_t qvl_kt_width(const qvl_kt *kt, int64_t width);

/* ---- device buffers; the return value goes into the arguments ---- */
void *qvl_kt_in(qvl_kt *kt, const char *name, const double *values, int64_t n, qvl_kt_type type);
void *qvl_kt_out(qvl_kt *kt, const char *name, int64_t n, qvl_kt_type type);
/* An output that holds these values before each run. */
void *qvl_kt_inout(qvl_kt *kt, const char *name, const double *values, int64_t n, qvl_kt_type type);
void *qvl_kt_in_i32(qvl_kt *kt, const char *name, const int32_t *values, int64_t n);
void *qvl_kt_in_u8(qvl_kt *kt, const char *name, const uint8_t *values, int64_t n);

/* A workspace of exactly these limits for every device. A case that asks for none has all zero. */
void qvl_kt_workspace(qvl_kt *kt, const qvl_workspace_limits *limits);

void qvl_kt_run(qvl_kt *kt, qvl_kt_op op, const void *args);
/* Instead of run: a workspace of no bytes, for an operation that asked for some, must be refused
 * with QVL_EINTERNAL. Outputs need no check then. */
void qvl_kt_run_starved(qvl_kt *kt, qvl_kt_op op, const void *args);

/* ---- what came out ---- */
/* The n elements of an output after qvl_kt_run, as doubles (a host array). */
double *qvl_kt_values(qvl_kt *kt, const char *name);
/* All of an output against want [n], compared in rows of width. */
void qvl_kt_check(qvl_kt *kt, const char *name, const double *want, int64_t width,
                  qvl_kt_tolerance tolerance);
/* Columns first .. first+width-1 of an output [.., stride] against the same columns of want. */
void qvl_kt_check_columns(qvl_kt *kt, const char *name, const double *want, int64_t stride,
                          int64_t first, int64_t width, qvl_kt_tolerance tolerance);
/* float32: as check_columns with QVL_KT_SOFTMAX. bf16: the largest error may be at most twice
 * that of naive [n], a plain bf16 implementation. terms is the size of the sums whose difference an
 * element is: where that difference is 0, their last digits are what remains. */
void qvl_kt_check_twice(qvl_kt *kt, const char *name, const double *want, const double *naive,
                        int64_t stride, int64_t first, int64_t width, double terms);

/* ---- between the harness's own files ---- */
void qvl_kt_clear(qvl_kt *kt); /* releases buffers and arrays */
qvl_kt_buffer *qvl_kt_find(qvl_kt *kt, const char *name);
double qvl_kt_element(const qvl_kt *kt, const unsigned char *data, int64_t i, qvl_kt_type type);

#ifdef __cplusplus
}
#endif
#endif
