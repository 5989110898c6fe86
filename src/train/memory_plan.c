#include "src/train/memory_plan.h"

#include <inttypes.h>
#include <string.h>

#include "src/base/memory.h"
#include "src/model/vision.h"

/* What is left for the libraries and the system: a share of a host's free memory; on a GPU what
 * kernels take when they are first loaded, and what is lost to the granularity of allocations. */
static const double HOST_USABLE = 0.9;
static const uint64_t GPU_RESERVE = (uint64_t)400 << 20;

/* With recomputation asked for, packs and chunks of logits are small: memory is what counts. */
enum { LEAN_PACK_TOKENS = 2048, LEAN_HEAD_ROWS = 256 };

/* What is kept beyond the least on a GPU then: no more than this, and no more than this part of
 * what keeping everything would take. */
static const uint64_t LEAN_SPARE_BYTES = (uint64_t)128 << 20;
enum { LEAN_SPARE_PART = 8 };

/* Address space that a process on CPUs takes beyond what is planned. OpenBLAS maps 128 MiB for each
 * thread that multiplies at the same time, and asks for ever when it does not get them; a thread
 * has a stack and an arena of malloc. The rest: what weights are read through, threads that read
 * and save ahead. */
static const uint64_t THREAD_RESERVE = (uint64_t)200 << 20;
static const uint64_t PROCESS_RESERVE = (uint64_t)192 << 20;

static bool is_host(const qvl_device *dev)
{
    return strcmp(dev->ops->name, "cpu") == 0;
}

static uint64_t usable_of(const qvl_device *dev, uint64_t available)
{
    if (is_host(dev))
        return (uint64_t)(HOST_USABLE * (double)available);
    return available > GPU_RESERVE ? available - GPU_RESERVE : 0;
}

static uint64_t larger(uint64_t a, uint64_t b)
{
    return a > b ? a : b;
}

