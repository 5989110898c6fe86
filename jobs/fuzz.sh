#!/usr/bin/env bash
# Builds the fuzz targets and runs them one after the other, then prints a table (docs/FUZZING.md).
#   jobs/fuzz.sh [SECONDS] [TARGET...]     600 s each and all of them when nothing is given
# What is found worth keeping stays in build/fuzz/fuzz/corpus and is where the next run begins.
set -euo pipefail
cd "$(dirname "$0")/.."
seconds=${1:-600}; [ $# -eq 0 ] || shift
where=${QVL_FUZZ_PROGRAMS:-build/fuzz/fuzz}

if [ -z "${QVL_FUZZ_PROGRAMS:-}" ]; then
  cmake --preset fuzz > /dev/null
  cmake --build --preset fuzz
fi
"$where/make_seeds" tests/fixtures "$where/seeds"
targets=("$@")
[ ${#targets[@]} -gt 0 ] || for file in "$where"/fuzz_*.max_len; do name=${file##*/fuzz_}; targets+=("${name%.max_len}"); done

failed=0
table="| target | seconds | executions | a second | edges covered | inputs kept | peak MiB | findings |
|---|---|---|---|---|---|---|---|"
for target in "${targets[@]}"; do
  log=$where/$target.log max_len=$(cat "$where/fuzz_$target.max_len") rc=0
  case $target in
    raw_h5) runner=tests/fuzz/run_raw_h5.sh ;;
    *) runner=tests/fuzz/run_fuzzer.sh ;;
  esac
  "$runner" "$where/fuzz_$target" "$seconds" "$max_len" > "$log" 2>&1 || rc=$?
  row=$(awk -v target="$target" -v rc="$rc" '
    / cov: / { for (i = 1; i < NF; i++) if ($i == "cov:") edges = $(i + 1)
                else if ($i == "corp:") { kept = $(i + 1); sub(/\/.*/, "", kept) } }
    /^#[0-9]+: cov: / { runs = substr($1, 2) + 0 } # with -fork
    /^INFO: exiting: .* time: / { seconds = $NF + 0 }
    /^stat::number_of_executed_units:/ { runs = $2 }
    /^stat::peak_rss_mb:/ { peak = $2 }
    /^Done [0-9]+ runs in/ { seconds = $5 }
    END { printf "| %s | %s | %d | %d | %s | %s | %s | %s |", target, seconds, runs, runs / (seconds ? seconds : 1), edges, kept, peak == "" ? "-" : peak, rc ? "see " target ".log" : "none" }' "$log")
  table+=$'\n'$row
  echo "$row"
  [ $rc = 0 ] || { failed=1; tail -n 40 "$log" >&2; }
done
printf '\n%s\n' "$table"
exit $failed
