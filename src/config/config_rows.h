/* Short names for the rows of the table of keys; for config_table.c alone. */
#ifndef QVL_SRC_CONFIG_CONFIG_ROWS_H
#define QVL_SRC_CONFIG_CONFIG_ROWS_H

#include "src/config/config_table.h"

#define USED_(type, key, member, text, low, high, choices, help)                                   \
    {                                                                                              \
        key, type, QVL_OPTION_USED, offsetof(qvl_config, member), text, low, high, choices, NULL,  \
            help                                                                                   \
    }
#define BOOL(name, text, help) USED_(QVL_OPTION_BOOL, #name, name, text, 0, 0, NULL, help)
#define INT(name, text, low, high, help)                                                           \
    USED_(QVL_OPTION_INT, #name, name, text, low, high, NULL, help)
#define FLOAT(name, text, low, high, help)                                                         \
    USED_(QVL_OPTION_FLOAT, #name, name, text, low, high, NULL, help)
#define TEXT(name, text, help) USED_(QVL_OPTION_TEXT, #name, name, text, 0, 0, NULL, help)
#define LIST(name, text, help) USED_(QVL_OPTION_LIST, #name, name, text, 0, 0, NULL, help)
#define CHOICE(name, text, choices, help)                                                          \
    USED_(QVL_OPTION_TEXT, #name, name, text, 0, 0, choices, help)
/* The first choice is LLaMA-Factory's default. */
#define FIXED(key, choices, help)                                                                  \
    {                                                                                              \
        key, QVL_OPTION_ANY, QVL_OPTION_FIXED, 0, NULL, 0, 0, choices, NULL, help                  \
    }
#define IGNORED(key, help)                                                                         \
    {                                                                                              \
        key, QVL_OPTION_ANY, QVL_OPTION_IGNORED, 0, NULL, 0, 0, NULL, NULL, help                   \
    }
#define SECTION(title)                                                                             \
    {                                                                                              \
        NULL, QVL_OPTION_ANY, QVL_OPTION_IGNORED, 0, NULL, 0, 0, NULL, title, NULL                 \
    }

/* Reasons that several rows share. */
#define NO_HUB     "hub access: nothing is fetched from a network"
#define OTHER      "belongs to a method that qvl does not have"
#define GENERATION "generation: has no effect on training"
#define LOADER     "data loading: all cores are used, samples come from one file"
#define SERVING    "serving: has no effect on training"
#define VIDEO      "videos are not read; a sample with one is an error"
#define KERNELS    "qvl has its own kernels"
#define PYTORCH    "belongs to PyTorch: qvl is compiled, and plans memory before the start"
#define TRACKING   "tracking: no tracker is called"
#define ONLY_LOSS  "evaluation computes the loss"

#endif
