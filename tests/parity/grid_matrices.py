"""Codes and scales of matrices on a grid, from both formats, in numpy.

Rows lie one behind the other: codes int8 [rows * cols], scales float32 of the
groups.
"""

import json
import os

import numpy as np
from ggml_file import F32, Q2_0, Q4_0, Q8_0, GgmlFile

# Codes and group of the grids: kernels/quant/grid.h.
RANGES = {
    "int4_g32": (-8, 7, 32),
    "int2_g64": (-1, 1, 64),
    "int8_g32": (-127, 127, 32),
}
GRIDS = {Q4_0: "int4_g32", Q2_0: "int2_g64", Q8_0: "int8_g32"}
DTYPES = {"F32": "<f4", "F16": "<f2", "I32": "<i4", "I64": "<i8"}
BLOCK_BYTES = {Q4_0: 18, Q2_0: 18, Q8_0: 34}


def dual_exact(scales):
    """Which scales are exact in f16 and bf16: kernels/quant/grid.h."""
    scales = np.ascontiguousarray(scales, np.float32)
    eight_bits = (scales.view(np.uint32) & 0xFFFF) == 0
    return eight_bits & (scales >= 2.0**-14) & (scales <= 65280)


def unpack_blocks(kind, data):
    """(grid, codes, scales) of a GGUF's bytes."""
    blocks = data.reshape(-1, BLOCK_BYTES[kind])
    scales = blocks[:, :2].copy().view(np.float16).astype(np.float32)
    rest = blocks[:, 2:]
    if kind == Q4_0:
        codes = np.concatenate([rest & 15, rest >> 4], 1).astype(np.int8) - 8
    elif kind == Q8_0:
        codes = rest.copy().view(np.int8)
    else:
        shifts = np.array([0, 2, 4, 6], np.uint8)
        codes = ((rest[:, :, None] >> shifts) & 3).astype(np.int8) - 1
    return GRIDS[kind], codes.reshape(-1), scales.reshape(-1)


def gguf_matrices(library, path):
    """(name -> matrix, name -> float32 of the rest), read by ggml."""
    file = GgmlFile(library, path)
    matrices, vectors = {}, {}
    for name, kind in file.types.items():
        if kind == F32:
            vectors[name] = file.values(name, 0).copy()
        else:
            matrices[name] = unpack_blocks(kind, file.blocks(name))
    return matrices, vectors


def unpack_words(words, bits, cols):
    """Codes of compressed-tensors' weight_packed, int32 [rows, words]."""
    shifts = np.arange(0, 32, bits, dtype=np.uint32)
    fields = (words.view(np.uint32)[:, :, None] >> shifts) & ((1 << bits) - 1)
    codes = fields.astype(np.int16) - (1 << (bits - 1))
    codes = codes.reshape(words.shape[0], -1)[:, :cols]
    return codes.astype(np.int8).reshape(-1)


def _read_safetensors(path):
    """name -> array, bf16 as float32; the reader of safetensors needs torch for
    that."""
    data = np.memmap(path, np.uint8, "r")
    start = 8 + int(data[:8].view("<u8")[0])
    tensors = {}
    for name, entry in json.loads(bytes(data[8:start])).items():
        if name == "__metadata__":
            continue
        begin, end = entry["data_offsets"]
        part = data[start + begin:start + end]
        if entry["dtype"] == "BF16":
            part = (part.view("<u2").astype(np.uint32) << 16).view(np.float32)
        else:
            part = part.view(DTYPES[entry["dtype"]])
        tensors[name] = part.reshape(entry["shape"])
    return tensors


def folder_tensors(folder):
    """name -> array of a Hugging Face folder, shards or not."""
    tensors = {}
    for name in sorted(os.listdir(folder)):
        if name.endswith(".safetensors"):
            tensors |= _read_safetensors(os.path.join(folder, name))
    return tensors


def folder_matrices(folder):
    """(module -> (bits, codes, scales), name -> float32 values of the rest)."""
    tensors = folder_tensors(folder)
    matrices, rest = {}, {}
    for name, tensor in tensors.items():
        module, part = name.rsplit(".", 1)
        if part == "weight":
            rest[name] = np.float32(tensor)
        if part != "weight_packed":
            continue
        rows, cols = tensors[module + ".weight_shape"].tolist()
        assert tensor.shape[0] == rows
        bits = 32 * tensor.shape[1] // cols
        scales = np.float32(tensors[module + ".weight_scale"]).reshape(-1)
        matrices[module] = bits, unpack_words(tensor, bits, cols), scales
    return matrices, rest
