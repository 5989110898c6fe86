/* Changing an adapter's configuration; include it after scratch_files.h. */
#ifndef QVL_TESTS_UNIT_ADAPTER_CONFIG_H
#define QVL_TESTS_UNIT_ADAPTER_CONFIG_H

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "io/json_file.h"

/* A member of the adapter_config.json in directory becomes this JSON. */
static inline void set_adapter_member(const char *directory, const char *key, const char *json)
{
    char path[QVL_PATH_BYTES];
    json_t *root = NULL;
    json_t *value = json_loads(json, JSON_DECODE_ANY, NULL);
    assert_non_null(value);
    assert_int_equal(qvl_path_join(path, directory, "adapter_config.json", NULL), QVL_OK);
    assert_int_equal(qvl_json_read(&root, path, 1 << 20, NULL), QVL_OK);
    assert_int_equal(json_object_set_new(root, key, value), 0);
    char *text = json_dumps(root, JSON_INDENT(2));
    assert_non_null(text);
    write_file(path, text, strlen(text));
    free(text);
    json_decref(root);
}

#endif
