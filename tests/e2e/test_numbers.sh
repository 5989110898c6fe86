#!/usr/bin/env bash
# Losses and gradients that are no numbers: named with step, samples and tensor; stopped or skipped; the
# last checkpoint stays the good one.
. "$(dirname "$0")/lib.sh" "$@"
export OMP_NUM_THREADS=1
fixture tiny

# offset_of TENSOR: "FILE BYTE" of its first element
offset_of() {
  local file length begin
  for file in model/*.safetensors; do
    length=$(od -An -t u8 -N 8 "$file" | tr -d ' ')
    begin=$(head -c $((8 + length)) "$file" | tail -c "$length" | grep -ao "\"$1\":{[^}]*}" | grep -o 'data_offsets":\[[0-9]*' | grep -o '[0-9]*$') || continue
    echo "$file $((8 + length + begin))"
    return
  done
  fail "no tensor $1"
}
# poison TENSOR ELEMENT: makes one float32 of the model NaN
poison() {
  read -r file at <<< "$(offset_of "$1")"
  printf '\377\377\377\177' | dd of="$file" bs=1 seek=$((at + 4 * $2)) conv=notrunc status=none
}
integers() { h5dump -y -w 1 -d "/$1" train.h5 | grep -E '^ *-?[0-9]+,?$' | tr -d ' ,'; }

# a token that one sample alone has, not among the first four, which are the first step
read -r token sample <<< "$(paste <(integers input_ids) <(awk 'NR > 1 { for (i = last; i < $1; i++) print NR - 2 } { last = $1 }' <(integers sample_offsets)) |
  awk '{ if (($1 in of) && of[$1] != $2) several[$1] = 1; of[$1] = $2 } END { for (t in of) if (!(t in several) && of[t] >= 8) { print t, of[t]; exit } }')"
[ -n "$sample" ] || fail "no such token"
step=$((sample / 4 + 1))
ok "token $token is in sample $sample only, which comes in step $step"
width=$(grep -o '"hidden_size": *[0-9]*' model/config.json | head -n 1 | grep -o '[0-9]*$')
poison model.embed_tokens.weight $((token * width))

run=(train.yaml device=cpu save_steps=1 num_train_epochs=2)
code=0; on 1 qvl_sft "${run[@]}" || code=$?
[ "$code" = 65 ] || { cat "$WORK/log" >&2; fail "exit code $code"; }
grep -q "step $step: loss -\?nan, gradient norm -\?nan; first in the gradient of lora_[AB] of layers\.[0-9]*\.[a-z_.]* (-\?nan); the loss of .*sample $sample (rank 0); stopped" "$WORK/log" || { cat "$WORK/log" >&2; fail "step, tensor or sample not named"; }
grep -q 'nothing of this step is saved (a lower learning_rate, or a look at the data, may help)' "$WORK/log" || fail "no advice for what was learnt"
[ -d out/checkpoint-$((step - 1)) ] || fail "the checkpoint before it is not there"
[ ! -e out/checkpoint-$step ] && [ ! -e out/adapter_model.safetensors ] || fail "something of the bad step was saved"
ok "stop: names step $step, the tensor and sample $sample; the checkpoint before stays"

code=0; on 2 qvl_sft "${run[@]}" gradient_accumulation_steps=2 output_dir=two || code=$?
[ "$code" = 65 ] || fail "2 ranks: exit code $code"
grep -q "sample $sample (rank [01])" "$WORK/log" || { cat "$WORK/log" >&2; fail "2 ranks: sample not named"; }
ok "the same on 2 ranks"

must "skip" on 2 qvl_sft "${run[@]}" gradient_accumulation_steps=2 output_dir=skipped nan_policy=skip
[ "$(grep -c 'is skipped (nan_policy: skip): loss' "$WORK/log")" = 2 ] || { cat "$WORK/log" >&2; fail "not two skipped steps in two epochs"; }
! grep -qi nan skipped/trainer_log.jsonl || fail "a loss that is no number in the log"
cp -r skipped again; rm again/*.json again/*.safetensors
for i in 7 8 9 10 11 12; do rm -rf again/checkpoint-$i; done
must "skip, gone on with" on 2 qvl_sft "${run[@]}" gradient_accumulation_steps=2 output_dir=again nan_policy=skip overwrite_output_dir=false
same "skip, gone on with: the same adapter" skipped/adapter_model.safetensors again/adapter_model.safetensors

poison model.norm.weight 0
code=0; on 1 qvl_sft "${run[@]}" num_train_epochs=10 output_dir=all nan_policy=skip || code=$?
[ "$code" = 65 ] || fail "every step bad: exit code $code"
[ "$(grep -c 'is skipped' "$WORK/log")" = 10 ] || fail "not 10 skipped steps"
grep -q 'step 11: .*stopped after 10 skipped steps in a row' "$WORK/log" || { cat "$WORK/log" >&2; fail "no word of it"; }
ok "after 10 skipped steps in a row it stops"
grep -q "(nothing has been learnt yet: the model's weights, or the adapter that it started from, hold or lead to" "$WORK/log" || { cat "$WORK/log" >&2; fail "advice for what was learnt, where nothing was"; }
code=0; on 1 qvl_sft "${run[@]}" output_dir=all adapter_name_or_path= || code=$?
[ "$code" = 65 ] || fail "bad weights: exit code $code"
grep -q "step 1: .*(nothing has been learnt yet: the model's weights hold or lead to values that are no numbers)" "$WORK/log" || { cat "$WORK/log" >&2; fail "bad weights: other advice"; }
ok "where nothing has been learnt yet the weights are named"
