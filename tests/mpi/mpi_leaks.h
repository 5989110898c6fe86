/* MPI keeps memory until the process ends, and unloads the components that could say so. In these
 * tests they stay, under AddressSanitizer, so that the suppressions by name find them. */
#ifndef QVL_TESTS_MPI_MPI_LEAKS_H
#define QVL_TESTS_MPI_MPI_LEAKS_H

#if defined(__SANITIZE_ADDRESS__)
int dlclose(void *handle);
int dlclose(void *handle)
{
    (void)handle;
    return 0;
}

const char *__lsan_default_options(void);
const char *__lsan_default_options(void)
{
    return "print_suppressions=0";
}

/* vasprintf is MPI's own: its caller has no frame that could be named. */
const char *__lsan_default_suppressions(void);
const char *__lsan_default_suppressions(void)
{
    return "leak:libmpi\nleak:libopen-\nleak:libpmix\nleak:libprrte\nleak:libhwloc\n"
           "leak:libevent\nleak:mca_\nleak:libuc\nleak:libfabric\nleak:libpsm\n"
           "leak:libibverbs\nleak:vasprintf\n";
}
#endif

#endif
