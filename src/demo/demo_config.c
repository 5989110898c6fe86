#include "src/demo/demo_model.h"

#include <stdlib.h>
#include <string.h>

#include <jansson.h>

#include "src/base/files.h"
#include "src/base/text.h"
#include "src/demo/demo_tokenizer.h"

enum { FIRST_ADDED_OF_QWEN = 151643, PATCH = 14, WINDOW = 112 };

static void set_full_attention(qvl_vision_dims *vision, int64_t every)
{
    for (int64_t i = every - 1; i < vision->L; i += every)
        vision->is_full_attention[i] = true;
}

/* REFERENCE 1.1; the tiny one is its likeness: a vision width that is no multiple of 8, grouped
 * keys, three uneven sections. */
void qvl_demo_dims(qvl_model_dims *out, qvl_demo_size size, int64_t n_ids)
{
    static const qvl_text_dims TEXT[3] = {
        {.D = 128, .F = 352, .L = 4, .H = 4, .KV = 2, .Dh = 32, .mrope_section = {4, 6, 6}},
        {.D = 2048,
         .F = 11008,
         .L = 36,
         .H = 16,
         .KV = 2,
         .Dh = 128,
         .V = 151936,
         .mrope_section = {16, 24, 24},
         .is_tied = true},
        {.D = 3584,
         .F = 18944,
         .L = 28,
         .H = 28,
         .KV = 4,
         .Dh = 128,
         .V = 152064,
         .mrope_section = {16, 24, 24}},
    };
    static const qvl_vision_dims TINY_EYE = {.D = 64, .F = 172, .L = 4, .H = 4, .Dh = 16};
    static const qvl_vision_dims EYE = {.D = 1280, .F = 3420, .L = 32, .H = 16, .Dh = 80};
    *out = (qvl_model_dims){.text = TEXT[size], .vision = size == QVL_DEMO_TINY ? TINY_EYE : EYE};
    if (size == QVL_DEMO_TINY)
        out->text.V = (n_ids + 63) / 64 * 64;
    out->text.eps = out->vision.eps = 1e-6;
    out->text.rope_theta = 1e6;
    out->vision.out = out->text.D;
    out->vision.window_units = WINDOW / PATCH / 2;
    set_full_attention(&out->vision, size == QVL_DEMO_TINY ? 2 : 8);
    const int64_t first = size == QVL_DEMO_TINY ? n_ids - QVL_N_ADDED : FIRST_ADDED_OF_QWEN;
    out->image_token = first + QVL_ADDED_IMAGE_PAD;
    out->video_token = first + QVL_ADDED_VIDEO_PAD;
    out->vision_start_token = first + QVL_ADDED_VISION_START;
    out->vision_end_token = first + QVL_ADDED_VISION_END;
    out->tokens_per_second = 2;
    out->min_pixels = 3136;
    out->max_pixels = 12845056;
    const double mean[3] = {0.48145466, 0.4578275, 0.40821073};
    const double std[3] = {0.26862954, 0.26130258, 0.27577711};
    memcpy(out->image_mean, mean, sizeof mean);
    memcpy(out->image_std, std, sizeof std);
}

int64_t qvl_demo_first_added(const qvl_model_dims *dims)
{
    return dims->image_token - QVL_ADDED_IMAGE_PAD;
}

int qvl_demo_shards(qvl_demo_size size)
{
    return size == QVL_DEMO_7B ? 5 : 2;
}

/* Takes object over, and other too. */
static json_t *joined(json_t *object, json_t *other)
{
    const bool is_bad = !object || !other || json_object_update(object, other) != 0;
    json_decref(other);
    if (!is_bad)
        return object;
    json_decref(object);
    return NULL;
}

static json_t *vision_config(const qvl_vision_dims *vision)
{
    json_t *full = json_array();
    for (int64_t i = 0; i < vision->L; i++)
        if (vision->is_full_attention[i])
            json_array_append_new(full, json_integer(i));
    return json_pack("{s:I, s:s, s:I, s:I, s:I, s:I, s:i, s:i, s:i, s:i, s:i, s:i, s:o, s:i, s:s}",
                     "depth", (json_int_t)vision->L, "hidden_act", "silu", "hidden_size",
                     (json_int_t)vision->D, "intermediate_size", (json_int_t)vision->F, "num_heads",
                     (json_int_t)vision->H, "out_hidden_size", (json_int_t)vision->out, "in_chans",
                     3, "patch_size", PATCH, "spatial_patch_size", PATCH, "spatial_merge_size", 2,
                     "temporal_patch_size", 2, "window_size", WINDOW, "fullatt_block_indexes", full,
                     "tokens_per_second", 2, "model_type", "qwen2_5_vl");
}

