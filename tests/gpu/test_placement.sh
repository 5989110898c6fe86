#!/usr/bin/env bash
# Ranks and GPUs: more ranks than GPUs is an error that says what to do; share_gpu allows it; a rank that sees one
# GPU only takes that one.
. "$(dirname "$0")/lib.sh" "$@"
fixture tiny
n_gpus=$(nvidia-smi -L | grep -c '^GPU')

code=0
on $((n_gpus + 1)) qvl_sft train.yaml device=cuda max_steps=1 save_strategy=no output_dir=out || code=$?
[ $code = 69 ] || { cat "$WORK/log" >&2; fail "more ranks than GPUs: exit code $code instead of 69"; }
grep -q 'share_gpu' "$WORK/log" || { cat "$WORK/log" >&2; fail "no word of share_gpu"; }
ok "more ranks than GPUs: $(grep 'share_gpu' "$WORK/log" | head -n 1)"
must "the same with share_gpu" on $((n_gpus + 1)) qvl_sft train.yaml device=cuda share_gpu=true max_steps=1 save_strategy=no output_dir=out
CUDA_VISIBLE_DEVICES=0 must "one visible GPU" on 1 qvl_sft train.yaml device=cuda max_steps=1 save_strategy=no output_dir=out
grep -qE 'rank 0 .*sm_[0-9]+.*[0-9a-f]{4}:[0-9a-f]{2}' "$WORK/log" || { cat "$WORK/log" >&2; fail "placement is not printed"; }
ok "$(grep -E '^rank 0' "$WORK/log")"
code=0
CUDA_VISIBLE_DEVICES='' on 1 qvl_sft train.yaml device=cuda max_steps=1 save_strategy=no output_dir=out || code=$?
[ $code = 69 ] || fail "no visible GPU: exit code $code instead of 69"
CUDA_VISIBLE_DEVICES='' must "auto without a GPU" on 1 qvl_sft train.yaml device=auto max_steps=1 save_strategy=no output_dir=out
grep -q 'device: auto: the CPU' "$WORK/log" || fail "auto does not say that it takes the CPU"
ok "without a visible GPU: cuda is an error, auto takes the CPU and says so"
