/* data_check TOKENIZER_JSON ENCODINGS_JSONL IMAGES_H5 IMAGE_DIR: tokenizer and images beside what
 * Hugging Face and Pillow gave for them.
 *
 * A line of ENCODINGS_JSONL is {"text": ..., "ids": [...]}. A group of IMAGES_H5 has rgb
 * [h, w, 3], resized [h', w', 3] and, mostly, pixel_values [patches, 1176] float32: the processor's
 * resize of rgb must give resized byte for byte, patches of that must be within 1e-6 of
 * pixel_values, and a group named like a file of IMAGE_DIR must decode to rgb.
 */
#include <fcntl.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "io/hdf5_tools.h"
#include "io/image_pipeline.h"
#include "io/json_file.h"
#include "io/record_file.h"
#include "io/tokenizer.h"
#include "src/base/files.h"
#include "src/base/memory.h"

static bool same_ids(const json_t *want, const qvl_ids *got)
{
    if (!json_is_array(want) || json_array_size(want) != got->len)
        return false;
    for (size_t i = 0; i < got->len; i++)
        if (json_integer_value(json_array_get(want, i)) != got->data[i])
            return false;
    return true;
}

/* Counts the lines whose ids differ, and names the first few. */
static qvl_status check_lines(int64_t *out_wrong, qvl_token_encoder *encoder,
                              const qvl_record_list *list, const char *path, qvl_err *err)
{
    qvl_text scratch = {0};
    qvl_ids ids = {0};
    json_t *record = NULL;
    qvl_status rc = QVL_OK;
    const int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return qvl_fail(err, QVL_EMISSING, "%s: cannot open it", path);
    for (size_t i = 0; i < list->count; i++) {
        QVL_TRY(qvl_record_read(&record, fd, path, &list->spans[i], &scratch, err));
        const json_t *text = json_object_get(record, "text");
        qvl_ids_clear(&ids);
        if (!json_is_string(text)) {
            rc = qvl_fail(err, QVL_EDATA, "%s:%" PRId64 ": no text", path, list->spans[i].line);
            goto out;
        }
        QVL_TRY(qvl_tokenizer_encode(encoder, json_string_value(text), json_string_length(text),
                                     false, &ids, err));
        if (!same_ids(json_object_get(record, "ids"), &ids) && ++*out_wrong <= 5)
            printf("       %s:%" PRId64 " has other ids\n", path, list->spans[i].line);
        json_decref(record);
        record = NULL;
    }
out:
    json_decref(record);
    qvl_ids_fini(&ids);
    qvl_text_fini(&scratch);
    close(fd);
    return rc;
}

static qvl_status check_tokenizer(int *failed, const char *tokenizer_path, const char *path,
                                  qvl_err *err)
{
    qvl_tokenizer *tokenizer = NULL;
    qvl_token_encoder *encoder = NULL;
    qvl_record_list list = {0};
    int64_t wrong = 0;
    qvl_status rc = QVL_OK;
    QVL_TRY(qvl_tokenizer_load(&tokenizer, tokenizer_path, err));
    QVL_TRY(qvl_token_encoder_create(&encoder, tokenizer, err));
    QVL_TRY(qvl_record_list_scan(&list, path, err));
    QVL_TRY(check_lines(&wrong, encoder, &list, path, err));
    printf("%s tokenizer: %zu texts, %" PRId64 " differ\n",
           wrong == 0 && list.count > 0 ? "ok    " : "FAILED", list.count, wrong);
    *failed += wrong != 0 || list.count == 0;
out:
    qvl_record_list_fini(&list);
    qvl_token_encoder_destroy(encoder);
    qvl_tokenizer_destroy(tokenizer);
    return rc;
}

/* A byte image of a group; *out is the caller's. */
static qvl_status read_pixels(uint8_t **out, qvl_image_size *size, hid_t group, const char *name,
                              const char *path, qvl_err *err)
{
    hsize_t dims[3];
    hid_t dataset = H5I_INVALID_HID;
    qvl_status rc = qvl_h5_open_integers(&dataset, dims, 3, group, name, path, err);
    if (rc != QVL_OK)
        return rc;
    H5Dclose(dataset);
    *size = (qvl_image_size){.width = (int32_t)dims[1], .height = (int32_t)dims[0]};
    rc = qvl_alloc(out, dims[0] * dims[1], 3, name, err);
    if (rc == QVL_OK)
        rc = qvl_h5_read_array(group, name, H5T_NATIVE_UINT8, *out,
                               (int64_t)(dims[0] * dims[1] * 3), path, err);
    return rc;
}

