#!/usr/bin/env bash
# qvl_prep on data sets made here: the same file from any number of ranks, kept, refused or written
# again as the digest says; bad samples are all named and nothing is left behind.
#     test_prep.sh BIN
. "$(dirname "$0")/lib.sh" "$1" "${2:-}" "${3:-}"

# prep CODE ARGS...: qvl_prep on one rank without mpirun ends with this exit code
prep() {
  local code=$1 rc=0; shift
  "$BIN/qvl_prep" "$@" > log 2>&1 || rc=$?
  [ "$rc" = "$code" ] || { cat log >&2; fail "qvl_prep $*: exit code $rc, expected $code"; }
}
# says NAME PATTERN: a line of the log is like this
says() { grep -Eq -- "$2" log || { cat log >&2; fail "$1: no line like '$2'"; }; ok "$1"; }
# equal NAME A B: two HDF5 files have the same contents
equal() { h5diff "$2" "$3" > diff.log 2>&1 || { cat diff.log >&2; fail "$1: $2 and $3 differ"; }; ok "$1"; }
# samples FILE: how many there are
samples() { echo $(($(h5dump -H -d /sample_offsets "$1" | sed -n 's/.*SIMPLE { ( \([0-9]*\) ).*/\1/p') - 1)); }
# things: names of everything here but the logs, sizes and times of files
things() { find . ! -name log ! -name diff.log ! -name . \( -type d -printf '%p\n' -o -printf '%p %s %T@\n' \) | sort; }

mkdir work && cd work
"$BIN/qvl_demo" demo --samples 40 > log || fail "qvl_demo"
cat > base.yaml <<EOF
model_name_or_path: demo/model
dataset_dir: data
template: qwen2_vl
EOF
mkdir data && cp -r demo/data/. data/

# ---- 1, 2 and 3 ranks write the same
sets=(base.yaml dataset=demo_shapes,demo_facts,demo_chat output_dir=out)
for n in 1 2 3; do
  must "$n rank(s): training and evaluation part" on $n qvl_prep "${sets[@]}" val_size=0.2 tokenized_path=r$n.h5
  [ -f r$n.eval.h5 ] || fail "$n ranks: no r$n.eval.h5"
done
prep 0 "${sets[@]}" val_size=0.2 tokenized_path=r0.h5
for n in 0 2 3; do
  equal "training part of 1 rank and $n (0: without mpirun)" r1.h5 r$n.h5
  equal "evaluation part of 1 rank and $n" r1.eval.h5 r$n.eval.h5
done
[ ! -e out ] || fail "output_dir was made, though nothing is written to it"
[ $(($(samples r1.h5) + $(samples r1.eval.h5))) = 195 ] || fail "$(samples r1.h5) + $(samples r1.eval.h5) samples, expected 195"
[ "$(samples r1.eval.h5)" = 39 ] || fail "$(samples r1.eval.h5) samples in the evaluation part, expected 39"
ok "156 + 39 samples"
# more than a block of records, so that every rank has some
for i in $(seq 1 700); do echo "{\"instruction\": \"Number $i?\", \"input\": \"\", \"output\": \"It is $i.\"}"; done > data/long.jsonl
echo '{"long": {"file_name": "long.jsonl"}}' > data/dataset_info.json
for n in 1 3; do must "$n rank(s): 700 records" on $n qvl_prep base.yaml dataset=long output_dir=out tokenized_path=l$n.h5; done
equal "700 records on 1 and 3 ranks" l1.h5 l3.h5
[ "$(samples l1.h5)" = 700 ] || fail "$(samples l1.h5) samples, expected 700"
prep 0 base.yaml dataset=long output_dir=out max_samples=3 tokenized_path=made/for/it/few.h5
[ "$(samples made/for/it/few.h5)" = 3 ] || fail "max_samples: 3 gives $(samples made/for/it/few.h5)"
ok "max_samples, in a directory that had to be made"

