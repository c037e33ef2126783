"""Reads a Hugging Face folder as llama.cpp's converter reads Gemma 4's.
  python converter_reads.py FOLDER GGUF
Prints [equal, all]: how many tokens (with type) and merges are those of GGUF.
"""

import json
import sys
from itertools import zip_longest
from pathlib import Path

import gguf

# The converter shows these to programs that read the text.
VISIBLE = {"<|channel>", "<channel|>", "<|tool_call>", "<tool_call|>",
           "<|tool_response>", "<tool_response|>", '<|"|>'}

folder, path = Path(sys.argv[1]), sys.argv[2]
tokens = []
for text, _, kind in gguf.LlamaHfVocab(folder).all_tokens():
    text = bytes(text).decode()
    tokens.append((text, 4 if text in VISIBLE else int(kind)))
merges = gguf.SpecialVocab(folder, load_merges=True).merges
fields = gguf.GGUFReader(path).fields
want = list(zip(fields["tokenizer.ggml.tokens"].contents(),
                fields["tokenizer.ggml.token_type"].contents()))
pairs = [*zip_longest(tokens, want),
         *zip_longest(merges, fields["tokenizer.ggml.merges"].contents())]
print(json.dumps([sum(a == b for a, b in pairs), len(pairs)]))
