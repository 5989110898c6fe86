/* Other people's libraries under AddressSanitizer: HDF5 asks for the sizes that a damaged file
 * names and takes no for an answer, and forgets memory on its way out of an error; fontconfig
 * (below Cairo's text) keeps what it read. */
#ifndef QVL_TESTS_UNIT_LIBRARY_SANITIZERS_H
#define QVL_TESTS_UNIT_LIBRARY_SANITIZERS_H

const char *__asan_default_options(void);
const char *__asan_default_options(void)
{
    return "allocator_may_return_null=1";
}

const char *__lsan_default_options(void);
const char *__lsan_default_options(void)
{
    return "print_suppressions=0";
}

const char *__lsan_default_suppressions(void);
const char *__lsan_default_suppressions(void)
{
    return "leak:libhdf5\nleak:libfontconfig\n";
}

#endif
