#include "src/model/dims.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "io/json_file.h"
#include "src/base/files.h"
#include "src/model/preprocessor.h"

enum { CONFIG_LIMIT = 4 << 20 };

/* Where fields are looked for: text_config, then the top level (REFERENCE 1.2). */
typedef struct source {
    const json_t *top, *text, *vision;
    const char *path, *vision_path; /* for messages: the second has "vision_config" after it */
    qvl_err *err;
} source;

static const json_t *holder(const source *in, const char *key)
{
    const json_t *value = json_object_get(in->text, key);
    return value && !json_is_null(value) ? in->text : in->top;
}

/* There, but without a value anywhere. */
static bool is_null(const source *in, const char *key)
{
    const json_t *value = json_object_get(holder(in, key), key);
    return (!value || json_is_null(value)) && (json_is_null(json_object_get(in->text, key)) ||
                                               json_is_null(json_object_get(in->top, key)));
}

static qvl_status text_i64(const source *in, int64_t *out, const char *key, int64_t max)
{
    *out = -1;
    const qvl_status rc = qvl_json_get_i64(out, holder(in, key), key, 1, max, in->path, in->err);
    if (rc == QVL_OK && *out < 0)
        return qvl_fail(in->err, QVL_EDATA, "%s: %s is missing", in->path, key);
    return rc;
}

static qvl_status vision_i64(const source *in, int64_t *out, const char *key, int64_t fallback,
                             int64_t max)
{
    *out = fallback;
    const qvl_status rc = qvl_json_get_i64(out, in->vision, key, 1, max, in->vision_path, in->err);
    if (rc == QVL_OK && *out < 0)
        return qvl_fail(in->err, QVL_EDATA, "%s.%s is missing", in->vision_path, key);
    return rc;
}

static qvl_status check_word(const source *in, const json_t *object, const char *key,
                             const char *expected)
{
    const char *found = NULL, *where = object == in->vision ? in->vision_path : in->path;
    const qvl_status rc = qvl_json_get_text(&found, object, key, where, in->err);
    if (rc == QVL_OK && found && strcmp(found, expected) != 0)
        return qvl_fail(in->err, QVL_EDATA, "%s: %s is \"%.64s\", expected \"%s\"", where, key,
                        found, expected);
    return rc;
}

/* Models of other families have files of the same names; say so before a tensor is missed. */
static qvl_status check_family(const source *in)
{
    bool is_sliding = false;
    double dropout = 0.0;
    qvl_status rc = QVL_OK;
    if (!json_object_get(in->top, "model_type"))
        return qvl_fail(in->err, QVL_EDATA, "%s: model_type is missing, expected \"qwen2_5_vl\"",
                        in->path);
    QVL_TRY(check_word(in, in->top, "model_type", "qwen2_5_vl"));
    const json_t *quantised = json_object_get(in->top, "quantization_config");
    if (quantised && !json_is_null(quantised))
        return qvl_fail(in->err, QVL_EDATA,
                        "%s: quantization_config: quantised models (AWQ, GPTQ, ...) are not "
                        "supported; give the model with BF16, F16 or F32 weights",
                        in->path);
    QVL_TRY(check_word(in, holder(in, "hidden_act"), "hidden_act", "silu"));
    QVL_TRY(check_word(in, in->vision, "hidden_act", "silu"));
    QVL_TRY(qvl_json_get_bool(&is_sliding, holder(in, "use_sliding_window"), "use_sliding_window",
                              in->path, in->err));
    QVL_TRY(qvl_json_get_double(&dropout, holder(in, "attention_dropout"), "attention_dropout",
                                in->path, in->err));
    if (is_sliding || dropout != 0.0)
        return qvl_fail(in->err, QVL_EDATA, "%s: %s is not supported", in->path,
                        is_sliding ? "use_sliding_window" : "attention_dropout above 0");
out:
    return rc;
}

