#!/usr/bin/env bash
# Kills a training run on two ranks again and again, at random moments and, every other time, while a
# checkpoint is being written, and starts the same command again each time. Whenever a run comes to its
# end, its adapter must be that of an undisturbed run, byte for byte; then the next one begins.
#   tests/soak/kill_resume.sh BIN [KILLS [SIGNAL [SEED]]]    KILL (default) or TERM; needs mpirun
# With TERM every stop must end with exit code 75.
set -euo pipefail
bin=$(cd "$1" && pwd); kills=${2:-200}; signal=${3:-KILL}; seed=${4:-1}; RANDOM=$seed
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMP_NUM_THREADS=1 OMP_WAIT_POLICY=passive
work=$(mktemp -d "${TMPDIR:-/tmp}/qvl_soak.XXXXXX")
trap 'rm -rf "$work"' EXIT
cd "$work"

"$bin/qvl_demo" demo > log
command=(mpirun --oversubscribe --bind-to none -np 2 "$bin/qvl_sft" demo/demo.yaml num_train_epochs="${EPOCHS:-3}"
  save_steps=3 save_total_limit=2 logging_steps=10 output_dir=out)
"${command[@]}" > log 2>&1 || { cat log; exit 1; }
mv out whole
fail() { echo "FAILED after $n kills (seed $seed): $*"; cat log; exit 1; }

n=0 in_saves=0 finished=0 hangs=0 seen=""
while [ "$n" -lt "$kills" ]; do
  "${command[@]}" > log 2>&1 &
  launcher=$!
  # a moment somewhere between the start and a few steps, or within the next save
  sleep "$((RANDOM % 4)).$((RANDOM % 1000 + 1000))"
  ranks=$(pgrep -P $launcher qvl_sft || true)
  [ "$signal" = KILL ] || ranks=$(tr ' ' '\n' <<< "$ranks" | sed -n "$((RANDOM % 2 + 1))p")
  if [ $((n % 2)) = 1 ]; then
    while kill -0 $launcher 2> /dev/null && ! compgen -G 'out/checkpoint-*.tmp' > /dev/null; do :; done
  fi
  was_running=0 code=0
  [ -z "$ranks" ] || ! kill -"$signal" $ranks 2> /dev/null || was_running=1
  # Open MPI's mpirun may hang when a rank dies while it connects: no rank is left, so it goes too
  if [ "$signal" = KILL ] && [ $was_running = 1 ]; then
    for _ in $(seq 300); do kill -0 $launcher 2> /dev/null || break; sleep 0.1; done
    ! kill -9 $launcher 2> /dev/null || hangs=$((hangs + 1))
  fi
  wait $launcher || code=$?
  # what a killed save leaves; a stop leaves nothing, so there it is the number of waits for one
  if [ "$signal" = KILL ]; then
    left=$(ls -di out/checkpoint-*.tmp 2> /dev/null || true)
    [ -z "$left" ] || [ "$left" = "$seen" ] || in_saves=$((in_saves + 1))
    seen=$left
  else
    in_saves=$((in_saves + (n % 2) * was_running))
  fi
  if [ $code = 0 ]; then
    cmp out/adapter_model.safetensors whole/adapter_model.safetensors || fail "another adapter"
    finished=$((finished + 1)); rm -rf out
  elif [ $was_running = 0 ]; then
    fail "exit code $code, and nobody had killed it"
  elif [ "$signal" = TERM ] && [ $code != 75 ]; then
    # a signal before the program is there ends mpirun's child as any other
    grep -q '^rank 0\|^model' log && fail "exit code $code after SIGTERM"
  fi
  n=$((n + was_running))
done
"${command[@]}" > log 2>&1 || fail "the last run did not end"
cmp out/adapter_model.safetensors whole/adapter_model.safetensors || fail "another adapter"
cmp <(grep -o '"loss": [^,]*' out/trainer_log.jsonl) <(grep -o '"loss": [^,]*' whole/trainer_log.jsonl) || fail "another log"
echo "ok - $n x SIG$signal ($in_saves while a checkpoint was written), $hangs hangs of mpirun, $((finished + 1)) runs came to their end: the adapter and the losses of an undisturbed run each time"
