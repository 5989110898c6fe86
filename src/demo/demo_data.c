#include "src/demo/demo_data.h"

#include <ctype.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <jansson.h>

#include "src/base/files.h"
#include "src/demo/demo_draw.h"
#include "src/demo/demo_facts.h"
#include "src/demo/demo_rng.h"
#include "src/demo/demo_text.h"

enum { MIN_SIDE_PX = 56, MAX_SIDE_PX = 168, N_CHATS = 24 };

static const char DATASET_INFO[] = "{\n"
                                   "  \"demo_shapes\": {\n"
                                   "    \"file_name\": \"demo_shapes.json\",\n"
                                   "    \"formatting\": \"sharegpt\",\n"
                                   "    \"columns\": {\n"
                                   "      \"messages\": \"messages\",\n"
                                   "      \"images\": \"images\"\n"
                                   "    },\n"
                                   "    \"tags\": {\n"
                                   "      \"role_tag\": \"role\",\n"
                                   "      \"content_tag\": \"content\",\n"
                                   "      \"user_tag\": \"user\",\n"
                                   "      \"assistant_tag\": \"assistant\"\n"
                                   "    }\n"
                                   "  },\n"
                                   "  \"demo_facts\": {\n"
                                   "    \"file_name\": \"demo_facts.jsonl\"\n"
                                   "  },\n"
                                   "  \"demo_chat\": {\n"
                                   "    \"file_name\": \"demo_chat.json\",\n"
                                   "    \"formatting\": \"openai\",\n"
                                   "    \"columns\": {\n"
                                   "      \"messages\": \"messages\"\n"
                                   "    },\n"
                                   "    \"tags\": {\n"
                                   "      \"role_tag\": \"role\",\n"
                                   "      \"content_tag\": \"content\",\n"
                                   "      \"user_tag\": \"user\",\n"
                                   "      \"assistant_tag\": \"assistant\",\n"
                                   "      \"system_tag\": \"system\"\n"
                                   "    }\n"
                                   "  }\n"
                                   "}\n";

static const char *const SYSTEMS[3] = {"Answer with one word.", "Answer in capital letters.",
                                       "You are a polite teacher."};

/* Takes value over. jansson refuses NULL, so a failure to make the value is seen here too. */
static qvl_status append(json_t *array, json_t *value, qvl_err *err)
{
    return json_array_append_new(array, value) == 0
               ? QVL_OK
               : qvl_fail_memory(err, sizeof(json_t *), "a JSON value");
}

static qvl_status add_message(json_t *messages, const char *role, const char *content, qvl_err *err)
{
    return append(messages, json_pack("{s:s, s:s}", "role", role, "content", content), err);
}

static qvl_status write_json(const char *directory, const char *name, const json_t *value,
                             qvl_err *err)
{
    char path[QVL_PATH_BYTES];
    qvl_text text = {0};
    char *dump = json_dumps(value, JSON_INDENT(2));
    qvl_status rc = dump ? QVL_OK : qvl_fail_memory(err, 0, name);
    if (rc != QVL_OK)
        return rc;
    QVL_TRY(qvl_path_join(path, directory, name, err));
    QVL_TRY(qvl_text_printf(&text, err, "%s\n", dump));
    QVL_TRY(qvl_file_replace(path, text.data, text.len, err));
out:
    qvl_text_fini(&text);
    free(dump);
    return rc;
}

/* demo_shapes */

typedef struct shapes_writer {
    const char *directory;
    uint64_t random;
    int64_t n_pictures;
    qvl_text file, question, answer; /* scratch */
    json_t *messages, *images;       /* of the sample being made */
} shapes_writer;