/* How many pairs of a head turn by frame, row and column. */
static qvl_status read_sections(const source *in, qvl_text_dims *dims, const json_t *sections)
{
    static const int64_t USUAL[3] = {16, 24, 24};
    qvl_text found = {0};
    int64_t sum = 0;
    bool is_list = !sections || json_array_size(sections) == 3;
    for (size_t i = 0; i < 3; i++) {
        const json_t *section = json_array_get(sections, i);
        dims->mrope_section[i] = sections ? json_integer_value(section) : USUAL[i];
        is_list &= !sections || (json_is_integer(section) && dims->mrope_section[i] >= 0 &&
                                 dims->mrope_section[i] <= 4096);
        sum += is_list ? dims->mrope_section[i] : 0;
    }
    if (is_list && sum == dims->Dh / 2)
        return QVL_OK;
    qvl_status rc = sections ? qvl_json_dump_python(&found, sections, in->err) : QVL_OK;
    if (rc == QVL_OK)
        rc = qvl_fail(
            in->err, QVL_EDATA,
            "%s: mrope_section is %.64s, expected three whole numbers with the sum %" PRId64
            " (half a head)",
            in->path, sections ? found.data : "missing", dims->Dh / 2);
    qvl_text_fini(&found);
    return rc;
}

static qvl_status read_rope(const source *in, qvl_text_dims *dims)
{
    const json_t *rope = json_object_get(in->text, "rope_parameters");
    const char *type = "default";
    qvl_status rc = QVL_OK;
    for (int i = 0; i < 3 && !json_is_object(rope); i++)
        rope = json_object_get(i == 0 ? in->text : in->top,
                               i < 2 ? "rope_scaling" : "rope_parameters");
    QVL_TRY(qvl_json_get_text(&type, rope, "type", in->path, in->err));
    if (json_object_get(rope, "rope_type"))
        QVL_TRY(qvl_json_get_text(&type, rope, "rope_type", in->path, in->err));
    if (strcmp(type, "default") != 0 && strcmp(type, "mrope") != 0)
        return qvl_fail(
            in->err, QVL_EDATA,
            "%s: rope type \"%.64s\" is not supported, expected \"mrope\" or \"default\"", in->path,
            type);
    dims->rope_theta = 1e6;
    QVL_TRY(qvl_json_get_double(&dims->rope_theta, holder(in, "rope_theta"), "rope_theta", in->path,
                                in->err));
    QVL_TRY(qvl_json_get_double(&dims->rope_theta, rope, "rope_theta", in->path, in->err));
    if (!(dims->rope_theta > 1.0))
        return qvl_fail(in->err, QVL_EDATA, "%s: rope_theta is %g, expected more than 1", in->path,
                        dims->rope_theta);
    QVL_TRY(read_sections(in, dims, json_object_get(rope, "mrope_section")));
out:
    return rc;
}

static qvl_status read_text(const source *in, qvl_text_dims *dims)
{
    qvl_status rc = QVL_OK;
    QVL_TRY(text_i64(in, &dims->D, "hidden_size", 1 << 20));
    QVL_TRY(text_i64(in, &dims->F, "intermediate_size", 1 << 22));
    QVL_TRY(text_i64(in, &dims->L, "num_hidden_layers", QVL_MAX_LAYERS));
    QVL_TRY(text_i64(in, &dims->H, "num_attention_heads", 4096));
    if (is_null(in, "num_key_value_heads"))
        dims->KV = dims->H; /* as many as there are query heads */
    else
        QVL_TRY(text_i64(in, &dims->KV, "num_key_value_heads", 4096));
    QVL_TRY(text_i64(in, &dims->V, "vocab_size", 1 << 26));
    if (dims->D % dims->H || dims->H % dims->KV)
        return qvl_fail(in->err, QVL_EDATA,
                        "%s: hidden_size %" PRId64 ", num_attention_heads %" PRId64
                        ", num_key_value_heads %" PRId64 " do not divide one another",
                        in->path, dims->D, dims->H, dims->KV);
    dims->Dh = dims->D / dims->H;
    int64_t stated = dims->Dh;
    QVL_TRY(
        qvl_json_get_i64(&stated, holder(in, "head_dim"), "head_dim", 1, 4096, in->path, in->err));
    if (stated != dims->Dh || dims->Dh % 2)
        return qvl_fail(in->err, QVL_EDATA,
                        "%s: head size %" PRId64
                        ", expected hidden_size / num_attention_heads, even",
                        in->path, stated);
    dims->eps = 1e-5; /* transformers' own where the file has none; the published files have 1e-6 */
    QVL_TRY(qvl_json_get_double(&dims->eps, holder(in, "rms_norm_eps"), "rms_norm_eps", in->path,
                                in->err));
    if (!(dims->eps >= 0.0 && dims->eps < 1.0))
        return qvl_fail(in->err, QVL_EDATA, "%s: rms_norm_eps is %g, expected 0 to less than 1",
                        in->path, dims->eps);
    bool top_tied = false, text_tied = false;
    QVL_TRY(qvl_json_get_bool(&top_tied, in->top, "tie_word_embeddings", in->path, in->err));
    QVL_TRY(qvl_json_get_bool(&text_tied, in->text, "tie_word_embeddings", in->path, in->err));
    dims->is_tied = top_tied || text_tied;
    QVL_TRY(read_rope(in, dims));
out:
    return rc;
}

