#include "src/program/program.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "qvl_version.h"
#include "src/base/files.h"
#include "src/base/memory.h"
#include "src/base/process.h"
#include "src/base/stop.h"

void qvl_program_print_version(const char *name)
{
    printf("%s %s (%s, %s build, %s)\n", name, QVL_VERSION, QVL_GIT_REVISION, QVL_BUILD_TYPE,
#ifdef QVL_WITH_CUDA
           "CPU and CUDA"
#else
           "CPU"
#endif
    );
}

typedef struct arguments {
    const char *config;
    const char **overrides;
    int n_overrides;
    bool has_flag;
} arguments;

static int print_text(qvl_status (*format)(qvl_text *, qvl_err *), const char *before)
{
    qvl_err err = {QVL_OK, ""};
    qvl_text text = {0};
    const qvl_status rc = format(&text, &err);
    if (rc == QVL_OK)
        printf("%s%s", before, text.data);
    qvl_text_fini(&text);
    return rc;
}

/* Options that need no ranks. True when one was answered; *code is then the exit code. */
static bool answer_early(const qvl_program *program, int argc, char **argv, int *code)
{
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0)
            *code = print_text(qvl_config_format_help, program->summary);
        else if (strcmp(argv[i], "--help-markdown") == 0)
            *code = print_text(qvl_config_format_markdown, "");
        else if (strcmp(argv[i], "--version") == 0)
            qvl_program_print_version(program->name);
        else
            continue;
        return true;
    }
    return false;
}

static qvl_status parse_arguments(const qvl_program *program, arguments *out, int argc, char **argv,
                                  qvl_err *err)
{
    for (int i = 1; i < argc; i++) {
        const char *word = argv[i];
        if (program->flag && strcmp(word, program->flag) == 0)
            out->has_flag = true;
        else if (word[0] == '-' && word[1])
            return qvl_fail(err, QVL_EUSAGE, "unknown option %s; see %s --help", word,
                            program->name);
        else if (!out->config && (!strchr(word, '=') || strcmp(word, "-") == 0))
            out->config = word;
        else if (strchr(word, '='))
            out->overrides[out->n_overrides++] = word;
        else
            return qvl_fail(err, QVL_EUSAGE, "'%s': expected key=value; see %s --help", word,
                            program->name);
    }
    if (!out->config)
        return qvl_fail(err, QVL_EUSAGE, "usage: %s CONFIG.yaml [key=value ...]; see %s --help",
                        program->name, program->name);
    return QVL_OK;
}

/* What ranks must have in common before they do anything together: another program, or another mode
 * of it, would exchange other things. */
static qvl_status compare_programs(const qvl_program *program, const arguments *args,
                                   qvl_world *world, qvl_err *err)
{
    char text[120];
    snprintf(text, sizeof text, "%s%s%s, version " QVL_VERSION " " QVL_GIT_REVISION, program->name,
             args->has_flag ? " " : "", args->has_flag ? program->flag : "");
    return qvl_world_compare(world, "program", text, err);
}

/* All ranks go on with the same values, whichever overrides they have them from. */
static qvl_status compare_configs(const qvl_config *config, qvl_world *world, qvl_err *err)
{
    qvl_text text = {0};
    qvl_status rc = qvl_config_format(&text, config, err);
    QVL_TRY(qvl_world_agree(world, rc, err));
    QVL_TRY(qvl_world_compare(world, "configuration", text.data, err));
out:
    qvl_text_fini(&text);
    return rc;
}

/* Rank 0 reads the file (or standard input, which it alone has), all parse the same text. */
static qvl_status read_config(qvl_config **out, const arguments *args, qvl_world *world,
                              qvl_err *err)
{
    qvl_text text = {0};
    uint64_t n_bytes = 0;
    const char *name = strcmp(args->config, "-") == 0 ? "standard input" : args->config;
    qvl_status rc = QVL_OK;
    /* a file that another rank names would not be read, and nobody would know */
    QVL_TRY(qvl_world_compare(world, "CONFIG.yaml argument", args->config, err));
    if (qvl_world_rank(world) == 0)
        rc = qvl_file_read_any(&text, args->config, 1 << 20, err);
    if (rc == QVL_EDATA) /* too large: no configuration */
        rc = err->status = QVL_ECONFIG;
    n_bytes = text.len;
    QVL_TRY(qvl_world_agree(world, rc, err));
    QVL_TRY(qvl_world_broadcast(world, &n_bytes, sizeof n_bytes, 0, err));
    rc = qvl_reserve(&text.data, &text.capacity, (size_t)n_bytes + 1, 1, "configuration", err);
    QVL_TRY(qvl_world_agree(world, rc, err));
    QVL_TRY(qvl_world_broadcast(world, text.data, (size_t)n_bytes, 0, err));
    text.data[n_bytes] = '\0';
    rc = qvl_config_parse(out, text.data, (size_t)n_bytes, name, args->overrides, args->n_overrides,
                          err);
    QVL_TRY(qvl_world_agree(world, rc, err));
out:
    qvl_text_fini(&text);
    return rc;
}

/* The exit code of a program whose product is what it printed. */
static int end_output(qvl_log *log, int code)
{
    qvl_err err = {QVL_OK, ""};
    if (code != QVL_OK || log->rank != 0 || qvl_log_check_output(&err) == QVL_OK)
        return code;
    qvl_log_error(log, 0, err.text);
    return err.status;
}

int qvl_program_main(const qvl_program *program, int argc, char **argv)
{
    qvl_err err = {QVL_OK, ""};
    qvl_log log;
    qvl_world *world = NULL;
    qvl_config *config = NULL;
    arguments args = {0};
    int code = 0;
    qvl_process_init();
    qvl_log_init(&log, program->name);
    if (answer_early(program, argc, argv, &code))
        return end_output(&log, code);
    signal(SIGPIPE, SIG_IGN); /* a closed log pipe must not end a run */
    qvl_stop_install();
    args.overrides = calloc((size_t)argc + 1, sizeof *args.overrides);
    qvl_status rc = args.overrides ? qvl_world_create(&world, &log, &err)
                                   : qvl_fail_memory(&err, 1, "arguments");
    QVL_TRY(rc);
    rc = parse_arguments(program, &args, argc, argv, &err);
    QVL_TRY(qvl_world_agree(world, rc, &err));
    QVL_TRY(compare_programs(program, &args, world, &err));
    QVL_TRY(read_config(&config, &args, world, &err));
    QVL_TRY(compare_configs(config, world, &err));
    qvl_world_name_deadline(world, qvl_config_deadline_key(config));
    rc = program->run(config, args.has_flag, world, &log, &err);
out:
    if (rc != QVL_OK) {
        /* A failure that the ranks did not agree on leaves them in different places. */
        if (world && qvl_world_size(world) > 1 && qvl_world_failed_rank(world) < 0)
            qvl_world_abort(world, rc, err.text);
        if (log.rank == 0)
            qvl_log_error(&log, world ? qvl_world_failed_rank(world) : 0, err.text);
    }
    qvl_config_destroy(config);
    qvl_world_destroy(world);
    free(args.overrides);
    return program->only_prints || args.has_flag ? end_output(&log, (int)rc) : (int)rc;
}
