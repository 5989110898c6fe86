#!/usr/bin/env python3
"""32 samples that fill cutoff_len TOKENS, some with an image of 1003520 pixels (1120 x 896).

    make_long_data.py OUT_DIR [TOKENS]      (default 2048)
"""
import json, os, random, struct, sys, zlib


def png(path, width, height):
    rows = b"".join(b"\0" + bytes((x * y >> 6) & 255 for x in range(width) for _ in range(3)) for y in range(height))
    chunk = lambda kind, data: struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    with open(path, "wb") as f:
        f.write(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
                + chunk(b"IDAT", zlib.compress(rows, 1)) + chunk(b"IEND", b""))


def main(out, tokens=2048):
    os.makedirs(out, exist_ok=True)
    png(f"{out}/large.png", 1120, 896)
    draw = random.Random(1)
    words = "the of a model image light water stone river morning number table circle green over under between answer question".split()
    text = lambda n: " ".join(draw.choice(words) for _ in range(n))
    records = []
    for i in range(32):
        has_image = i % 4 == 0
        messages = [{"role": "user", "content": ("<image>" if has_image else "") + text(300)},
                    {"role": "assistant", "content": text(tokens - 1700 if has_image else tokens)}]
        records.append({"messages": messages, "images": ["large.png"] if has_image else []})
    with open(f"{out}/long.json", "w") as f:
        json.dump(records, f)
    with open(f"{out}/dataset_info.json", "w") as f:
        json.dump({"long": {"file_name": "long.json", "formatting": "sharegpt", "columns": {"messages": "messages", "images": "images"},
                            "tags": {"role_tag": "role", "content_tag": "content", "user_tag": "user", "assistant_tag": "assistant"}}}, f)


if __name__ == "__main__":
    if len(sys.argv) not in (2, 3):
        sys.exit(__doc__)
    main(sys.argv[1], *map(int, sys.argv[2:]))
