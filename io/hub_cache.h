/* Finds a model directory: a path, or a hub name in the local Hugging Face cache. No network. */
#ifndef QVL_IO_HUB_CACHE_H
#define QVL_IO_HUB_CACHE_H

#include "src/base/files.h"
#include "src/base/status.h"

#ifdef __cplusplus
extern "C" {
#endif

/* name: a directory, or "owner/model" that is looked up in cache_dir (NULL: HF_HUB_CACHE, else
 * HF_HOME/hub, else XDG_CACHE_HOME/huggingface/hub, else ~/.cache/huggingface/hub) at revision (a
 * branch, tag or commit). QVL_EMISSING says where was looked. */
qvl_status qvl_hub_find(char out[QVL_PATH_BYTES], const char *name, const char *cache_dir,
                        const char *revision, qvl_err *err);

#ifdef __cplusplus
}
#endif
#endif
