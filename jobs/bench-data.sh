#!/usr/bin/env bash
# Times the data parts beside their peers, in one run and taking turns: the tokenizer beside the Rust
# `tokenizers` package, images beside PIL, and qvl_prep as a whole.
#   PYTHON=python3 jobs/bench-data.sh TOKENIZER_JSON DATA_DIR
# DATA_DIR holds alpaca_en_demo.json and mllm_demo_data/*.jpg of LLaMA-Factory. PYTHON has tokenizers and
# pillow. Prints Markdown rows for docs/BENCHMARKS.md: median of ROUNDS (5) rounds, one thread each.
set -euo pipefail
tokenizer=$(realpath "$1"); data=$(realpath "$2")
cd "$(dirname "$0")/.."
tests=build/release/tests; bin=build/release/bin; python=${PYTHON:-python3}; rounds=${ROUNDS:-5}
[ "$(id -u)" -ne 0 ] || export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT

cat > "$work/peer.py" <<'PY'
import json, os, sys, time
os.environ["TOKENIZERS_PARALLELISM"] = "false"
kind = sys.argv[1]
if kind == "text":
    from tokenizers import Tokenizer
    tok = Tokenizer.from_file(sys.argv[2])
    texts = [v for r in json.load(open(sys.argv[3])) for v in r.values() if isinstance(v, str)] * 20
    size = sum(len(t.encode()) for t in texts)
    tok.encode_batch(texts[:1000], add_special_tokens=False)
    t = time.perf_counter(); tok.encode_batch(texts, add_special_tokens=False); dt = time.perf_counter() - t
    print(f"{size / dt / 1e6:.2f}")
else:
    from PIL import Image
    import math
    def smart(h, w):
        return max(28, round(h / 28) * 28), max(28, round(w / 28) * 28)
    files, repeats = sys.argv[3:], int(sys.argv[2])
    times = []
    for _ in range(repeats):
        t = time.perf_counter()
        for f in files:
            im = Image.open(f)
            if kind == "decode": im.load(); continue
            if im.width * im.height > 589824:
                s = math.sqrt(589824 / (im.width * im.height)); im = im.resize((int(im.width * s), int(im.height * s)))
            im = im.convert("RGB"); h, w = smart(im.height, im.width)
            im.resize((w, h), Image.BICUBIC).tobytes()
        times.append(time.perf_counter() - t)
    print(f"{len(files) / sorted(times)[repeats // 2]:.1f}")
PY

median() { sort -n "$1" | awk '{ x[NR] = $1 } END { print x[int((NR + 1) / 2)] }'; }
export RAYON_NUM_THREADS=1 OMP_NUM_THREADS=1
for i in $(seq "$rounds"); do
  "$tests/bench_tokenizer" "$tokenizer" "$data/alpaca_en_demo.json" 20 | grep -o 'MB/s [0-9.]*' | cut -d' ' -f2 >> "$work/text.qvl"
  "$python" "$work/peer.py" text "$tokenizer" "$data/alpaca_en_demo.json" >> "$work/text.peer"
  "$tests/bench_image" 50 "$data"/mllm_demo_data/*.jpg > "$work/image"
  grep decode "$work/image" | cut -d' ' -f2 >> "$work/decode.qvl"; grep pipeline "$work/image" | cut -d' ' -f2 >> "$work/pipeline.qvl"
  "$python" "$work/peer.py" decode 50 "$data"/mllm_demo_data/*.jpg >> "$work/decode.peer"
  "$python" "$work/peer.py" pipeline 50 "$data"/mllm_demo_data/*.jpg >> "$work/pipeline.peer"
done

# qvl_prep on the alpaca records, fifty times over
mkdir "$work/model" "$work/data"; cp "$tokenizer" "$work/model/tokenizer.json"
"$bin/qvl_demo" "$work/sparse" --size 7b --sparse > /dev/null; cp "$work/sparse/model/config.json" "$work/model/"
"$python" - "$data/alpaca_en_demo.json" "$work/data" <<'PY'
import json, sys
rows = json.load(open(sys.argv[1])) * 50
with open(sys.argv[2] + "/d.jsonl", "w") as f:
    for r in rows: f.write(json.dumps(r, ensure_ascii=False) + "\n")
json.dump({"d": {"file_name": "d.jsonl"}}, open(sys.argv[2] + "/dataset_info.json", "w"))
PY
unset OMP_NUM_THREADS
prep() { mpirun --oversubscribe --bind-to none -np "$1" "$bin/qvl_prep" - overwrite_cache=true <<YAML
model_name_or_path: $work/model
template: qwen2_vl
dataset: d
dataset_dir: $work/data
output_dir: $work/out
YAML
}
for ranks in 1 2; do for i in $(seq 3); do prep $ranks | grep -o '([0-9]* a second)' | tr -dc '0-9\n' >> "$work/prep.$ranks"; done; done

echo "| | qvl | peer | |"; echo "|---|---|---|---|"
echo "| tokenizer, alpaca_en_demo x 20 | $(median "$work/text.qvl") MB/s | $(median "$work/text.peer") MB/s | \`tokenizers\` $("$python" -c 'import tokenizers; print(tokenizers.__version__)'), encode_batch |"
echo "| JPEG decoding, mllm_demo | $(median "$work/decode.qvl") images/s | $(median "$work/decode.peer") images/s | PIL $("$python" -c 'import PIL; print(PIL.__version__)') |"
echo "| decoding and resizing, mllm_demo | $(median "$work/pipeline.qvl") images/s | $(median "$work/pipeline.peer") images/s | PIL |"
for ranks in 1 2; do echo "| qvl_prep, $ranks rank(s), all cores, $(wc -l < "$work/data/d.jsonl") samples, $(du -m "$work/data/d.jsonl" | cut -f1) MB | $(median "$work/prep.$ranks") samples/s | | |"; done
