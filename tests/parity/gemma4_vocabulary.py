#!/usr/bin/env python3
"""Builds a small vocabulary of Gemma 4's kind, the same for the same seed.

  tests/parity/gemma4_vocabulary.py --out DIR [--merged 1500] [--seed 1]
  tests/parity/gemma4_vocabulary.py --goldens DIR

DIR gets tokenizer.json and tokenizer_config.json as Hugging Face's tokenizers
reads them, and vocabulary.gguf as llama.cpp does, without weights. As in Gemma
4: pad 0, eos 1, bos 2, unk 3, mask 4, "<|turn>" 105, "<turn|>" 106, runs of
newlines from 107, runs of U+2581 behind them, "</s>" 212, byte tokens 238 to
493, then --merged tokens that are learned from made-up text, single characters
last. The merges are all splits of each token into two others, in the order of
the tokens. token_type in the GGUF is what llama.cpp's converter gives.

--goldens DIR writes the vocabulary with 150 learned tokens and texts with the
ids that `tokenizers` gives them, for the unit tests of services/model.
Needs tokenizers and gguf.
"""

import argparse
import collections
import json
import os
import re
import sys

import gguf
from tokenizers import (AddedToken, Tokenizer, decoders, models, normalizers,
                        pre_tokenizers, processors, trainers)

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "tokenizer_parity"))
from mixed_lines import mixed_lines  # noqa: E402  (needs the path above)

SPACE = "\u2581"
NAMED = {0: "<pad>", 1: "<eos>", 2: "<bos>", 3: "<unk>", 4: "<mask>",
         46: "<|tool>", 47: "<tool|>", 48: "<|tool_call>", 49: "<tool_call|>",
         50: "<|tool_response>", 51: "<tool_response|>", 52: '<|"|>',
         98: "<|think|>", 100: "<|channel>", 101: "<channel|>",
         105: "<|turn>", 106: "<turn|>"}
VISIBLE = {48, 49, 50, 51, 52, 100, 101}
PLAIN = {168: "<table>", 169: "</table>", 170: "<caption>", 212: "</s>"}
FIRST_NEWLINES, FIRST_SPACES, RUN_MAX = 107, 138, 31
FIRST_BYTE, FIRST_LEARNED = 238, 494
GOLDEN_LEARNED, GOLDEN_LINES = 150, 60
CORPUS_LINES = 4000
CHARACTERS = 400  # the most frequent ones


def frequent_characters(lines):
    counts = collections.Counter("".join(lines))
    order = sorted(counts, key=lambda c: (-counts[c], c))
    return order[:CHARACTERS]


def learned_tokens(lines, characters, count, known):
    """The first `count` tokens that BPE learns, other than the known ones."""
    # Cut at rare characters: `tokenizers` breaks ties between them anyhow.
    rare = re.compile("[^" + re.escape("".join(characters)) + "]|\n")
    lines = [part for line in lines for part in rare.split(line) if part]
    model = Tokenizer(models.BPE())
    model.normalizer = normalizers.Replace(" ", SPACE)
    model.pre_tokenizer = pre_tokenizers.Split(SPACE, "merged_with_next")
    trainer = trainers.BpeTrainer(
        vocab_size=CHARACTERS + count + 64, min_frequency=2,
        max_token_length=16, show_progress=False)
    model.train_from_iterator(lines, trainer)
    order = sorted(model.get_vocab().items(), key=lambda item: item[1])
    merged = [text for text, _ in order if len(text) > 1 and text not in known]
    return merged[:count]


def vocabulary(count, seed):
    """Texts by id."""
    texts = {**NAMED, **PLAIN}
    for i in range(RUN_MAX):
        texts[FIRST_NEWLINES + i] = "\n" * (i + 1)
        if i > 0:
            texts[FIRST_SPACES + i - 1] = SPACE * (i + 1)
    for byte in range(256):
        texts[FIRST_BYTE + byte] = f"<0x{byte:02X}>"
    unused = 0
    for i in range(FIRST_LEARNED):
        if i not in texts:
            texts[i] = f"<unused{unused}>"
            unused += 1
    # Without names that llama.cpp takes for control tokens of whatever type.
    lines = mixed_lines(CORPUS_LINES, seed, system=False,
                        names=list(PLAIN.values()))
    characters = frequent_characters(lines)
    learned = learned_tokens(lines, characters, count, set(texts.values()))
    characters = [SPACE if c == " " else c for c in characters if c != "\n"]
    for text in [*learned, *dict.fromkeys(characters)]:
        texts[len(texts)] = text
    return [texts[i] for i in range(len(texts))]


