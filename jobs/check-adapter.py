#!/usr/bin/env python3
"""Loads adapters that qvl wrote with PEFT and compares logits. Needs torch, transformers, peft, h5py.

    check-adapter.py FIXTURE [init=DIR ...] [final=DIR ...]

FIXTURE is a directory as in tests/fixtures. A DIR given as init holds the fixture's own starting adapter as
qvl writes it (train with max_steps=1: the first step has rate 0): its logits must be expected.h5's. A DIR
given as final holds the adapter of the whole run: its logits must be those of FIXTURE/adapter_final.
Allowed distance: 1e-4. Prints a line an adapter; exit code 1 when one is too far or does not load whole.
"""
import sys, warnings

import h5py, numpy as np, torch
from peft import PeftModel
from transformers import Qwen2_5_VLForConditionalGeneration

TOLERANCE = 1e-4
# transformers >= 4.52 renamed the modules of this model. PEFT takes the renaming for adapters of the older layout
# (adapter_layout: hf4.51) from transformers 4.52 to 4.57 by itself; transformers 5 no longer states it per model,
# so there it is given to from_pretrained.
RENAMING = {r"^visual": "model.visual", r"^model(?!\.(language_model|visual))": "model.language_model"}


def first_sample(fixture, config):
    with h5py.File(f"{fixture}/train.h5") as f:
        end = f["sample_offsets"][1]
        ids = torch.from_numpy(f["input_ids"][:end].astype(np.int64))[None]
        images = f["sample_images"][: f["sample_image_offsets"][1]]
        grids = torch.from_numpy(f["images/grid_thw"][:][images].astype(np.int64))
    with h5py.File(f"{fixture}/expected.h5") as f:
        pixels, logits = torch.from_numpy(f["forward/pixels"][:]), f["forward/logits"][:]
    inputs = dict(input_ids=ids, attention_mask=torch.ones_like(ids), mm_token_type_ids=(ids == config.image_token_id).int(),
                  pixel_values=pixels, image_grid_thw=grids)
    return inputs, logits


def logits_of(fixture, adapter):
    model = Qwen2_5_VLForConditionalGeneration.from_pretrained(f"{fixture}/model", dtype=torch.float32, attn_implementation="eager")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model = PeftModel.from_pretrained(model, adapter, key_mapping=RENAMING).eval()
    missing = [str(w.message) for w in caught if "missing" in str(w.message).lower() or "unexpected" in str(w.message).lower()]
    inputs, expected = first_sample(fixture, model.config)
    with torch.no_grad():
        return model(**inputs).logits[0].numpy(), expected, missing


def main():
    fixture, failed = sys.argv[1], False
    final = logits_of(fixture, f"{fixture}/adapter_final")[0]
    for argument in sys.argv[2:]:
        kind, directory = argument.split("=", 1)
        got, expected, missing = logits_of(fixture, directory)
        want = expected if kind == "init" else final
        distance = float(np.abs(got - want).max())
        good = distance <= TOLERANCE and not missing
        failed |= not good
        print(f"{'ok    ' if good else 'FAILED'} {directory}: logits {distance:.2e} away (allowed {TOLERANCE:.0e}) {missing[:1] or ''}")
    sys.exit(failed)


if __name__ == "__main__":
    main()
