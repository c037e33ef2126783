#!/usr/bin/env python3
"""Compares greedy continuations with llama.cpp's, token for token.

  greedy_parity.py --gguf F --server BIN --node DIR

20 prompts, 48 tokens each, the same token ids for both. Where the two first
part, the log-probabilities that the engine in float gives the two tokens must
be less than 0.05 apart: a near-tie, which rounding may turn either way. The
last line gives the figure and the target.
"""

import argparse
import json
import os
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.dirname(HERE))
from engine import FLOAT_MODE, Engine  # noqa: E402

TOKENS = 48
NEAR_TIE = 0.05
END_OF_SEQUENCE = 1


def llama_greedy(node, gguf, prompts, adapter=None):
    """llama.cpp's continuations; `adapter` is a LoRA GGUF beside the model."""
    binary = os.path.join(node, "bin/node")
    result = subprocess.run(
        [binary if os.path.exists(binary) else "node",
         os.path.join(HERE, "llama_greedy.mjs"), node, gguf, str(TOKENS),
         *([adapter] if adapter else [])],
        input="".join(json.dumps(prompt) + "\n" for prompt in prompts),
        stdout=subprocess.PIPE, text=True, check=True,
    )
    return [json.loads(line) for line in result.stdout.splitlines()]


def first_difference(a, b):
    """Index where two continuations part; their common length if never."""
    # A continuation that ended early ended with an end token.
    a = a if len(a) == TOKENS else [*a, END_OF_SEQUENCE]
    b = b if len(b) == TOKENS else [*b, END_OF_SEQUENCE]
    for i, (x, y) in enumerate(zip(a, b)):
        if x != y:
            return i, x, y
    return min(len(a), len(b)), None, None


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--gguf", required=True)
    parser.add_argument("--server", required=True, help="inference binary")
    parser.add_argument("--node", required=True,
                        help="folder with node_modules/node-llama-cpp")
    parser.add_argument("--flags", nargs="*", default=FLOAT_MODE,
                        help="how the engine that is compared computes")
    args = parser.parse_args()

    with open(os.path.join(HERE, "prompts.txt"), encoding="utf-8") as file:
        texts = file.read().splitlines()
    with Engine(args.server, args.gguf, args.flags) as engine:
        prompts = [engine.tokenize(text) for text in texts]
        ours = [engine.greedy(prompt, TOKENS) for prompt in prompts]
    theirs = llama_greedy(args.node, args.gguf, prompts)
    agreed = 0
    print("| prompt                                   | same tokens | gap     |")
    print("|------------------------------------------|-------------|---------|")
    with Engine(args.server, args.gguf, FLOAT_MODE) as engine:
        for text, prompt, a, b in zip(texts, prompts, ours, theirs):
            same, x, y = first_difference(a, b)
            gap = None
            if x is not None:
                _, (px, py) = engine.next_logprobs([*prompt, *a[:same]], [x, y])
                gap = abs(px - py)
            holds = gap is None or gap < NEAR_TIE
            agreed += holds
            shown = "" if gap is None else f"{gap:.4f}"
            print(f"| {text[:40]:40} | {same:11} | {shown:7} |"
                  f"{'' if holds else ' NO'}")
    print(f"greedy: {agreed} of {len(texts)} prompts agree with llama.cpp for "
          f"{TOKENS} tokens or to a near-tie (target {len(texts)})")
    return 0 if agreed == len(texts) else 1


if __name__ == "__main__":
    sys.exit(main())
