#include "src/model/lora.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "src/base/memory.h"
#include "src/base/rng.h"

static const struct {
    const char *name, *path;
    qvl_group group;
} SITES[QVL_N_SITES] = {{"q_proj", "self_attn.q_proj", QVL_GROUP_QKV},
                        {"k_proj", "self_attn.k_proj", QVL_GROUP_QKV},
                        {"v_proj", "self_attn.v_proj", QVL_GROUP_QKV},
                        {"o_proj", "self_attn.o_proj", QVL_GROUP_O},
                        {"gate_proj", "mlp.gate_proj", QVL_GROUP_GATE_UP},
                        {"up_proj", "mlp.up_proj", QVL_GROUP_GATE_UP},
                        {"down_proj", "mlp.down_proj", QVL_GROUP_DOWN}};

struct qvl_lora {
    qvl_text_dims dims;
    qvl_lora_options options;
    qvl_lora_matrix *matrices;
    int64_t n_matrices;
    int64_t parameters, act_elements;
    int first_matrix[QVL_N_SITES]; /* of a site in layer 0; -1 when it is no target */
    int per_layer;                 /* matrices of one layer */
};

qvl_status qvl_lora_parse_targets(bool targets[QVL_N_SITES], const char *text, qvl_err *err)
{
    for (int s = 0; s < QVL_N_SITES; s++)
        targets[s] = false;
    for (const char *word = text;;) {
        word += strspn(word, " ");
        size_t n = strcspn(word, ",");
        const char *next = word[n] ? word + n + 1 : NULL;
        bool is_known = false;
        while (n && word[n - 1] == ' ')
            n--;
        for (int s = 0; s < QVL_N_SITES; s++)
            if ((n == 3 && strncmp(word, "all", 3) == 0) ||
                (strlen(SITES[s].name) == n && strncmp(word, SITES[s].name, n) == 0))
                targets[s] = is_known = true;
        if (!is_known)
            return qvl_fail(err, QVL_ECONFIG, "lora_target: '%.*s' is not one of the seven linears",
                            (int)n, word);
        if (!next)
            return QVL_OK;
        word = next;
    }
}

static int64_t in_of(const qvl_text_dims *d, qvl_site site)
{
    return site == QVL_SITE_O ? d->H * d->Dh : site == QVL_SITE_DOWN ? d->F : d->D;
}

static int64_t out_of(const qvl_text_dims *d, qvl_site site)
{
    switch (site) {
    case QVL_SITE_Q:
        return d->H * d->Dh;
    case QVL_SITE_K:
    case QVL_SITE_V:
        return d->KV * d->Dh;
    case QVL_SITE_GATE:
    case QVL_SITE_UP:
        return d->F;
    default:
        return d->D;
    }
}

/* Offsets of one layer: by group, first the As, then the Bs. */
static void lay_out_layer(qvl_lora *lora, int layer, int64_t *offset)
{
    for (int group = 0; group < QVL_N_GROUPS; group++)
        for (int is_b = 0; is_b < 2; is_b++)
            for (int site = 0; site < QVL_N_SITES; site++) {
                if ((int)SITES[site].group != group || !lora->options.targets[site])
                    continue;
                const int64_t index =
                    (int64_t)layer * lora->per_layer + lora->first_matrix[site] + is_b;
                qvl_lora_matrix *matrix = &lora->matrices[index];
                *matrix = (qvl_lora_matrix){
                    .layer = layer, .site = (qvl_site)site, .is_b = is_b != 0, .offset = *offset};
                matrix->rows = is_b ? out_of(&lora->dims, matrix->site) : lora->options.rank;
                matrix->cols = is_b ? lora->options.rank : in_of(&lora->dims, matrix->site);
                *offset += matrix->rows * matrix->cols;
                if (is_b)
                    continue;
                matrix->act_offset = lora->act_elements;
                lora->act_elements += (matrix->rows + 7) / 8 * 8 * matrix->cols;
            }
}

qvl_status qvl_lora_create(qvl_lora **out, const qvl_model_dims *dims,
                           const qvl_lora_options *options, qvl_err *err)
{
    qvl_lora *lora = NULL;
    qvl_status rc = qvl_alloc(&lora, 1, sizeof *lora, "adapters", err);
    if (rc != QVL_OK)
        return rc;
    lora->dims = dims->text;
    lora->options = *options;
    for (int site = 0; site < QVL_N_SITES; site++) {
        lora->first_matrix[site] = options->targets[site] ? lora->per_layer : -1;
        lora->per_layer += options->targets[site] ? 2 : 0;
    }
    lora->n_matrices = dims->text.L * lora->per_layer;
    rc = qvl_alloc(&lora->matrices, (size_t)lora->n_matrices, sizeof *lora->matrices, "adapters",
                   err);
    if (rc != QVL_OK) {
        qvl_lora_destroy(lora);
        return rc;
    }
    for (int layer = 0; layer < (int)dims->text.L; layer++)
        lay_out_layer(lora, layer, &lora->parameters);
    *out = lora;
    return QVL_OK;
}

void qvl_lora_destroy(qvl_lora *lora)
{
    if (!lora)
        return;
    free(lora->matrices);
    free(lora);
}

const qvl_lora_options *qvl_lora_get_options(const qvl_lora *lora)
{
    return &lora->options;
}
int64_t qvl_lora_parameters(const qvl_lora *lora)
{
    return lora->parameters;
}
int64_t qvl_lora_act_elements(const qvl_lora *lora)
{
    return lora->act_elements;
}
int64_t qvl_lora_modules(const qvl_lora *lora)
{
    return lora->n_matrices / 2;
}

