#include "src/demo/demo_tokenizer.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "io/json_file.h"
#include "src/base/files.h"
#include "src/base/text.h"

/* In order of id; from <tool_call> on they are not special. */
enum { N_SPECIAL = 14 };
static const char *const ADDED[QVL_N_ADDED] = {
    "<|endoftext|>",      "<|im_start|>",     "<|im_end|>",     "<|object_ref_start|>",
    "<|object_ref_end|>", "<|box_start|>",    "<|box_end|>",    "<|quad_start|>",
    "<|quad_end|>",       "<|vision_start|>", "<|vision_end|>", "<|vision_pad|>",
    "<|image_pad|>",      "<|video_pad|>",    "<tool_call>",    "</tool_call>",
    "<|fim_prefix|>",     "<|fim_middle|>",   "<|fim_suffix|>", "<|fim_pad|>",
    "<|repo_name|>",      "<|file_sep|>",
};

static const char BYTE_LEVEL[] =
    "{\"type\": \"ByteLevel\", \"add_prefix_space\": false, \"trim_offsets\": false, "
    "\"use_regex\": false}";

/* Renders what the template qwen2_vl encodes (REFERENCE 7.5), without tools. */
static const char CHAT_TEMPLATE[] =
    "{%- if not messages or messages[0]['role'] != 'system' -%}\n"
    "    {{- '<|im_start|>system\\nYou are a helpful assistant.<|im_end|>\\n' -}}\n"
    "{%- endif -%}\n"
    "{%- for message in messages -%}\n"
    "    {{- '<|im_start|>' + message['role'] + '\\n' -}}\n"
    "    {%- if message['content'] is string -%}\n"
    "        {{- message['content'] -}}\n"
    "    {%- else -%}\n"
    "        {%- for part in message['content'] -%}\n"
    "            {%- if part['type'] in ('image', 'image_url') -%}\n"
    "                {{- '<|vision_start|><|image_pad|><|vision_end|>' -}}\n"
    "            {%- elif part['type'] == 'video' -%}\n"
    "                {{- '<|vision_start|><|video_pad|><|vision_end|>' -}}\n"
    "            {%- elif part['type'] == 'text' -%}\n"
    "                {{- part['text'] -}}\n"
    "            {%- endif -%}\n"
    "        {%- endfor -%}\n"
    "    {%- endif -%}\n"
    "    {{- '<|im_end|>\\n' -}}\n"
    "{%- endfor -%}\n"
    "{%- if add_generation_prompt -%}\n"
    "    {{- '<|im_start|>assistant\\n' -}}\n"
    "{%- endif -%}\n";

static qvl_status add_string(qvl_text *out, const char *text, qvl_err *err)
{
    return qvl_json_add_string(out, text, strlen(text), err);
}

static qvl_status add_flags(qvl_text *out, int i, qvl_err *err)
{
    return qvl_text_printf(out, err,
                           "\"lstrip\": false, \"normalized\": false, \"rstrip\": false, "
                           "\"single_word\": false, \"special\": %s}",
                           i < N_SPECIAL ? "true" : "false");
}

static qvl_status add_added_tokens(qvl_text *out, int64_t first_added, qvl_err *err)
{
    qvl_status rc = QVL_OK;
    QVL_TRY(qvl_text_puts(out, "  \"added_tokens\": [", err));
    for (int i = 0; i < QVL_N_ADDED; i++) {
        QVL_TRY(qvl_text_printf(out, err, "%s\n    {\"id\": %" PRId64 ", \"content\": \"%s\", ",
                                i ? "," : "", first_added + i, ADDED[i]));
        QVL_TRY(add_flags(out, i, err));
    }
    QVL_TRY(qvl_text_puts(out, "\n  ],\n", err));
out:
    return rc;
}

static qvl_status add_pipeline(qvl_text *out, qvl_err *err)
{
    qvl_status rc = QVL_OK;
    QVL_TRY(qvl_text_puts(out,
                          "  \"normalizer\": {\"type\": \"NFC\"},\n"
                          "  \"pre_tokenizer\": {\n"
                          "    \"type\": \"Sequence\",\n"
                          "    \"pretokenizers\": [\n"
                          "      {\"type\": \"Split\", \"pattern\": {\"Regex\": ",
                          err));
    QVL_TRY(add_string(out, QVL_DEMO_SPLIT_PATTERN, err));
    QVL_TRY(qvl_text_printf(out, err,
                            "}, \"behavior\": \"Isolated\", \"invert\": false},\n"
                            "      %s\n"
                            "    ]\n"
                            "  },\n"
                            "  \"post_processor\": %s,\n"
                            "  \"decoder\": %s,\n",
                            BYTE_LEVEL, BYTE_LEVEL, BYTE_LEVEL));
out:
    return rc;
}

