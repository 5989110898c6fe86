#include "src/data/encode.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "io/chat_template.h"
#include "src/base/memory.h"

/* Tokens of one pair: the prompt and its answer, in the encoder's ids. */
typedef struct pair {
    size_t source, n_source, target, n_target;
} pair;

struct qvl_sample_encoder {
    const qvl_tokenizer *tokenizer;
    qvl_encode_options options;
    qvl_token_encoder *tokens;
    qvl_text filled; /* a content with its images written out */
    qvl_text turn;
    qvl_ids ids; /* of all turns */
    pair *pairs;
    size_t n_pairs, pairs_capacity;
};

void qvl_encoded_fini(qvl_encoded *encoded)
{
    qvl_ids_fini(&encoded->ids);
    qvl_ids_fini(&encoded->labels);
    qvl_text_fini(&encoded->image_paths);
    free(encoded->grids);
    *encoded = (qvl_encoded){0};
}

void qvl_sample_encoder_destroy(qvl_sample_encoder *encoder)
{
    if (!encoder)
        return;
    qvl_token_encoder_destroy(encoder->tokens);
    qvl_text_fini(&encoder->filled);
    qvl_text_fini(&encoder->turn);
    qvl_ids_fini(&encoder->ids);
    free(encoder->pairs);
    free(encoder);
}

qvl_status qvl_sample_encoder_create(qvl_sample_encoder **out, const qvl_tokenizer *tokenizer,
                                     const qvl_encode_options *options, qvl_err *err)
{
    qvl_sample_encoder *encoder = NULL;
    qvl_status rc = qvl_alloc(&encoder, 1, sizeof *encoder, "encoder", err);
    if (rc != QVL_OK)
        return rc;
    encoder->tokenizer = tokenizer;
    encoder->options = *options;
    rc = qvl_token_encoder_create(&encoder->tokens, tokenizer, err);
    if (rc != QVL_OK) {
        qvl_sample_encoder_destroy(encoder);
        return rc;
    }
    *out = encoder;
    return QVL_OK;
}

void qvl_cut_lengths(int64_t *keep_source, int64_t *keep_target, int64_t source, int64_t target,
                     int64_t room)
{
    int64_t limit = 0;
    if (target * 2 < room)
        limit = room;
    else if (source * 2 < room)
        limit = room - source;
    else
        limit = (int64_t)((double)room * ((double)target / (double)(source + target)));
    *keep_target = limit < target ? limit : target;
    const int64_t rest = room - *keep_target > 0 ? room - *keep_target : 0;
    *keep_source = rest < source ? rest : source;
}

/* ---- images ------------------------------------------------------------------------------------
 */

/* strict_paths: where the file really is, with all links followed, must be below where media_dir
 * really is. */
static qvl_status check_within(const char *media_dir, const char *path, qvl_err *err)
{
    char *root = realpath(media_dir, NULL), *real = root ? realpath(path, NULL) : NULL;
    const size_t n = root ? strlen(root) : 0;
    const bool is_top = n == 1; /* "/" */
    qvl_status rc = QVL_OK;
    if (!root || !real)
        rc = qvl_fail_errno(err, errno, 0, "%s", root ? path : media_dir);
    else if (!is_top && (strncmp(real, root, n) != 0 || real[n] != '/'))
        rc = qvl_fail(err, QVL_EDATA, "%s: lies outside of media_dir %s (strict_paths: true)", path,
                      media_dir);
    free(root);
    free(real);
    return rc;
}

/* Under media_dir if it is there, else the path as it is (REFERENCE 7.2). */
static qvl_status resolve_image(const qvl_sample_encoder *encoder, char out[QVL_PATH_BYTES],
                                const char *given, qvl_err *err)
{
    const qvl_status rc = qvl_path_join(out, encoder->options.media_dir, given, err);
    if (rc == QVL_OK && encoder->options.strict_paths)
        return check_within(encoder->options.media_dir, out, err);
    if (rc != QVL_OK || qvl_file_is_regular(out) || !qvl_file_is_regular(given))
        return rc;
    return qvl_path_join(out, "", given, err);
}