double qvl_lora_scale(const qvl_lora *lora)
{
    const double rank = (double)lora->options.rank;
    return lora->options.alpha / (lora->options.use_rslora ? sqrt(rank) : rank);
}

qvl_lora_matrix qvl_lora_matrix_at(const qvl_lora *lora, int64_t index)
{
    return lora->matrices[index];
}

const char *qvl_lora_module_name(char buffer[64], int layer, qvl_site site)
{
    snprintf(buffer, 64, "layers.%d.%s", layer, SITES[site].path);
    return buffer;
}

qvl_status qvl_lora_plan(const qvl_lora *lora, qvl_plan *plan, bool is_training, int slots[4],
                         qvl_err *err)
{
    static const char *const NAMES[] = {"adapters", "adapter gradients", "adam exp_avg",
                                        "adam exp_avg_sq"};
    qvl_status rc = QVL_OK;
    for (int i = 0; i < (is_training ? 4 : 1) && rc == QVL_OK; i++)
        rc = qvl_plan_add(plan, &slots[i], NAMES[i], lora->parameters, sizeof(float), err);
    return rc;
}

void qvl_lora_init(const qvl_lora *lora, float *host, uint32_t seed, bool round_to_bf16)
{
    qvl_mt19937 rng;
    qvl_mt19937_init(&rng, seed);
    for (int64_t i = 0; i < lora->n_matrices; i++) {
        const qvl_lora_matrix *matrix = &lora->matrices[i];
        float *to = host + matrix->offset;
        const int64_t n = matrix->rows * matrix->cols;
        if (matrix->is_b) {
            memset(to, 0, (size_t)n * sizeof *to);
            continue;
        }
        const float bound = (float)(1.0 / sqrt((double)matrix->cols));
        qvl_torch_uniform(to, n, -bound, bound, &rng);
        for (int64_t k = 0; round_to_bf16 && k < n; k++)
            to[k] = qvl_float_from_bf16(qvl_bf16_from_float(to[k]));
    }
}

int qvl_lora_options_adapters(const qvl_lora_options *options, qvl_group group)
{
    int n = 0;
    for (int site = 0; site < QVL_N_SITES; site++)
        n += SITES[site].group == group && options->targets[site];
    return n;
}

int64_t qvl_lora_options_tail(const qvl_lora_options *options, qvl_group group, int64_t tail_align)
{
    return qvl_tail_columns(tail_align, qvl_lora_options_adapters(options, group), options->rank);
}

int qvl_lora_group_adapters(const qvl_lora *lora, qvl_group group)
{
    return qvl_lora_options_adapters(&lora->options, group);
}

void qvl_lora_layer_range(const qvl_lora *lora, int layer, int64_t *first, int64_t *count)
{
    *count = lora->parameters / lora->dims.L; /* every layer has the same matrices */
    *first = layer * *count;
}

/* Where a site's columns begin in its group's output. */
static int64_t out_offset_of(const qvl_text_dims *d, int64_t Fp, qvl_site site)
{
    switch (site) {
    case QVL_SITE_K:
        return d->H * d->Dh;
    case QVL_SITE_V:
        return (d->H + d->KV) * d->Dh;
    case QVL_SITE_UP:
        return Fp;
    default:
        return 0;
    }
}

qvl_linear qvl_lora_linear(const qvl_lora *lora, const qvl_lora_buffers *buffers,
                           const qvl_text_weights *weights, int layer, qvl_group group)
{
    const qvl_text_dims *d = &lora->dims;
    const qvl_layer_weights *w = &weights->layers[layer];
    qvl_linear linear = {.rank = lora->options.rank,
                         .scale = (float)qvl_lora_scale(lora),
                         .weight_stride = weights->stride[group]};
    switch (group) {
    case QVL_GROUP_QKV:
        linear.weight = w->qkv;
        linear.bias = w->qkv_bias;
        linear.in = d->D;
        linear.out = (d->H + 2 * d->KV) * d->Dh;
        break;
    case QVL_GROUP_O:
        linear.weight = w->o;
        linear.in = d->H * d->Dh;
        linear.out = d->D;
        break;
    case QVL_GROUP_GATE_UP:
        linear.weight = w->gate_up;
        linear.in = d->D;
        linear.out = 2 * weights->Fp;
        break;
    default:
        linear.weight = w->down;
        linear.in = weights->Fp;
        linear.out = d->D;
        break;
    }
    for (int site = 0; site < QVL_N_SITES; site++) {
        if (SITES[site].group != group || !lora->options.targets[site])
            continue;
        const qvl_lora_matrix *a =
            &lora->matrices[(int64_t)layer * lora->per_layer + lora->first_matrix[site]];
        qvl_adapter *adapter = &linear.adapters[linear.n_adapters++];
        *adapter = (qvl_adapter){.a = buffers->param + a[0].offset,
                                 .b = buffers->param + a[1].offset,
                                 .out_offset = out_offset_of(d, weights->Fp, (qvl_site)site),
                                 .out = a[1].rows,
                                 .module = (uint32_t)(layer * QVL_N_SITES + site)};
        if (buffers->a_act)
            adapter->a_act = (char *)buffers->a_act + (size_t)a[0].act_offset * buffers->act_bytes;
        if (buffers->grad) {
            adapter->da = buffers->grad + a[0].offset;
            adapter->db = buffers->grad + a[1].offset;
        }
    }
    return linear;
}
