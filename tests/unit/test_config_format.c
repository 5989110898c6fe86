/* The configuration as text: what was in force reads back the same; help and Markdown. */
#include "src/config/config.h"
#include "src/config/config_table.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "src/base/memory.h"

#include "tests/unit/config_helpers.h"

static void assert_same(const qvl_config *a, const qvl_config *b)
{
    for (size_t i = 0; i < QVL_N_OPTIONS; i++) {
        const qvl_option *option = &QVL_OPTIONS[i];
        const char *at_a = (const char *)a + option->offset,
                   *at_b = (const char *)b + option->offset;
        bool is_same = true;
        if (option->role != QVL_OPTION_USED || option->type == QVL_OPTION_MAP)
            continue;
        if (option->type == QVL_OPTION_TEXT || option->type == QVL_OPTION_LIST) {
            const char *text_a = *(char *const *)at_a, *text_b = *(char *const *)at_b;
            is_same = text_a && text_b ? strcmp(text_a, text_b) == 0 : text_a == text_b;
        } else {
            is_same = memcmp(at_a, at_b, option->type == QVL_OPTION_BOOL ? sizeof(bool) : 8) == 0;
        }
        if (!is_same)
            fail_msg("%s is not what it was", option->key);
    }
    /* those of lr_scheduler_kwargs lie together; NaN is not equal to itself */
    assert_memory_equal(&a->lr_num_cycles, &b->lr_num_cycles,
                        offsetof(qvl_config, bf16) - offsetof(qvl_config, lr_num_cycles));
}

static void expect_round_trip(qvl_config *config)
{
    qvl_text text = {0};
    qvl_config *again = NULL;
    qvl_err err = {0};
    assert_int_equal(qvl_config_format(&text, config, &err), QVL_OK);
    if (qvl_config_parse(&again, text.data, text.len, "formatted", NULL, 0, &err) != QVL_OK)
        fail_msg("%s\n%s", err.text, text.data);
    assert_same(config, again);
    qvl_text_fini(&text);
    qvl_config_destroy(config);
    qvl_config_destroy(again);
}

static void defaults_read_back(void **state)
{
    (void)state;
    expect_round_trip(parsed("", NULL));
}

static void every_value_reads_back(void **state)
{
    (void)state;
    expect_round_trip(parsed(
        "adapter_name_or_path: a b\ncache_dir: /c\nmodel_revision: 'no'\nimage_max_pixels: 262144\n"
        "image_min_pixels: 3136\nsplit_special_tokens: true\ndisable_gradient_checkpointing: true\n"
        "lora_rank: 16\nlora_alpha: 7\nlora_dropout: 0.05\nlora_target: [q_proj, v_proj]\n"
        "use_rslora: true\ndisable_shuffling: true\nplot_loss: true\ntemplate: qwen2_vl\n"
        "report_to: [tensorboard, none]\nlogging_dir: 'a, b'\n"
        "dataset: a,b\ndataset_dir: d\nmedia_dir: m\ncutoff_len: 512\nmax_samples: 3\n"
        "val_size: 0.1\ntrain_on_prompt: true\ndefault_system: 'null'\noverwrite_cache: true\n"
        "tokenized_path: t.h5\noverwrite_output_dir: true\ndo_train: true\n"
        "do_eval: true\nlogging_steps: 0.01\nlogging_first_step: true\nsave_strategy: no\n"
        "save_steps: 1e-7\nsave_total_limit: 2\nsave_only_model: true\n"
        "resume_from_checkpoint: true\nper_device_train_batch_size: 2\n"
        "gradient_accumulation_steps: 4\nlearning_rate: 1.2345678901234567e-5\n"
        "num_train_epochs: 0.3333333333333333\nmax_steps: 10\nlr_scheduler_type: polynomial\n"
        "lr_scheduler_kwargs: {lr_end: 1e-7, power: 2}\nwarmup_ratio: 0.03\n"
        "warmup_steps: 0.5\nbf16: true\nadam_beta1: 0.8\nadam_beta2: 0.99\nadam_epsilon: 1e-6\n"
        "weight_decay: 0.01\nmax_grad_norm: 0.3\nseed: 4294967295\ndata_seed: 0\n"
        "ddp_timeout: 180000000\nper_device_eval_batch_size: 3\neval_strategy: epoch\n"
        "eval_steps: 7\ndevice: cpu\npack: false\npack_tokens: 4096\nloss_reduction: token_mean\n"
        "steps_rule: ceil\ngradient_checkpointing: false\nshare_gpu: true\nvision_cache: off\n"
        "adapter_layout: hf4.51\non_bad_sample: skip\nstrict_paths: true\n"
        "activation_offloading: false\nlogging_strategy: no\n"
        "include_num_input_tokens_seen: non_padding\n",
        NULL));
}

static void arguments_of_schedules_read_back(void **state)
{
    (void)state;
    expect_round_trip(parsed("lr_scheduler_type: cosine_warmup_with_min_lr\n"
                             "lr_scheduler_kwargs: {min_lr: 1e-6, warmup_lr_rate: 0.3, "
                             "num_cycles: 0.7}\n",
                             NULL));
    expect_round_trip(parsed("lr_scheduler_type: cosine_with_min_lr\n"
                             "lr_scheduler_kwargs: '{\"min_lr_rate\": 0.1}'\n",
                             NULL));
    expect_round_trip(
        parsed("lr_scheduler_type: inverse_sqrt\nlr_scheduler_kwargs: {timescale: 9}\n", NULL));
    expect_round_trip(parsed("lr_scheduler_type: warmup_stable_decay\nlr_scheduler_kwargs: "
                             "{num_stable_steps: 3, num_decay_steps: 1e9, min_lr_ratio: 0.01, "
                             "warmup_type: linear, decay_type: 1-sqrt}\n",
                             NULL));
}

