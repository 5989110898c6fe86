/* A configuration and an override. What is read must be written so that it reads back the same. */
#include <stdlib.h>
#include <string.h>

#include "src/config/config.h"
#include "tests/fuzz/fuzz.h"

static void check_round_trip(const qvl_config *config)
{
    qvl_text first = {0}, second = {0};
    qvl_config *again = NULL;
    qvl_err err = {0};
    FUZZ_CHECK(qvl_config_format(&first, config, &err) == QVL_OK);
    FUZZ_CHECK(qvl_config_parse(&again, first.data, first.len, "again", NULL, 0, &err) == QVL_OK);
    FUZZ_CHECK(qvl_config_format(&second, again, &err) == QVL_OK);
    FUZZ_CHECK(strcmp(first.data, second.data) == 0);
    qvl_config_destroy(again);
    qvl_text_fini(&first);
    qvl_text_fini(&second);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const uint8_t *parts[2];
    size_t sizes[2];
    qvl_config *config = NULL;
    qvl_text override = {0};
    qvl_err err = {0};
    fuzz_split(parts, sizes, 2, data, size);
    FUZZ_CHECK(qvl_text_add(&override, (const char *)parts[0], sizes[0], NULL) == QVL_OK);
    const char *const overrides[] = {override.data};
    const qvl_status rc = qvl_config_parse(&config, (const char *)parts[1], sizes[1], "c.yaml",
                                           overrides, sizes[0] > 0, &err);
    fuzz_expect(rc, &err);
    if (rc == QVL_OK)
        check_round_trip(config);
    qvl_config_destroy(config);
    qvl_text_fini(&override);
    return 0;
}
