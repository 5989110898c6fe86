#!/usr/bin/env bash
# 100,000 samples of which 1 % are broken in ten ways: all of them are listed with file and number
# before the first step, with less than 200 MB of memory a rank, and 1 and 2 ranks decide the same,
# whether the run is to stop or to leave them out.
. "$(dirname "$0")/lib.sh" "$@"

LIMIT_KB=200000
"$BIN/qvl_demo" demo --samples 20 > log || fail "qvl_demo"
mkdir data && cp demo/data/demo_shapes/*.png data/
(cd data && i=0 && for png in *.png; do mv "$png" "good$i.png"; i=$((i + 1)); done)
[ -f data/good9.png ] || fail "fewer than 10 images"
size=$(wc -c < data/good0.png)
for i in 0 1 2 3 4; do head -c $((size - 40 - i)) data/good0.png > data/cut$i.png; done
printf 'GIF89a\1\0\1\0\0\0\0;' > data/animation.png
# a PNG header of 60000 x 60000 pixels; its checksum is right
perl -e 'my $c = "IHDR" . pack("NNCCCCC", 60000, 60000, 8, 2, 0, 0, 0);
  my $r = 0xffffffff; for my $b (unpack "C*", $c) { $r ^= $b; for (1 .. 8) { $r = $r & 1 ? ($r >> 1) ^ 0xedb88320 : $r >> 1 } }
  print "\x89PNG\r\n\x1a\n", pack("N", 13), $c, pack("N", $r ^ 0xffffffff), pack("N", 100000), "IDAT"' > data/bomb.png
cat > data/dataset_info.json <<'EOF'
{"many": {"file_name": "many.json", "formatting": "sharegpt", "columns": {"messages": "messages", "images": "images"},
 "tags": {"role_tag": "role", "content_tag": "content", "user_tag": "user", "assistant_tag": "assistant"}}}
EOF
# Records 37, 137, ... are bad, in the ten ways in turn. Of the good ones every tenth has an image.
LC_ALL=C awk 'function talk(role, text, answer, more) {
    return "{\"messages\": [{\"role\": \"" role "\", \"content\": \"" text "\"}, {\"role\": \"assistant\", \"content\": \"" answer "\"}]" more "}" }
  function image(name) { return ", \"images\": [\"" name "\"]" }
  BEGIN {
    print "["
    for (i = 0; i < 100000; i++) {
      kind = i % 100 == 37 ? int(i / 100) % 10 : -1
      if (kind == 0) r = talk("assistant", "a", "b", "")
      else if (kind == 1) r = "{\"messages\": [{\"role\": \"user\"}, {\"role\": \"assistant\", \"content\": \"b\"}]}"
      else if (kind == 2) r = talk("user", "<image><image> what?", "b", image("good1.png"))
      else if (kind == 3) r = talk("user", "<image> what?", "b", image("missing" i ".png"))
      else if (kind == 4) r = talk("user", "<image> what?", "b", image("cut" int(i / 1000) % 5 ".png"))
      else if (kind == 5) r = talk("user", "<image> what?", "b", image("animation.png"))
      else if (kind == 6) r = talk("user", "<image> what?", "b", image("bomb.png"))
      else if (kind == 7) r = "{\"messages\": [] \"images\": []}"
      else if (kind == 8) r = talk("user", "caf\351", "b", "")
      else if (kind == 9) r = "{\"messages\": {\"role\": \"user\"}}"
      else if (i % 10 == 0) r = talk("user", "<image> Picture " i "?", "It is " i ".", image("good" int(i / 10) % 10 ".png"))
      else r = talk("user", "Number " i "?", "It is " i ".", "")
      print r (i < 99999 ? "," : "")
    }
    print "]" }' > data/many.json
cat > many.yaml <<'EOF'
model_name_or_path: demo/model
dataset: many
dataset_dir: data
template: qwen2_vl
do_train: true
output_dir: out
image_max_pixels: 16384
cutoff_len: 512
EOF

# peak.sh FILE COMMAND...: runs it and writes the most memory of its own that it had, in kB, to FILE.RANK. Pages of
# libraries are not counted: CUDA's alone are more than the limit, and nobody's copy.
cat > peak.sh <<'EOF'
file=$1.${OMPI_COMM_WORLD_RANK:-0}; shift
"$@" & pid=$!
most=0
while now=$(awk '/^Rss(Anon|Shmem):/ { sum += $2 } END { if (NR) print sum + 0 }' /proc/$pid/status 2> /dev/null) && [ -n "$now" ]; do
  [ "$now" -le $most ] || { most=$now; echo $most > "$file"; }
  sleep 0.02
done
wait $pid
EOF
# run NAME RANKS CODE PROGRAM ARGS...: ends with this exit code; each rank stays below the limit
run() {
  local name=$1 ranks=$2 code=$3 program=$4 rc=0 peak; shift 4
  rm -f peak.*[0-9]
  mpirun --oversubscribe --bind-to none -np "$ranks" bash peak.sh peak "$BIN/$program" "$@" > log.out 2> log.err || rc=$?
  cat log.out log.err > log # apart till here: mpirun puts pieces of one between pieces of the other
  [ "$rc" = "$code" ] || { tail -n 30 log >&2; fail "$name on $ranks ranks: exit code $rc, expected $code"; }
  for peak in peak.*[0-9]; do
    [ "$(cat "$peak")" -lt $LIMIT_KB ] || fail "$name: rank ${peak##*.} of $ranks had $(cat "$peak") kB, the limit is $LIMIT_KB kB"
  done
  ok "$name on $ranks ranks: exit code $rc, at most $(cat peak.*[0-9] | sort -n | tail -n 1) kB a rank"
}

# what each kind is called
reasons=("roles in the wrong order" 'message 0: "content" is missing' "1 images, but 2 <image>" "No such file" "cut[0-4].png: " \
  "is a GIF image" "60000 x 60000" "data/many.json:[0-9]+: '}' expected" "unable to decode byte 0xe9" '"messages" is not a list')
# listed NAME: the log lists exactly the records that are bad, each with its reason
listed() {
  local kind n
  grep -E '^  data/many.json: sample [0-9]+: ' log > lines || true
  sed -E 's/^  data\/many.json: sample ([0-9]+): .*/\1/' lines | sort -n > found
  awk 'BEGIN { for (i = 37; i < 100000; i += 100) print i }' > expected
  cmp -s found expected || { diff found expected | head >&2; fail "$1: $(wc -l < found) samples are listed, expected those 1000"; }
  for kind in 0 1 2 3 4 5 6 7 8 9; do
    n=$(awk -v kind=$kind '{ sub(":", "", $3); if (int($3 / 100) % 10 == kind) print }' lines | grep -Ec -- "${reasons[$kind]}" || true)
    [ "$n" = 100 ] || { awk -v kind=$kind '{ sub(":", "", $3); if (int($3 / 100) % 10 == kind) print }' lines | head -n 3 >&2
      fail "$1: $n of 100 samples of kind $kind say '${reasons[$kind]}'"; }
  done
  ok "$1: all 1000 are listed with file, number and reason"
}

