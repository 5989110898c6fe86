/* Reading config.json: the three layouts of REFERENCE 1.2, both published sizes, and everything
 * that must be refused before a tensor is looked at. */
#include "src/model/dims.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "scratch_files.h"

#define VISION(out)                                                                                \
    "\"vision_config\":{\"depth\":32,\"hidden_act\":\"silu\",\"hidden_size\":1280,"                \
    "\"intermediate_size\":3420,\"num_heads\":16,\"in_chans\":3,\"out_hidden_size\":" out          \
    ",\"patch_size\":14,\"spatial_merge_size\":2,\"spatial_patch_size\":14,\"window_size\":112,"   \
    "\"fullatt_block_indexes\":[7,15,23,31],\"tokens_per_second\":2,\"temporal_patch_size\":2}"
#define TOKENS                                                                                     \
    "\"vision_start_token_id\":151652,\"vision_end_token_id\":151653,\"vision_token_id\":151654,"  \
    "\"image_token_id\":151655,\"video_token_id\":151656"
#define TEXT_7B                                                                                    \
    "\"hidden_size\":3584,\"intermediate_size\":18944,\"num_hidden_layers\":28,"                   \
    "\"num_attention_heads\":28,\"num_key_value_heads\":4,\"vocab_size\":152064,"                  \
    "\"hidden_act\":\"silu\",\"attention_dropout\":0.0,\"rms_norm_eps\":1e-06,"                    \
    "\"max_window_layers\":28"
#define TEXT_3B                                                                                    \
    "\"hidden_size\":2048,\"intermediate_size\":11008,\"num_hidden_layers\":36,"                   \
    "\"num_attention_heads\":16,\"num_key_value_heads\":2,\"vocab_size\":151936,"                  \
    "\"hidden_act\":\"silu\",\"attention_dropout\":0.0,\"rms_norm_eps\":1e-06,"                    \
    "\"max_window_layers\":70"

/* As on the hub. */
static const char FLAT_7B[] =
    "{\"architectures\":[\"Qwen2_5_VLForConditionalGeneration\"],\"model_type\":\"qwen2_5_vl\"," //
    TEXT_7B ",\"rope_theta\":1000000.0,\"sliding_window\":32768,\"use_sliding_window\":false,"
    "\"tie_word_embeddings\":false,"
    "\"rope_scaling\":{\"type\":\"mrope\",\"mrope_section\":[16,24,24]},"
    "\"torch_dtype\":\"bfloat16\"," TOKENS "," VISION("3584") "}";
static const char FLAT_3B[] =
    "{\"model_type\":\"qwen2_5_vl\"," TEXT_3B
    ",\"rope_theta\":1000000.0,\"sliding_window\":32768,\"use_sliding_window\":false,"
    "\"tie_word_embeddings\":true,"
    "\"rope_scaling\":{\"type\":\"mrope\",\"mrope_section\":[16,24,24]}," TOKENS
    "," VISION("2048") "}";

/* As transformers 4.52 to 4.57 save it: text_config, and the text fields once more at the top, here
 * with other values to see which ones are read. */
static const char NESTED_7B[] =
    "{\"model_type\":\"qwen2_5_vl\",\"hidden_size\":1,\"intermediate_size\":1,"
    "\"num_hidden_layers\":1,\"num_attention_heads\":1,\"num_key_value_heads\":1,"
    "\"vocab_size\":1,\"rms_norm_eps\":0.5,\"rope_theta\":2.0,"
    "\"rope_scaling\":{\"type\":\"mrope\",\"mrope_section\":[1,1,1]}," TOKENS
    ",\"text_config\":{\"model_type\":\"qwen2_5_vl_text\",\"image_token_id\":null,"
    "\"video_token_id\":null,\"layer_types\":[\"full_attention\"],\"sliding_window\":null,"
    "\"use_sliding_window\":false," TEXT_7B
    ",\"rope_theta\":1000000.0,\"tie_word_embeddings\":false,"
    "\"rope_scaling\":{\"mrope_section\":[16,24,24],\"rope_type\":\"default\","
    "\"type\":\"default\"}},\"tie_word_embeddings\":false," VISION("3584") "}";