# ---- existing files
long=(base.yaml dataset=long output_dir=out tokenized_path=l1.h5)
before=$(things)
prep 0 "${long[@]}" seed=7 max_samples=700 learning_rate=1
says "what does not matter leaves the file" "data: l1.h5 is up to date"
prep 65 "${long[@]}" cutoff_len=64
says "another setting is refused" "^qvl_prep: l1.h5: was made from other data, tokenizer or settings .*overwrite_cache: true"
on 2 qvl_prep "${long[@]}" cutoff_len=64 && fail "2 ranks: another setting is taken"
[ "$(things)" = "$before" ] || fail "a file was written, or something is left behind"
ok "nothing was written meanwhile"
cp l1.h5 kept.h5
prep 0 "${long[@]}" overwrite_cache=true cutoff_len=20
says "overwrite_cache encodes again" "^wrote l1.h5"
! h5diff l1.h5 kept.h5 > diff.log 2>&1 || fail "overwrite_cache left the old content"
cp kept.h5 l1.h5
printf '{"instruction": "One more", "output": "x"}\n' >> data/long.jsonl
prep 65 "${long[@]}"
says "another data file is refused" "^qvl_prep: l1.h5: was made from other data"
head -c 3000 kept.h5 > l1.h5
prep 65 "${long[@]}"
says "a damaged file is refused" "^qvl_prep: l1.h5: not a whole HDF5 file"
prep 0 base.yaml dataset=long output_dir=own
says "the cache in output_dir" "^wrote own/tokenized.h5"
[ "$(ls own)" = tokenized.h5 ] || fail "more than tokenized.h5 in output_dir"
prep 0 base.yaml dataset=long output_dir=own
says "the cache is used" "own/tokenized.h5 is up to date"
prep 0 base.yaml dataset=long output_dir=own cutoff_len=64
says "the own cache is encoded again" "data or settings changed since own/tokenized.h5 was written"
head -c 3000 own/tokenized.h5 > cut && mv cut own/tokenized.h5
prep 0 base.yaml dataset=long output_dir=own cutoff_len=64
[ "$(samples own/tokenized.h5)" = 701 ] || fail "a damaged own cache was not written again"
ok "a damaged own cache is encoded again"
# the evaluation part is looked at, too
prep 0 base.yaml dataset=long output_dir=out val_size=10 tokenized_path=v.h5
cp kept.h5 v.eval.h5
prep 65 base.yaml dataset=long output_dir=out val_size=10 tokenized_path=v.h5
says "another evaluation part is refused" "^qvl_prep: v.eval.h5: was made from other data"
rm v.h5
prep 65 base.yaml dataset=long output_dir=out val_size=10 tokenized_path=v.h5
says "and is not written over when the training part is missing" "^qvl_prep: v.eval.h5: was made"

# ---- bad samples
cat > data/dataset_info.json <<'EOF'
{"good": {"file_name": "good.json"}, "bad": {"file_name": "bad.json", "columns": {"prompt": "q", "response": "a", "images": "images"}},
 "many": {"file_name": "many"}, "none": {"file_name": "none.json"}, "odd": {"file_name": "odd.jsonl"}, "misspelt": {"file_name": "good.json", "columns": {"prompt": "instruction", "query": "inptu", "response": "output"}},
 "prompt": {"file_name": "good.json", "columns": {"prompt": "question", "response": "output"}}, "response": {"file_name": "many", "columns": {"prompt": "instruction", "response": "answer"}},
 "messages": {"file_name": "good.json", "formatting": "sharegpt", "columns": {"messages": "messges"}}, "sparse": {"file_name": "odd.jsonl", "columns": {"prompt": "instruction", "response": "output"}}}
