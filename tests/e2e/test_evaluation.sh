#!/usr/bin/env bash
# Evaluations and log lines come when transformers has them; what LLaMA-Factory writes of them, of tokens, and
# the share of the floor at the end.
. "$(dirname "$0")/lib.sh" "$@"
export OMP_NUM_THREADS=1
"$BIN/qvl_demo" demo > "$WORK/log" || fail "qvl_demo"
run=(demo/demo.yaml val_size=0.1 tokenized_path=demo/split.h5 save_strategy=no max_steps=6)

# count WANT PATTERN FILE: so many lines have it
count() {
  local n; n=$(grep -c -- "$2" "$3") || true
  [ "$n" = "$1" ] || { cat "$3" >&2; fail "$3: $n lines with '$2', expected $1"; }
}
# number KEY FILE: its value in an indented JSON file
number() { sed -n "s/^ *\"$1\": \([-0-9.e+]*\),\{0,1\}$/\1/p" "$2"; }

# ---- evaluations
must "eval_steps beyond the end" on 2 qvl_sft "${run[@]}" output_dir=late eval_strategy=steps eval_steps=1000 logging_steps=1000
count 1 eval_loss late/trainer_log.jsonl
count 1 'current_steps": 6, .*"eval_loss"' late/trainer_log.jsonl
[ "$(grep -o '"[a-z_]*":' late/eval_results.json | tr -d '\n')" = '"epoch":"eval_loss":"eval_runtime":"eval_samples_per_second":"eval_steps_per_second":' ] || { cat late/eval_results.json >&2; fail "eval_results.json has other keys"; }
for key in eval_loss eval_runtime eval_samples_per_second eval_steps_per_second; do
  value=$(number $key late/eval_results.json)
  [ -n "$value" ] && [ "$value" = "$(number $key late/all_results.json)" ] || fail "$key is not the same in all_results.json"
  grep -q "\"$key\": $value" late/trainer_state.json || fail "$key is not the same in trainer_state.json"
done
count 0 eval_ late/train_results.json
ok "an evaluation at the end, in eval_results.json and all_results.json"
must "an evaluation after the last step" on 1 qvl_sft "${run[@]}" output_dir=both eval_strategy=steps eval_steps=3 do_eval=true
count 2 eval_loss both/trainer_log.jsonl
[ -n "$(number eval_loss both/eval_results.json)" ] || fail "no eval_results.json"
ok "it is the one at the end"
must "do_eval alone" on 1 qvl_sft "${run[@]}" output_dir=only do_eval=true
count 1 eval_loss only/trainer_log.jsonl
must "do_eval: false beside an eval_strategy" on 1 qvl_sft "${run[@]}" output_dir=false eval_strategy=epoch do_eval=false
count 1 eval_loss false/trainer_log.jsonl
must "eval_steps alone" on 1 qvl_sft "${run[@]}" output_dir=steps eval_steps=2
count 0 eval_loss steps/trainer_log.jsonl
[ ! -e steps/eval_results.json ] || fail "eval_steps alone: eval_results.json is there"
count 1 'warning: eval_steps does nothing without eval_strategy: steps' "$WORK/log"
must "no training, an eval_strategy" on 1 qvl_sft "${run[@]}" output_dir=untrained do_train=false eval_strategy=steps
count 1 eval_loss untrained/trainer_log.jsonl
[ -n "$(number eval_loss untrained/eval_results.json)" ] || fail "no eval_results.json"
ok "evaluations come when transformers has them"

# ---- a stop in the last evaluation, which is long enough to be met
sets=demo_shapes,demo_facts,demo_chat
long=(demo/demo.yaml tokenized_path=demo/long.h5 eval_dataset=$sets,$sets,$sets,$sets eval_strategy=epoch per_device_eval_batch_size=1 save_strategy=no max_steps=3 logging_steps=1 output_dir=met)
start 2 qvl_sft "${long[@]}"
until_log '^step 3/3'
kill -TERM "$(rank 0)"
code=0; wait "$launcher" || code=$?
[ $code = 75 ] || { cat "$WORK/log" >&2; fail "a stop in the last evaluation: exit code $code, expected 75"; }
count 1 'after step 3 of 3, saved in met/checkpoint-3; run the same command again' "$WORK/log"
count 0 eval_loss met/trainer_log.jsonl
[ ! -e met/trainer_state.json ] || fail "a run that was stopped has results"
must "the same command evaluates" on 2 qvl_sft "${long[@]}"
count 1 'going on from met/checkpoint-3' "$WORK/log"
count 1 eval_loss met/trainer_log.jsonl
[ -n "$(number eval_loss met/eval_results.json)" ] || fail "no eval_results.json"
ok "a stop in the last evaluation loses nothing"

# ---- log lines: 44 steps an epoch
run=("${run[@]}" per_device_train_batch_size=2 gradient_accumulation_steps=4 save_strategy=steps save_steps=30 max_steps=50)
lines() { grep -o '"current_steps": [0-9]*' "$1/trainer_log.jsonl" | cut -d' ' -f2 | tr '\n' ' '; }
must "logging_strategy: no" on 1 qvl_sft "${run[@]}" output_dir=quiet logging_strategy=no
[ "$(lines quiet)" = "50 " ] || fail "logging_strategy no: lines of steps $(lines quiet)"
count 1 '"step":' quiet/trainer_state.json
count 1 '"train_runtime":' quiet/trainer_state.json
count 0 '^step ' "$WORK/log"
must "the first step all the same" on 1 qvl_sft "${run[@]}" output_dir=first logging_strategy=no logging_first_step=true
[ "$(lines first)" = "1 50 " ] || fail "logging_first_step: lines of steps $(lines first)"
must "logging_strategy: epoch" on 1 qvl_sft "${run[@]}" output_dir=epochs logging_strategy=epoch logging_steps=1
[ "$(lines epochs)" = "44 50 50 " ] || fail "logging_strategy epoch: lines of steps $(lines epochs)"
same "log lines change no bit" quiet/adapter_model.safetensors epochs/adapter_model.safetensors
ok "log lines come when transformers has them"

