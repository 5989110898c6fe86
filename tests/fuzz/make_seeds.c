/* make_seeds FIXTURES OUT: the inputs that fuzzing begins with, OUT/TARGET/NAME. They are made from
 * the fixtures of the tests and from the texts below. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "src/base/files.h"
#include "src/base/text.h"
#include "tests/fuzz/h5_file.h"

typedef struct maker {
    const char *fixtures, *out;
    qvl_err err;
} maker;

static void must(maker *m, qvl_status rc)
{
    if (rc == QVL_OK)
        return;
    fprintf(stderr, "make_seeds: %s\n", m->err.text);
    exit(rc);
}

static void put(maker *m, const char *target, const char *name, const void *bytes, size_t n)
{
    char directory[QVL_PATH_BYTES], path[QVL_PATH_BYTES];
    must(m, qvl_path_join(directory, m->out, target, &m->err));
    must(m, qvl_directory_create(directory, &m->err));
    must(m, qvl_path_join(path, directory, name, &m->err));
    must(m, qvl_file_replace(path, bytes, n, &m->err));
}

static qvl_text read(maker *m, const char *name)
{
    char path[QVL_PATH_BYTES];
    qvl_text content = {0};
    must(m, qvl_path_join(path, m->fixtures, name, &m->err));
    must(m, qvl_file_read(&content, path, 1 << 24, &m->err));
    return content;
}

/* A file of several: all but the last with its length before it. */
static void pack(maker *m, const char *target, const char *name, const qvl_text *parts, int n)
{
    qvl_text all = {0};
    for (int i = 0; i < n; i++) {
        const char length[2] = {(char)parts[i].len, (char)(parts[i].len >> 8)};
        if (i + 1 < n)
            must(m, qvl_text_add(&all, length, 2, &m->err));
        must(m, qvl_text_add(&all, parts[i].data, parts[i].len, &m->err));
    }
    put(m, target, name, all.data, all.len);
    qvl_text_fini(&all);
}

/* Borrowed; not to be released. */
static qvl_text text_of(const char *text)
{
    return (qvl_text){.data = (char *)(uintptr_t)text, .len = strlen(text)};
}

static void images(maker *m)
{
    static const char *const KINDS[][2] = {{".jpg", "jpeg"}, {".png", "png"}, {".webp", "webp"}};
    char directory[QVL_PATH_BYTES], path[QVL_PATH_BYTES];
    char **names = NULL;
    size_t count = 0;
    must(m, qvl_path_join(directory, m->fixtures, "images", &m->err));
    must(m, qvl_directory_list(&names, &count, directory, &m->err));
    for (size_t i = 0; i < count; i++)
        for (int k = 0; k < 3; k++) {
            const size_t n = strlen(names[i]), tail = strlen(KINDS[k][0]);
            if (n < tail || strcmp(names[i] + n - tail, KINDS[k][0]) != 0)
                continue;
            qvl_text content = {0};
            must(m, qvl_path_join(path, directory, names[i], &m->err));
            must(m, qvl_file_read(&content, path, 1 << 20, &m->err));
            put(m, KINDS[k][1], names[i], content.data, content.len);
            qvl_text_fini(&content);
        }
    qvl_names_free(names, count);
}

static qvl_text safetensors(maker *m, const char *header, size_t n_data)
{
    qvl_text out = {0};
    char length[8] = {0};
    length[0] = (char)strlen(header);
    length[1] = (char)(strlen(header) >> 8);
    must(m, qvl_text_add(&out, length, 8, &m->err));
    must(m, qvl_text_puts(&out, header, &m->err));
    for (size_t i = 0; i < n_data; i++)
        must(m, qvl_text_add(&out, "\1", 1, &m->err));
    return out;
}

