#!/usr/bin/env bash
# A product that fails during a step ends the run with the step's number and exit code 69, and leaves no
# adapter; on two ranks the other one ends as well.
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
