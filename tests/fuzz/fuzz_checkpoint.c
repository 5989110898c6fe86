/* A checkpoint: its optimizer.h5 (by structure), its trainer_state.json, and its manifest, which is
 * right for the other files or the input's own. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "io/manifest.h"
#include "src/base/sha256.h"
#include "src/model/lora_files.h"
#include "src/train/checkpoint.h"
#include "tests/fuzz/h5_file.h"
#include "tests/fuzz/small_model.h"

static const char IDENTITY[] = "model=ab; lora_rank=2; data=cd";
static const char *const NAMES[] = {"adapter_config.json", "adapter_model.safetensors",
                                    "optimizer.h5", "trainer_state.json"};

/* The adapter files of the small model, made once. */
static qvl_lora *the_adapter(void)
{
    static qvl_lora *lora;
    const qvl_model_dims dims = small_model();
    const qvl_lora_options options = small_adapter();
    char directory[QVL_PATH_BYTES], path[QVL_PATH_BYTES];
    qvl_err err = {0};
    if (lora)
        return lora;
    FUZZ_CHECK(qvl_lora_create(&lora, &dims, &options, &err) == QVL_OK);
    float *host = calloc((size_t)qvl_lora_parameters(lora), sizeof *host);
    FUZZ_CHECK(host && qvl_path_join(directory, fuzz_directory(), "made", &err) == QVL_OK);
    FUZZ_CHECK(qvl_directory_create(directory, &err) == QVL_OK);
    FUZZ_CHECK(qvl_lora_save(lora, host, directory, QVL_LAYOUT_HF_4_52, "m", &err) == QVL_OK);
    for (int i = 0; i < 2; i++) {
        qvl_text content = {0};
        FUZZ_CHECK(qvl_path_join(path, directory, NAMES[i], &err) == QVL_OK);
        FUZZ_CHECK(qvl_file_read(&content, path, 1 << 20, &err) == QVL_OK);
        fuzz_file(NAMES[i], content.data, content.len);
        qvl_text_fini(&content);
    }
    free(host);
    return lora;
}

static h5_layout good_optimizer(int64_t parameters)
{
    const hsize_t n = (hsize_t)parameters;
    h5_layout f = {.attributes = {{"format", "qvl-optimizer", 0},
                                  {"version", NULL, 1},
                                  {"step", NULL, 7},
                                  {"parameters", NULL, parameters},
                                  {"loss_steps", NULL, 2},
                                  {"total_tokens", NULL, 1000},
                                  {"identity", NULL, 0},
                                  {"order", "o", 0}},
                   .n_attributes = 8,
                   .n_members = 3};
    f.attributes[6].text = IDENTITY;
    f.members[0] = (h5_member){"sums", H5T_IEEE_F64LE, 1, {3}, {1, 2, 3}};
    f.members[1] = (h5_member){"exp_avg", H5T_IEEE_F32LE, 1, {n}, {1}};
    f.members[2] = (h5_member){"exp_avg_sq", H5T_IEEE_F32LE, 1, {n}, {1}};
    return f;
}

/* manifest.json with the sizes and digests that the files have. */
static void write_manifest(void)
{
    qvl_text text = {0}, content = {0};
    char path[QVL_PATH_BYTES], digest[QVL_SHA256_TEXT_BYTES];
    FUZZ_CHECK(qvl_text_puts(&text,
                             "{\"format\": \"qvl-checkpoint\", \"version\": 1, \"step\": 7, "
                             "\"files\": {",
                             NULL) == QVL_OK);
    for (int i = 0; i < 4; i++) {
        FUZZ_CHECK(qvl_path_join(path, fuzz_directory(), NAMES[i], NULL) == QVL_OK);
        FUZZ_CHECK(qvl_file_read(&content, path, 1 << 24, NULL) == QVL_OK);
        FUZZ_CHECK(qvl_sha256_bytes(digest, content.data, content.len, NULL) == QVL_OK);
        FUZZ_CHECK(qvl_text_printf(&text, NULL, "%s\"%s\": {\"size\": %zu, \"sha256\": \"%s\"}",
                                   i ? ", " : "", NAMES[i], content.len, digest) == QVL_OK);
    }
    FUZZ_CHECK(qvl_text_puts(&text, "}}", NULL) == QVL_OK);
    fuzz_file("manifest.json", text.data, text.len);
    qvl_text_fini(&text);
    qvl_text_fini(&content);
}

static void load(const qvl_lora *lora)
{
    const size_t n = (size_t)qvl_lora_parameters(lora);
    char output_dir[QVL_PATH_BYTES];
    qvl_run_log *run = NULL;
    qvl_err err = {0};
    qvl_text other_order = {0};
    qvl_train_state state = {.param = calloc(n, sizeof(float)),
                             .exp_avg = calloc(n, sizeof(float)),
                             .exp_avg_sq = calloc(n, sizeof(float))};
    FUZZ_CHECK(state.param && state.exp_avg && state.exp_avg_sq);
    memcpy(state.identity, IDENTITY, sizeof IDENTITY);
    snprintf(state.order, sizeof state.order, "o");
    FUZZ_CHECK(qvl_path_join(output_dir, fuzz_directory(), "nowhere", NULL) == QVL_OK);
    FUZZ_CHECK(qvl_run_log_create(&run, output_dir, NULL, 10, NULL) == QVL_OK);
    const qvl_status rc =
        qvl_checkpoint_load(fuzz_directory(), &state, lora, run, &other_order, &err);
    fuzz_expect(rc, &err);
    if (rc == QVL_OK)
        FUZZ_CHECK(state.step >= 0 && state.loss_steps >= 0);
    qvl_text_fini(&other_order);
    qvl_run_log_destroy(run);
    free(state.param);
    free(state.exp_avg);
    free(state.exp_avg_sq);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const qvl_lora *lora = the_adapter();
    h5_layout layout = good_optimizer(qvl_lora_parameters(lora));
    const uint8_t *parts[3];
    size_t sizes[3];
    fuzz_split(parts, sizes, 3, data, size);
    fuzz_stream in = {.data = parts[0], .n = sizes[0]};
    h5_write("optimizer.h5", &layout, &in);
    fuzz_file("trainer_state.json", parts[1], sizes[1]);
    if (sizes[2])
        fuzz_file("manifest.json", parts[2], sizes[2]);
    else
        write_manifest();
    load(lora);
    return 0;
}
