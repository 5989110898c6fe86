#!/usr/bin/env bash
# What several GPUs of one host must show, in one command; a short table last.
#
#   jobs/multi-gpu-check.sh [RANKS ...]      default: 1 2 4 8, as far as there are GPUs; beside one rank in any case
#   SHARE_GPU=1 jobs/multi-gpu-check.sh      all ranks on one GPU: correctness only, on a small model
#   DEVICE=cpu jobs/multi-gpu-check.sh       all ranks on this host's cores: correctness only
#
# With a GPU a rank it needs the model of jobs/gpu-check.sh: QVL_TOKENIZER, QVL_DATA, python3 with torch and
# transformers, disk under QVL_SCRATCH. QVL_BIN names the directory of the programs, as there.
set -uo pipefail
cd "$(dirname "$0")/.."
SCRATCH=${QVL_SCRATCH:-/tmp/qvl-gpu}
BIN=${QVL_BIN:-$PWD/build/release/bin}
DEVICE=${DEVICE:-cuda}
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
# NVLink multicast memory is set up by a daemon that not every host runs; two to eight ranks gain nothing from it.
export NCCL_NVLS_ENABLE=0
mkdir -p "$SCRATCH"
TABLE=$SCRATCH/multi.txt
: > "$TABLE"
failed=0
row() { printf '%-7s %s\n' "$1" "${*:2}" >> "$TABLE"; [ "$1" != FAILED ] || failed=1; }
on() { local n=$1; shift; mpirun --oversubscribe --bind-to none -np "$n" "$@"; }

# worst LOG_A LOG_B: largest relative distance of the losses of two runs
worst() {
  paste <(grep -o '"loss": [0-9.e+-]*' "$1" | cut -d' ' -f2) <(grep -o '"loss": [0-9.e+-]*' "$2" | cut -d' ' -f2) |
    awk 'NF != 2 { bad = 1 } { d = ($1 - $2) / $1; if (d < 0) d = -d; if (!(d <= w)) w = d; n++ } END { print bad || !n ? "inf" : w + 0 }'
}
judge() { awk -v v="$1" -v l="$2" 'BEGIN { print v != "inf" && v + 0 <= l + 0 ? "ok" : "FAILED" }'; }

# ---- correctness: a fixture's numbers, the same step sets on any number of ranks -----------------------

small() {
  local n keys=(device="$DEVICE" bf16=false) dir=$SCRATCH/wide
  [ -z "${SHARE_GPU:-}" ] || keys+=(share_gpu=true)
  rm -rf "$dir"; cp -r tests/fixtures/wide "$dir" 2> /dev/null || cp -r tests/fixtures/tiny "$dir"
  chmod -R u+w "$dir"
  for n in 1 $RANKS; do
    [ "$n" -gt 1 ] || [ ! -e "$dir/log1" ] || continue
    (cd "$dir" && on "$n" "$BIN/qvl_sft" train.yaml "${keys[@]}" num_train_epochs=4 lora_dropout=0.1 gradient_accumulation_steps=$((8 / n)) \
      output_dir="out$n" save_strategy=no > "log$n" 2>&1) || { tail -n 3 "$dir/log$n"; row FAILED "$n ranks: the run"; continue; }
    [ "$n" -gt 1 ] || continue
    local far; far=$(worst "$dir/out1/trainer_log.jsonl" "$dir/out$n/trainer_log.jsonl")
    row "$(judge "$far" 1e-5)" "$n ranks, 8 samples a step, dropout 0.1: losses within $far of one rank's"
  done
}

# ---- 7B, a GPU a rank -------------------------------------------------------------------------------

CONFIG=configs/qwen2_5vl_lora_sft.yaml
keys7b() { echo "model_name_or_path=$SCRATCH/7b dataset_dir=$QVL_DATA tokenized_path=$SCRATCH/data.h5 plot_loss=false"; }

