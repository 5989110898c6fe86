/* Configurations that are refused: exit code, place, and what is said. */
#include "src/config/config.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "tests/unit/config_helpers.h"

static void unknown_keys_name_the_nearest(void **state)
{
    (void)state;
    expect_refused("lora_rnak: 8\n", NULL,
                   "c.yaml:3: unknown key 'lora_rnak'; did you mean 'lora_rank'?");
    expect_refused("bf16: true\n\n# note\nlerning_rate: 1\n", NULL,
                   "c.yaml:6: unknown key 'lerning_rate'; did you mean 'learning_rate'?");
    expect_refused("", "cutof_len=5",
                   "command line: unknown key 'cutof_len'; did you mean 'cutoff_len'?");
    expect_refused("image_resolution: 512\n", NULL,
                   "c.yaml:3: unknown key 'image_resolution'; did you mean 'image_max_pixels'?");
    expect_refused("completely_different: 1\n", NULL,
                   "c.yaml:3: unknown key 'completely_different'");
    expect_refused("Lora_rank: 1\n", NULL,
                   "c.yaml:3: unknown key 'Lora_rank'; did you mean 'lora_rank'?");
    expect_refused("\"\": 1\n", NULL, "c.yaml:3: unknown key ''");
    expect_refused("\"a\\nb\\e[1m\": 1\n", NULL, "c.yaml:3: unknown key 'a?b?[1m'");
}

static void extra_keys_pass_when_asked(void **state)
{
    (void)state;
    static const char *const YES[] = {"1", "true", "True", "y", "Y"};
    for (size_t i = 0; i < sizeof YES / sizeof *YES; i++) {
        setenv("ALLOW_EXTRA_ARGS", YES[i], 1);
        qvl_config *c = parsed("lora_rnak: 4\nlora_rank: 2\n", "another=3");
        assert_int_equal(c->lora_rank, 2);
        qvl_config_destroy(c);
    }
    setenv("ALLOW_EXTRA_ARGS", "0", 1);
    expect_refused("lora_rnak: 8\n", NULL,
                   "c.yaml:3: unknown key 'lora_rnak'; did you mean 'lora_rank'?");
    unsetenv("ALLOW_EXTRA_ARGS");
}

static void keys_given_twice(void **state)
{
    (void)state;
    expect_refused("seed: 1\nbf16: true\nseed: 1\n", NULL,
                   "c.yaml:5: duplicate key 'seed', first given in line 3");
    expect_refused("lr_scheduler_kwargs:\n  lr_end: 1\n  lr_end: 2\n", NULL,
                   "c.yaml:5: duplicate key 'lr_end', first given in line 4");
    expect_refused("eval_strategy: no\nevaluation_strategy: no\n", NULL,
                   "c.yaml:4: 'evaluation_strategy' is 'eval_strategy', which was given before");
    /* families are one row of the table, and each member may be given */
    qvl_config_destroy(parsed("vllm_maxlen: 1\nvllm_gpu_util: 0.9\n", NULL));
}

