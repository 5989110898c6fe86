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
