#include "src/data/conversation.h"

#include <stdlib.h>
#include <string.h>

#include "io/json_file.h"
#include "src/base/memory.h"

void qvl_conversation_fini(qvl_conversation *c)
{
    qvl_text_fini(&c->text);
    free(c->messages);
    free(c->images);
    *c = (qvl_conversation){0};
}

/* ---- building ----------------------------------------------------------------------------------
 */

static qvl_status add_text(qvl_conversation *c, qvl_span *out, const char *bytes, size_t n,
                           qvl_err *err)
{
    *out = (qvl_span){c->text.len, n};
    return qvl_text_add(&c->text, bytes, n, err);
}

static qvl_status add_message(qvl_conversation *c, qvl_role role, const char *bytes, size_t n,
                              qvl_err *err)
{
    const qvl_status rc = qvl_reserve(&c->messages, &c->messages_capacity, c->n_messages + 1,
                                      sizeof *c->messages, "messages", err);
    if (rc != QVL_OK)
        return rc;
    c->messages[c->n_messages].role = role;
    c->messages[c->n_messages].number = c->number;
    return add_text(c, &c->messages[c->n_messages++].content, bytes, n, err);
}

static qvl_status add_json_message(qvl_conversation *c, qvl_role role, const json_t *value,
                                   const char *member, qvl_err *err)
{
    if (!json_is_string(value))
        return qvl_fail(err, QVL_EDATA, "message %zu: \"%s\" is %s, expected a text", c->number,
                        member, value ? "not a text" : "missing");
    return add_message(c, role, json_string_value(value), json_string_length(value), err);
}

/* A column's value; NULL when the data set has no such column, or the record no such member. */
static const json_t *column(const json_t *record, const char *name)
{
    const json_t *value = name ? json_object_get(record, name) : NULL;
    return value && !json_is_null(value) ? value : NULL;
}

/* What Python takes for false. */
static int is_empty(const json_t *value)
{
    return !value || (json_is_string(value) && json_string_length(value) == 0) ||
           json_is_false(value) || (json_is_array(value) && json_array_size(value) == 0) ||
           (json_is_object(value) && json_object_size(value) == 0) ||
           (json_is_number(value) && json_number_value(value) == 0.0);
}

/* system and tools: texts; tools may also be the list itself. */
static qvl_status read_extra(qvl_conversation *c, qvl_span *out, const json_t *record,
                             const char *name, int may_be_list, qvl_err *err)
{
    const json_t *value = column(record, name);
    if (is_empty(value))
        return QVL_OK;
    if (json_is_string(value))
        return add_text(c, out, json_string_value(value), json_string_length(value), err);
    if (!may_be_list || !(json_is_array(value) || json_is_object(value)))
        return qvl_fail(err, QVL_EDATA, "\"%s\" is not a text", name);
    *out = (qvl_span){c->text.len, 0};
    const qvl_status rc = qvl_json_dump_python(&c->text, value, err);
    out->n = c->text.len - out->begin;
    return rc;
}

static qvl_status read_media(qvl_conversation *c, const json_t *record,
                             const qvl_dataset_info *info, qvl_err *err)
{
    const json_t *images = column(record, info->images), *image;
    size_t i;
    qvl_status rc = QVL_OK;
    if (!is_empty(column(record, info->videos)) || !is_empty(column(record, info->audios)))
        return qvl_fail(err, QVL_EDATA, "has a video or an audio; only images are supported");
    if (is_empty(images))
        return QVL_OK;
    const size_t count = json_is_array(images) ? json_array_size(images) : 1;
    QVL_TRY(qvl_reserve(&c->images, &c->images_capacity, count, sizeof *c->images, "images", err));
    for (i = 0; i < count; i++) {
        image = json_is_array(images) ? json_array_get(images, i) : images;
        if (!json_is_string(image) || strlen(json_string_value(image)) != json_string_length(image))
            return qvl_fail(err, QVL_EDATA, "\"%s\"[%zu] is not a path", info->images, i);
        c->images[c->n_images++] = json_string_value(image);
    }
out:
    return rc;
}

/* ---- alpaca ------------------------------------------------------------------------------------
 */

