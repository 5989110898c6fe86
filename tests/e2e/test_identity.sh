#!/usr/bin/env bash
# What a checkpoint may go on with: a model or data of the same shape and sizes, but with other contents, is refused; what
# changes the result otherwise is said. And files that qvl did not write are never replaced.
. "$(dirname "$0")/lib.sh" "$@"

fixture tiny
run=(train.yaml device=cpu overwrite_output_dir=false plot_loss=false save_steps=2)
must "two steps" on 1 qvl_sft "${run[@]}" output_dir=two max_steps=2

# goes_on CODE TEXT NAME KEYS...: a copy of that directory, with the keys
goes_on() {
  local want=$1 text=$2 name=$3 code=0; shift 3
  rm -rf again; cp -r two again; rm again/*.json again/*.safetensors
  on 1 qvl_sft "${run[@]}" output_dir=again max_steps=4 "$@" || code=$?
  [ "$code" = "$want" ] || { cat "$WORK/log" >&2; fail "$name: exit code $code"; }
  grep -q -- "$text" "$WORK/log" || { cat "$WORK/log" >&2; fail "$name: does not say $text"; }
  ok "$name"
}
goes_on 0 'going on from again/checkpoint-2' "the same goes on"
cp -r model other
shard=$(ls other/*.safetensors | head -n 1)
size=$(stat -c %s "$shard")
head -c $((size / 2)) /dev/zero | dd of="$shard" bs=65536 seek=$((size - size / 2)) oflag=seek_bytes conv=notrunc status=none
goes_on 65 'model: ' "other weights under the same header are refused" model_name_or_path=other

# a token of the pre-tokenized file, which has no digest
h5repack -f NONE -l CONTI train.h5 plain.h5
goes_on 0 'going on from' "the same data in another layout of the file" tokenized_path=plain.h5
offset=$(h5dump -p -H -d /input_ids plain.h5 | awk '$1 == "OFFSET" { print $2 }')
printf '\005\000\000\000' | dd of=plain.h5 bs=1 seek=$((offset + 4 * 1200)) conv=notrunc status=none
goes_on 65 'data: ' "other data of the same sizes is refused" tokenized_path=plain.h5
for key in adam_beta1=0.5 adam_beta2=0.9 adam_epsilon=0.1; do
  goes_on 0 "not as it was when the checkpoint was saved: .*${key%=*}" "$key goes on, and is said" "$key"
done

# ---- files of others
must "demo" bash -c '"$0" demo > log 2>&1' "$BIN/qvl_demo"
cp train.h5 given.h5; cp demo/data/demo_chat.json given.json
demo=(demo/demo.yaml device=cpu max_steps=1 overwrite_cache=true save_strategy=no plot_loss=false)
for file in given.h5 given.json; do
  cp "$file" before; code=0
  on 1 qvl_sft "${demo[@]}" output_dir=new tokenized_path="$file" || code=$?
  [ "$code" = 65 ] || { cat "$WORK/log" >&2; fail "overwrite_cache over $file: exit code $code"; }
  grep -q "overwrite_cache: $file was not written by qvl and is left as it is" "$WORK/log" || { cat "$WORK/log" >&2; fail "$file: no word of it"; }
  same "overwrite_cache leaves $file alone" "$file" before
done
code=0
on 1 qvl_sft "${demo[@]}" overwrite_cache=false output_dir=new tokenized_path=given.h5 || code=$?
[ "$code" = 65 ] && grep -q 'given.h5: has no digest' "$WORK/log" || { cat "$WORK/log" >&2; fail "a file without digest beside a data set: exit code $code"; }
ok "a file without digest beside a data set is refused with what would be right"
