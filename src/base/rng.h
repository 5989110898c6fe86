/* The random number generators whose sequences other programs rely on.
 *
 * torch (CPU) and numpy's legacy generator are both MT19937 seeded by init_genrand; numpy's
 * default_rng is PCG64 seeded through SeedSequence. All are given by their published algorithms;
 * the tests hold vectors drawn from torch and numpy.
 */
#ifndef QVL_SRC_BASE_RNG_H
#define QVL_SRC_BASE_RNG_H

#include <stdint.h>

#include "src/base/status.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct qvl_mt19937 {
    uint32_t state[624];
    int next;
} qvl_mt19937;

void qvl_mt19937_init(qvl_mt19937 *rng, uint32_t seed);
uint32_t qvl_mt19937_next(qvl_mt19937 *rng);

/* torch.randperm(n) of a CPU generator with manual_seed(seed), n < 2^32 / 20: out [n]. */
void qvl_torch_randperm(int64_t *out, int64_t n, uint64_t seed);

/* torch's CPU uniform_(low, high) in float32: out [n]. */
void qvl_torch_uniform(float *out, int64_t n, float low, float high, qvl_mt19937 *rng);

/* numpy.random.RandomState.permutation(n): out [n], n < 2^32. Draws from rng, so that calls in a
 * row continue one stream. */
void qvl_numpy_legacy_permutation(int64_t *out, int64_t n, qvl_mt19937 *rng);

/* numpy.random.RandomState.choice(n, size=count) (with replacement): out [count]. */
void qvl_numpy_legacy_choice(int64_t *out, int64_t count, int64_t n, qvl_mt19937 *rng);

/* numpy.random.default_rng(seed).permutation(n): out [n], n < 2^32. */
void qvl_numpy_permutation(int64_t *out, int64_t n, uint64_t seed);

/* splitmix64: one well-mixed number of a counter, for drawing demo data and test inputs. */
uint64_t qvl_splitmix64(uint64_t *state);

#ifdef __cplusplus
}
#endif
#endif