static qvl_status add_model(qvl_text *out, const qvl_bpe *bpe, int64_t first_added, qvl_err *err)
{
    qvl_status rc = QVL_OK;
    QVL_TRY(qvl_text_puts(out,
                          "  \"model\": {\n"
                          "    \"type\": \"BPE\",\n"
                          "    \"dropout\": null,\n"
                          "    \"unk_token\": null,\n"
                          "    \"continuing_subword_prefix\": \"\",\n"
                          "    \"end_of_word_suffix\": \"\",\n"
                          "    \"fuse_unk\": false,\n"
                          "    \"byte_fallback\": false,\n"
                          "    \"ignore_merges\": false,\n"
                          "    \"vocab\": {",
                          err));
    for (int64_t id = 0; id < first_added; id++) {
        char filler[40];
        snprintf(filler, sizeof filler, "[unused %06" PRId64 "]", id);
        QVL_TRY(qvl_text_puts(out, id ? ",\n      " : "\n      ", err));
        QVL_TRY(add_string(out, id < bpe->n_tokens ? bpe->tokens[id] : filler, err));
        QVL_TRY(qvl_text_printf(out, err, ": %" PRId64, id));
    }
    QVL_TRY(qvl_text_puts(out, "\n    },\n    \"merges\": [", err));
    for (int i = 0; i < bpe->n_merges; i++) {
        char pair[2 * QVL_BPE_TOKEN_BYTES];
        snprintf(pair, sizeof pair, "%s %s", bpe->tokens[bpe->merges[i][0]],
                 bpe->tokens[bpe->merges[i][1]]);
        QVL_TRY(qvl_text_puts(out, i ? ",\n      " : "\n      ", err));
        QVL_TRY(add_string(out, pair, err));
    }
    QVL_TRY(qvl_text_puts(out, "\n    ]\n  }\n", err));
out:
    return rc;
}

static qvl_status format_tokenizer(qvl_text *out, const qvl_bpe *bpe, int64_t first_added,
                                   qvl_err *err)
{
    qvl_status rc = QVL_OK;
    QVL_TRY(qvl_text_puts(
        out, "{\n  \"version\": \"1.0\",\n  \"truncation\": null,\n  \"padding\": null,\n", err));
    QVL_TRY(add_added_tokens(out, first_added, err));
    QVL_TRY(add_pipeline(out, err));
    QVL_TRY(add_model(out, bpe, first_added, err));
    QVL_TRY(qvl_text_puts(out, "}\n", err));
out:
    return rc;
}

static qvl_status format_config(qvl_text *out, int64_t first_added, qvl_err *err)
{
    qvl_status rc = QVL_OK;
    QVL_TRY(qvl_text_puts(out,
                          "{\n"
                          "  \"add_bos_token\": false,\n"
                          "  \"add_prefix_space\": false,\n"
                          "  \"added_tokens_decoder\": {",
                          err));
    for (int i = 0; i < QVL_N_ADDED; i++) {
        QVL_TRY(qvl_text_printf(out, err, "%s\n    \"%" PRId64 "\": {\"content\": \"%s\", ",
                                i ? "," : "", first_added + i, ADDED[i]));
        QVL_TRY(add_flags(out, i, err));
    }
    QVL_TRY(qvl_text_puts(out, "\n  },\n  \"additional_special_tokens\": [", err));
    for (int i = 1; i < N_SPECIAL; i++)
        QVL_TRY(qvl_text_printf(out, err, "%s\"%s\"", i > 1 ? ", " : "", ADDED[i]));
    QVL_TRY(qvl_text_puts(out, "],\n  \"bos_token\": null,\n  \"chat_template\": ", err));
    QVL_TRY(add_string(out, CHAT_TEMPLATE, err));
    QVL_TRY(qvl_text_printf(out, err,
                            ",\n"
                            "  \"clean_up_tokenization_spaces\": false,\n"
                            "  \"eos_token\": \"%s\",\n"
                            "  \"errors\": \"replace\",\n"
                            "  \"model_max_length\": 131072,\n"
                            "  \"pad_token\": \"%s\",\n"
                            "  \"split_special_tokens\": false,\n"
                            "  \"tokenizer_class\": \"Qwen2Tokenizer\",\n"
                            "  \"unk_token\": null\n"
                            "}\n",
                            ADDED[QVL_ADDED_IM_END], ADDED[QVL_ADDED_ENDOFTEXT]));
out:
    return rc;
}

qvl_status qvl_demo_write_tokenizer(const char *directory, const qvl_bpe *bpe, int64_t first_added,
                                    qvl_err *err)
{
    char path[QVL_PATH_BYTES];
    qvl_text text = {0};
    qvl_status rc = QVL_OK;
    QVL_TRY(format_tokenizer(&text, bpe, first_added, err));
    QVL_TRY(qvl_path_join(path, directory, "tokenizer.json", err));
    QVL_TRY(qvl_file_replace(path, text.data, text.len, err));
    qvl_text_clear(&text);
    QVL_TRY(format_config(&text, first_added, err));
    QVL_TRY(qvl_path_join(path, directory, "tokenizer_config.json", err));
    QVL_TRY(qvl_file_replace(path, text.data, text.len, err));
out:
    qvl_text_fini(&text);
    return rc;
}