# ---- going on from checkpoint-30, with tokens counted
for strategy in no epoch; do
  must "$strategy: undisturbed" on 2 qvl_sft "${run[@]}" output_dir=whole logging_strategy=$strategy gradient_accumulation_steps=2 include_num_input_tokens_seen=true
  rm -rf part; cp -r whole part
  rm -r part/adapter* part/*_results.json part/trainer_state.json part/checkpoint-50
  must "$strategy: gone on with" on 2 qvl_sft "${run[@]}" output_dir=part logging_strategy=$strategy gradient_accumulation_steps=2 include_num_input_tokens_seen=true
  count 1 'going on from part/checkpoint-30' "$WORK/log"
  same "$strategy: the same adapter" whole/adapter_model.safetensors part/adapter_model.safetensors
  [ "$(lines whole)" = "$(lines part)" ] || fail "$strategy: lines of steps $(lines part), undisturbed $(lines whole)"
  for pair in train_loss:train_results.json num_input_tokens_seen:train_results.json num_input_tokens_seen:all_results.json; do
    a=$(number ${pair%:*} whole/${pair#*:}); b=$(number ${pair%:*} part/${pair#*:})
    [ -n "$a" ] && [ "$a" = "$b" ] || fail "$strategy: $pair is $b, undisturbed $a"
  done
  for key in '"loss":' '"num_input_tokens_seen":'; do
    [ "$(grep "$key" whole/trainer_state.json)" = "$(grep "$key" part/trainer_state.json)" ] || fail "$strategy: $key is not as undisturbed"
  done
  ok "$strategy: the same losses and tokens"
done
must "on one rank" on 1 qvl_sft "${run[@]}" output_dir=one logging_strategy=epoch include_num_input_tokens_seen=all
[ "$(number num_input_tokens_seen one/train_results.json)" -gt 1000 ] || fail "no tokens"
count 3 '"throughput": [0-9.]*, "total_tokens": [0-9]*[,}]' one/trainer_log.jsonl
count 4 '"num_input_tokens_seen": [1-9][0-9]*' one/trainer_state.json
ok "tokens are counted"

# ---- the floor
# floor NAME RANKS ARGS...: a run that says its share once, between 1 and 150 %. What else the machine does may
# fall on either of what is compared, so three runs may try.
floor() {
  local name=$1 try share
  shift
  for try in 1 2 3; do
    must "$name" on "$1" qvl_sft "${run[@]}" output_dir=floor max_steps=5 "${@:2}"
    count 1 '^share of the floor' "$WORK/log"
    share=$(sed -n 's/^share of the floor \([0-9.]*\) %: the frozen products of a step.s [1-9][0-9]* tokens alone take [0-9.]* ms\( (in the first steps .*)\)*$/\1/p' "$WORK/log")
    [ -n "$share" ] || { cat "$WORK/log" >&2; fail "$name: no share of the floor"; }
    if awk -v share="$share" 'BEGIN { exit !(share >= 1 && share <= 150) }'; then
      ok "$name: share of the floor $share %"
      return
    fi
  done
  fail "$name: the share of the floor is $share %"
}
floor "one rank" 1
floor "two ranks, activations recomputed" 2 gradient_checkpointing=true eval_strategy=epoch
floor "features computed each time, several packs" 1 vision_cache=off pack_tokens=130
floor "without packing" 1 pack=false
must "two steps" on 1 qvl_sft "${run[@]}" output_dir=two_steps max_steps=2
count 0 'share of the floor' "$WORK/log"
start 1 qvl_sft "${run[@]}" output_dir=stopped max_steps=100000
until_log '^step 20/'
kill -TERM "$(rank 0)"; wait "$launcher" || true
count 1 'stopped on request' "$WORK/log"
count 0 'share of the floor' "$WORK/log"
ok "after few steps or a stop the floor is not measured"

# ---- the device
CUDA_VISIBLE_DEVICES='' must "bf16 without a GPU" on 1 qvl_sft "${run[@]}" output_dir=cpu max_steps=1 bf16=true
count 1 '^qvl_sft: warning: device: auto: the CPU, in float32, though bf16: true asks for a GPU (no GPU found: ' "$WORK/log"
CUDA_VISIBLE_DEVICES='' must "float32 without a GPU" on 1 qvl_sft "${run[@]}" output_dir=cpu max_steps=1
count 0 'warning: device' "$WORK/log"
count 1 '^device: auto: the CPU (no GPU found: ' "$WORK/log"
must "bf16 on a CPU that was asked for" on 1 qvl_sft "${run[@]}" output_dir=cpu max_steps=1 bf16=true device=cpu
count 0 'warning: device' "$WORK/log"
count 1 '^note: bf16: true is for GPUs' "$WORK/log"
ok "a CPU in place of a GPU is warned of"