/* Texts that YAML would read as something else if they were written plainly. */
static void every_text_reads_back(void **state)
{
    (void)state;
    static const char *const TEXTS[] = {
        "",
        " ",
        "  two  ",
        "null",
        "~",
        "true",
        "1e5",
        "- a",
        "a: b",
        "a # b",
        "#",
        "'",
        "''",
        "it's \"so\"",
        "\\n",
        "C:\\dir\\",
        "{a}",
        "[a",
        "*x",
        "&x",
        "!x",
        "%x",
        "@x",
        "`x",
        "| x",
        "> x",
        "two\nlines",
        "\n",
        " a \n  b\n\n c ",
        "tab\there",
        "\ttab first",
        "cr\r\nlf",
        "bell\a esc\x1b del\x7f",
        "caf\xc3\xa9 \xe4\xbd\xa0\xe5\xa5\xbd \xf0\x9f\x98\x80",
        "nel\xc2\x85x ls\xe2\x80\xa8x ps\xe2\x80\xa9x bom\xef\xbb\xbfx c1\xc2\x80x",
        "nonchar\xef\xbf\xbe\xef\xbf\xbfx",
        "a \xe2\x80\xa8 b",
        "a \xe2\x80\xa9 b",
        "a \xc2\x85 b",
        "\xf0\x9f\x98\x80\n\"\\",
        "You are a helpful assistant.\nAnswer in \xe4\xb8\xad\xe6\x96\x87.",
    };
    for (size_t i = 0; i < sizeof TEXTS / sizeof *TEXTS; i++) {
        qvl_config *config = parsed("", NULL);
        free(config->default_system);
        assert_int_equal(qvl_copy_text(&config->default_system, TEXTS[i], NULL), QVL_OK);
        expect_round_trip(config);
    }
}

static void help_has_every_used_key(void **state)
{
    (void)state;
    qvl_text text = {0};
    char line[64];
    assert_int_equal(qvl_config_format_help(&text, NULL), QVL_OK);
    for (size_t i = 0; i < QVL_N_OPTIONS; i++) {
        const qvl_option *option = &QVL_OPTIONS[i];
        if (option->section) {
            snprintf(line, sizeof line, "\n%s\n", option->section);
        } else {
            snprintf(line, sizeof line, "\n  %s ", option->key);
            if (option->role != QVL_OPTION_USED) {
                assert_null(strstr(text.data, line));
                continue;
            }
        }
        if (!strstr(text.data, line))
            fail_msg("--help lacks \"%s\"", line);
    }
    assert_non_null(strstr(text.data, "  learning_rate                  largest rate of the "
                                      "schedule (1e-20 to 10.0) [5e-5]\n"));
    assert_non_null(strstr(text.data, "  lora_rank                      rank of A and B "
                                      "(1 to 1024) [8]\n"));
    assert_non_null(strstr(text.data, "  save_strategy                  when checkpoints are "
                                      "written (steps|epoch|no) [steps]\n"));
    assert_non_null(strstr(text.data,
                           "  bf16                           bf16 weights and "
                           "activations on GPUs; the CPU computes in float32 [false]\n"));
    qvl_text_fini(&text);
}

static void markdown_has_every_key(void **state)
{
    (void)state;
    qvl_text text = {0};
    char line[64];
    assert_int_equal(qvl_config_format_markdown(&text, NULL), QVL_OK);
    for (size_t i = 0; i < QVL_N_OPTIONS; i++) {
        const qvl_option *option = &QVL_OPTIONS[i];
        snprintf(line, sizeof line, option->section ? "\n## %s\n" : "\n| `%s` | ",
                 option->section ? option->section : option->key);
        if (!strstr(text.data, line))
            fail_msg("the Markdown lacks \"%s\"", line);
    }
    assert_non_null(strstr(text.data, "| `lora_rank` | whole number, 1 to 1024 | 8 | "
                                      "rank of A and B |\n"));
    assert_non_null(strstr(text.data, "| `save_strategy` | steps \\| epoch \\| no | steps | "));
    assert_non_null(strstr(text.data, "| `stage` | sft |  | other values are refused: "));
    assert_non_null(strstr(text.data, "| `deepspeed` | null \\| false \\| \"\" |  | other values"));
    assert_null(strstr(text.data, "remove the line"));
    /* five bars a row, but for those that are escaped */
    for (const char *row = strstr(text.data, "\n| `"); row; row = strstr(row + 1, "\n| `")) {
        int bars = 0;
        for (const char *c = row + 1; *c && *c != '\n'; c++)
            bars += *c == '|' && c[-1] != '\\';
        if (bars != 5)
            fail_msg("%d bars in %.60s", bars, row + 1);
    }
    qvl_text_fini(&text);
}

static void keys_are_in_the_table_once(void **state)
{
    (void)state;
    for (size_t i = 0; i < QVL_N_OPTIONS; i++) {
        if (!QVL_OPTIONS[i].key)
            continue;
        if (qvl_option_find(QVL_OPTIONS[i].key) != (int)i)
            fail_msg("%s is found elsewhere", QVL_OPTIONS[i].key);
        assert_non_null(QVL_OPTIONS[i].help);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(defaults_read_back),
        cmocka_unit_test(every_value_reads_back),
        cmocka_unit_test(every_text_reads_back),
        cmocka_unit_test(help_has_every_used_key),
        cmocka_unit_test(markdown_has_every_key),
        cmocka_unit_test(keys_are_in_the_table_once),
        cmocka_unit_test(arguments_of_schedules_read_back),
    };
    return cmocka_run_group_tests_name("config_format", tests, NULL, NULL);
}
