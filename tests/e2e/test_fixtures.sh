#!/usr/bin/env bash
# The numbers of Hugging Face: forward values, and whole runs on 1 and 2 ranks, packed and not, kept and
# recomputed activations, kept and recomputed features.
. "$(dirname "$0")/lib.sh" "$@"

check() { "$TESTS/train_check" . "$1" > "$WORK/log" 2>&1; }

for name in tiny tied wide; do
  fixture "$name"
  must "$name: forward values" bash -c '"$0" . > ../log 2>&1' "$TESTS/forward_check"
  must "$name: 1 rank" on 1 qvl_sft train.yaml device=cpu
  must "$name: 1 rank: losses, norms, rates, adapter" check out
  must "$name: 2 ranks" on 2 qvl_sft train.yaml device=cpu gradient_accumulation_steps=2 output_dir=out2
  must "$name: 2 ranks: losses, norms, rates, adapter" check out2
  must "$name: unpacked" on 1 qvl_sft train.yaml device=cpu pack=false output_dir=out3
  must "$name: unpacked: losses, norms, rates, adapter" check out3
  must "$name: 2 ranks unpacked" on 2 qvl_sft train.yaml device=cpu pack=false gradient_accumulation_steps=2 output_dir=out4
  must "$name: 2 ranks unpacked: losses, norms, rates, adapter" check out4
  must "$name: recomputing everything" on 2 qvl_sft train.yaml device=cpu gradient_accumulation_steps=2 gradient_checkpointing=true vision_cache=off output_dir=out5
  must "$name: recomputing everything: losses, norms, rates, adapter" check out5
  same "$name: recomputation changes no bit" out2/adapter_model.safetensors out5/adapter_model.safetensors
  cd "$WORK"
done

mkdir deep
must "gradients do not depend on where activations are" bash -o pipefail -c '"$0" deep 2>&1 | tee layouts > log' "$TESTS/layouts_check"

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
