#!/usr/bin/env bash
# Installs, builds, makes a small random model with its own data, and trains it on two ranks.
#   jobs/demo.sh [DIRECTORY]      (default: demo)
set -euo pipefail
cd "$(dirname "$0")/.."
dir=${1:-demo}

jobs/install-deps.sh || [ $? = 69 ] # 69: no apt; modules may have it all, and CMake names what is missing
cmake --preset release > build-configure.tmp 2>&1 || { cat build-configure.tmp; exit 1; }
rm -f build-configure.tmp
cmake --build --preset release --target qvl_sft qvl_prep qvl_demo
bin=build/release/bin

"$bin/qvl_demo" "$dir"
[ "$(id -u)" -ne 0 ] || export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
# Two ranks wherever this runs: also on one core, and in containers that cannot bind.
mpirun --oversubscribe --bind-to none -np 2 "$bin/qvl_sft" "$dir/demo.yaml"

losses=$(grep -o '"loss": [0-9.]*' "$dir/output/trainer_log.jsonl" | cut -d' ' -f2)
cat <<TEXT

The loss fell from $(head -n 1 <<< "$losses" | cut -c1-6) to $(tail -n 1 <<< "$losses" | cut -c1-6).
  adapter  $dir/output/adapter_model.safetensors  (PEFT loads it)
  picture  $dir/output/training_loss.png
  log      $dir/output/trainer_log.jsonl

Your own model and data: take LLaMA-Factory's YAML as it is, or start from configs/qwen2_5vl_lora_sft.yaml:
  $bin/qvl_sft --check CONFIG.yaml        what would happen: steps, memory, every sample validated
  mpirun -np 2 $bin/qvl_sft CONFIG.yaml   training
TEXT
