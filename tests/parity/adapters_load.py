#!/usr/bin/env python3
"""Loads exported adapters in their peers: peft, and llama.cpp.

  adapters_load.py --peft DIR --compressed_tensors DIR --lora_gguf F --gguf F
                   --node DIR

peft must load the adapter onto the model with every key used, hold exactly the
file's matrices, and change the logits. llama.cpp must load the LoRA GGUF
beside the GGUF, and continue prompts differently with it than without. The
last line gives the figure and the target.
"""

import argparse
import json
import os
import sys

import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM
from transformers.utils import logging
from transformers.utils.quantization_config import CompressedTensorsConfig

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "greedy"))
from greedy_parity import llama_greedy  # noqa: E402

PROMPTS = [[2, 818, 5279, 529, 7001, 563], [2, 651, 6037, 576, 6081, 603]]


def peft_rows(model_folder, adapter_folder):
    """(what, whether it holds)"""
    base = AutoModelForCausalLM.from_pretrained(
        model_folder,
        quantization_config=CompressedTensorsConfig(dequantize=True),
    )
    ids = torch.tensor(PROMPTS[:1])
    with torch.no_grad():
        before = base(ids).logits.clone()
        model = PeftModel.from_pretrained(base, adapter_folder)
        after = model(ids).logits
    saved = load_file(os.path.join(adapter_folder, "adapter_model.safetensors"))
    loaded = {
        name.replace(".default.", "."): parameter.detach()
        for name, parameter in model.named_parameters()
        if ".lora_" in name
    }
    yield "peft uses every key of the adapter", loaded.keys() == saved.keys()
    yield "peft holds the file's matrices", all(
        torch.equal(saved[name], loaded.get(name, torch.empty(0)))
        for name in saved
    )
    yield "the adapter changes the logits", not torch.equal(before, after)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--peft", required=True)
    parser.add_argument("--compressed_tensors", required=True)
    parser.add_argument("--lora_gguf", required=True)
    parser.add_argument("--gguf", required=True)
    parser.add_argument("--node", required=True)
    args = parser.parse_args()
    logging.disable_progress_bar()

    rows = list(peft_rows(args.compressed_tensors, args.peft))
    plain = llama_greedy(args.node, args.gguf, PROMPTS)
    tuned = llama_greedy(args.node, args.gguf, PROMPTS, args.lora_gguf)
    rows.append(("llama.cpp loads the LoRA GGUF", len(tuned) == len(PROMPTS)))
    rows.append(("and continues differently with it", plain != tuned))
    for what, holds in rows:
        print(f"{what}: {'yes' if holds else 'NO'}")
    held = sum(holds for _, holds in rows)
    print(f"adapters: {held} of {len(rows)} checks in peft and llama.cpp hold "
          f"(target {len(rows)})")
    return 0 if held == len(rows) else 1


if __name__ == "__main__":
    sys.exit(main())
