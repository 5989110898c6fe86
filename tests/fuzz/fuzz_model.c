/* A model directory: config.json, preprocessor_config.json, the index of shards, and one shard. */
#include <stdlib.h>
#include <string.h>

#include "src/model/dims.h"
#include "src/model/weight_files.h"
#include "tests/fuzz/fuzz.h"

static void read_dims(const char *directory)
{
    qvl_model_dims dims;
    qvl_err err = {0};
    const qvl_status rc = qvl_model_dims_read(&dims, directory, &err);
    fuzz_expect(rc, &err);
    if (rc != QVL_OK)
        return;
    FUZZ_CHECK(dims.text.L >= 1 && dims.text.L <= QVL_MAX_LAYERS);
    FUZZ_CHECK(dims.text.D == dims.text.H * dims.text.Dh && dims.vision.window_units >= 1);
    FUZZ_CHECK(dims.min_pixels >= 1 && dims.min_pixels <= dims.max_pixels);
    FUZZ_CHECK(qvl_model_parameters(&dims) > 0 && qvl_vision_parameters(&dims) > 0);
}

static void read_weights(const char *directory)
{
    qvl_weight_files *files = NULL;
    qvl_err err = {0};
    const qvl_status rc = qvl_weight_files_open(&files, directory, &err);
    fuzz_expect(rc, &err);
    for (size_t i = 0; rc == QVL_OK && i < qvl_weight_files_count(files); i++) {
        const qvl_safetensors *file = NULL;
        const char *name = qvl_weight_files_name(files, i);
        FUZZ_CHECK(qvl_weight_files_find(files, name, &file) ==
                   qvl_weight_files_at(files, i, NULL));
    }
    qvl_weight_files_close(files);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char *const NAMES[] = {"config.json", "preprocessor_config.json",
                                        "model.safetensors.index.json", "a.safetensors"};
    const uint8_t *parts[4];
    size_t sizes[4];
    fuzz_split(parts, sizes, 4, data, size);
    for (int i = 0; i < 4; i++)
        fuzz_file(NAMES[i], parts[i], sizes[i]);
    read_dims(fuzz_directory());
    read_weights(fuzz_directory());
    return 0;
}
