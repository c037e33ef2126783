#!/usr/bin/env python3
"""Compares OneGrid's chat tokens with the family's Jinja template.

  tests/parity/chat_template_parity.py --template FILE --gguf FILE \\
      --tool TOKENIZE_TOOL --node-dir DIR [--conversations 2000] [--seed 1]
  tests/parity/chat_template_parity.py --template FILE \\
      --text-tool CHAT_TEXT_TOOL [--tools] [--conversations 2000] [--seed 1]
  tests/parity/chat_template_parity.py --template FILE --goldens OUT \\
      [--format NAME] [--tools]

FILE of --template is the chat template of a Gemma 3 or Gemma 4 model: a .jinja
file, a GGUF file with tokenizer.chat_template, or a Python source that has it
as _CHAT_TEMPLATE; the GGUF has a vocabulary of the same family. With
--drop-empty-thought the empty thought that the templates of Gemma 4 12B and
more put before an answer is taken off, as in those of the E models. jinja2 renders it as transformers does, llama.cpp tokenizes the
text with its control tokens, and //services/model:tokenize_tool --chat makes
tokens of the turns. Prints `chat template: N of M conversations equal`; exits 0
only if all are equal, 1 if some differ, 2 if a side could not be run.

With --text-tool it compares texts instead, those of jinja2 and of
//services/model:chat_text_tool, which goes by the template, too; half of the
conversations with thinking. With --tools, where the template knows turns of
tools, the conversations have declarations, calls and results.

With --goldens it writes conversations and their texts for chat_template_test;
with --format, of a Gemma 4 template, it adds to OUT, with thinking on and off,
for the format of that name (services/model/chat_format.h).
"""

import argparse
import ast
import hashlib
import json
import os
import random
import subprocess
import sys

import jinja2
import jinja2.sandbox

HERE = os.path.join(os.path.dirname(os.path.abspath(__file__)),
                    "tokenizer_parity")
sys.path.insert(0, HERE)
from mixed_lines import CONTROL, mixed_lines  # noqa: E402  (path above)

GOLDEN_CONVERSATIONS = 40
GOLDEN_CONVERSATIONS_OF_A_FORMAT = 12
# What Python's str.strip takes off, and some that it leaves.
SPACES = ["", " ", "\n", "\t\n ", "\r\n", "\v\f", "\x1c\x1f", "\x85", "\xa0",
          "\u1680", "\u2003", "\u2028\u2029", "\u202f", "\u205f", "\u3000",
          "\u200b", "\ufeff", "\x1b"]
SHOWN_DIFFERENCES_MAX = 5
EMPTY_THOUGHT = "<|channel>thought\n<channel|>"


def read_template(path):
    if path.endswith(".gguf"):
        import gguf
        field = gguf.GGUFReader(path).fields.get("tokenizer.chat_template")
        return field.contents() if field else None
    with open(path, encoding="utf-8") as file:
        text = file.read()
    if not path.endswith(".py"):
        return text
    for node in ast.parse(text).body:
        if isinstance(node, ast.Assign) and node.targets[0].id == "_CHAT_TEMPLATE":
            return ast.literal_eval(node.value)
    return None


def compile_template(text):
    def refuse(message):
        raise jinja2.TemplateError(message)

    environment = jinja2.sandbox.ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True)
    environment.globals["raise_exception"] = refuse
    return environment.from_string(text)


def conversations(lines, count, seed):
    """Random conversations whose texts hold no name of a control token."""
    rng = random.Random(seed)
    lines = [line for line in lines
             if not any(name in line for name in CONTROL) and "<" not in line]

    def text():
        body = rng.choice(lines) if rng.randrange(12) else ""
        return rng.choice(SPACES) + body + rng.choice(SPACES)

    for _ in range(count):
        messages = []
        if rng.randrange(2):
            messages.append({"role": "system", "content": text()})
        for i in range(rng.randint(1, 6)):
            role = "assistant" if i % 2 else "user"
            messages.append({"role": role, "content": text()})
        yield {"messages": messages, "open_answer": bool(rng.randrange(2))}


