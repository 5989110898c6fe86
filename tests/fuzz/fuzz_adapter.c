/* A PEFT adapter: its configuration and its tensors, read as an adapter and into the buffer of a
 * small model's. */
#include <stdlib.h>
#include <string.h>

#include "io/adapter.h"
#include "src/model/lora_files.h"
#include "tests/fuzz/fuzz.h"
#include "tests/fuzz/small_model.h"

static void list(const char *directory)
{
    qvl_adapter_files *files = NULL;
    qvl_adapter_config config;
    qvl_err err = {0};
    const qvl_status rc = qvl_adapter_open(&files, &config, directory, &err);
    fuzz_expect(rc, &err);
    for (size_t i = 0; rc == QVL_OK && i < qvl_adapter_count(files); i++) {
        const char *module = NULL;
        bool is_b = false;
        FUZZ_CHECK(qvl_adapter_at(files, i, &module, &is_b) != NULL && module[0]);
    }
    qvl_adapter_close(files);
}

static void load(const char *directory, const qvl_lora_options *options)
{
    const qvl_model_dims dims = small_model();
    qvl_lora *lora = NULL;
    qvl_err err = {0};
    FUZZ_CHECK(options->rank >= 1 && options->rank <= 1024 && options->alpha > 0);
    const qvl_status rc = qvl_lora_create(&lora, &dims, options, &err);
    fuzz_expect(rc, &err);
    if (rc == QVL_OK) {
        float *host = calloc((size_t)qvl_lora_parameters(lora) + 1, sizeof *host);
        FUZZ_CHECK(host != NULL);
        fuzz_expect(qvl_lora_load(lora, host, directory, &err), &err);
        free(host);
    }
    qvl_lora_destroy(lora);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const uint8_t *parts[2];
    size_t sizes[2];
    qvl_lora_options options = {0};
    qvl_err err = {0};
    fuzz_split(parts, sizes, 2, data, size);
    fuzz_file("adapter_config.json", parts[0], sizes[0]);
    fuzz_file("adapter_model.safetensors", parts[1], sizes[1]);
    list(fuzz_directory());
    const qvl_status rc = qvl_lora_read_options(&options, fuzz_directory(), &err);
    fuzz_expect(rc, &err);
    if (rc == QVL_OK)
        load(fuzz_directory(), &options);
    return 0;
}
