#include "io/chat_template.h"

#include <string.h>

#include <jansson.h>

#include "io/json_file.h"

static const char DEFAULT_SYSTEM[] = "You are a helpful assistant.";

static const char TOOLS_BEFORE[] =
    "\n\n# Tools\n\nYou may call one or more functions to assist with the user query.\n\n"
    "You are provided with function signatures within <tools></tools> XML tags:\n<tools>";

static const char TOOLS_AFTER[] =
    "\n</tools>\n\nFor each function call, return a json object with function name and arguments "
    "within <tool_call></tool_call> XML tags:\n<tool_call>\n{\"name\": <function-name>, "
    "\"arguments\": <args-json-object>}\n</tool_call>";

static qvl_status add_between(qvl_text *out, const char *before, const char *content, size_t n,
                              const char *after, qvl_err *err)
{
    qvl_status rc = qvl_text_puts(out, before, err);
    if (rc == QVL_OK)
        rc = qvl_text_add(out, content, n, err);
    return rc == QVL_OK ? qvl_text_puts(out, after, err) : rc;
}

/* Each function, wrapped as {"type": "function", "function": ...} unless it already is. */
static qvl_status add_tool(qvl_text *out, const json_t *tool, qvl_err *err)
{
    const char *type = json_string_value(json_object_get(tool, "type"));
    const int is_wrapped = type && strcmp(type, "function") == 0;
    qvl_status rc =
        qvl_text_puts(out, is_wrapped ? "\n" : "\n{\"type\": \"function\", \"function\": ", err);
    if (rc == QVL_OK)
        rc = qvl_json_dump_python(out, tool, err);
    return rc == QVL_OK && !is_wrapped ? qvl_text_puts(out, "}", err) : rc;
}

static qvl_status add_tools(qvl_text *out, const char *tools, size_t n, qvl_err *err)
{
    json_error_t why;
    json_t *list = json_loadb(tools, n, JSON_DECODE_ANY | JSON_ALLOW_NUL, &why), *tool;
    size_t i;
    qvl_status rc = QVL_OK;
    if (!list)
        return qvl_fail(err, QVL_EDATA, "tools: not JSON: %s", why.text);
    if (json_is_array(list) && json_array_size(list) == 0)
        goto out;
    QVL_TRY(qvl_text_puts(out, TOOLS_BEFORE, err));
    if (json_is_object(list))
        QVL_TRY(add_tool(out, list, err));
    else if (!json_is_array(list)) {
        rc = qvl_fail(err, QVL_EDATA, "tools: expected a list of functions");
        goto out;
    }
    json_array_foreach(list, i, tool)
    {
        if (!json_is_object(tool)) {
            rc = qvl_fail(err, QVL_EDATA, "tools: entry %zu is not an object", i);
            goto out;
        }
        QVL_TRY(add_tool(out, tool, err));
    }
    QVL_TRY(qvl_text_puts(out, TOOLS_AFTER, err));
out:
    json_decref(list);
    return rc;
}

qvl_status qvl_chat_add_system(qvl_text *out, const char *system, size_t n_system,
                               const char *fallback, const char *tools, size_t n_tools,
                               qvl_err *err)
{
    qvl_status rc = QVL_OK;
    if (n_system == 0) {
        system = fallback ? fallback : DEFAULT_SYSTEM;
        n_system = strlen(system);
    }
    if (n_system == 0 && n_tools == 0)
        return QVL_OK; /* default_system: "" leaves the turn out */
    QVL_TRY(qvl_text_puts(out, "<|im_start|>system\n", err));
    QVL_TRY(qvl_text_add(out, system, n_system, err));
    if (n_tools)
        QVL_TRY(add_tools(out, tools, n_tools, err));
    QVL_TRY(qvl_text_puts(out, "<|im_end|>\n", err));
out:
    return rc;
}

qvl_status qvl_chat_add_user(qvl_text *out, const char *content, size_t n, qvl_err *err)
{
    return add_between(out, "<|im_start|>user\n", content, n, "<|im_end|>\n<|im_start|>assistant\n",
                       err);
}

qvl_status qvl_chat_add_assistant(qvl_text *out, const char *content, size_t n, qvl_err *err)
{
    return add_between(out, "", content, n, "<|im_end|>\n", err);
}

qvl_status qvl_chat_add_observation(qvl_text *out, const char *content, size_t n, qvl_err *err)
{
    return add_between(out, "<|im_start|>user\n<tool_response>\n", content, n,
                       "\n</tool_response><|im_end|>\n<|im_start|>assistant\n", err);
}

static qvl_status add_call(qvl_text *out, const json_t *call, qvl_err *err)
{
    const json_t *name = json_object_get(call, "name"), *args = json_object_get(call, "arguments");
    qvl_status rc = QVL_OK;
    if (!json_is_string(name) || !args)
        return qvl_fail(err, QVL_EDATA,
                        "function call: expected an object with \"name\" and \"arguments\"");
    QVL_TRY(qvl_text_puts(out, "<tool_call>\n{\"name\": ", err));
    QVL_TRY(qvl_json_dump_python(out, name, err));
    QVL_TRY(qvl_text_puts(out, ", \"arguments\": ", err));
    QVL_TRY(qvl_json_dump_python(out, args, err));
    QVL_TRY(qvl_text_puts(out, "}\n</tool_call>", err));
out:
    return rc;
}

qvl_status qvl_chat_add_function(qvl_text *out, const char *content, size_t n, qvl_err *err)
{
    json_error_t why;
    json_t *calls = json_loadb(content, n, JSON_DECODE_ANY | JSON_ALLOW_NUL, &why), *call;
    size_t i;
    qvl_status rc = QVL_OK;
    if (!calls)
        return qvl_fail(err, QVL_EDATA, "function call: not JSON: %s", why.text);
    if (!json_is_array(calls))
        QVL_TRY(add_call(out, calls, err));
    json_array_foreach(calls, i, call)
    {
        if (i)
            QVL_TRY(qvl_text_puts(out, "\n", err));
        QVL_TRY(add_call(out, call, err));
    }
    QVL_TRY(qvl_text_puts(out, "<|im_end|>\n", err));
out:
    json_decref(calls);
    return rc;
}

qvl_status qvl_chat_add_image(qvl_text *out, long n_tokens, qvl_err *err)
{
    qvl_status rc = qvl_text_puts(out, "<|vision_start|>", err);
    for (long i = 0; rc == QVL_OK && i < n_tokens; i++)
        rc = qvl_text_puts(out, "<|image_pad|>", err);
    return rc == QVL_OK ? qvl_text_puts(out, "<|vision_end|>", err) : rc;
}
