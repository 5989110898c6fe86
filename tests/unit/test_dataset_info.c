/* dataset_info.json: defaults, the members that become None, files, and entries that are wrong. */
#include "src/data/dataset_info.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tests/unit/scratch_files.h"

static int make_files(void **state)
{
    if (scratch_make(state) != 0)
        return -1;
    write_text_in(scratch, "a.json", "[]");
    write_text_in(scratch, "b.jsonl", "");
    write_text_in(scratch, "c.csv", "");
    static const char *const DIRECTORIES[] = {"many", "mixed", "empty", "d.json"};
    char path[QVL_PATH_BYTES];
    for (int i = 0; i < 4; i++)
        scratch_directory(path, DIRECTORIES[i]);
    write_text_in(scratch, "many/2.json", "[]");
    write_text_in(scratch, "many/10.jsonl", "[]");
    write_text_in(scratch, "many/1.json", "[]");
    write_text_in(scratch, "mixed/1.json", "[]");
    write_text_in(scratch, "mixed/2.txt", "[]");
    return 0;
}

static qvl_status read_info(qvl_dataset_info **out, size_t *count, const char *json,
                            const char *names, qvl_err *err)
{
    *out = NULL;
    *count = 0;
    write_text_in(scratch, "dataset_info.json", json);
    return qvl_dataset_info_read(out, count, names, scratch, err);
}

/* The entry "x" that has these members. */
static qvl_dataset_info *entry(const char *members)
{
    char json[1024];
    qvl_dataset_info *infos = NULL;
    size_t count = 0;
    qvl_err err = {0};
    snprintf(json, sizeof json, "{\"x\": {%s}}", members);
    expect_ok(read_info(&infos, &count, json, "x", &err), &err);
    assert_int_equal(count, 1);
    return infos;
}

static void expect_entry_refused(const char *members, qvl_status status, const char *words)
{
    char json[1024];
    qvl_dataset_info *infos = NULL;
    size_t count = 0;
    qvl_err err = {0};
    snprintf(json, sizeof json, "{\"x\": {%s}}", members);
    expect_failure(read_info(&infos, &count, json, "x", &err), status, &err, words);
    assert_null(infos);
}

static void expect_text(const char *text, const char *expected)
{
    if (expected)
        assert_string_equal(text ? text : "None", expected);
    else
        assert_null(text);
}

static void defaults(void **state)
{
    (void)state;
    qvl_dataset_info *x = entry("\"file_name\": \"a.json\"");
    assert_string_equal(x->name, "x");
    assert_int_equal(x->formatting, QVL_ALPACA);
    assert_int_equal(x->num_samples, -1);
    assert_int_equal(x->n_files, 1);
    char path[QVL_PATH_BYTES];
    assert_string_equal(x->files[0], scratch_path(path, "a.json"));
    expect_text(x->prompt, "instruction");
    expect_text(x->query, "input");
    expect_text(x->response, "output");
    expect_text(x->messages, "conversations");
    expect_text(x->history, NULL);
    expect_text(x->system, NULL);
    expect_text(x->tools, NULL);
    expect_text(x->images, NULL);
    expect_text(x->videos, NULL);
    expect_text(x->audios, NULL);
    expect_text(x->role_tag, "from");
    expect_text(x->content_tag, "value");
    expect_text(x->user_tag, "human");
    expect_text(x->assistant_tag, "gpt");
    expect_text(x->observation_tag, "observation");
    expect_text(x->function_tag, "function_call");
    expect_text(x->system_tag, "system");
    qvl_dataset_info_free(x, 1);
}

/* Members that columns or tags do not list are None once the object is there. */
static void the_trap(void **state)
{
    (void)state;
    qvl_dataset_info *x = entry("\"file_name\": \"a.json\", \"formatting\": \"sharegpt\", "
                                "\"columns\": {\"messages\": \"m\", \"images\": \"pictures\"}, "
                                "\"tags\": {\"role_tag\": \"role\", \"content_tag\": \"content\", "
                                "\"user_tag\": \"user\", \"assistant_tag\": null}");
    expect_text(x->messages, "m");
    expect_text(x->images, "pictures");
    expect_text(x->prompt, NULL);
    expect_text(x->query, NULL);
    expect_text(x->response, NULL);
    expect_text(x->role_tag, "role");
    expect_text(x->user_tag, "user");
    expect_text(x->assistant_tag, NULL);
    expect_text(x->observation_tag, NULL);
    expect_text(x->function_tag, NULL);
    expect_text(x->system_tag, NULL);
    qvl_dataset_info_free(x, 1);
    /* one of the two objects leaves the other's defaults alone; null is no object */
    x = entry("\"file_name\": \"a.json\", \"columns\": {\"prompt\": \"q\", \"chosen\": \"c\", "
              "\"rejected\": \"r\", \"kto_tag\": \"k\"}, \"tags\": null");
    expect_text(x->prompt, "q");
    expect_text(x->query, NULL);
    expect_text(x->response, NULL);
    expect_text(x->messages, NULL);
    expect_text(x->system_tag, "system");
    qvl_dataset_info_free(x, 1);
    x = entry("\"file_name\": \"a.json\", \"columns\": {}");
    expect_text(x->prompt, NULL);
    expect_text(x->response, NULL);
    qvl_dataset_info_free(x, 1);
}