def tool_conversations(count, seed):
    """Random conversations with tools, calls and results."""
    rng = random.Random(seed)
    words = ["a", "B", "size_of", "Name", "type", "description", "x-1", "zeta",
             "nullable", "é"]
    kinds = ["string", "integer", "number", "boolean", "array", "object",
             "STRING", ["string", "null"]]

    def word():
        return rng.choice(words) + rng.choice(["", "2", "_k"])

    def text():
        return rng.choice(["", " ", "It is\n cold. ", "ü 'q' \"d\"", "{a:1}",
                           "1,2", " x:[y] ", "\tdone\n"])

    def value(depth=0):
        choices = [lambda: text(), lambda: rng.randint(-9, 10**12),
                   lambda: rng.choice([0.5, 1e-7, 1e22, 3.0, 123456.789, -2.5]),
                   lambda: bool(rng.randrange(2)), lambda: None]
        if depth < 3:
            choices += [lambda: [value(depth + 1)
                                 for _ in range(rng.randrange(3))],
                        lambda: {word(): value(depth + 1)
                                 for _ in range(rng.randrange(4))}]
        return rng.choice(choices)()

    def schema(depth=0):
        made = {}
        kind = rng.choice(kinds)
        if rng.randrange(8):
            made["type"] = kind
        if rng.randrange(2):
            made["description"] = text()
        if rng.randrange(4) == 0:
            made["nullable"] = bool(rng.randrange(2))
        if rng.randrange(3) == 0:
            made["enum"] = [rng.choice(["m", "M", 3, 0.5]) for _ in range(2)]
        if kind == "array" and rng.randrange(5):
            made["items"] = schema(depth + 1)
            if rng.randrange(3) == 0:
                made["items"]["default"] = value(1)
        if kind == "object" and depth < 3 and rng.randrange(5):
            made.update(members(depth + 1))
        elif kind == "object":  # the template takes each key for a parameter
            made.pop("enum", None)
        return made

    def members(depth):
        made = {"properties": {word(): schema(depth)
                               for _ in range(rng.randrange(4))}}
        if rng.randrange(2):
            made["required"] = [word() for _ in range(rng.randrange(3))]
        return made

    def function():
        made = {"name": word()}
        if rng.randrange(5):
            made["description"] = rng.choice([text(), text(), None])
        if rng.randrange(6):
            made["parameters"] = {"type": "object", **members(0)}
            if rng.randrange(6) == 0:
                del made["parameters"]["type"]
        return {"type": "function", "function": made}

    for _ in range(count):
        messages = [{"role": "user", "content": "u" + text()}]
        if rng.randrange(2):
            messages.insert(0, {"role": "system", "content": text()})
        for _ in range(rng.randrange(4)):
            if rng.randrange(4):
                calls = [{"id": f"c{i}", "type": "function", "function": {
                    "name": word(),
                    "arguments": {word(): value()
                                  for _ in range(rng.randrange(4))}}}
                         for i in range(rng.randint(1, 2))]
                messages.append({"role": "assistant", "content": text(),
                                 "tool_calls": calls})
                if rng.randrange(2):
                    messages[-1]["reasoning_content"] = "r" + text()
                messages += [{"role": "tool", "content": text(),
                              "tool_call_id": call["id"]} for call in calls]
                if rng.randrange(3) == 0:
                    messages.append({"role": "user", "content": text()})
            elif messages[-1]["role"] != "assistant":
                messages.append({"role": "assistant", "content": text()})
                messages.append({"role": "user", "content": text()})
        yield {"messages": messages, "open_answer": bool(rng.randrange(4)),
               "enable_thinking": bool(rng.randrange(2)),
               "tools": [function() for _ in range(rng.randrange(4))]}


def render(template, case, drop_empty_thought=False):
    text = template.render(
        messages=case["messages"], bos_token="<bos>",
        add_generation_prompt=case["open_answer"],
        enable_thinking=case.get("enable_thinking", False),
        tools=case.get("tools"))
    return text.removesuffix(EMPTY_THOUGHT) if drop_empty_thought else text


