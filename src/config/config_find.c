/* Finding keys in the table. */
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "src/config/config_table.h"

/* Names that a key has, or had, in other versions. */
static const struct {
    const char *old_name, *key;
} ALIASES[] = {{"evaluation_strategy", "eval_strategy"},
               {"image_dir", "media_dir"},
               {"activation_checkpointing", "gradient_checkpointing"}};

static bool matches(const char *pattern, const char *key)
{
    const size_t n = strlen(pattern);
    if (n && pattern[n - 1] == '*')
        return strncmp(pattern, key, n - 1) == 0 && strlen(key) >= n - 1;
    return strcmp(pattern, key) == 0;
}

int qvl_option_find(const char *key)
{
    for (size_t i = 0; i < sizeof ALIASES / sizeof *ALIASES; i++)
        if (strcmp(key, ALIASES[i].old_name) == 0)
            key = ALIASES[i].key;
    for (size_t i = 0; i < QVL_N_OPTIONS; i++)
        if (QVL_OPTIONS[i].key && matches(QVL_OPTIONS[i].key, key))
            return (int)i;
    return -1;
}

const char *qvl_option_nearest(const char *key)
{
    const char *nearest = NULL;
    int least = (int)strlen(key) / 3 + 2; /* further away is no misspelling */
    for (size_t i = 0; i < QVL_N_OPTIONS; i++) {
        const char *known = QVL_OPTIONS[i].key;
        const int distance = known && !strchr(known, '*') ? qvl_edit_distance(key, known) : 99;
        if (distance < least) {
            least = distance;
            nearest = known;
        }
    }
    return nearest;
}

const char *qvl_option_format_limit(char buffer[40], const qvl_option *option, double limit)
{
    if (option->type != QVL_OPTION_INT)
        return qvl_format_double(buffer, limit);
    snprintf(buffer, 40, "%" PRId64, (int64_t)limit);
    return buffer;
}
