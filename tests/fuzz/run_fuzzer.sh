#!/usr/bin/env bash
# run_fuzzer.sh PROGRAM SECONDS MAX_LEN: one fuzz target on its seeds, the regression inputs in
# tests/fuzz/corpus, and what earlier runs of this build found worth keeping. A finding is left beside
# the program as  NAME.crash-... ; run the program with that file to see it again.
set -euo pipefail
program=$1 seconds=$2 max_len=$3
name=$(basename "$program"); name=${name#fuzz_}
where=$(dirname "$program")
kept=$where/corpus/$name seeds=$where/seeds/$name known=$(dirname "$0")/corpus/$name
mkdir -p "$kept"
inputs=("$kept" "$seeds")
[ ! -d "$known" ] || inputs+=("$known")
exec "$program" -max_total_time="$seconds" -max_len="$max_len" -timeout=5 -rss_limit_mb=1024 -print_final_stats=1 \
  -artifact_prefix="$where/$name." "${inputs[@]}"
