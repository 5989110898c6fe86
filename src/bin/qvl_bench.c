/* qvl_bench: times a step and its parts against this machine's own floor. */
#include "src/program/program.h"
#include "src/train/bench.h"

static const char SUMMARY[] =
    "usage: mpirun -np RANKS qvl_bench CONFIG.yaml [--json] [key=value ...]\n"
    "\n"
    "Runs optimiser steps of a training configuration and, between them, the frozen matrix "
    "products\n"
    "of the same steps alone, which no step can be faster than. Prints what this machine can do "
    "at\n"
    "most, both times, and where the rest goes. Trains nothing and leaves nothing but "
    "tokenized_path.\n"
    "\n"
    "  --json           one JSON object instead of the table\n"
    "  --help, --help-markdown, --version\n"
    "\n"
    "Keys as for qvl_sft; max_steps bounds the steps that are measured:\n";

int main(int argc, char **argv)
{
    static const qvl_program PROGRAM = {.name = "qvl_bench",
                                        .summary = SUMMARY,
                                        .flag = "--json",
                                        .only_prints = true,
                                        .run = qvl_bench};
    return qvl_program_main(&PROGRAM, argc, argv);
}
