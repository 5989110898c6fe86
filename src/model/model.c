#include "src/model/model.h"

#include "io/hub_cache.h"

void qvl_model_close(qvl_model *model)
{
    qvl_weights_destroy(model->text);
    qvl_weights_destroy(model->vision);
    qvl_weight_files_close(model->files);
    *model = (qvl_model){0};
}

/* Tensors that config.json does not speak of: more layers than it says is a mix-up of files; names
 * of no known family are somebody's extra, and only noted. */
static qvl_status check_unknown(const qvl_model *model, qvl_log *log, qvl_err *err)
{
    const char *first = NULL;
    bool is_layer = false;
    const size_t n =
        qvl_weights_unknown(model->files, model->text, model->vision, &first, &is_layer);
    if (n == 0)
        return QVL_OK;
    if (is_layer)
        return qvl_fail(err, QVL_EDATA,
                        "%s: tensor %s (and %zu more) has no place in the model that config.json "
                        "describes",
                        model->directory, first, n - 1);
    qvl_log_warn(log, "%s: %zu tensors are not used, the first is %s", model->directory, n, first);
    return QVL_OK;
}

qvl_status qvl_model_open(qvl_model *out, const char *name, const char *cache_dir,
                          const char *revision, const qvl_device *dev,
                          const qvl_lora_options *adapters, qvl_log *log, qvl_err *err)
{
    qvl_weight_layout layout = {.width_align = dev->width_align, .act_bytes = dev->act_bytes};
    for (int g = 0; g < QVL_N_GROUPS; g++)
        layout.tail[g] = qvl_lora_options_tail(adapters, (qvl_group)g, dev->tail_align);
    qvl_status rc = QVL_OK;
    QVL_TRY(qvl_hub_find(out->directory, name, cache_dir, revision, err));
    QVL_TRY(qvl_model_dims_read(&out->dims, out->directory, err));
    QVL_TRY(qvl_weight_files_open(&out->files, out->directory, err));
    if (!qvl_weight_files_find(out->files, "lm_head.weight", NULL))
        out->dims.text.is_tied = true; /* REFERENCE 1.2 */
    QVL_TRY(qvl_weights_create(&out->text, QVL_WEIGHTS_TEXT, &out->dims, &layout, err));
    QVL_TRY(qvl_weights_create(&out->vision, QVL_WEIGHTS_VISION, &out->dims, &layout, err));
    QVL_TRY(qvl_weights_check(out->text, out->files, err));
    QVL_TRY(qvl_weights_check(out->vision, out->files, err));
    QVL_TRY(check_unknown(out, log, err));
out:
    if (rc != QVL_OK)
        qvl_model_close(out);
    return rc;
}
