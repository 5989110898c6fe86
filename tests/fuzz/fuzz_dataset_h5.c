/* A pre-tokenized file whose structure the input decides: types, shapes, values, layouts, links. */
#include "tests/fuzz/h5_file.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    fuzz_stream in = {.data = data, .n = size};
    h5_layout layout = h5_good_dataset();
    h5_read_dataset(h5_write("data.h5", &layout, &in));
    return 0;
}