static void wrong_types(void **state)
{
    (void)state;
    expect_refused("lora_rank: eight\n", NULL,
                   "c.yaml:3: lora_rank: 'eight' is not a whole number");
    expect_refused("lora_rank: 8.5\n", NULL, "c.yaml:3: lora_rank: '8.5' is not a whole number");
    expect_refused("lora_rank: true\n", NULL, "c.yaml:3: lora_rank: 'true' is not a whole number");
    expect_refused("lora_rank: 0x10\n", NULL, "c.yaml:3: lora_rank: '0x10' is not a whole number");
    expect_refused("lora_rank: 010\n", NULL,
                   "c.yaml:3: lora_rank: '010' is octal in YAML; write it without the zero");
    expect_refused("lora_rank: 1_0\n", NULL, "c.yaml:3: lora_rank: '1_0' is not a whole number");
    expect_refused("lora_rank: [8]\n", NULL, "c.yaml:3: lora_rank: expected a whole number");
    expect_refused("learning_rate: .nan\n", NULL,
                   "c.yaml:3: learning_rate: '.nan' is not a number");
    expect_refused("learning_rate: .inf\n", NULL,
                   "c.yaml:3: learning_rate: '.inf' is not a number");
    expect_refused("learning_rate: 1e\n", NULL, "c.yaml:3: learning_rate: '1e' is not a number");
    expect_refused("learning_rate: 1e-4x\n", NULL,
                   "c.yaml:3: learning_rate: '1e-4x' is not a number");
    expect_refused("learning_rate: {a: 1}\n", NULL, "c.yaml:3: learning_rate: expected a number");
    expect_refused("bf16: 1\n", NULL, "c.yaml:3: bf16: '1' is not true or false");
    expect_refused("bf16: \"true\"\n", NULL,
                   "c.yaml:3: bf16: 'true' is not true or false; write it without quotes");
    expect_refused("bf16: [true]\n", NULL, "c.yaml:3: bf16: 'a structure' is not true or false");
    expect_refused("media_dir: {a: 1}\n", NULL,
                   "c.yaml:3: media_dir: expected a text, found a mapping");
    expect_refused("media_dir: [a, b]\n", NULL,
                   "c.yaml:3: media_dir: expected a text, found a list");
    expect_refused("dataset: {a: 1}\n", NULL, "c.yaml:3: dataset: expected a list of words");
    expect_refused("dataset: [a, [b]]\n", NULL, "c.yaml:3: dataset: expected a list of words");
    expect_refused("dataset: [a, null]\n", NULL, "c.yaml:3: dataset: expected a list of words");
    expect_refused("template: qwen\n", NULL, "c.yaml:3: template: 'qwen' is not one of qwen2_vl");
    expect_refused("template: 'null'\n", NULL, "c.yaml:3: template: 'null' is not one of qwen2_vl");
    expect_refused("save_strategy: best\n", NULL,
                   "c.yaml:3: save_strategy: 'best' is not one of steps|epoch|no");
    expect_refused("save_strategy: true\n", NULL,
                   "c.yaml:3: save_strategy: 'true' is not one of steps|epoch|no");
    expect_refused("lr_scheduler_kwargs: 3\n", NULL,
                   "c.yaml:3: lr_scheduler_kwargs: expected a mapping");
    expect_refused("lr_scheduler_kwargs: {power: -1}\n", NULL,
                   "c.yaml:3: lr_scheduler_kwargs.power: expected a number in 0 to 1e6");
}

static void values_out_of_range(void **state)
{
    (void)state;
    static const char *const CASES[][2] = {
        {"learning_rate: 0", "0 is out of range, expected 1e-20 to 10.0"},
        {"learning_rate: -1e-4", "-1e-4 is out of range, expected 1e-20 to 10.0"},
        {"learning_rate: 11", "11 is out of range, expected 1e-20 to 10.0"},
        {"lora_rank: 0", "0 is out of range, expected 1 to 1024"},
        {"lora_rank: 1025", "1025 is out of range, expected 1 to 1024"},
        {"lora_rank: 99999999999999999999", "99999999999999999999 is out of range, expected 1 to "
                                            "1024"},
        {"lora_alpha: -1", "-1 is out of range, expected 1 to 1000000"},
        {"lora_dropout: 1", "1 is out of range, expected 0.0 to 0.99"},
        {"lora_dropout: -0.1", "-0.1 is out of range, expected 0.0 to 0.99"},
        {"gradient_accumulation_steps: 0", "0 is out of range, expected 1 to 65536"},
        {"per_device_train_batch_size: 0", "0 is out of range, expected 1 to 65536"},
        {"num_train_epochs: 0", "0 is out of range, expected 1e-06 to 1000000.0"},
        {"num_train_epochs: -3", "-3 is out of range, expected 1e-06 to 1000000.0"},
        {"max_samples: 0", "0 is out of range, expected 1 to 4294967295"},
        {"max_samples: -1", "-1 is out of range, expected 1 to 4294967295"},
        {"cutoff_len: 15", "15 is out of range, expected 16 to 1048576"},
        {"cutoff_len: 2000000", "2000000 is out of range, expected 16 to 1048576"},
        {"seed: -1", "-1 is out of range, expected 0 to 4294967295"},
        {"seed: 4294967296", "4294967296 is out of range, expected 0 to 4294967295"},
        {"image_max_pixels: 783", "783 is out of range, expected 784 to 1000000000"},
        {"warmup_ratio: 1.5", "1.5 is out of range, expected 0.0 to 1.0"},
        {"val_size: -0.1", "-0.1 is out of range, expected 0.0 to 4294967295.0"},
        {"adam_beta1: 1", "1 is out of range, expected 0.0 to 0.999999"},
        {"max_grad_norm: -1", "-1 is out of range, expected 0.0 to 1000000000.0"},
        {"save_steps: 0", "0 is out of range, expected 1e-09 to 1000000000.0"},
        {"max_steps: -2", "-2 is out of range, expected -1 to 1000000000"},
        {"ddp_timeout: 0", "0 is out of range, expected 1.0 to 1000000000000.0"},
    };
    for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++) {
        char line[80], message[160];
        snprintf(line, sizeof line, "%s\n", CASES[i][0]);
        snprintf(message, sizeof message, "c.yaml:3: %.*s: %s", (int)strcspn(line, ":"), line,
                 CASES[i][1]);
        expect_refused(line, NULL, message);
    }
    expect_refused("", "lora_rank=0",
                   "command line: lora_rank: 0 is out of range, expected 1 to 1024");
}

