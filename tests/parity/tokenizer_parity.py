#!/usr/bin/env python3
"""Compares OneGrid's token ids with llama.cpp's on mixed text.

  tests/parity/tokenizer_parity.py --gguf FILE --tool TOKENIZE_TOOL \
      --node-dir DIR [--lines 10000] [--seed 1]

--tool is //services/model:tokenize_tool; DIR/node_modules holds node-llama-cpp.
Each line is compared twice: as user data (control tokens stay text) and with
control tokens parsed. Prints a table and `tokenizer: N of M lines equal`; exits
0 only if all are equal, 1 if some differ, 2 if a side could not be run.
"""

import argparse
import json
import os
import subprocess
import sys

HERE = os.path.join(os.path.dirname(os.path.abspath(__file__)),
                    "tokenizer_parity")
sys.path.insert(0, HERE)
from mixed_lines import mixed_lines  # noqa: E402  (needs the path above)

MODES = [("plain", "control tokens as text"), ("control", "control tokens")]
SHOWN_DIFFERENCES_MAX = 5


def run(command, text):
    result = subprocess.run(command, input=text, encoding="utf-8",
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                            check=False)
    if result.returncode != 0:
        print(f"{command[0]} failed with exit code {result.returncode}:\n"
              f"{result.stderr.strip()}", file=sys.stderr)
        sys.exit(2)
    return [json.loads(line) for line in result.stdout.split("\n") if line]


def show_difference(line, ours, theirs):
    at = 0
    while at < min(len(ours), len(theirs)) and ours[at] == theirs[at]:
        at += 1
    print(f"  differs at token {at}: onegrid {ours[at:at + 6]}, llama.cpp "
          f"{theirs[at:at + 6]}, line {line[:100]!r}")


def compare(args, mode, lines, text):
    tool = [args.tool, f"--gguf={args.gguf}"]
    if mode == "control":
        tool.append("--parse_control")
    ours = run(tool, text)
    theirs = run(["node", os.path.join(HERE, "llama_tokenize.mjs"),
                  args.node_dir, args.gguf, mode], text)
    if not len(ours) == len(theirs) == len(lines):
        print(f"expected {len(lines)} results, found {len(ours)} from onegrid "
              f"and {len(theirs)} from llama.cpp", file=sys.stderr)
        sys.exit(2)
    different = [i for i in range(len(lines)) if ours[i] != theirs[i]]
    for i in different[:SHOWN_DIFFERENCES_MAX]:
        show_difference(lines[i], ours[i], theirs[i])
    return len(lines) - len(different), sum(len(ids) for ids in ours)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--gguf", required=True)
    parser.add_argument("--tool", required=True)
    parser.add_argument("--node-dir", required=True)
    parser.add_argument("--lines", type=int, default=10000)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()

    lines = mixed_lines(args.lines, args.seed)
    text = "".join(json.dumps(line) + "\n" for line in lines)
    rows = [(label, *compare(args, mode, lines, text)) for mode, label in MODES]
    print(f"{'lines tokenized with':<26}{'equal':>8}{'lines':>8}{'tokens':>10}")
    for label, equal, tokens in rows:
        print(f"{label:<26}{equal:>8}{len(lines):>8}{tokens:>10}")
    equal = min(row[1] for row in rows)
    print(f"tokenizer: {equal} of {len(lines)} lines equal")
    return 0 if equal == len(lines) else 1


if __name__ == "__main__":
    sys.exit(main())