static qvl_status read_full_attention(const source *in, qvl_vision_dims *dims)
{
    const json_t *list = json_object_get(in->vision, "fullatt_block_indexes"), *value;
    size_t i;
    if (!list) { /* the class default; exact for the published depth only */
        for (int64_t k = 7; k < dims->L; k += 8)
            dims->is_full_attention[k] = true;
        return QVL_OK;
    }
    if (!json_is_array(list))
        return qvl_fail(in->err, QVL_EDATA, "%s: fullatt_block_indexes is not a list",
                        in->vision_path);
    json_array_foreach(list, i, value)
    {
        const int64_t k = json_is_integer(value) ? json_integer_value(value) : -1;
        if (k < 0)
            return qvl_fail(in->err, QVL_EDATA,
                            "%s: fullatt_block_indexes[%zu] is not the number of a block",
                            in->vision_path, i);
        if (k < dims->L) /* a tower that was cut keeps the list of the whole one */
            dims->is_full_attention[k] = true;
    }
    return QVL_OK;
}

/* The tower turns by 10000 in every published model, and in every version of transformers up to 4.
 */
static qvl_status check_vision_rope(const source *in)
{
    double theta = 10000.0;
    qvl_status rc = QVL_OK;
    QVL_TRY(qvl_json_get_double(&theta, in->vision, "rope_theta", in->vision_path, in->err));
    QVL_TRY(qvl_json_get_double(&theta, json_object_get(in->vision, "rope_parameters"),
                                "rope_theta", in->vision_path, in->err));
    if (theta != 10000.0)
        rc = qvl_fail(in->err, QVL_EDATA, "%s: rope_theta is %g, expected 10000", in->vision_path,
                      theta);
out:
    return rc;
}

static qvl_status read_vision(const source *in, qvl_vision_dims *dims)
{
    static const struct {
        const char *key;
        int64_t expected;
    } FIXED[] = {{"patch_size", 14},
                 {"temporal_patch_size", 2},
                 {"spatial_merge_size", 2},
                 {"in_channels", 3},
                 {"in_chans", 3}};
    int64_t window_px = 0;
    qvl_status rc = QVL_OK;
    QVL_TRY(vision_i64(in, &dims->L, "depth", 32, QVL_MAX_LAYERS));
    QVL_TRY(vision_i64(in, &dims->D, "hidden_size", -1, 1 << 20));
    QVL_TRY(vision_i64(in, &dims->F, "intermediate_size", -1, 1 << 22));
    QVL_TRY(vision_i64(in, &dims->H, "num_heads", 16, 4096));
    QVL_TRY(vision_i64(in, &dims->out, "out_hidden_size", -1, 1 << 20));
    QVL_TRY(vision_i64(in, &window_px, "window_size", 112, 1 << 16));
    for (size_t i = 0; i < sizeof FIXED / sizeof *FIXED; i++) {
        int64_t value = 0;
        QVL_TRY(vision_i64(in, &value, FIXED[i].key, FIXED[i].expected, 1 << 16));
        if (value != FIXED[i].expected)
            return qvl_fail(in->err, QVL_EDATA,
                            "%s: vision_config.%s is %" PRId64 ", expected %" PRId64, in->path,
                            FIXED[i].key, value, FIXED[i].expected);
    }
    if (dims->D % dims->H || dims->D / dims->H % 4)
        return qvl_fail(in->err, QVL_EDATA,
                        "%s: vision_config.hidden_size %" PRId64 " is not num_heads %" PRId64
                        " times a multiple of 4",
                        in->path, dims->D, dims->H);
    dims->Dh = dims->D / dims->H;
    dims->window_units = window_px / 28;
    dims->eps = 1e-6;
    if (dims->window_units < 1)
        return qvl_fail(in->err, QVL_EDATA, "%s: window_size is %" PRId64 ", expected at least 28",
                        in->vision_path, window_px);
    QVL_TRY(check_vision_rope(in));
    QVL_TRY(read_full_attention(in, dims));
out:
    return rc;
}

