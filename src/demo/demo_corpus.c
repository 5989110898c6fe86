#include "src/demo/demo_data.h"

#include <stdlib.h>

#include "src/demo/demo_facts.h"
#include "src/demo/demo_text.h"

static qvl_status add_scenes(qvl_text *out, qvl_err *err)
{
    size_t n_questions = 0;
    const qvl_demo_question *questions = qvl_demo_questions(&n_questions);
    qvl_status rc = QVL_OK;
    for (int i = 0; i < QVL_DEMO_N_SHAPES * QVL_DEMO_N_COLOURS * QVL_DEMO_MAX_COUNT; i++) {
        const qvl_scene scene = {.shape = i % QVL_DEMO_N_SHAPES,
                                 .colour = i / QVL_DEMO_N_SHAPES % QVL_DEMO_N_COLOURS,
                                 .ground = i % QVL_DEMO_N_GROUNDS,
                                 .count = 1 + i / QVL_DEMO_N_SHAPES / QVL_DEMO_N_COLOURS};
        for (size_t k = 0; k < n_questions; k++) {
            QVL_TRY(qvl_scene_describe(out, questions[k].question, &scene, err));
            QVL_TRY(qvl_text_puts(out, "\n", err));
            QVL_TRY(qvl_scene_describe(out, questions[k].answer, &scene, err));
            QVL_TRY(qvl_text_puts(out, "\n", err));
        }
    }
out:
    return rc;
}

qvl_status qvl_demo_add_corpus(qvl_text *out, qvl_err *err)
{
    qvl_fact *facts = NULL;
    size_t n_facts = 0;
    qvl_status rc = QVL_OK;
    QVL_TRY(qvl_text_puts(out, qvl_demo_prose(), err));
    QVL_TRY(add_scenes(out, err));
    QVL_TRY(qvl_demo_facts(&facts, &n_facts, err));
    for (size_t i = 0; i < n_facts; i++) {
        QVL_TRY(qvl_text_printf(out, err, "system\nYou are a helpful assistant.\nuser\n%s\n",
                                facts[i].question));
        QVL_TRY(qvl_text_printf(out, err, "%s\nassistant\n%s\n", facts[i].input, facts[i].answer));
    }
out:
    free(facts);
    return rc;
}