static qvl_status read_history(qvl_conversation *c, const json_t *record,
                               const qvl_dataset_info *info, qvl_err *err)
{
    const json_t *history = column(record, info->history), *pair;
    size_t i;
    qvl_status rc = QVL_OK;
    if (!json_is_array(history))
        return QVL_OK;
    json_array_foreach(history, i, pair)
    {
        if (!json_is_array(pair) || json_array_size(pair) != 2)
            return qvl_fail(err, QVL_EDATA, "\"%s\"[%zu] is not a pair [question, answer]",
                            info->history, i);
        c->number = 2 * i;
        QVL_TRY(add_json_message(c, QVL_USER, json_array_get(pair, 0), info->history, err));
        c->number++;
        QVL_TRY(add_json_message(c, QVL_ASSISTANT, json_array_get(pair, 1), info->history, err));
    }
out:
    return rc;
}

static qvl_status read_alpaca(qvl_conversation *c, const json_t *record,
                              const qvl_dataset_info *info, qvl_err *err)
{
    const char *names[2] = {info->prompt, info->query};
    const json_t *response = column(record, info->response);
    qvl_status rc = QVL_OK;
    QVL_TRY(read_history(c, record, info, err));
    QVL_TRY(add_message(c, QVL_USER, "", 0, err));
    qvl_message *user = &c->messages[c->n_messages - 1];
    for (int i = 0; i < 2; i++) {
        const json_t *part = column(record, names[i]);
        if (is_empty(part))
            continue;
        if (!json_is_string(part))
            return qvl_fail(err, QVL_EDATA, "\"%s\" is not a text", names[i]);
        if (user->content.n)
            QVL_TRY(qvl_text_puts(&c->text, "\n", err));
        QVL_TRY(qvl_text_add(&c->text, json_string_value(part), json_string_length(part), err));
        user->content.n = c->text.len - user->content.begin;
    }
    if (json_is_string(response))
        QVL_TRY(add_json_message(c, QVL_ASSISTANT, response, info->response, err));
    else
        c->dropped = "has no answer";
    QVL_TRY(read_extra(c, &c->system, record, info->system, 0, err));
    QVL_TRY(read_extra(c, &c->tools, record, info->tools, 1, err));
out:
    return rc;
}

/* ---- sharegpt and openai -----------------------------------------------------------------------
 */

static int is_tag(const json_t *role, const char *tag)
{
    return tag && json_is_string(role) && strcmp(json_string_value(role), tag) == 0;
}

static int role_of(const json_t *role, const qvl_dataset_info *info, qvl_role *out)
{
    const char *const tags[] = {info->user_tag, info->assistant_tag, info->observation_tag,
                                info->function_tag};
    for (int i = 0; i < 4; i++)
        if (is_tag(role, tags[i])) {
            *out = (qvl_role)i;
            return 1;
        }
    return 0;
}

/* Calls of an openai message as the JSON text of a list of functions. */
static qvl_status read_tool_calls(qvl_text *out, const json_t *calls, qvl_err *err)
{
    json_t *list = json_array(), *call;
    size_t i;
    qvl_status rc = QVL_OK;
    json_array_foreach(calls, i, call)
    {
        json_t *function = json_object_get(call, "function");
        if (!json_is_object(function)) {
            rc = qvl_fail(err, QVL_EDATA, "tool_calls[%zu] has no \"function\"", i);
            break;
        }
        json_array_append(list, function);
    }
    if (rc == QVL_OK)
        rc = qvl_json_dump_python(out, list, err);
    json_decref(list);
    return rc;
}

/* Consecutive tool messages are one observation. */
static qvl_status append_observation(qvl_conversation *c, const json_t *content, qvl_err *err)
{
    static const char BETWEEN[] = "\n</tool_response>\n<tool_response>\n";
    qvl_message *last = c->n_messages ? &c->messages[c->n_messages - 1] : NULL;
    qvl_status rc = QVL_OK;
    if (!last || last->role != QVL_OBSERVATION || !json_is_string(content))
        return add_json_message(c, QVL_OBSERVATION, content, "content", err);
    QVL_TRY(qvl_text_puts(&c->text, BETWEEN, err));
    QVL_TRY(qvl_text_add(&c->text, json_string_value(content), json_string_length(content), err));
    last->content.n = c->text.len - last->content.begin;
out:
    return rc;
}

