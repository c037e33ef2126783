#!/usr/bin/env python3
"""Decompresses a compressed-tensors folder with the library's own code.

  ct_decompress.py --folder DIR --gguf F --dump_weights BIN

QuantizationConfig must take the configuration; for each packed module
PackedQuantizationCompressor must give codes times scales, as unpacked in
numpy, and the values of the GGUF of the same export, as
//services/exporter:dump_weights decodes it: all bit for bit. The last line
gives the figure and the target.
"""

import argparse
import hashlib
import json
import os
import sys

import numpy as np
import torch
from compressed_tensors import QuantizationConfig
from compressed_tensors.compressors import PackedQuantizationCompressor
from compressed_tensors.utils.match import match_name
from gguf_names import gguf_name
from gguf_weights import digests
from grid_matrices import folder_matrices
from safetensors.torch import load_file


def scheme_of(config, module):
    """The one scheme that names a linear module."""
    found = [group for group in config.config_groups.values()
             if any(match_name(module, target) or target == "Linear"
                    for target in group.targets)]
    assert len(found) == 1, module
    return found[0]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", required=True)
    parser.add_argument("--gguf", required=True)
    parser.add_argument("--dump_weights", required=True)
    args = parser.parse_args()
    torch.set_num_threads(2)

    with open(os.path.join(args.folder, "config.json"), encoding="utf-8") as file:
        config = QuantizationConfig(**json.load(file)["quantization_config"])
    ours = digests(args.gguf, args.dump_weights)
    tensors = load_file(os.path.join(args.folder, "model.safetensors"))
    same = 0
    matrices, _ = folder_matrices(args.folder)
    for module, (_, codes, scales) in matrices.items():
        state = {part: tensors[f"{module}.{part}"]
                 for part in ("weight_packed", "weight_scale", "weight_shape")}
        values = PackedQuantizationCompressor.decompress(
            state, scheme_of(config, module))["weight"].float().numpy()
        expected = (codes.reshape(len(scales), -1).astype(np.float32)
                    * scales[:, None])
        digest = hashlib.sha256(np.ascontiguousarray(values)).hexdigest()
        if (np.array_equal(values.reshape(-1), expected.reshape(-1))
                and ours.get(gguf_name(module + ".weight")) == digest):
            same += 1
        else:
            print(f"differs: {module}")
    total = len(matrices)
    print(f"compressed-tensors: {same} of {total} modules that its decompressor "
          f"gives equal codes times scales and the GGUF's (target {total})")
    return 0 if total > 0 and same == total else 1


if __name__ == "__main__":
    sys.exit(main())
