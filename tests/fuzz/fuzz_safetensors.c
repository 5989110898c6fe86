/* A safetensors file; of one that is accepted every byte can be read. */
#include <stdlib.h>
#include <string.h>

#include "io/safetensors.h"
#include "tests/fuzz/fuzz.h"

static void read_everything(const qvl_safetensors *file, size_t n_bytes)
{
    uint64_t total = 0;
    unsigned sum = 0;
    for (size_t i = 0; i < qvl_safetensors_count(file); i++) {
        const qvl_tensor *tensor = qvl_safetensors_at(file, i);
        const int64_t elements = qvl_tensor_elements(tensor);
        for (uint64_t k = 0; k < tensor->n_bytes; k++)
            sum += ((const unsigned char *)tensor->data)[k];
        total += tensor->n_bytes;
        FUZZ_CHECK(qvl_safetensors_find(file, tensor->name) == tensor && elements >= 0);
        FUZZ_CHECK((uint64_t)elements * qvl_tensor_type_bits(tensor->type) == tensor->n_bytes * 8);
        qvl_safetensors_release(file, tensor->data, tensor->n_bytes);
    }
    FUZZ_CHECK(total < n_bytes && sum <= 255u * n_bytes);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    qvl_safetensors *file = NULL;
    qvl_err err = {0};
    const qvl_status rc = qvl_safetensors_open(&file, fuzz_file("x.safetensors", data, size), &err);
    fuzz_expect(rc, &err);
    if (rc == QVL_OK)
        read_everything(file, size);
    qvl_safetensors_close(file);
    return 0;
}