static qvl_status add_picture(shapes_writer *w, const qvl_scene *scene, qvl_err *err)
{
    char name[64], path[QVL_PATH_BYTES];
    const int width = MIN_SIDE_PX + qvl_demo_draw(&w->random, MAX_SIDE_PX - MIN_SIDE_PX + 1);
    const int height = MIN_SIDE_PX + qvl_demo_draw(&w->random, MAX_SIDE_PX - MIN_SIDE_PX + 1);
    const bool is_jpeg = qvl_demo_draw(&w->random, 5) == 0;
    qvl_status rc = QVL_OK;
    snprintf(name, sizeof name, "demo_shapes/%05" PRId64 ".%s", w->n_pictures + 1,
             is_jpeg ? "jpg" : "png");
    QVL_TRY(qvl_path_join(path, w->directory, name, err));
    QVL_TRY(
        qvl_scene_draw(&w->file, scene, width, height, is_jpeg, qvl_splitmix64(&w->random), err));
    QVL_TRY(qvl_file_replace(path, w->file.data, w->file.len, err));
    QVL_TRY(append(w->images, json_string(name), err));
    w->n_pictures++;
out:
    return rc;
}

static qvl_scene draw_scene(uint64_t *random)
{
    qvl_scene scene;
    scene.shape = qvl_demo_draw(random, QVL_DEMO_N_SHAPES);
    scene.colour = qvl_demo_draw(random, QVL_DEMO_N_COLOURS);
    scene.ground = qvl_demo_draw(random, QVL_DEMO_N_GROUNDS);
    scene.count = 1 + qvl_demo_draw(random, QVL_DEMO_MAX_COUNT);
    return scene;
}

/* A turn about one picture; before and after stand around the question. */
static qvl_status add_turn(shapes_writer *w, const qvl_scene *scene, int question,
                           const char *before, const char *after, qvl_err *err)
{
    size_t count = 0;
    const qvl_demo_question *ask = qvl_demo_questions(&count) + question;
    qvl_status rc = QVL_OK;
    qvl_text_clear(&w->question);
    qvl_text_clear(&w->answer);
    QVL_TRY(qvl_text_puts(&w->question, before, err));
    QVL_TRY(qvl_scene_describe(&w->question, ask->question, scene, err));
    QVL_TRY(qvl_text_puts(&w->question, after, err));
    QVL_TRY(qvl_scene_describe(&w->answer, ask->answer, scene, err));
    QVL_TRY(add_message(w->messages, "user", w->question.data, err));
    QVL_TRY(add_message(w->messages, "assistant", w->answer.data, err));
out:
    return rc;
}

/* One or two turns about one picture, which the second may show again. */
static qvl_status ask_about_one(shapes_writer *w, int n_turns, bool is_shown_again, qvl_err *err)
{
    size_t n_questions = 0;
    qvl_demo_questions(&n_questions);
    const qvl_scene scene = draw_scene(&w->random);
    const int first = qvl_demo_draw(&w->random, (int)n_questions);
    const int step = 1 + qvl_demo_draw(&w->random, (int)n_questions - 1);
    const bool is_last = qvl_demo_draw(&w->random, 6) == 0; /* the picture follows the question */
    qvl_status rc = QVL_OK;
    QVL_TRY(add_picture(w, &scene, err));
    QVL_TRY(add_turn(w, &scene, first, is_last ? "" : "<image>", is_last ? "<image>" : "", err));
    if (n_turns < 2)
        goto out;
    QVL_TRY(add_turn(w, &scene, (first + step) % (int)n_questions,
                     is_shown_again ? "Look again. " : "", is_shown_again ? "<image>" : "", err));
    if (is_shown_again)
        QVL_TRY(append(w->images, json_incref(json_array_get(w->images, 0)), err));
out:
    return rc;
}

static qvl_status compare_counts(qvl_text *answer, const qvl_scene scenes[2], qvl_err *err)
{
    const int more = scenes[0].count < scenes[1].count; /* which picture */
    if (scenes[0].count == scenes[1].count)
        return qvl_text_puts(answer, "Both pictures have the same number of shapes.", err);
    return qvl_text_printf(answer, err, "The %s picture has more shapes: %s against %s.",
                           more ? "second" : "first", qvl_demo_number(scenes[more].count),
                           qvl_demo_number(scenes[!more].count));
}