static void what_is_not_done_is_said(void **state)
{
    (void)state;
    static const char *const CASES[][2] = {
        {"stage: dpo", "'dpo' is not supported, only sft (only supervised fine-tuning is done)"},
        {"finetuning_type: full", "'full' is not supported, only lora (only LoRA is done)"},
        {"quantization_bit: 4",
         "'4' is not supported, only null (quantised base weights (QLoRA) are not done)"},
        {"packing: true", "'true' is not supported, only null|false (LLaMA-Factory's packing "
                          "changes what a sample is; see pack)"},
        {"freeze_vision_tower: false", "'false' is not supported, only true (the vision tower is "
                                       "frozen; its features are computed once)"},
        {"report_to: wandb",
         "'wandb' is not supported, only none|tensorboard|all (tensorboard, all: event files in "
         "logging_dir; other trackers are not called)"},
        {"report_to: [none, wandb, mlflow]",
         "'wandb, mlflow' is not supported, only none|tensorboard|all (tensorboard, all: event "
         "files in logging_dir; other trackers are not called)"},
        {"report_to: tensorboard,swanlab",
         "'swanlab' is not supported, only none|tensorboard|all (tensorboard, all: event files in "
         "logging_dir; other trackers are not called)"},
        {"report_to: [{a: 1}]", "expected a list of words"},
        {"deepspeed: ds_z3.json",
         "'ds_z3.json' is not supported, only null|false|\"\" (the base weights are "
         "whole on every rank)"},
        {"optim: adafactor",
         "'adafactor' is not supported, only adamw_torch|adamw_torch_fused|adamw_apex_fused|"
         "adamw_torch_npu_fused|adamw_torch_xla (the optimiser is AdamW)"},
        {"label_smoothing_factor: 0.1",
         "'0.1' is not supported, only 0.0 (label smoothing is not done)"},
        {"mix_strategy: interleave_under",
         "'interleave_under' is not supported, only concat (data sets are concatenated)"},
        {"fp16: yes", "'yes' is not supported, only false (float16 training is not done; bf16 has "
                      "its range)"},
        {"use_dora: true", "'true' is not supported, only false (DoRA is not done)"},
        {"rope_scaling: {type: yarn}",
         "'a structure' is not supported, only null (rotary scaling is the model's own)"},
    };
    for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++) {
        char line[80], message[240];
        snprintf(line, sizeof line, "%s\n", CASES[i][0]);
        snprintf(message, sizeof message, "c.yaml:3: %.*s: %s", (int)strcspn(line, ":"), line,
                 CASES[i][1]);
        expect_refused(line, NULL, message);
    }
    /* the same thing said in another way */
    qvl_config_destroy(parsed("packing: no\nfreeze_vision_tower: yes\nreport_to: [none, all]\n"
                              "label_smoothing_factor: 0.00\nuse_dora: ~\n",
                              NULL));
}

