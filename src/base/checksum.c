#include "src/base/checksum.h"

#include <string.h>

enum { LANES = 4 };

/* Multiplication by an odd number and xor of a shift are both invertible, so no bit is lost. */
static uint64_t mix(uint64_t h, uint64_t word)
{
    h = (h ^ word) * 0x9e3779b97f4a7c15u;
    return h ^ (h >> 29);
}

uint64_t qvl_checksum(const void *bytes, size_t n_bytes)
{
    const unsigned char *at = bytes;
    uint64_t lane[LANES] = {1, 2, 3, 4}, words[LANES], tail = 0, sum = n_bytes;
    size_t left = n_bytes;
    for (; left >= sizeof words; at += sizeof words, left -= sizeof words) {
        memcpy(words, at, sizeof words);
        for (int i = 0; i < LANES; i++)
            lane[i] = mix(lane[i], words[i]);
    }
    for (; left >= sizeof tail; at += sizeof tail, left -= sizeof tail) {
        memcpy(&tail, at, sizeof tail);
        sum = mix(sum, tail);
    }
    tail = 0;
    if (left)
        memcpy(&tail, at, left);
    sum = mix(sum, tail);
    for (int i = 0; i < LANES; i++)
        sum = mix(sum, lane[i]);
    return sum;
}
