/* Parsing a configuration from a text, for the tests of src/config; include it after cmocka.h. */
#ifndef QVL_TESTS_UNIT_CONFIG_HELPERS_H
#define QVL_TESTS_UNIT_CONFIG_HELPERS_H

#include "src/config/config.h"

#include <stdio.h>
#include <string.h>

/* The least that parses. */
#define MINIMAL "model_name_or_path: m\noutput_dir: o\n"

/* MINIMAL, then text, as the file "c.yaml", then one override unless it is NULL. */
static inline qvl_status parse_with(qvl_config **out, const char *text, const char *override,
                                    qvl_err *err)
{
    qvl_text whole = {0};
    qvl_status rc = qvl_text_printf(&whole, err, "%s%s", MINIMAL, text);
    *out = NULL;
    if (rc == QVL_OK)
        rc = qvl_config_parse(out, whole.data, whole.len, "c.yaml", &override, override != NULL,
                              err);
    qvl_text_fini(&whole);
    return rc;
}

static inline qvl_config *parsed(const char *text, const char *override)
{
    qvl_config *config = NULL;
    qvl_err err = {0};
    if (parse_with(&config, text, override, &err) != QVL_OK)
        fail_msg("\"%s\" (%s): %s", text, override ? override : "no override", err.text);
    return config;
}

/* MINIMAL + text + override is refused with a line that is exactly message. */
static inline void expect_refused(const char *text, const char *override, const char *message)
{
    qvl_config *config = NULL;
    qvl_err err = {0};
    const qvl_status rc = parse_with(&config, text, override, &err);
    qvl_config_destroy(config);
    if (rc != QVL_ECONFIG || strcmp(err.text, message) != 0)
        fail_msg("\"%s\" (%s)\n  gives    %s \"%s\"\n  expected QVL_ECONFIG \"%s\"", text,
                 override ? override : "no override", qvl_status_name(rc), err.text, message);
}

/* The same, where the file is all of text. */
static inline void expect_file_refused(const char *text, size_t n, const char *message)
{
    qvl_config *config = NULL;
    qvl_err err = {0};
    const qvl_status rc = qvl_config_parse(&config, text, n, "c.yaml", NULL, 0, &err);
    qvl_config_destroy(config);
    if (rc != QVL_ECONFIG || strncmp(err.text, message, strlen(message)) != 0)
        fail_msg("%.60s\n  gives    %s \"%s\"\n  expected QVL_ECONFIG \"%s...\"", text,
                 qvl_status_name(rc), err.text, message);
}

#endif
