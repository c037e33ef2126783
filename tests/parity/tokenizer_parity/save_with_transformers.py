"""Saves a tokenizer as transformers 5 does: tokenizer.json, no tokenizer.model.
  python save_with_transformers.py FOLDER OUT
FOLDER has a tokenizer that AutoTokenizer loads. The merges are those that
transformers makes of a vocabulary without any: also of tokens that are no normal
pieces of the SentencePiece model.
"""

import json
import os
import sys

from transformers import AutoTokenizer
from transformers.convert_slow_tokenizer import generate_merges

source, out = sys.argv[1:3]
AutoTokenizer.from_pretrained(source).save_pretrained(out)
path = os.path.join(out, "tokenizer.json")
with open(path, encoding="utf-8") as file:
    tokenizer = json.load(file)
model = tokenizer["model"]
model["merges"] = generate_merges(model["vocab"], None)
with open(path, "w", encoding="utf-8") as file:
    json.dump(tokenizer, file, ensure_ascii=False)
