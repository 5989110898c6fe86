#include "src/model/mrope.h"

#include <inttypes.h>
#include <math.h>

/* A run of text: the same count on all three axes. */
static void put_text(int32_t *out, int64_t stride, int64_t at, int64_t n, int64_t base)
{
    for (int64_t i = 0; i < n; i++)
        for (int a = 0; a < 3; a++)
            out[a * stride + at + i] = (int32_t)(base + i);
}

qvl_status qvl_mrope_positions(int32_t *out, int64_t stride, int64_t *out_delta, const int32_t *ids,
                               int64_t n, const int32_t *grids, int64_t n_images,
                               const qvl_model_dims *dims, qvl_err *err)
{
    int64_t at = 0, next = 0; /* token; position that follows what is done */
    for (int64_t image = 0; image < n_images; image++) {
        const int64_t frames = grids[3 * image], rows = grids[3 * image + 1] / 2,
                      cols = grids[3 * image + 2] / 2;
        int64_t start = at;
        while (start < n && ids[start] != dims->image_token)
            start++;
        put_text(out, stride, at, start - at, next);
        next += start - at;
        at = start;
        if (at + frames * rows * cols > n)
            return qvl_fail(err, QVL_EDATA,
                            "image %" PRId64 " has %" PRId64 " tokens, only %" PRId64 " follow",
                            image, frames * rows * cols, n - at);
        for (int64_t f = 0; f < frames; f++)
            for (int64_t r = 0; r < rows; r++)
                for (int64_t c = 0; c < cols; c++, at++) {
                    if (ids[at] != dims->image_token)
                        return qvl_fail(err, QVL_EDATA,
                                        "token %" PRId64 " is %d inside image %" PRId64, at,
                                        ids[at], image);
                    out[at] = (int32_t)next; /* still images: every frame has the first one's */
                    out[stride + at] = (int32_t)(next + r);
                    out[2 * stride + at] = (int32_t)(next + c);
                }
        next += rows > cols ? rows : cols;
    }
    for (int64_t i = at; i < n; i++)
        if (ids[i] == dims->image_token)
            return qvl_fail(err, QVL_EDATA,
                            "token %" PRId64 " is an image token beyond the %" PRId64 " images", i,
                            n_images);
    put_text(out, stride, at, n - at, next);
    next += n - at;
    if (out_delta)
        *out_delta = next - n;
    return QVL_OK;
}

void qvl_mrope_frequencies(float *inv_freq, int32_t *axis, const qvl_text_dims *dims)
{
    const int64_t pairs = dims->Dh / 2;
    for (int64_t i = 0; i < pairs; i++) {
        const float exponent = (float)(2 * i) / (float)dims->Dh;
        inv_freq[i] = 1.0f / (float)pow(dims->rope_theta, exponent); /* rounded before dividing */
        axis[i] = i < dims->mrope_section[0]                            ? 0
                  : i < dims->mrope_section[0] + dims->mrope_section[1] ? 1
                                                                        : 2;
    }
}
