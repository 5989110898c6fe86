/* target_modules of an adapter against its tensors. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "scratch_files.h"
#include "src/model/lora_files.h"

#include "adapter_config.h"

#define PEFT_FINAL QVL_TEST_FIXTURES "/tiny/adapter_final"

static char directory[QVL_PATH_BYTES];

/* PEFT would build the modules of target_modules, not those of the tensors. PEFT's adapter has
 * tensors for q, k, v, o, gate, up and down of "model.language_model.layers.0" and on. */
static void targets_and_tensors_are_compared(void **state)
{
#define SEVEN "q_proj|k_proj|v_proj|o_proj|gate_proj|up_proj|down_proj"
    static const struct {
        const char *targets, *excluded, *message; /* NULL: nothing is wrong */
    } CASES[] = {
        {"[\"q_proj\"]", "null", "leaves out layers.0.self_attn.k_proj, which has tensors in"},
        {"[]", "null", "leaves out layers.0.self_attn.q_proj"},
        {"[\"proj\", \"layers.0.mlp\"]", "null", "leaves out layers.0.self_attn.q_proj"},
        {"\"all-linear\"", "null", NULL},
        {"\"all-linear\"", "[\"v_proj\"]", "leaves out layers.0.self_attn.v_proj"},
        {"\"all-linear\"", "\".*visual.*\"", NULL},
        {"\"^(?!.*visual).*(?:" SEVEN ").*\"", "null", NULL}, /* LLaMA-Factory's */
        {"\".*\\\\.(" SEVEN ")\"", "null", NULL},
        {"\".*\\\\.(q_proj|k_proj)\"", "null", "leaves out layers.0.self_attn.v_proj"},
        {"\"q_proj\"", "null", "leaves out layers.0.self_attn.q_proj"}, /* not the whole name */
        {"\"(unbalanced\"", "null", NULL},                              /* left to PEFT */
        {"null", "null", NULL},
        {"3", "null", "target_modules is neither a list nor a text"},
        {"[\"q_proj\", 3]", "null", "target_modules: entry 1 is not a text"},
    };
    qvl_lora_options options;
    (void)state;
    for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++) {
        qvl_err err = {0};
        scratch_directory(directory, "targets");
        copy_directory(directory, PEFT_FINAL);
        set_adapter_member(directory, "target_modules", CASES[i].targets);
        set_adapter_member(directory, "exclude_modules", CASES[i].excluded);
        const qvl_status rc = qvl_lora_read_options(&options, directory, &err);
        if (CASES[i].message)
            expect_failure(rc, QVL_EDATA, &err, CASES[i].message);
        else
            expect_ok(rc, &err);
    }
}

/* The reverse: a module that PEFT would build has no tensors. */
static void targets_without_tensors_are_refused(void **state)
{
    static const char *const TARGETS[] = {"[\"q_proj\", \"up_proj\"]", "\".*(q|up)_proj\""};
    qvl_lora_options options;
    qvl_safetensors *file = NULL;
    qvl_tensor kept[64];
    size_t n_kept = 0;
    char path[QVL_PATH_BYTES];
    (void)state;
    scratch_directory(directory, "reverse");
    copy_directory(directory, PEFT_FINAL);
    assert_int_equal(qvl_safetensors_open(&file, PEFT_FINAL "/adapter_model.safetensors", NULL),
                     QVL_OK);
    for (size_t i = 0; i < qvl_safetensors_count(file); i++)
        if (strstr(qvl_safetensors_at(file, i)->name, "q_proj") && n_kept < 64)
            kept[n_kept++] = *qvl_safetensors_at(file, i);
    assert_int_equal(qvl_path_join(path, directory, "adapter_model.safetensors", NULL), QVL_OK);
    assert_int_equal(qvl_safetensors_write(path, kept, n_kept, NULL), QVL_OK);
    qvl_safetensors_close(file);
    for (size_t i = 0; i < 2; i++) {
        qvl_err err = {0};
        set_adapter_member(directory, "target_modules", TARGETS[i]);
        expect_failure(qvl_lora_read_options(&options, directory, &err), QVL_EDATA, &err,
                       "adapter_config.json: target_modules takes layers.0.mlp.up_proj, which has "
                       "no tensors in adapter_model.safetensors");
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(targets_and_tensors_are_compared),
        cmocka_unit_test(targets_without_tensors_are_refused),
    };
    return cmocka_run_group_tests(tests, scratch_make, scratch_remove);
}
