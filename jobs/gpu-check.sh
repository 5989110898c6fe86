#!/usr/bin/env bash
# Everything that only a GPU can show, in one command on a machine with one; a short table last.
#
#   jobs/gpu-check.sh [PART ...]      parts: kernels fixtures repeat poison lost_rank sanitize model memory load truth speed
#                                     (default: all)
# The first six need nothing but the build. The others use a Qwen2.5-VL-7B of random weights, and need
#   QVL_TOKENIZER   tokenizer.json of Qwen2.5-VL          QVL_DATA   LLaMA-Factory's data directory
#   python3 with torch, transformers, peft and h5py       disk for 17 GB under QVL_SCRATCH (default /tmp/qvl-gpu)
# QVL_BIN and QVL_TESTS name the directories of the programs and of the tests' programs (default: build/release, built
# when it is not there).
set -uo pipefail
cd "$(dirname "$0")/.."
SCRATCH=${QVL_SCRATCH:-/tmp/qvl-gpu}
if [ -z "${QVL_BIN:-}" ]; then
  cmake --preset release > /dev/null && cmake --build --preset release > /dev/null || exit 1
fi
BIN=${QVL_BIN:-$PWD/build/release/bin}
TESTS=${QVL_TESTS:-$PWD/build/release/tests}
export QVL_REQUIRE_GPU=1 OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
PARTS=${*:-kernels fixtures repeat poison lost_rank sanitize model memory load truth speed}
mkdir -p "$SCRATCH"
TABLE=$SCRATCH/table.txt
: > "$TABLE"
failed=0

# row RESULT WHAT...: a line of the table
row() { printf '%-7s %s\n' "$1" "${*:2}" >> "$TABLE"; [ "$1" != FAILED ] || failed=1; }
wants() { [[ " $PARTS " == *" $1 "* ]]; }

# script NAME ARGS...: one of the tests in tests/gpu
script() {
  local name=$1 start=$SECONDS
  shift
  if bash "tests/gpu/test_$name.sh" "$BIN" "$TESTS" "$PWD/tests/fixtures" "$@" > "$SCRATCH/$name$*.log" 2>&1; then
    row ok "$name $*: $(grep -c '^ok' "$SCRATCH/$name$*.log") checks in $((SECONDS - start)) s"
  else
    tail -n 15 "$SCRATCH/$name$*.log"
    row FAILED "$name $*: $(grep '^not ok' "$SCRATCH/$name$*.log" | tail -n 1)"
  fi
}

kernels() {
  local dtype program passed=0
  for dtype in f32 bf16; do
    for program in "$TESTS"/test_kernel_*; do
      [[ $program == *reference* ]] && continue
      if QVL_TEST_DEVICE=cuda QVL_TEST_DTYPE=$dtype "$program" > "$SCRATCH/kernel.log" 2>&1; then
        passed=$((passed + 1))
      else
        grep -E 'FAILED|worst|error|[0-9]: ' "$SCRATCH/kernel.log" | head -n 12
        row FAILED "$(basename "$program"), $dtype"
      fi
    done
  done
  row ok "kernels: $passed programs passed against double references, float32 and bf16"
}

# ---- 7B ---------------------------------------------------------------------------------------------

MODEL=$SCRATCH/7b
DATA=$SCRATCH/data.h5
sft() { "$BIN/qvl_sft" configs/qwen2_5vl_lora_sft.yaml model_name_or_path="$MODEL" dataset_dir="$QVL_DATA" tokenized_path="$DATA" plot_loss=false "$@"; }