/* The same with the text fields at one place only, and tied only inside text_config. */
static const char NESTED_3B[] =
    "{\"model_type\":\"qwen2_5_vl\"," TOKENS ",\"text_config\":{\"model_type\":\"qwen2_5_vl_text\","
    "\"sliding_window\":null," TEXT_3B ",\"rope_theta\":1000000.0,\"tie_word_embeddings\":true,"
    "\"rope_scaling\":{\"mrope_section\":[16,24,24],\"rope_type\":\"default\","
    "\"type\":\"default\"}}," VISION("2048") "}";
static const char V5_3B[] =
    "{\"dtype\":\"bfloat16\",\"model_type\":\"qwen2_5_vl\",\"tie_word_embeddings\":true," TOKENS
    ",\"text_config\":{\"dtype\":\"bfloat16\",\"model_type\":\"qwen2_5_vl_text\"," TEXT_3B
    ",\"rope_parameters\":{\"rope_type\":\"default\",\"rope_theta\":1000000.0,"
    "\"mrope_section\":[16,24,24]}}," VISION("2048") "}";

static char directory[QVL_PATH_BYTES];

static qvl_status read_config(qvl_model_dims *dims, const char *json, qvl_err *err)
{
    scratch_directory(directory, "model");
    write_text_in(directory, "config.json", json);
    return qvl_model_dims_read(dims, directory, err);
}

static qvl_model_dims accept(const char *json)
{
    qvl_model_dims dims;
    qvl_err err = {0};
    expect_ok(read_config(&dims, json, &err), &err);
    return dims;
}

/* base with its one occurrence of old replaced by text. */
static char *with(const char *base, const char *old, const char *text)
{
    const char *at = strstr(base, old);
    assert_non_null(at);
    char *out = malloc(strlen(base) + strlen(text) + 1);
    assert_non_null(out);
    sprintf(out, "%.*s%s%s", (int)(at - base), base, text, at + strlen(old));
    return out;
}

static void refuse(const char *base, const char *old, const char *text, const char *words)
{
    qvl_model_dims dims;
    qvl_err err = {0};
    char *json = with(base, old, text);
    expect_failure(read_config(&dims, json, &err), QVL_EDATA, &err, words);
    free(json);
}

static void check_common(const qvl_model_dims *dims)
{
    assert_int_equal(dims->text.Dh, 128);
    assert_true(dims->text.eps == 1e-6 && dims->text.rope_theta == 1e6);
    assert_memory_equal(dims->text.mrope_section, ((int64_t[]){16, 24, 24}), 3 * sizeof(int64_t));
    assert_int_equal(dims->vision.L, 32);
    assert_int_equal(dims->vision.D, 1280);
    assert_int_equal(dims->vision.F, 3420);
    assert_int_equal(dims->vision.H, 16);
    assert_int_equal(dims->vision.Dh, 80);
    assert_int_equal(dims->vision.window_units, 4);
    assert_int_equal(dims->vision.out, dims->text.D);
    assert_true(dims->vision.eps == 1e-6);
    for (int i = 0; i < 32; i++)
        assert_int_equal(dims->vision.is_full_attention[i], i % 8 == 7);
    assert_int_equal(dims->vision_start_token, 151652);
    assert_int_equal(dims->vision_end_token, 151653);
    assert_int_equal(dims->image_token, 151655);
    assert_int_equal(dims->video_token, 151656);
}

static void check_7b(const qvl_model_dims *dims)
{
    check_common(dims);
    assert_int_equal(dims->text.D, 3584);
    assert_int_equal(dims->text.F, 18944);
    assert_int_equal(dims->text.L, 28);
    assert_int_equal(dims->text.H, 28);
    assert_int_equal(dims->text.KV, 4);
    assert_int_equal(dims->text.V, 152064);
    assert_false(dims->text.is_tied);
    assert_int_equal(qvl_model_parameters(dims), 8292166656);
    assert_int_equal(qvl_vision_parameters(dims), 676550144);
}

static void check_3b(const qvl_model_dims *dims)
{
    check_common(dims);
    assert_int_equal(dims->text.D, 2048);
    assert_int_equal(dims->text.L, 36);
    assert_int_equal(dims->text.KV, 2);
    assert_true(dims->text.is_tied);
    assert_int_equal(qvl_model_parameters(dims), 3754622976);
    assert_int_equal(qvl_vision_parameters(dims), 668684288);
}

