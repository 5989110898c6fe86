#!/usr/bin/env bash
# compute-sanitizer on whole runs of a fixture, images included, in bf16 and float32; TOOL is memcheck,
# racecheck or initcheck:   test_sanitizers.sh BIN TESTS FIXTURES TOOL
#
# What cuBLAS's Hopper kernels (nvjet) do is not seen whole: racecheck takes their asynchronous copies for
# races, and initcheck does not see what they store, so that every bf16 activation looks unwritten. Races in
# them are not counted. Reads of unwritten memory are looked for in float32, which does without them; in bf16
# memory that starts as NaN (QVL_POISON) does that: test_poison.sh.
. "$(dirname "$0")/lib.sh" "$@"
TOOL=$4
sanitizer=$(command -v compute-sanitizer || ls /usr/local/cuda/bin/compute-sanitizer 2> /dev/null) ||
  { echo "skipped: no compute-sanitizer here"; exit 77; }
types="true false"
[ "$TOOL" != initcheck ] || types=false

# Errors that are not races reported inside nvjet kernels.
real_errors() {
  if [ "$TOOL" = racecheck ]; then
    grep -E 'Race reported|hazard at|Internal Sanitizer Error' "$WORK/log" | grep -v nvjet || true
  else
    grep -E '^========= (Invalid|Uninitialized|Program hit|.*out of bounds|.*misaligned|Internal Sanitizer)' "$WORK/log" || true
  fi
}

for name in tiny wide; do
  [ "$TOOL $name" != "racecheck wide" ] || continue # minutes, and the same kernels
  fixture $name
  for bf16 in $types; do
    "$sanitizer" --tool "$TOOL" --print-limit 10000 "$BIN/qvl_sft" train.yaml device=cuda bf16=$bf16 lora_dropout=0.1 \
      max_steps=1 save_strategy=no vision_cache=off output_dir=o$bf16 > "$WORK/log" 2>&1 ||
      { grep -v '^step' "$WORK/log" | head -n 60 >&2; fail "$TOOL, $name, bf16=$bf16: the run failed"; }
    grep -q 'SUMMARY' "$WORK/log" || fail "$TOOL, $name, bf16=$bf16: no summary"
    [ "$TOOL" = racecheck ] || grep -q 'ERROR SUMMARY: 0 errors' "$WORK/log" || { grep '^=====' "$WORK/log" | head -n 20 >&2; fail "$TOOL, $name, bf16=$bf16"; }
    [ -z "$(real_errors)" ] || { real_errors | head -n 20 >&2; fail "$TOOL, $name, bf16=$bf16"; }
    ok "$TOOL, $name, bf16=$bf16: $(grep -E 'SUMMARY' "$WORK/log" | tail -n 1 | sed 's/=* *//')"
  done
  cd "$WORK"
done
