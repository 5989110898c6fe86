#!/usr/bin/env bash
# Memory that starts as NaN changes no bit: nothing is read before it was written.
. "$(dirname "$0")/lib.sh" "$@"
fixture tiny

for how in false true; do
  run=(train.yaml device=cpu lora_dropout=0.1 gradient_checkpointing=$how vision_cache=off save_strategy=no)
  must "recomputation $how" on 1 qvl_sft "${run[@]}" output_dir=a$how
  QVL_POISON=1 must "recomputation $how, from NaN" on 1 qvl_sft "${run[@]}" output_dir=b$how
  same "recomputation $how: the same bits" a$how/adapter_model.safetensors b$how/adapter_model.safetensors
done
