#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "src/config/config.h"
#include "src/config/config_fixed.h"
#include "src/config/config_table.h"
#include "src/config/schedule_args.h"

static const void *member_of(const qvl_config *config, const qvl_option *option)
{
    return (const char *)config + option->offset;
}

/* The code point at *text, which is UTF-8 because it came from YAML; *text moves past it. */
static uint32_t next_code_point(const char **text)
{
    const unsigned char first = (unsigned char)*(*text)++;
    const int n_more = first < 0xc0 ? 0 : first < 0xe0 ? 1 : first < 0xf0 ? 2 : 3;
    uint32_t code = n_more == 0 ? first : first & (0x3fu >> n_more);
    for (int i = 0; i < n_more && **text; i++)
        code = code << 6 | ((unsigned char)*(*text)++ & 0x3fu);
    return code;
}

/* What single quotes would fold (line ends), and what the reader takes only as an escape. */
static bool needs_escape(uint32_t code)
{
    return code < 0x20 || (code >= 0x7f && code < 0xa0) || code == 0x2028 || code == 0x2029 ||
           code == 0xfeff || code == 0xfffe || code == 0xffff;
}

static qvl_status format_escaped(qvl_text *out, const char *text, qvl_err *err)
{
    qvl_status rc = qvl_text_puts(out, "\"", err);
    while (rc == QVL_OK && *text) {
        const char *begin = text;
        const uint32_t code = next_code_point(&text);
        if (code == '"' || code == '\\')
            rc = qvl_text_printf(out, err, "\\%c", (int)code);
        else if (needs_escape(code))
            rc = qvl_text_printf(out, err, "\\u%04" PRIx32, code);
        else
            rc = qvl_text_add(out, begin, (size_t)(text - begin), err);
    }
    return rc == QVL_OK ? qvl_text_puts(out, "\"", err) : rc;
}

/* Quoted, so that every text reads back as it is. */
static qvl_status format_text(qvl_text *out, const char *text, qvl_err *err)
{
    for (const char *at = text; *at;)
        if (needs_escape(next_code_point(&at)))
            return format_escaped(out, text, err);
    qvl_status rc = qvl_text_puts(out, "'", err);
    for (; rc == QVL_OK && *text; text++)
        rc = *text == '\'' ? qvl_text_puts(out, "''", err) : qvl_text_add(out, text, 1, err);
    return rc == QVL_OK ? qvl_text_puts(out, "'", err) : rc;
}

static qvl_status format_value(qvl_text *out, const qvl_config *config, const qvl_option *option,
                               qvl_err *err)
{
    const void *member = member_of(config, option);
    const bool may_be_null = strcmp(option->default_text, "null") == 0;
    char number[40];
    switch (option->type) {
    case QVL_OPTION_BOOL:
        return qvl_text_puts(out, *(const bool *)member ? "true" : "false", err);
    case QVL_OPTION_INT:
        if (may_be_null && *(const int64_t *)member < 0)
            return qvl_text_puts(out, "null", err);
        return qvl_text_printf(out, err, "%" PRId64, *(const int64_t *)member);
    case QVL_OPTION_FLOAT:
        if (may_be_null && *(const double *)member < 0)
            return qvl_text_puts(out, "null", err);
        return qvl_text_puts(out, qvl_format_double(number, *(const double *)member), err);
    case QVL_OPTION_MAP:
        return qvl_schedule_args_format(out, config, err);
    default:
        break;
    }
    const char *text = *(char *const *)member;
    return text ? format_text(out, text, err) : qvl_text_puts(out, "null", err);
}

qvl_status qvl_config_format(qvl_text *out, const qvl_config *config, qvl_err *err)
{
    qvl_status rc = QVL_OK;
    for (size_t i = 0; i < QVL_N_OPTIONS; i++) {
        const qvl_option *option = &QVL_OPTIONS[i];
        if (option->section)
            QVL_TRY(qvl_text_printf(out, err, "%s# %s\n", i ? "\n" : "", option->section));
        if (option->role != QVL_OPTION_USED)
            continue;
        QVL_TRY(qvl_text_printf(out, err, "%s: ", option->key));
        QVL_TRY(format_value(out, config, option, err));
        QVL_TRY(qvl_text_puts(out, "\n", err));
    }
    QVL_TRY(qvl_text_puts(out, "\n# Fixed\nstage: sft\nfinetuning_type: lora\n", err));
out:
    return rc;
}

static bool is_number(const qvl_option *option)
{
    return option->type == QVL_OPTION_INT || option->type == QVL_OPTION_FLOAT;
}