static json_t *token_ids(const qvl_model_dims *dims)
{
    const json_int_t first = qvl_demo_first_added(dims);
    return json_pack("{s:I, s:I, s:I, s:I, s:I, s:I, s:I}", "bos_token_id",
                     first + QVL_ADDED_ENDOFTEXT, "eos_token_id", first + QVL_ADDED_IM_END,
                     "vision_start_token_id", first + QVL_ADDED_VISION_START, "vision_end_token_id",
                     first + QVL_ADDED_VISION_END, "vision_token_id", first + QVL_ADDED_VISION_PAD,
                     "image_token_id", first + QVL_ADDED_IMAGE_PAD, "video_token_id",
                     first + QVL_ADDED_VIDEO_PAD);
}

static json_t *text_config(const qvl_text_dims *text)
{
    return json_pack(
        "{s:[s], s:s, s:I, s:I, s:I, s:I, s:I, s:I, s:b, s:s, s:f, s:f, s:i, s:i, s:f, s:f,"
        " s:{s:s, s:[I,I,I]}, s:i, s:b, s:b, s:s}",
        "architectures", "Qwen2_5_VLForConditionalGeneration", "model_type", "qwen2_5_vl",
        "vocab_size", (json_int_t)text->V, "hidden_size", (json_int_t)text->D, "intermediate_size",
        (json_int_t)text->F, "num_hidden_layers", (json_int_t)text->L, "num_attention_heads",
        (json_int_t)text->H, "num_key_value_heads", (json_int_t)text->KV, "tie_word_embeddings",
        (int)text->is_tied, "hidden_act", "silu", "attention_dropout", 0.0, "initializer_range",
        0.02, "max_position_embeddings", 128000, "max_window_layers", (int)text->L, "rms_norm_eps",
        text->eps, "rope_theta", text->rope_theta, "rope_scaling", "type", "mrope", "mrope_section",
        (json_int_t)text->mrope_section[0], (json_int_t)text->mrope_section[1],
        (json_int_t)text->mrope_section[2], "sliding_window", 32768, "use_sliding_window", 0,
        "use_cache", 1, "torch_dtype", "bfloat16");
}

static json_t *generation_config(const qvl_model_dims *dims)
{
    const json_int_t first = qvl_demo_first_added(dims);
    return json_pack("{s:I, s:b, s:[I,I], s:I, s:f, s:f}", "bos_token_id",
                     first + QVL_ADDED_ENDOFTEXT, "do_sample", 1, "eos_token_id",
                     first + QVL_ADDED_IM_END, first + QVL_ADDED_ENDOFTEXT, "pad_token_id",
                     first + QVL_ADDED_ENDOFTEXT, "repetition_penalty", 1.05, "temperature", 1e-6);
}

static json_t *preprocessor_config(const qvl_model_dims *dims)
{
    const double *mean = dims->image_mean, *std = dims->image_std;
    return json_pack("{s:I, s:I, s:i, s:i, s:i, s:[f,f,f], s:[f,f,f], s:s, s:s}", "min_pixels",
                     (json_int_t)dims->min_pixels, "max_pixels", (json_int_t)dims->max_pixels,
                     "patch_size", PATCH, "temporal_patch_size", 2, "merge_size", 2, "image_mean",
                     mean[0], mean[1], mean[2], "image_std", std[0], std[1], std[2],
                     "image_processor_type", "Qwen2VLImageProcessor", "processor_class",
                     "Qwen2_5_VLProcessor");
}

/* Takes value over; NULL is a failure to make it. */
static qvl_status write_json(const char *directory, const char *name, json_t *value, qvl_err *err)
{
    char path[QVL_PATH_BYTES];
    char *dump = json_dumps(value, JSON_INDENT(2) | JSON_REAL_PRECISION(9));
    qvl_text text = {0};
    qvl_status rc = dump ? QVL_OK : qvl_fail_memory(err, 0, name);
    if (rc != QVL_OK)
        goto out;
    QVL_TRY(qvl_path_join(path, directory, name, err));
    QVL_TRY(qvl_text_printf(&text, err, "%s\n", dump));
    QVL_TRY(qvl_file_replace(path, text.data, text.len, err));
out:
    free(dump);
    json_decref(value);
    qvl_text_fini(&text);
    return rc;
}

qvl_status qvl_demo_write_config(const char *directory, const qvl_model_dims *dims, qvl_err *err)
{
    json_t *vision = json_pack("{s:o}", "vision_config", vision_config(&dims->vision));
    json_t *config = joined(joined(text_config(&dims->text), token_ids(dims)), vision);
    qvl_status rc = write_json(directory, "config.json", config, err);
    if (rc == QVL_OK)
        rc = write_json(directory, "generation_config.json", generation_config(dims), err);
    if (rc == QVL_OK)
        rc = write_json(directory, "preprocessor_config.json", preprocessor_config(dims), err);
    return rc;
}
