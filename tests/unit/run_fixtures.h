/* What the tests of a run's parts start from: a configuration, small adapters. Included after
 * "scratch_files.h". */
#ifndef QVL_TESTS_UNIT_RUN_FIXTURES_H
#define QVL_TESTS_UNIT_RUN_FIXTURES_H

#include "src/config/config.h"
#include "src/model/lora.h"

/* The configuration of a model and output_dir with these lines more. */
static inline qvl_config *config_of(const char *output_dir, const char *lines)
{
    qvl_text text = {0};
    qvl_config *config = NULL;
    qvl_err err = {0};
    assert_int_equal(qvl_text_printf(&text, NULL, "model_name_or_path: m\noutput_dir: %s\n%s",
                                     output_dir, lines),
                     QVL_OK);
    expect_ok(qvl_config_parse(&config, text.data, text.len, "test.yaml", NULL, 0, &err), &err);
    qvl_text_fini(&text);
    return config;
}

/* Adapters on a model of 2 layers, hidden size 8. */
static inline qvl_lora *small_lora(int64_t rank, const char *targets)
{
    const qvl_model_dims dims = {.text = {.D = 8, .F = 12, .L = 2, .H = 2, .KV = 1, .Dh = 4}};
    qvl_lora_options options = {.rank = rank, .alpha = 4.0};
    qvl_lora *lora = NULL;
    assert_int_equal(qvl_lora_parse_targets(options.targets, targets, NULL), QVL_OK);
    assert_int_equal(qvl_lora_create(&lora, &dims, &options, NULL), QVL_OK);
    return lora;
}

#endif
