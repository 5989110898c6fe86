#!/usr/bin/env bash
# Ranks that are killed, stopped or different: the others end, and say who, where and when.
. "$(dirname "$0")/lib.sh" "$@"
export OMP_NUM_THREADS=1
fixture tiny
run=(train.yaml device=cpu max_steps=1000000 logging_steps=10 save_steps=50 save_total_limit=2 ddp_timeout=4)

# ends_within SECONDS: with any code but 0, and no process stays
ends_within() {
  local began=$SECONDS code=0
  wait "$launcher" || code=$?
  [ "$code" != 0 ] || fail "exit code 0"
  [ $((SECONDS - began)) -le "$1" ] || fail "took $((SECONDS - began)) s"
  for pid in $processes; do # a process that ended and that nobody has collected (Z) is none
    for _ in $(seq 50); do grep -qs '^State:[[:space:]]*[^Z[:space:]]' "/proc/$pid/status" || continue 2; sleep 0.1; done
    fail "process $pid is still there"
  done
}
says() { grep -q -- "$1" "$WORK/log" || { cat "$WORK/log" >&2; fail "does not say: $1"; }; }

for victim in 0 1; do
  rm -rf out
  start 3 qvl_sft "${run[@]}"
  until_log '^step 20/'
  processes="$(rank 0) $(rank 1) $(rank 2)"
  kill -KILL "$(rank $victim)"
  ends_within 30
  says "process rank $victim with PID\|rank $victim (process [0-9]* of this host) is gone"
  ok "rank $victim killed: the others end"
done
says 'is gone: killed, out of memory or stopped by hand, while training, step [0-9]*'
says 'last operations between ranks'
ok "who, where and what was done last"

rm -rf out
start 3 qvl_sft "${run[@]}"
until_log '^step 20/'
processes="$(rank 0) $(rank 1) $(rank 2)"
kill -STOP "$(rank 1)"
ends_within 30
says 'while training, step [0-9]*: waited 4 s for the other ranks'
says '; ddp_timeout is 4 s'
says 'rank 1 is late: it is stopped (SIGSTOP), last seen while training, step'
says '#[0-9]* .*, while training, step [0-9]*: waiting'
ok "rank 1 stopped: the others end after ddp_timeout"

rm -rf out
start 2 qvl_sft "${run[@]}" peer_timeout=3
until_log '^step 20/'
processes="$(rank 0) $(rank 1)"
kill -STOP "$(rank 1)"
ends_within 30
says 'waited 3 s for the other ranks .*; peer_timeout is 3 s'
ok "peer_timeout is named where it is in force"

# a job that is suspended as a whole, longer than any rank may wait, goes on
rm -rf out
must "a run to compare with" on 2 qvl_sft "${run[@]}" max_steps=600 output_dir=plain
start 2 qvl_sft "${run[@]}" max_steps=600 ddp_timeout=8
until_log '^step 20/'
processes="$(rank 0) $(rank 1)"
kill -STOP $processes
sleep 12
kill -CONT $processes
wait "$launcher" || { cat "$WORK/log" >&2; fail "suspended for 12 s: the run failed"; }
same "suspended for 12 s, ddp_timeout 8 s: goes on" plain/adapter_model.safetensors out/adapter_model.safetensors

# half a minute for a rank that is gone, whatever the timeout
rm -rf out
must "a published ddp_timeout is cut and warned of" on 2 qvl_sft "${run[@]}" max_steps=4 ddp_timeout=180000000
says 'ddp_timeout: 180000000 s would hide a rank that hangs; 600 s are waited'
rm -rf out
must "peer_timeout is taken as it is" on 2 qvl_sft "${run[@]}" max_steps=4 ddp_timeout=180000000 peer_timeout=7200
! grep -q 'would hide a rank' "$WORK/log" || fail "warned of"


# a rank that is stopped before MPI is up, as soon as it exists: nobody knows of the other yet
started_in() { # SECONDS: QVL_START_TIMEOUT for one run, of which rank 1 stops itself before qvl_sft begins
  QVL_START_TIMEOUT=$1 timeout 60 mpirun --oversubscribe --bind-to none -np 2 bash -c '
    [ "${OMPI_COMM_WORLD_RANK:-$PMI_RANK}" = 0 ] || kill -STOP $$
    exec "$0" train.yaml device=cpu max_steps=1' "$BIN/qvl_sft" > "$WORK/log" 2>&1
}
rm -rf out
began=$SECONDS code=0
started_in 3 || code=$?
[ $code = 69 ] || { cat "$WORK/log" >&2; fail "a rank stopped at the start: exit code $code"; }
[ $((SECONDS - began)) -le 20 ] || fail "a rank stopped at the start: took $((SECONDS - began)) s"
says 'qvl_sft: rank 0 (process [0-9]* on .*): MPI has not started after 3 s: a rank is stopped, was not started'
ok "a rank stopped at the start: the job ends after QVL_START_TIMEOUT"
for bad in 0 -5 soon 5s; do
  code=0
  QVL_START_TIMEOUT=$bad on 2 qvl_sft train.yaml device=cpu max_steps=1 || code=$?
  [ $code = 78 ] || fail "QVL_START_TIMEOUT=$bad: exit code $code"
  says "QVL_START_TIMEOUT: '$bad' is not a number of seconds in 1 to 1e9"
  [ "$(grep -c 'is not a number of seconds' "$WORK/log")" = 1 ] || fail "said more than once"
done
ok "a QVL_START_TIMEOUT that is none is refused"
