#!/usr/bin/env python3
"""Makes what a tuning job would hand to an export, with random changes.

  random_tune.py --base ON_GRID.gguf --out DIR [--seed 1]

Writes folded.safetensors (0.5 % of the base's codes moved by one step),
adapter.safetensors and adapter_config.json (a rank-stabilized LoRA on all
linears, of rank 8 but for some modules, and of two alphas).
"""

import argparse
import json
import os

import gguf
import numpy as np
from safetensors.numpy import save_file

MODULES = {
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
RANK = 8
RANK_PATTERN = {"v_proj": 4, "model.layers.0.mlp.down_proj": 3}
ALPHA_PATTERN = {"mlp.up_proj": 5.0}
# A fold moves about this share.
CODES_MOVED = 0.005


def unpack_q4_0(tensor):
    """Codes [out, in] int8 and scales [out, in / 32] float32."""
    cols, rows = (int(n) for n in tensor.shape)
    blocks = tensor.data.reshape(-1, 18)
    scales = blocks[:, :2].copy().view(np.float16).astype(np.float32)
    nibbles = blocks[:, 2:]
    codes = np.concatenate([nibbles & 15, nibbles >> 4], 1).astype(np.int8) - 8
    return codes.reshape(rows, cols), scales.reshape(rows, cols // 32)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--base", required=True)
    parser.add_argument("--out", required=True)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    random = np.random.default_rng(args.seed)
    folded, adapter = {}, {}
    for tensor in gguf.GGUFReader(args.base).tensors:
        if tensor.tensor_type != gguf.GGMLQuantizationType.Q4_0:
            continue
        codes, scales = unpack_q4_0(tensor)
        steps = random.choice([-1, 1], codes.shape).astype(np.int8)
        steps *= random.random(codes.shape) < CODES_MOVED
        folded[tensor.name + ".codes"] = np.clip(codes + steps, -8, 7)
        folded[tensor.name + ".scales"] = scales
        _, layer, part, _ = tensor.name.split(".")
        module = f"base_model.model.model.layers.{layer}.{MODULES[part]}"
        rows, cols = codes.shape
        rank = next((r for key, r in RANK_PATTERN.items()
                     if module.endswith("." + key)), RANK)
        a = random.normal(0, cols**-0.5, (rank, cols))
        b = random.normal(0, 0.02, (rows, rank))
        adapter[module + ".lora_A.weight"] = a.astype(np.float32)
        adapter[module + ".lora_B.weight"] = b.astype(np.float32)
    os.makedirs(args.out, exist_ok=True)
    save_file(folded, os.path.join(args.out, "folded.safetensors"))
    save_file(adapter, os.path.join(args.out, "adapter.safetensors"))
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "r": RANK,
        "lora_alpha": 2 * RANK,
        "use_rslora": True,
        "rank_pattern": RANK_PATTERN,
        "alpha_pattern": ALPHA_PATTERN,
        "lora_dropout": 0.0,
        "bias": "none",
        "target_modules": sorted(m.split(".")[1] for m in MODULES.values()),
    }
    path = os.path.join(args.out, "adapter_config.json")
    with open(path, "w", encoding="utf-8") as file:
        json.dump(config, file, indent=2)


if __name__ == "__main__":
    main()