static qvl_status read_message(qvl_conversation *c, const json_t *message,
                               const qvl_dataset_info *info, qvl_err *err)
{
    const json_t *role = json_object_get(message, info->role_tag);
    const json_t *content = json_object_get(message, info->content_tag);
    const json_t *calls = json_object_get(message, "tool_calls");
    qvl_text text = {0};
    qvl_role known = QVL_USER;
    qvl_status rc = QVL_OK;
    if (!json_is_object(message) || !json_is_string(role))
        return qvl_fail(err, QVL_EDATA, "message %zu has no \"%s\"", c->number, info->role_tag);
    if (!role_of(role, info, &known))
        return qvl_fail(err, QVL_EDATA, "message %zu has the role \"%s\", which no tag names",
                        c->number, json_string_value(role));
    if (info->formatting != QVL_OPENAI)
        return add_json_message(c, known, content, info->content_tag, err);
    if (known == QVL_OBSERVATION)
        return append_observation(c, content, err);
    if ((known == QVL_ASSISTANT || known == QVL_FUNCTION) && json_array_size(calls) > 0) {
        QVL_TRY(read_tool_calls(&text, calls, err));
        rc = add_message(c, QVL_FUNCTION, text.data, text.len, err);
    } else {
        rc = add_json_message(c, known, content, info->content_tag, err);
    }
out:
    qvl_text_fini(&text);
    return rc;
}

/* Positions 0, 2, ... are the user's or a tool's, positions 1, 3, ... the assistant's. */
static qvl_status check_roles(const qvl_conversation *c, qvl_err *err)
{
    static const char *const NAMES[] = {"user", "assistant", "observation", "function"};
    for (size_t i = 0; i < c->n_messages; i++) {
        const qvl_role role = c->messages[i].role;
        const int is_asking = role == QVL_USER || role == QVL_OBSERVATION;
        if (is_asking != (i % 2 == 0))
            return qvl_fail(err, QVL_EDATA,
                            "roles in the wrong order: message %zu is of the %s, expected the %s",
                            c->messages[i].number, NAMES[role],
                            i % 2 ? "assistant or a function" : "user or an observation");
    }
    return QVL_OK;
}

static qvl_status read_messages(qvl_conversation *c, const json_t *record,
                                const qvl_dataset_info *info, qvl_err *err)
{
    const json_t *messages = json_object_get(record, info->messages);
    size_t first = 0;
    qvl_status rc = QVL_OK;
    if (!json_is_array(messages))
        return qvl_fail(err, QVL_EDATA, "\"%s\" is %s, expected a list of messages", info->messages,
                        messages ? "not a list" : "missing");
    const json_t *opening = json_array_get(messages, 0);
    if (is_tag(json_object_get(opening, info->role_tag), info->system_tag)) {
        const json_t *content = json_object_get(opening, info->content_tag);
        if (!json_is_string(content))
            return qvl_fail(err, QVL_EDATA, "the system message has no \"%s\"", info->content_tag);
        QVL_TRY(
            add_text(c, &c->system, json_string_value(content), json_string_length(content), err));
        first = 1;
    } else {
        QVL_TRY(read_extra(c, &c->system, record, info->system, 0, err));
    }
    for (c->number = first; c->number < json_array_size(messages); c->number++)
        QVL_TRY(read_message(c, json_array_get(messages, c->number), info, err));
    /* LLaMA-Factory takes in the tools' answers with the message after them; the last have none. */
    if (info->formatting == QVL_OPENAI && c->n_messages &&
        c->messages[c->n_messages - 1].role == QVL_OBSERVATION)
        c->n_messages--;
    QVL_TRY(check_roles(c, err));
    if (c->n_messages == 0)
        c->dropped = "has no messages";
    else if (c->n_messages % 2)
        c->dropped = "its last turn has no answer";
    QVL_TRY(read_extra(c, &c->tools, record, info->tools, 1, err));
out:
    return rc;
}

qvl_status qvl_conversation_read(qvl_conversation *out, const json_t *record,
                                 const qvl_dataset_info *info, qvl_err *err)
{
    qvl_text_clear(&out->text);
    out->n_messages = out->n_images = out->number = 0;
    out->system = out->tools = (qvl_span){0, 0};
    out->dropped = NULL;
    qvl_status rc = info->formatting == QVL_ALPACA ? read_alpaca(out, record, info, err)
                                                   : read_messages(out, record, info, err);
    return rc == QVL_OK ? read_media(out, record, info, err) : rc;
}