make_model() {
  [ -e "$MODEL/config.json" ] && return 0
  python3 jobs/gpu/make_model.py "$MODEL" 7b "$QVL_TOKENIZER" > "$SCRATCH/make.log" 2>&1 || { tail -n 5 "$SCRATCH/make.log"; return 1; }
  cat "$MODEL"/*.safetensors > /dev/null
}

# peak COMMAND...: runs it with its output in $SCRATCH/run.log; $PEAK_MIB becomes the most GPU memory in use meanwhile
peak() {
  nvidia-smi --query-gpu=memory.used --format=csv,noheader,nounits -lms 50 > "$SCRATCH/used.txt" & local sampler=$!
  "$@" > "$SCRATCH/run.log" 2>&1
  local rc=$?
  kill $sampler 2> /dev/null; wait $sampler 2> /dev/null
  PEAK_MIB=$(sort -n "$SCRATCH/used.txt" | tail -n 1)
  [ $rc = 0 ] || tail -n 5 "$SCRATCH/run.log"
  return $rc
}

memory() {
  if peak sft output_dir="$SCRATCH/mem1" gradient_checkpointing=true max_steps=20 save_strategy=no; then
    row "$([ "$PEAK_MIB" -le 15155 ] && echo ok || echo FAILED)" "published config, all recomputed: GPU peak $PEAK_MIB MiB (allowed 15155 = 14.8 GiB)"
    row note "$(grep -o 'GPU memory: .*' "$SCRATCH/run.log"); $(grep -o 'peak host memory.*' "$SCRATCH/run.log")"
  else row FAILED "published config, all recomputed"; fi
  if peak sft output_dir="$SCRATCH/mem2" gradient_checkpointing=false max_steps=20 save_strategy=no; then
    local apart; apart=$(grep -oE '\([+-][0-9.]+ %\)' "$SCRATCH/run.log" | tr -d '()%+ -')
    row "$(awk -v a="$apart" 'BEGIN { print (a != "" && a <= 2) ? "ok" : "FAILED" }')" "no recomputation: $(grep -o 'GPU memory: .*' "$SCRATCH/run.log"); GPU peak $PEAK_MIB MiB"
  else row FAILED "published config, nothing recomputed"; fi
  python3 jobs/gpu/make_long_data.py "$SCRATCH/long" > /dev/null || { row FAILED "data of 2048-token samples"; return; }
  local how
  for how in true false auto; do
    if peak sft dataset_dir="$SCRATCH/long" dataset=long tokenized_path="$SCRATCH/long.h5" image_max_pixels=1003520 gradient_checkpointing=$how \
        output_dir="$SCRATCH/mem3" max_steps=4 save_strategy=no; then
      row ok "2048-token samples and images of 1003520 pixels, gradient_checkpointing=$how: GPU peak $PEAK_MIB MiB; $(grep -o 'GPU memory: .*' "$SCRATCH/run.log")"
    else row FAILED "2048-token samples, gradient_checkpointing=$how: $(tail -n 1 "$SCRATCH/run.log")"; fi
  done
}

load() {
  local start plain took
  start=$(date +%s%N); cat "$MODEL"/*.safetensors > /dev/null; plain=$(awk -v a="$start" -v b="$(date +%s%N)" 'BEGIN { print (b - a) / 1e9 }')
  sft output_dir="$SCRATCH/load" max_steps=1 save_strategy=no > "$SCRATCH/run.log" 2>&1 || { row FAILED "loading"; return; }
  took=$(awk '$1 == "model" && $2 == "loading" { print $3 }' "$SCRATCH/run.log")
  row "$(awk -v t="$took" -v p="$plain" 'BEGIN { m = 1.3 * p > 2.5 ? 1.3 * p : 2.5; print t <= m ? "ok" : "FAILED" }')" \
    "loading $(du -sBG "$MODEL" | cut -f1) from page cache: $took s (cat: $plain s); $(grep -o 'peak host memory.*' "$SCRATCH/run.log")"
}

truth() {
  local run=(disable_shuffling=true lora_dropout=0 warmup_ratio=0 warmup_steps=1 logging_steps=1 save_strategy=no gradient_accumulation_steps=8)
  sft "${run[@]}" max_steps=1 output_dir="$SCRATCH/init" > "$SCRATCH/run.log" 2>&1 &&
    sft "${run[@]}" max_steps=10 adapter_name_or_path="$SCRATCH/init" output_dir="$SCRATCH/truth" > "$SCRATCH/run.log" 2>&1 ||
    { tail -n 3 "$SCRATCH/run.log"; row FAILED "10 steps from a given adapter"; return; }
  if python3 -W ignore jobs/gpu/beside_transformers.py "$MODEL" "$DATA" "$SCRATCH/init" "$SCRATCH/truth" "$SCRATCH/f7" > "$SCRATCH/truth.log" 2>&1; then
    row ok "10 steps beside float32: $(grep -c '^mean' "$SCRATCH/truth.log") distances within 1.1 of transformers' bf16"
  else row FAILED "10 steps beside float32"; fi
  grep -vE 'Loading|it/s' "$SCRATCH/truth.log" | tail -n 20
  "$TESTS/forward_check" "$SCRATCH/f7" cuda_bf16 > "$SCRATCH/f7.log" 2>&1
  grep -vE 'hidden states' "$SCRATCH/f7.log" | head -n 12
  row "$(grep -q '^ok *logits' "$SCRATCH/f7.log" && echo ok || echo FAILED)" "the trained adapter in PEFT: $(grep 'logits' "$SCRATCH/f7.log" | head -n 1)"
  row note "$(grep '^PEFT loads' "$SCRATCH/truth.log" | sed 's/PEFT loads [^;]*; //')"
}

speed() {
  local how
  for how in false true; do
    sft output_dir="$SCRATCH/speed" gradient_checkpointing=$how max_steps=40 save_strategy=no logging_steps=5 > "$SCRATCH/run.log" 2>&1 ||
      { row FAILED "speed, gradient_checkpointing=$how"; continue; }
    row ok "published config, gradient_checkpointing=$how: $(grep -E 'tokens/s, .* ms a step' "$SCRATCH/run.log" | tail -n 1)"
  done
}

wants kernels && kernels
for name in fixtures repeat poison lost_rank; do wants $name && script $name; done
if wants sanitize; then for tool in memcheck racecheck initcheck; do script sanitizers $tool; done; fi
if [[ " $PARTS " =~ \ (model|memory|load|truth|speed)\  ]]; then
  if [ -z "${QVL_TOKENIZER:-}" ] || [ -z "${QVL_DATA:-}" ]; then
    row skipped "7B: QVL_TOKENIZER and QVL_DATA are not set"
  elif ! make_model; then
    row FAILED "a 7B of random weights could not be made"
  else
    for name in memory load truth speed; do wants $name && $name; done
  fi
fi

echo
echo "$(nvidia-smi --query-gpu=name,driver_version --format=csv,noheader | head -n 1), $("$BIN/qvl_sft" --version | head -n 1)"
cat "$TABLE"
exit $failed
