#include "src/model/preprocessor.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "io/json_file.h"
#include "src/base/files.h"

enum { CONFIG_LIMIT = 4 << 20 };

static qvl_status read_triple(double out[3], const json_t *object, const char *key, double least,
                              double most, const char *path, qvl_err *err)
{
    const json_t *list = json_object_get(object, key);
    if (!list || json_is_null(list))
        return QVL_OK;
    for (size_t i = 0; i < 3; i++) {
        const json_t *value = json_array_get(list, i);
        if (json_array_size(list) != 3 || !json_is_number(value))
            return qvl_fail(err, QVL_EDATA, "%s: %s is not a list of three numbers", path, key);
        out[i] = json_number_value(value);
        if (!(out[i] >= least && out[i] <= most))
            return qvl_fail(err, QVL_EDATA, "%s: %s[%zu] is %g, expected %g to %g", path, key, i,
                            out[i], least, most);
    }
    return QVL_OK;
}

/* What another value of would give other pixels or patches than are computed here. A member that is
 * null or missing is the class' own. */
static qvl_status check_fixed(const json_t *root, const char *path, qvl_err *err)
{
    static const struct {
        const char *key;
        int64_t expected;
        const char *meaning;
    } NUMBERS[] = {{"patch_size", 14, ""},
                   {"temporal_patch_size", 2, ""},
                   {"merge_size", 2, ""},
                   {"resample", 3, " (bicubic)"}};
    static const char *const SWITCHES[] = {"do_resize", "do_rescale", "do_normalize",
                                           "do_convert_rgb"};
    double factor = 1.0 / 255.0;
    qvl_status rc = QVL_OK;
    for (size_t i = 0; i < sizeof NUMBERS / sizeof *NUMBERS; i++) {
        int64_t value = NUMBERS[i].expected;
        QVL_TRY(qvl_json_get_i64(&value, root, NUMBERS[i].key, INT64_MIN, INT64_MAX, path, err));
        if (value != NUMBERS[i].expected)
            return qvl_fail(err, QVL_EDATA, "%s: %s is %" PRId64 ", expected %" PRId64 "%s", path,
                            NUMBERS[i].key, value, NUMBERS[i].expected, NUMBERS[i].meaning);
    }
    for (size_t i = 0; i < sizeof SWITCHES / sizeof *SWITCHES; i++) {
        bool is_on = true;
        QVL_TRY(qvl_json_get_bool(&is_on, root, SWITCHES[i], path, err));
        if (!is_on)
            return qvl_fail(err, QVL_EDATA, "%s: %s is false, expected true", path, SWITCHES[i]);
    }
    QVL_TRY(qvl_json_get_double(&factor, root, "rescale_factor", path, err));
    if (!(fabs(factor * 255.0 - 1.0) < 1e-4)) /* it may be written with few digits */
        return qvl_fail(err, QVL_EDATA, "%s: rescale_factor is %g, expected 1/255", path, factor);
out:
    return rc;
}

/* min/max pixels are members of their own, or shortest_edge/longest_edge of size (REFERENCE 1.5).
 */
static qvl_status read_fields(qvl_model_dims *dims, const json_t *root, const char *path,
                              qvl_err *err)
{
    const json_t *size = json_object_get(root, "size");
    qvl_status rc = check_fixed(root, path, err);
    QVL_TRY(rc);
    QVL_TRY(read_triple(dims->image_mean, root, "image_mean", -1e3, 1e3, path, err));
    QVL_TRY(read_triple(dims->image_std, root, "image_std", 1e-3, 1e3, path, err));
    QVL_TRY(qvl_json_get_i64(&dims->min_pixels, size, "shortest_edge", 1, 1 << 30, path, err));
    QVL_TRY(qvl_json_get_i64(&dims->max_pixels, size, "longest_edge", 1, 1 << 30, path, err));
    QVL_TRY(qvl_json_get_i64(&dims->min_pixels, root, "min_pixels", 1, 1 << 30, path, err));
    QVL_TRY(qvl_json_get_i64(&dims->max_pixels, root, "max_pixels", 1, 1 << 30, path, err));
    if (dims->min_pixels > dims->max_pixels)
        rc = qvl_fail(err, QVL_EDATA,
                      "%s: min_pixels is above max_pixels (%" PRId64 " and %" PRId64 ")", path,
                      dims->min_pixels, dims->max_pixels);
out:
    return rc;
}

/* *out: the members, borrowed from *root; NULL where the file or the member is not there. */
static qvl_status open_settings(json_t **root, const json_t **out, const char *directory,
                                const char *file, const char *member, char path[QVL_PATH_BYTES],
                                qvl_err *err)
{
    *out = NULL;
    qvl_status rc = qvl_path_join(path, directory, file, err);
    if (rc != QVL_OK || !qvl_file_exists(path))
        return rc;
    rc = qvl_json_read(root, path, CONFIG_LIMIT, err);
    if (rc == QVL_OK)
        *out = member ? json_object_get(*root, member) : *root;
    if (!json_is_object(*out))
        *out = NULL;
    return rc;
}

qvl_status qvl_preprocessor_read(qvl_model_dims *dims, const char *directory, qvl_err *err)
{
    static const double MEAN[3] = {0.48145466, 0.4578275, 0.40821073};
    static const double STD[3] = {0.26862954, 0.26130258, 0.27577711};
    char path[QVL_PATH_BYTES];
    json_t *nested = NULL, *plain = NULL;
    const json_t *settings = NULL;
    memcpy(dims->image_mean, MEAN, sizeof MEAN);
    memcpy(dims->image_std, STD, sizeof STD);
    dims->min_pixels = 3136;
    dims->max_pixels = 12845056;
    qvl_status rc = open_settings(&nested, &settings, directory, "processor_config.json",
                                  "image_processor", path, err);
    if (rc == QVL_OK && !settings)
        rc = open_settings(&plain, &settings, directory, "preprocessor_config.json", NULL, path,
                           err);
    if (rc == QVL_OK && settings)
        rc = read_fields(dims, settings, path, err);
    json_decref(nested);
    json_decref(plain);
    return rc;
}
