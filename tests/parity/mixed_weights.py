#!/usr/bin/env python3
"""Compares what the peers read of an export with what was folded, bit for bit.

  mixed_weights.py --folded F --base ON_GRID.gguf --gguf F --folder DIR
      --dump_weights BIN --node DIR

The weights that should be there are the codes times the scales of the folded
checkpoint, in numpy, and the base's where it has none. They are compared with
the GGUF as ggml reads it (node-llama-cpp's), as Python's gguf does if it knows
the types, and as the project does; and with the compressed-tensors folder as
transformers loads it. The last line gives the figure and the target.
"""

import argparse
import hashlib
import sys

import gguf
import numpy as np
import torch
from ggml_file import GgmlFile, library
from gguf_names import gguf_name
from gguf_weights import digests
from mixed_fold import folded_values
from transformers import AutoModelForCausalLM
from transformers.utils import logging
from transformers.utils.quantization_config import CompressedTensorsConfig


def sha256(values):
    return hashlib.sha256(np.ascontiguousarray(values, "<f4")).hexdigest()


def expected_weights(folded_path, base):
    """(name -> SHA-256 of the values, name -> number of values)"""
    folded = folded_values(folded_path)
    hashes, sizes = {}, {}
    for tensor in gguf.GGUFReader(base).tensors:
        name = tensor.name
        values = folded.get(name)
        if values is None:
            values = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
        hashes[name], sizes[name] = sha256(values), values.size
    return hashes, sizes


def count_equal(reader, found, expected):
    """Prints what differs; (tensors that are equal, tensors)"""
    same = 0
    for name in sorted(expected.keys() | found.keys()):
        if found.get(name) == expected.get(name):
            same += 1
        else:
            print(f"differs ({reader}): {name}")
    total = len(expected.keys() | found.keys())
    print(f"{reader}: {same} of {total} tensors")
    return same, total


def python_gguf(path):
    """name -> SHA-256, or None if this version does not know a type."""
    try:
        tensors = gguf.GGUFReader(path).tensors
    except ValueError as error:
        print(f"Python gguf does not read this file: {error}")
        return None
    return {t.name: sha256(gguf.quants.dequantize(t.data, t.tensor_type))
            for t in tensors}


def weights_of(model):
    found = {}
    for name, parameter in model.named_parameters():
        if not name.endswith(".weight") or name == "lm_head.weight":
            continue
        values = parameter.detach()
        if name.endswith("norm.weight"):
            values = 1.0 + values
        assert values.dtype == torch.float32, name
        found[gguf_name(name)] = sha256(values.numpy())
    return found


def transformers_weights(folder):
    model = AutoModelForCausalLM.from_pretrained(folder)
    # The first forward decompresses the weights in place.
    with torch.no_grad():
        model(torch.tensor([[2, 651]]))
    return weights_of(model)


def transformers_dequantized(folder):
    """transformers 5.23 decodes all layers by the first config group. It must
    say so, not load other weights; None if it does."""
    try:
        model = AutoModelForCausalLM.from_pretrained(
            folder, quantization_config=CompressedTensorsConfig(dequantize=True))
    except RuntimeError as error:
        print("transformers refuses dequantize=True:", str(error).split(",")[0])
        return None
    return weights_of(model)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ("folded", "base", "gguf", "folder", "dump_weights", "node"):
        parser.add_argument("--" + name, required=True)
    args = parser.parse_args()
    logging.disable_progress_bar()
    torch.set_num_threads(2)

    expected, sizes = expected_weights(args.folded, args.base)
    file = GgmlFile(library(args.node), args.gguf)
    print("ggml types:", dict(sorted(
        (kind, list(file.types.values()).count(kind))
        for kind in set(file.types.values()))), "file type", file.file_type)
    readers = {
        "ggml": {name: sha256(file.values(name, sizes.get(name, 0)))
                 for name in file.types},
        "this project": digests(args.gguf, args.dump_weights),
        "Python gguf": python_gguf(args.gguf),
        "transformers": transformers_weights(args.folder),
        "transformers, dequantize": transformers_dequantized(args.folder),
    }
    same = total = 0
    for reader, found in readers.items():
        if found is None:
            continue
        equal, tensors = count_equal(reader, found, expected)
        same += equal
        total += tensors
    read_by = ", ".join(r for r, found in readers.items() if found is not None)
    print(f"mixed weights: {same} of {total} tensors as read by {read_by} equal "
          f"the plan's codes times scales (target {total})")
    return 0 if total > 0 and same == total else 1


if __name__ == "__main__":
    sys.exit(main())
