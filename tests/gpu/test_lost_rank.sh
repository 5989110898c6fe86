#!/usr/bin/env bash
# A rank killed during a step: the other ends within 30 s and says so, and no process stays on the GPU.
. "$(dirname "$0")/lib.sh" "$@"
fixture wide

mpirun --oversubscribe --bind-to none -np 2 "$BIN/qvl_sft" train.yaml device=cuda share_gpu=true bf16=true \
  max_steps=100000 save_strategy=no logging_steps=1 output_dir=out > "$WORK/log" 2>&1 & job=$!
for ((i = 0; i < 300; i++)); do grep -q '^step 5/' "$WORK/log" && break; sleep 0.2; done
grep -q '^step 5/' "$WORK/log" || { tail -n 30 "$WORK/log" >&2; fail "the run did not reach step 5"; }
ranks=($(pgrep -f "^$BIN/qvl_sft train.yaml"))
[ ${#ranks[@]} -eq 2 ] || fail "2 ranks expected, found ${#ranks[@]}"
start=$(date +%s%N)
kill -9 "${ranks[1]}"
wait $job && fail "the run ended as if nothing had happened"
took=$(since "$start")
within "seconds until the run had ended" "$took" 30
! pgrep -f "^$BIN/qvl_sft train.yaml" > /dev/null || fail "a rank is still there"
ok "no rank stays: $(grep -iE 'rank|signal' "$WORK/log" | grep -v '^step' | tail -n 1)"
