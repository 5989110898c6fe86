/* hog_gpu MIB: takes all free memory of the GPU but so many MiB, says "holding", and keeps it until
 * standard input ends. */
#include <stdio.h>
#include <stdlib.h>

#include <cuda_runtime.h>

int main(int argc, char **argv)
{
    const size_t spare = (size_t)(argc > 1 ? atol(argv[1]) : 0) << 20, least = (size_t)1 << 20;
    size_t piece = (size_t)1 << 30, n_free = 0, total = 0, held = 0;
    while (piece >= least) {
        void *memory;
        if (cudaMemGetInfo(&n_free, &total) != cudaSuccess) {
            fprintf(stderr, "hog_gpu: %s\n", cudaGetErrorString(cudaGetLastError()));
            return 69;
        }
        if (n_free < spare + piece || cudaMalloc(&memory, piece) != cudaSuccess) {
            (void)cudaGetLastError(); /* a piece too large is no fault */
            piece /= 2;
            continue;
        }
        held += piece;
    }
    printf("holding %zu MiB, %zu MiB are free\n", held >> 20, n_free >> 20);
    fflush(stdout);
    while (getchar() != EOF)
        ;
    return 0;
}