/* Every token of every image must be within cutoff_len. A record that has more is refused before
 * its text is written out, which could be millions of times as long as the record. */
static qvl_status check_room(const qvl_sample_encoder *encoder, int64_t needed, qvl_err *err)
{
    if (needed <= encoder->options.cutoff_len)
        return QVL_OK;
    return qvl_fail(err, QVL_EDATA,
                    "cutoff_len %" PRId64 " cuts its images: they need %" PRId64
                    " image tokens or more; raise cutoff_len or lower image_max_pixels",
                    encoder->options.cutoff_len, needed);
}

static qvl_status plan_images(const qvl_sample_encoder *encoder, qvl_encoded *out,
                              const qvl_conversation *conversation, qvl_err *err)
{
    char path[QVL_PATH_BYTES];
    int64_t needed = 0;
    qvl_status rc = check_room(encoder, (int64_t)conversation->n_images, err);
    QVL_TRY(rc);
    QVL_TRY(qvl_reserve(&out->grids, &out->grids_capacity, 3 * conversation->n_images + 1,
                        sizeof *out->grids, "image grids", err));
    for (size_t i = 0; i < conversation->n_images; i++) {
        qvl_image_info info;
        qvl_image_plan plan;
        QVL_TRY(resolve_image(encoder, path, conversation->images[i], err));
        QVL_TRY(qvl_image_probe(&info, path, err));
        const qvl_image_size size = {info.width, info.height};
        QVL_TRY(qvl_image_plan_sizes(&plan, size, &encoder->options.limits, path, err));
        memcpy(out->grids + 3 * i, plan.grid_thw, sizeof plan.grid_thw);
        QVL_TRY(qvl_text_add(&out->image_paths, path, strlen(path) + 1, err));
        out->n_images++;
        needed += (int64_t)plan.grid_thw[0] * plan.grid_thw[1] * plan.grid_thw[2] / 4;
        QVL_TRY(check_room(encoder, needed, err));
    }
out:
    return rc;
}

static size_t count_tags(const qvl_conversation *c, const char *tag)
{
    size_t count = 0;
    const size_t n = strlen(tag);
    for (size_t m = 0; m < c->n_messages; m++) {
        const qvl_span span = c->messages[m].content;
        const char *at = span.n ? c->text.data + span.begin : "";
        for (size_t i = 0; i + n <= span.n;) {
            const int found = memcmp(at + i, tag, n) == 0;
            count += (size_t)found;
            i += found ? n : 1;
        }
    }
    return count;
}

/* Before anything is templated: as many <image> as images, and no tags of what is not there. */
static qvl_status check_tags(const qvl_conversation *c, qvl_err *err)
{
    const size_t n_tags = count_tags(c, "<image>");
    if (n_tags != c->n_images)
        return qvl_fail(err, QVL_EDATA, "%zu images, but %zu <image> in its messages", c->n_images,
                        n_tags);
    if (count_tags(c, "<video>") || count_tags(c, "<audio>"))
        return qvl_fail(err, QVL_EDATA,
                        "<video> or <audio> in its messages; only images are supported");
    return QVL_OK;
}

/* The content with every <image> replaced by its tokens; next_image runs over the sample. */
static qvl_status fill_images(qvl_text *out, const char *content, size_t n, const int32_t *grids,
                              size_t *next_image, qvl_err *err)
{
    static const char TAG[] = "<image>";
    const size_t tag = sizeof TAG - 1;
    size_t from = 0;
    qvl_status rc = QVL_OK;
    qvl_text_clear(out);
    QVL_TRY(qvl_text_add(out, "", 0, err));
    for (size_t i = 0; i + tag <= n;) {
        if (memcmp(content + i, TAG, tag) != 0) {
            i++;
            continue;
        }
        const int32_t *grid = grids + 3 * (*next_image)++;
        QVL_TRY(qvl_text_add(out, content + from, i - from, err));
        QVL_TRY(qvl_chat_add_image(out, (long)grid[0] * grid[1] * grid[2] / 4, err));
        i += tag;
        from = i;
    }
    QVL_TRY(qvl_text_add(out, content + from, n - from, err));
out:
    return rc;
}

