#!/usr/bin/env bash
# Wrong input on 1 and 2 ranks: its exit code, one line that names the place, within 5 seconds, and
# nothing left behind.
. "$(dirname "$0")/lib.sh" "$@"

# refused NAME CODE PATTERN ARGS...: qvl_sft ARGS on 1 and 2 ranks. The one starts without mpirun, which
# takes 2 seconds to notice that a rank has failed.
refused() {
  local name=$1 code=$2 pattern=$3 ranks rc start before after
  shift 3
  for ranks in 1 2; do
    before=$(find "$WORK" ! -name log | sort | cksum)
    start=$(date +%s%N); rc=0
    if [ $ranks = 1 ]; then "$BIN/qvl_sft" "$@" > "$WORK/log" 2>&1 || rc=$?
    else on $ranks qvl_sft "$@" || rc=$?; fi
    [ "$rc" = "$code" ] || { cat "$WORK/log" >&2; fail "$name on $ranks ranks: exit code $rc, expected $code"; }
    [ "$(grep -c '^qvl_sft: ' "$WORK/log")" = 1 ] || { cat "$WORK/log" >&2; fail "$name on $ranks ranks: not one error line"; }
    grep -Eq "^qvl_sft: .*$pattern" "$WORK/log" || { cat "$WORK/log" >&2; fail "$name on $ranks ranks: the line does not name '$pattern'"; }
    awk -v s="$(since "$start")" 'BEGIN { exit !(s < 5) }' || fail "$name on $ranks ranks: $(since "$start") s"
    after=$(find "$WORK" ! -name log | sort | cksum)
    [ "$before" = "$after" ] || { find "$WORK" -newer "$WORK/log" >&2; fail "$name on $ranks ranks: something is left behind"; }
  done
  ok "$name: exit $code: $(grep '^qvl_sft: ' "$WORK/log" | cut -c1-150)"
}

# edit FILE FROM TO: replaces text of the same length in a binary file
edit() { perl -0777 -pi -e "BEGIN { \$f = shift; \$t = shift } s/\\Q\$f\\E/\$t/ or die \"no \$f\"" "$2" "$3" "$1"; }

# unlabel FILE: no label of a pre-tokenized file supervises anything
unlabel() {
  local offset size
  h5repack -f labels:NONE -l labels:CONTI "$1" "$1.new" && mv "$1.new" "$1"
  read -r size offset < <(h5dump -H -p -d /labels "$1" | awk '/ SIZE / { size = $2 } / OFFSET / { print size, $2 }')
  perl -e 'open F, "+<", $ARGV[0] or die; seek F, $ARGV[1], 0; print F pack("l<", -100) x ($ARGV[2] / 4)' "$1" "$offset" "$size"
}

# ---- configuration
fixture tiny
cp train.yaml good.yaml
sed 's/^lora_rank/lora_rnak/' good.yaml > bad.yaml
refused "unknown key" 78 "bad.yaml:6: unknown key 'lora_rnak'; did you mean 'lora_rank'" bad.yaml
refused "unknown override" 78 "command line: unknown key 'lerning_rate'; did you mean 'learning_rate'" good.yaml lerning_rate=1
sed 's/^gradient_accumulation_steps.*/gradient_accumulation_steps: four/' good.yaml > bad.yaml
refused "wrong type" 78 "bad.yaml:17: gradient_accumulation_steps: 'four' is not a whole number" bad.yaml
refused "out of range" 78 "lora_dropout: 1.5 is out of range, expected 0.0 to 0.99" good.yaml lora_dropout=1.5
(cat good.yaml; echo "seed: 1"; echo "seed: 2") > bad.yaml
refused "duplicate key" 78 "bad.yaml:[0-9]+: duplicate key 'seed', first given in line [0-9]+" bad.yaml
printf 'output_dir: out\n\tseed: 1\n' > bad.yaml
refused "YAML syntax" 78 "bad.yaml:2: " bad.yaml
refused "quantisation" 78 "quantization_bit: '4' is not supported" good.yaml quantization_bit=4
refused "missing configuration" 66 "nowhere.yaml: No such file" nowhere.yaml
refused "no arguments" 64 "usage"
refused "no GPU" 69 "device: cuda: no GPU found \((CUDA: |this build has no CUDA)" good.yaml device=cuda
for check in '' --check; do
  sed '/^do_train/d' good.yaml > bad.yaml
  refused "no do_train $check" 78 'bad.yaml: do_train: is missing, there is nothing to do; add do_train: true$' $check bad.yaml
  sed 's/^do_train.*/do_train: false/' good.yaml > bad.yaml
  refused "do_train: false $check" 78 'bad.yaml:4: do_train: false leaves nothing to do; say do_train: true$' $check bad.yaml
  refused "do_train=false $check" 78 'command line: do_train: false leaves nothing to do; say do_train=true$' $check good.yaml do_train=false
