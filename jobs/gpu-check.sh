#!/usr/bin/env bash
# Everything that only a GPU can show, in one command on a machine with one; a short table last.
#
#   jobs/gpu-check.sh [PART ...]      parts: kernels fixtures repeat poison placement lost_rank broken_gpu full_gpu sanitize
#                                            memory load truth repeat7b speed job 3b peers    (default: all)
# The first nine need nothing but the build. The others use a Qwen2.5-VL of random weights, and need
#   QVL_TOKENIZER   tokenizer.json of Qwen2.5-VL          QVL_DATA   LLaMA-Factory's data directory
#   python3 with torch, transformers, peft and h5py       disk for 25 GB under QVL_SCRATCH (default /tmp/qvl-gpu)
# QVL_PEERS, a directory with two scripts of one's own, is timed in the same run: gemm_floor.py, which times the products in
# torch, and hf_peft.py, which trains the same samples with transformers + PEFT and prints lines that begin with a letter A to E. QVL_BIN and QVL_TESTS name the
# directories of the programs and of the tests' programs (default: build/release, built when it is not there).
set -uo pipefail
cd "$(dirname "$0")/.."
SCRATCH=${QVL_SCRATCH:-/tmp/qvl-gpu}
if [ -z "${QVL_BIN:-}" ]; then
  cmake --preset release > /dev/null && cmake --build --preset release > /dev/null || exit 1
fi
BIN=${QVL_BIN:-$PWD/build/release/bin}
TESTS=${QVL_TESTS:-$PWD/build/release/tests}
export QVL_REQUIRE_GPU=1 OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
PARTS=${*:-kernels fixtures repeat poison placement lost_rank broken_gpu full_gpu sanitize memory load truth repeat7b speed job 3b peers}
mkdir -p "$SCRATCH"
TABLE=$SCRATCH/table.txt
: > "$TABLE"
failed=0

# row RESULT WHAT...: a line of the table
row() { printf '%-7s %s\n' "$1" "${*:2}" | tee -a "$TABLE"; [ "$1" != FAILED ] || failed=1; }
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
  local dtype program passed=0 n=0
  for dtype in f32 bf16; do
    for program in "$TESTS"/test_kernel_*; do
      [[ $program == *reference* ]] && continue
      n=$((n + 1))
      if QVL_TEST_DEVICE=cuda QVL_TEST_DTYPE=$dtype "$program" > "$SCRATCH/kernel.log" 2>&1; then
        passed=$((passed + 1))
      else
        grep -E 'FAILED|worst|error|[0-9]: ' "$SCRATCH/kernel.log" | head -n 12
        row FAILED "$(basename "$program"), $dtype"
      fi
    done
  done
  row "$([ $passed = $n ] && [ $n -gt 0 ] && echo ok || echo FAILED)" "kernels: $passed of $n programs passed against double references, float32 and bf16"
}

# ---- 7B ---------------------------------------------------------------------------------------------

MODEL=$SCRATCH/7b
DATA=$SCRATCH/data.h5
sft() { "$BIN/qvl_sft" configs/qwen2_5vl_lora_sft.yaml model_name_or_path="$MODEL" dataset_dir="$QVL_DATA" tokenized_path="$DATA" plot_loss=false "$@"; }

