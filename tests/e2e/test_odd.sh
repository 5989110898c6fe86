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

# Output that is all there is to have is not lost without a word; that of a run is.
# lost NAME full|closed COMMAND...
lost() {
  local name="$1, standard output $2" where=$2 code=0; shift 2
  if [ $where = full ]; then timeout 60 "$@" > /dev/full 2> "$WORK/log" || code=$?
  else timeout 60 "$@" >&- 2> "$WORK/log" || code=$?; fi
  [ $code = 74 ] || { cat "$WORK/log" >&2; fail "$name: exit code $code, expected 74"; }
  [ "$(grep -c 'standard output could not be written' "$WORK/log")" = 1 ] || { cat "$WORK/log" >&2; fail "$name: not one line"; }
  ok "$name: what is lost is told"
}
for word in --help --version --help-markdown "--check ${run[*]}"; do
  for where in full closed; do lost "qvl_sft ${word%% *}" $where "$BIN/qvl_sft" $word; done
done
lost "qvl_bench --json" full "$BIN/qvl_bench" --json "${run[@]}" output_dir=benched
lost "qvl_demo --help" full "$BIN/qvl_demo" --help
lost "qvl_demo" full "$BIN/qvl_demo" lost
must "a run on a full disk's standard output" bash -c '"$@" > /dev/full 2> ../log' - "$BIN/qvl_sft" "${run[@]}" output_dir=fullout
must "a run with all standard files closed" bash -c '"$@" <&- >&- 2>&-' - "$BIN/qvl_sft" "${run[@]}" output_dir=nofiles
same "all standard files closed" plain/adapter_model.safetensors nofiles/adapter_model.safetensors
same "and nothing was written into its files" plain/config.yaml <(sed s/nofiles/plain/ nofiles/config.yaml)
code=0; timeout 20 "$BIN/qvl_sft" - <&- > "$WORK/log" 2>&1 || code=$?
[ $code = 74 ] && grep -q 'standard input: Bad file descriptor' "$WORK/log" || { cat "$WORK/log" >&2; fail "standard input closed: exit code $code"; }
ok "a configuration from standard input that is closed"

# A configuration that never comes: one signal ends the wait.
mkfifo pipe.yaml; mkfifo held; sleep 1000 > held & writer=$!
for given in pipe.yaml -; do
  for signal in TERM INT; do
    python3 -c 'import os, signal, sys; signal.signal(signal.SIGINT, signal.SIG_DFL); os.execv(sys.argv[1], sys.argv[1:])' \
      "$BIN/qvl_sft" $given < held > "$WORK/log" 2>&1 & waiting=$!
    sleep 1.5; kill -$signal $waiting
    code=0; wait $waiting || code=$?
    [ $code = 75 ] && grep -q "SIG$signal) while waiting for" "$WORK/log" || { cat "$WORK/log" >&2; fail "SIG$signal while waiting for $given: exit code $code"; }
  done
done
kill $writer; rm held
ok "a configuration that never comes: one signal ends the wait"
(sleep 1; cat train.yaml > pipe.yaml) &
must "a configuration from a named pipe" timeout 60 bash -c '"$@" > ../log 2>&1' - "$BIN/qvl_sft" pipe.yaml --check device=cpu
must "a configuration from a process" timeout 60 bash -c '"$0" <(cat train.yaml) --check device=cpu > ../log 2>&1' "$BIN/qvl_sft"
rm pipe.yaml

# A limit of file sizes is an error, not an end without a word. Open MPI's own files would not fit either.
small() {
  local name=$1 kib=$2 code=0; shift 2
  find . | sort > ../before
  (ulimit -f "$kib"; export OMPI_MCA_ess_singleton_isolated=1 PMIX_MCA_gds=hash; timeout 120 "$@" 2>&1) | cat > "$WORK/log" || code=$?
  [ $code = 74 ] || { cat "$WORK/log" >&2; fail "$name: exit code $code, expected 74"; }
  tail -n 1 "$WORK/log" | grep -q 'File too large$' || { cat "$WORK/log" >&2; fail "$name: the last line is not the reason"; }
  ! find . | grep '\.tmp' || fail "$name: something half-written stays"
  ok "$name: $(tail -n 1 "$WORK/log")"
}
small "qvl_sft at a limit of file sizes" 8 "$BIN/qvl_sft" "${run[@]}" output_dir=small
small "and where nothing fits" 1 "$BIN/qvl_sft" "${run[@]}" output_dir=small/none
[ ! -e small/none ] || fail "output_dir stays"
small "qvl_demo at a limit of file sizes" 20 "$BIN/qvl_demo" small/demo
"$BIN/qvl_demo" small/pictures > "$WORK/log" || fail "qvl_demo"
small "qvl_prep at a limit of file sizes" 6 "$BIN/qvl_prep" small/pictures/demo.yaml
[ ! -e small/pictures/tokenized.h5 ] || fail "tokenized.h5 stays"

# A pipe in a file's place is not waited for, also not in what a run left.
must "a run to go on with" on 1 qvl_sft "${run[@]}" save_steps=3 output_dir=piped
rm piped/trainer_log.jsonl piped/trainer_state.json piped/all_results.json; rm -r piped/checkpoint-6; mkfifo piped/trainer_log.jsonl
code=0; timeout 60 "$BIN/qvl_sft" "${run[@]}" save_steps=3 output_dir=piped > "$WORK/log" 2>&1 || code=$?
[[ $code = 66 || $code = 78 ]] && grep -Eq '^qvl_sft: .*trainer_log.jsonl.* no(t a)? regular file' "$WORK/log" || { cat "$WORK/log" >&2; fail "a pipe for trainer_log.jsonl: exit code $code"; }
ok "a pipe for trainer_log.jsonl"

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
