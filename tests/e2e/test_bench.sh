#!/usr/bin/env bash
# qvl_bench: a table and one JSON object, on one rank and on two; it trains nothing and leaves nothing.
. "$(dirname "$0")/lib.sh" "$@"
fixture tiny
before=$(find . -type f | sort)

for ranks in 1 2; do
  must "$ranks ranks" on $ranks qvl_bench train.yaml device=cpu num_train_epochs=20
  for part in 'ceilings' 'a step of [0-9]* tokens, median of' 'its frozen products alone' 'share of the floor' 'head and loss' 'linear, backward'; do
    [ "$(grep -c -- "$part" "$WORK/log")" -ge 1 ] || { cat "$WORK/log" >&2; fail "no '$part' in the table"; }
  done
done
ok "the table has every part"

must "json" on 1 qvl_bench train.yaml --json device=cpu num_train_epochs=20
json=$(grep -c '^{.*}$' "$WORK/log") || true
[ "$json" = 1 ] && [ "$(grep -vc '^{' "$WORK/log" || true)" = 0 ] || { cat "$WORK/log" >&2; fail "standard output is not one JSON object"; }
# operations take no longer than the steps that they are part of, and everything is positive
grep '^{' "$WORK/log" | tr ',{}' '\n\n\n' | awk -F': *' '/"(step_ms|floor_ms|tokens_per_second|share_of_floor|product_tflops)"/ { n++; if (!($2 > 0)) bad = 1 }
  END { exit bad || n != 5 }' || { cat "$WORK/log" >&2; fail "numbers are missing or not positive"; }
ok "one JSON object, all numbers positive"

[ "$before" = "$(find . -type f | sort)" ] || { find . -type f | sort | diff <(echo "$before") - >&2; fail "files were left"; }
ok "nothing is left"

code=0
on 1 qvl_bench train.yaml --check device=cpu || code=$?
[ $code = 64 ] || fail "--check: exit code $code instead of 64"
ok "--check is not an option of it"
