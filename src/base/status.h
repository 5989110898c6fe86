/* Status codes and the one error text.
 *
 * Every function that can fail returns a qvl_status and takes a qvl_err as its last argument. The
 * value of a status is the exit code of the program (sysexits numbers), so main() returns it as it
 * is. The text is one line that names file, line or tensor, what was found and what was expected;
 * it is written where the fault is seen and passed on unchanged, and printed once, by main().
 *
 *     if (n_heads < 1)
 *         return qvl_fail(err, QVL_EDATA, "%s: num_attention_heads is %d, expected 1 or more",
 * path, n_heads);
 */
#ifndef QVL_SRC_BASE_STATUS_H
#define QVL_SRC_BASE_STATUS_H

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__)
#define QVL_PRINTF(format_index, first_arg) __attribute__((format(printf, format_index, first_arg)))
#else
#define QVL_PRINTF(format_index, first_arg)
#endif

typedef enum qvl_status {
    QVL_OK = 0,
    QVL_EUSAGE = 64,    /* wrong command line */
    QVL_EDATA = 65,     /* a file's content is wrong */
    QVL_EMISSING = 66,  /* a file that was named is not there or not readable */
    QVL_EDEVICE = 69,   /* device or network unavailable */
    QVL_EINTERNAL = 70, /* our bug, or out of memory */
    QVL_EIO = 74,       /* reading or writing failed */
    QVL_ESTOPPED = 75,  /* stopped on request, everything saved */
    QVL_ECONFIG = 78    /* bad configuration */
} qvl_status;

#define QVL_ERR_TEXT_BYTES 1536

/* Caller-owned; start with {0}. Holds the first failure; a later one does not overwrite it. */
typedef struct qvl_err {
    qvl_status status;
    char text[QVL_ERR_TEXT_BYTES];
} qvl_err;

/* Records status and text (control characters are replaced, so it stays one line) unless err
 * already holds a failure, and returns status. err may be NULL. */
qvl_status qvl_fail(qvl_err *err, qvl_status status, const char *format, ...) QVL_PRINTF(3, 4);

/* As qvl_fail, with strerror(saved_errno) appended. ENOENT, EACCES, ENOTDIR, ELOOP and ENAMETOOLONG
 * become QVL_EMISSING when reading (is_write false); all others QVL_EIO. */
qvl_status qvl_fail_errno(qvl_err *err, int saved_errno, int is_write, const char *format, ...)
    QVL_PRINTF(4, 5);

/* "out of memory: N bytes for WHAT". */
qvl_status qvl_fail_memory(qvl_err *err, unsigned long long bytes, const char *what);

/* Forgets a failure, so that err can be used again. */
void qvl_err_clear(qvl_err *err);

/* A constant of the enumeration as a word, "QVL_EDATA". */
const char *qvl_status_name(qvl_status status);

/* Jumps to the label out of the calling function, which has a variable rc. */
#define QVL_TRY(call)                                                                              \
    do {                                                                                           \
        rc = (call);                                                                               \
        if (rc != QVL_OK)                                                                          \
            goto out;                                                                              \
    } while (0)

#ifdef __cplusplus
}
#endif
#endif
