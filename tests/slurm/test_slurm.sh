#!/usr/bin/env bash
# The batch scripts on a real Slurm of one node, and the installed module on a real Lmod.
#   test_slurm.sh BIN TESTS FIXTURES BUILD SOURCE        exit code 77: Slurm is not installed
build=$4 source=$5
for tool in slurmctld slurmd munged sbatch srun; do
  command -v $tool > /dev/null || { echo "SKIPPED: no $tool (Debian: slurm-wlm munge)"; exit 77; }
done
[ "$(id -u)" = 0 ] || { echo "SKIPPED: slurmd and slurmctld of a test need root"; exit 77; }
. "$(dirname "$0")/../e2e/lib.sh" "$@"
. "$(dirname "$0")/cluster.sh"
trap 'cluster_stop; rm -rf "$WORK"' EXIT
chmod 755 "$WORK"
cluster_start "$WORK/cluster" > "$WORK/log" 2>&1 || { cat "$WORK/log" >&2; fail "Slurm did not start"; }
ok "Slurm $(sinfo --version | cut -d' ' -f2) of one node, GPUs of cardboard"

# ---- the module, which the jobs load ----
cmake --install "$build" --prefix "$WORK/prefix" > "$WORK/log" || fail "cmake --install"
lmod=$(ls /usr/share/lmod/lmod/init/bash 2> /dev/null || true)
if [ -n "$lmod" ]; then
  bash -c ". $lmod; module use $WORK/prefix/share/modulefiles; module load qvl && [ \$(command -v qvl_sft) = $WORK/prefix/bin/qvl_sft ] && qvl_sft --version && [ \$QVL_ROOT = $WORK/prefix ] && module unload qvl && ! command -v qvl_sft" > "$WORK/log" 2>&1 || { cat "$WORK/log" >&2; fail "the module"; }
  grep -q '^qvl_sft [0-9]' "$WORK/log" || fail "qvl_sft --version"
  ok "the installed module loads under Lmod, and leaves again"
else
  echo "SKIPPED: the module (Debian: lmod)"
fi
export PATH=$WORK/prefix/bin:$PATH OMP_NUM_THREADS=1 QVL_SAVE_SECONDS=3
scripts=$WORK/prefix/share/qvl/jobs
small=(--parsable --cpus-per-task=1 --nodes=1 --gpus-per-node=2 --ntasks-per-node=2)

qvl_demo demo > "$WORK/log" || fail "qvl_demo"
run=(demo/demo.yaml device=cpu save_steps=500 logging_steps=5)

state()    { scontrol show job "$1" -o | grep -o "JobState=[A-Z]*" | cut -d= -f2; }
restarts() { scontrol show job "$1" -o | grep -o "Restarts=[0-9]*" | cut -d= -f2; }
log_of()   { echo "qvl-sft-$1.log"; }
# until NAME SECONDS COMMAND...
until_true() {
  local name=$1 seconds=$2; shift 2
  for _ in $(seq $((seconds * 5))); do ! "$@" || return 0; sleep 0.2; done
  squeue >&2; tail -n 30 qvl-sft-*.log >&2; tail -n 10 "$WORK"/cluster/slurm*.log >&2
  fail "$name: not within $seconds s"
}
is_over() { case $(state "$1") in COMPLETED | FAILED | CANCELLED | TIMEOUT | NODE_FAIL) ;; *) return 1 ;; esac; }
has()     { grep -q -- "$2" "$(log_of "$1")" 2> /dev/null; }

# ---- a time limit in the middle ----
# A run of about 50 s on this machine, which the other job then slows down. Slurm looks twice a minute and
# sends the signal up to half a minute early: 15 to 45 s after the start.
must "a few steps, to know how long one takes" on 2 qvl_sft "${run[@]}" num_train_epochs=1 output_dir=measured
step_ms=$(grep -o '[0-9.]* ms a step' "$WORK/log" | cut -d. -f1)
epochs=$((50000 / (${step_ms:-20} + 1) / 24 + 1))
[ "$epochs" -lt 400 ] || epochs=400
job=$(sbatch "${small[@]}" --time=1 --signal=B:USR1@15 "$scripts/sft.sbatch" "${run[@]}" num_train_epochs=$epochs output_dir=limited)
must "the same run, undisturbed ($((24 * epochs)) steps)" on 2 qvl_sft "${run[@]}" num_train_epochs=$epochs output_dir=whole
until_true "the job's end" 400 is_over "$job"
[ "$(state "$job")" = COMPLETED ] || { cat "$(log_of "$job")" >&2; fail "the job ended as $(state "$job")"; }
[ "$(restarts "$job")" -ge 1 ] || { cat "$(log_of "$job")" >&2; fail "it came to its end without a restart: too fast a machine for this test"; }
has "$job" 'exit code 75, JobState=RUNNING' || fail "no exit code 75"
has "$job" 'start 2' && has "$job" 'going on from limited/checkpoint-' || fail "it did not go on"
has "$job" 'exit code 0' || fail "no exit code 0"
same "sft.sbatch: saved before its limit, requeued $(restarts "$job") times, finished: the adapter" whole/adapter_model.safetensors limited/adapter_model.safetensors

# ---- srun ----
job=$(sbatch "${small[@]}" --time=10 "$scripts/sft_multinode.sbatch" "${run[@]}" num_train_epochs=2000 output_dir=srun)
until_true "steps" 60 has "$job" '^step 5/'
scancel --signal=USR1 "$job"
until_true "a second start" 60 has "$job" 'start 2'
has "$job" 'stopped on request (SIGUSR1' && has "$job" 'exit code 75, JobState=RUNNING' || fail "not stopped by USR1"
until_true "going on" 60 has "$job" 'going on from srun/checkpoint-'
ok "sft_multinode.sbatch: USR1 saves and requeues, the next start goes on"
scancel "$job"
until_true "the end of a cancelled job" 60 is_over "$job"
sleep 3
[ "$(state "$job")" = CANCELLED ] && [ "$(restarts "$job")" = 1 ] || fail "scancel: $(state "$job"), $(restarts "$job") restarts"
until_true "its last words" 10 has "$job" 'stopped on request (SIGTERM'
ok "scancel: saved, cancelled, not requeued"

for script in sft sft_multinode; do
  job=$(sbatch "${small[@]}" --time=10 "$scripts/$script.sbatch" "${run[@]}" num_train_epochs=2000 output_dir=killed_$script)
  until_true "steps" 60 has "$job" '^step 5/'
  kill -9 "$(pgrep -f "qvl_sft .*output_dir=killed_$script" | while read -r p; do [ "$(cat /proc/$p/comm)" != qvl_sft ] || echo "$p"; done | tail -n 1)"
  until_true "the end of a job with a killed rank" 60 is_over "$job"
  [ "$(state "$job")" = FAILED ] && [ "$(restarts "$job")" = 0 ] || { cat "$(log_of "$job")" >&2; fail "a killed rank: $(state "$job"), $(restarts "$job") restarts"; }
  ok "$script.sbatch: a killed rank ends the job, which is not requeued"
done

job=$(sbatch "${small[@]}" --time=10 "$scripts/sft_multinode.sbatch" "${run[@]}" learning_rat=1 output_dir=wrong)
until_true "the end of a job with a wrong key" 60 is_over "$job"
[ "$(state "$job")" = FAILED ] && has "$job" 'exit code 78' || fail "a wrong key: $(state "$job")"
ok "a wrong key: exit code 78, not requeued"
