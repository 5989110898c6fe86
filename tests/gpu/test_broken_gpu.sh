#!/usr/bin/env bash
# A product that fails during a step ends the run with the step's number and exit code 69, and leaves no
# adapter; on two ranks the other one ends as well. Calls that do not return end it 10 s after peer_timeout.
. "$(dirname "$0")/lib.sh" "$@"
fixture tiny
[ -e "$TESTS/libfail_blas.so" ] || { echo "skipped: libfail_blas.so was not built"; exit 77; }

run=(train.yaml device=cuda bf16=true save_strategy=no num_train_epochs=10)
for ranks in 1 2; do
  code=0
  LD_PRELOAD="$TESTS/libfail_blas.so" QVL_FAIL_BLAS=600 timeout 60 mpirun --oversubscribe --bind-to none -np $ranks \
    "$BIN/qvl_sft" "${run[@]}" share_gpu=true output_dir=out$ranks > "$WORK/log" 2>&1 || code=$?
  [ $code = 69 ] || { tail -n 20 "$WORK/log" >&2; fail "$ranks ranks: exit code $code instead of 69"; }
  grep -qE 'step [0-9]+: GPU: product .* cuBLASLt' "$WORK/log" || { tail -n 20 "$WORK/log" >&2; fail "$ranks ranks: no word of the step"; }
  [ ! -e out$ranks/adapter_model.safetensors ] || fail "$ranks ranks: an adapter was written"
  ok "$ranks ranks: $(grep -oE 'step [0-9]+: GPU: product.*' "$WORK/log" | head -n 1)"
done

code=0
start=$(date +%s%N)
LD_PRELOAD="$TESTS/libfail_blas.so" QVL_HANG_BLAS=600 timeout -k 5 90 mpirun --oversubscribe --bind-to none -np 2 \
  "$BIN/qvl_sft" "${run[@]}" share_gpu=true peer_timeout=5 output_dir=hang > "$WORK/log" 2>&1 || code=$?
[ $code = 69 ] || { tail -n 20 "$WORK/log" >&2; fail "calls that do not return: exit code $code instead of 69"; }
within "calls that do not return: seconds until the run had ended" "$(since "$start")" 40
grep -qE 'while training, step [0-9]+: a call to the GPU has not returned' "$WORK/log" || { tail -n 20 "$WORK/log" >&2; fail "calls that do not return: no word of it"; }
ok "$(grep 'a call to the GPU has not returned' "$WORK/log" | head -n 1)"
