#!/usr/bin/env python3
"""Saves a LoRA adapter as peft does, to be read by others.

  peft_adapter.py --base GGUF --out FOLDER [--llama-cpp SOURCE --gguf FILE]
                  [--seed N]

Some kinds of a Gemma 3's linears, ranks and alphas by pattern, rank-stabilized;
A and B random from a seed, in bfloat16. With --llama-cpp, the sources of
llama.cpp, its convert_lora_to_gguf.py makes the same adapter as GGUF.
"""

import argparse
import os
import subprocess
import sys
import tempfile

import torch
from peft import LoraConfig, get_peft_model
from training_parity import load_gemma3

CONFIG = LoraConfig(
    r=12,
    lora_alpha=20,
    target_modules=["q_proj", "v_proj", "o_proj", "down_proj"],
    rank_pattern={"layers.3.mlp.down_proj": 5, r"layers\.\d+\.self_attn\.o_proj": 6,
                  "v_proj": 3},
    alpha_pattern={"v_proj": 7},
    use_rslora=True,
    init_lora_weights=False,
)
# llama.cpp's format has one alpha, and the scale of plain LoRA.
PLAIN = LoraConfig(
    r=12,
    lora_alpha=20,
    target_modules=["q_proj", "v_proj", "o_proj", "down_proj"],
    init_lora_weights=False,
)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--base", required=True)
    parser.add_argument("--out", required=True)
    parser.add_argument("--llama-cpp")
    parser.add_argument("--gguf")
    parser.add_argument("--seed", type=int, default=11)
    args = parser.parse_args()
    if bool(args.llama_cpp) != bool(args.gguf):
        parser.error("--llama-cpp and --gguf go together")
    torch.manual_seed(args.seed)
    model = load_gemma3(args.base)(torch.float32)
    config = model.config
    model = get_peft_model(model, PLAIN if args.gguf else CONFIG)
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            size = 0.05 if "lora_B" in name else 1  # as training makes it
            parameter.data = (parameter.data * size).bfloat16()
    model.save_pretrained(args.out)
    if not args.gguf:
        return 0
    with tempfile.TemporaryDirectory() as folder:
        config.architectures = ["Gemma3ForCausalLM"]
        config.save_pretrained(folder)
        subprocess.run(
            [sys.executable, os.path.join(args.llama_cpp, "convert_lora_to_gguf.py"),
             "--base", folder, "--outtype", "f32", "--outfile", args.gguf, args.out],
            check=True, stdout=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