static void tensors(maker *m)
{
    qvl_text file = safetensors(
        m,
        "{\"__metadata__\":{\"format\":\"pt\"},\"a\":{\"dtype\":\"F32\",\"shape\":[2,4],"
        "\"data_offsets\":[0,32]},\"b\":{\"dtype\":\"BF16\",\"shape\":[3],\"data_offsets\":"
        "[32,38]},\"c\":{\"dtype\":\"F4\",\"shape\":[52],\"data_offsets\":[38,64]}}",
        64);
    qvl_text config = text_of(
        "{\"peft_type\":\"LORA\",\"r\":2,\"lora_alpha\":4,\"lora_dropout\":0.0,\"bias\":\"none\","
        "\"target_modules\":[\"q_proj\"],\"use_rslora\":false}");
    qvl_text adapter = safetensors(
        m,
        "{\"base_model.model.model.language_model.layers.0.self_attn.q_proj.lora_A.weight\":"
        "{\"dtype\":\"F32\",\"shape\":[2,8],\"data_offsets\":[0,64]},"
        "\"base_model.model.model.language_model.layers.0.self_attn.q_proj.lora_B.weight\":"
        "{\"dtype\":\"F32\",\"shape\":[8,2],\"data_offsets\":[64,128]}}",
        128);
    const qvl_text both[] = {config, adapter};
    put(m, "safetensors", "three", file.data, file.len);
    pack(m, "adapter", "q_proj", both, 2);
    qvl_text model[] = {read(m, "tiny/model/config.json"),
                        text_of("{\"min_pixels\":3136,\"max_pixels\":12845056,\"image_mean\":"
                                "[0.5,0.5,0.5],\"size\":{\"shortest_edge\":56}}"),
                        text_of("{\"metadata\":{},\"weight_map\":{\"a\":\"a.safetensors\",\"b\":"
                                "\"a.safetensors\",\"c\":\"a.safetensors\"}}"),
                        file};
    pack(m, "model", "tiny", model, 4);
    qvl_text_fini(&model[0]);
    qvl_text_fini(&file);
    qvl_text_fini(&adapter);
}

static void data_sets(maker *m)
{
    const qvl_text sharegpt[] = {
        text_of("{\"d\":{\"file_name\":\"data.json\",\"formatting\":\"sharegpt\",\"columns\":"
                "{\"messages\":\"messages\",\"images\":\"images\",\"system\":\"s\",\"tools\":"
                "\"t\"},\"tags\":{\"role_tag\":\"role\",\"content_tag\":\"content\",\"user_tag\":"
                "\"user\",\"assistant_tag\":\"assistant\",\"observation_tag\":\"tool\","
                "\"function_tag\":\"call\",\"system_tag\":\"system\"}}}"),
        text_of("[{\"messages\":[{\"role\":\"user\",\"content\":\"<image>a\"},{\"role\":"
                "\"assistant\",\"content\":\"b\"}],\"images\":[\"a.png\"]},\n{\"messages\":"
                "[{\"role\":\"system\",\"content\":\"s\"},{\"role\":\"user\",\"content\":\"u\"},"
                "{\"role\":\"call\",\"content\":\"{\\\"name\\\":\\\"f\\\",\\\"arguments\\\":{}}\"},"
                "{\"role\":\"tool\",\"content\":\"1\"},{\"role\":\"assistant\",\"content\":"
                "\"\\u00e9\"}],\"t\":\"[{\\\"name\\\":\\\"f\\\"}]\"}]")};
    const qvl_text alpaca[] = {
        text_of("{\"d\":{\"file_name\":\"data.json\"}}"),
        text_of("{\"instruction\":\"a\",\"input\":\"b\",\"output\":\"c\",\"history\":[[\"q\",\"r\"]"
                "],\"n\":123456789012345678901234567890}\n{\"instruction\":\"a\",\"output\":1}\n")};
    const qvl_text openai[] = {
        text_of("{\"d\":{\"file_name\":\"data.json\",\"formatting\":\"openai\",\"columns\":"
                "{\"messages\":\"messages\"},\"tags\":{\"role_tag\":\"role\",\"content_tag\":"
                "\"content\",\"user_tag\":\"user\",\"assistant_tag\":\"assistant\","
                "\"observation_tag\":\"tool\",\"function_tag\":\"f\",\"system_tag\":\"system\"}}}"),
        text_of("[{\"messages\":[{\"role\":\"user\",\"content\":\"a\"},{\"role\":\"assistant\","
                "\"content\":\"\",\"tool_calls\":[{\"function\":{\"name\":\"f\",\"arguments\":"
                "\"{}\"}}]},{\"role\":\"tool\",\"content\":\"1\"},{\"role\":\"tool\",\"content\":"
                "\"2\"},{\"role\":\"assistant\",\"content\":\"b\"}]}]")};
    pack(m, "records", "sharegpt", sharegpt, 2);
    pack(m, "records", "alpaca", alpaca, 2);
    pack(m, "records", "openai", openai, 2);
}

