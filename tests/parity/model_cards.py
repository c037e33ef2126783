#!/usr/bin/env python3
"""Reads the cards of an export with huggingface_hub, as the Hub does.

  model_cards.py --export DIR [--untuned]

Every README.md below DIR must parse and say what the format is. The last line
gives the figure and the target.
"""

import argparse
import os
import sys

from huggingface_hub import ModelCard

RELATIONS = {"gguf": "finetune", "compressed_tensors": "finetune",
             "lora_gguf": "adapter", "peft": "adapter"}
LIBRARIES = {"gguf": "gguf", "compressed_tensors": "transformers",
             "lora_gguf": "gguf", "peft": "peft"}


def problems(folder, form, untuned):
    """What is wrong with the card of one format."""
    data = ModelCard.load(os.path.join(folder, "README.md")).data.to_dict()
    relation = RELATIONS[form]
    if untuned and relation == "finetune":
        relation = "quantized"
    expected = {"license": ("gemma", "apache-2.0"),
                "base_model_relation": (relation,),
                "library_name": (LIBRARIES[form],),
                "pipeline_tag": ("text-generation",)}
    for key, values in expected.items():
        if data.get(key) not in values:
            yield f"{form}: {key} is {data.get(key)!r}, expected one of {values}"
    if not isinstance(data.get("base_model"), str):
        yield f"{form}: no base_model"
    if "onegrid" not in data.get("tags", []):
        yield f"{form}: no tag onegrid"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--export", required=True)
    parser.add_argument("--untuned", action="store_true")
    args = parser.parse_args()
    forms = [form for form in RELATIONS
             if os.path.isdir(os.path.join(args.export, form))]
    good = 0
    for form in forms:
        wrong = list(problems(os.path.join(args.export, form), form, args.untuned))
        print(*wrong, sep="\n", end="\n" if wrong else "")
        good += not wrong
    print(f"model cards: {good} of {len(forms)} read by huggingface_hub "
          f"(target {len(forms)})")
    return 0 if forms and good == len(forms) else 1


if __name__ == "__main__":
    sys.exit(main())
