#!/usr/bin/env bash
# On a GPU: the same run twice, and stopped and resumed, leaves the same bytes; memory does not grow.
. "$(dirname "$0")/lib.sh" "$@"
fixture wide

for bf16 in true false; do
  run=(train.yaml device=cuda bf16=$bf16 lora_dropout=0.1 disable_shuffling=false max_steps=20 save_steps=10 gradient_accumulation_steps=2 adapter_name_or_path= lora_rank=8)
  must "bf16=$bf16: 20 steps" on 1 qvl_sft "${run[@]}" output_dir=a$bf16
  must "bf16=$bf16: 20 steps again" on 1 qvl_sft "${run[@]}" output_dir=b$bf16
  same "bf16=$bf16: the same run twice" a$bf16/adapter_model.safetensors b$bf16/adapter_model.safetensors
  mkdir c$bf16 && cp -r a$bf16/checkpoint-10 c$bf16/
  must "bf16=$bf16: resume from step 10" on 1 qvl_sft "${run[@]}" overwrite_output_dir=false output_dir=c$bf16
  grep -q 'going on from c.*step 10 of 20' "$WORK/log" || fail "the run did not go on from step 10"
  same "bf16=$bf16: 10 + resume + 10 is 20" a$bf16/adapter_model.safetensors c$bf16/adapter_model.safetensors
done

must "200 steps" on 1 qvl_sft train.yaml device=cuda bf16=true max_steps=200 save_strategy=no output_dir=long
grep -q 'GPU memory: .* since then +0 B' "$WORK/log" || { grep 'GPU memory' "$WORK/log" >&2; fail "GPU memory grew"; }
ok "$(grep -o 'GPU memory: .*' "$WORK/log")"