scaling() {
  local n base="" speed share
  for n in 1 $RANKS; do
    [ "$n" -gt 1 ] || [ -z "$base" ] || continue
    on "$n" "$BIN/qvl_bench" $CONFIG $(keys7b) output_dir="$SCRATCH/scale" gradient_checkpointing=false > "$SCRATCH/scale$n.log" 2>&1 ||
      { tail -n 3 "$SCRATCH/scale$n.log"; row FAILED "$n GPUs: bench"; continue; }
    speed=$(awk '/^  step .* ms .* tokens/ { print $4 }' "$SCRATCH/scale$n.log")
    share=$(awk '/sum over ranks, not hidden/ { print $(NF - 1) }' "$SCRATCH/scale$n.log")
    base=${base:-$speed}
    row "$(awk -v s="$speed" -v b="$base" -v n="$n" -v x="$share" 'BEGIN { print s / b / n >= 0.97 && x < 1 ? "ok" : "FAILED" }')" \
      "$n GPUs: $speed tokens/s, $(awk -v s="$speed" -v b="$base" -v n="$n" 'BEGIN { printf "%.1f", 100 * s / b / n }') % of $n times one; exchange not hidden $share %"
  done
}

published() {
  on 2 "$BIN/qvl_sft" $CONFIG $(keys7b) output_dir="$SCRATCH/two" > "$SCRATCH/two.log" 2>&1 || { tail -n 3 "$SCRATCH/two.log"; row FAILED "published config on 2 GPUs"; return; }
  row "$(grep -q 'over 204 steps' "$SCRATCH/two.log" && echo ok || echo FAILED)" "published config on 2 GPUs: $(grep -o 'train loss.*steps' "$SCRATCH/two.log"); $(grep -o 'loaded the language model.*' "$SCRATCH/two.log")"
  local same=(disable_shuffling=true max_steps=10 logging_steps=1 save_strategy=no)
  on 1 "$BIN/qvl_sft" $CONFIG $(keys7b) "${same[@]}" gradient_accumulation_steps=16 output_dir="$SCRATCH/w1" > "$SCRATCH/w1.log" 2>&1
  on 2 "$BIN/qvl_sft" $CONFIG $(keys7b) "${same[@]}" output_dir="$SCRATCH/w2" > "$SCRATCH/w2.log" 2>&1
  local far; far=$(worst "$SCRATCH/w1/trainer_log.jsonl" "$SCRATCH/w2/trainer_log.jsonl")
  row "$(judge "$far" 5e-3)" "10 steps of the same 16 samples on 1 and 2 GPUs: losses within $far"
}

# lose SIGNAL LIMIT_S: rank 1 of 2 is sent SIGNAL during step 5
lose() {
  local dir=$SCRATCH/lost job start took
  on 2 "$BIN/qvl_sft" $CONFIG $(keys7b) output_dir="$dir" ddp_timeout=30 max_steps=2000 num_train_epochs=100 logging_steps=1 save_strategy=no > "$SCRATCH/lost.log" 2>&1 & job=$!
  for ((i = 0; i < 600; i++)); do grep -q '^step 5/' "$SCRATCH/lost.log" && break; sleep 0.2; done
  local ranks=($(pgrep -f "^$BIN/qvl_sft $CONFIG"))
  start=$SECONDS
  kill "-$1" "${ranks[1]}"
  wait $job; took=$((SECONDS - start))
  kill -9 "${ranks[@]}" 2> /dev/null
  row "$(judge "$took" "$2")" "2 GPUs, a rank gets SIG$1: ended after $took s (allowed $2)"
  local word; word=$(grep -E 'while training, step [0-9]+' "$SCRATCH/lost.log" | grep -v '#' | head -n 1 | cut -c1-150)
  row "$([ -n "$word" ] && echo ok || echo FAILED)" "2 GPUs, SIG$1: ${word:-no word of where}"
}

