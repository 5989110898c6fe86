#!/usr/bin/env bash
# Memory that starts as NaN changes no bit: nothing is read before it was written. Features and packs of
# several lengths, kept and recomputed layers.
. "$(dirname "$0")/lib.sh" "$@"

for name in tiny wide; do
  fixture $name
  for bf16 in true false; do
    for how in false true; do
      run=(train.yaml device=cuda bf16=$bf16 lora_dropout=0.1 gradient_checkpointing=$how vision_cache=off save_strategy=no)
      must "$name, bf16=$bf16, recomputation $how" on 1 qvl_sft "${run[@]}" output_dir=a$bf16$how
      QVL_POISON=1 must "the same from NaN" on 1 qvl_sft "${run[@]}" output_dir=b$bf16$how
      same "$name, bf16=$bf16, recomputation $how: the same bits" a$bf16$how/adapter_model.safetensors b$bf16$how/adapter_model.safetensors
    done
  done
  cd "$WORK"
done
