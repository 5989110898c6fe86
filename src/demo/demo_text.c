#include "src/demo/demo_text.h"

#include <string.h>

static const char *const SHAPES[QVL_DEMO_N_SHAPES][2] = {
    {"circle", "circles"}, {"square", "squares"}, {"triangle", "triangles"},
    {"star", "stars"},     {"cross", "crosses"},  {"diamond", "diamonds"},
};
static const char *const COLOURS[QVL_DEMO_N_COLOURS] = {"red",    "green",  "blue", "yellow",
                                                        "orange", "purple", "black"};
static const char *const GROUNDS[QVL_DEMO_N_GROUNDS] = {"white", "grey", "pink", "beige"};
static const char *const NUMBERS[QVL_DEMO_MAX_COUNT][2] = {
    {"one", "One"}, {"two", "Two"}, {"three", "Three"}, {"four", "Four"}, {"five", "Five"}};

static const qvl_demo_question QUESTIONS[] = {
    {"Which shape do you see?", "I see {number} {shape}."},
    {"What is in the picture?", "{this colour} {shape}."},
    {"What kind of shape is shown?", "{this} {shape}."},
    {"What colour {is} the {shape}?", "The {shape} {is} {colour}."},
    {"Name the colour of the {shape}.", "The colour is {colour}."},
    {"How many {shapes} are there?", "There {is} {number} {shape}."},
    {"Count the {shapes}.", "I count {number} {shape}."},
    {"What colour is the background?", "The background is {ground}."},
    {"Describe the picture.", "{Number} {colour} {shape} on a {ground} background."},
    {"{Is} the {shape} {colour}?", "Yes, the {shape} {is} {colour}."},
    {"{Is} the {shape} {other}?", "No, the {shape} {is} {colour}."},
};

const qvl_demo_question *qvl_demo_questions(size_t *out_count)
{
    *out_count = sizeof QUESTIONS / sizeof QUESTIONS[0];
    return QUESTIONS;
}

const char *qvl_demo_number(int number)
{
    return NUMBERS[number - 1][0];
}

typedef struct word {
    const char *name, *text;
} word;

static const char *find_word(const word *words, size_t count, const char *name, size_t n_bytes)
{
    for (size_t i = 0; i < count; i++)
        if (strlen(words[i].name) == n_bytes && memcmp(words[i].name, name, n_bytes) == 0)
            return words[i].text;
    return NULL;
}

qvl_status qvl_scene_describe(qvl_text *out, const char *pattern, const qvl_scene *scene,
                              qvl_err *err)
{
    const int is_many = scene->count > 1;
    const char *colour = COLOURS[scene->colour];
    const char *article = strchr("aeiou", colour[0]) ? "This is an " : "This is a ";
    qvl_text this_colour = {0};
    qvl_status rc =
        qvl_text_printf(&this_colour, err, "%s%s", is_many ? "These are " : article, colour);
    if (rc != QVL_OK)
        return rc;
    const word words[] = {
        {"shape", SHAPES[scene->shape][is_many]},
        {"shapes", SHAPES[scene->shape][1]},
        {"colour", colour},
        {"other", COLOURS[(scene->colour + scene->count) % QVL_DEMO_N_COLOURS]},
        {"ground", GROUNDS[scene->ground]},
        {"number", NUMBERS[scene->count - 1][0]},
        {"Number", NUMBERS[scene->count - 1][1]},
        {"is", is_many ? "are" : "is"},
        {"Is", is_many ? "Are" : "Is"},
        {"this", is_many ? "These are" : "This is a"},
        {"this colour", this_colour.data},
    };
    for (const char *end; *pattern; pattern = end) {
        end = pattern + strcspn(pattern, "{");
        QVL_TRY(qvl_text_add(out, pattern, (size_t)(end - pattern), err));
        if (!*end)
            break;
        const size_t length = strcspn(end + 1, "}");
        const char *text = find_word(words, sizeof words / sizeof words[0], end + 1, length);
        if (!text) {
            rc = qvl_fail(err, QVL_EINTERNAL, "pattern with an unknown word: %s", end);
            goto out;
        }
        QVL_TRY(qvl_text_puts(out, text, err));
        end += length + 2;
    }
out:
    qvl_text_fini(&this_colour);
    return rc;
}

static const char PROSE[] =
    "This is a small book about shapes and colours. It was written for a machine that has never "
    "seen a picture before, and it begins with the simplest one: a circle on a white page.\n"
    "\n"
    "A circle is round. It has no corners and no sides, and every point of its edge is as far "
    "from the middle as every other point. A square has four corners and four sides of the same "
    "length. A triangle has three corners and three sides. A diamond is a square that stands on "
    "one of its corners. A cross has two bars, and a star has five points.\n"
    "\n"
    "Shapes can be counted. Here is one circle. Here are two squares, three triangles, four "
    "stars and five crosses. If you have two circles and draw three more, there are five circles "
    "on the page. If you rub out one of them, four are left.\n"
    "\n"
    "Colours have names. The sky is blue, the grass is green, and the sun in a child's drawing "
    "is yellow. Tomatoes are red when they are ripe. Oranges are orange, which is why we call "
    "them so. Coal is black, snow is white, and a rainy day is grey. When you mix red and "
    "yellow, you get orange. When you mix blue and yellow, you get green. Red and blue together "
    "make purple, and red with a lot of white makes pink.\n"
    "\n"
    "The background is the part of the picture where nothing has been drawn. It can be white, "
    "grey, pink or beige. To describe a picture, first say how many shapes there are, then say "
    "which colour they have, and then say what the background looks like: three red circles on "
    "a white background, one blue star on a grey background.\n"
    "\n"
    "A week has seven days. Monday comes first, then Tuesday, Wednesday, Thursday and Friday. "
    "Saturday and Sunday are the weekend, when most people do not work. A year has twelve "
    "months: January, February, March, April, May, June, July, August, September, October, "
    "November and December. After December the next year begins with January.\n"
    "\n"
    "Numbers are easy once you know the rules. Two plus two is four. Nine minus five is four as "
    "well. Three times four is twelve, and so is two times six. When the question is a small "
    "one, the answer should be short: write the number, or one word, or one sentence.\n"
    "\n"
    "Words have opposites. The opposite of hot is cold, the opposite of big is small, and the "
    "opposite of early is late. Many words change when there is more than one thing: one box, "
    "two boxes; one leaf, many leaves; a child, some children; a mouse, a family of mice.\n"
    "\n"
    "A helpful assistant reads the question twice, looks at the picture, and then answers. It "
    "doesn't guess when it can count, and it doesn't say more than it was asked for. If "
    "somebody wants to know which picture has more shapes, it says: \"The first picture has "
    "more shapes.\" If both show the same number, it says so. It's polite, it isn't in a hurry, "
    "and when it can't see something, it'll tell you.\n"
    "\n"
    "Here is how such a talk may go. \"How many stars are there?\" asks the user. \"There are "
    "three stars,\" says the assistant. \"What colour are the stars?\" - \"The stars are "
    "yellow.\" - \"And the background?\" - \"The background is grey.\" - \"Look again: are the "
    "stars purple?\" - \"No, the stars are yellow.\"\n"
    "\n"
    "At the end of the book the machine has seen some hundreds of small pictures. It knows what "
    "a triangle is, and that a picture with a beige background can be a nice one. It does not "
    "know anything else about the world, and that is fine, because this is only a demo.\n";

const char *qvl_demo_prose(void)
{
    return PROSE;
}
