#!/usr/bin/env bash
# Where activations are changes no bit: kept, recomputed, offloaded to host memory; one pass in every layout, then whole
# runs, on a model of nine layers.
. "$(dirname "$0")/lib.sh" "$@"

mkdir deep
must "gradients do not depend on where activations are" bash -o pipefail -c '"$0" deep 2>&1 | tee layouts > log' "$TESTS/layouts_check"
for targets in down_proj q_proj,v_proj; do
  mkdir some
  must "with $targets adapted only" bash -c '"$0" some cpu "$1" > log 2>&1' "$TESTS/layouts_check" $targets
  rm -r some
done

# The demo's data on that model, which has enough layers: whole runs, samples of many lengths as packs of their own.
must "demo" bash -c '"$0" demo > log 2>&1' "$BIN/qvl_demo"
cp demo/model/tokenizer*.json deep/
run=(demo/demo.yaml model_name_or_path=deep device=cpu pack=false max_steps=6 save_strategy=no plot_loss=false)
must "nine layers, all kept" on 1 qvl_sft "${run[@]}" gradient_checkpointing=false output_dir=kept
for how in false true; do
  must "nine layers, recomputed, activation_offloading=$how" on 1 qvl_sft "${run[@]}" gradient_checkpointing=true activation_offloading=$how output_dir="away_$how"
  same "nine layers: no bit changes" kept/adapter_model.safetensors "away_$how/adapter_model.safetensors"
done
if grep -q ' 0 send some away' layouts; then # a build with guards, whose layouts are fixed
  ok "nothing can be offloaded in this build"
else
  grep -q 'activation offloading: .* of host memory a rank' log || { cat log >&2; fail "nothing was offloaded"; }
  ok "$(grep -o 'activation offloading: .*' log)"
fi
