#include "src/demo/demo_facts.h"

#include <ctype.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "src/base/memory.h"

static const char *const DAYS[] = {"Monday", "Tuesday",  "Wednesday", "Thursday",
                                   "Friday", "Saturday", "Sunday"};
static const char *const MONTHS[] = {"January",   "February", "March",    "April",
                                     "May",       "June",     "July",     "August",
                                     "September", "October",  "November", "December"};
static const char *const OPPOSITES[][2] = {
    {"hot", "cold"},  {"big", "small"}, {"early", "late"}, {"open", "closed"}, {"full", "empty"},
    {"fast", "slow"}, {"near", "far"},  {"light", "dark"}, {"wet", "dry"},     {"young", "old"},
    {"high", "low"},  {"happy", "sad"}, {"long", "short"}, {"strong", "weak"},
};
static const char *const PLURALS[][2] = {
    {"box", "boxes"}, {"leaf", "leaves"},   {"child", "children"}, {"mouse", "mice"},
    {"day", "days"},  {"city", "cities"},   {"foot", "feet"},      {"circle", "circles"},
    {"cat", "cats"},  {"cross", "crosses"}, {"story", "stories"},  {"knife", "knives"},
};
static const char *const SOUNDS[][2] = {{"cat", "meow"},  {"dog", "woof"},   {"cow", "moo"},
                                        {"sheep", "baa"}, {"duck", "quack"}, {"bee", "buzz"}};
static const char *const SIDES[][2] = {
    {"triangle", "three"}, {"square", "four"}, {"pentagon", "five"}, {"hexagon", "six"}};
static const char *const THINGS[][2] = {{"grass", "green"}, {"snow", "white"},
                                        {"coal", "black"},  {"blood", "red"},
                                        {"chalk", "white"}, {"honey", "yellow"}};
static const char *const MIXES[][3] = {{"red", "yellow", "orange"},
                                       {"red", "blue", "purple"},
                                       {"blue", "yellow", "green"},
                                       {"black", "white", "grey"},
                                       {"red", "white", "pink"}};
static const char *const WORDS[] = {"river",  "apple",  "window", "garden", "paper",
                                    "summer", "bridge", "candle", "market", "island"};

#define COUNT(table) ((int)(sizeof(table) / sizeof((table)[0])))

typedef struct fact_list {
    qvl_fact *facts;
    size_t count, capacity;
} fact_list;

/* A new fact about input with this brief answer; the caller writes question and answer. */
static qvl_status add_fact(qvl_fact **out, fact_list *list, const char *input, const char *brief,
                           qvl_err *err)
{
    const qvl_status rc = qvl_reserve(&list->facts, &list->capacity, list->count + 1,
                                      sizeof *list->facts, "facts", err);
    if (rc != QVL_OK)
        return rc;
    *out = &list->facts[list->count++];
    **out = (qvl_fact){0};
    snprintf((*out)->input, sizeof(*out)->input, "%s", input);
    snprintf((*out)->brief, sizeof(*out)->brief, "%s", brief);
    return QVL_OK;
}

static void say(char text[96], const char *format, ...) QVL_PRINTF(2, 3);

static void say(char text[96], const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vsnprintf(text, 96, format, args);
    va_end(args);
}

static qvl_status add_sums(fact_list *list, qvl_err *err)
{
    static const char *const NAMES[3] = {"plus", "minus", "times"};
    qvl_status rc = QVL_OK;
    for (int kind = 0; kind < 3; kind++)
        for (int i = 0; i < (kind == 0 ? 24 : 12); i++) {
            const int a = 2 + i / 3, b = 1 + i % 3 * (kind == 1 ? 1 : 2) + kind / 2;
            const int first = kind == 1 ? a + 3 : a; /* no negative results */
            const int result = kind == 0 ? first + b : kind == 1 ? first - b : first * b;
            char brief[16];
            qvl_fact *fact;
            snprintf(brief, sizeof brief, "%d", result);
            QVL_TRY(add_fact(&fact, list, "", brief, err));
            say(fact->question, "What is %d %s %d?", first, NAMES[kind], b);
            say(fact->answer, "%d %s %d is %d.", first, NAMES[kind], b, result);
        }
out:
    return rc;
}