EOF
echo '[{"instruction": "a", "input": "", "output": "b"}, {"instruction": "c", "input": "", "output": "d"}]' > data/good.json
image=$(cd data && ls demo_shapes/*.png | head -n 1)
{
  echo "[{\"q\": \"fine\", \"a\": \"yes\"}"
  for i in $(seq 1 29); do echo ",{\"q\": $i, \"a\": \"bad $i\"}"; done
  echo ",{\"q\": \"<image>\", \"a\": \"bad 30\"}"
  echo ",{\"q\": \"<image>\", \"a\": \"bad 31\", \"images\": [\"nowhere.png\"]}"
  echo ",{\"q\": \"<image>\", \"a\": \"bad 32\", \"images\": [\"cut.png\"]}"
  echo ",{\"q\": \"<image>\", \"a\": \"good\", \"images\": [\"$image\"]}"
  echo ",{\"q\": \"<|video_pad|>\", \"a\": \"bad 34\"}"
  echo ",{\"q\": \"\", \"a\": \"bad\" 35}]"
} > data/bad.json
head -c $(($(wc -c < "data/$image") - 40)) "data/$image" > data/cut.png
rm -rf out
# refused NAME CODE PATTERN ARGS...: on 1 and 2 ranks, and nothing changes
refused() {
  local name=$1 code=$2 pattern=$3 n rc before; shift 3
  for n in 1 2; do
    before=$(things); rc=0
    if [ $n = 1 ]; then "$BIN/qvl_prep" "$@" > log 2>&1 || rc=$?; else on $n qvl_prep "$@" || rc=$?; cp "$WORK/log" log; fi
    [ "$rc" = "$code" ] || { cat log >&2; fail "$name on $n ranks: exit code $rc, expected $code"; }
    [ "$(grep -c '^qvl_prep: ' log)" = 1 ] || { cat log >&2; fail "$name on $n ranks: not one error line"; }
    grep -Eq "^qvl_prep: $pattern" log || { cat log >&2; fail "$name on $n ranks: the line is not like '$pattern'"; }
    [ "$(things)" = "$before" ] || { diff <(echo "$before") <(things) >&2; fail "$name on $n ranks: something is left behind"; }
    cp log "$WORK/log.$n"
  done
  ok "$name"
}
for where in output_dir=out/deep/er "output_dir=out tokenized_path=new/dir/t.h5" "output_dir=out tokenized_path=t.h5"; do
  refused "34 bad samples ($where)" 65 'data/bad.json: sample 1: "q" is not a text \(and 33 more bad samples\)$' base.yaml dataset=good,bad $where
  for n in 1 2; do
    for i in $(seq 1 32) 34 35; do grep -Eq "^  data/bad.json: sample $i: " "$WORK/log.$n" || { cat "$WORK/log.$n" >&2; fail "sample $i is not listed on $n ranks"; }; done
    [ "$(grep -c '^  data/bad.json: sample ' "$WORK/log.$n")" = 34 ] || fail "others are listed too"
  done
done
grep -q '^  data/bad.json: sample 30: 0 images, but 1 <image> in its messages' "$WORK/log.1" || fail "sample 30"
grep -q '^  data/bad.json: sample 31: data/nowhere.png: No such file' "$WORK/log.1" || fail "sample 31"
grep -q '^  data/bad.json: sample 32: data/cut.png: ' "$WORK/log.1" || fail "sample 32"
grep -q '^  data/bad.json: sample 34: its text holds <|video_pad|>; only images are supported' "$WORK/log.1" || fail "sample 34"
grep -q '^  data/bad.json: sample 35: data/bad.json:36: ' "$WORK/log.1" || fail "sample 35"
ok "each is listed with file, number and reason"
mkdir out && echo x > out/other
refused "bad samples, output_dir was there" 65 'data/bad.json: sample 1: ' base.yaml dataset=bad output_dir=out
rm -r out
refused "bad samples in the evaluation part only" 65 'data/bad.json: sample 1: .*\(and 33 more' base.yaml dataset=good eval_dataset=bad output_dir=out
refused "bad samples in both parts" 65 'data/bad.json: sample 1: .*\(and 67 more' base.yaml dataset=bad eval_dataset=bad output_dir=out
cp kept.h5 t.h5
refused "bad samples leave an old file alone" 65 'data/bad.json: sample 1: ' base.yaml dataset=bad output_dir=out tokenized_path=t.h5 overwrite_cache=true
rm t.h5
mkdir data/many && cp data/good.json data/many/a.json && printf '{"instruction": "a", "output": "b"}\n{"instruction": [], "input": 3, "output": "b"}\n' > data/many/b.jsonl
refused "the second file of a directory" 65 'data/many/b.jsonl: sample 1: "input" is not a text$' base.yaml dataset=good,many output_dir=out
printf '{"instruction": "a", "output": "b"}\n' > data/many/b.jsonl
prep 0 base.yaml dataset=good,many output_dir=out tokenized_path=m.h5
h5dump -d /source m.h5 | grep -q '(4,0): 2, 0' || fail "/source does not number the files"
h5dump -a /sources m.h5 | tr -d '\n' | grep -q 'data/good.json.*data/many/a.json.*data/many/b.jsonl' || fail "/sources does not name the files"
ok "/source and /sources name the file of each sample"

# ---- no samples, missing things, odd JSON
echo '[]' > data/none.json
refused "no records" 65 'no samples are left of the training data, none \(0 records, 0 dropped, 0 bad\); the data files hold no records$' base.yaml dataset=none output_dir=out
echo '[{"instruction": "a"}, {"instruction": "b", "output": 3}]' > data/none.json
refused "all dropped" 65 'no samples are left of the training data, none \(2 records, 2 dropped, 0 bad\); 2 of the dropped: has no answer$' base.yaml dataset=none output_dir=out
refused "all of the evaluation part dropped" 65 'no samples are left of the evaluation data, none \(2 records, 2 dropped, 0 bad\); 2 of the dropped: has no answer$' base.yaml dataset=good eval_dataset=none output_dir=out
refused "no data set" 78 'dataset: is missing; there is nothing to encode' base.yaml output_dir=out
refused "unknown data set" 66 "data/dataset_info.json: no data set 'god'; did you mean 'good'" base.yaml dataset=god output_dir=out
refused "val_size takes all" 78 'val_size: 2 of 2 samples are kept apart' base.yaml dataset=good output_dir=out val_size=2
refused "a place that cannot be written to" 74 'create directory /proc/nowhere' base.yaml dataset=good output_dir=/proc/nowhere/x
odd() { printf "%b" "$1" > data/odd.jsonl; }
odd '{"instruction": "a", "output": "b"}\n\n{"instruction": "caf\xe9", "output": "b"}\n'
refused "invalid UTF-8" 65 'data/odd.jsonl: sample 1: data/odd.jsonl:3: unable to decode byte 0xe9' base.yaml dataset=odd output_dir=out
odd '{"instruction": "a", "output": "b"}\n{"instruction": "\\ud800", "output": "b"}\n'
refused "a lone surrogate" 65 'data/odd.jsonl: sample 1: data/odd.jsonl:2: invalid Unicode' base.yaml dataset=odd output_dir=out
odd '{"instruction": "a", "output": "b"\n'
refused "a record without an end" 65 'data/odd.jsonl:1: the record that begins here does not end' base.yaml dataset=odd output_dir=out
odd '{"instruction": "a", "output": "b"}\n{"instruction": "a", "out\nnothing\n{"instruction": "c", "output": "d"}\n{"instruction": "e"'
refused "torn lines" 65 'data/odd.jsonl: sample 1: data/odd.jsonl:2: .*\(and 2 more bad samples\)$' base.yaml dataset=odd output_dir=out
grep -q '^  data/odd.jsonl: sample 4: data/odd.jsonl:5: ' "$WORK/log.1" || fail "the last line of a file that was cut"
prep 0 base.yaml dataset=odd output_dir=out tokenized_path=o.h5 on_bad_sample=skip
says "torn lines are left out" '^bad samples left out \(on_bad_sample: skip\): 3$'
rm o.h5
odd ''
refused "an empty file" 65 'data/odd.jsonl: is empty' base.yaml dataset=odd output_dir=out
odd '\xef\xbb\xbf{"instruction": "x\\u0000y", "output": "b", "id": 123456789012345678901234567890}\r\n'
prep 0 base.yaml dataset=odd output_dir=out tokenized_path=o.h5
[ "$(samples o.h5)" = 1 ] || fail "a BOM, a NUL and a long number: $(samples o.h5) samples"
ok "a BOM, a NUL and a long number are no faults"
prep 0 base.yaml dataset=misspelt output_dir=out tokenized_path=w.h5
says "a column that no record has is reported" 'none of them has "inptu" \(columns.query\)'
members='the first has "instruction", "input", "output"$'
refused "a prompt column that no record has" 65 "data/good.json: columns.prompt of data set 'prompt' in dataset_info.json is \"question\", which none of its 2 records has; $members" base.yaml dataset=good,prompt output_dir=out
refused "a response column that no record has" 65 "data/many/a.json: columns.response of data set 'response' in dataset_info.json is \"answer\", which none of its 3 records has; $members" base.yaml dataset=response output_dir=out
refused "a messages column that no record has" 65 "data/good.json: columns.messages of data set 'messages' in dataset_info.json is \"messges\", which none of its 2 records has; $members" base.yaml dataset=messages output_dir=out on_bad_sample=skip
refused "such a column in the evaluation data" 65 "data/good.json: columns.prompt of data set 'prompt'" base.yaml dataset=good eval_dataset=prompt output_dir=out
odd '{"output": "a"}\n{"output": "b"}\n{"instruction": "c", "output": "d"}\n'
prep 0 base.yaml dataset=sparse output_dir=out tokenized_path=sp.h5 val_size=2
says "a prompt column of the records of one part only is no fault" "^wrote sp.h5"
odd '{"instruction": "a", "out\n{"instru\n'
refused "torn records say more than their columns" 65 'data/odd.jsonl: ' base.yaml dataset=sparse output_dir=out
odd '{"instruction": 1, "output": "b"}\n{"instruction": "a"}\n{"instruction": 2, "output": "b"}\n'
refused "none left, most bad" 65 'no samples are left of the training data, sparse \(3 records, 1 dropped, 2 bad\); the first of the bad: data/odd.jsonl: sample 0: "instruction" is not a text$' base.yaml dataset=sparse output_dir=out on_bad_sample=skip

# ---- a file without a data set: what of the configuration has no effect on it
printf 'model_name_or_path: demo/model\noutput_dir: check\ntokenized_path: sp.h5\ndo_train: true\n' > taken.yaml
# warned NAME N ARGS...: qvl_sft --check says N lines of warning that a file is taken as it is
warned() {
  local name=$1 n=$2; shift 2
  "$BIN/qvl_sft" --check taken.yaml "$@" > log 2>&1 || { cat log >&2; fail "$name: exit code $?"; }
  [ "$(grep -c 'warning: .* is taken as it is' log)" = "$n" ] || { cat log >&2; fail "$name: not $n warnings"; }
  ok "$name"
}
unused='^qvl_sft: warning: sp.h5 is taken as it is, no dataset is given: without effect:'
warned "no keys of the encoding" 0
warned "keys that say what holds anyway" 0 template=qwen2_vl max_samples=null train_on_prompt=false on_bad_sample=error
warned "keys without effect" 1 max_samples=7 cutoff_len=2048 dataset_dir=data mask_history=true on_bad_sample=skip
says "they are named" "$unused max_samples, cutoff_len, dataset_dir, mask_history, on_bad_sample\$"
h5repack sp.h5 other.h5
LC_ALL=C perl -0777 -pi -e 's/qwen2_vl/llama3\0\0/ or die' other.h5
warned "the file of another template" 1 tokenized_path=other.h5 template=qwen2_vl
says "both templates are named" '^qvl_sft: warning: other.h5 is taken as it is: it was made with template llama3, the configuration says template qwen2_vl$'
warned "the file of another template, none given" 0 tokenized_path=other.h5

# ---- configuration from elsewhere
"$BIN/qvl_prep" - dataset=good output_dir=out tokenized_path=s.h5 < base.yaml > log 2>&1 || { cat log >&2; fail "configuration from standard input"; }
printf '{"model_name_or_path":"demo/model",\n\t"dataset_dir": "data", "template": "qwen2_vl", "dataset": ["good"], "output_dir": "out", "tokenized_path": "j.h5"}' > c.json
prep 0 c.json
equal "configuration from standard input and as JSON" s.h5 j.h5
