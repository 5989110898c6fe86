#!/usr/bin/env python3
"""qvl's bf16 run beside transformers + PEFT in float32 (the truth) and in bf16, over the same optimiser steps.

    beside_transformers.py MODEL DATA.h5 INIT_ADAPTER RUN_DIR FIXTURE_DIR

RUN_DIR is what qvl wrote with per_device_train_batch_size 1, disable_shuffling, lora_dropout 0, no weight decay, a cosine
schedule with one warm-up step and logging_steps 1, on DATA.h5 from INIT_ADAPTER. Prints losses and gradient norms of all
three and the mean relative distances from the truth; exit code 1 where qvl's is more than 1.1 times transformers' bf16.
FIXTURE_DIR becomes a directory for forward_check: the first sample under RUN_DIR's adapter, as PEFT computes it in float32.
"""
import json, math, os, sys, time

import h5py, numpy as np, torch
from peft import PeftModel
from transformers import Qwen2_5_VLForConditionalGeneration

torch.backends.cuda.matmul.allow_tf32 = False
torch.backends.cudnn.allow_tf32 = False
MEAN, STD = np.float32([0.48145466, 0.4578275, 0.40821073]), np.float32([0.26862954, 0.26130258, 0.27577711])


def patches(rgb, grid):
    """rows x columns x 3 bytes to the processor's pixel_values."""
    _, h, w = grid
    x = (rgb.reshape(h * 14, w * 14, 3).astype(np.float32) / 255 - MEAN) / STD
    x = x.transpose(2, 0, 1).reshape(3, h // 2, 2, 14, w // 2, 2, 14).transpose(1, 4, 2, 5, 0, 3, 6)
    return np.repeat(x[:, :, :, :, :, None], 2, axis=5).reshape(h * w, -1)


class Data:
    def __init__(self, path):
        self.f = h5py.File(path)
        self.offsets, self.image_offsets = self.f["sample_offsets"][:], self.f["sample_image_offsets"][:]

    def inputs(self, i, image_token):
        f, (a, b) = self.f, self.offsets[i:i + 2]
        ids = torch.from_numpy(f["input_ids"][a:b].astype(np.int64))[None].cuda()
        out = dict(input_ids=ids, labels=torch.from_numpy(f["labels"][a:b].astype(np.int64))[None].cuda(), attention_mask=torch.ones_like(ids))
        images = f["sample_images"][self.image_offsets[i]:self.image_offsets[i + 1]]
        if len(images):
            grids = [f["images/grid_thw"][k] for k in images]
            rgb = [f["images/rgb"][f["images/rgb_offsets"][k]:f["images/rgb_offsets"][k + 1]] for k in images]
            out.update(image_grid_thw=torch.tensor(np.array(grids).astype(np.int64)).cuda(), mm_token_type_ids=(ids == image_token).int(),
                       pixel_values=torch.from_numpy(np.concatenate([patches(r, g) for r, g in zip(rgb, grids)])).cuda())
        return out


def load(model, adapter, dtype, trainable):
    base = Qwen2_5_VLForConditionalGeneration.from_pretrained(model, dtype=dtype, attn_implementation="sdpa", device_map="cuda")
    net = PeftModel.from_pretrained(base, adapter, is_trainable=trainable)
    for p in net.parameters():
        if p.requires_grad:
            p.data = p.data.float()
    return net


def train(model, adapter, data, steps, batch, rate, dtype):
    net = load(model, adapter, dtype, True)
    net.train()
    params = [p for p in net.parameters() if p.requires_grad]
    opt = torch.optim.AdamW(params, lr=rate, weight_decay=0.0)
    losses, norms, image_token = [], [], net.config.image_token_id
    for k in range(steps):
        lr = 0.0 if k == 0 else rate * 0.5 * (1 + math.cos(math.pi * (k - 1) / (steps - 1)))
        for group in opt.param_groups:
            group["lr"] = lr
        total = 0.0
        for i in range(k * batch, (k + 1) * batch):
            with torch.autocast("cuda", dtype=torch.bfloat16, enabled=dtype == torch.bfloat16):
                loss = net(**data.inputs(i, image_token)).loss / batch
            loss.backward()
            total += loss.item()
        norms.append(torch.nn.utils.clip_grad_norm_(params, 1.0).item())
        opt.step()
        opt.zero_grad()
        losses.append(total)
    del net, opt, params
    torch.cuda.empty_cache()
    return losses, norms


def forward(net, inputs):
    with torch.autocast("cuda", dtype=torch.bfloat16, enabled=net.dtype == torch.bfloat16):
        return net(**inputs, output_hidden_states=True)


def write_fixture(directory, model, data_path, data, adapter):
    os.makedirs(directory, exist_ok=True)
    for name, target in (("model", model), ("adapter_init", adapter), ("train.h5", data_path)):
        if not os.path.lexists(f"{directory}/{name}"):
            os.symlink(os.path.abspath(target), f"{directory}/{name}")
    net = load(model, adapter, torch.float32, True)
    net.eval()
    inputs = data.inputs(0, net.config.image_token_id)
    inner = net.base_model.model.model
    features = inner.get_image_features(inputs["pixel_values"], inputs["image_grid_thw"])
    features = getattr(features, "pooler_output", features)
    out = forward(net, inputs)
    out.loss.backward()
    positions, _ = inner.get_rope_index(inputs["input_ids"], mm_token_type_ids=inputs["mm_token_type_ids"], image_grid_thw=inputs["image_grid_thw"],
                                        attention_mask=inputs["attention_mask"])
    with h5py.File(f"{directory}/expected.h5", "w") as f:
        put = lambda name, x: f.create_dataset("forward/" + name, data=x.detach().float().cpu().numpy())
        put("vision_features", torch.cat(tuple(features)))
        put("hidden_states", torch.stack([h[0] for h in out.hidden_states]))
        put("logits", out.logits[0])
        put("loss", out.loss[None])
        f.create_dataset("forward/position_ids", data=positions[:, 0].cpu().numpy().astype(np.int32))
        for name, p in net.named_parameters():
            if p.requires_grad:
                put("grad/" + name.replace(".default", ""), p.grad)
    truth = out.logits.detach().cpu()
    del net, out, inner, features
    torch.cuda.empty_cache()
    net = load(model, adapter, torch.bfloat16, False)
    net.eval()
    with torch.no_grad():
        far = (forward(net, inputs).logits.float().cpu() - truth).abs().max() / truth.abs().max()
    print(f"PEFT loads {adapter}; its bf16 logits are {far:.2e} of the largest from its float32 ones")
    print(f"logits_bf16_distance {far:.6e}")


def main(model, data_path, init, run, fixture):
    data = Data(data_path)
    history = [e for e in json.load(open(f"{run}/trainer_state.json"))["log_history"] if "grad_norm" in e]
    text = open(f"{run}/config.yaml").read()
    value = lambda key: float(next(l.split(":")[1].split("#")[0] for l in text.splitlines() if l.startswith(key + ":")))
    steps, batch, rate = len(history), int(value("gradient_accumulation_steps")), value("learning_rate")
    ours = [e["loss"] for e in history], [e["grad_norm"] for e in history]
    start = time.time()
    truth = train(model, init, data, steps, batch, rate, torch.float32)
    bf16 = train(model, init, data, steps, batch, rate, torch.bfloat16)
    print(f"transformers: {steps} steps of {batch} samples twice in {time.time() - start:.0f} s")
    print("| step | loss, float32 | bf16 | qvl | norm, float32 | bf16 | qvl |\n|---|---|---|---|---|---|---|")
    for k in range(steps):
        print(f"| {k + 1} | {truth[0][k]:.6f} | {bf16[0][k]:.6f} | {ours[0][k]:.6f} | {truth[1][k]:.6f} | {bf16[1][k]:.6f} | {ours[1][k]:.6f} |")
    bad = False
    for which, name in enumerate(("losses", "gradient norms")):
        far = lambda x: np.mean([abs(a - b) / abs(b) for a, b in zip(x[which], truth[which])])
        ratio = far(ours) / far(bf16)
        bad |= ratio > 1.1
        print(f"mean distance of {name} from float32: transformers bf16 {far(bf16):.3e}, qvl bf16 {far(ours):.3e}, ratio {ratio:.2f}")
    write_fixture(fixture, model, data_path, data, run)
    sys.exit(int(bad))


if __name__ == "__main__":
    if len(sys.argv) != 6:
        sys.exit(__doc__)
    main(*sys.argv[1:])
