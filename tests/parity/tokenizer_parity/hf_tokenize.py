"""Tokenizes lines with Hugging Face's tokenizers, control tokens parsed.
  python hf_tokenize.py TOKENIZER_JSON < lines
Each input line is a JSON string; each output line is a JSON array of ids,
without a begin-of-sequence token.
"""

import json
import sys

from tokenizers import Tokenizer

tokenizer = Tokenizer.from_file(sys.argv[1])
lines = [json.loads(line) for line in sys.stdin]
for start in range(0, len(lines), 500):
    for encoding in tokenizer.encode_batch(lines[start:start + 500],
                                           add_special_tokens=False):
        print(json.dumps(encoding.ids, separators=(",", ":")))