/* Columns without which records mean nothing: those of the format that the entry itself names. */
static void needed_columns(void **state)
{
    static const struct {
        const char *members;
        uint32_t needed; /* bit 0 prompt, 2 response, 4 messages */
    } CASES[] = {
        {"\"file_name\": \"a.json\"", 0},
        {"\"file_name\": \"a.json\", \"columns\": null", 0},
        {"\"file_name\": \"a.json\", \"columns\": {}", 0},
        {"\"file_name\": \"a.json\", \"columns\": {\"prompt\": \"q\", \"query\": \"x\"}", 1},
        {"\"file_name\": \"a.json\", \"columns\": {\"prompt\": \"q\", \"response\": \"a\", "
         "\"messages\": \"m\", \"images\": \"i\", \"history\": \"h\", \"system\": \"s\"}",
         1 | 4},
        {"\"file_name\": \"a.json\", \"formatting\": \"sharegpt\"", 0},
        {"\"file_name\": \"a.json\", \"formatting\": \"sharegpt\", \"columns\": {\"prompt\": "
         "\"q\", \"messages\": \"m\", \"tools\": \"t\"}",
         16}};
    (void)state;
    for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++) {
        qvl_dataset_info *x = entry(CASES[i].members);
        assert_int_equal(qvl_dataset_info_needed(x), CASES[i].needed);
        qvl_dataset_info_free(x, 1);
    }
}

static void all_members(void **state)
{
    (void)state;
    qvl_dataset_info *x =
        entry("\"file_name\": \"b.jsonl\", \"formatting\": \"openai\", \"num_samples\": 7, "
              "\"ranking\": false, \"split\": \"train\", \"subset\": null, \"folder\": null, "
              "\"columns\": {\"prompt\": \"1\", \"query\": \"2\", \"response\": \"3\", "
              "\"history\": \"4\", \"messages\": \"5\", \"system\": \"6\", \"tools\": \"7\", "
              "\"images\": \"8\", \"videos\": \"9\", \"audios\": \"10\"}, "
              "\"tags\": {\"role_tag\": \"a\", \"content_tag\": \"b\", \"user_tag\": \"c\", "
              "\"assistant_tag\": \"d\", \"observation_tag\": \"e\", \"function_tag\": \"f\", "
              "\"system_tag\": \"g\"}");
    assert_int_equal(x->formatting, QVL_OPENAI);
    assert_int_equal(x->num_samples, 7);
    const char *const columns[] = {x->prompt, x->query, x->response, x->history, x->messages,
                                   x->system, x->tools, x->images,   x->videos,  x->audios};
    for (int i = 0; i < 10; i++)
        assert_int_equal(atoi(columns[i]), i + 1);
    const char *const tags[] = {x->role_tag,        x->content_tag,  x->user_tag,  x->assistant_tag,
                                x->observation_tag, x->function_tag, x->system_tag};
    for (int i = 0; i < 7; i++)
        assert_int_equal(tags[i][0], 'a' + i);
    qvl_dataset_info_free(x, 1);
}

static void directories_of_files(void **state)
{
    (void)state;
    static const char *const NAMES[] = {"many/1.json", "many/10.jsonl", "many/2.json"};
    char path[QVL_PATH_BYTES], directory[QVL_PATH_BYTES];
    qvl_dataset_info *x = entry("\"file_name\": \"many\"");
    assert_int_equal(x->n_files, 3);
    for (int i = 0; i < 3; i++)
        assert_string_equal(x->files[i], scratch_path(path, NAMES[i]));
    qvl_dataset_info_free(x, 1);
    expect_entry_refused("\"file_name\": \"mixed\"", QVL_EDATA,
                         "mixed/2.txt: file type is not read; expected .json or .jsonl");
    expect_entry_refused("\"file_name\": \"empty\"", QVL_EMISSING,
                         "empty: no files of data set 'x'");
    scratch_path(path, "a.json"); /* an absolute path is that path */
    assert_non_null(getcwd(directory, sizeof directory));
    char members[2 * QVL_PATH_BYTES];
    snprintf(members, sizeof members, "\"file_name\": \"%.400s/%s\"", directory, path);
    x = entry(members);
    assert_int_equal(x->files[0][0], '/');
    qvl_dataset_info_free(x, 1);
}

