/* An image file, of the format that FUZZ_FORMAT names: header, decoding, all resizes, patches.
 * Images over MOST_PIXELS are looked at no further than their header, as they are only slow. */
#include <stdlib.h>
#include <string.h>

#include "io/image_pipeline.h"
#include "tests/fuzz/fuzz.h"

enum { MOST_PIXELS = 1 << 20 };

static void cut_into_patches(const qvl_prepared_image *image, const qvl_image_limits *limits)
{
    const size_t n = (size_t)image->grid_thw[1] * (size_t)image->grid_thw[2] * 1176;
    float *patches = malloc(n * sizeof *patches);
    qvl_err err = {0};
    FUZZ_CHECK(patches != NULL);
    FUZZ_CHECK(image->grid_thw[0] == 1 && image->size.height == 14 * image->grid_thw[1] &&
               image->size.width == 14 * image->grid_thw[2]);
    FUZZ_CHECK(qvl_image_patchify(patches, image, limits, &qvl_image_norm_default, &err) == QVL_OK);
    free(patches);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    qvl_image_limits limits = qvl_image_limits_default;
    qvl_image_info info;
    qvl_prepared_image prepared = {0};
    qvl_err err = {0};
    qvl_status rc = qvl_image_probe_memory(&info, data, size, "image", &err);
    fuzz_expect(rc, &err);
    if (rc != QVL_OK)
        return 0;
    FUZZ_CHECK(info.width > 0 && info.height > 0 &&
               (int64_t)info.width * info.height <= QVL_IMAGE_MAX_PIXELS);
    if (info.format != FUZZ_FORMAT || (int64_t)info.width * info.height > MOST_PIXELS)
        return -1; /* not one for the corpus */
    limits.image_max_pixels = 4096;
    rc = qvl_image_prepare_memory(&prepared, data, size, "image", &limits, &err);
    fuzz_expect(rc, &err);
    FUZZ_CHECK((rc == QVL_OK) == (prepared.rgb != NULL));
    if (rc == QVL_OK)
        cut_into_patches(&prepared, &limits);
    qvl_prepared_image_fini(&prepared);
    return 0;
}