static void keys_that_exclude_each_other(void **state)
{
    (void)state;
    const char data[] = "template: qwen2_vl\ndataset: a\n";
    char text[256];
    static const char *const CASES[][2] = {
        {"val_size: 0.1\neval_dataset: b\n",
         "c.yaml:6: val_size and eval_dataset exclude each other"},
        {"mask_history: true\ntrain_on_prompt: true\n",
         "c.yaml:6: mask_history and train_on_prompt exclude each other"},
        {"do_eval: true\n", "c.yaml:5: eval_strategy and do_eval need eval_dataset or val_size"},
        {"eval_strategy: steps\n",
         "c.yaml:5: eval_strategy and do_eval need eval_dataset or val_size"},
        {"image_min_pixels: 1000\nimage_max_pixels: 999\n",
         "c.yaml:6: image_min_pixels is above image_max_pixels"},
        {"val_size: 1\n", "c.yaml:5: val_size: expected a share below 1 or a count from 2"},
        {"val_size: 1.5\n", "c.yaml:5: val_size: expected a share below 1 or a count from 2"},
        {"per_device_train_batch_size: 4096\ngradient_accumulation_steps: 4097\n",
         "c.yaml:6: per_device_train_batch_size and gradient_accumulation_steps make steps of more "
         "than 16777216 samples"},
        {"max_steps: 0\n", "c.yaml:5: max_steps: 0 is out of range, expected -1 or more than 0"},
        {"adapter_name_or_path: a,b\n", "c.yaml:5: adapter_name_or_path: one adapter is continued; "
                                        "merging several is not supported"},
        {"adapter_name_or_path: [a, b]\n",
         "c.yaml:5: adapter_name_or_path: one adapter is continued; "
         "merging several is not supported"},
        {"disable_gradient_checkpointing: true\ngradient_checkpointing: true\n",
         "c.yaml:6: disable_gradient_checkpointing and gradient_checkpointing: true exclude each "
         "other"},
        {"lora_target: q_proj,qkv\n", "c.yaml:5: lora_target: 'qkv' is not all, q_proj, k_proj, "
                                      "v_proj, o_proj, gate_proj, up_proj or down_proj"},
        {"lora_target: q_proj,,v_proj\n", "c.yaml:5: lora_target: '' is not all, q_proj, k_proj, "
                                          "v_proj, o_proj, gate_proj, up_proj or down_proj"},
        {"lora_target: []\n", "c.yaml:5: lora_target: '' is not all, q_proj, k_proj, v_proj, "
                              "o_proj, gate_proj, up_proj or down_proj"},
    };
    for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++) {
        snprintf(text, sizeof text, "%s%s", data, CASES[i][0]);
        expect_refused(text, NULL, CASES[i][1]);
    }
    expect_refused("do_train: true\n", NULL,
                   "c.yaml: dataset: is missing (or give tokenized_path)");
    expect_refused("dataset: a\n", NULL, "c.yaml: template: is missing; expected qwen2_vl");
    expect_refused("val_size: 0.1\n", NULL, "c.yaml:3: val_size: needs dataset");
    expect_refused("eval_dataset: b\n", NULL, "c.yaml:3: eval_dataset: needs dataset");
    /* the later of two keys, and the command line where it has the last word */
    expect_refused("train_on_prompt: true\n\nmask_history: true\n", NULL,
                   "c.yaml:5: mask_history and train_on_prompt exclude each other");
    expect_refused("train_on_prompt: true\n", "mask_history=true",
                   "command line: mask_history and train_on_prompt exclude each other");
    expect_refused("max_steps: 5\n", "max_steps=0",
                   "command line: max_steps: 0 is out of range, expected -1 or more than 0");
    qvl_config_destroy(parsed("do_train: true\ntokenized_path: t.h5\n", NULL));
    qvl_config_destroy(
        parsed("per_device_train_batch_size: 4096\ngradient_accumulation_steps: 4096\n", NULL));
    qvl_config_destroy(
        parsed("template: qwen2_vl\ndataset: a\nval_size: 10\ndo_eval: true\n", NULL));
    expect_file_refused("output_dir: o\n", 14, "c.yaml: model_name_or_path: is missing");
    expect_file_refused("", 0, "c.yaml: model_name_or_path: is missing");
    expect_file_refused("model_name_or_path: ''\n", 23, "c.yaml:1: model_name_or_path: is missing");
    expect_file_refused("model_name_or_path: m\noutput_dir: ''\n", 37,
                        "c.yaml:2: output_dir: is missing");
}

/* transformers fails on arguments that a schedule does not take, and on lr_end from learning_rate
 * up. */
