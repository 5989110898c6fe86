/* qvl_sft: trains. */
#include "src/program/program.h"
#include "src/train/trainer.h"

static const char SUMMARY[] =
    "usage: mpirun -np RANKS qvl_sft CONFIG.yaml [--check] [key=value ...]\n"
    "\n"
    "LoRA fine-tuning of Qwen2.5-VL with LLaMA-Factory's configuration. One MPI rank a device.\n"
    "With - in place of CONFIG.yaml the configuration is read from standard input. Overrides\n"
    "key=value win over it. Nothing is fetched from a network.\n"
    "\n"
    "  --check          validate configuration, model files and every sample, print the plan, "
    "exit\n"
    "  --help           this text\n"
    "  --help-markdown  all keys that are accepted, as docs/CONFIG.md has them\n"
    "  --version\n"
    "\n"
    "Exit codes: 0 done; 64 usage; 65 bad data; 66 missing input; 69 device or network "
    "unavailable;\n"
    "70 internal error; 74 input/output error; 75 stopped on request, everything saved (run "
    "again);\n"
    "78 bad configuration.\n"
    "\n"
    "Keys that have an effect, with their (values) and [defaults]:\n";

int main(int argc, char **argv)
{
    static const qvl_program PROGRAM = {
        .name = "qvl_sft", .summary = SUMMARY, .flag = "--check", .run = qvl_train};
    return qvl_program_main(&PROGRAM, argc, argv);
}
