#!/usr/bin/env bash
# The numbers of Hugging Face on a GPU: forward values and whole runs in float32 on one rank and on two that
# share the GPU, bf16 within its own bounds; all layouts of activations; the demo on the CPU and on the GPU.
. "$(dirname "$0")/lib.sh" "$@"

for name in tiny tied wide; do
  fixture "$name"
  for kind in cuda cuda_bf16; do
    must "$name: forward values, $kind" bash -c '"$0" . "$1" > ../log 2>&1' "$TESTS/forward_check" $kind
  done
  must "$name: float32, 1 rank" on 1 qvl_sft train.yaml device=cuda bf16=false output_dir=out1
  must "$name: float32, 1 rank: losses, norms, rates, adapter" check out1 1e-4 1e-4
  must "$name: float32, 2 ranks" on 2 qvl_sft train.yaml device=cuda bf16=false gradient_accumulation_steps=2 share_gpu=true output_dir=out2
  must "$name: float32, 2 ranks: losses, norms, rates, adapter" check out2 1e-4 1e-4
  must "$name: float32, unpacked, all recomputed" on 1 qvl_sft train.yaml device=cuda bf16=false pack=false gradient_checkpointing=true vision_cache=off output_dir=out3
  must "$name: float32, unpacked: losses, norms, rates, adapter" check out3 1e-4 1e-4
  must "$name: bf16" on 1 qvl_sft train.yaml device=cuda bf16=true output_dir=out4
  within "$name: bf16: losses beside float32's" "$(worst loss out1/trainer_log.jsonl out4/trainer_log.jsonl)" 5e-3
  must "$name: bf16, all recomputed" on 1 qvl_sft train.yaml device=cuda bf16=true gradient_checkpointing=true vision_cache=off output_dir=out5
  same "$name: bf16: recomputation changes no bit" out4/adapter_model.safetensors out5/adapter_model.safetensors
  cd "$WORK"
done

for kind in cuda cuda_bf16; do
  mkdir "deep_$kind"
  must "gradients do not depend on where activations are, $kind" bash -c '"$0" "deep_$1" "$1" > log 2>&1' "$TESTS/layouts_check" $kind
  for targets in down_proj q_proj,v_proj gate_proj,down_proj; do
    rm -rf some; mkdir some
    must "with $targets adapted only, $kind" bash -c '"$0" some "$1" "$2" > log 2>&1' "$TESTS/layouts_check" $kind $targets
  done
done

must "demo" bash -c '"$0" demo > log 2>&1' "$BIN/qvl_demo"
for device in cpu cuda; do
  must "demo: $device" on 1 qvl_sft demo/demo.yaml device=$device max_steps=30 logging_steps=1 save_strategy=no output_dir=$device
done
within "demo: losses of CPU and GPU" "$(worst loss cpu/trainer_log.jsonl cuda/trainer_log.jsonl)" 1e-4