static void schedules_that_transformers_refuses(void **state)
{
    (void)state;
    static const char *const CASES[][3] = {
        {"linear", "num_cycles: 2", "num_cycles is no argument of linear, which takes none"},
        {"constant", "power: 2", "power is no argument of constant, which takes none"},
        {"constant_with_warmup", "lr_end: 0",
         "lr_end is no argument of constant_with_warmup, which takes none"},
        {"cosine", "lr_end: 0", "lr_end is no argument of cosine, which takes num_cycles"},
        {"cosine_with_restarts", "num_cycles: 2, power: 1",
         "power is no argument of cosine_with_restarts, which takes num_cycles"},
        {"polynomial", "num_cycles: 2, lr_end: 0",
         "num_cycles is no argument of polynomial, which takes lr_end and power"},
        {"polynomial", "lr_end: 5e-5",
         "lr_end is 5e-05, expected less than learning_rate, which is 5e-05"},
        {"polynomial", "lr_end: 1",
         "lr_end is 1.0, expected less than learning_rate, which is 5e-05"},
    };
    for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++) {
        char text[160], message[200];
        snprintf(text, sizeof text, "lr_scheduler_type: %s\nlr_scheduler_kwargs: {%s}\n",
                 CASES[i][0], CASES[i][1]);
        snprintf(message, sizeof message, "c.yaml:4: lr_scheduler_kwargs: %s", CASES[i][2]);
        expect_refused(text, NULL, message);
    }
    expect_refused("lr_scheduler_type: polynomial\nlearning_rate: 1e-8\n", NULL,
                   "c.yaml:4: lr_scheduler_kwargs: lr_end is 1e-07 unless it is given, expected "
                   "less than learning_rate, which is 1e-08");
    expect_refused("lr_scheduler_type: cosine\nlr_scheduler_kwargs: {num_cycles: 1}\n",
                   "lr_scheduler_type=linear",
                   "command line: lr_scheduler_kwargs: num_cycles is no argument of linear, which "
                   "takes none");
    qvl_config_destroy(parsed("lr_scheduler_type: polynomial\nlearning_rate: 1e-8\n"
                              "lr_scheduler_kwargs: {lr_end: 0, power: 3}\n",
                              NULL));
    qvl_config_destroy(
        parsed("lr_scheduler_type: cosine\nlr_scheduler_kwargs: {num_cycles: 1}\n", NULL));
}

/* All keys that are at fault are told, in one line, in the order of the file. */
static void faults_are_told_together(void **state)
{
    (void)state;
    expect_refused(
        "lora_rank: 0\nseed: 1\nlora_rnak: 8\nfp16: true\n", "bf16=3",
        "c.yaml:3: lora_rank: 0 is out of range, expected 1 to 1024; also c.yaml:5: "
        "unknown key 'lora_rnak'; did you mean 'lora_rank'?; also c.yaml:6: fp16: "
        "'true' is not supported, only false (float16 training is not done; bf16 has its "
        "range); also command line: bf16: '3' is not true or false");
    expect_refused(
        "zz1: 0\nzz2: 0\nzz3: 0\nzz4: 0\nzz5: 0\nzz6: 0\nzz7: 0\n", NULL,
        "c.yaml:3: unknown key 'zz1'; also c.yaml:4: unknown key 'zz2'; also c.yaml:5: "
        "unknown key 'zz3'; also c.yaml:6: unknown key 'zz4'; also c.yaml:7: unknown key "
        "'zz5'; and 2 more");
    /* what does not fit together is told when every key is one */
    expect_refused("val_size: 0.1\nlora_rank: x\n", NULL,
                   "c.yaml:4: lora_rank: 'x' is not a whole number");
    /* an override without a form is wrong usage, whatever else there is */
    qvl_config *config = NULL;
    qvl_err err = {0};
    assert_int_equal(parse_with(&config, "lora_rank: x\n", "lora_rank", &err), QVL_EUSAGE);
    assert_string_equal(err.text, "'lora_rank': an override has the form key=value");
}

/* A line of faults fits, however long their values are. */
static void long_faults_are_cut(void **state)
{
    (void)state;
    qvl_text text = {0};
    qvl_config *config = NULL;
    qvl_err err = {0};
    for (int i = 0; i < 6; i++)
        assert_int_equal(qvl_text_printf(&text, NULL, "x%d%0600d: 1\n", i, 0), QVL_OK);
    assert_int_equal(parse_with(&config, text.data, NULL, &err), QVL_ECONFIG);
    assert_non_null(strstr(err.text, "; also c.yaml:7: unknown key 'x4000"));
    assert_string_equal(err.text + strlen(err.text) - 12, "; and 1 more");
    qvl_text_fini(&text);
}

static void overrides_have_a_form(void **state)
{
    (void)state;
    static const char *const CASES[][2] = {
        {"lora_rank", "'lora_rank': an override has the form key=value"},
        {"=4", "'=4': an override has the form key=value"},
        {"seed=1\nbf16: true", "'seed=1?bf16: true': an override is one key=value"},
    };
    for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++) {
        qvl_config *config = NULL;
        qvl_err err = {0};
        assert_int_equal(parse_with(&config, "", CASES[i][0], &err), QVL_EUSAGE);
        assert_string_equal(err.text, CASES[i][1]);
    }
}

