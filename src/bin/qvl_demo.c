/* qvl_demo DIR: a tiny model, a tokenizer, data and a config, so that everything runs anywhere. */
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "qvl_version.h"
#include "src/base/log.h"
#include "src/base/process.h"
#include "src/base/text.h"
#include "src/demo/demo.h"

static const char HELP[] =
    "usage: qvl_demo [OPTION...] DIR\n"
    "\n"
    "Makes in DIR: model/ (a tiny random Qwen2.5-VL model and its tokenizer), data/ (questions "
    "about\n"
    "drawn pictures, and two text data sets) and demo.yaml, which trains the one on the other.\n"
    "DIR must be new, empty, or made by the same command before.\n"
    "\n"
    "  --samples N    samples about pictures, 1 to 100000 (240)\n"
    "  --seed N       the same seed gives the same files (42)\n"
    "  --size SIZE    tiny, 3b or 7b (tiny)\n"
    "  --sparse       weights are holes in the files: they read as zeros and take no room on "
    "disk;\n"
    "                 needed for 3b and 7b\n"
    "  --help         this text\n"
    "  --version      the version\n"
    "\n"
    "Exit codes: 0 done; 64 wrong usage, or DIR holds something else; 70 internal error; 74 "
    "writing\n"
    "failed.\n";

typedef enum action { MAKE, SHOW_HELP, SHOW_VERSION } action;

static qvl_status read_size(qvl_demo_size *out, const char *text, qvl_err *err)
{
    static const char *const NAMES[] = {"tiny", "3b", "7b"};
    for (int i = 0; i < 3; i++)
        if (strcmp(text, NAMES[i]) == 0) {
            *out = (qvl_demo_size)i;
            return QVL_OK;
        }
    return qvl_fail(err, QVL_EUSAGE, "--size %s: expected tiny, 3b or 7b", text);
}

static qvl_status read_number(int64_t *out, const char *option, const char *text, qvl_err *err)
{
    if (qvl_parse_i64(text, out) && *out >= 0)
        return QVL_OK;
    return qvl_fail(err, QVL_EUSAGE, "--%s %s: expected a number, 0 or more", option, text);
}

static qvl_status read_options(qvl_demo_options *options, action *what, int argc, char **argv,
                               qvl_err *err)
{
    static const struct option OPTIONS[] = {{"samples", required_argument, NULL, 'n'},
                                            {"seed", required_argument, NULL, 's'},
                                            {"size", required_argument, NULL, 'z'},
                                            {"sparse", no_argument, NULL, 'p'},
                                            {"help", no_argument, NULL, 'h'},
                                            {"version", no_argument, NULL, 'v'},
                                            {NULL, 0, NULL, 0}};
    int64_t seed = 42;
    qvl_status rc = QVL_OK;
    opterr = 0; /* one line of our own instead */
    for (int letter;
         rc == QVL_OK && (letter = getopt_long(argc, argv, ":", OPTIONS, NULL)) != -1;) {
        switch (letter) {
        case 'n':
            rc = read_number(&options->n_samples, "samples", optarg, err);
            break;
        case 's':
            rc = read_number(&seed, "seed", optarg, err);
            break;
        case 'z':
            rc = read_size(&options->size, optarg, err);
            break;
        case 'p':
            options->is_sparse = true;
            break;
        case 'h':
        case 'v':
            *what = letter == 'h' ? SHOW_HELP : SHOW_VERSION;
            return QVL_OK;
        case ':':
            rc =
                qvl_fail(err, QVL_EUSAGE, "%s: its value is missing; see --help", argv[optind - 1]);
            break;
        default:
            rc = qvl_fail(err, QVL_EUSAGE, "%s: no such option; see --help", argv[optind - 1]);
        }
    }
    options->seed = (uint64_t)seed;
    if (rc == QVL_OK && argc - optind != 1)
        rc = qvl_fail(err, QVL_EUSAGE, "%d directories, expected one; see --help", argc - optind);
    if (rc == QVL_OK)
        options->directory = argv[optind];
    return rc;
}

static void print_answer(action what, const qvl_text *report)
{
    if (what == MAKE)
        fputs(report->data, stdout);
    else if (what == SHOW_HELP)
        fputs(HELP, stdout);
    else
        printf("qvl_demo %s (%s, %s build)\n", QVL_VERSION, QVL_GIT_REVISION, QVL_BUILD_TYPE);
}

int main(int argc, char **argv)
{
    qvl_demo_options options = {.n_samples = 240};
    action what = MAKE;
    qvl_err err = {0};
    qvl_log log;
    qvl_text report = {0};
    qvl_process_init();
    qvl_log_init(&log, "qvl_demo");
    qvl_status rc = read_options(&options, &what, argc, argv, &err);
    if (rc == QVL_OK && what == MAKE)
        rc = qvl_demo_write(&report, &options, &err);
    if (rc == QVL_OK) {
        print_answer(what, &report);
        rc = qvl_log_check_output(&err);
    }
    qvl_text_fini(&report);
    if (rc != QVL_OK)
        qvl_log_error(&log, 0, err.text);
    return (int)rc;
}
