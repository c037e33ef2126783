#!/usr/bin/env python3
"""Makes a folded checkpoint whose matrices are on several grids.

  mixed_fold.py --base ON_GRID.gguf --out folded.safetensors --plan PLAN

PLAN is a key of PLANS below. Weights are rounded to the nearest code, which is
a poor model on 2 bits: what matters is that every reader sees the same one. One
norm changes, too. As a library: the values of such a file.
"""

import argparse
import json
import re

import gguf
import numpy as np
from safetensors.numpy import load_file, save_file

GRIDS = {
    "int4_g32": (-8, 7, 32),
    "int2_g64": (-1, 1, 64),
    "int8_g32": (-127, 127, 32),
}
EMBEDDING = "token_embd.weight"
NORM = "blk.3.ffn_norm.weight"
# The first pattern that matches says the grid; else linears are on int4_g32 and
# the embedding stays the base's.
PLANS = {
    # Bulky layers on 2 bits, the first attention layers on 8.
    "two_bits": [
        (r"blk\.([89]|1\d)\.ffn_", "int2_g64"),
        (r"blk\.[0-3]\.attn_", "int8_g32"),
        (EMBEDDING, "int4_g32"),
    ],
    # 4 and 8 bits only, which every version of the peers knows.
    "four_and_eight": [
        (r".*\.attn_", "int8_g32"),
        (r"blk\.0\.ffn_down", "int8_g32"),
        (EMBEDDING, "int4_g32"),
    ],
}


def grid_of(plan, name):
    for pattern, grid in PLANS[plan]:
        if re.match(pattern, name):
            return grid
    return None if name == EMBEDDING else "int4_g32"


def dual_exact(scales):
    """The nearest floats of 8 significant bits, at least 2^-14."""
    bits = np.maximum(scales, 2.0**-14).astype(np.float32).view(np.uint32)
    bits = bits + np.uint32(0x7FFF) + ((bits >> 16) & 1)
    return (bits & np.uint32(0xFFFF0000)).view(np.float32)


def encode(values, grid):
    """Codes [rows, cols] int8 and scales [rows, cols / group] float32."""
    low, high, group = GRIDS[grid]
    groups = values.reshape(values.shape[0], -1, group)
    if grid == "int2_g64":
        scales = 1.5 * np.abs(groups).mean(-1)
    else:
        scales = np.abs(groups).max(-1) / high
    scales = dual_exact(scales)
    codes = np.clip(np.rint(groups / scales[..., None]), low, high)
    return codes.astype(np.int8).reshape(values.shape), scales


def decode(codes, scales):
    """codes * scales in float32."""
    rows, groups = scales.shape
    values = codes.astype(np.float32).reshape(rows, groups, -1)
    return (values * scales[..., None]).reshape(codes.shape)


def folded_values(path):
    """Name -> values of every tensor in a folded checkpoint."""
    tensors = load_file(path)
    values = {name: t for name, t in tensors.items() if t.ndim == 1}
    for name, codes in tensors.items():
        if name.endswith(".codes"):
            name = name.removesuffix(".codes")
            values[name] = decode(codes, tensors[name + ".scales"])
    return values


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--base", required=True)
    parser.add_argument("--out", required=True)
    parser.add_argument("--plan", required=True, choices=PLANS)
    args = parser.parse_args()
    tensors, grids = {}, {}
    for tensor in gguf.GGUFReader(args.base).tensors:
        name = tensor.name
        values = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
        if name == NORM:
            tensors[name] = (1.25 * values).astype(np.float32)
        if len(tensor.shape) == 1 or grid_of(args.plan, name) is None:
            continue
        grid = grid_of(args.plan, name)
        codes, scales = encode(values, grid)
        tensors[name + ".codes"] = codes
        tensors[name + ".scales"] = scales
        if grid != "int4_g32":
            grids[name] = grid
    save_file(tensors, args.out, metadata={"grids": json.dumps(grids)})


if __name__ == "__main__":
    main()