/* "1 to 1024" */
static const char *range_of(char buffer[100], const qvl_option *option)
{
    char low[40], high[40];
    snprintf(buffer, 100, "%s to %s", qvl_option_format_limit(low, option, option->min),
             qvl_option_format_limit(high, option, option->max));
    return buffer;
}

static const char *type_name(char buffer[300], const qvl_option *option)
{
    if (option->choices)
        return qvl_choices_format(buffer, option->choices);
    switch (option->type) {
    case QVL_OPTION_BOOL:
        return "true|false";
    case QVL_OPTION_INT:
        return "whole number";
    case QVL_OPTION_FLOAT:
        return "number";
    case QVL_OPTION_MAP:
        return "mapping";
    case QVL_OPTION_TEXT:
        return "text";
    case QVL_OPTION_LIST:
        return "comma-separated list";
    default:
        return "any";
    }
}

static qvl_status help_line(qvl_text *out, const qvl_option *option, qvl_err *err)
{
    char choices[300], range[100];
    const char *values = option->choices     ? qvl_choices_format(choices, option->choices)
                         : is_number(option) ? range_of(range, option)
                                             : NULL;
    return qvl_text_printf(out, err, "  %-30s %s%s%s%s [%s]\n", option->key, option->help,
                           values ? " (" : "", values ? values : "", values ? ")" : "",
                           option->default_text);
}

qvl_status qvl_config_format_help(qvl_text *out, qvl_err *err)
{
    qvl_status rc = QVL_OK;
    for (size_t i = 0; i < QVL_N_OPTIONS; i++) {
        const qvl_option *option = &QVL_OPTIONS[i];
        if (option->section)
            QVL_TRY(qvl_text_printf(out, err, "\n%s\n", option->section));
        else if (option->role == QVL_OPTION_USED)
            QVL_TRY(help_line(out, option, err));
    }
out:
    return rc;
}

/* '|' separates the columns of a Markdown table. */
static qvl_status add_cell(qvl_text *out, const char *text, qvl_err *err)
{
    qvl_status rc = QVL_OK;
    for (; rc == QVL_OK && *text; text++)
        rc = *text == '|' ? qvl_text_puts(out, " \\| ", err) : qvl_text_add(out, text, 1, err);
    return rc;
}

static qvl_status markdown_row(qvl_text *out, const qvl_option *option, qvl_err *err)
{
    static const char *const EFFECT[] = {"", "no effect: ", "other values are refused: "};
    char choices[300], range[100];
    qvl_status rc = QVL_OK;
    QVL_TRY(qvl_text_printf(out, err, "| `%s` | ", option->key));
    QVL_TRY(add_cell(out, type_name(choices, option), err));
    if (is_number(option))
        QVL_TRY(qvl_text_printf(out, err, ", %s", range_of(range, option)));
    QVL_TRY(
        qvl_text_printf(out, err, " | %s | ", option->default_text ? option->default_text : ""));
    QVL_TRY(add_cell(out, EFFECT[option->role], err));
    QVL_TRY(add_cell(out, option->help, err));
    QVL_TRY(qvl_text_puts(out, " |\n", err));
out:
    return rc;
}

qvl_status qvl_config_format_markdown(qvl_text *out, qvl_err *err)
{
    qvl_status rc = QVL_OK;
    QVL_TRY(qvl_text_puts(
        out,
        "# Configuration keys\n\n"
        "Written by `qvl_sft --help-markdown` from the table in src/config/config_table.c; a test\n"
        "compares the two. The keys are LLaMA-Factory's, with its defaults; qvl's own come last.\n"
        "Overrides `key=value` after the file win over it. An unknown key is an error that names\n"
        "file, line and the nearest known key (`ALLOW_EXTRA_ARGS=1` in the environment lets them\n"
        "pass, as in LLaMA-Factory). Keys marked \"no effect\" are accepted with any value. Where\n"
        "\"other values are refused\", those ask for something that qvl does not do, and are "
        "errors\n"
        "that say so. `*` stands for the rest of a name.\n",
        err));
    for (size_t i = 0; i < QVL_N_OPTIONS; i++) {
        const qvl_option *option = &QVL_OPTIONS[i];
        if (option->section)
            QVL_TRY(qvl_text_printf(out, err,
                                    "\n## %s\n\n| key | values | default | meaning |\n"
                                    "|---|---|---|---|\n",
                                    option->section));
        else
            QVL_TRY(markdown_row(out, option, err));
    }
out:
    return rc;
}
