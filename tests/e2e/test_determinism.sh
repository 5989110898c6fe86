#!/usr/bin/env bash
# The same run twice, and stopped and resumed, is bit for bit the same; 1, 2 and 3 ranks agree.
. "$(dirname "$0")/lib.sh" "$@"
fixture tiny

run=(train.yaml device=cpu lora_dropout=0.1 disable_shuffling=false max_steps=20 save_steps=10 gradient_accumulation_steps=2 adapter_name_or_path= lora_rank=4)
for ranks in 1 2; do
  must "$ranks ranks: 20 steps" on $ranks qvl_sft "${run[@]}" output_dir=a$ranks
  must "$ranks ranks: 20 steps again" on $ranks qvl_sft "${run[@]}" output_dir=b$ranks
  same "$ranks ranks: the same run twice" a$ranks/adapter_model.safetensors b$ranks/adapter_model.safetensors
  mkdir c$ranks && cp -r a$ranks/checkpoint-10 c$ranks/
  must "$ranks ranks: resume from step 10" on $ranks qvl_sft "${run[@]}" overwrite_output_dir=false output_dir=c$ranks
  grep -q 'going on from c.*step 10 of 20' "$WORK/log" || fail "the run did not go on from step 10"
  same "$ranks ranks: 10 + resume + 10 is 20: adapter" a$ranks/adapter_model.safetensors c$ranks/adapter_model.safetensors
  same "$ranks ranks: 10 + resume + 10 is 20: optimiser state" a$ranks/checkpoint-20/optimizer.h5 c$ranks/checkpoint-20/optimizer.h5
  sed 's/"elapsed_time.*"grad_norm"/"grad_norm"/; s/, "tokens_per_second.*//' a$ranks/trainer_log.jsonl | grep loss > a.log
  sed 's/"elapsed_time.*"grad_norm"/"grad_norm"/; s/, "tokens_per_second.*//' c$ranks/trainer_log.jsonl | grep loss > c.log
  tail -n 10 a.log | cmp -s - c.log || fail "the losses after the resume differ"
  ok "$ranks ranks: the same losses after the resume"
done
must "a finished run has nothing to do" on 1 qvl_sft "${run[@]}" overwrite_output_dir=false output_dir=a1
grep -q 'nothing to do: all 20 steps are done' "$WORK/log" || fail "no word of it"

# 24 samples in 2 steps of 12 on 1, 2 and 3 ranks; dropout is keyed by sample, so it does not matter who
# computes it.
sets=(train.yaml device=cpu lora_dropout=0.2 adapter_name_or_path= save_strategy=no num_train_epochs=4)
must "1 rank x 12" on 1 qvl_sft "${sets[@]}" gradient_accumulation_steps=12 output_dir=r1
for ranks in 2 3; do
  must "$ranks ranks x $((12 / ranks))" on $ranks qvl_sft "${sets[@]}" gradient_accumulation_steps=$((12 / ranks)) output_dir=r$ranks
  paste <(grep -o '"loss": [0-9.e-]*' r1/trainer_log.jsonl) <(grep -o '"loss": [0-9.e-]*' r$ranks/trainer_log.jsonl) |
    awk '{ d = ($2 - $4) / $2; if (d < 0) d = -d; if (!(d <= 1e-5)) bad = 1; n++ } END { exit bad || n != 8 }' ||
    fail "losses of 1 and $ranks ranks differ by more than 1e-5"
  ok "losses of 1 and $ranks ranks agree to 1e-5"
done
must "packed and unpacked dropout" on 1 qvl_sft "${sets[@]}" gradient_accumulation_steps=12 pack=false output_dir=u1
paste <(grep -o '"loss": [0-9.e-]*' r1/trainer_log.jsonl) <(grep -o '"loss": [0-9.e-]*' u1/trainer_log.jsonl) |
  awk '{ d = ($2 - $4) / $2; if (d < 0) d = -d; if (!(d <= 1e-5)) bad = 1; n++ } END { exit bad || n != 8 }' ||
  fail "losses packed and unpacked differ by more than 1e-5"
ok "losses packed and unpacked agree to 1e-5"
