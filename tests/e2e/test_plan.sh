#!/usr/bin/env bash
# The plan of the published job: parameters, bytes and steps, from sparse files of the real sizes.
. "$(dirname "$0")/lib.sh" "$@"

"$BIN/qvl_demo" 7b --size 7b --sparse > "$WORK/log" || fail "qvl_demo --size 7b --sparse"
"$BIN/qvl_demo" 3b --size 3b --sparse > "$WORK/log" || fail "qvl_demo --size 3b --sparse"
[ "$(du -sm 7b | cut -f1)" -lt 100 ] || fail "the sparse 7B model takes room on disk"
ok "sparse models take no room"

# as many samples as the published job has
mkdir data
for i in $(seq 1097); do echo "{\"instruction\": \"Say $i.\", \"input\": \"\", \"output\": \"$i\"}"; done > data/d.jsonl
echo '{"d": {"file_name": "d.jsonl"}}' > data/dataset_info.json
published=("$(dirname "$FIXTURES")/../configs/qwen2_5vl_lora_sft.yaml" device=cpu dataset=d dataset_dir=data max_samples=null)

says() { grep -q -- "$1" "$WORK/log" || { cat "$WORK/log" >&2; fail "the plan does not say: $1"; }; ok "$1"; }
must "7B on 2 ranks" on 2 qvl_sft --check "${published[@]}" model_name_or_path=7b/model
says "20,185,088 trainable of 8,312,351,744 (0.2428 %)"
says "1097 samples"
says "steps  204 in all (steps_rule floor: 549 micro-batches a rank and epoch give 68 steps), 21 of warm-up, cosine"
says "token embedding  *2179989504 B"
says "decoder layers  *26102487040 B"
says "adapters  *80740352 B"
says "Adam moments  *161480704 B"
must "7B on 2 ranks, ceil" on 2 qvl_sft --check "${published[@]}" model_name_or_path=7b/model steps_rule=ceil
says "steps  207 in all"
must "a constant rate" on 1 qvl_sft --check "${published[@]}" model_name_or_path=3b/model lr_scheduler_type=constant warmup_ratio=0.5
says "steps), no warm-up, constant"
must "3B on 1 rank" on 1 qvl_sft --check "${published[@]}" model_name_or_path=3b/model
says "14,966,784 trainable of 3,769,589,760 (0.3970 %)"
says "head tied"
[ ! -e saves ] || fail "--check left something behind"
ok "--check leaves nothing behind"