static uint64_t smaller(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

/* Bytes of the decoder's activations and of the workspace for this many tokens and kept layers. */
static qvl_status measure_decoder(qvl_memory_plan *plan, const qvl_model *model,
                                  const qvl_lora *lora, qvl_device *dev, qvl_err *err)
{
    const qvl_decoder_options options = {.tokens = plan->pack_tokens,
                                         .n_kept = plan->n_kept,
                                         .spare_bytes = plan->spare_bytes,
                                         .head_rows = plan->head_rows,
                                         .is_training = true,
                                         .loss_rows_only = true};
    qvl_plan slots = {0};
    qvl_decoder *decoder = NULL;
    size_t workspace = 0;
    qvl_status rc = QVL_OK;
    QVL_TRY(qvl_decoder_create(&decoder, &model->dims, lora, dev, &options, &slots, err));
    plan->activation_bytes = slots.total_bytes;
    plan->kept = qvl_decoder_kept_of(decoder, plan->pack_tokens);
    const qvl_workspace_limits limits = qvl_decoder_limits(decoder, plan->longest_sample);
    QVL_TRY(dev->ops->workspace_bytes(dev, &workspace, &limits, err));
    plan->workspace_bytes = larger(plan->workspace_bytes, workspace);
out:
    qvl_decoder_destroy(decoder);
    qvl_plan_fini(&slots);
    return rc;
}

static qvl_status measure_vision(qvl_memory_plan *plan, const qvl_model *model, qvl_device *dev,
                                 qvl_err *err)
{
    qvl_plan slots = {0};
    qvl_vision *vision = NULL;
    size_t workspace = 0;
    qvl_status rc = QVL_OK;
    if (plan->max_patches == 0)
        return QVL_OK;
    QVL_TRY(qvl_vision_create(&vision, &model->dims, plan->max_patches, dev->act_bytes,
                              qvl_weights_vision(model->vision)->Fp, &slots, err));
    plan->vision_activation_bytes = slots.total_bytes;
    plan->vision_bytes = qvl_weights_plan(model->vision)->total_bytes;
    const qvl_workspace_limits limits = qvl_vision_limits(vision);
    QVL_TRY(dev->ops->workspace_bytes(dev, &workspace, &limits, err));
    plan->workspace_bytes = larger(plan->workspace_bytes, workspace);
out:
    qvl_vision_destroy(vision);
    qvl_plan_fini(&slots);
    return rc;
}

/* Ranks that share the memory: a host's, if it is a CPU's; a GPU is a rank's own unless they are to
 * share it. */
static uint64_t ranks_of(const qvl_config *config, const qvl_device *dev, int ranks_per_host)
{
    return is_host(dev) || config->share_gpu ? (uint64_t)ranks_per_host : 1;
}

/* Of a limit on this process alone. */
static bool is_over_limit(const qvl_memory_plan *plan)
{
    return plan->process.limit && plan->process_bytes > plan->process.left_bytes;
}

/* The tower and what it works in are gone before the first step when features are kept. On a CPU
 * the kept features are in the memory that is counted. */
static void add_up(qvl_memory_plan *plan, const qvl_config *config, const qvl_device *dev,
                   const qvl_memory_needs *needs)
{
    const uint64_t ranks = ranks_of(config, dev, needs->ranks_per_host);
    const uint64_t tower = plan->vision_bytes + plan->vision_activation_bytes;
    const uint64_t always = plan->workspace_bytes;
    const uint64_t later = plan->text_bytes + (plan->embeds_on_host ? 0 : plan->embed_bytes) +
                           plan->adapter_bytes + plan->gradient_bytes + plan->moment_bytes +
                           plan->step_bytes + plan->activation_bytes;
    plan->training_bytes = always + later + (plan->keeps_features ? 0 : tower);
    plan->peak_bytes = always + (plan->keeps_features ? larger(tower, later) : tower + later);
    const uint64_t shared = plan->keeps_features && is_host(dev) ? plan->feature_bytes : 0;
    plan->needed_bytes = plan->peak_bytes * ranks + shared;
    plan->process_bytes =
        plan->peak_bytes + shared + PROCESS_RESERVE + THREAD_RESERVE * (uint64_t)needs->n_threads;
    plan->fits =
        plan->needed_bytes <= usable_of(dev, plan->available_bytes) && !is_over_limit(plan);
}

static qvl_status try_size(qvl_memory_plan *plan, const qvl_config *config, int64_t tokens,
                           int64_t n_kept, const qvl_model *model, const qvl_lora *lora,
                           qvl_device *dev, const qvl_memory_needs *needs, qvl_err *err)
{
    plan->pack_tokens = tokens;
    plan->n_kept = n_kept;
    plan->workspace_bytes = 0;
    qvl_status rc = measure_vision(plan, model, dev, err);
    if (rc == QVL_OK)
        rc = measure_decoder(plan, model, lora, dev, err);
    if (rc == QVL_OK)
        add_up(plan, config, dev, needs);
    return rc;
}

/* Most layers that can keep their activations with this many tokens; fits says whether any number
 * does. */
static qvl_status choose_kept(qvl_memory_plan *plan, const qvl_config *config, int64_t tokens,
                              int64_t least, int64_t most, const qvl_model *model,
                              const qvl_lora *lora, qvl_device *dev, const qvl_memory_needs *needs,
                              qvl_err *err)
{
    qvl_status rc = try_size(plan, config, tokens, most, model, lora, dev, needs, err);
    if (rc != QVL_OK || plan->fits || least == most)
        return rc;
    int64_t low = least, high = most; /* high does not fit */
    while (high - low > 1 && rc == QVL_OK) {
        const int64_t middle = (low + high) / 2;
        rc = try_size(plan, config, tokens, middle, model, lora, dev, needs, err);
        if (plan->fits)
            low = middle;
        else
            high = middle;
    }
    return rc == QVL_OK ? try_size(plan, config, tokens, low, model, lora, dev, needs, err) : rc;
}

static bool recomputes_all(const qvl_config *config)
{
    return strcmp(config->gradient_checkpointing, "true") == 0 &&
           !config->disable_gradient_checkpointing;
}

static qvl_status choose_tokens(qvl_memory_plan *plan, const qvl_config *config,
                                const qvl_model *model, const qvl_lora *lora, qvl_device *dev,
                                const qvl_memory_needs *needs, qvl_err *err)
{
    const bool recomputes_none = strcmp(config->gradient_checkpointing, "false") == 0 ||
                                 config->disable_gradient_checkpointing;
    const int64_t L = model->dims.text.L;
    const int64_t least = recomputes_none ? L : 0, most = recomputes_all(config) ? 0 : L;
    int64_t tokens = needs->longest_pack;
    if (config->pack_tokens > 0 && config->pack_tokens < tokens)
        tokens = config->pack_tokens;
    else if (config->pack_tokens == 0 && recomputes_all(config) && tokens > LEAN_PACK_TOKENS)
        tokens =
            needs->longest_sample > LEAN_PACK_TOKENS ? needs->longest_sample : LEAN_PACK_TOKENS;
    /* A smaller pack before much recomputation: short packs cost less than another forward. */
    for (;;) {
        const qvl_status rc =
            choose_kept(plan, config, tokens, least, most, model, lora, dev, needs, err);
        const bool is_good = plan->fits && (plan->n_kept * 2 >= most || tokens <= 1024);
        if (rc != QVL_OK || is_good || tokens == needs->longest_sample || config->pack_tokens > 0)
            return rc;
        tokens = tokens / 2 > needs->longest_sample ? tokens / 2 : needs->longest_sample;
    }
}

/* The token embedding goes to host memory where that is asked for (recomputation) or where packs or
 * kept layers have to shrink otherwise. A tied one is the head and stays. */
static qvl_status choose_place(qvl_memory_plan *plan, const qvl_config *config,
                               const qvl_model *model, const qvl_lora *lora, qvl_device *dev,
                               const qvl_memory_needs *needs, qvl_err *err)
{
    const bool can_move = !is_host(dev) && !model->dims.text.is_tied;
    const int64_t L = model->dims.text.L;
    plan->embeds_on_host = can_move && recomputes_all(config);
    plan->head_rows = recomputes_all(config) && !is_host(dev) ? LEAN_HEAD_ROWS : 0;
    const qvl_status rc = choose_tokens(plan, config, model, lora, dev, needs, err);
    if (rc != QVL_OK || !can_move || plan->embeds_on_host ||
        (plan->fits && plan->n_kept == L && plan->pack_tokens >= needs->longest_pack))
        return rc;
    plan->embeds_on_host = true;
    return choose_tokens(plan, config, model, lora, dev, needs, err);
}

/* Memory that is left keeps more of the layers that would be recomputed. */
static qvl_status use_spare(qvl_memory_plan *plan, const qvl_config *config, const qvl_model *model,
                            const qvl_lora *lora, qvl_device *dev, const qvl_memory_needs *needs,
                            qvl_err *err)
{
    const uint64_t usable = usable_of(dev, plan->available_bytes);
    const int64_t L = model->dims.text.L;
    qvl_memory_plan all = *plan;
    qvl_status rc = QVL_OK;
    if (!plan->fits || plan->n_kept == L)
        return QVL_OK;
    QVL_TRY(try_size(&all, config, plan->pack_tokens, L, model, lora, dev, needs, err));
    uint64_t spare = all.activation_bytes - smaller(plan->activation_bytes, all.activation_bytes);
    if (recomputes_all(config))
        spare = is_host(dev) ? 0 : smaller(spare / LEAN_SPARE_PART, LEAN_SPARE_BYTES);
    spare = smaller(spare,
                    (usable - plan->needed_bytes) / ranks_of(config, dev, needs->ranks_per_host));
    if (plan->process.limit)
        spare = smaller(spare, plan->process.left_bytes - plan->process_bytes);
    plan->spare_bytes = spare / QVL_PLAN_ALIGN_BYTES * QVL_PLAN_ALIGN_BYTES;
    QVL_TRY(try_size(plan, config, plan->pack_tokens, plan->n_kept, model, lora, dev, needs, err));
out:
    return rc;
}

qvl_status qvl_memory_plan_make(qvl_memory_plan *out, const qvl_config *config,
                                const qvl_model *model, const qvl_lora *lora, qvl_device *dev,
                                const qvl_memory_needs *needs, qvl_err *err)
{
    const qvl_text_dims *t = &model->dims.text;
    const uint64_t parameters = (uint64_t)qvl_lora_parameters(lora) * sizeof(float);
    const uint64_t rounded =
        dev->tail_align ? (uint64_t)qvl_lora_act_elements(lora) * dev->act_bytes : 0;
    *out =
        (qvl_memory_plan){.longest_sample = needs->longest_sample,
                          .max_patches = needs->max_patches,
                          .step_rows = needs->step_rows,
                          .keeps_features = strcmp(config->vision_cache, "auto") == 0,
                          .text_bytes = qvl_weights_plan(model->text)->total_bytes,
                          .embed_bytes = qvl_weights_embed_bytes(model->text),
                          .head_bytes = t->is_tied ? 0 : (uint64_t)(t->V * t->D) * dev->act_bytes,
                          .adapter_bytes = parameters + rounded,
                          .device_bytes = dev->own_bytes,
                          .gradient_bytes = parameters,
                          .moment_bytes = 2 * parameters,
                          .step_bytes = (uint64_t)(needs->step_rows + 64) * sizeof(float),
                          .feature_bytes = needs->feature_bytes,
                          .process = needs->process};
    if (!is_host(dev)) /* a GPU's driver maps more than any such limit */
        out->process.limit = NULL;
    if (config->pack_tokens > 0 && config->pack_tokens < needs->longest_sample)
        return qvl_fail(err, QVL_ECONFIG,
                        "pack_tokens: %" PRId64 " is less than the longest sample's %" PRId64
                        " tokens",
                        config->pack_tokens, needs->longest_sample);
    qvl_status rc = dev->ops->free_bytes(dev, &out->available_bytes, err);
    if (rc == QVL_OK)
        rc = choose_place(out, config, model, lora, dev, needs, err);
    if (rc == QVL_OK && !out->fits && out->keeps_features && out->feature_bytes > 0) {
        /* Features that would not fit are computed when a step needs them. */
        out->keeps_features = false;
        rc = choose_place(out, config, model, lora, dev, needs, err);
    }
    return rc == QVL_OK ? use_spare(out, config, model, lora, dev, needs, err) : rc;
}

static void print_part(qvl_log *log, const char *name, uint64_t bytes)
{
    char text[32];
    if (bytes)
        qvl_log_line(log, "  %-34s %14" PRIu64 " B  %10s", name, bytes,
                     qvl_format_bytes(text, bytes));
}

void qvl_memory_plan_print(const qvl_memory_plan *plan, const qvl_model *model, qvl_log *log)
{
    char needed[32], available[32];
    const int64_t L = model->dims.text.L;
    qvl_log_line(log, "memory of a rank:");
    print_part(log, plan->embeds_on_host ? "token embedding, in host memory" : "token embedding",
               plan->embed_bytes);
    print_part(log, "decoder layers", plan->text_bytes - plan->head_bytes);
    print_part(log, "output head", plan->head_bytes);
    print_part(log, "vision tower", plan->vision_bytes);
    print_part(log, "adapters", plan->adapter_bytes);
    print_part(log, "adapter gradients", plan->gradient_bytes);
    print_part(log, "Adam moments", plan->moment_bytes);
    print_part(log, "activations", plan->activation_bytes);
    print_part(log, "vision activations", plan->vision_activation_bytes);
    print_part(log, "workspace", plan->workspace_bytes);
    print_part(log, "step losses", plan->step_bytes);
    print_part(log, "peak", plan->peak_bytes);
    print_part(log, "taken by the device's libraries", plan->device_bytes);
    if (plan->feature_bytes)
        qvl_log_line(log, "  image features: %s, %s", qvl_format_bytes(needed, plan->feature_bytes),
                     plan->keeps_features
                         ? "kept once a host; the tower leaves before the first step"
                         : "computed when a step needs them");
    const qvl_decoder_kept *kept = &plan->kept;
    qvl_log_line(log,
                 "  packs of up to %" PRId64 " tokens; activations of %" PRId64 " of %" PRId64
                 " layers kept, of %" PRId64 " in part, %" PRId64 " recomputed%s",
                 plan->pack_tokens, kept->n_whole, L, kept->n_partly,
                 L - kept->n_whole - kept->n_partly,
                 kept->n_whole < L ? "; more of shorter packs" : "");
    qvl_log_line(log, "  %s: %s needed, %s free",
                 plan->device_bytes ? "this GPU" : "all ranks of this host",
                 qvl_format_bytes(needed, plan->needed_bytes),
                 qvl_format_bytes(available, plan->available_bytes));
    if (plan->process.limit)
        qvl_log_line(log, "  this process: %s of address space needed, %s leaves %s",
                     qvl_format_bytes(needed, plan->process_bytes), plan->process.limit,
                     qvl_format_bytes(available, plan->process.left_bytes));
}

void qvl_memory_plan_report(const qvl_memory_plan *plan, qvl_device *dev, uint64_t free_then,
                            qvl_log *log)
{
    char taken[32], planned[32];
    uint64_t free_now = 0;
    if (is_host(dev) || dev->ops->free_bytes(dev, &free_now, NULL) != QVL_OK)
        return;
    const int64_t taken_bytes = (int64_t)(plan->available_bytes - free_then);
    const double beside = 100.0 * ((double)taken_bytes / (double)plan->training_bytes - 1.0);
    qvl_log_line(
        log,
        "GPU memory: %s taken in the first step, %s planned (%+.2f %%); since then %+" PRId64 " B",
        qvl_format_bytes(taken, (uint64_t)taken_bytes),
        qvl_format_bytes(planned, plan->training_bytes), beside,
        (int64_t)free_then - (int64_t)free_now);
}

qvl_status qvl_memory_plan_require(const qvl_memory_plan *plan, const qvl_device *dev, qvl_err *err)
{
    char needed[32], available[32], usable[32], missing[32];
    const uint64_t usable_bytes = usable_of(dev, plan->available_bytes);
    if (plan->fits)
        return QVL_OK;
    if (is_over_limit(plan))
        return qvl_fail(
            err, QVL_EDEVICE,
            "%s: not enough memory: this process needs %s of address space, %s leaves %s, %s "
            "missing; raise it (%s unlimited), or fewer threads (OMP_NUM_THREADS), fewer "
            "pack_tokens or gradient_checkpointing: true need less",
            dev->name, qvl_format_bytes(needed, plan->process_bytes), plan->process.limit,
            qvl_format_bytes(available, plan->process.left_bytes),
            qvl_format_bytes(missing, plan->process_bytes - plan->process.left_bytes),
            plan->process.limit);
    return qvl_fail(err, QVL_EDEVICE,
                    "%s: not enough memory: %s needed, %s of the %s that are free can be used, %s "
                    "missing; fewer pack_tokens or gradient_checkpointing: true need less",
                    dev->name, qvl_format_bytes(needed, plan->needed_bytes),
                    qvl_format_bytes(usable, usable_bytes),
                    qvl_format_bytes(available, plan->available_bytes),
                    qvl_format_bytes(missing, plan->needed_bytes - usable_bytes));
}