static void wrong_yaml(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        size_t n;
        const char *message;
    } CASES[] = {
        {"seed: 1\n\tbf16: true\n", 0, "c.yaml:2: "},
        {"seed:\n\t- 1\n", 0, "c.yaml:2: "},
        {"seed: 1\n  bf16: true\n", 0, "c.yaml:2: mapping values are not allowed in this context"},
        {"seed: [1, 2\nbf16: true\n", 0, "c.yaml:2: "},
        {"a: \"x\n", 0, "c.yaml:2: "},
        {"- seed\n", 0, "c.yaml:1: expected lines of \"key: value\""},
        {"seed\n", 0, "c.yaml:1: expected lines of \"key: value\""},
        {"seed: 1\n---\nseed: 2\n", 0, "c.yaml:2: a second document; one was expected"},
        {"seed: &x 1\ndata_seed: *x\n", 0, "c.yaml:2: aliases are not read; write the value out"},
        {"&a seed: 1\n*a : 2\n", 0, "c.yaml:2: a key must be a word"},
        {"? [a]\n: 1\n", 0, "c.yaml:1: a key must be a word"},
        {"seed: 1\nbf16: tr\0ue\n", 21, "c.yaml:2: control characters are not allowed"},
        {"seed: 1\nmedia_dir: \"a\\0b\"\n", 0, "c.yaml:2: a NUL character in a value"},
        {"seed: 1\n\"a\\0b\": 1\n", 0, "c.yaml:2: a NUL character in a value"},
        {"seed: 1\n\nmedia_dir: \xff\xfe\n", 0, "c.yaml:3: invalid leading UTF-8 octet"},
        {"seed: 1\nmedia_dir: caf\xe9\n", 0, "c.yaml:2: "},
        {"seed: 1\nmedia_dir: \x1b[1m\n", 0, "c.yaml:2: control characters are not allowed"},
    };
    for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++)
        expect_file_refused(CASES[i].text, CASES[i].n ? CASES[i].n : strlen(CASES[i].text),
                            CASES[i].message);
}

/* n times text after before. */
static char *repeated(const char *before, const char *text, size_t n)
{
    const size_t m = strlen(before), k = strlen(text);
    char *out = malloc(m + n * k + 1);
    assert_non_null(out);
    memcpy(out, before, m);
    for (size_t i = 0; i < n; i++)
        memcpy(out + m + i * k, text, k);
    out[m + n * k] = '\0';
    return out;
}

/* Files that ask for much time or memory; the test's time limit would notice. */
static void sizes_are_bounded(void **state)
{
    (void)state;
    static const struct {
        const char *before, *text;
        size_t n;
        const char *message;
    } CASES[] = {
        {"", "# 2 MiB of comments\n", 104858, "c.yaml: 2097160 bytes, a configuration has at most"},
        {"a: ", "[", 10000, "c.yaml:1: nested deeper than 16"},
        {"a: ", "{b: ", 10000, "c.yaml:1: nested deeper than 16"},
        {"", "- ", 100000, "c.yaml:1: expected lines of"},
        {"", "? ", 100000, "c.yaml:1: a key must be a word"},
        {"lr_scheduler_kwargs: [", "1, ", 300000, "c.yaml:2: "},
        {"media_dir: \"", "\\\n", 500000, "c.yaml:500001: "},
    };
    for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++) {
        char *text = repeated(CASES[i].before, CASES[i].text, CASES[i].n);
        expect_file_refused(text, strlen(text), CASES[i].message);
        free(text);
    }
    qvl_text keys = {0};
    for (int i = 0; i < 100000; i++)
        assert_int_equal(qvl_text_printf(&keys, NULL, "k%d:\n", i), QVL_OK);
    expect_file_refused(keys.data, keys.len, "c.yaml:4097: more than 4096 keys");
    qvl_text_fini(&keys);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(unknown_keys_name_the_nearest),
        cmocka_unit_test(extra_keys_pass_when_asked),
        cmocka_unit_test(keys_given_twice),
        cmocka_unit_test(wrong_types),
        cmocka_unit_test(values_out_of_range),
        cmocka_unit_test(what_is_not_done_is_said),
        cmocka_unit_test(keys_that_exclude_each_other),
        cmocka_unit_test(schedules_that_transformers_refuses),
        cmocka_unit_test(faults_are_told_together),
        cmocka_unit_test(long_faults_are_cut),
        cmocka_unit_test(overrides_have_a_form),
        cmocka_unit_test(wrong_yaml),
        cmocka_unit_test(sizes_are_bounded),
    };
    return cmocka_run_group_tests_name("config_errors", tests, NULL, NULL);
}
