#!/usr/bin/env python3
"""Merges an adapter into a GGUF's Q4_0 linears the way common tools do.

  merge_q4_0.py --base Q4_0.gguf --adapter DIR --out FILE.gguf

W + scale B A in float, rounded afresh with llama.cpp's own rule for Q4_0 (the
scale of a block is its largest magnitude / -8), by Python gguf, which gives its
bits. DIR holds adapter.safetensors and adapter_config.json of PEFT. Needs gguf,
numpy and safetensors.
"""

import argparse
import json
import math
import os
import shutil

import gguf
import numpy as np
from lora_deltas import PREFIX, gguf_name
from safetensors.numpy import load_file


def deltas(folder):
    """Name of the GGUF's tensor -> scale * B A, float32."""
    with open(os.path.join(folder, "adapter_config.json"), encoding="utf-8") as file:
        config = json.load(file)
    if config["rank_pattern"] or config["alpha_pattern"]:
        raise ValueError("adapters with patterns of ranks or alphas are not merged here")
    root = math.sqrt(config["r"]) if config["use_rslora"] else config["r"]
    scale = np.float32(config["lora_alpha"] / root)
    tensors = load_file(os.path.join(folder, "adapter.safetensors"))
    for name, a in tensors.items():
        if name.endswith(".lora_A.weight"):
            module = name.removeprefix(PREFIX).removesuffix(".lora_A.weight")
            yield gguf_name(module), scale * (tensors[name.replace("lora_A", "lora_B")] @ a)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--base", required=True)
    parser.add_argument("--adapter", required=True)
    parser.add_argument("--out", required=True)
    args = parser.parse_args()

    part = args.out + ".part"
    shutil.copyfile(args.base, part)
    tensors = {tensor.name: tensor for tensor in gguf.GGUFReader(part, "r+").tensors}
    q4_0 = gguf.GGMLQuantizationType.Q4_0
    count = 0
    for name, delta in deltas(args.adapter):
        tensor = tensors[name]
        if tensor.tensor_type != q4_0:
            raise ValueError(f"{name} is {tensor.tensor_type.name}, expected Q4_0")
        merged = gguf.quants.dequantize(tensor.data, q4_0) + delta
        tensor.data[:] = gguf.quants.quantize(merged.astype(np.float32), q4_0)
        count += 1
    os.replace(part, args.out)
    print(f"{count} tensors merged and rounded to Q4_0")


if __name__ == "__main__":
    main()
