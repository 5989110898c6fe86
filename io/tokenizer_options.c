#include "io/tokenizer_internal.h"

#include <stdio.h>
#include <string.h>

/* GPT-2's split, which a ByteLevel step with use_regex stands for. */
static const char GPT2_SPLIT[] =
    "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+";

static const char *type_name(json_type type)
{
    static const char *const NAMES[] = {"an object", "an array", "a string", "an integer",
                                        "a real",    "true",     "false",    "null"};
    return NAMES[type];
}

qvl_status qvl_tokenizer_member(json_t **out, const qvl_tokenizer_file *file, const json_t *object,
                                const char *where, const char *key, json_type type)
{
    json_t *value = json_object_get(object, key);
    if (!value)
        return qvl_fail(file->err, QVL_EDATA, "%s: %s%s is missing, expected %s", file->path, where,
                        key, type_name(type));
    if (json_typeof(value) != type)
        return qvl_fail(file->err, QVL_EDATA, "%s: %s%s is %s, expected %s", file->path, where, key,
                        type_name(json_typeof(value)), type_name(type));
    *out = value;
    return QVL_OK;
}

/* A short text of a value for messages. */
static const char *show(char buffer[64], const json_t *value)
{
    if (json_is_string(value))
        snprintf(buffer, 64, "\"%.56s\"", json_string_value(value));
    else if (json_is_integer(value))
        snprintf(buffer, 64, "%" JSON_INTEGER_FORMAT, json_integer_value(value));
    else if (json_is_real(value))
        snprintf(buffer, 64, "%g", json_real_value(value));
    else
        snprintf(buffer, 64, "%s", value ? type_name(json_typeof(value)) : "missing");
    return buffer;
}

/* The member must be this string. */
static qvl_status check_text(const qvl_tokenizer_file *file, const json_t *object,
                             const char *where, const char *key, const char *expected)
{
    char found[64];
    const json_t *value = json_object_get(object, key);
    if (json_is_string(value) && strcmp(json_string_value(value), expected) == 0)
        return QVL_OK;
    return qvl_fail(file->err, QVL_EDATA, "%s: %s%s is %s, expected \"%s\"", file->path, where, key,
                    show(found, value), expected);
}

/* The ways to say that an option is off. */
enum { OFF_FALSE = 1, OFF_NULL = 2, OFF_ZERO = 4, OFF_EMPTY = 8, OFF_MISSING = 16 };

/* The member must be off in one of the allowed ways. */
static qvl_status check_off(const qvl_tokenizer_file *file, const json_t *object, const char *where,
                            const char *key, unsigned allowed)
{
    char found[64];
    const json_t *value = json_object_get(object, key);
    unsigned is = 0;
    if (!value)
        is = OFF_MISSING;
    else if (json_is_false(value))
        is = OFF_FALSE;
    else if (json_is_null(value))
        is = OFF_NULL;
    else if (json_is_number(value) && json_number_value(value) == 0.0)
        is = OFF_ZERO;
    else if (json_is_string(value) && json_string_length(value) == 0)
        is = OFF_EMPTY;
    if (is & allowed)
        return QVL_OK;
    return qvl_fail(file->err, QVL_EDATA, "%s: %s%s is %s, expected %s", file->path, where, key,
                    show(found, value), allowed & OFF_FALSE ? "false" : "null");
}

static qvl_status check_model(const qvl_tokenizer_file *file, const json_t *model)
{
    static const struct {
        const char *key;
        unsigned off;
    } OPTIONS[] = {
        {"dropout", OFF_NULL | OFF_ZERO | OFF_MISSING},
        {"unk_token", OFF_NULL | OFF_MISSING},
        {"continuing_subword_prefix", OFF_NULL | OFF_EMPTY | OFF_MISSING},
        {"end_of_word_suffix", OFF_NULL | OFF_EMPTY | OFF_MISSING},
        {"fuse_unk", OFF_FALSE | OFF_MISSING},
        {"byte_fallback", OFF_FALSE | OFF_MISSING},
        {"ignore_merges", OFF_FALSE | OFF_MISSING},
    };
    qvl_status rc = check_text(file, model, "model.", "type", "BPE");
    for (size_t i = 0; rc == QVL_OK && i < sizeof OPTIONS / sizeof *OPTIONS; i++)
        rc = check_off(file, model, "model.", OPTIONS[i].key, OPTIONS[i].off);
    return rc;
}

static qvl_status read_normalizer(const qvl_tokenizer_file *file, const json_t *root)
{
    json_t *normalizer = json_object_get(root, "normalizer");
    if (!normalizer || json_is_null(normalizer))
        return QVL_OK;
    const qvl_status rc =
        qvl_tokenizer_member(&normalizer, file, root, "", "normalizer", JSON_OBJECT);
    if (rc != QVL_OK)
        return rc;
    file->tokenizer->needs_nfc = true;
    return check_text(file, normalizer, "normalizer.", "type", "NFC");
}

