/* The table of keys. */
#ifndef QVL_SRC_CONFIG_CONFIG_TABLE_H
#define QVL_SRC_CONFIG_CONFIG_TABLE_H

#include <stddef.h>

#include "src/config/config.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef enum qvl_option_type {
    QVL_OPTION_BOOL,
    QVL_OPTION_INT,
    QVL_OPTION_FLOAT,
    QVL_OPTION_TEXT,
    QVL_OPTION_LIST, /* words with commas between; a YAML list becomes that */
    QVL_OPTION_MAP,  /* mapping of words to numbers */
    QVL_OPTION_ANY   /* whatever it is, it is not looked at */
} qvl_option_type;

typedef enum qvl_option_role {
    QVL_OPTION_USED,    /* has an effect */
    QVL_OPTION_IGNORED, /* accepted; help says why it has no effect */
    QVL_OPTION_FIXED    /* only the values in choices; help says what is not done */
} qvl_option_role;

typedef struct qvl_option {
    const char *key;
    qvl_option_type type;
    qvl_option_role role;
    size_t offset;            /* in qvl_config, for USED */
    const char *default_text; /* "null" where the YAML may say null */
    double min, max;          /* of numbers, inclusive */
    const char *choices;      /* "a|b|c", of a list for each word; NULL: any text */
    const char *section;      /* set on the first key of a section */
    const char *help;         /* one line */
} qvl_option;

extern const qvl_option QVL_OPTIONS[];
extern const size_t QVL_N_OPTIONS;

/* Number of a key in the table, or -1. Old spellings of a key are found too. */
int qvl_option_find(const char *key);

/* The key that is nearest to a misspelt one, or NULL when none is near. */
const char *qvl_option_nearest(const char *key);

/* min or max of a number, as its type is written. */
const char *qvl_option_format_limit(char buffer[40], const qvl_option *option, double limit);

#ifdef __cplusplus
}
#endif
#endif
