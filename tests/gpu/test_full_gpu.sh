#!/usr/bin/env bash
# Another program takes the GPU's memory. Before a run: it is refused with what is missing, and nothing is left. In the
# middle of one: it goes on to the same bytes, or ends naming the step, with its last checkpoint whole and worth a resume.
. "$(dirname "$0")/lib.sh" "$@"
fixture wide
[ -x "$TESTS/hog_gpu" ] || { echo "skipped: hog_gpu was not built"; exit 77; }
run=(train.yaml device=cuda bf16=true overwrite_output_dir=false max_steps=6000 num_train_epochs=6000 save_steps=500 logging_steps=1)

export CUDA_VISIBLE_DEVICES=${CUDA_VISIBLE_DEVICES:-0}
used() { nvidia-smi -i "${CUDA_VISIBLE_DEVICES%%,*}" --query-gpu=memory.used --format=csv,noheader,nounits; }

# hold MIB: all of the GPU but so many MiB are taken, until let_go
hold() {
  rm -f hold hog.log && mkfifo hold
  "$TESTS/hog_gpu" "$1" < hold > hog.log 2>&1 & hog=$!
  exec 9> hold
  for ((i = 0; i < 300; i++)); do grep -qs holding hog.log && break; sleep 0.1; done
  grep -qs holding hog.log || { cat hog.log >&2; fail "the GPU's memory could not be taken"; }
}
let_go() { exec 9>&-; wait "$hog"; }

idle=$(used)
start 1 qvl_sft "${run[@]}" output_dir=alone
peak=0
while kill -0 "$launcher" 2> /dev/null; do now=$(used); [ "$now" -le $peak ] || peak=$now; sleep 0.2; done
wait "$launcher" || { tail -n 20 "$WORK/log" >&2; fail "the undisturbed run"; }
needed=$((peak - idle))
[ $needed -gt 100 ] || fail "a run takes $needed MiB: nothing was measured"
ok "the undisturbed run takes $needed MiB with the CUDA context"

# 24 MiB less than it needs, and nothing at all
for left in $((needed - 24)) 0; do
  hold $left
  code=0
  on 1 qvl_sft "${run[@]}" output_dir=refused || code=$?
  let_go
  [ $code = 69 ] || { cat hog.log; tail -n 20 "$WORK/log"; fail "$left MiB left: exit code $code instead of 69"; } >&2
  grep -qiE 'missing|out of memory' "$WORK/log" || { tail -n 20 "$WORK/log" >&2; fail "$left MiB left: no word of memory"; }
  ! grep -q '^step ' "$WORK/log" || fail "$left MiB left: steps were taken"
  [ ! -e refused/adapter_model.safetensors ] || fail "$left MiB left: an adapter was written"
  ok "$left MiB left: exit code 69, $(grep -iE 'missing|out of memory' "$WORK/log" | grep -v '^ ' | head -n 1 | cut -c1-200)"
done

start 1 qvl_sft "${run[@]}" output_dir=full
until_log '^step 5/'
hold 0
at=$(grep -o '^step [0-9]*' "$WORK/log" | tail -n 1)
code=0
wait "$launcher" || code=$?
let_go
ok "taken at $at of 6000: $(cat hog.log)"
[ "${at#step }" -lt 6000 ] || fail "the run was over before the memory was taken"
if [ $code != 0 ]; then
  [ $code = 69 ] || { tail -n 20 "$WORK/log" >&2; fail "memory taken in the middle: exit code $code"; }
  grep -qE 'step [0-9]+: .*(memory|alloc)' "$WORK/log" || { grep -v '^step' "$WORK/log" >&2; fail "memory taken in the middle: no word of the step"; }
  ok "ended with exit code 69: $(grep -E 'step [0-9]+: ' "$WORK/log" | tail -n 1 | cut -c1-200)"
  must "resumed with the memory free again" on 1 qvl_sft "${run[@]}" output_dir=full
fi
same "memory taken in the middle: the adapter of the undisturbed run" alone/adapter_model.safetensors full/adapter_model.safetensors