static qvl_status compare_colours(qvl_text *answer, const qvl_scene scenes[2], qvl_err *err)
{
    const bool is_same = scenes[0].colour == scenes[1].colour;
    qvl_status rc = qvl_scene_describe(
        answer, is_same ? "Yes, both are {colour}." : "No, first {colour}, then ", &scenes[0], err);
    if (rc == QVL_OK && !is_same)
        rc = qvl_scene_describe(answer, "{colour}.", &scenes[1], err);
    return rc;
}

static qvl_status ask_about_two(shapes_writer *w, qvl_err *err)
{
    const qvl_scene scenes[2] = {draw_scene(&w->random), draw_scene(&w->random)};
    const int kind = qvl_demo_draw(&w->random, 3);
    const char *question = "<image><image>Describe both pictures.";
    qvl_status rc = QVL_OK;
    qvl_text_clear(&w->answer);
    QVL_TRY(add_picture(w, &scenes[0], err));
    QVL_TRY(add_picture(w, &scenes[1], err));
    if (kind == 0) {
        question = "<image><image>Which picture has more shapes?";
        QVL_TRY(compare_counts(&w->answer, scenes, err));
    } else if (kind == 1) {
        question = "First: <image> Second: <image> Are the shapes of the same colour?";
        QVL_TRY(compare_colours(&w->answer, scenes, err));
    } else {
        QVL_TRY(qvl_scene_describe(&w->answer, "First {number} {colour} {shape}, then ", &scenes[0],
                                   err));
        QVL_TRY(qvl_scene_describe(&w->answer, "{number} {colour} {shape}.", &scenes[1], err));
    }
    QVL_TRY(add_message(w->messages, "user", question, err));
    QVL_TRY(add_message(w->messages, "assistant", w->answer.data, err));
out:
    return rc;
}

static qvl_status add_shapes_sample(shapes_writer *w, json_t *samples, qvl_err *err)
{
    const int kind = qvl_demo_draw(&w->random, 10);
    qvl_status rc = QVL_OK;
    w->messages = json_array();
    w->images = json_array();
    if (kind < 6)
        QVL_TRY(ask_about_one(w, 1, false, err));
    else if (kind < 8)
        QVL_TRY(ask_about_one(w, 2, kind == 7, err));
    else
        QVL_TRY(ask_about_two(w, err));
    QVL_TRY(append(samples, json_pack("{s:O, s:O}", "messages", w->messages, "images", w->images),
                   err));
out:
    json_decref(w->messages);
    json_decref(w->images);
    return rc;
}

static qvl_status write_shapes(qvl_demo_data *out, const char *directory, int64_t n_samples,
                               uint64_t seed, qvl_err *err)
{
    char path[QVL_PATH_BYTES];
    shapes_writer w = {.directory = directory, .random = qvl_demo_stream(seed, "demo_shapes")};
    json_t *samples = json_array();
    qvl_status rc = QVL_OK;
    QVL_TRY(qvl_path_join(path, directory, "demo_shapes", err));
    QVL_TRY(qvl_directory_create(path, err));
    for (int64_t i = 0; i < n_samples; i++)
        QVL_TRY(add_shapes_sample(&w, samples, err));
    QVL_TRY(write_json(directory, "demo_shapes.json", samples, err));
    out->n_shapes = n_samples;
    out->n_pictures = w.n_pictures;
out:
    json_decref(samples);
    qvl_text_fini(&w.file);
    qvl_text_fini(&w.question);
    qvl_text_fini(&w.answer);
    return rc;
}

/* demo_facts and demo_chat */

