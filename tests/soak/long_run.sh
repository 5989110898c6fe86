#!/usr/bin/env bash
# A long run of a tiny model on two ranks: resident memory and open files of both ranks, sampled on the way,
# must not grow. Checkpoints, log lines and comparisons of ranks are part of it.
#   tests/soak/long_run.sh BIN FIXTURE [STEPS]
set -euo pipefail
bin=$(cd "$1" && pwd); fixture=$(cd "$2" && pwd); steps=${3:-200000}
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMP_NUM_THREADS=1 OMP_WAIT_POLICY=passive
work=$(mktemp -d "${TMPDIR:-/tmp}/qvl_long.XXXXXX")
trap 'rm -rf "$work"' EXIT
cp -r "$fixture" "$work/run"; chmod -R u+w "$work/run"; cd "$work/run"
mpirun --oversubscribe --bind-to none -np "${RANKS:-2}" "$bin/qvl_sft" train.yaml device=cpu max_steps="$steps" logging_steps=$((steps / 200)) \
  save_steps=$((steps / 200)) save_total_limit=2 per_device_train_batch_size=1 gradient_accumulation_steps=1 lora_dropout=0.1 \
  disable_shuffling=false output_dir=out > log 2>&1 &
launcher=$!
echo "# seconds  step  per rank: resident KiB, open files"
while kill -0 $launcher 2> /dev/null; do
  sleep "${EVERY:-10}"
  step=$(grep -o '^step [0-9]*' log | tail -n 1 | cut -d' ' -f2 || true)
  line="$SECONDS ${step:-0}"
  for pid in $(pgrep -P $launcher qvl_sft || true); do
    line="$line  $(awk '/^VmRSS/ { print $2 }' /proc/"$pid"/status 2> /dev/null) $(ls /proc/"$pid"/fd 2> /dev/null | wc -l)"
  done
  echo "$line"
done | tee samples
wait $launcher || { cat log; exit 1; }
# from a tenth of the run on: the largest and the smallest of each column
awk -v steps="$steps" 'NF >= 4 && $2 >= steps / 10 { for (c = 3; c <= NF; c++) { if (!n[c]++ || $c < least[c]) least[c] = $c; if ($c > most[c]) most[c] = $c } columns = NF > columns ? NF : columns }
  END { for (c = 3; c <= columns; c++) { is_files = c % 2 == 0
      printf "rank %d %s: %d to %d in %d samples\n", (c - 3) / 2, is_files ? "open files" : "resident KiB", least[c], most[c], n[c]
      if (n[c] < 3 || most[c] - least[c] > (is_files ? 3 : 2048)) bad = 1 }
    exit bad || !columns }' samples && echo "ok - $steps steps: memory and open files do not grow" ||
  { echo "FAILED: memory or files grow"; exit 1; }
