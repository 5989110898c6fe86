#!/usr/bin/env python3
"""A Qwen2.5-VL of full size with random weights, written by transformers, for tests and timings on a GPU machine.

    make_model.py OUT_DIR [7b|3b] [TOKENIZER_JSON]

Needs torch and transformers, a GPU with room for it, and 16.6 GB (3b: 7.5 GB) of disk. The weights are normal with
standard deviation 0.02 from a fixed seed, norms are 1, biases 0.
"""
import shutil, sys

import torch
from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

SIZES = {"7b": dict(vocab_size=152064, hidden_size=3584, intermediate_size=18944, num_hidden_layers=28, num_attention_heads=28,
                    num_key_value_heads=4),
         "3b": dict(vocab_size=151936, hidden_size=2048, intermediate_size=11008, num_hidden_layers=36, num_attention_heads=16,
                    num_key_value_heads=2)}
TEXT = dict(hidden_act="silu", max_position_embeddings=128000, rms_norm_eps=1e-6, rope_theta=1e6, use_sliding_window=False,
            rope_scaling={"type": "mrope", "rope_type": "default", "mrope_section": [16, 24, 24]})
VISION = dict(depth=32, hidden_size=1280, intermediate_size=3420, num_heads=16, in_channels=3, patch_size=14, spatial_merge_size=2,
              window_size=112, fullatt_block_indexes=[7, 15, 23, 31], tokens_per_second=2, temporal_patch_size=2, hidden_act="silu")


def main(out, size="7b", tokenizer=None):
    tied = size == "3b"
    text = dict(TEXT, **SIZES[size], tie_word_embeddings=tied)
    config = Qwen2_5_VLConfig(text_config=text, vision_config=dict(VISION, out_hidden_size=text["hidden_size"]),
                              image_token_id=151655, video_token_id=151656, vision_start_token_id=151652,
                              vision_end_token_id=151653, tie_word_embeddings=tied)
    torch.set_default_dtype(torch.bfloat16)
    generator = torch.Generator(device="cuda").manual_seed(0)
    with torch.device("cuda"):
        model = Qwen2_5_VLForConditionalGeneration(config)
    with torch.no_grad():
        for name, p in model.named_parameters():
            if p.dim() >= 2:
                p.normal_(0, 0.02, generator=generator)
            elif name.endswith("bias"):
                p.zero_()
            else:
                p.fill_(1)
    model.save_pretrained(out, max_shard_size="4GB")
    if tokenizer:
        shutil.copy(tokenizer, f"{out}/tokenizer.json")


if __name__ == "__main__":
    if len(sys.argv) < 2 or len(sys.argv) > 3 and sys.argv[2] not in SIZES:
        sys.exit(__doc__)
    main(*sys.argv[1:4])
