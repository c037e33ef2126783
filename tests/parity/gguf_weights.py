#!/usr/bin/env python3
"""Compares a GGUF's weights, decoded here and by Python's gguf, bit for bit.

  gguf_weights.py --gguf F --dump_weights BIN

BIN is //services/exporter:dump_weights. The last line gives the figure and
the target.
"""

import argparse
import hashlib
import subprocess
import sys

import gguf
import numpy as np


def digests(path, binary):
    """Tensor name -> SHA-256 of its f32 bytes, by the project's decoder."""
    result = subprocess.run(
        [binary, path], stdout=subprocess.PIPE, text=True, check=True
    )
    return dict(line.split() for line in result.stdout.splitlines())


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--gguf", required=True)
    parser.add_argument("--dump_weights", required=True)
    args = parser.parse_args()

    ours = digests(args.gguf, args.dump_weights)
    same = 0
    tensors = gguf.GGUFReader(args.gguf).tensors
    for tensor in tensors:
        values = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
        values = np.ascontiguousarray(values, dtype="<f4")
        if ours.get(tensor.name) == hashlib.sha256(values).hexdigest():
            same += 1
        else:
            print(f"differs: {tensor.name} ({tensor.tensor_type.name})")
    total = max(len(tensors), len(ours))
    print(f"gguf weights: {same} of {total} tensors equal Python gguf's bit "
          f"for bit (target {total})")
    return 0 if total > 0 and same == total else 1


if __name__ == "__main__":
    sys.exit(main())
