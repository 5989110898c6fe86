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

# refused CODE TEXT NAME KEYS...: by a run and by --check, and nothing in kept/ or work/ changes
cd "$WORK/tiny"
must "a finished run" on 1 qvl_sft train.yaml device=cpu output_dir=kept save_steps=2 max_steps=2
listing() { find kept work -type f ! -name log -exec sha256sum {} + | sort; }
refused() {
  local want=$1 text=$2 name=$3 code; shift 3
  listing > before
  for check in --check ""; do
    code=0
    on 1 qvl_sft $check "$@" || code=$?
    [ "$code" = "$want" ] || { cat "$WORK/log" >&2; fail "$name $check: exit code $code"; }
    grep -q -- "$text" "$WORK/log" || { cat "$WORK/log" >&2; fail "$name $check: does not say $text"; }
    listing > after
    same "$name $check: nothing is removed or replaced" before after
  done
}
mkdir work; abs=$PWD
sed "s#: \(model\|adapter_init\|train.h5\)\$#: $abs/\1#; s#^output_dir: .*#output_dir: .#" train.yaml > work/config.yaml
echo '# mine' >> work/config.yaml
(cd work; on 1 qvl_sft config.yaml device=cpu) && fail "a run replaced its own configuration"
grep -q 'output_dir: the configuration config.yaml lies there' "$WORK/log" || { cat "$WORK/log" >&2; fail "no word of the configuration"; }
tail -n 1 work/config.yaml | grep -q '^# mine$' || fail "the configuration was replaced"
ok "output_dir: . does not replace the configuration"
anew=(train.yaml device=cpu overwrite_output_dir=true output_dir=kept max_steps=1)
refused 78 'work/config.yaml was not written by qvl' "somebody's config.yaml" "${anew[@]}" output_dir=work
rm work/config.yaml; echo '{}' > work/adapter_config.json
refused 78 'work/adapter_config.json is there, and not of a run of qvl' "somebody's adapter_config.json" "${anew[@]}" output_dir=work
refused 78 'tokenized_path: kept/config.yaml is what a run writes' "tokenized_path among the results" "${anew[@]}" tokenized_path=kept/config.yaml

# bad inputs are known before an earlier run's results go
fault() {
  local size
  rm -rf bad; cp -r adapter_init bad
  size=$(stat -c %s bad/adapter_model.safetensors)
  case $1 in
    nan) printf '\377\377\377\177' | dd of=bad/adapter_model.safetensors bs=1 seek=$((size - 4)) conv=notrunc status=none ;;
    type) sed -i '0,/"F32"/s//"I32"/' bad/adapter_model.safetensors ;;
    layer) LC_ALL=C sed -i '0,/layers\.2\./s//layers.7./' bad/adapter_model.safetensors ;;
  esac
}
fault nan;   refused 65 'must be finite' "an adapter with NaN" "${anew[@]}" adapter_name_or_path=bad
fault type;  refused 65 'is I32, expected F32' "an adapter of integers" "${anew[@]}" adapter_name_or_path=bad
fault layer; refused 65 'layers.7.*has no place in this model' "an adapter of a larger model" "${anew[@]}" adapter_name_or_path=bad

# Pixels are read after output_dir is opened, without --check; results go before the first step, no sooner.
cp train.h5 torn.h5
head -c 64 /dev/zero | dd of=torn.h5 bs=1 seek=250000 conv=notrunc status=none
listing > before; code=0
on 1 qvl_sft "${anew[@]}" tokenized_path=torn.h5 || code=$?
[ "$code" = 65 ] || { cat "$WORK/log" >&2; fail "damaged pixels: exit code $code"; }
listing > after
same "damaged pixels are known before the results go" before after
must "good ones" on 1 qvl_sft "${anew[@]}"
grep -q '1 checkpoint and the results in kept are removed before the first step' "$WORK/log" || { cat "$WORK/log" >&2; fail "no word of the removal"; }
[ ! -e kept/checkpoint-2 ] && [ -e kept/checkpoint-1 ] || fail "the old checkpoint is still there"
ok "then they go"

# checkpoints of others
mkdir -p kept/checkpoint-3 kept/checkpoint-2.tmp kept/checkpoint-6
for d in checkpoint-3 checkpoint-2.tmp checkpoint-6; do echo mine > kept/$d/notes; done
some=(train.yaml device=cpu overwrite_output_dir=false output_dir=kept save_steps=1 save_total_limit=1)
refused 78 'kept/checkpoint-6 is no checkpoint of qvl, and the last one of this run' "somebody's directory in the last checkpoint's place" "${some[@]}"
rm -r kept/checkpoint-6
must "a directory with checkpoints of others" on 1 qvl_sft "${some[@]}"
grep -q 'warning: kept/checkpoint-2.tmp (and 1 more): no checkpoint of qvl' "$WORK/log" || { cat "$WORK/log" >&2; fail "no word of them"; }
[ -e kept/checkpoint-3/notes ] && [ -e kept/checkpoint-2.tmp/notes ] && [ -e kept/checkpoint-6/manifest.json ] || fail "a checkpoint of others is gone"
[ "$(ls -d kept/checkpoint-* | wc -l)" = 3 ] || fail "save_total_limit counts checkpoints of others"
ok "checkpoints of others stay and do not count"
