/* The parts of the demo: learning merges, filling patterns, the facts, the config. */
#include "src/demo/demo_bpe.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "src/config/config.h"
#include "src/demo/demo_facts.h"
#include "src/demo/demo_rng.h"
#include "src/demo/demo_text.h"
#include "src/demo/demo_yaml.h"

/* By hand: aa (4 times), then of ab and (aa)a, twice each, the lower one, then (aa)(ab). */
static void merges_are_learned_in_order(void **state)
{
    static const uint16_t WANT[3][2] = {{64, 64}, {64, 65}, {256, 257}};
    qvl_bpe *bpe = NULL;
    (void)state;
    assert_int_equal(qvl_bpe_learn(&bpe, "aaabdaaabac", 11, 300, NULL), QVL_OK);
    assert_string_equal(bpe->tokens[64], "a");
    assert_int_equal(bpe->n_merges, 3);
    assert_memory_equal(bpe->merges, WANT, sizeof WANT);
    assert_int_equal(bpe->n_tokens, 259);
    assert_string_equal(bpe->tokens[258], "aaab");
    free(bpe);
    assert_int_equal(qvl_bpe_learn(&bpe, "aaabdaaabac", 11, 257, NULL), QVL_OK);
    assert_int_equal(bpe->n_tokens, 257);
    free(bpe);
    assert_int_equal(qvl_bpe_learn(&bpe, "", 0, 300, NULL), QVL_OK);
    assert_int_equal(bpe->n_merges, 0);
    free(bpe);
}

static void patterns_are_filled(void **state)
{
    const qvl_scene one = {.shape = 3, .colour = 4, .ground = 1, .count = 1};
    const qvl_scene many = {.shape = 4, .colour = 0, .ground = 0, .count = 5};
    qvl_text text = {0};
    (void)state;
    assert_int_equal(qvl_scene_describe(&text, "{this colour} {shape}. {Is} {other}?", &one, NULL),
                     QVL_OK);
    assert_string_equal(text.data, "This is an orange star. Is purple?");
    qvl_text_clear(&text);
    assert_int_equal(qvl_scene_describe(&text, "{Number} {shapes} {is} on {ground}", &many, NULL),
                     QVL_OK);
    assert_string_equal(text.data, "Five crosses are on white");
    assert_int_equal(qvl_scene_describe(&text, "{unknown}", &many, NULL), QVL_EINTERNAL);
    qvl_text_fini(&text);
}

static void no_fact_is_asked_twice(void **state)
{
    qvl_fact *facts = NULL;
    size_t count = 0;
    (void)state;
    assert_int_equal(qvl_demo_facts(&facts, &count, NULL), QVL_OK);
    for (size_t i = 0; i < count; i++)
        for (size_t k = 0; k < i; k++)
            assert_false(strcmp(facts[i].question, facts[k].question) == 0 &&
                         strcmp(facts[i].input, facts[k].input) == 0);
    free(facts);
}

/* Names that YAML could take for something else come back as they were. */
static void odd_directories_survive_yaml(void **state)
{
    static const char *const NAMES[] = {"it's: #1 [x]", "/", "- a", "~", "@b", "caf\xc3\xa9 \\n"};
    (void)state;
    for (size_t i = 0; i < sizeof NAMES / sizeof NAMES[0]; i++) {
        qvl_text yaml = {0}, want = {0};
        qvl_config *config = NULL;
        qvl_err err = {0};
        assert_int_equal(qvl_demo_add_yaml(&yaml, NAMES[i], i % 2, NULL), QVL_OK);
        if (qvl_config_parse(&config, yaml.data, yaml.len, "odd.yaml", NULL, 0, &err) != QVL_OK)
            fail_msg("%s", err.text);
        assert_int_equal(qvl_text_printf(&want, NULL, "%s%stokenized.h5", NAMES[i],
                                         NAMES[i][0] == '/' ? "" : "/"),
                         QVL_OK);
        assert_string_equal(config->tokenized_path, want.data);
        qvl_config_destroy(config);
        qvl_text_fini(&yaml);
        qvl_text_fini(&want);
    }
}

/* The same on every machine: integers only. */
static void random_numbers_are_fixed(void **state)
{
    uint64_t random = qvl_demo_stream(42, "a name"), other = qvl_demo_stream(42, "another");
    double sum = 0.0, squares = 0.0;
    int seen[5] = {0};
    (void)state;
    assert_true(random != other && random != qvl_demo_stream(43, "a name"));
    for (int i = 0; i < 100000; i++) {
        const double value = qvl_demo_normal(&random);
        sum += value;
        squares += value * value;
        seen[qvl_demo_draw(&other, 5)]++;
    }
    /* four standard errors */
    assert_true(sum / 1e5 < 0.0127 && sum / 1e5 > -0.0127);
    assert_true(squares / 1e5 < 1.018 && squares / 1e5 > 0.982);
    for (int i = 0; i < 5; i++)
        assert_in_range(seen[i], 19494, 20506);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(merges_are_learned_in_order),
        cmocka_unit_test(patterns_are_filled),
        cmocka_unit_test(no_fact_is_asked_twice),
        cmocka_unit_test(odd_directories_survive_yaml),
        cmocka_unit_test(random_numbers_are_fixed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
