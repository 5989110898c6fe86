/* Random numbers of the demo: integer arithmetic only, so every machine draws the same. */
#ifndef QVL_SRC_DEMO_RNG_H
#define QVL_SRC_DEMO_RNG_H

#include <stdint.h>

#include "src/base/rng.h"

/* Where the stream of this name starts: streams do not depend on what else is drawn. */
static inline uint64_t qvl_demo_stream(uint64_t seed, const char *name)
{
    uint64_t state = 0xcbf29ce484222325u; /* FNV-1a */
    for (; *name; name++)
        state = (state ^ (unsigned char)*name) * 0x100000001b3u;
    state ^= seed * 0x9e3779b97f4a7c15u;
    return qvl_splitmix64(&state);
}

/* A number of 0 .. n - 1, n at least 1 and small. */
static inline int qvl_demo_draw(uint64_t *state, int n)
{
    return (int)((qvl_splitmix64(state) >> 33) % (uint64_t)n);
}

/* Normal to the eye, mean 0, variance 1: twelve 16-bit numbers added up. Unlike log and cos, the
 * sum is the same with every mathematics library. */
static inline float qvl_demo_normal(uint64_t *state)
{
    int64_t sum = 0;
    for (int i = 0; i < 3; i++) {
        const uint64_t bits = qvl_splitmix64(state);
        sum += (int64_t)(bits & 0xffff) + (int64_t)(bits >> 16 & 0xffff) +
               (int64_t)(bits >> 32 & 0xffff) + (int64_t)(bits >> 48);
    }
    return (float)(sum - 6 * 65535) / 65536.0f;
}

#endif
