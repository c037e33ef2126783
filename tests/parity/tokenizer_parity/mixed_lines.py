"""Mixed text for tokenizer comparisons: the same lines for the same seed.

Half of the lines come from text files of the system, where there are any; the
rest is made up: characters of many scripts, code, runs of spaces, tabs and
newlines, names of control tokens whole and damaged, numbers, emoji, long words.
"""

import os
import random

SYSTEM_FILES = [
    "/usr/share/common-licenses",
    "/usr/share/perl",
    "/usr/lib/python3",
    "/usr/lib/python3.11",
    "/usr/include",
    "/usr/share/doc",
    "/usr/share/i18n/locales",
]
SYSTEM_FILES_MAX = 400
LINES_PER_FILE_MAX = 200
LINE_CHARACTERS_MAX = 2000

# First and last code point of blocks that text is drawn from.
BLOCKS = [
    (0x20, 0x7E), (0xA0, 0x17F), (0x370, 0x3FF), (0x400, 0x4FF),
    (0x531, 0x58A), (0x5D0, 0x5EA), (0x621, 0x64A), (0x905, 0x939),
    (0xE01, 0xE3A), (0x10A0, 0x10FF), (0x1100, 0x11FF), (0x1E00, 0x1EFF),
    (0x2000, 0x206F), (0x2190, 0x21FF), (0x2500, 0x257F), (0x2581, 0x2583),
    (0x3041, 0x30FF), (0x4E00, 0x9FA5), (0xAC00, 0xD7A3), (0xE000, 0xE010),
    (0xFE00, 0xFE0F), (0xFF01, 0xFF5E), (0x1D400, 0x1D4FF),
    (0x1F300, 0x1F64F), (0x1F1E6, 0x1F1FF), (0x20000, 0x20100),
]
WORDS = ("the quick brown fox return while include static const std vector "
         "naïve façade résumé Straße größer привет мир 你好 世界 こんにちは "
         "안녕 مرحبا שלום नमस्ते สวัสดี int4 int8 GGUF BF16 0x1F 3.14159 "
         "https://example.org/a?b=c&d=e foo_bar fooBar FOO-BAR don't I'm"
         ).split(" ")
CONTROL = ["<bos>", "<eos>", "<pad>", "<unk>", "<mask>", "<start_of_turn>",
           "<end_of_turn>", "<unused0>", "<unused42>", "<unused6241>",
           "<start_of_image>", "<end_of_image>", "[multimodal]", "<table>",
           "</table>", "<h1>", "</h1>", "<br>", "<strong>", "</s>", "<s>",
           "<0x0A>", "<0xFF>", "<0x41>", "<|turn>", "[INST]", "<sup>",
           "<code>", "</code>", "<blockquote>", "<unused99999>"]
GEMMA4_CONTROL = ["<|turn>", "<turn|>", "<|tool>", "<tool|>", "<|tool_call>",
                  "<tool_call|>", "<|tool_response>", "<tool_response|>",
                  '<|"|>', "<|think|>", "<|channel>", "<channel|>"]
RUNS = [" ", "\n", "\t", "\r\n", "\u2581", "\u00a0", " \n", "\n ", "\t "]
CODE = ["for (int i = 0; i < n; ++i) {", "    return x[i] * 2.5f;", "}",
        "def f(a, *args, **kwargs):", "\treturn {k: v for k, v in a.items()}",
        "SELECT * FROM t WHERE a >= 10 -- all", "<div class=\"a\">&nbsp;</div>",
        "#include <vector>", "$ ls -la | grep '^d' > out.txt 2>&1",
        "{\"key\": [1, 2.0, null, \"v\\n\"]}", "\\frac{a}{b} \\sum_{i=0}^n x_i"]


def _system_lines(limit):
    lines = []
    files = []
    for root in SYSTEM_FILES:
        for folder, folders, names in os.walk(root):
            folders.sort()
            files += [os.path.join(folder, name) for name in sorted(names)
                      if not name.endswith((".gz", ".pyc", ".png", ".so"))]
    step = max(1, len(files) // SYSTEM_FILES_MAX)
    for path in files[::step]:
        try:
            with open(path, encoding="utf-8") as file:
                text = file.read(1 << 20)
        except (OSError, UnicodeDecodeError):
            continue
        # Some pieces of several lines, so that newlines are in the text.
        pieces = text.split("\n")
        for start in range(0, min(len(pieces), LINES_PER_FILE_MAX), 3):
            size = 1 + start % 4
            piece = "\n".join(pieces[start:start + size])
            if piece:
                lines.append(piece[:LINE_CHARACTERS_MAX])
    step = max(1, len(lines) // max(1, limit))
    return lines[::step][:limit]


def _damaged(rng, name):
    kind = rng.randrange(5)
    at = rng.randrange(len(name))
    if kind == 0:
        return name[:at] + name[at + 1:]
    if kind == 1:
        return name[:at] + rng.choice(" <>_x|\n") + name[at:]
    if kind == 2:
        return name.upper()
    if kind == 3:
        return name + name[:at]
    return name


def _made_up_line(rng, names):
    parts = []
    for _ in range(rng.randint(1, 24)):
        kind = rng.randrange(8)
        if kind == 0:
            low, high = rng.choice(BLOCKS)
            parts.append("".join(chr(rng.randint(low, high))
                                 for _ in range(rng.randint(1, 12))))
        elif kind == 1:
            parts.append(rng.choice(RUNS) * rng.randint(1, 40))
        elif kind == 2:
            parts.append(_damaged(rng, rng.choice(names)))
        elif kind == 3:
            parts.append(rng.choice(CODE))
        elif kind == 4:
            parts.append(str(rng.randrange(10 ** rng.randint(1, 15))))
        elif kind == 5:
            word = rng.choice(WORDS)
            parts.append(word * rng.randint(1, 4))
        else:
            parts.append(" ".join(rng.choice(WORDS)
                                  for _ in range(rng.randint(1, 8))))
    return "".join(parts)


def mixed_lines(count, seed, system=True, names=None):
    """`count` strings without U+0000, which llama.cpp's callers cut at. All are
    made up if `system` is false: then they are the same on every machine.
    `names` are the control tokens to write; default: Gemma 3's."""
    rng = random.Random(seed)
    lines = _system_lines(count // 2) if system else []
    while len(lines) < count:
        lines.append(_made_up_line(rng, names or CONTROL))
    rng.shuffle(lines)
    return [line.replace("\0", "") for line in lines]