# 12 steps on 2 GPUs, whole and from the checkpoint of step 6: the same bytes; and the rest of them on 1 GPU
resume() {
  local run=($CONFIG $(keys7b) max_steps=12 save_steps=6 logging_steps=1 overwrite_output_dir=false)
  rm -rf "$SCRATCH"/resume?
  on 2 "$BIN/qvl_sft" "${run[@]}" output_dir="$SCRATCH/resume0" > "$SCRATCH/resume0.log" 2>&1 || { tail -n 3 "$SCRATCH/resume0.log"; row FAILED "12 steps on 2 GPUs"; return; }
  local n
  for n in 2 1; do
    mkdir "$SCRATCH/resume$n"; cp -r "$SCRATCH/resume0/checkpoint-6" "$SCRATCH/resume$n/"
    on "$n" "$BIN/qvl_sft" "${run[@]}" output_dir="$SCRATCH/resume$n" > "$SCRATCH/resume$n.log" 2>&1 || { tail -n 3 "$SCRATCH/resume$n.log"; row FAILED "going on with $n ranks"; return; }
  done
  row "$(grep -q 'step 6 of 12' "$SCRATCH/resume2.log" && cmp -s "$SCRATCH"/resume[02]/adapter_model.safetensors && echo ok || echo FAILED)" \
    "12 steps on 2 GPUs, and 6 more from the checkpoint of step 6: the same bytes"
  local word; word=$(grep -o '.*ranks: 2 there, 1 here.*' "$SCRATCH/resume1.log" | head -n 1 | cut -c1-150)
  row "$([ -n "$word" ] && [ -s "$SCRATCH/resume1/adapter_model.safetensors" ] && echo ok || echo FAILED)" "from that checkpoint on 1 GPU: ${word:-no notice}"
}

# The adapter of `published` in PEFT, beside its file.
in_peft() {
  local said
  said=$(python3 -W ignore - "$SCRATCH/7b" "$SCRATCH/two" 2> "$SCRATCH/peft.log" << 'PYTHON'
import sys
import torch
from peft import PeftModel, get_peft_model_state_dict
from safetensors.torch import load_file
from transformers import Qwen2_5_VLForConditionalGeneration

base = Qwen2_5_VLForConditionalGeneration.from_pretrained(sys.argv[1], dtype=torch.bfloat16, device_map="cuda:0")
got = get_peft_model_state_dict(PeftModel.from_pretrained(base, sys.argv[2]))
want = load_file(sys.argv[2] + "/adapter_model.safetensors")
assert set(got) == set(want), "other tensors: %s" % sorted(set(got) ^ set(want))[:2]
assert all(torch.equal(got[k].float().cpu(), want[k].float()) for k in want)
assert any(bool(want[k].any()) for k in want if "lora_B" in k)
print(len(want), "tensors, all as in the file")
PYTHON
  ) || { tail -n 2 "$SCRATCH/peft.log"; row FAILED "the adapter of 2 GPUs in PEFT"; return; }
  row ok "the adapter of 2 GPUs in PEFT: $said"
}

n_gpus=$(nvidia-smi -L 2> /dev/null | grep -c '^GPU')
RANKS=${*:-1 2 4 8}
if [ "$DEVICE" = cpu ] || [ -n "${SHARE_GPU:-}" ]; then
  small
else
  fitting=""
  for n in $RANKS; do [ "$n" -le "$n_gpus" ] && fitting+=" $n"; done
  RANKS=$fitting
  [ -n "$RANKS" ] || { echo "multi-gpu-check.sh: no GPU here; SHARE_GPU=1 or DEVICE=cpu check what they can" >&2; exit 69; }
  small
  if [ -z "${QVL_TOKENIZER:-}" ] || [ -z "${QVL_DATA:-}" ]; then
    row skipped "7B: QVL_TOKENIZER and QVL_DATA are not set"
  else
    [ -e "$SCRATCH/7b/config.json" ] || python3 jobs/gpu/make_model.py "$SCRATCH/7b" 7b "$QVL_TOKENIZER" > "$SCRATCH/make.log" 2>&1
    scaling
    if [ "$n_gpus" -ge 2 ]; then published; in_peft; lose KILL 30; lose STOP 60; resume; fi
  fi
fi
echo
cat "$TABLE"
exit $failed
