#!/usr/bin/env bash
# Odd surroundings: standard output that is closed, odd paths, few files, another run in the same directory.
. "$(dirname "$0")/lib.sh" "$@"
export OMP_NUM_THREADS=1
fixture tiny
run=(train.yaml device=cpu max_steps=6)
must "a run" on 1 qvl_sft "${run[@]}" output_dir=plain
"$BIN/qvl_sft" "${run[@]}" output_dir=closed >&- 2> "$WORK/log" || fail "standard output closed: exit code $?"
same "standard output closed" plain/adapter_model.safetensors closed/adapter_model.safetensors
{ "$BIN/qvl_sft" "${run[@]}" output_dir=pipe 2> "$WORK/log"; echo $? > code; } | true
[ "$(cat code)" = 0 ] || fail "a reader that is gone: exit code $(cat code)"
same "a reader of standard output that is gone" plain/adapter_model.safetensors pipe/adapter_model.safetensors
long=$(printf 'x%.0s' $(seq 255))
for name in 'with space' 'Übung-学' 'trailing/' "$long" './deep/er/out'; do
  must "output_dir '${name:0:20}'" on 2 qvl_sft "${run[@]}" gradient_accumulation_steps=2 output_dir="$name"
  [ -s "$name/adapter_model.safetensors" ] || fail "no adapter in $name"
done
ln -s "$PWD/plain" link
must "output_dir that is a link" on 1 qvl_sft "${run[@]}" output_dir=link
(ulimit -n 64; "$BIN/qvl_sft" "${run[@]}" output_dir=few > "$WORK/log" 2>&1) || { cat "$WORK/log" >&2; fail "64 open files: exit code $?"; }
same "64 open files" plain/adapter_model.safetensors few/adapter_model.safetensors
# an address space that is limited: what does not fit is refused, and OpenBLAS does not ask for ever
limits=''; (ulimit -v 400000; "$BIN/qvl_sft" --version > "$WORK/log" 2>&1) && limits='400000 700000 1000000 1100000 1400000' # none with sanitizers
for limit in $limits; do
  for ranks in 1 2; do
    code=0; (ulimit -v $limit; OMP_NUM_THREADS=2 timeout 60 mpirun --oversubscribe --bind-to none -np $ranks "$BIN/qvl_sft" "${run[@]}" output_dir=narrow > "$WORK/log" 2>&1) || code=$?
    [ $code = 0 ] || [ $code = 69 ] || { cat "$WORK/log" >&2; fail "ulimit -v $limit, $ranks ranks: exit code $code"; }
    [ $code = 0 ] || grep -q '^qvl_sft: .*ulimit -v ' "$WORK/log" || { cat "$WORK/log" >&2; fail "ulimit -v $limit, $ranks ranks: it is not named"; }
    ok "ulimit -v $limit, $ranks ranks: exit code $code"
  done
done
[ -z "$limits" ] || [ $code = 0 ] || fail "ulimit -v $limit: the run would fit"
LC_ALL=de_DE.UTF-8 TZ=Asia/Kathmandu "$BIN/qvl_sft" "${run[@]}" output_dir=locale > "$WORK/log" 2>&1 || fail "another locale"
same "another locale and time zone" plain/adapter_model.safetensors locale/adapter_model.safetensors

"$BIN/qvl_sft" "${run[@]}" max_steps=100000 output_dir=shared > first.log 2>&1 & first=$!
for _ in $(seq 300); do grep -q '^step 2/' first.log && break; sleep 0.1; done
code=0; on 1 qvl_sft "${run[@]}" output_dir=shared || code=$?
[ $code = 74 ] || { cat "$WORK/log" >&2; fail "two runs in one directory: exit code $code, expected 74"; }
grep -q "output_dir shared is in use by another run (process $first)" "$WORK/log" || { cat "$WORK/log" >&2; fail "no word of it"; }
kill -9 $first; wait $first || true
must "and when the other one is gone" on 1 qvl_sft "${run[@]}" output_dir=shared

# Other data in the same directory: refused before the file that the first run reads is replaced.
"$BIN/qvl_demo" demo > "$WORK/log" || fail "qvl_demo"
data=(demo/demo.yaml tokenized_path= device=cpu logging_steps=1 output_dir=encoded)
"$BIN/qvl_sft" "${data[@]}" > first.log 2>&1 & first=$!
for _ in $(seq 300); do grep -q '^step 2/' first.log && break; sleep 0.1; done
[ -s encoded/tokenized.h5 ] || { cat first.log >&2; fail "the first run has not come to step 2"; }
before=$(cksum < encoded/tokenized.h5)
code=0; on 1 qvl_sft "${data[@]}" cutoff_len=64 || code=$?
[ $code = 74 ] || { cat "$WORK/log" >&2; fail "a second run with other data: exit code $code, expected 74"; }
grep -q "output_dir encoded is in use by another run" "$WORK/log" || { cat "$WORK/log" >&2; fail "no word of it"; }
[ "$(cksum < encoded/tokenized.h5)" = "$before" ] || fail "a second run with other data: tokenized.h5 was replaced"
kill -9 $first; wait $first || true
ok "a second run with other data is refused before it writes"
code=0; on 1 qvl_sft "${data[@]}" dataset=nosuch output_dir=made/for/nothing || code=$?
[ $code != 0 ] && [ ! -e made ] || fail "data that are not there: exit code $code, and output_dir stays"
ok "an output_dir that was made for nothing goes"