static void wrong_entries(void **state)
{
    (void)state;
    static const struct {
        const char *members;
        qvl_status status;
        const char *words;
    } CASES[] = {
        {"", QVL_EDATA, "dataset_info.json: x.file_name is missing"},
        {"\"file_name\": null", QVL_EDATA, "x.file_name is missing"},
        {"\"file_name\": 7", QVL_EDATA, "file_name is a whole number, expected a text"},
        {"\"file_name\": \"none.json\"", QVL_EMISSING,
         "none.json: data file of data set 'x' is not there"},
        {"\"file_name\": \"c.csv\"", QVL_EDATA, "c.csv: file type is not read; expected .json"},
        {"\"hf_hub_url\": \"a/b\", \"file_name\": \"a.json\"", QVL_EDATA,
         "x.hf_hub_url: only local files are read; remove it to read file_name, which "
         "LLaMA-Factory passes over for it"},
        {"\"script_url\": \"a/b\"", QVL_EDATA,
         "x.script_url: only local files are read; give file_name instead"},
        {"\"ms_hub_url\": \"a/b\"", QVL_EDATA, "x.ms_hub_url: only local files"},
        {"\"om_hub_url\": \"a/b\"", QVL_EDATA, "x.om_hub_url: only local files"},
        {"\"script_url\": \"s\"", QVL_EDATA, "x.script_url: only local files"},
        {"\"cloud_file_name\": \"s3://b\"", QVL_EDATA, "x.cloud_file_name: only local files"},
        {"\"file_name\": \"a.json\", \"ranking\": true", QVL_EDATA,
         "x is a ranking data set; sft needs answers"},
        {"\"file_name\": \"a.json\", \"ranking\": 1", QVL_EDATA,
         "ranking is a whole number, expected true or false"},
        {"\"file_name\": \"a.json\", \"formatting\": \"share\"", QVL_EDATA,
         "x.formatting is \"share\", expected alpaca, sharegpt or openai"},
        {"\"file_name\": \"a.json\", \"formatting\": 1", QVL_EDATA, "formatting is a whole number"},
        {"\"file_name\": \"a.json\", \"split\": \"train[:10]\"", QVL_EDATA,
         "x.split is \"train[:10]\""},
        {"\"file_name\": \"a.json\", \"num_samples\": 0", QVL_EDATA,
         "num_samples is 0, expected 1 to 4294967295"},
        {"\"file_name\": \"a.json\", \"num_samples\": 1.5", QVL_EDATA, "expected a whole number"},
        {"\"file_name\": \"a.json\", \"columns\": []", QVL_EDATA, "x.columns is not an object"},
        {"\"file_name\": \"a.json\", \"columns\": {\"prompt\": 1}", QVL_EDATA,
         "prompt is a whole number, expected a text"},
        {"\"file_name\": \"a.json\", \"columns\": {\"promt\": \"p\"}", QVL_EDATA,
         "x.columns: unknown member 'promt'"},
        {"\"file_name\": \"a.json\", \"tags\": {\"tag\": \"p\"}", QVL_EDATA,
         "x.tags: unknown member 'tag'"},
        {"\"file_name\": \"a.json\", \"formatting\": \"sharegpt\", \"columns\": {\"images\": "
         "\"i\"}",
         QVL_EDATA, "columns.messages, tags.role_tag and tags.content_tag are needed"},
        {"\"file_name\": \"a.json\", \"formatting\": \"openai\", \"tags\": {\"role_tag\": \"r\"}",
         QVL_EDATA, "columns.messages, tags.role_tag and tags.content_tag are needed"},
    };
    for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++)
        expect_entry_refused(CASES[i].members, CASES[i].status, CASES[i].words);
}

