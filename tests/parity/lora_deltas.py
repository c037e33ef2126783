#!/usr/bin/env python3
"""Compares the change of every weight by an adapter in its two formats.

  lora_deltas.py --peft DIR --lora_gguf F

peft's own reading of the adapter folder (ranks, alphas and patterns of its
config, rank-stabilized or not) gives scale * B A of each module. What
llama.cpp computes from the GGUF is adapter.lora.alpha / rank * B A, in its
order of operations (src/llama-adapter.h). Tolerance, relative to |scale| |B|
|A| of the element: 4 * 2^-24 for the roundings of the scale, of B where a
factor is in it, and of alpha. The last line gives the figure and the target.
"""

import argparse
import json
import os
import sys

import gguf
import numpy as np
import torch
from peft import PeftModel
from safetensors.numpy import load_file

PREFIX = "base_model.model."
PARTS = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
TOLERANCE = 4 * 2.0**-24


def gguf_name(module):
    """model.layers.0.mlp.up_proj -> blk.0.ffn_up.weight"""
    _, _, layer, part = module.split(".", 3)
    return f"blk.{layer}.{PARTS[part]}.weight"


def skeleton(tensors):
    """Modules of the adapter's names and shapes, with weights of zero."""
    root = torch.nn.Module()
    root.config = {"model_type": "custom"}
    root.prepare_inputs_for_generation = None  # Wanted, never called.
    for name in tensors:
        if not name.endswith(".lora_A.weight"):
            continue
        module = name.removeprefix(PREFIX).removesuffix(".lora_A.weight")
        parent = root
        *path, last = module.split(".")
        for part in path:
            if not hasattr(parent, part):
                parent.add_module(part, torch.nn.Module())
            parent = getattr(parent, part)
        b = tensors[name.replace("lora_A", "lora_B")]
        parent.add_module(last, torch.nn.Linear(
            tensors[name].shape[1], b.shape[0], bias=False))
    return root


def peft_deltas(folder):
    """Module -> (scale, A, B) as peft holds them, float64."""
    tensors = load_file(os.path.join(folder, "adapter_model.safetensors"))
    model = PeftModel.from_pretrained(skeleton(tensors), folder)
    for name, module in model.named_modules():
        if not hasattr(module, "lora_A") or "default" not in module.lora_A:
            continue
        yield (
            name.removeprefix(PREFIX),
            module.scaling["default"],
            module.lora_A["default"].weight.detach().double().numpy(),
            module.lora_B["default"].weight.detach().double().numpy(),
        )


def gguf_pairs(path):
    """(alpha, name -> float32 matrix)"""
    reader = gguf.GGUFReader(path)
    alpha = np.float32(reader.get_field("adapter.lora.alpha").contents())
    matrices = {}
    for tensor in reader.tensors:
        cols, rows = (int(n) for n in tensor.shape)
        matrices[tensor.name] = np.array(tensor.data).reshape(rows, cols)
    return alpha, matrices


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--peft", required=True)
    parser.add_argument("--lora_gguf", required=True)
    args = parser.parse_args()

    alpha, matrices = gguf_pairs(args.lora_gguf)
    with open(os.path.join(args.peft, "adapter_config.json"),
              encoding="utf-8") as file:
        config = json.load(file)
    worst, modules, shapes = 0.0, 0, set()
    for module, scale, a, b in peft_deltas(args.peft):
        name = gguf_name(module)
        gguf_a = matrices.pop(name + ".lora_a").astype(np.float64)
        gguf_b = matrices.pop(name + ".lora_b").astype(np.float64)
        rank = gguf_b.shape[1]
        theirs = float(alpha / np.float32(rank)) * gguf_b @ gguf_a
        size = abs(scale) * (np.abs(b) @ np.abs(a))
        error = np.abs(theirs - scale * b @ a) / np.maximum(size, 1e-300)
        worst = max(worst, float(error.max()))
        modules += 1
        shapes.add((rank, round(scale, 6)))
    print(f"use_rslora {config.get('use_rslora', False)}; (rank, scale) of the "
          f"modules: {sorted(shapes)}; alpha of the GGUF: {alpha:g}")
    holds = modules > 0 and not matrices and worst <= TOLERANCE
    print(f"lora deltas: {modules} modules, {len(matrices)} matrices left over,"
          f" largest error {worst:.1e} of the products (target <= "
          f"{TOLERANCE:.1e})")
    return 0 if holds else 1


if __name__ == "__main__":
    sys.exit(main())
