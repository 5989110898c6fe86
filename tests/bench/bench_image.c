/* bench_image REPEATS FILE...: images a second through the data pipeline (decode, LLaMA-Factory's
 * resizes, the processor's resize) on one thread, and of decoding alone; median of the repeats. */
#include <stdio.h>
#include <stdlib.h>

#include "io/image_pipeline.h"
#include "src/base/clock.h"
#include "src/base/memory.h"
#include "src/base/text.h"

static int compare_doubles(const void *a, const void *b)
{
    return *(const double *)a < *(const double *)b ? -1 : *(const double *)a > *(const double *)b;
}

/* Seconds for all files once. */
static qvl_status run_once(double *out_s, char **files, int n, int decode_only, qvl_err *err)
{
    const double start = qvl_clock_s();
    qvl_status rc = QVL_OK;
    for (int i = 0; i < n && rc == QVL_OK; i++) {
        qvl_image image = {0};
        qvl_prepared_image prepared = {0};
        rc = decode_only ? qvl_image_load(&image, files[i], err)
                         : qvl_image_prepare(&prepared, files[i], &qvl_image_limits_default, err);
        qvl_image_fini(&image);
        qvl_prepared_image_fini(&prepared);
    }
    *out_s = qvl_clock_s() - start;
    return rc;
}

int main(int argc, char **argv)
{
    qvl_err err = {QVL_OK, ""};
    int64_t repeats = 0;
    double *seconds = NULL;
    if (argc < 3 || !qvl_parse_i64(argv[1], &repeats) || repeats < 1 || repeats > 10000) {
        fprintf(stderr, "usage: bench_image REPEATS FILE...\n");
        return QVL_EUSAGE;
    }
    qvl_status rc = qvl_alloc(&seconds, (size_t)repeats, sizeof *seconds, "times", &err);
    for (int decode_only = 1; decode_only >= 0 && rc == QVL_OK; decode_only--) {
        for (int64_t r = 0; r < repeats && rc == QVL_OK; r++)
            rc = run_once(&seconds[r], argv + 2, argc - 2, decode_only, &err);
        qsort(seconds, (size_t)repeats, sizeof *seconds, compare_doubles);
        if (rc == QVL_OK)
            printf("%s %.1f images/s\n", decode_only ? "decode" : "pipeline",
                   (argc - 2) / seconds[repeats / 2]);
    }
    if (rc != QVL_OK)
        fprintf(stderr, "bench_image: %s\n", err.text);
    free(seconds);
    return (int)rc;
}