/* ---- turns -------------------------------------------------------------------------------------
 */

static qvl_status tokenise(qvl_sample_encoder *encoder, qvl_err *err)
{
    return qvl_tokenizer_encode(encoder->tokens, encoder->turn.data, encoder->turn.len,
                                encoder->options.split_special_tokens, &encoder->ids, err);
}

static qvl_status add_turn(qvl_sample_encoder *encoder, const qvl_message *message,
                           const char *content, size_t n, qvl_err *err)
{
    qvl_text_clear(&encoder->turn);
    qvl_status rc = QVL_OK;
    switch (message->role) {
    case QVL_USER:
        rc = qvl_chat_add_user(&encoder->turn, content, n, err);
        break;
    case QVL_ASSISTANT:
        rc = qvl_chat_add_assistant(&encoder->turn, content, n, err);
        break;
    case QVL_OBSERVATION:
        rc = qvl_chat_add_observation(&encoder->turn, content, n, err);
        break;
    case QVL_FUNCTION:
        rc = qvl_chat_add_function(&encoder->turn, content, n, err);
        break;
    }
    return rc == QVL_OK ? tokenise(encoder, err) : rc;
}

/* The system text is tokenised by itself, and so is every turn: that matters to the merges. */
static qvl_status add_system(qvl_sample_encoder *encoder, const qvl_conversation *c, qvl_err *err)
{
    qvl_text_clear(&encoder->turn);
    qvl_status rc = qvl_text_add(&encoder->turn, "", 0, err);
    if (rc == QVL_OK)
        rc =
            qvl_chat_add_system(&encoder->turn, c->text.data ? c->text.data + c->system.begin : "",
                                c->system.n, encoder->options.default_system,
                                c->text.data ? c->text.data + c->tools.begin : "", c->tools.n, err);
    return rc == QVL_OK ? tokenise(encoder, err) : rc;
}

static qvl_status tokenise_pairs(qvl_sample_encoder *encoder, const qvl_encoded *out,
                                 const qvl_conversation *c, qvl_err *err)
{
    size_t next_image = 0;
    qvl_status rc = QVL_OK;
    qvl_ids_clear(&encoder->ids);
    encoder->n_pairs = c->n_messages / 2;
    QVL_TRY(qvl_reserve(&encoder->pairs, &encoder->pairs_capacity, encoder->n_pairs + 1,
                        sizeof *encoder->pairs, "turns", err));
    for (size_t m = 0; m < c->n_messages; m++) {
        const qvl_span span = c->messages[m].content;
        pair *to = &encoder->pairs[m / 2];
        const size_t before = encoder->ids.len;
        if (m == 0)
            QVL_TRY(add_system(encoder, c, err));
        QVL_TRY(fill_images(&encoder->filled, span.n ? c->text.data + span.begin : "", span.n,
                            out->grids, &next_image, err));
        QVL_TRY(add_turn(encoder, &c->messages[m], encoder->filled.data, encoder->filled.len, err));
        if (m % 2 == 0) {
            to->source = before;
            to->n_source = encoder->ids.len - before;
        } else {
            to->target = before;
            to->n_target = encoder->ids.len - before;
        }
    }
out:
    return rc;
}

static qvl_status add_ignored(qvl_ids *labels, size_t n, qvl_err *err)
{
    static const int32_t IGNORED = -100;
    qvl_status rc = QVL_OK;
    for (size_t i = 0; i < n && rc == QVL_OK; i++)
        rc = qvl_ids_add(labels, &IGNORED, 1, err);
    return rc;
}

/* Which pairs are kept, and how much of each: the budget goes to the first pair first, or with
 * mask_history to the last. kept [n_pairs]; pairs left out keep nothing. */
static void cut_pairs(qvl_sample_encoder *encoder, qvl_encoded *out)
{
    const size_t n = encoder->n_pairs;
    int64_t total = 0;
    for (size_t i = 0; i < n; i++) {
        pair *p = &encoder->pairs[encoder->options.mask_history ? n - 1 - i : i];
        int64_t source = 0, target = 0;
        if (total < encoder->options.cutoff_len)
            qvl_cut_lengths(&source, &target, (int64_t)p->n_source, (int64_t)p->n_target,
                            encoder->options.cutoff_len - total);
        out->n_cut += (int64_t)(p->n_source + p->n_target) - source - target;
        p->n_source = (size_t)source;
        p->n_target = (size_t)target;
        total += source + target;
    }
}

