#!/usr/bin/env bash
# The demo, shortened: the loss falls, and output_dir holds everything that it should.
. "$(dirname "$0")/lib.sh" "$@"

"$BIN/qvl_demo" demo > "$WORK/log" || fail "qvl_demo"
short=(demo/demo.yaml num_train_epochs=4 learning_rate=5.0e-3 save_steps=40 save_total_limit=1)
must "training on 2 ranks" on 2 qvl_sft "${short[@]}"
grep -o '"loss": [0-9.]*' demo/output/trainer_log.jsonl | awk '{ x[NR] = $2 } END { exit !(NR >= 15 && x[NR] < x[1] / 3) }' || fail "the loss has not fallen to a third"
ok "the loss falls: $(grep -o '"loss": [0-9.]*' demo/output/trainer_log.jsonl | sed -n '1p;$p' | cut -d' ' -f2 | tr '\n' ' ')"
for file in adapter_config.json adapter_model.safetensors all_results.json checkpoint-96/manifest.json config.yaml \
  preprocessor_config.json tokenizer.json tokenizer_config.json train_results.json trainer_log.jsonl trainer_state.json training_loss.png; do
  [ -s "demo/output/$file" ] || fail "output_dir has no $file"
done
ok "output_dir is complete"
[ "$(ls -d demo/output/checkpoint-* | wc -l)" = 1 ] || fail "save_total_limit left $(ls -d demo/output/checkpoint-*)"
ok "save_total_limit"
must "the encoded file is used again" on 1 qvl_sft "${short[@]}" max_steps=1
grep -q 'demo/tokenized.h5 is up to date' "$WORK/log" || fail "the data were encoded again"
must "evaluation on a part kept apart" on 2 qvl_sft "${short[@]}" max_steps=4 val_size=0.1 eval_strategy=steps eval_steps=2 tokenized_path=demo/split.h5 output_dir=demo/evaluated per_device_eval_batch_size=2
[ "$(grep -c eval_loss demo/evaluated/trainer_log.jsonl)" = 2 ] || fail "not two evaluations"
must "evaluation on 1 rank" on 1 qvl_sft "${short[@]}" max_steps=4 gradient_accumulation_steps=16 val_size=0.1 eval_strategy=steps eval_steps=2 tokenized_path=demo/split.h5 output_dir=demo/evaluated1 per_device_eval_batch_size=2
paste <(grep -o '"eval_loss": [0-9.]*' demo/evaluated/trainer_log.jsonl) <(grep -o '"eval_loss": [0-9.]*' demo/evaluated1/trainer_log.jsonl) |
  awk '{ d = ($2 - $4) / $2; if (d < 0) d = -d; if (!(d < 1e-5)) bad = 1; n++ } END { exit bad || n != 2 }' || fail "1 and 2 ranks evaluate differently"
ok "1 and 2 ranks evaluate alike"