static qvl_status check_patches(bool *is_good, hid_t group, const qvl_prepared_image *image,
                                const char *path, qvl_err *err)
{
    const int64_t n = (int64_t)image->grid_thw[1] * image->grid_thw[2] * 1176;
    float *want = NULL, *got = NULL;
    qvl_status rc = QVL_OK;
    QVL_TRY(qvl_alloc(&want, (size_t)n, sizeof *want, "pixel_values", err));
    QVL_TRY(qvl_alloc(&got, (size_t)n, sizeof *got, "pixel_values", err));
    QVL_TRY(qvl_h5_read_array(group, "pixel_values", H5T_NATIVE_FLOAT, want, n, path, err));
    QVL_TRY(
        qvl_image_patchify(got, image, &qvl_image_limits_default, &qvl_image_norm_default, err));
    for (int64_t i = 0; i < n; i++)
        *is_good = *is_good && fabsf(want[i] - got[i]) <= 1e-6f;
out:
    free(want);
    free(got);
    return rc;
}

static qvl_status check_file(bool *is_good, const char *dir, const char *name, const uint8_t *rgb,
                             qvl_image_size size, qvl_err *err)
{
    char path[QVL_PATH_BYTES];
    qvl_image image = {0};
    qvl_status rc = QVL_OK;
    QVL_TRY(qvl_path_join(path, dir, name, err));
    if (!strchr(name, '.'))
        return QVL_OK;
    QVL_TRY(qvl_image_load(&image, path, err));
    *is_good = image.mode == QVL_MODE_RGB && image.width == size.width &&
               image.height == size.height &&
               memcmp(image.pixels, rgb, (size_t)size.width * (size_t)size.height * 3) == 0;
out:
    qvl_image_fini(&image);
    return rc;
}

static qvl_status check_image(int *failed, hid_t file, const char *name, const char *dir,
                              const char *path, qvl_err *err)
{
    const qvl_image_limits *limits = &qvl_image_limits_default;
    uint8_t *rgb = NULL, *want = NULL;
    qvl_image_size rgb_size, want_size, size;
    qvl_prepared_image got = {0};
    bool decodes = true, resizes = false, cuts = true;
    qvl_status rc = QVL_OK;
    const hid_t group = H5Gopen2(file, name, H5P_DEFAULT);
    if (group < 0)
        return qvl_h5_fail(err, QVL_EDATA, "%s: group %s", path, name);
    QVL_TRY(read_pixels(&rgb, &rgb_size, group, "rgb", path, err));
    QVL_TRY(read_pixels(&want, &want_size, group, "resized", path, err));
    QVL_TRY(check_file(&decodes, dir, name, rgb, rgb_size, err));
    QVL_TRY(qvl_smart_resize(&size, rgb_size, limits, name, err));
    resizes = size.width == want_size.width && size.height == want_size.height;
    if (resizes) {
        const size_t n = (size_t)size.width * (size_t)size.height * 3;
        got.size = size;
        got.grid_thw[0] = 1;
        got.grid_thw[1] = size.height / limits->patch_px;
        got.grid_thw[2] = size.width / limits->patch_px;
        QVL_TRY(qvl_alloc(&got.rgb, n, 1, "pixels", err));
        QVL_TRY(qvl_resize_bicubic(got.rgb, size, rgb, rgb_size, 3, limits->pillow, err));
        resizes = memcmp(got.rgb, want, n) == 0;
        if (H5Lexists(group, "pixel_values", H5P_DEFAULT) > 0)
            QVL_TRY(check_patches(&cuts, group, &got, path, err));
    }
    printf("%s image %s: decoding %s, resize %s, pixel_values %s\n",
           decodes && resizes && cuts ? "ok    " : "FAILED", name, decodes ? "same" : "differs",
           resizes ? "same" : "differs", cuts ? "same" : "differ");
    *failed += !(decodes && resizes && cuts);
out:
    qvl_prepared_image_fini(&got);
    free(rgb);
    free(want);
    H5Gclose(group);
    return rc;
}

static qvl_status check_images(int *failed, const char *path, const char *dir, qvl_err *err)
{
    H5G_info_t info;
    qvl_status rc = QVL_OK;
    qvl_h5_quiet();
    const hid_t file = H5Fopen(path, H5F_ACC_RDONLY, H5P_DEFAULT);
    if (file < 0 || H5Gget_info(file, &info) < 0)
        return qvl_h5_fail(err, QVL_EMISSING, "%s", path);
    for (hsize_t i = 0; i < info.nlinks && rc == QVL_OK; i++) {
        char name[256] = "";
        H5Lget_name_by_idx(file, ".", H5_INDEX_NAME, H5_ITER_INC, i, name, sizeof name,
                           H5P_DEFAULT);
        rc = check_image(failed, file, name, dir, path, err);
    }
    H5Fclose(file);
    return rc;
}

int main(int argc, char **argv)
{
    qvl_err err = {QVL_OK, ""};
    int failed = 0;
    if (argc != 5) {
        fprintf(stderr, "usage: data_check TOKENIZER_JSON ENCODINGS_JSONL IMAGES_H5 IMAGE_DIR\n");
        return QVL_EUSAGE;
    }
    qvl_status rc = check_tokenizer(&failed, argv[1], argv[2], &err);
    if (rc == QVL_OK)
        rc = check_images(&failed, argv[3], argv[4], &err);
    if (rc != QVL_OK)
        fprintf(stderr, "data_check: %s\n", err.text);
    return rc != QVL_OK ? (int)rc : failed != 0;
}
