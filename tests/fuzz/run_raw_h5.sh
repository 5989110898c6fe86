#!/usr/bin/env bash
# run_raw_h5.sh PROGRAM SECONDS MAX_LEN: the bytes of HDF5 files. libhdf5 itself falls over many damaged
# files (docs/FUZZING.md), so children run the inputs, and each of their ends is looked at afterwards:
# one whose innermost frame, C library and sanitizer aside, is libhdf5's is counted and let pass; any
# other is a finding.
set -euo pipefail
program=$1 seconds=$2 max_len=$3
where=$(dirname "$program")
kept=$where/corpus/raw_h5 seeds=$where/seeds/raw_h5 ends=$where/ends_raw_h5
mkdir -p "$kept" "$ends"
rm -f "$ends"/*
"$program" -fork=1 -ignore_crashes=1 -ignore_timeouts=1 -ignore_ooms=1 -max_total_time="$seconds" -max_len="$max_len" \
  -timeout=5 -rss_limit_mb=1024 -artifact_prefix="$ends/" "$kept" "$seeds" 2>&1 | grep -E '^#[0-9]+: cov|^INFO: exiting' || true

# The innermost frame that is neither the sanitizer's nor the C library's, of a run of one input.
innermost() {
  awk '/^ +#[0-9]+ 0x/ { if ($0 ~ /fuzz_raw_h5\+0x/ && $0 !~ / in (qvl_|h5_|fuzz_|LLVM)/) next
                         if ($0 ~ /compiler-rt|\/sysdeps\/|libc\.so|libpthread|sanitizer|__interceptor|__asan|ld-linux/) next; print; exit }'
}
n_library=0 findings=0
shopt -s nullglob
for input in "$ends"/*; do
  rc=0
  out=$("$program" -timeout=5 -rss_limit_mb=1024 "$input" 2>&1) || rc=$?
  [ $rc != 0 ] || continue
  frame=$(innermost <<< "$out")
  case $frame in
    *libhdf5*) n_library=$((n_library + 1)) ;;
    *) findings=$((findings + 1)); printf '%s\n%s\n' "FINDING: $input" "$out" | tail -n 60 ;;
  esac
done
echo "raw_h5: $n_library ends within libhdf5, $findings findings"
[ $findings = 0 ]
