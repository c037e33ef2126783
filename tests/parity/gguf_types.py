#!/usr/bin/env python3
"""Compares the decoders of every GGUF type, bit for bit, on random blocks.

  gguf_types.py --dump_weights BIN --ggml_lib LIB... [--blocks 4096] [--seed 1]

The file is written by Python's gguf (Q2_0, which its 0.19 does not know, by
hand), and decoded by BIN, //services/exporter:dump_weights, by Python's gguf
and by each ggml (libggml-base.so). Scales are any finite f16; codes any bits.
The last line gives the figure and the target.
"""

import argparse
import hashlib
import os
import sys
import tempfile

import gguf
import numpy as np
from ggml_types import TYPES, ggml_values, random_blocks, write_by_hand
from gguf_weights import digests

ROWS = 8


def sha256(values):
    values = np.ascontiguousarray(values, "<f4")
    assert not np.isnan(values).any()
    return hashlib.sha256(values).hexdigest()


def write_by_peer(path, tensors):
    writer = gguf.GGUFWriter(path, "none")
    for name, kind, data in tensors:
        writer.add_tensor(
            name, data, raw_dtype=gguf.GGMLQuantizationType[kind])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def peer_values(kind, data):
    """float32 by Python's gguf, or None if it does not know the type."""
    if kind not in gguf.GGMLQuantizationType.__members__:
        return None
    return gguf.quants.dequantize(data, gguf.GGMLQuantizationType[kind])


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dump_weights", required=True)
    parser.add_argument("--ggml_lib", nargs="+", required=True)
    parser.add_argument("--blocks", type=int, default=4096)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()

    random = np.random.default_rng(args.seed)
    tensors = [(kind.lower() + ".weight", kind,
                random_blocks(kind, ROWS, args.blocks // ROWS, random))
               for kind in TYPES]
    known = gguf.GGMLQuantizationType.__members__
    ours = {}
    with tempfile.TemporaryDirectory() as folder:
        for file, write, part in (
            ("peer.gguf", write_by_peer, [t for t in tensors if t[1] in known]),
            ("hand.gguf", write_by_hand,
             [t for t in tensors if t[1] not in known]),
        ):
            path = os.path.join(folder, file)
            write(path, part)
            ours |= digests(path, args.dump_weights)
    readers = [("Python gguf", peer_values)]
    for i, lib in enumerate(args.ggml_lib):
        readers.append((f"ggml {i + 1}",
                        lambda kind, data, lib=lib: ggml_values(lib, kind, data)))
    print(f"| {'type':6} | {'values':>8} |",
          " | ".join(f"{name:>11}" for name, _ in readers), "|")
    print("|--------|----------|-" + "-|-".join("-" * 11 for _ in readers) + "-|")
    same = total = 0
    for name, kind, data in tensors:
        cells, known_by = [], 0
        for _, values_of in readers:
            values = values_of(kind, data)
            if values is None:
                cells.append("not known")
                continue
            known_by += 1
            total += 1
            equal = sha256(values) == ours.get(name)
            same += equal
            cells.append("equal" if equal else "DIFFERS")
            count = values.size
        assert known_by > 0, kind
        print(f"| {kind:6} | {count:8} |",
              " | ".join(f"{cell:>11}" for cell in cells), "|")
    print(f"GGUF types: {same} of {total} decodings of {len(tensors)} types "
          f"equal ours bit for bit (target {total})")
    return 0 if same == total else 1


if __name__ == "__main__":
    sys.exit(main())
