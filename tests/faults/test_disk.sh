#!/usr/bin/env bash
# A disk that is full for a while, and one that stays full: training goes on, the save is made up for;
# where the last one fails the exit code is 74 and the same command makes up for it.
. "$(dirname "$0")/../e2e/lib.sh" "$@"
export OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1
faults=$TESTS/qvl_faults.so
fixture tiny
run=(train.yaml device=cpu max_steps=200 logging_steps=10 save_steps=20 save_total_limit=2)

# disturbed NAME=VALUE ... -- ARGS: every write below out/ fails while the file `full` is there
disturbed() {
  local settings=()
  while [ "$1" != -- ]; do settings+=("$1"); shift; done
  shift
  env LD_PRELOAD="$faults" QVL_FAULT_PATH=out/ QVL_FAULT_CALL=any QVL_FAULT_NTH=1 QVL_FAULT_TIMES=-1 QVL_FAULT_HOW=ENOSPC QVL_FAULT_WHILE="$PWD/full" \
    "${settings[@]}" "$BIN/qvl_sft" "$@" > "$WORK/log" 2>&1 & job=$!
}
until_log() {
  for _ in $(seq 600); do grep -q -- "$1" "$WORK/log" && return; sleep 0.1; done
  cat "$WORK/log" >&2; fail "no '$1' within 60 s"
}
newest() { ls out | grep '^checkpoint-[0-9]*$' | sort -t- -k2n | tail -n 1; }

one=(gradient_accumulation_steps=2)
must "an undisturbed run of one rank" on 1 qvl_sft "${run[@]}" "${one[@]}" output_dir=alone
for error in ENOSPC EDQUOT EIO; do
  rm -rf out full
  disturbed QVL_FAULT_HOW=$error -- "${run[@]}" "${one[@]}" output_dir=out
  until_log '^saved out/checkpoint-40$'
  touch full
  until_log 'CHECKPOINT NOT SAVED'
  until_log 'the log could not be written, its lines are kept'
  rm full
  code=0; wait $job || code=$?
  [ $code = 0 ] || { cat "$WORK/log" >&2; fail "$error: exit code $code"; }
  grep -q '^saved out/checkpoint-200$' "$WORK/log" || fail "$error: not saved when there was room"
  grep -q 'warning: [0-9]* lines of the log could not be written when they came; all are in it now' "$WORK/log" || fail "$error: no word of late lines at the end"
  same "$error for a while: the adapter" alone/adapter_model.safetensors out/adapter_model.safetensors
  cmp -s <(grep -o '"loss": [^,]*' out/trainer_log.jsonl) <(grep -o '"loss": [^,]*' alone/trainer_log.jsonl) || fail "$error: lines of the log are missing"
  ok "$error for a while: every line of the log"
done

rm -rf out full
disturbed -- "${run[@]}" "${one[@]}" output_dir=out
until_log '^saved out/checkpoint-40$'
touch full
code=0; wait $job || code=$?
[ $code = 74 ] || { cat "$WORK/log" >&2; fail "full to the end: exit code $code, expected 74"; }
[ "$(newest)" != checkpoint-200 ] || fail "full to the end: it saved"
rm full
ok "full to the end: exit code 74, $(newest) stays"
must "the same command makes up for it" on 1 qvl_sft "${run[@]}" "${one[@]}" output_dir=out
grep -q "going on from out/checkpoint-" "$WORK/log" || fail "it started anew"
same "the adapter" alone/adapter_model.safetensors out/adapter_model.safetensors

# a stop that cannot be saved
rm -rf out
disturbed -- "${run[@]}" "${one[@]}" output_dir=out max_steps=100000
until_log '^saved out/checkpoint-40$'
touch full; kill -TERM $job
code=0; wait $job || code=$?
[ $code = 74 ] || { cat "$WORK/log" >&2; fail "a stop on a full disk: exit code $code, expected 74"; }
grep -q 'the last checkpoint (step [0-9]*) was not saved: .*No space left' "$WORK/log" || fail "no word of it"
rm full
ok "a stop on a full disk: exit code 74"

# output_dir taken away
rm -rf out
disturbed -- "${run[@]}" "${one[@]}" output_dir=out
until_log '^saved out/checkpoint-40$'
mv out gone
until_log 'CHECKPOINT NOT SAVED: .*No such file'
mv gone out
code=0; wait $job || code=$?
[ $code = 0 ] || { cat "$WORK/log" >&2; fail "output_dir gone for a while: exit code $code"; }
same "output_dir gone for a while: the adapter" alone/adapter_model.safetensors out/adapter_model.safetensors
