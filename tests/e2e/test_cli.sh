#!/usr/bin/env bash
# What the programs say of themselves, and that the documents say the same.
. "$(dirname "$0")/lib.sh" "$@"
ROOT="$FIXTURES/../.."

for program in qvl_sft qvl_prep qvl_bench qvl_demo; do
  "$BIN/$program" --help > "$WORK/log" || fail "$program --help"
  grep -q '^usage: ' "$WORK/log" || fail "$program --help has no usage"
  "$BIN/$program" --version > "$WORK/log" || fail "$program --version"
  grep -Eq "^$program [0-9]+\.[0-9]+\.[0-9]+ " "$WORK/log" || fail "$program --version"
  rc=0; "$BIN/$program" --nonsense > "$WORK/log" 2>&1 || rc=$?
  [ $rc = 64 ] || fail "$program --nonsense: exit $rc, expected 64"
  ok "$program: --help, --version, an unknown option"
done
"$BIN/qvl_sft" --help-markdown > CONFIG.md
same "docs/CONFIG.md is what --help-markdown prints" CONFIG.md "$ROOT/docs/CONFIG.md"

"$BIN/qvl_demo" demo > "$WORK/log" || fail "qvl_demo"
tail -n +2 "$ROOT/configs/demo.yaml" > demo.yaml
same "configs/demo.yaml is what qvl_demo writes" demo.yaml demo/demo.yaml

fixture tiny
must "configuration from a pipe" bash -c 'mpirun --oversubscribe --bind-to none -np 2 "$0/qvl_sft" - max_steps=1 < train.yaml > ../log 2>&1' "$BIN"
must "a run from its own config.yaml" on 1 qvl_sft out/config.yaml output_dir=again
[ "$(sed 's/output_dir: .*//' out/config.yaml)" = "$(sed 's/output_dir: .*//' again/config.yaml)" ] || fail "config.yaml is not what was in force"
ok "config.yaml reads back"
must "an adapter that is gone on with" on 1 qvl_sft train.yaml lora_target=q_proj,v_proj max_steps=1 output_dir=targets
grep -q 'warning: adapter_init has rank 8, alpha 16, dropout 0, on q_proj,k_proj,v_proj,o_proj,gate_proj,up_proj,down_proj; these are used' "$WORK/log" || fail "another lora_target is not warned of"
must "its own targets" on 1 qvl_sft train.yaml max_steps=1 output_dir=targets
! grep -q 'these are used' "$WORK/log" || fail "the same lora_target is warned of"
ok "a lora_target that is not the adapter's is warned of"
! grep -q $'\r' "$WORK/log" || fail "a progress bar went into a file"
ok "no progress bar in files"
rm -rf hub && mkdir -p hub/models--some--model/refs hub/models--some--model/snapshots
printf 'abc123' > hub/models--some--model/refs/main
cp -r model hub/models--some--model/snapshots/abc123
must "a hub name from the local cache" env HF_HUB_CACHE="$PWD/hub" bash -c '"$0/qvl_sft" train.yaml model_name_or_path=some/model max_steps=1 output_dir=hubbed > ../log 2>&1' "$BIN"
