#!/usr/bin/env bash
# report_to: tensorboard: what log_history has is in an event file, from rank 0 alone; a run that goes on
# writes another one; none of it stops a run.
. "$(dirname "$0")/lib.sh" "$@"
export OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1
fixture tiny
run=(train.yaml device=cpu max_steps=6 num_train_epochs=2)

# agrees FILE STATE: every number of STATE's log_history is in the event file, and no other, as floats
agrees() {
  "$TESTS/event_dump" "$1" > "$WORK/events" || fail "$1 cannot be read"
  # an entry is one object, its "step" comes last
  tr -d ' ",' < "$2" | awk -F: '
    /^log_history:/ { inside = 1; next }
    /^\]/           { inside = 0 }
    inside && /^{/  { n = 0 }
    inside && /:/   { key[++n] = $1; value[n] = $2; if ($1 == "step") step = $2 }
    inside && /^}/  { for (i = 1; i <= n; i++) if (key[i] != "step")
                        print step, key[i] ~ /^eval_/ ? "eval/" substr(key[i], 6) : "train/" key[i], value[i] }
  ' > "$WORK/history"
  [ -s "$WORK/history" ] || fail "no log_history in $2"
  paste <(sort -k1,2 "$WORK/events") <(sort -k1,2 "$WORK/history") | awk '
    { d = $3 - $6; if (d < 0) d = -d; a = $6 < 0 ? -$6 : $6 }
    NF != 6 || $1 != $4 || $2 != $5 || !(d <= 1e-7 * a + 1e-38) { print "differs: " $0; bad = 1 }
    END { exit bad }' >&2 || fail "$1 is not what $2 has"
}
only() { [ "$(ls -d "$@" | wc -l)" = 1 ] || fail "not one: $(ls -d "$@")"; ls -d "$@"; }

must "report_to: none" on 1 qvl_sft "${run[@]}" max_steps=1 report_to=none output_dir=none
[ ! -e none/runs ] || fail "none wrote events"
code=0; on 1 qvl_sft "${run[@]}" report_to=wandb || code=$?
[ $code = 78 ] && grep -q "report_to: 'wandb' is not supported, only none|tensorboard|all" "$WORK/log" || fail "wandb: exit code $code"
ok "wandb is refused"

must "tensorboard on 2 ranks" on 2 qvl_sft "${run[@]}" gradient_accumulation_steps=2 report_to=tensorboard
file=$(only out/runs/*_*/events.out.tfevents.*)
agrees "$file" out/trainer_state.json
for tag in train/loss train/grad_norm train/learning_rate train/epoch train/train_runtime train/train_loss train/total_flos; do
  grep -q " $tag " "$WORK/events" || fail "no $tag"
done
[ "$(grep -c ' train/loss ' "$WORK/events")" = 6 ] || fail "not 6 losses"
grep -q "^events for TensorBoard go to ${file%/*}$" "$WORK/log" || fail "no word of where they go"
ok "the event file has what log_history has"

must "a finished run adds nothing" on 1 qvl_sft "${run[@]}" gradient_accumulation_steps=4 report_to=all overwrite_output_dir=false
grep -q 'nothing to do' "$WORK/log" || fail "it did something"
only out/runs/* > /dev/null
cp "$file" "$WORK/first"
must "overwrite_output_dir keeps runs/" on 1 qvl_sft "${run[@]}" report_to=all
grep -q 'out/runs, event files of earlier runs, stays' "$WORK/log" || fail "no word of it"
same "the earlier file" "$file" "$WORK/first"

# a run that goes on, with files of both in one directory
must "the first half" on 1 qvl_sft "${run[@]}" save_steps=3 output_dir=half logging_dir=events report_to="[tensorboard]"
rm -rf half/checkpoint-6 half/adapter_model.safetensors half/trainer_state.json half/*_results.json
first=$(only events/*)
must "the second half" on 1 qvl_sft "${run[@]}" save_steps=3 output_dir=half logging_dir=events report_to="[tensorboard]"
grep -q 'going on from half/checkpoint-3' "$WORK/log" || fail "it did not go on"
[ ! -e half/runs ] || fail "logging_dir was given"
second=$(only $(ls -d events/* | grep -v "^$first$"))
"$TESTS/event_dump" "$second" > "$WORK/events" || fail "$second cannot be read"
[ "$(awk '$2 == "train/loss" { printf "%s ", $1 }' "$WORK/events")" = "4 5 6 " ] || fail "steps of the second file"
ok "a run that goes on writes a file of its own"
same "and learns the same" out/adapter_model.safetensors half/adapter_model.safetensors

code=0; on 1 qvl_sft "${run[@]}" --check report_to=tensorboard logging_dir=train.yaml/here || code=$?
[ $code = 74 ] && grep -q "train.yaml.*Not a directory" "$WORK/log" || { cat "$WORK/log"; fail "a file in the way: exit code $code"; }
ok "a directory that cannot be had is known at once"

# a disk that is full for a while, or to the end, is no reason to stop (the library of tests/faults)
[ -e "$TESTS/qvl_faults.so" ] || exit 0
full() {
  env LD_PRELOAD="$TESTS/qvl_faults.so" QVL_FAULT_PATH=tfevents QVL_FAULT_CALL=write QVL_FAULT_HOW=ENOSPC QVL_FAULT_NTH=2 "$@" \
    "$BIN/qvl_sft" "${run[@]}" output_dir=full logging_dir=full_events report_to=tensorboard overwrite_output_dir=true > "$WORK/log" 2>&1
}
must "a full disk for a while" full QVL_FAULT_TIMES=3
[ "$(grep -c 'events for TensorBoard could not be written, they are kept: .*No space left' "$WORK/log")" = 1 ] || fail "not one warning"
grep -q '3 events for TensorBoard could not be written when they came; all are in full_events/' "$WORK/log" || fail "no word of it at the end"
agrees "$(only full_events/*)" full/trainer_state.json
ok "all events are there"
rm -rf full_events
must "a full disk to the end" full QVL_FAULT_TIMES=-1
grep -q '6 events for TensorBoard are lost: .*No space left' "$WORK/log" || { cat "$WORK/log"; fail "no word of what is lost"; }
[ -s full/adapter_model.safetensors ] || fail "the adapter is not there"
"$TESTS/event_dump" "$(only full_events/*)" | grep -q '^1 train/loss ' || fail "the first event is not there"
rm -rf full_events
must "half a write" full QVL_FAULT_HOW=short QVL_FAULT_TIMES=2
agrees "$(only full_events/*)" full/trainer_state.json
ok "records are whole"