static qvl_status write_facts(qvl_demo_data *out, const char *directory, const qvl_fact *facts,
                              size_t n_facts, qvl_err *err)
{
    char path[QVL_PATH_BYTES];
    qvl_text lines = {0};
    qvl_status rc = QVL_OK;
    for (size_t i = 0; i < n_facts; i++) {
        json_t *sample = json_pack("{s:s, s:s, s:s}", "instruction", facts[i].question, "input",
                                   facts[i].input, "output", facts[i].answer);
        char *line = sample ? json_dumps(sample, 0) : NULL;
        rc = line ? qvl_text_printf(&lines, err, "%s\n", line) : qvl_fail_memory(err, 0, "a fact");
        free(line);
        json_decref(sample);
        if (rc != QVL_OK)
            goto out;
    }
    QVL_TRY(qvl_path_join(path, directory, "demo_facts.jsonl", err));
    QVL_TRY(qvl_file_replace(path, lines.data, lines.len, err));
    out->n_facts = (int64_t)n_facts;
out:
    qvl_text_fini(&lines);
    return rc;
}

/* The question and what the system message makes of the answer. system of 3: there is none. */
static void put_fact(char question[160], char answer[160], const qvl_fact *fact, int system)
{
    snprintf(question, 160, "%s%s%s", fact->question, fact->input[0] ? " " : "", fact->input);
    snprintf(answer, 160, "%s%s", system == 2 ? "With pleasure. " : "",
             system == 0 ? fact->brief : fact->answer);
    for (char *c = answer; system == 1 && *c; c++)
        *c = (char)toupper((unsigned char)*c);
}

static qvl_status add_chat(json_t *samples, const qvl_fact *facts, size_t n_facts, int i,
                           qvl_err *err)
{
    const int system = i % 4, n_turns = 1 + i % 3 / 2;
    char question[160], answer[160];
    json_t *messages = json_array();
    qvl_status rc = QVL_OK;
    if (system < 3)
        QVL_TRY(add_message(messages, "system", SYSTEMS[system], err));
    for (int turn = 0; turn < n_turns; turn++) {
        /* Far apart in the list, so that one talk is not all sums. */
        put_fact(question, answer, &facts[((size_t)i * 31 + (size_t)turn * 59) % n_facts], system);
        QVL_TRY(add_message(messages, "user", question, err));
        QVL_TRY(add_message(messages, "assistant", answer, err));
    }
    QVL_TRY(append(samples, json_pack("{s:O}", "messages", messages), err));
out:
    json_decref(messages);
    return rc;
}

static qvl_status write_chats(qvl_demo_data *out, const char *directory, const qvl_fact *facts,
                              size_t n_facts, qvl_err *err)
{
    json_t *samples = json_array();
    qvl_status rc = QVL_OK;
    for (int i = 0; i < N_CHATS; i++)
        QVL_TRY(add_chat(samples, facts, n_facts, i, err));
    QVL_TRY(write_json(directory, "demo_chat.json", samples, err));
    out->n_chats = N_CHATS;
out:
    json_decref(samples);
    return rc;
}

qvl_status qvl_demo_write_data(qvl_demo_data *out, const char *directory, int64_t n_samples,
                               uint64_t seed, qvl_err *err)
{
    char path[QVL_PATH_BYTES];
    qvl_fact *facts = NULL;
    size_t n_facts = 0;
    qvl_status rc = QVL_OK;
    *out = (qvl_demo_data){0};
    QVL_TRY(qvl_directory_create(directory, err));
    QVL_TRY(qvl_demo_facts(&facts, &n_facts, err));
    QVL_TRY(write_shapes(out, directory, n_samples, seed, err));
    QVL_TRY(write_facts(out, directory, facts, n_facts, err));
    QVL_TRY(write_chats(out, directory, facts, n_facts, err));
    QVL_TRY(qvl_path_join(path, directory, "dataset_info.json", err));
    QVL_TRY(qvl_file_replace(path, DATASET_INFO, sizeof DATASET_INFO - 1, err));
out:
    free(facts);
    return rc;
}
