/* A training state with values of its own for each step. Included after "run_fixtures.h". */
#ifndef QVL_TESTS_UNIT_CHECKPOINT_STATE_H
#define QVL_TESTS_UNIT_CHECKPOINT_STATE_H

#include "src/base/rng.h"
#include "src/train/checkpoint.h"

static const char IDENTITY[] = "model=ab; lora_rank=2; data=cd";
static const char ORDER[] = "seed=1; ranks=2";

static inline qvl_train_state new_state(const qvl_lora *lora)
{
    const size_t n = (size_t)qvl_lora_parameters(lora);
    qvl_train_state state = {.param = calloc(n, sizeof(float)),
                             .exp_avg = calloc(n, sizeof(float)),
                             .exp_avg_sq = calloc(n, sizeof(float))};
    assert_true(state.param && state.exp_avg && state.exp_avg_sq);
    snprintf(state.identity, sizeof state.identity, "%s", IDENTITY);
    snprintf(state.order, sizeof state.order, "%s", ORDER);
    return state;
}

static inline void free_state(qvl_train_state *state)
{
    free(state->param);
    free(state->exp_avg);
    free(state->exp_avg_sq);
}

/* Every bit pattern that a float may have may be in it, but those of NaN. */
static inline void set_step(qvl_train_state *state, const qvl_lora *lora, int64_t step)
{
    uint64_t rng = (uint64_t)step * 1000 + 5;
    float *const buffers[] = {state->param, state->exp_avg, state->exp_avg_sq};
    for (int b = 0; b < 3; b++)
        for (int64_t i = 0; i < qvl_lora_parameters(lora); i++) {
            uint32_t bits = (uint32_t)qvl_splitmix64(&rng);
            if ((bits & 0x7f800000u) == 0x7f800000u)
                bits &= 0x807fffffu;
            memcpy(&buffers[b][i], &bits, sizeof bits);
        }
    state->step = step;
    state->epoch = (double)step / 7.0;
    state->loss_sum = 0.1 * (double)step;
    state->loss_steps = step % 10;
    state->total_loss = 1.0 / 3.0 * (double)step;
    state->total_tokens = step * 10000000000;
}

static inline void expect_state(const qvl_train_state *got, const qvl_lora *lora, int64_t step)
{
    const size_t bytes = (size_t)qvl_lora_parameters(lora) * sizeof(float);
    qvl_train_state want = new_state(lora);
    set_step(&want, lora, step);
    assert_memory_equal(got->param, want.param, bytes);
    assert_memory_equal(got->exp_avg, want.exp_avg, bytes);
    assert_memory_equal(got->exp_avg_sq, want.exp_avg_sq, bytes);
    assert_int_equal(got->step, want.step);
    assert_int_equal(got->loss_steps, want.loss_steps);
    assert_int_equal(got->total_tokens, want.total_tokens);
    assert_true(got->epoch == want.epoch && got->loss_sum == want.loss_sum &&
                got->total_loss == want.total_loss);
    free_state(&want);
}

#endif
