/* Changed copies of the small tokenizer, for test_tokenizer.c and test_tokenizer_file.c; include it
 * after cmocka.h. */
#ifndef QVL_TESTS_UNIT_TOKENIZER_VARIANTS_H
#define QVL_TESTS_UNIT_TOKENIZER_VARIANTS_H

#include "io/tokenizer.h"
#include "src/base/files.h"

#include <jansson.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MODEL_PATH QVL_TEST_FIXTURES "/tokenizer/tokenizer.json"

/* A file in the working directory, for changed models. */
static inline const char *variant_path(char buffer[64])
{
    snprintf(buffer, 64, "test_tokenizer_%ld.json", (long)getpid());
    return buffer;
}

static inline json_t *read_model(void)
{
    json_error_t error;
    json_t *model = json_load_file(MODEL_PATH, 0, &error);
    assert_non_null(model);
    return model;
}

static inline qvl_status load_bytes(qvl_tokenizer **out, const char *bytes, size_t n_bytes,
                                    qvl_err *err)
{
    char path[64];
    assert_int_equal(qvl_file_replace(variant_path(path), bytes, n_bytes, NULL), QVL_OK);
    const qvl_status rc = qvl_tokenizer_load(out, path, err);
    unlink(path);
    return rc;
}

/* Loads a model and gives up the reference to it. */
static inline qvl_status load_model(qvl_tokenizer **out, json_t *model, qvl_err *err)
{
    char *bytes = json_dumps(model, JSON_COMPACT);
    assert_non_null(bytes);
    const qvl_status rc = load_bytes(out, bytes, strlen(bytes), err);
    free(bytes);
    json_decref(model);
    return rc;
}

/* The member at a path of names and indices with dots between; *parent holds it under *last. */
static inline json_t *walk(json_t *model, const char *path, json_t **parent, char last[64])
{
    json_t *at = model;
    while (*path) {
        const size_t length = strcspn(path, ".");
        snprintf(last, 64, "%.*s", (int)length, path);
        path += length + (path[length] == '.');
        *parent = at;
        at = json_is_array(at) ? json_array_get(at, (size_t)atoi(last)) : json_object_get(at, last);
    }
    return at;
}

/* Puts value (JSON text) at the path, or removes what is there when value is NULL. */
static inline void change(json_t *model, const char *path, const char *value)
{
    char last[64] = "";
    json_t *parent = NULL;
    walk(model, path, &parent, last);
    json_t *new_value = value ? json_loads(value, JSON_DECODE_ANY, NULL) : NULL;
    assert_true(!value || new_value);
    if (json_is_array(parent)) {
        const size_t i = (size_t)atoi(last);
        assert_int_equal(i == json_array_size(parent) ? json_array_append_new(parent, new_value)
                         : value                      ? json_array_set_new(parent, i, new_value)
                                                      : json_array_remove(parent, i),
                         0);
    } else {
        assert_int_equal(value ? json_object_set_new(parent, last, new_value)
                               : json_object_del(parent, last),
                         0);
    }
}

#endif
