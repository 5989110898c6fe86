/* What the demo's pictures show, in words: questions, answers, and prose to learn tokens from. */
#ifndef QVL_SRC_DEMO_TEXT_H
#define QVL_SRC_DEMO_TEXT_H

#include <stddef.h>

#include "src/base/text.h"

#ifdef __cplusplus
extern "C" {
#endif

enum {
    QVL_DEMO_N_SHAPES = 6,
    QVL_DEMO_N_COLOURS = 7,
    QVL_DEMO_N_GROUNDS = 4,
    QVL_DEMO_MAX_COUNT = 5
};

/* count shapes of one kind and colour on a plain ground. */
typedef struct qvl_scene {
    int shape, colour, ground; /* indices below the numbers above */
    int count;                 /* 1 .. QVL_DEMO_MAX_COUNT */
} qvl_scene;

typedef struct qvl_demo_question {
    const char *question, *answer; /* patterns for qvl_scene_describe */
} qvl_demo_question;

/* The questions about one picture. */
const qvl_demo_question *qvl_demo_questions(size_t *out_count);

/* Appends pattern, with its words in braces replaced by what fits the scene:
 *
 *     {shape} circle or circles   {shapes} circles       {colour} red     {other} another colour
 *     {ground} white              {number} three         {Number} Three
 *     {is} is or are              {Is} Is or Are         {this} This is a or These are
 *     {this colour} This is an orange or These are orange
 *
 * A word that is none of these is QVL_EINTERNAL. */
qvl_status qvl_scene_describe(qvl_text *out, const char *pattern, const qvl_scene *scene,
                              qvl_err *err);

/* "two", for 1 .. QVL_DEMO_MAX_COUNT. */
const char *qvl_demo_number(int number);

/* Some pages about shapes, colours, days and numbers. */
const char *qvl_demo_prose(void);

#ifdef __cplusplus
}
#endif
#endif
