#!/usr/bin/env python3
"""Loads a compressed-tensors folder in transformers and compares its weights.

  compressed_tensors_weights.py --folder DIR --gguf F --dump_weights BIN

Both ways to load it are tried: kept compressed until the first forward, and
dequantized while loading. Every weight of both must equal the GGUF's of the
same export, as //services/exporter:dump_weights decodes it, bit for bit; norms
after the 1 that the architecture adds. The tokenizer's files must load too.
The last line gives the figure and the target.
"""

import argparse
import hashlib
import sys

import torch
from gguf_names import gguf_name
from gguf_weights import digests
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging
from transformers.utils.quantization_config import CompressedTensorsConfig

def compare(model, ours, how):
    """(tensors that are equal, tensors)"""
    parameters = {
        name: parameter.detach()
        for name, parameter in model.named_parameters()
        if name.endswith(".weight") and name != "lm_head.weight"
    }
    same = 0
    for name, values in parameters.items():
        if name.endswith("norm.weight"):
            values = 1.0 + values.float()
        if values.dtype != torch.float32:
            print(f"differs ({how}): {name} is {values.dtype}")
            continue
        digest = hashlib.sha256(values.contiguous().numpy()).hexdigest()
        if ours.get(gguf_name(name)) == digest:
            same += 1
        else:
            print(f"differs ({how}): {name}")
    return same, max(len(parameters), len(ours))


def load(folder, how):
    if how == "dequantized on load":
        config = CompressedTensorsConfig(dequantize=True)
        return AutoModelForCausalLM.from_pretrained(
            folder, quantization_config=config)
    model = AutoModelForCausalLM.from_pretrained(folder)
    # The first forward decompresses the weights in place.
    with torch.no_grad():
        model(torch.tensor([[2, 651]]))
    return model


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", required=True)
    parser.add_argument("--gguf", required=True)
    parser.add_argument("--dump_weights", required=True)
    args = parser.parse_args()
    logging.disable_progress_bar()
    torch.set_num_threads(2)

    ours = digests(args.gguf, args.dump_weights)
    same = total = 0
    for how in ("compressed", "dequantized on load"):
        equal, tensors = compare(load(args.folder, how), ours, how)
        print(f"{how}: {equal} of {tensors}")
        same += equal
        total += tensors
    tokenizer = AutoTokenizer.from_pretrained(args.folder)
    text = "Grids, codes\n  and scales: 42!"
    total += 1
    same += tokenizer.decode(tokenizer(text)["input_ids"],
                             skip_special_tokens=True) == text
    print(f"compressed-tensors: {same} of {total} tensors and tokenizers as "
          f"transformers loads them equal ours (target {total})")
    return 0 if same == total else 1


if __name__ == "__main__":
    sys.exit(main())
