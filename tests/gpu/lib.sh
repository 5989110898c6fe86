# What the tests that need a GPU share: those of tests/e2e, and a skip where there is no GPU
# (QVL_REQUIRE_GPU=1: a failure).
. "$(dirname "${BASH_SOURCE[0]}")/../e2e/lib.sh" "$@"

if ! nvidia-smi -L 2> /dev/null | grep -q '^GPU'; then
  [ "${QVL_REQUIRE_GPU:-0}" = 0 ] || fail "no GPU here, and QVL_REQUIRE_GPU is set"
  echo "skipped: no GPU here"
  exit 77
fi

# check OUTPUT_DIR [LOSS_TOLERANCE ADAPTER_TOLERANCE]: a run beside Hugging Face's, in a fixture's directory
check() { "$TESTS/train_check" . "$@" > "$WORK/log" 2>&1; }

# worst KEY LOG_A LOG_B: the largest relative distance between the numbers of two trainer_log.jsonl files
worst() {
  paste <(grep -o "\"$1\": [0-9.e+-]*" "$2" | cut -d' ' -f2) <(grep -o "\"$1\": [0-9.e+-]*" "$3" | cut -d' ' -f2) |
    awk 'NF != 2 { bad = 1 } { d = ($1 - $2) / ($1 ? $1 : 1); if (d < 0) d = -d; if (!(d <= w)) w = d; n++ }
         END { if (bad || !n) print "inf"; else printf "%.2e\n", w }'
}

# within NAME VALUE LIMIT
within() {
  awk -v v="$2" -v l="$3" 'BEGIN { exit !(v != "inf" && v + 0 <= l + 0) }' || fail "$1: $2, allowed $3"
  ok "$1: $2 (allowed $3)"
}