/* A ByteLevel step. *out_regex: whether it also splits, as GPT-2 does (that is its default). */
static qvl_status read_byte_level(bool *out_regex, const qvl_tokenizer_file *file,
                                  const json_t *step, const char *where)
{
    char found[64];
    const json_t *use_regex = json_object_get(step, "use_regex");
    qvl_status rc = check_text(file, step, where, "type", "ByteLevel");
    if (rc == QVL_OK)
        rc = check_off(file, step, where, "add_prefix_space", OFF_FALSE);
    if (rc != QVL_OK)
        return rc;
    if (use_regex && !json_is_boolean(use_regex))
        return qvl_fail(file->err, QVL_EDATA, "%s: %suse_regex is %s, expected true or false",
                        file->path, where, show(found, use_regex));
    *out_regex = !json_is_false(use_regex);
    return QVL_OK;
}

static qvl_status read_split(const qvl_tokenizer_file *file, const json_t *step, const char *where)
{
    char inner[64];
    json_t *pattern = NULL, *regex = NULL;
    qvl_status rc = QVL_OK;
    snprintf(inner, sizeof inner, "%spattern.", where);
    QVL_TRY(check_text(file, step, where, "type", "Split"));
    QVL_TRY(check_text(file, step, where, "behavior", "Isolated"));
    QVL_TRY(check_off(file, step, where, "invert", OFF_FALSE | OFF_MISSING));
    QVL_TRY(qvl_tokenizer_member(&pattern, file, step, where, "pattern", JSON_OBJECT));
    QVL_TRY(qvl_tokenizer_member(&regex, file, pattern, inner, "Regex", JSON_STRING));
    snprintf(inner, sizeof inner, "%spattern.Regex", where);
    QVL_TRY(qvl_tokenizer_compile_split(file, inner, json_string_value(regex)));
out:
    return rc;
}

/* Split then ByteLevel, or ByteLevel alone. */
static qvl_status read_pre_tokenizer(const qvl_tokenizer_file *file, const json_t *root)
{
    static const char WHERE[] = "pre_tokenizer.", FIRST[] = "pre_tokenizer.pretokenizers[0].",
                      SECOND[] = "pre_tokenizer.pretokenizers[1].";
    json_t *pre = NULL, *steps = NULL;
    bool use_regex = false;
    qvl_status rc = QVL_OK;
    QVL_TRY(qvl_tokenizer_member(&pre, file, root, "", "pre_tokenizer", JSON_OBJECT));
    const json_t *type = json_object_get(pre, "type");
    if (json_is_string(type) && strcmp(json_string_value(type), "ByteLevel") == 0) {
        QVL_TRY(read_byte_level(&use_regex, file, pre, WHERE));
        if (use_regex)
            QVL_TRY(qvl_tokenizer_compile_split(file, "pre_tokenizer.use_regex", GPT2_SPLIT));
        goto out;
    }
    QVL_TRY(check_text(file, pre, WHERE, "type", "Sequence"));
    QVL_TRY(qvl_tokenizer_member(&steps, file, pre, WHERE, "pretokenizers", JSON_ARRAY));
    if (json_array_size(steps) != 2) {
        rc = qvl_fail(file->err, QVL_EDATA,
                      "%s: pre_tokenizer.pretokenizers has %zu steps, expected Split and ByteLevel",
                      file->path, json_array_size(steps));
        goto out;
    }
    QVL_TRY(read_split(file, json_array_get(steps, 0), FIRST));
    QVL_TRY(read_byte_level(&use_regex, file, json_array_get(steps, 1), SECOND));
    if (use_regex)
        rc = qvl_fail(file->err, QVL_EDATA, "%s: %suse_regex is true, expected false", file->path,
                      SECOND);
out:
    return rc;
}

qvl_status qvl_tokenizer_check_options(const qvl_tokenizer_file *file, const json_t *root)
{
    json_t *model = NULL, *decoder = NULL;
    qvl_status rc = QVL_OK;
    QVL_TRY(check_text(file, root, "", "version", "1.0"));
    QVL_TRY(qvl_tokenizer_member(&model, file, root, "", "model", JSON_OBJECT));
    QVL_TRY(check_model(file, model));
    QVL_TRY(read_normalizer(file, root));
    QVL_TRY(read_pre_tokenizer(file, root));
    QVL_TRY(qvl_tokenizer_member(&decoder, file, root, "", "decoder", JSON_OBJECT));
    QVL_TRY(check_text(file, decoder, "decoder.", "type", "ByteLevel"));
out:
    return rc;
}
