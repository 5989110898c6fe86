/* A pre-tokenized file by its bytes. What is found here is nearly always libhdf5's; run_raw_h5.sh
 * tells the two apart. */
#include "tests/fuzz/h5_file.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    h5_read_dataset(fuzz_file("data.h5", data, size));
    return 0;
}