static void all_layouts_are_read(void **state)
{
    (void)state;
    qvl_model_dims dims = accept(FLAT_7B);
    check_7b(&dims);
    dims = accept(FLAT_3B);
    check_3b(&dims);
    dims = accept(NESTED_7B);
    check_7b(&dims);
    dims = accept(NESTED_3B);
    check_3b(&dims);
    dims = accept(V5_3B);
    check_3b(&dims);
}

/* A field that text_config does not have, or has as null, is looked for at the top. */
static void missing_fields_have_their_defaults(void **state)
{
    static const struct {
        const char *old, *text;
    } CHANGES[] = {
        {",\"attention_dropout\":0.0", ""},
        {"\"rope_theta\":1000000.0,", ""},
        {"\"rope_scaling\":{\"type\":\"mrope\",\"mrope_section\":[16,24,24]},", ""},
        {"\"rope_scaling\":{\"type\":\"mrope\",\"mrope_section\":[16,24,24]},",
         "\"rope_scaling\":null,"},
        {"\"use_sliding_window\":false,", ""},
        {"\"hidden_act\":\"silu\",\"attention_dropout\"", "\"attention_dropout\""},
        {"\"depth\":32,", ""},
        {"\"num_heads\":16,", ""},
        {"\"in_chans\":3", "\"in_channels\":3"},
        {"\"window_size\":112,", ""},
        {"\"patch_size\":14,\"spatial_merge_size\":2,", ""},
        {"\"fullatt_block_indexes\":[7,15,23,31],", ""},
        {"\"hidden_size\":3584", "\"head_dim\":128,\"hidden_size\":3584"},
        {"\"hidden_size\":3584", "\"head_dim\":null,\"hidden_size\":3584"},
        {"\"tie_word_embeddings\":false,", ""},
        {"\"image_token_id\":151655", "\"x\":1"},
        {"\"video_token_id\":151656", "\"x\":1"},
        {"\"vision_start_token_id\":151652", "\"x\":1"},
        {"\"vision_end_token_id\":151653", "\"x\":1"},
        {"\"sliding_window\":32768", "\"quantization_config\":null"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof CHANGES / sizeof *CHANGES; i++) {
        char *json = with(FLAT_7B, CHANGES[i].old, CHANGES[i].text);
        const qvl_model_dims dims = accept(json);
        check_7b(&dims);
        free(json);
    }
    char *json = with(NESTED_7B, "\"text_config\":{", "\"text_config\":{\"head_dim\":null,");
    qvl_model_dims dims = accept(json);
    check_7b(&dims);
    free(json);
    json = with(NESTED_3B, "\"vocab_size\":151936,", "");
    char *moved = with(json, "\"model_type\"", "\"vocab_size\":151936,\"model_type\"");
    dims = accept(moved);
    check_3b(&dims);
    free(json);
    free(moved);
    json = with(FLAT_7B, "1000000.0", "250000");
    assert_true(accept(json).text.rope_theta == 250000.0);
    free(json);
    json = with(V5_3B, "1000000.0", "5000000.0");
    assert_true(accept(json).text.rope_theta == 5000000.0);
    free(json);
    json = with(FLAT_7B, ",\"rms_norm_eps\":1e-06", "");
    assert_true(accept(json).text.eps == 1e-5); /* what transformers takes */
    free(json);
    json = with(FLAT_7B, "\"num_key_value_heads\":4", "\"num_key_value_heads\":null");
    assert_int_equal(accept(json).text.KV, 28);
    free(json);
}

/* Numbers of blocks that a tower which was cut has no more. */
static void full_attention_of_a_whole_tower(void **state)
{
    (void)state;
    char *json = with(FLAT_7B, "\"depth\":32", "\"depth\":9");
    const qvl_model_dims dims = accept(json);
    for (int i = 0; i < 9; i++)
        assert_int_equal(dims.vision.is_full_attention[i], i == 7);
    free(json);
}

static void missing_fields_are_named(void **state)
{
    static const struct {
        const char *old, *text, *words;
    } CASES[] = {
        {"\"model_type\":\"qwen2_5_vl\",", "", "model_type is missing"},
        {"\"hidden_size\":3584,", "", "hidden_size is missing"},
        {"\"intermediate_size\":18944,", "", "intermediate_size is missing"},
        {"\"num_hidden_layers\":28,", "", "num_hidden_layers is missing"},
        {"\"num_attention_heads\":28,", "", "num_attention_heads is missing"},
        {"\"num_key_value_heads\":4,", "", "num_key_value_heads is missing"},
        {"\"vocab_size\":152064,", "", "vocab_size is missing"},
        {"\"vision_config\":", "\"vision\":", "vision_config is missing"},
        {"\"hidden_size\":1280,", "", "vision_config.hidden_size is missing"},
        {"\"intermediate_size\":3420,", "", "vision_config.intermediate_size is missing"},
        {",\"out_hidden_size\":3584", "", "vision_config.out_hidden_size is missing"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++)
        refuse(FLAT_7B, CASES[i].old, CASES[i].text, CASES[i].words);
}

static void other_models_are_refused(void **state)
{
    static const struct {
        const char *old, *text, *words;
    } CASES[] = {
        {"\"qwen2_5_vl\"", "\"qwen2_vl\"", "model_type is \"qwen2_vl\", expected \"qwen2_5_vl\""},
        {"\"qwen2_5_vl\"", "7", "model_type is a whole number"},
        {"\"torch_dtype\"", "\"quantization_config\":{\"quant_method\":\"awq\"},\"torch_dtype\"",
         "quantization_config|AWQ"},
        {"\"use_sliding_window\":false", "\"use_sliding_window\":true", "use_sliding_window"},
        {"\"attention_dropout\":0.0", "\"attention_dropout\":0.1", "attention_dropout"},
        {"\"hidden_act\":\"silu\",\"attention_dropout\"",
         "\"hidden_act\":\"gelu\",\"attention_dropout\"", "hidden_act is \"gelu\""},
        {"\"hidden_act\":\"silu\",\"hidden_size\":1280",
         "\"hidden_act\":\"quick_gelu\",\"hidden_size\":1280",
         "config.json: vision_config: hidden_act is \"quick_gelu\""},
        {"\"type\":\"mrope\"", "\"type\":\"yarn\"", "rope type \"yarn\""},
        {"\"type\":\"mrope\"", "\"type\":\"mrope\",\"rope_type\":\"linear\"", "\"linear\""},
        {"[16,24,24]", "[16,24,23]",
         "config.json: mrope_section is [16, 24, 23], expected three whole numbers with the sum "
         "64"},
        {"[16,24,24]", "[16,48]", "mrope_section"},
        {"[16,24,24]", "[16,24,24,0]", "mrope_section"},
        {"[16,24,24]", "[-16,56,24]", "mrope_section is [-16, 56, 24], exp"},
        {"[16,24,24]", "[16.0,24.0,24.0]", "mrope_section is [16.0, 24.0, 24.0], exp"},
        {"[16,24,24]", "\"16,24,24\"", "mrope_section is \"16,24,24\", exp"},
        {"\"hidden_size\":3584", "\"head_dim\":64,\"hidden_size\":3584", "head size 64"},
        {"\"hidden_size\":3584", "\"hidden_size\":3585", "do not divide"},
        {"\"num_key_value_heads\":4", "\"num_key_value_heads\":5", "do not divide"},
        {"\"num_key_value_heads\":4", "\"num_key_value_heads\":0", "num_key_value_heads is 0"},
        {"\"num_hidden_layers\":28", "\"num_hidden_layers\":257", "num_hidden_layers is 257"},
        {"\"num_hidden_layers\":28", "\"num_hidden_layers\":28.0", "num_hidden_layers is a number"},
        {"\"num_hidden_layers\":28", "\"num_hidden_layers\":\"28\"", "num_hidden_layers is a text"},
        {"\"vocab_size\":152064", "\"vocab_size\":67108865", "vocab_size is 67108865"},
        {"\"vocab_size\":152064", "\"vocab_size\":151656", "video_token_id is 151656"},
        {"\"image_token_id\":151655", "\"image_token_id\":-1", "image_token_id is -1"},
        {"\"rms_norm_eps\":1e-06", "\"rms_norm_eps\":-1e-06",
         "rms_norm_eps is -1e-06, expected 0 to"},
        {"\"rope_theta\":1000000.0", "\"rope_theta\":0", "rope_theta is 0, expected more than 1"},
        {"\"tie_word_embeddings\":false", "\"tie_word_embeddings\":0", "tie_word_embeddings"},
        {"\"out_hidden_size\":3584", "\"out_hidden_size\":2048", "out_hidden_size 2048"},
        {"\"patch_size\":14,\"spatial_merge", "\"patch_size\":16,\"spatial_merge",
         "patch_size is 16, expected 14"},
        {"\"spatial_merge_size\":2", "\"spatial_merge_size\":1", "spatial_merge_size is 1"},
        {"\"temporal_patch_size\":2", "\"temporal_patch_size\":1", "temporal_patch_size is 1"},
        {"\"in_chans\":3", "\"in_chans\":1", "in_chans is 1"},
        {"\"num_heads\":16", "\"num_heads\":7", "num_heads 7"},
        {"\"num_heads\":16", "\"num_heads\":128", "multiple of 4"},
        {"\"window_size\":112", "\"window_size\":27",
         "config.json: vision_config: window_size is 27, expected at least 28"},
        {"[7,15,23,31]", "[7,\"8\"]", "fullatt_block_indexes[1] is not the number of a block"},
        {"\"depth\":32,", "\"depth\":32,\"rope_theta\":5000.0,",
         "config.json: vision_config: rope_theta is 5000, expected 10000"},
        {"[7,15,23,31]", "[-1]", "fullatt_block_indexes[0]"},
        {"[7,15,23,31]", "7", "config.json: vision_config: fullatt_block_indexes is not a list"},
        {"\"depth\":32", "\"depth\":0", "config.json: vision_config: depth is 0, expected 1 to"},
        {"\"depth\":32", "\"depth\":\"32\"", "config.json: vision_config: depth is a text"},
        {"\"vision_config\":{", "\"vision_config\":[{", "config.json:1:"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++)
        refuse(FLAT_7B, CASES[i].old, CASES[i].text, CASES[i].words);
    refuse("[]", "[]", "[7]", "model_type is missing");
    refuse("{}", "{}", "", "config.json");
}

static void config_must_be_there(void **state)
{
    qvl_model_dims dims;
    qvl_err err = {0};
    (void)state;
    scratch_directory(directory, "model");
    expect_failure(qvl_model_dims_read(&dims, directory, &err), QVL_EMISSING, &err,
                   "config.json|No such file");
}

/* preprocessor_config.json: both ways to say the limits, and none at all. */
static void preprocessor_is_read(void **state)
{
    static const struct {
        const char *json;
        int64_t min, max;
        double mean0, std2;
    } CASES[] = {
        {NULL, 3136, 12845056, 0.48145466, 0.27577711},
        {"{}", 3136, 12845056, 0.48145466, 0.27577711},
        {"{\"min_pixels\":100,\"max_pixels\":200,\"image_mean\":[0.5,0.5,0.5],"
         "\"image_std\":[0.25,0.25,0.125]}",
         100, 200, 0.5, 0.125},
        {"{\"size\":{\"shortest_edge\":300,\"longest_edge\":400},\"min_pixels\":null,"
         "\"image_mean\":null}",
         300, 400, 0.48145466, 0.27577711},
        {"{\"size\":{\"shortest_edge\":300,\"longest_edge\":400},\"min_pixels\":5,"
         "\"max_pixels\":6}",
         5, 6, 0.48145466, 0.27577711},
    };
    static const struct {
        const char *json, *words;
    } BAD[] = {
        {"{\"image_std\":[0.5,0,0.5]}", "image_std[1] is 0, expected 0.001 to 1000"},
        {"{\"image_mean\":[0.5,0.5]}", "image_mean"},
        {"{\"image_mean\":[0.5,0.5,\"x\"]}", "image_mean"},
        {"{\"image_std\":0.5}", "image_std"},
        {"{\"image_std\":[0.5,0.5,1e-30]}", "image_std[2] is 1e-30, expected 0.001 to 1000"},
        {"{\"image_std\":[-0.5,0.5,0.5]}", "image_std[0] is -0.5, expected"},
        {"{\"image_mean\":[0.5,1e30,0.5]}", "image_mean[1] is 1e+30, expected -1000 to 1000"},
        {"{\"patch_size\":16}", "preprocessor_config.json: patch_size is 16, expected 14"},
        {"{\"patch_size\":14.0}", "patch_size is a number"},
        {"{\"merge_size\":1}", "merge_size is 1, expected 2"},
        {"{\"temporal_patch_size\":1}", "temporal_patch_size is 1, expected 2"},
        {"{\"resample\":2}", "resample is 2, expected 3 (bicubic)"},
        {"{\"do_resize\":false}", "do_resize is false, expected true"},
        {"{\"do_rescale\":false}", "do_rescale is false"},
        {"{\"do_normalize\":false}", "do_normalize is false"},
        {"{\"do_convert_rgb\":false}", "do_convert_rgb is false"},
        {"{\"do_resize\":1}", "do_resize is a whole number"},
        {"{\"rescale_factor\":1}", "rescale_factor is 1, expected 1/255"},
        {"{\"rescale_factor\":0.00390625}", "rescale_factor is 0.00390625, expected 1/255"},
        {"{\"min_pixels\":7,\"max_pixels\":6}", "min_pixels is above max_pixels (7 and 6)"},
        {"{\"min_pixels\":0}", "min_pixels is 0"},
        {"{\"max_pixels\":1e6}", "max_pixels is a number"},
        {"{", "preprocessor_config.json:1"}};
    qvl_model_dims dims;
    qvl_err err = {0};
    (void)state;
    scratch_directory(directory, "model");
    write_text_in(directory, "config.json", FLAT_7B);
    for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++) {
        if (CASES[i].json)
            write_text_in(directory, "preprocessor_config.json", CASES[i].json);
        expect_ok(qvl_model_dims_read(&dims, directory, &err), &err);
        assert_int_equal(dims.min_pixels, CASES[i].min);
        assert_int_equal(dims.max_pixels, CASES[i].max);
        assert_true(dims.image_mean[0] == CASES[i].mean0 && dims.image_std[2] == CASES[i].std2);
    }
    for (size_t i = 0; i < sizeof BAD / sizeof *BAD; i++) {
        write_text_in(directory, "preprocessor_config.json", BAD[i].json);
        expect_failure(qvl_model_dims_read(&dims, directory, &err), QVL_EDATA, &err, BAD[i].words);
    }
}

#define MEAN_STD                                                                                   \
    "\"image_mean\":[0.48145466,0.4578275,0.40821073],"                                            \
    "\"image_std\":[0.26862954,0.26130258,0.27577711],"

/* preprocessor_config.json as it is published, and as transformers saves it. */
static void every_saved_preprocessor_is_read(void **state)
{
    static const char *const FILES[] = {
        /* Qwen/Qwen2.5-VL-3B-Instruct and 7B on the hub */
        "{\"min_pixels\":3136,\"max_pixels\":12845056,\"patch_size\":14,\"temporal_patch_size\":2,"
        "\"merge_size\":2," MEAN_STD "\"image_processor_type\":\"Qwen2VLImageProcessor\","
        "\"processor_class\":\"Qwen2_5_VLProcessor\"}",
        /* save_pretrained of 4.49 to 4.57 */
        "{\"do_convert_rgb\":true,\"do_normalize\":true,\"do_rescale\":true,\"do_resize\":"
        "true," MEAN_STD "\"image_processor_type\":\"Qwen2VLImageProcessor\",\"max_pixels\":"
        "12845056,\"merge_size\":2,"
        "\"min_pixels\":3136,\"patch_size\":14,\"processor_class\":\"Qwen2_5_VLProcessor\","
        "\"resample\":3,\"rescale_factor\":0.00392156862745098,\"size\":{\"longest_edge\":12845056,"
        "\"shortest_edge\":3136},\"temporal_patch_size\":2}",
        /* the fast one */
        "{\"crop_size\":null,\"data_format\":\"channels_first\",\"default_to_square\":true,"
        "\"device\":null,\"disable_grouping\":null,\"do_center_crop\":null,\"do_convert_rgb\":true,"
        "\"do_normalize\":true,\"do_pad\":null,\"do_rescale\":true,\"do_resize\":true," MEAN_STD
        "\"image_processor_type\":\"Qwen2VLImageProcessorFast\",\"input_data_format\":null,"
        "\"max_pixels\":null,\"merge_size\":2,\"min_pixels\":null,\"pad_size\":null,"
        "\"patch_size\":14,\"processor_class\":\"Qwen2_5_VLProcessor\",\"resample\":3,"
        "\"rescale_factor\":0.00392156862745098,\"return_tensors\":null,\"size\":{\"longest_edge\":"
        "12845056,\"shortest_edge\":3136},\"temporal_patch_size\":2}",
        /* every setting null */
        "{\"do_convert_rgb\":null,\"do_normalize\":null,\"do_rescale\":null,\"do_resize\":null,"
        "\"image_mean\":null,\"image_std\":null,\"merge_size\":null,\"patch_size\":null,"
        "\"resample\":null,\"rescale_factor\":null,\"size\":null,\"temporal_patch_size\":null}",
        "{\"rescale_factor\":0.003921569}",
    };
    qvl_model_dims dims;
    qvl_err err = {0};
    (void)state;
    scratch_directory(directory, "saved");
    write_text_in(directory, "config.json", FLAT_7B);
    write_text_in(directory, "processor_config.json",
                  "{\"processor_class\":\"Qwen2_5_VLProcessor\"}"); /* has no image_processor */
    for (size_t i = 0; i < sizeof FILES / sizeof *FILES; i++) {
        write_text_in(directory, "preprocessor_config.json", FILES[i]);
        expect_ok(qvl_model_dims_read(&dims, directory, &err), &err);
        assert_int_equal(dims.min_pixels, 3136);
        assert_int_equal(dims.max_pixels, 12845056);
        assert_true(dims.image_mean[1] == 0.4578275 && dims.image_std[1] == 0.26130258);
    }
    /* transformers 5 puts it into another file, and prefers that */
    write_text_in(directory, "processor_config.json",
                  "{\"image_processor\":{\"do_resize\":true," MEAN_STD
                  "\"image_processor_type\":\"Qwen2VLImageProcessor\",\"size\":"
                  "{\"longest_edge\":7000,\"shortest_edge\":6000}},"
                  "\"processor_class\":\"Qwen2_5_VLProcessor\"}");
    expect_ok(qvl_model_dims_read(&dims, directory, &err), &err);
    assert_int_equal(dims.min_pixels, 6000);
    assert_int_equal(dims.max_pixels, 7000);
    write_text_in(directory, "processor_config.json", "{\"image_processor\":{\"merge_size\":4}}");
    expect_failure(qvl_model_dims_read(&dims, directory, &err), QVL_EDATA, &err,
                   "processor_config.json: merge_size is 4, expected 2");
}

/* The three models whose reference values the other tests compare with. */
static void fixtures_are_read(void **state)
{
    static const struct {
        const char *path;
        int64_t D, L, KV, sections[3];
        bool is_tied;
    } CASES[] = {{QVL_TEST_FIXTURES "/tiny/model", 64, 3, 2, {2, 3, 3}, false},
                 {QVL_TEST_FIXTURES "/tied/model", 96, 2, 1, {2, 3, 3}, true},
                 {QVL_TEST_FIXTURES "/wide/model", 256, 2, 1, {16, 24, 24}, false}};
    qvl_model_dims dims;
    qvl_err err = {0};
    (void)state;
    for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++) {
        expect_ok(qvl_model_dims_read(&dims, CASES[i].path, &err), &err);
        assert_int_equal(dims.text.D, CASES[i].D);
        assert_int_equal(dims.text.L, CASES[i].L);
        assert_int_equal(dims.text.KV, CASES[i].KV);
        assert_int_equal(dims.text.V, 512);
        assert_int_equal(dims.text.is_tied, CASES[i].is_tied);
        assert_memory_equal(dims.text.mrope_section, CASES[i].sections, sizeof CASES[i].sections);
        assert_int_equal(dims.image_token, 501);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(all_layouts_are_read),
        cmocka_unit_test(missing_fields_have_their_defaults),
        cmocka_unit_test(full_attention_of_a_whole_tower),
        cmocka_unit_test(missing_fields_are_named),
        cmocka_unit_test(other_models_are_refused),
        cmocka_unit_test(config_must_be_there),
        cmocka_unit_test(preprocessor_is_read),
        cmocka_unit_test(every_saved_preprocessor_is_read),
        cmocka_unit_test(fixtures_are_read),
    };
    return cmocka_run_group_tests(tests, scratch_make, scratch_remove);
}
