#!/usr/bin/env bash
# Two ranks on a GPU. One killed during a step: the other ends within 30 s; one stopped: within peer_timeout. Both say
# who and where, and no process stays. A network that NCCL cannot use, and numbers that are none, end the run as well.
. "$(dirname "$0")/lib.sh" "$@"
fixture wide
export OMPI_MCA_odls_base_sigkill_timeout=1

# lose NAME SIGNAL LIMIT KEYS...: rank 1 gets SIGNAL during step 5 or later; the run ends within LIMIT seconds
lose() {
  local name=$1 signal=$2 limit=$3 job i ranks start
  shift 3
  mpirun --oversubscribe --bind-to none -np 2 "$BIN/qvl_sft" train.yaml device=cuda share_gpu=true bf16=true peer_timeout=10 \
    max_steps=100000 num_train_epochs=100000 save_strategy=no logging_steps=1 output_dir="out$signal" "$@" > "$WORK/log" 2>&1 & job=$!
  for ((i = 0; i < 300; i++)); do grep -q '^step 5/' "$WORK/log" && break; sleep 0.2; done
  grep -q '^step 5/' "$WORK/log" || { tail -n 30 "$WORK/log" >&2; fail "$name: the run did not reach step 5"; }
  ranks=($(pgrep -f "^$BIN/qvl_sft train.yaml"))
  [ ${#ranks[@]} -eq 2 ] || fail "$name: 2 ranks expected, found ${#ranks[@]}"
  start=$(date +%s%N)
  kill "-$signal" "${ranks[1]}"
  for ((i = 0; i < 600; i++)); do kill -0 $job 2> /dev/null || break; sleep 0.1; done
  if kill -0 $job 2> /dev/null; then
    kill -9 $job "${ranks[@]}" 2> /dev/null
    tail -n 5 "$WORK/log" >&2; fail "$name: the run has not ended after 60 s"
  fi
  ! wait $job || fail "$name: the run ended as if nothing had happened"
  within "$name: seconds until the run had ended" "$(since "$start")" "$limit"
  for ((i = 0; i < 20; i++)); do pgrep -f "^$BIN/qvl_sft train.yaml" > /dev/null || break; sleep 0.5; done
  ! pgrep -f "^$BIN/qvl_sft train.yaml" > /dev/null || fail "$name: a rank is still there"
  grep -qE 'while training, step [0-9]+' "$WORK/log" || { grep -v '^step' "$WORK/log" >&2; fail "$name: no word of where"; }
  ok "$name: $(grep -E 'while training, step [0-9]+' "$WORK/log" | grep -v '#' | head -n 1)"
}

lose SIGKILL KILL 30
lose SIGSTOP STOP 40

# Adapters so large that the sum over ranks takes most of a step: once at least it is the GPU that rank 0 waits for.
LARGE=(adapter_name_or_path= lora_rank=256)
is_met=""
for i in 1 2 3 4 5 6; do
  lose "SIGSTOP, long sums, $i" STOP 40 "${LARGE[@]}"
  ! grep -q 'for the GPU and the other ranks' "$WORK/log" || is_met=yes
  [ $i -lt 2 ] || [ -z "$is_met" ] || break
done
[ -n "$is_met" ] || fail "SIGSTOP, long sums: rank 0 was never found waiting for a sum"

# Both ranks suspended for longer than either may wait: the job goes on.
mpirun --oversubscribe --bind-to none -np 2 "$BIN/qvl_sft" train.yaml device=cuda share_gpu=true bf16=true peer_timeout=8 \
  max_steps=400 num_train_epochs=100000 save_strategy=no logging_steps=1 output_dir=suspended "${LARGE[@]}" > "$WORK/log" 2>&1 & job=$!
for ((i = 0; i < 300; i++)); do grep -q '^step 5/' "$WORK/log" && break; sleep 0.2; done
ranks=($(pgrep -f "^$BIN/qvl_sft train.yaml"))
kill -STOP "${ranks[@]}"; sleep 12; kill -CONT "${ranks[@]}"
wait $job || { tail -n 5 "$WORK/log" >&2; fail "both ranks suspended for 12 s: the run failed"; }
[ -s suspended/adapter_model.safetensors ] || fail "both ranks suspended for 12 s: no adapter"
ok "both ranks suspended for 12 s, peer_timeout 8 s: goes on"

for i in 1 2 3; do lose "SIGKILL, long sums, $i" KILL 30 "${LARGE[@]}"; done

code=0
start=$(date +%s%N)
NCCL_SOCKET_IFNAME=none0 timeout 90 mpirun --oversubscribe --bind-to none -np 2 "$BIN/qvl_sft" train.yaml device=cuda share_gpu=true \
  peer_timeout=15 output_dir=link > "$WORK/log" 2>&1 || code=$?
[ $code != 0 ] && [ $code != 124 ] || { tail -n 20 "$WORK/log" >&2; fail "a network that is not there: exit code $code"; }
ok "a network that is not there: exit code $code after $(since "$start") s"

# One weight of the model is no number.
cd "$WORK"
fixture tiny
for file in model/*.safetensors; do
  length=$(od -An -t u8 -N 8 "$file" | tr -d ' ')
  begin=$(head -c $((8 + length)) "$file" | tail -c "$length" | grep -ao '"model.norm.weight":{[^}]*}' | grep -o 'data_offsets":\[[0-9]*' | grep -o '[0-9]*$') || continue
  printf '\377\377\377\177' | dd of="$file" bs=1 seek=$((8 + length + begin)) conv=notrunc status=none
done
for bf16 in true false; do
  code=0
  on 1 qvl_sft train.yaml device=cuda bf16=$bf16 output_dir=nan || code=$?
  [ $code = 65 ] || { tail -n 20 "$WORK/log" >&2; fail "numbers that are none: exit code $code instead of 65"; }
  [ ! -e nan/adapter_model.safetensors ] || fail "numbers that are none: an adapter was written"
  grep -q 'step 1: loss -\?nan' "$WORK/log" || { tail -n 5 "$WORK/log" >&2; fail "numbers that are none: step not named"; }
  ok "numbers that are none, bf16=$bf16: $(grep -oE 'step 1: loss.*' "$WORK/log" | head -n 1 | cut -c1-150)"
done
