/* qvl_prep: writes the pre-tokenized file and prints the data report. */
#include <string.h>

#include "io/hub_cache.h"
#include "src/program/program.h"
#include "src/data/prepare.h"
#include "src/train/device.h"

static const char SUMMARY[] =
    "usage: mpirun -np RANKS qvl_prep CONFIG.yaml [key=value ...]\n"
    "\n"
    "Encodes the data sets of the configuration into tokenized_path (by default tokenized.h5 in\n"
    "output_dir) with all cores of all ranks, and reports what is in them. qvl_sft does the same "
    "by\n"
    "itself when the file is not there. Of the model, config.json and tokenizer.json are needed.\n"
    "\n"
    "  --help, --help-markdown, --version\n"
    "\n"
    "Keys are those of qvl_sft. These have an effect here: all that are under Data;\n"
    "model_name_or_path, cache_dir, model_revision, image_max_pixels, image_min_pixels and\n"
    "split_special_tokens; output_dir; seed, which decides what val_size keeps apart; "
    "on_bad_sample,\n"
    "strict_paths, ddp_timeout and peer_timeout.\n";

static qvl_status prepare(const qvl_config *config, bool is_check, qvl_world *world, qvl_log *log,
                          qvl_err *err)
{
    char directory[QVL_PATH_BYTES];
    qvl_model_dims dims;
    qvl_prepared prepared = {0};
    int n_threads = 1;
    qvl_status rc = QVL_OK;
    (void)is_check;
    qvl_world_set_deadline(world, qvl_config_deadline(config));
    if (!config->dataset || !config->dataset[0])
        return qvl_world_agree(
            world, qvl_fail(err, QVL_ECONFIG, "dataset: is missing; there is nothing to encode"),
            err);
    QVL_TRY(qvl_threads_choose(&n_threads, world, err));
    rc = qvl_hub_find(directory, config->model_name_or_path, config->cache_dir,
                      config->model_revision, err);
    if (rc == QVL_OK)
        rc = qvl_model_dims_read(&dims, directory, err);
    QVL_TRY(qvl_world_agree(world, rc, err));
    QVL_TRY(qvl_prepare(&prepared, config, &dims, directory, QVL_PREPARE_FILES, n_threads, world,
                        log, err));
out:
    qvl_prepared_fini(&prepared);
    return rc;
}

int main(int argc, char **argv)
{
    static const qvl_program PROGRAM = {.name = "qvl_prep", .summary = SUMMARY, .run = prepare};
    return qvl_program_main(&PROGRAM, argc, argv);
}
