#!/usr/bin/env bash
# compute-sanitizer on whole runs of a fixture, images included, in bf16 and float32; TOOL is memcheck,
# racecheck or initcheck:   test_sanitizers.sh BIN TESTS FIXTURES TOOL
. "$(dirname "$0")/lib.sh" "$@"
TOOL=$4
sanitizer=$(command -v compute-sanitizer || ls /usr/local/cuda/bin/compute-sanitizer 2> /dev/null) ||
  { echo "skipped: no compute-sanitizer here"; exit 77; }

# What cuBLAS's Hopper kernels (nvjet) do is not seen whole: racecheck takes their asynchronous copies for races, and
# initcheck does not see what they store, so that every bf16 activation looks unwritten. Race checks leave them out;
# uninitialised reads are looked for in float32, and in bf16 by the NaN that debug builds fill memory with.
types="true false"
exclude=()
[ "$TOOL" != racecheck ] || exclude=(--kernel-name-exclude kns=nvjet)
[ "$TOOL" != initcheck ] || types=false

for name in tiny wide; do
  fixture $name
  for bf16 in $types; do
    run=(train.yaml device=cuda bf16=$bf16 lora_dropout=0.1 max_steps=2 save_strategy=no vision_cache=auto)
    "$sanitizer" --tool "$TOOL" "${exclude[@]}" --error-exitcode 99 --print-limit 5 "$BIN/qvl_sft" "${run[@]}" output_dir=o$bf16 > "$WORK/log" 2>&1 ||
      { code=$?; grep -v '^step' "$WORK/log" | head -n 60 >&2; fail "$TOOL, $name, bf16=$bf16 (exit $code)"; }
    ok "$TOOL, $name, bf16=$bf16: $(grep -E 'SUMMARY' "$WORK/log" | tail -n 1 | sed 's/=* *//')"
  done
  cd "$WORK"
done