static qvl_status read_tokens(const source *in, qvl_model_dims *dims)
{
    const struct {
        const char *key;
        int64_t *out;
        int64_t usual; /* transformers' own where the file has none */
    } tokens[] = {{"image_token_id", &dims->image_token, 151655},
                  {"video_token_id", &dims->video_token, 151656},
                  {"vision_start_token_id", &dims->vision_start_token, 151652},
                  {"vision_end_token_id", &dims->vision_end_token, 151653}};
    for (size_t i = 0; i < sizeof tokens / sizeof *tokens; i++) {
        *tokens[i].out = -1;
        qvl_status rc = qvl_json_get_i64(tokens[i].out, in->top, tokens[i].key, 0, dims->text.V - 1,
                                         in->path, in->err);
        if (rc == QVL_OK && *tokens[i].out < 0)
            rc = qvl_json_get_i64(tokens[i].out, in->text, tokens[i].key, 0, dims->text.V - 1,
                                  in->path, in->err);
        if (rc == QVL_OK && *tokens[i].out < 0 && tokens[i].usual < dims->text.V)
            *tokens[i].out = tokens[i].usual;
        if (rc == QVL_OK && *tokens[i].out < 0)
            rc = qvl_fail(in->err, QVL_EDATA, "%s: %s is missing", in->path, tokens[i].key);
        if (rc != QVL_OK)
            return rc;
    }
    return QVL_OK;
}

qvl_status qvl_model_dims_read(qvl_model_dims *out, const char *directory, qvl_err *err)
{
    char path[QVL_PATH_BYTES], vision_path[QVL_PATH_BYTES + 16];
    json_t *root = NULL;
    qvl_status rc = QVL_OK;
    *out = (qvl_model_dims){.tokens_per_second = 2};
    QVL_TRY(qvl_path_join(path, directory, "config.json", err));
    QVL_TRY(qvl_json_read(&root, path, CONFIG_LIMIT, err));
    source in = {.top = root,
                 .text = json_object_get(root, "text_config"),
                 .vision = json_object_get(root, "vision_config"),
                 .path = path,
                 .vision_path = vision_path,
                 .err = err};
    snprintf(vision_path, sizeof vision_path, "%s: vision_config", path);
    if (!json_is_object(in.text))
        in.text = root;
    QVL_TRY(check_family(&in));
    if (!json_is_object(in.vision)) {
        rc = qvl_fail(err, QVL_EDATA, "%s: vision_config is missing", path);
        goto out;
    }
    QVL_TRY(read_text(&in, &out->text));
    QVL_TRY(read_vision(&in, &out->vision));
    QVL_TRY(read_tokens(&in, out));
    if (out->vision.out != out->text.D)
        rc = qvl_fail(err, QVL_EDATA,
                      "%s: vision_config.out_hidden_size %" PRId64 " is not hidden_size %" PRId64,
                      path, out->vision.out, out->text.D);
    if (rc == QVL_OK)
        rc = qvl_preprocessor_read(out, directory, err);
out:
    json_decref(root);
    return rc;
}

int64_t qvl_vision_parameters(const qvl_model_dims *dims)
{
    const qvl_vision_dims *v = &dims->vision;
    const int64_t merged = 4 * v->D;
    const int64_t block = 2 * v->D + 3 * v->D * v->D + 3 * v->D + v->D * v->D + v->D +
                          3 * v->D * v->F + 2 * v->F + v->D;
    return QVL_PATCH_VALUES * v->D + v->L * block + v->D + merged * merged + merged +
           v->out * merged + v->out;
}

int64_t qvl_model_parameters(const qvl_model_dims *dims)
{
    const qvl_text_dims *t = &dims->text;
    const int64_t kv = t->KV * t->Dh;
    const int64_t layer =
        2 * t->D + 2 * t->D * t->D + t->D + 2 * (kv * t->D + kv) + 3 * t->D * t->F;
    return t->V * t->D * (t->is_tied ? 1 : 2) + t->L * layer + t->D + qvl_vision_parameters(dims);
}
