/* OpenMP on one thread, for the fuzz build, which has no OpenMP runtime: pragmas have no effect
 * there, and these functions say what they say outside of a parallel region. */
#ifndef QVL_TESTS_FUZZ_SERIAL_OMP_H
#define QVL_TESTS_FUZZ_SERIAL_OMP_H

static inline int omp_get_thread_num(void)
{
    return 0;
}

static inline int omp_get_max_threads(void)
{
    return 1;
}

#endif