static qvl_status add_calendar(fact_list *list, qvl_err *err)
{
    qvl_fact *fact;
    qvl_status rc = QVL_OK;
    for (int i = 0; i < COUNT(DAYS); i++) {
        const char *day = DAYS[i], *next = DAYS[(i + 1) % COUNT(DAYS)];
        QVL_TRY(add_fact(&fact, list, "", next, err));
        say(fact->question, "Which day comes after %s?", day);
        say(fact->answer, "%s comes after %s.", next, day);
        QVL_TRY(add_fact(&fact, list, "", day, err));
        say(fact->question, "Which day comes before %s?", next);
        say(fact->answer, "%s comes before %s.", day, next);
    }
    for (int i = 0; i < COUNT(MONTHS); i++) {
        const char *next = MONTHS[(i + 1) % COUNT(MONTHS)];
        QVL_TRY(add_fact(&fact, list, "", next, err));
        say(fact->question, "Which month comes after %s?", MONTHS[i]);
        say(fact->answer, "%s comes after %s.", next, MONTHS[i]);
    }
out:
    return rc;
}

static qvl_status add_things(fact_list *list, qvl_err *err)
{
    qvl_fact *fact;
    qvl_status rc = QVL_OK;
    for (int i = 0; i < COUNT(MIXES); i++) {
        QVL_TRY(add_fact(&fact, list, "", MIXES[i][2], err));
        say(fact->question, "What colour do %s and %s make?", MIXES[i][0], MIXES[i][1]);
        say(fact->answer, "Together %s and %s make %s.", MIXES[i][0], MIXES[i][1], MIXES[i][2]);
    }
    for (int i = 0; i < COUNT(THINGS); i++) {
        QVL_TRY(add_fact(&fact, list, "", THINGS[i][1], err));
        say(fact->question, "What colour is %s?", THINGS[i][0]);
        say(fact->answer, "The colour of %s is %s.", THINGS[i][0], THINGS[i][1]);
    }
    for (int i = 0; i < COUNT(SIDES); i++) {
        QVL_TRY(add_fact(&fact, list, "", SIDES[i][1], err));
        say(fact->question, "How many sides does a %s have?", SIDES[i][0]);
        say(fact->answer, "A %s has %s sides.", SIDES[i][0], SIDES[i][1]);
    }
    for (int i = 0; i < COUNT(SOUNDS); i++) {
        QVL_TRY(add_fact(&fact, list, "", SOUNDS[i][1], err));
        say(fact->question, "What does a %s say?", SOUNDS[i][0]);
        say(fact->answer, "A %s says %s.", SOUNDS[i][0], SOUNDS[i][1]);
    }
out:
    return rc;
}

static qvl_status add_words(fact_list *list, qvl_err *err)
{
    qvl_fact *fact;
    qvl_status rc = QVL_OK;
    for (int i = 0; i < COUNT(OPPOSITES); i++) {
        QVL_TRY(add_fact(&fact, list, OPPOSITES[i][0], OPPOSITES[i][1], err));
        say(fact->question, "Give the opposite of this word.");
        say(fact->answer, "The opposite of %s is %s.", OPPOSITES[i][0], OPPOSITES[i][1]);
    }
    for (int i = 0; i < COUNT(PLURALS); i++) {
        QVL_TRY(add_fact(&fact, list, PLURALS[i][0], PLURALS[i][1], err));
        say(fact->question, "Write the plural.");
        say(fact->answer, "One %s, two %s.", PLURALS[i][0], PLURALS[i][1]);
    }
    for (int i = 0; i < COUNT(WORDS); i++) {
        char capitals[16] = "";
        for (size_t k = 0; WORDS[i][k]; k++)
            capitals[k] = (char)toupper((unsigned char)WORDS[i][k]);
        QVL_TRY(add_fact(&fact, list, WORDS[i], capitals, err));
        say(fact->question, "Write this word in capital letters.");
        say(fact->answer, "%s", capitals);
    }
out:
    return rc;
}

qvl_status qvl_demo_facts(qvl_fact **out, size_t *out_count, qvl_err *err)
{
    fact_list list = {0};
    qvl_status rc = QVL_OK;
    QVL_TRY(add_sums(&list, err));
    QVL_TRY(add_calendar(&list, err));
    QVL_TRY(add_things(&list, err));
    QVL_TRY(add_words(&list, err));
out:
    if (rc != QVL_OK) {
        free(list.facts);
        list = (fact_list){0};
    }
    *out = list.facts;
    *out_count = list.count;
    return rc;
}