# make_model DIR SIZE
make_model() {
  [ -e "$1/config.json" ] && return 0
  python3 jobs/gpu/make_model.py "$1" "$2" "$QVL_TOKENIZER" > "$SCRATCH/make.log" 2>&1 || { tail -n 5 "$SCRATCH/make.log"; return 1; }
  cat "$1"/*.safetensors > /dev/null
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
    local taken; taken=$(grep -o 'GPU memory: [0-9.]* GiB' "$SCRATCH/run.log" | grep -o '[0-9.]*')
    row "$(awk -v t="$taken" 'BEGIN { print (t != "" && t <= 14.8) ? "ok" : "FAILED" }')" \
      "published config, all recomputed: $taken GiB allocated (allowed 14.8); with the CUDA context $PEAK_MIB MiB"
    row note "$(grep -o 'GPU memory: .*' "$SCRATCH/run.log"); $(grep -o 'peak host memory.*' "$SCRATCH/run.log")"
  else row FAILED "published config, all recomputed"; fi
  if peak sft output_dir="$SCRATCH/mem2" gradient_checkpointing=false max_steps=20 save_strategy=no; then
    local apart; apart=$(grep -oE '\([+-][0-9.]+ %\)' "$SCRATCH/run.log" | tr -d '()%+ -')
    row "$(awk -v a="$apart" 'BEGIN { print (a != "" && a <= 2) ? "ok" : "FAILED" }')" "no recomputation: $(grep -o 'GPU memory: .*' "$SCRATCH/run.log"); GPU peak $PEAK_MIB MiB"
  else row FAILED "published config, nothing recomputed"; fi
  # more than any GPU has: refused before anything is allocated, with the number that is missing
  sft output_dir="$SCRATCH/mem4" gradient_checkpointing=false gradient_accumulation_steps=1096 max_steps=1 pack_tokens=1048576 > "$SCRATCH/run.log" 2>&1
  local code=$?
  row "$([ $code = 69 ] && grep -q 'missing' "$SCRATCH/run.log" && echo ok || echo FAILED)" "too small a GPU: exit $code, $(grep -o 'not enough memory.*missing' "$SCRATCH/run.log" | tail -n 1)"
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
  local far rival
  far=$(awk '$2 == "logits" { print $4 }' "$SCRATCH/f7.log")
  rival=$(awk '$1 == "logits_bf16_distance" { print $2 }' "$SCRATCH/truth.log")
  row "$(awk -v f="$far" -v r="$rival" 'BEGIN { print (f != "" && r != "" && f <= 1.1 * r) ? "ok" : "FAILED" }')" \
    "the trained adapter in PEFT, logits beside float32: qvl bf16 $far of the largest, PEFT bf16 $rival"
}

repeat7b() {
  local i
  for i in 1 2; do
    sft output_dir="$SCRATCH/same$i" gradient_checkpointing=false max_steps=8 save_strategy=no > "$SCRATCH/run.log" 2>&1 || { row FAILED "7B, 8 steps"; return; }
  done
  row "$(cmp -s "$SCRATCH/same1/adapter_model.safetensors" "$SCRATCH/same2/adapter_model.safetensors" && echo ok || echo FAILED)" "7B, the same run twice: the same bytes"
}

# bench NAME KEYS...: qvl_bench of the published config
bench() {
  local name=$1
  shift
  "$BIN/qvl_bench" configs/qwen2_5vl_lora_sft.yaml model_name_or_path="$MODEL" dataset_dir="$QVL_DATA" tokenized_path="$DATA" output_dir="$SCRATCH/bench" "$@" > "$SCRATCH/bench.log" 2>&1 ||
    { row FAILED "bench, $name"; return; }
  echo "== $name"
  sed -n '/^ceilings/,$p' "$SCRATCH/bench.log"
  row ok "$name: $(awk '/^  step .* ms .* tokens/ { print $2 " ms a step, " $4 " tokens/s" }' "$SCRATCH/bench.log"), $(awk '/share of the floor/ { print $5 " % of the products between the steps, " $(NF - 1) " % of rested ones" }' "$SCRATCH/bench.log")"
}

speed() {
  bench "8 samples, nothing recomputed" gradient_checkpointing=false
  bench "8 samples, all recomputed" gradient_checkpointing=true
  bench "16 samples, nothing recomputed" gradient_checkpointing=false gradient_accumulation_steps=16
  local rows
  for rows in 2048 4096; do
    python3 jobs/gpu/make_long_data.py "$SCRATCH/rows$rows" $rows > /dev/null
    bench "full rows of $rows, 8192 tokens a step" dataset_dir="$SCRATCH/rows$rows" dataset=long tokenized_path="$SCRATCH/rows$rows.h5" \
      image_max_pixels=1003520 num_train_epochs=4 gradient_checkpointing=auto cutoff_len=$rows pack_tokens=$rows \
      gradient_accumulation_steps=$((8192 / rows))
  done
}

# Process start to adapter on disk, weights in page cache.
job() {
  local start took
  start=$(date +%s%N)
  sft output_dir="$SCRATCH/job" gradient_checkpointing=auto gradient_accumulation_steps=16 > "$SCRATCH/run.log" 2>&1 || { row FAILED "the whole job"; return; }
  took=$(awk -v a="$start" -v b="$(date +%s%N)" 'BEGIN { printf "%.2f", (b - a) / 1e9 }')
  sed -n '/^where the time went/,$p' "$SCRATCH/run.log"
  row note "the whole job on one GPU (accumulation 16, 3 epochs, $(grep -oE 'over [0-9]+ steps' "$SCRATCH/run.log")): $took s"
}

three_b() {
  local MODEL=$SCRATCH/3b
  make_model "$MODEL" 3b || { row FAILED "a 3B of random weights could not be made"; return; }
  bench "3B, 8 samples, nothing recomputed" gradient_checkpointing=false
}

peers() {
  [ -n "${QVL_PEERS:-}" ] || { row skipped "peers: QVL_PEERS is not set"; return; }
  python3 "$QVL_PEERS/gemm_floor.py" 1152 1408 2048 4096 2>&1 | tail -n 6
  python3 -W ignore "$QVL_PEERS/hf_peft.py" ${QVL_PEER_NAMES:-D A} 2> /dev/null | grep -E '^[A-E] ' | while read -r line; do row note "peer $line"; done
}

wants kernels && kernels
for name in fixtures repeat poison placement lost_rank broken_gpu full_gpu; do wants $name && script $name; done
if wants sanitize; then for tool in memcheck racecheck initcheck; do script sanitizers $tool; done; fi
big=0
for name in memory load truth repeat7b speed job 3b peers; do wants $name && big=1; done
if [ $big = 1 ]; then
  if [ -z "${QVL_TOKENIZER:-}" ] || [ -z "${QVL_DATA:-}" ]; then
    row skipped "7B: QVL_TOKENIZER and QVL_DATA are not set"
  elif ! make_model "$MODEL" 7b; then
    row FAILED "a 7B of random weights could not be made"
  else
    for name in memory load truth repeat7b speed job; do wants $name && $name; done
    wants 3b && three_b
    wants peers && peers
  fi
fi

echo
echo "$(nvidia-smi --query-gpu=name,driver_version --format=csv,noheader | head -n 1), $("$BIN/qvl_sft" --version | head -n 1)"
cat "$TABLE"
exit $failed
