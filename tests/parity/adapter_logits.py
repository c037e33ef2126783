"""Log-probabilities of a model with an adapter, by transformers and peft.

  adapter_logits.py --model FILE.gguf --windows FILE.json --out FILE.npz
                    [--adapter FOLDER]

FILE.gguf's dequantized weights in float32, the adapter beside them, not merged.
windows: a list of lists of token ids. Writes, for each window i, ids_i and
logprobs_i [positions, TOP]: the most likely ids at each position but the last.
"""

import argparse
import json

import numpy as np
import torch
from engine_logits_parity import TOP, load_reference
from peft import PeftModel


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True)
    parser.add_argument("--windows", required=True)
    parser.add_argument("--out", required=True)
    parser.add_argument("--adapter")
    args = parser.parse_args()
    model = load_reference(args.model)
    if args.adapter:
        model = PeftModel.from_pretrained(model, args.adapter).eval()
    with open(args.windows, encoding="utf-8") as file:
        windows = json.load(file)
    arrays = {}
    for i, window in enumerate(windows):
        with torch.no_grad():
            logits = model(torch.tensor([window])).logits[0, :-1]
            top = torch.log_softmax(logits, -1).topk(TOP, -1)
        arrays[f"ids_{i}"] = top.indices.numpy()
        arrays[f"logprobs_{i}"] = top.values.numpy()
    np.savez(args.out, **arrays)


if __name__ == "__main__":
    main()