for n in 1 2; do
  run "error" $n 65 qvl_sft many.yaml
  listed "error on $n ranks"
  [ "$(grep -c '^qvl_sft: ' log)" = 1 ] || fail "not one error line"
  grep -q '^qvl_sft: data/many.json: sample 37: roles in the wrong order.*(and 999 more bad samples)' log || { tail -n 3 log >&2; fail "the error line"; }
  [ ! -e out ] || fail "output_dir was made"
  cp lines "lines.$n"
done
same "1 and 2 ranks say the same" lines.1 lines.2

for n in 1 2; do
  run "skip" $n 0 qvl_prep many.yaml on_bad_sample=skip tokenized_path=skip$n.h5
  listed "skip on $n ranks"
  grep -q '^bad samples left out (on_bad_sample: skip): 1000$' log || fail "how many are left out"
done
samples=$(($(h5dump -H -d /sample_offsets skip1.h5 | sed -n 's/.*SIMPLE { ( \([0-9]*\) ).*/\1/p') - 1))
[ "$samples" = 99000 ] || fail "$samples samples are in the file, expected 99000"
images=$(h5dump -H -d /images/grid_thw skip1.h5 | sed -n 's/.*SIMPLE { ( \([0-9]*\), 3 ).*/\1/p')
[ "$images" = 10 ] || fail "$images images are in the file, expected 10"
h5diff skip1.h5 skip2.h5 > log 2>&1 || { head log >&2; fail "the files of 1 and 2 ranks differ"; }
ok "1 and 2 ranks write the same 99000 samples and 10 images"