def merges_of(texts):
    """Runs first, then the splits of the learned tokens."""
    normal = set(texts[FIRST_NEWLINES:min(PLAIN)] + texts[FIRST_LEARNED:])
    merges = []
    for text in texts[FIRST_NEWLINES:min(PLAIN)] + texts[FIRST_LEARNED:]:
        for cut in range(1, len(text)):
            if text[:cut] in normal and text[cut:] in normal:
                merges.append((text[:cut], text[cut:]))
    return merges


def hf_tokenizer(texts, merges):
    tokenizer = Tokenizer(models.BPE(
        vocab={text: i for i, text in enumerate(texts)}, merges=merges,
        unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    tokenizer.normalizer = normalizers.Replace(" ", SPACE)
    tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse()])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<bos> $A", pair="<bos> $A <bos>:1 $B:1",
        special_tokens=[("<bos>", 2)])
    for text in NAMED.values():
        tokenizer.add_special_tokens([AddedToken(text, normalized=False,
                                                 special=True)])
    return tokenizer


def write_config(path):
    roles = {0: "pad", 1: "eos", 2: "bos", 3: "unk", 4: "mask"}
    config = {f"{role}_token": NAMED[i] for i, role in roles.items()}
    config.update(
        tokenizer_class="GemmaTokenizer", add_bos_token=True,
        extra_special_tokens=[NAMED[i] for i in NAMED if i not in roles])
    with open(path, "w", encoding="utf-8") as file:
        json.dump(config, file, indent=2)


def token_type(i, text):
    if FIRST_BYTE <= i < FIRST_BYTE + 256:
        return gguf.TokenType.BYTE
    if i in VISIBLE:
        return gguf.TokenType.USER_DEFINED
    return gguf.TokenType.CONTROL if i in NAMED else gguf.TokenType.NORMAL


def write_gguf(path, texts, merges):
    writer = gguf.GGUFWriter(path, "gemma4")
    # llama.cpp wants a configuration even of a file that is a vocabulary.
    writer.add_context_length(2048)
    writer.add_embedding_length(256)
    writer.add_block_count(2)
    writer.add_feed_forward_length(256)
    writer.add_head_count(1)
    writer.add_key_length(256)
    writer.add_value_length(256)
    writer.add_key_length_swa(256)
    writer.add_value_length_swa(256)
    writer.add_embedding_length_per_layer_input(0)
    writer.add_shared_kv_layers(0)
    writer.add_sliding_window(512)
    writer.add_sliding_window_pattern([True, False])
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_tokenizer_model("gemma4")
    writer.add_token_list([text.encode() for text in texts])
    writer.add_token_scores([-1000.0] * len(texts))
    writer.add_token_types([token_type(i, t) for i, t in enumerate(texts)])
    writer.add_token_merges([" ".join(merge) for merge in merges])
    writer.add_pad_token_id(0)
    writer.add_eos_token_id(1)
    writer.add_bos_token_id(2)
    writer.add_unk_token_id(3)
    writer.add_mask_token_id(4)
    writer.add_add_space_prefix(False)
    writer.add_add_bos_token(True)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()


def write_goldens(folder, tokenizer, seed):
    tokenizer.save(os.path.join(folder, "gemma4_tokenizer.json"), pretty=False)
    lines = [line[:80] for line in mixed_lines(400, seed + 1, system=False)]
    lines = ["", " ", "\n" * 40, "a\n\n b", "<|turn>user\nHi<turn|>\n",
             "</s><table>", "\U0001F600\u0301", *lines[:GOLDEN_LINES]]
    path = os.path.join(folder, "gemma4_tokens.jsonl")
    with open(path, "w", encoding="utf-8") as file:
        for line in lines:
            encoded = tokenizer.encode(line, add_special_tokens=False)
            file.write(json.dumps({"text": line, "ids": encoded.ids}) + "\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--out")
    parser.add_argument("--goldens")
    parser.add_argument("--merged", type=int, default=1500)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    if bool(args.out) == bool(args.goldens):
        parser.error("one of --out and --goldens is needed")
    count = GOLDEN_LEARNED if args.goldens else args.merged
    texts = vocabulary(count, args.seed)
    merges = merges_of(texts)
    tokenizer = hf_tokenizer(texts, merges)
    if args.goldens:
        write_goldens(args.goldens, tokenizer, args.seed)
    else:
        os.makedirs(args.out, exist_ok=True)
        tokenizer.save(os.path.join(args.out, "tokenizer.json"), pretty=False)
        write_config(os.path.join(args.out, "tokenizer_config.json"))
        write_gguf(os.path.join(args.out, "vocabulary.gguf"), texts, merges)
    print(f"{len(texts)} tokens, {len(merges)} merges")


if __name__ == "__main__":
    main()
