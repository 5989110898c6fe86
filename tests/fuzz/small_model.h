/* The dimensions of a model so small that its adapters are a few hundred numbers. */
#ifndef QVL_TESTS_FUZZ_SMALL_MODEL_H
#define QVL_TESTS_FUZZ_SMALL_MODEL_H

#include "src/model/dims.h"
#include "src/model/lora.h"

static inline qvl_model_dims small_model(void)
{
    qvl_model_dims dims = {.tokens_per_second = 2};
    dims.text = (qvl_text_dims){.D = 8, .F = 12, .L = 1, .H = 2, .KV = 1, .Dh = 4, .V = 64};
    return dims;
}

static inline qvl_lora_options small_adapter(void)
{
    qvl_lora_options options = {.rank = 2, .alpha = 4.0};
    for (int i = 0; i < QVL_N_SITES; i++)
        options.targets[i] = true;
    return options;
}

#endif
