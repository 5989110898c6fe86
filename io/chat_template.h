/* LLaMA-Factory's template qwen2_vl (REFERENCE 7.5): the exact text of each turn. */
#ifndef QVL_IO_CHAT_TEMPLATE_H
#define QVL_IO_CHAT_TEMPLATE_H

#include <stddef.h>

#include "src/base/status.h"
#include "src/base/text.h"

#ifdef __cplusplus
extern "C" {
#endif

/* All append to out. Content may hold any bytes. */

/* "<|im_start|>system\n{system}{tools}<|im_end|>\n". An empty system is fallback, or the template's
 * own when that is NULL. tools is the JSON text of a list (or one) of functions, n_tools 0: none.
 * QVL_EDATA when it is not. */
qvl_status qvl_chat_add_system(qvl_text *out, const char *system, size_t n_system,
                               const char *fallback, const char *tools, size_t n_tools,
                               qvl_err *err);
qvl_status qvl_chat_add_user(qvl_text *out, const char *content, size_t n, qvl_err *err);
qvl_status qvl_chat_add_assistant(qvl_text *out, const char *content, size_t n, qvl_err *err);
qvl_status qvl_chat_add_observation(qvl_text *out, const char *content, size_t n, qvl_err *err);
/* content is the JSON text of a call {"name": ..., "arguments": ...} or a list of them. */
qvl_status qvl_chat_add_function(qvl_text *out, const char *content, size_t n, qvl_err *err);

/* "<|vision_start|>" + "<|image_pad|>" * n_tokens + "<|vision_end|>": what <image> stands for. */
qvl_status qvl_chat_add_image(qvl_text *out, long n_tokens, qvl_err *err);

#ifdef __cplusplus
}
#endif
#endif