static void names_are_looked_up(void **state)
{
    (void)state;
    const char json[] = "{\"one\": {\"file_name\": \"a.json\"}, \"my two\": {\"file_name\": "
                        "\"b.jsonl\"}, \"wrong\": 3}";
    qvl_dataset_info *infos = NULL;
    size_t count = 0;
    qvl_err err = {0};
    expect_ok(read_info(&infos, &count, json, " one , my two,one", &err), &err);
    assert_int_equal(count, 3);
    assert_string_equal(infos[0].name, "one");
    assert_string_equal(infos[1].name, "my two");
    assert_string_equal(infos[2].name, "one");
    qvl_dataset_info_free(infos, count);
    static const struct {
        const char *names;
        qvl_status status;
        const char *words;
    } CASES[] = {
        {"on", QVL_EMISSING, "dataset_info.json: no data set 'on'; did you mean 'one'?"},
        {"one,entirely_other", QVL_EMISSING,
         "dataset_info.json: no data set 'entirely_other'; it has 'one', 'my two', 'wrong'"},
        {"one,", QVL_ECONFIG, "dataset: an empty name in 'one,'"},
        {",one", QVL_ECONFIG, "dataset: an empty name in ',one'"},
        {"", QVL_ECONFIG, "dataset: an empty name in ''"},
        {"one, ,my two", QVL_ECONFIG, "an empty name"},
        {"my", QVL_EMISSING, "no data set 'my'"},
        {"wrong", QVL_EDATA, "dataset_info.json: wrong is not an object"},
    };
    for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++)
        expect_failure(read_info(&infos, &count, json, CASES[i].names, &err), CASES[i].status, &err,
                       CASES[i].words);
    expect_failure(read_info(&infos, &count,
                             "{\"a1\": 1, \"b2\": 2, \"c3\": 3, \"d4\": 4, \"e5\": 5, "
                             "\"f6\": 6, \"g7\": 7}",
                             "entirely_other", &err),
                   QVL_EMISSING, &err, "it has 'a1', 'b2', 'c3', 'd4', 'e5' and 2 more");
    expect_failure(read_info(&infos, &count, "{}", "one", &err), QVL_EMISSING, &err,
                   "no data set 'one'; it is empty");
    expect_failure(read_info(&infos, &count, "[]", "one", &err), QVL_EDATA, &err,
                   "dataset_info.json: expected an object of data sets");
    expect_failure(read_info(&infos, &count, "{\"one\": {\n\"file_name\" \"a\"}}", "one", &err),
                   QVL_EDATA, &err, "dataset_info.json:2:");
    expect_failure(read_info(&infos, &count, "{\"one\": {}, \"one\": {}}", "one", &err), QVL_EDATA,
                   &err, "dataset_info.json:1:|duplicate");
    expect_failure(qvl_dataset_info_read(&infos, &count, "one", "nowhere", &err), QVL_EMISSING,
                   &err, "nowhere/dataset_info.json");
}

/* What influences the encoding is in the description, and None is not "None". */
static void descriptions_differ(void **state)
{
    (void)state;
    static const char *const ENTRIES[] = {
        "\"file_name\": \"a.json\"",
        "\"file_name\": \"a.json\", \"formatting\": \"sharegpt\"",
        "\"file_name\": \"a.json\", \"num_samples\": 3",
        "\"file_name\": \"a.json\", \"columns\": {\"prompt\": \"instruction\"}",
        "\"file_name\": \"a.json\", \"columns\": {\"prompt\": \"instruction\", \"query\": "
        "\"None\"}",
        "\"file_name\": \"a.json\", \"tags\": {}",
    };
    enum { N = sizeof ENTRIES / sizeof *ENTRIES };
    qvl_text texts[N] = {{0}};
    for (int i = 0; i < N; i++) {
        qvl_dataset_info *x = entry(ENTRIES[i]);
        assert_int_equal(qvl_dataset_info_describe(&texts[i], x, NULL), QVL_OK);
        qvl_dataset_info_free(x, 1);
        for (int k = 0; k < i; k++)
            if (strcmp(texts[i].data, texts[k].data) == 0)
                fail_msg("%s and %s are described alike", ENTRIES[i], ENTRIES[k]);
    }
    for (int i = 0; i < N; i++)
        qvl_text_fini(&texts[i]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(defaults),
        cmocka_unit_test(the_trap),
        cmocka_unit_test(needed_columns),
        cmocka_unit_test(all_members),
        cmocka_unit_test(directories_of_files),
        cmocka_unit_test(wrong_entries),
        cmocka_unit_test(names_are_looked_up),
        cmocka_unit_test(descriptions_differ),
    };
    return cmocka_run_group_tests_name("dataset_info", tests, make_files, scratch_remove);
}