done
rm bad.yaml

# ---- model files
refused "missing model" 66 "no such model directory" good.yaml model_name_or_path=nowhere
refused "unknown hub name" 66 "some/model: neither a directory nor in the hub cache" good.yaml model_name_or_path=some/model
mv model/config.json kept
refused "missing config.json" 66 "model/config.json: No such file" good.yaml
sed 's/"vocab_size": 512/"vocab_size": 500/; s/_token_id": 5../_token_id": 400/' kept > model/config.json
refused "wrong vocabulary" 65 "model.embed_tokens.weight has shape \[512, 64\], config.json asks for \[500, 64\]" good.yaml
sed 's/"intermediate_size": 160/"intermediate_size": 168/' kept > model/config.json
refused "wrong shape" 65 "tensor model.layers.0.mlp.gate_proj.weight has shape \[160, 64\], config.json asks for \[168, 64\]" good.yaml
sed 's/"model_type": "qwen2_5_vl"/"model_type": "llama"/' kept > model/config.json
refused "another model" 65 'model_type is "llama", expected "qwen2_5_vl"' good.yaml
sed 's/"hidden_size": 64,/"hidden_size": 64/' kept > model/config.json
refused "JSON syntax in config.json" 65 "model/config.json:8:" good.yaml
rm model/config.json && mkfifo model/config.json
refused "a pipe for config.json" 66 "model/config.json: not a regular file" good.yaml
rm model/config.json
mv kept model/config.json
shard=model/model-00002-of-00002.safetensors
mv $shard kept
refused "missing shard" 66 "1 of 2 shards missing: model-00002-of-00002.safetensors" good.yaml
mkfifo $shard
refused "a pipe for a shard" 66 "$shard: not a regular file" good.yaml
rm $shard
head -c 300000 kept > $shard
refused "truncated shard" 65 "$shard: .*truncated" good.yaml
printf 'version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n' > $shard
refused "git-lfs pointer" 65 "$shard: is a git-lfs pointer" good.yaml
mv kept $shard
cp model/model.safetensors.index.json kept
sed 's|"model-00002-of-00002.safetensors"|"../../etc/passwd"|' kept > model/model.safetensors.index.json
refused "a shard elsewhere" 65 "shard name '../../etc/passwd' is not a file of the directory" good.yaml
rm -r "$WORK/tiny"; cd "$WORK"
fixture tied
cp model/model.safetensors kept
edit model/model.safetensors 'model.language_model.norm.weight' 'model.language_model.norn.weight'
refused "missing tensor" 65 "tensor model.norm.weight is missing" train.yaml
cp kept model/model.safetensors
first=$(grep -ao '"data_offsets":\[[1-9][0-9]*,[0-9]*\]' model/model.safetensors | head -n 1)
begin=${first#*[}; begin=${begin%,*}
edit model/model.safetensors "$first" "${first/[$begin,/[$((begin - 2)),}"
refused "overlapping offsets" 65 "overlap the tensor before" train.yaml
cp kept model/model.safetensors
edit model/model.safetensors '"dtype":"BF16"' '"dtype":"BF17"'
refused "unknown dtype" 65 "dtype BF17 is not known" train.yaml
cp kept model/model.safetensors; rm kept

# ---- pre-tokenized data
cp train.h5 kept
head -c 100000 kept > train.h5
refused "truncated HDF5" 65 "train.h5: not a whole HDF5 file" train.yaml
head -c 100000 /dev/urandom > train.h5
refused "garbage for HDF5" 65 "train.h5: not a whole HDF5 file" train.yaml
cp kept train.h5 && unlabel train.h5
for check in "" --check; do
  refused "no supervised token $check" 65 "train.h5: none of its 24 samples has a supervised token; expected labels other than -100" $check train.yaml
done
cp kept train.h5 # pixels that cannot be unpacked: --check reads them all
h5repack -f images/rgb:GZIP=1 -l images/rgb:CHUNK=50000 train.h5 train.h5.new && mv train.h5.new train.h5
perl -0777 -pi -e 'my $at = rindex($_, "\x78\x01"); die "no chunk" if $at < 0; substr($_, $at + 2, 40) = "\xff" x 40' train.h5
refused "damaged pixels" 65 "train.h5: /images/rgb elements [0-9]+ to [0-9]+: .*\(image [0-9]+, which begins at element [0-9]+\)" --check train.yaml
rm train.h5
refused "missing HDF5" 66 "train.h5: tokenized_path is not there" train.yaml
mv kept train.h5
refused "pack below the longest sample" 78 "pack_tokens: 16 is less than the longest sample" train.yaml pack_tokens=16
cp -r adapter_init kept && sed 's/"lora_alpha": *[0-9.]*/"lora_alpha": 1e300/' kept/adapter_config.json > adapter_init/adapter_config.json
refused "adapter with an absurd scale" 65 "adapter_config.json: r, lora_alpha or lora_dropout is missing or out of range" train.yaml
tr -d '\n' < kept/adapter_config.json | sed 's/"target_modules": *\[[^]]*\]/"target_modules": ["q_proj"]/' > adapter_init/adapter_config.json
refused "adapter with other targets than tensors" 65 "adapter_init/adapter_config.json: target_modules leaves out layers.0.self_attn.k_proj, which has tensors" train.yaml
rm -r adapter_init && mv kept adapter_init
mv adapter_init/adapter_model.safetensors kept && mkfifo adapter_init/adapter_model.safetensors
refused "a pipe for an adapter" 66 "adapter_model.safetensors: not a regular file" train.yaml
rm adapter_init/adapter_model.safetensors && mv kept adapter_init/adapter_model.safetensors
export OMP_NUM_THREADS=1000000
refused "threads without sense" 78 "OMP_NUM_THREADS: 1000000 threads a rank, expected at most 1024" train.yaml
unset OMP_NUM_THREADS
refused "not an adapter" 66 "adapter_config.json" train.yaml adapter_name_or_path=model

# ---- output_dir
refused "unwritable output_dir" 74 "/proc/nowhere" train.yaml output_dir=/proc/nowhere
refused "output_dir below a file" 74 "create directory train.h5: Not a directory" train.yaml output_dir=train.h5/out
refused "output_dir where nothing can be made" 74 "create directory /sys/nowhere: (Operation not permitted|Permission denied|Read-only file system)" train.yaml output_dir=/sys/nowhere
mkdir "$WORK/full"
if mount -t tmpfs -o size=64k tmpfs "$WORK/full" 2> /dev/null; then
  trap 'umount "$WORK/full"; rm -rf "$WORK"' EXIT
  refused "full disk" 74 "output_dir .*full/out: .* free, the adapter and a checkpoint need" train.yaml output_dir="$WORK/full/out"
  rmdir "$WORK/full/out" 2> /dev/null || true
else
  echo "skip - full disk: no permission to mount a tmpfs"
fi
mkdir done && cp train.yaml done/trainer_state.json
refused "results of another run" 78 "done holds the results of a run" train.yaml output_dir=done overwrite_output_dir=false
rm -r "$WORK/tied"; cd "$WORK"

# ---- data sets and images
"$BIN/qvl_demo" demo --samples 12 > "$WORK/log" || fail "qvl_demo"
cd demo
# data NAME CODE PATTERN DATASET OVERRIDES...
data() {
  local name=$1 code=$2 pattern=$3 set=$4
  shift 4
  refused "$name" "$code" "$pattern" demo.yaml dataset="$set" dataset_dir=data model_name_or_path=model output_dir=output tokenized_path= "$@"
}
info() { printf '{"d": {"file_name": "%s"%s}}\n' "$1" "${2:-}" > data/dataset_info.json; }
sharegpt=', "formatting": "sharegpt", "columns": {"messages": "messages", "images": "images"}, "tags": {"role_tag": "role", "content_tag": "content", "user_tag": "user", "assistant_tag": "assistant"}'
data "unknown data set" 66 "dataset_info.json: no data set 'demo_shape'; did you mean 'demo_shapes'" demo_shape
info nowhere.json
data "missing data file" 66 "nowhere.json: data file of data set 'd' is not there" d
rm -f data/bad.json; mkfifo data/bad.json; info bad.json
data "a pipe for a data file" 66 "bad.json: not a regular file" d
rm data/bad.json
printf '[\n {"instruction": "a", "input": "", "output": "b"},\n {"instruction": "a" "output": "b"}\n]\n' > data/bad.json
data "JSON syntax error" 65 "bad.json:3: " d
printf '[\n {"instruction": "a", "output": "b"}\n {"instruction": "a", "output": "b"}\n]\n' > data/bad.json
data "JSON syntax error between records" 65 "bad.json:3: found '\{', expected ',' or '\]' after a record" d
info bad.json "$sharegpt"
message() { printf '{"messages": [{"role": "%s", "content": "%s"}, {"role": "%s", "content": "b"}]%s}' "$1" "$2" "$3" "${4:-}"; }
echo "[$(message user a assistant), $(message assistant a user)]" > data/bad.json
data "roles in the wrong order" 65 "bad.json: sample 1: roles in the wrong order: message 0" d
echo "[$(message user '<image>a' assistant)]" > data/bad.json
data "image count mismatch" 65 "bad.json: sample 0: 0 images, but 1 <image>" d
echo "[$(message user '<image>a' assistant ', "images": ["nowhere.png"]')]" > data/bad.json
data "missing image" 66 "bad.json: sample 0: .*nowhere.png: No such file" d
image=$(cd data && find demo_shapes -name '*.png' | sort | head -n 1)
head -c $(($(wc -c < "data/$image") / 2)) "data/$image" > data/cut.png
echo "[$(message user '<image>a' assistant ', "images": ["cut.png"]')]" > data/bad.json
data "truncated image" 65 "bad.json: sample 0: .*cut.png: " d
# a PNG header of 60000 x 60000 pixels; its checksum is right
perl -e 'my $c = "IHDR" . pack("NNCCCCC", 60000, 60000, 8, 2, 0, 0, 0);
  my $r = 0xffffffff; for my $b (unpack "C*", $c) { $r ^= $b; for (1 .. 8) { $r = $r & 1 ? ($r >> 1) ^ 0xedb88320 : $r >> 1 } }
  print "\x89PNG\r\n\x1a\n", pack("N", 13), $c, pack("N", $r ^ 0xffffffff), pack("N", 100000), "IDAT"' > data/cut.png
data "60000 x 60000 image" 65 "bad.json: sample 0: .*cut.png: .*60000 x 60000" d
rm data/cut.png && ln -s cut.png data/cut.png
data "image that is a link to itself" 66 "bad.json: sample 0: .*cut.png: Too many levels of symbolic links" d
rm data/cut.png && ln -s /etc/passwd data/cut.png
data "image outside of media_dir" 65 "bad.json: sample 0: .*cut.png: lies outside of media_dir data \\(strict_paths: true\\)" d strict_paths=true
rm data/cut.png
printf 'GIF89a\1\0\1\0\0\0\0;' > data/cut.png
data "GIF image" 65 "bad.json: sample 0: .*cut.png: .*GIF" d
echo "[$(message user "<image>$(printf 'word %.0s' {1..600})" assistant ', "images": ["'"$image"'"]')]" > data/bad.json
data "image lost to cutoff_len" 65 "bad.json: sample 0: cutoff_len 16 cuts its images" d cutoff_len=16

info long.json
for i in $(seq 1 3000); do echo "{\"instruction\": \"$i $((i * 7919))\", \"output\": \"$((i * 104729))\"}"; done > data/long.json
mkdir "$WORK/small"
if mount -t tmpfs -o size=64k tmpfs "$WORK/small" 2> /dev/null; then
  trap 'umount "$WORK/full" "$WORK/small" 2> /dev/null; rm -rf "$WORK"' EXIT
  data "full disk while encoding" 74 "write .*small/t.h5: .*: No space left on device" d tokenized_path="$WORK/small/t.h5"
else
  echo "skip - full disk while encoding: no permission to mount a tmpfs"
fi

# the HDF5 file of another tokenizer
rm -r data && cd "$WORK" && rm -r demo && "$BIN/qvl_demo" demo --samples 12 > "$WORK/log" && cd demo
must "encoding with one tokenizer" on 1 qvl_prep demo.yaml dataset_dir=data model_name_or_path=model output_dir=output tokenized_path=t.h5
parts=(demo.yaml dataset_dir=data model_name_or_path=model output_dir=output tokenized_path=p.h5 val_size=4 eval_strategy=epoch)
must "encoding both parts" on 1 qvl_prep "${parts[@]}"
unlabel p.eval.h5
for check in "" --check; do
  refused "no supervised token in the evaluation part $check" 65 "p.eval.h5: none of its 4 samples has a supervised token" $check "${parts[@]}"
done
rm p.h5 p.eval.h5
perl -pi -e 's/"Isolated"/"Isolated" /' model/tokenizer.json
refused "another tokenizer's HDF5" 65 "t.h5: was made from other data, tokenizer or settings" demo.yaml dataset_dir=data model_name_or_path=model output_dir=output tokenized_path=t.h5
cp model/tokenizer.json whole.json
head -c 1000 whole.json > model/tokenizer.json
refused "a torn tokenizer beside an HDF5 file" 65 "model/tokenizer.json" demo.yaml dataset_dir=data model_name_or_path=model output_dir=output tokenized_path=t.h5
rm model/tokenizer.json
refused "no tokenizer beside an HDF5 file" 66 "model/tokenizer.json" demo.yaml dataset_dir=data model_name_or_path=model output_dir=output tokenized_path=t.h5
mv whole.json model/tokenizer.json