static qvl_status join_pairs(qvl_sample_encoder *encoder, qvl_encoded *out, qvl_err *err)
{
    const qvl_encode_options *options = &encoder->options;
    qvl_status rc = QVL_OK;
    for (size_t i = 0; i < encoder->n_pairs; i++) {
        const pair *p = &encoder->pairs[i];
        const int32_t *source = encoder->ids.data + p->source;
        const int32_t *target = encoder->ids.data + p->target;
        const bool is_supervised = !options->mask_history || i + 1 == encoder->n_pairs;
        QVL_TRY(qvl_ids_add(&out->ids, source, p->n_source, err));
        QVL_TRY(qvl_ids_add(&out->ids, target, p->n_target, err));
        if (options->train_on_prompt)
            QVL_TRY(qvl_ids_add(&out->labels, source, p->n_source, err));
        else
            QVL_TRY(add_ignored(&out->labels, p->n_source, err));
        if (is_supervised)
            QVL_TRY(qvl_ids_add(&out->labels, target, p->n_target, err));
        else
            QVL_TRY(add_ignored(&out->labels, p->n_target, err));
    }
out:
    return rc;
}

/* The tokens that stand for media are those of its images, all of them. */
static qvl_status check_media_tokens(const qvl_sample_encoder *encoder, const qvl_encoded *out,
                                     qvl_err *err)
{
    const qvl_encode_options *options = &encoder->options;
    int64_t expected = 0, found = 0, n_video = 0;
    for (size_t i = 0; i < out->n_images; i++)
        expected += (int64_t)out->grids[3 * i] * out->grids[3 * i + 1] * out->grids[3 * i + 2] / 4;
    for (size_t i = 0; i < out->ids.len; i++) {
        found += out->ids.data[i] == options->image_token;
        n_video += out->ids.data[i] == options->video_token;
    }
    if (n_video)
        return qvl_fail(err, QVL_EDATA, "its text holds <|video_pad|>; only images are supported");
    if (found == expected)
        return QVL_OK;
    if (options->split_special_tokens)
        return qvl_fail(err, QVL_EDATA,
                        "split_special_tokens: true takes the tokens of its images apart");
    if (found > expected)
        return qvl_fail(err, QVL_EDATA,
                        "%" PRId64 " image tokens for images of %" PRId64
                        "; its text holds <|image_pad|>",
                        found, expected);
    return qvl_fail(err, QVL_EDATA,
                    "cutoff_len %" PRId64 " cuts its images: %" PRId64 " of %" PRId64
                    " image tokens are left; raise cutoff_len or lower image_max_pixels",
                    options->cutoff_len, found, expected);
}

qvl_status qvl_encode_sample(qvl_sample_encoder *encoder, qvl_encoded *out,
                             const qvl_conversation *conversation, qvl_err *err)
{
    bool has_labels = false;
    qvl_status rc = QVL_OK;
    qvl_ids_clear(&out->ids);
    qvl_ids_clear(&out->labels);
    qvl_text_clear(&out->image_paths);
    out->n_images = 0;
    out->n_cut = 0;
    out->dropped = conversation->dropped;
    if (out->dropped)
        return QVL_OK;
    QVL_TRY(check_tags(conversation, err));
    QVL_TRY(plan_images(encoder, out, conversation, err));
    QVL_TRY(tokenise_pairs(encoder, out, conversation, err));
    cut_pairs(encoder, out);
    QVL_TRY(join_pairs(encoder, out, err));
    QVL_TRY(check_media_tokens(encoder, out, err));
    for (size_t i = 1; i < out->labels.len; i++)
        has_labels |= out->labels.data[i] != -100;
    if (!has_labels)
        out->dropped = "no supervised tokens are left within cutoff_len";
out:
    return rc;
}
