#!/usr/bin/env bash
# Ranks that were started as something else: found out before they exchange anything else.
. "$(dirname "$0")/lib.sh" "$@"
export OMP_NUM_THREADS=1
fixture tiny

# mixed NAME CODE PATTERN COMMAND0 : COMMAND1: one rank of each, for at most 60 s
mixed() {
  local name=$1 code=$2 pattern=$3 rc=0 first=() second=()
  shift 3
  while [ "$1" != : ]; do first+=("$1"); shift; done
  shift; second=("$@")
  timeout 60 mpirun --oversubscribe --bind-to none -np 1 "$BIN/${first[0]}" "${first[@]:1}" \
    : -np 1 "$BIN/${second[0]}" "${second[@]:1}" > "$WORK/log" 2>&1 || rc=$?
  [ $rc = "$code" ] || { cat "$WORK/log" >&2; fail "$name: exit code $rc, expected $code"; }
  [ "$(grep -c '^qvl_[a-z]*: ' "$WORK/log")" = 1 ] || { cat "$WORK/log" >&2; fail "$name: not one error line"; }
  grep -Eq "$pattern" "$WORK/log" || { cat "$WORK/log" >&2; fail "$name: no '$pattern'"; }
  [ ! -e out ] || fail "$name: something is left behind"
  ok "$name: exit $code"
}

run=(train.yaml device=cpu max_steps=1 output_dir=out)
rm -rf out
mixed "another program" 65 "ranks 0 and 1 do not have the same program .*it has 'qvl_bench, version" qvl_sft "${run[@]}" : qvl_bench "${run[@]}"
mixed "the other way round" 65 "^qvl_bench: .*ranks 0 and 1 do not have the same program .*it has 'qvl_sft, version" qvl_bench "${run[@]}" : qvl_sft "${run[@]}"
mixed "qvl_prep" 65 "ranks 0 and 1 do not have the same program .*it has 'qvl_prep, version" qvl_sft "${run[@]}" : qvl_prep "${run[@]}"
mixed "--check on one" 65 "ranks 0 and 1 do not have the same program .*it has 'qvl_sft --check, version" qvl_sft "${run[@]}" : qvl_sft --check "${run[@]}"
mixed "--check on the other" 65 "ranks 0 and 1 do not have the same program .*it has 'qvl_sft, version" qvl_sft --check "${run[@]}" : qvl_sft "${run[@]}"
mixed "a wrong option on one" 64 "unknown option --chekc" qvl_sft "${run[@]}" : qvl_sft --chekc "${run[@]}"

# rank 0 alone reads the file
cp train.yaml other.yaml
mixed "another file" 65 "ranks 0 and 1 do not have the same CONFIG.yaml argument .*it has 'other.yaml'" qvl_sft "${run[@]}" : qvl_sft other.yaml "${run[@]:1}"
mixed "other values" 65 "ranks 0 and 1 do not have the same configuration" qvl_sft "${run[@]}" : qvl_sft "${run[@]}" seed=7
mixed "another device" 65 "ranks 0 and 1 do not have the same configuration" qvl_sft "${run[@]}" : qvl_sft "${run[@]}" device=cuda
timeout 60 mpirun --oversubscribe --bind-to none -np 1 "$BIN/qvl_sft" "${run[@]}" seed=7 gradient_accumulation_steps=2 \
  : -np 1 "$BIN/qvl_sft" "${run[@]}" gradient_accumulation_steps=2 seed=7 > "$WORK/log" 2>&1 || { cat "$WORK/log" >&2; fail "the same in another order"; }
ok "the same overrides in another order"
