/* A fast 64-bit checksum: for telling whether two buffers are the same, not for security. */
#ifndef QVL_SRC_BASE_CHECKSUM_H
#define QVL_SRC_BASE_CHECKSUM_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Every bit of bytes, and their places, count. The same on all hosts of one byte order. */
uint64_t qvl_checksum(const void *bytes, size_t n_bytes);

#ifdef __cplusplus
}
#endif
#endif