static void texts(maker *m)
{
    static const char JSON[] = "{\"a\":[1,-2.5e3,true,false,null,\"\\u00e9\\n\\\"\"],\"b\":{\"c\":"
                               "9223372036854775807,\"d\":0.1}}";
    static const char SENTENCE[] =
        "\0<|im_start|>user\nIt's 12 o'clock. caf\xc3\xa9 e\xcc\x81 \xe4\xbd\xa0\xe5\xa5\xbd "
        "[x][y]<|im_end|>\n";
    static const char STATE[] = "{\"log_history\":[{\"loss\":1.5,\"step\":1}],\"global_step\":7,"
                                "\"qvl_elapsed_s\":1.5}";
    static const char MANIFEST[] =
        "{\"format\":\"qvl-checkpoint\",\"version\":1,\"step\":7,\"files\":{\"optimizer.h5\":"
        "{\"size\":1,\"sha256\":\"00\"}}}";
    static const char YAML[] =
        "model_name_or_path: m\noutput_dir: \"o\"\ndataset: [a, b]\ntemplate: qwen2_vl\n"
        "lora_rank: 16\nlearning_rate: 1.0e-4\nlr_scheduler_type: cosine\n"
        "lr_scheduler_kwargs: {num_cycles: 0.5}\nbf16: yes\n"
        "max_samples: null # none\neval_strategy: 'no'\nmax_grad_norm:\nval_size: 0.1\n";
    const qvl_text config[] = {text_of("lora_dropout=0.1"), text_of(YAML)};
    const qvl_text state[] = {text_of(""), text_of(STATE), text_of("")};
    const qvl_text manifest[] = {text_of(""), text_of(STATE), text_of(MANIFEST)};
    qvl_text tokenizer = read(m, "tokenizer/tokenizer.json");
    pack(m, "config", "all_kinds", config, 2);
    pack(m, "checkpoint", "whole", state, 3);
    pack(m, "checkpoint", "own_manifest", manifest, 3);
    put(m, "json", "all_kinds", JSON, sizeof JSON - 1);
    put(m, "encode", "sentence", SENTENCE, sizeof SENTENCE - 1);
    put(m, "tokenizer", "small", tokenizer.data, tokenizer.len);
    qvl_text_fini(&tokenizer);
}

static void hdf5(maker *m)
{
    put(m, "dataset_h5", "good", "\0", 1);
    put(m, "dataset_h5", "latest", "\1", 1);
    for (uint8_t version = 0; version < 2; version++) {
        fuzz_stream in = {.data = &version, .n = 1};
        h5_layout layout = h5_good_dataset();
        qvl_text file = {0};
        must(m, qvl_file_read(&file, h5_write("seed.h5", &layout, &in), 1 << 20, &m->err));
        put(m, "raw_h5", version ? "latest" : "good", file.data, file.len);
        qvl_text_fini(&file);
    }
}

int main(int argc, char **argv)
{
    if (argc != 3) {
        fprintf(stderr, "usage: make_seeds FIXTURES OUT\n");
        return QVL_EUSAGE;
    }
    maker m = {.fixtures = argv[1], .out = argv[2]};
    images(&m);
    tensors(&m);
    data_sets(&m);
    texts(&m);
    hdf5(&m);
    return 0;
}
