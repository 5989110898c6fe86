#!/usr/bin/env bash
# Stops: every signal, in every phase, limits of time; the same command goes on to the same adapter; what
# does not fit a checkpoint is refused with what differs.
. "$(dirname "$0")/lib.sh" "$@"
export OMP_NUM_THREADS=1
"$BIN/qvl_demo" demo > "$WORK/log" || fail "qvl_demo"
run=(demo/demo.yaml num_train_epochs=3 save_steps=40 logging_steps=5)
must "an undisturbed run" on 2 qvl_sft "${run[@]}" output_dir=whole

# ends CODE: the job's exit code
ends() {
  local code=0
  wait "$launcher" || code=$?
  [ "$code" = "$1" ] || { cat "$WORK/log" >&2; fail "exit code $code, expected $1"; }
}

for signal in TERM INT USR1 USR2 HUP; do
  start 2 qvl_sft "${run[@]}" output_dir=$signal
  until_log '^step 5/'
  kill -$signal "$(rank 1)"
  ends 75
  grep -q "stopped on request (SIG$signal on rank 1) after step .* run the same command again" "$WORK/log" || fail "SIG$signal: no word of it"
  ls "$signal" | grep -q '^checkpoint-[0-9]*$' || fail "SIG$signal: nothing saved"
  ok "SIG$signal on rank 1: saved, exit code 75"
done
must "the same command goes on" on 2 qvl_sft "${run[@]}" output_dir=USR1
grep -q 'going on from USR1/checkpoint-' "$WORK/log" || fail "it started anew"
same "stopped and gone on with is undisturbed" whole/adapter_model.safetensors USR1/adapter_model.safetensors
must "and once more" on 2 qvl_sft "${run[@]}" output_dir=USR1 overwrite_output_dir=false
grep -q 'nothing to do: all .* steps are done' "$WORK/log" || fail "a finished run did something"

# before the first step, where there is nothing to save
for phase in starting encoding features; do
  rm -rf early demo/other.h5
  start 2 qvl_sft "${run[@]}" output_dir=early tokenized_path=demo/other.h5
  case $phase in
    starting) until_log '^rank 0' ;;
    encoding) until_log '^LoRA' ;;
    features) until_log '^plan' ;;
  esac
  kill -USR1 "$(rank 0)"
  ends 75
  ok "a stop right after '$phase': exit code 75"
done

# the second signal, after the two seconds in which a launcher may send the first one twice
start 2 qvl_sft "${run[@]}" output_dir=second num_train_epochs=200
until_log '^step 5/'
kill -STOP "$(rank 1)"           # so that the first one cannot be followed
kill -USR1 "$(rank 0)"; sleep 2.5; kill -TERM "$(rank 0)"
ends 143
grep -q 'second signal: stopped without saving' "$WORK/log" || fail "no word of the second signal"
[ -z "$(ls second | grep '^checkpoint-[0-9]*$')" ] || fail "it saved"
ok "a second signal ends it at once"

# a save on request
start 2 qvl_sft "${run[@]}" output_dir=asked save_strategy=no num_train_epochs=200
until_log '^step 5/'
touch asked/save
until_log '^saved asked/checkpoint-'
[ ! -e asked/save ] || fail "the request is still there"
kill -TERM "$(rank 0)"; ends 75
ok "a file named save asks for a checkpoint"

# limits of time
must_stop() {
  local name=$1; shift
  local began=$SECONDS code=0
  on 2 qvl_sft "${run[@]}" num_train_epochs=2000 "$@" || code=$?
  [ "$code" = 75 ] || { cat "$WORK/log" >&2; fail "$name: exit code $code"; }
  [ $((SECONDS - began)) -le 14 ] || fail "$name: took $((SECONDS - began)) s"
  grep -q "stopped on request ($name" "$WORK/log" || fail "$name: not the reason given"
  ok "$name: stopped and saved in time"
}
must_stop max_hours output_dir=hours max_hours=0.0028
export SLURM_JOB_END_TIME=$(($(date +%s) + 10))
must_stop 'the end of the Slurm job' output_dir=slurm
export SLURM_JOB_END_TIME=1000
must "an end that is over is not followed" on 2 qvl_sft "${run[@]}" output_dir=over max_steps=2
grep -q 'SLURM_JOB_END_TIME: 1000 is over already' "$WORK/log" || fail "no word of it"
unset SLURM_JOB_END_TIME

# other models, data, ranks and targets
refused() {
  local name=$1 text=$2; shift 2
  local code=0
  rm -rf other; cp -r USR1 other; rm other/*.json other/*.safetensors
  on 2 qvl_sft "${run[@]}" output_dir=other overwrite_output_dir=false "$@" || code=$?
  [ "$code" = 65 ] || { cat "$WORK/log" >&2; fail "$name: exit code $code"; }
  grep -q -- "$text" "$WORK/log" || { cat "$WORK/log" >&2; fail "$name: does not say $text"; }
  ok "$name is refused"
}
refused "another LoRA rank" 'lora_rank: 8 there, 4 here' lora_rank=4
refused "other targets" 'lora_target: qkvogud there, qv here' lora_target=q_proj,v_proj
refused "other data" 'samples: .* there, .* here' max_samples=20 tokenized_path=demo/less.h5
must "another rank count goes on, and says what differs" on 1 qvl_sft "${run[@]}" output_dir=TERM
grep -q 'ranks: 2 there, 1 here' "$WORK/log" || fail "does not say that the ranks differ"