def run(command, lines):
    result = subprocess.run(
        command, input="".join(json.dumps(line) + "\n" for line in lines),
        encoding="utf-8", stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        check=False)
    if result.returncode != 0:
        print(f"{command[0]} failed with exit code {result.returncode}:\n"
              f"{result.stderr.strip()}", file=sys.stderr)
        sys.exit(2)
    return [json.loads(line) for line in result.stdout.split("\n") if line]


def compare(args, cases, texts):
    ours = run([args.tool, f"--gguf={args.gguf}", "--chat"], cases)
    theirs = run(["node", os.path.join(HERE, "llama_tokenize.mjs"),
                  args.node_dir, args.gguf, "control"], texts)
    if not len(ours) == len(theirs) == len(cases):
        print(f"expected {len(cases)} results, found {len(ours)} from onegrid "
              f"and {len(theirs)} from llama.cpp", file=sys.stderr)
        sys.exit(2)
    different = [i for i in range(len(cases)) if ours[i] != theirs[i]]
    for i in different[:SHOWN_DIFFERENCES_MAX]:
        print(f"  differs: {cases[i]}\n    onegrid   {ours[i]}\n"
              f"    llama.cpp {theirs[i]}")
    return len(cases) - len(different), sum(len(ids) for ids in ours)


def write_goldens(args, template, cases):
    mode = "a" if args.format else "w"
    with open(args.goldens, mode, encoding="utf-8") as file:
        for i, case in enumerate(cases):
            if args.format:
                case["format"] = args.format
                case.setdefault("enable_thinking", i % 3 == 0)
            case["text"] = render(template, case, args.drop_empty_thought)
            file.write(json.dumps(case, ensure_ascii=False) + "\n")


def compare_texts(args, template, cases):
    for i, case in enumerate(cases):
        case.setdefault("enable_thinking", bool(i % 2))
    theirs = [render(template, case) for case in cases]
    ours = run([args.text_tool, f"--template={args.template}"], cases)
    different = [i for i in range(len(cases)) if ours[i] != theirs[i]]
    for i in different[:SHOWN_DIFFERENCES_MAX]:
        print(f"  differs: {cases[i]}\n    onegrid {ours[i]!r}\n"
              f"    jinja2  {theirs[i]!r}")
    equal = len(cases) - len(different)
    print(f"chat template: {equal} of {len(cases)} texts equal "
          f"(target {len(cases)})")
    return 0 if equal == len(cases) else 1


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--template", required=True)
    parser.add_argument("--text-tool")
    parser.add_argument("--tools", action="store_true")
    parser.add_argument("--goldens")
    parser.add_argument("--format")
    parser.add_argument("--drop-empty-thought", action="store_true")
    parser.add_argument("--gguf")
    parser.add_argument("--tool")
    parser.add_argument("--node-dir")
    parser.add_argument("--conversations", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()

    source = read_template(args.template)
    if source is None:
        parser.error(f"{args.template} holds no chat template")
    print("template sha256:", hashlib.sha256(source.encode()).hexdigest())
    template = compile_template(source)
    if args.goldens:
        lines = [line[:60] for line in mixed_lines(
            400, args.seed, system=False) if line.isprintable()]
        if args.tools:
            cases = tool_conversations(GOLDEN_CONVERSATIONS_OF_A_FORMAT,
                                       args.seed)
            write_goldens(args, template, cases)
            return 0
        count = (GOLDEN_CONVERSATIONS_OF_A_FORMAT if args.format
                 else GOLDEN_CONVERSATIONS)
        cases = conversations(lines, count, args.seed)
        write_goldens(args, template, cases)
        return 0
    if not (args.text_tool or args.gguf and args.tool and args.node_dir):
        parser.error("--gguf, --tool and --node-dir are needed")
    lines = mixed_lines(args.conversations, args.seed)
    cases = list(tool_conversations(args.conversations, args.seed)
                 if args.tools else
                 conversations(lines, args.conversations, args.seed))
    if args.text_tool:
        return compare_texts(args, template, cases)
    texts = [render(template, case, args.drop_empty_thought) for case in cases]
    equal, tokens = compare(args, cases, texts)
    print(f"chat template: {equal} of {len(cases)} conversations equal, "
          f"{tokens} tokens (target {len(cases)})")
    return 0 if equal == len(cases) else 1


if __name__ == "__main__":
    sys.exit(main())
