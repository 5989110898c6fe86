#include "src/base/rng.h"

#include <stddef.h>

void qvl_mt19937_init(qvl_mt19937 *rng, uint32_t seed)
{
    rng->state[0] = seed;
    for (uint32_t i = 1; i < 624; i++)
        rng->state[i] = 1812433253u * (rng->state[i - 1] ^ (rng->state[i - 1] >> 30)) + i;
    rng->next = 624;
}

static void mt19937_refill(qvl_mt19937 *rng)
{
    uint32_t *s = rng->state;
    for (int i = 0; i < 624; i++) {
        const uint32_t y = (s[i] & 0x80000000u) | (s[(i + 1) % 624] & 0x7fffffffu);
        s[i] = s[(i + 397) % 624] ^ (y >> 1) ^ (y & 1u ? 0x9908b0dfu : 0u);
    }
    rng->next = 0;
}

uint32_t qvl_mt19937_next(qvl_mt19937 *rng)
{
    if (rng->next >= 624)
        mt19937_refill(rng);
    uint32_t y = rng->state[rng->next++];
    y ^= y >> 11;
    y ^= (y << 7) & 0x9d2c5680u;
    y ^= (y << 15) & 0xefc60000u;
    return y ^ (y >> 18);
}

static void swap(int64_t *a, int64_t *b)
{
    const int64_t kept = *a;
    *a = *b;
    *b = kept;
}

static void fill_order(int64_t *out, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        out[i] = i;
}

void qvl_torch_randperm(int64_t *out, int64_t n, uint64_t seed)
{
    qvl_mt19937 rng;
    qvl_mt19937_init(&rng, (uint32_t)seed);
    fill_order(out, n);
    for (int64_t i = 0; i < n - 1; i++)
        swap(&out[i], &out[i + (int64_t)(qvl_mt19937_next(&rng) % (uint64_t)(n - i))]);
}

void qvl_torch_uniform(float *out, int64_t n, float low, float high, qvl_mt19937 *rng)
{
    for (int64_t i = 0; i < n; i++) {
        const float unit = (float)(qvl_mt19937_next(rng) & 0xffffffu) / 16777216.0f;
        out[i] = unit * (high - low) + low;
    }
}

/* Smallest 2^k - 1 that is at least limit. */
static uint32_t mask_for(uint32_t limit)
{
    uint32_t mask = limit;
    for (int shift = 1; shift < 32; shift *= 2)
        mask |= mask >> shift;
    return mask;
}

/* Uniform in 0..limit by masking and rejection, as numpy's legacy functions draw it. */
static uint32_t mt19937_interval(qvl_mt19937 *rng, uint32_t limit)
{
    const uint32_t mask = mask_for(limit);
    uint32_t value = 0;
    if (limit == 0)
        return 0;
    do
        value = qvl_mt19937_next(rng) & mask;
    while (value > limit);
    return value;
}

void qvl_numpy_legacy_permutation(int64_t *out, int64_t n, qvl_mt19937 *rng)
{
    fill_order(out, n);
    for (int64_t i = n - 1; i > 0; i--)
        swap(&out[i], &out[mt19937_interval(rng, (uint32_t)i)]);
}

void qvl_numpy_legacy_choice(int64_t *out, int64_t count, int64_t n, qvl_mt19937 *rng)
{
    for (int64_t i = 0; i < count; i++)
        out[i] = mt19937_interval(rng, (uint32_t)(n - 1));
}

/* ---- PCG64 (XSL-RR 128/64) behind numpy's SeedSequence --------------------------------------- */

__extension__ typedef unsigned __int128 u128;

typedef struct pcg64 {
    u128 state, increment;
    uint32_t kept;
    int has_kept;
} pcg64;

static uint32_t hashmix(uint32_t value, uint32_t *constant, uint32_t multiplier)
{
    value ^= *constant;
    *constant *= multiplier;
    value *= *constant;
    return value ^ (value >> 16);
}

static uint32_t mix(uint32_t x, uint32_t y)
{
    const uint32_t result = 0xca01f9ddu * x - 0x4973f715u * y;
    return result ^ (result >> 16);
}

/* SeedSequence(seed).generate_state(4, uint64). */
static void seed_sequence(uint64_t out[4], uint64_t seed)
{
    const uint32_t entropy[4] = {(uint32_t)seed, (uint32_t)(seed >> 32), 0, 0};
    uint32_t pool[4], words[8], constant = 0x43b0d7e5u;
    for (int i = 0; i < 4; i++)
        pool[i] = hashmix(entropy[i], &constant, 0x931e8875u);
    for (int from = 0; from < 4; from++)
        for (int to = 0; to < 4; to++)
            if (from != to)
                pool[to] = mix(pool[to], hashmix(pool[from], &constant, 0x931e8875u));
    constant = 0x8b51f9ddu;
    for (int i = 0; i < 8; i++)
        words[i] = hashmix(pool[i % 4], &constant, 0x58f38dedu);
    for (int i = 0; i < 4; i++)
        out[i] = words[2 * i] | (uint64_t)words[2 * i + 1] << 32;
}

static void pcg64_step(pcg64 *rng)
{
    const u128 multiplier = ((u128)0x2360ED051FC65DA4u << 64) | 0x4385DF649FCCF645u;
    rng->state = rng->state * multiplier + rng->increment;
}

static void pcg64_init(pcg64 *rng, uint64_t seed)
{
    uint64_t w[4];
    seed_sequence(w, seed);
    *rng = (pcg64){.increment = ((((u128)w[2] << 64) | w[3]) << 1) | 1};
    pcg64_step(rng);
    rng->state += ((u128)w[0] << 64) | w[1];
    pcg64_step(rng);
}

static uint32_t pcg64_next32(pcg64 *rng)
{
    if (rng->has_kept) {
        rng->has_kept = 0;
        return rng->kept;
    }
    pcg64_step(rng);
    const uint64_t folded = (uint64_t)(rng->state >> 64) ^ (uint64_t)rng->state;
    const unsigned turn = (unsigned)(rng->state >> 122);
    const uint64_t value = folded >> turn | folded << ((64 - turn) & 63);
    rng->kept = (uint32_t)(value >> 32);
    rng->has_kept = 1;
    return (uint32_t)value;
}

void qvl_numpy_permutation(int64_t *out, int64_t n, uint64_t seed)
{
    pcg64 rng;
    pcg64_init(&rng, seed);
    fill_order(out, n);
    for (int64_t i = n - 1; i > 0; i--) {
        const uint32_t mask = mask_for((uint32_t)i);
        uint32_t value = 0;
        do
            value = pcg64_next32(&rng) & mask;
        while (value > (uint32_t)i);
        swap(&out[i], &out[value]);
    }
}

uint64_t qvl_splitmix64(uint64_t *state)
{
    uint64_t z = (*state += 0x9e3779b97f4a7c15u);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}
