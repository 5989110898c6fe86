/* A record of a data file as a conversation: LLaMA-Factory's converters (REFERENCE 7.3, 7.4). */
#ifndef QVL_SRC_DATA_CONVERSATION_H
#define QVL_SRC_DATA_CONVERSATION_H

#include <stddef.h>
#include <stdint.h>

#include <jansson.h>

#include "src/base/status.h"
#include "src/base/text.h"
#include "src/data/dataset_info.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef enum qvl_role { QVL_USER, QVL_ASSISTANT, QVL_OBSERVATION, QVL_FUNCTION } qvl_role;

typedef struct qvl_span {
    size_t begin, n; /* bytes of qvl_conversation.text */
} qvl_span;

typedef struct qvl_message {
    qvl_role role;
    qvl_span content;
    size_t number; /* in the record's list, for messages */
} qvl_message;

/* Start with {0}; reused from record to record. */
typedef struct qvl_conversation {
    qvl_text text; /* all contents */
    qvl_message *messages;
    size_t n_messages, messages_capacity;
    size_t number; /* of the message that is being read */
    qvl_span system, tools;
    const char **images; /* paths as the record gives them, borrowed from it */
    size_t n_images, images_capacity;
    const char *dropped; /* why LLaMA-Factory leaves it out; NULL when it does not */
} qvl_conversation;

void qvl_conversation_fini(qvl_conversation *conversation);

/* Fills in the conversation. What LLaMA-Factory drops (no answer, an unanswered last turn, no
 * messages) is no error: dropped then says why. QVL_EDATA for what it could not use: roles in the
 * wrong order, members that are missing or of another type, videos. The message says what, the
 * caller says where. */
qvl_status qvl_conversation_read(qvl_conversation *out, const json_t *record,
                                 const qvl_dataset_info *info, qvl_err *err);

#ifdef __cplusplus
}
#endif
#endif
