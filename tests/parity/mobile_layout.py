#!/usr/bin/env python3
"""Imports of Google's mobile layout, against transformers' own reading of it.

  mobile_layout.py --bin-dir DIR [--seed 1] [--out DIR]

Makes a tiny random E2B (families/make_models.py) in the layout of quant_method
"gemma": linears of 2, 4 and 8 bits, embedding, head and per-layer table
packed (the table with a scale for each layer's part of a row), expressions of
which one is first in the file and another fits earlier in the name; activation
scales are 0. Twice: with row scales of 8 significant
bits, and with any f32 scales. transformers loads the folder with its own
quantizer.

Weights: what the GGUF holds (dequantized by `gguf`) must be what transformers
multiplies with, bit for bit where the scale has 8 bits; other scales move by
half of the last of 8 bits at most, those of tables by half of the last of 11,
and the import's report must name these matrices and no others.
Log-probabilities, of the first folder, of all tokens at each of 80 positions:
the engine in float against transformers in float64, at most 4 times as far off
as transformers in float32 (why: tests/evidence/families_parity).

Needs torch, transformers 5.23 and gguf 0.19. The last line gives the figure
and the target; exits 0 only if all holds.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM
from transformers.utils import logging

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)),
                                "families"))
import make_models
import reference
from engine import FLOAT_MODE, Engine
from gguf_names import gguf_name

POSITIONS = 80
FACTOR = 4
HEAD, TABLE = "lm_head", "model.embed_tokens_per_layer"
PER_LAYER = 32
QUANTIZATION = {
    "quant_method": "gemma",
    "num_bits": 4,
    "quantize_embeddings": True,
    # For down_proj of the later layers "layers" fits earlier in the name.
    "module_quant_configs": {
        "down_proj": {"num_bits": 8},
        "embed_tokens_per_layer": {"num_bits": 4},
        r"lm_head|embed_tokens": {"num_bits": 2},
        r"per_layer_(input_gate|projection)$": {"num_bits": 8},
        r"layers\.[5-9]\.mlp": {"num_bits": 2},
    },
    "modules_to_not_convert": ["model.per_layer_model_projection"],
}


def bits_of(module):
    """Spelled out, not searched for."""
    if module in (HEAD, "model.embed_tokens"):
        return 2
    if module.endswith(("per_layer_input_gate", "per_layer_projection")):
        return 8
    if ".mlp." in module and int(module.split(".")[2]) >= 5:
        return 2
    return 8 if module.endswith("down_proj") else 4


def pack(codes, bits):
    """Low bits first, as code + 2^(bits - 1); 8 bits as they are."""
    if bits == 8:
        return codes.to(torch.int8)
    stored = (codes + 2 ** (bits - 1)).to(torch.uint8)
    parts = stored.reshape(len(stored), -1, 8 // bits)
    packed = torch.zeros(parts.shape[:-1], dtype=torch.uint8)
    for i in range(8 // bits):
        packed |= parts[..., i] << (bits * i)
    return packed


def eight_bits(scale):
    mantissa, exponent = torch.frexp(scale)
    return torch.ldexp(torch.round(mantissa * 256) / 256, exponent)


def quantize(module, weight, exact):
    """The tensors of a packed module."""
    bits = bits_of(module)
    lowest = -(2 ** (bits - 1))
    if bits == 8:
        lowest += 1  # The grid here has no -128.
    # The table has a scale for each layer's part of a row.
    rows = weight.reshape(-1, PER_LAYER) if module == TABLE else weight
    scale = rows.abs().amax(1, keepdim=True) / -lowest
    if exact:
        scale = eight_bits(scale)
    codes = torch.round(rows / scale).clamp(lowest, 2 ** (bits - 1) - 1)
    codes, scale = codes.reshape(weight.shape), scale.reshape(len(weight), -1)
    if "embed_tokens" in module:
        return {module + ".embedding_quantized": pack(codes, bits),
                module + ".embedding_scale": scale}
    return {module + ".weight": pack(codes, bits),
            module + ".weight_scale": scale,
            module + ".input_activation_scale": torch.tensor(0.0),
            module + ".output_activation_scale": torch.tensor(0.0)}


def make_folder(folder, seed, exact):
    model = make_models.make_model("gemma4_own_head", seed)
    skipped = QUANTIZATION["modules_to_not_convert"]
    tensors, modules = {}, []
    for name, tensor in model.state_dict().items():
        module = name.removesuffix(".weight")
        if tensor.ndim == 2 and module not in skipped:
            tensors |= quantize(module, tensor.float(), exact)
            modules.append(module)
        else:
            tensors[name] = tensor.contiguous()
    os.makedirs(folder)
    save_file(tensors, os.path.join(folder, "model.safetensors"),
              metadata={"format": "pt"})
    config = model.config.to_dict()
    config["architectures"] = ["Gemma4ForCausalLM"]
    config["quantization_config"] = QUANTIZATION
    with open(os.path.join(folder, "config.json"), "w", encoding="utf-8") as file:
        json.dump(config, file, default=str)
    return modules


def load(folder, dtype, path=None):
    """With `path`, the one matrix that is not packed is the GGUF's: the import
    rounds it to 8 bits. The class takes scales of parts of a row, but makes
    room for one a row only."""
    model = AutoModelForCausalLM.from_pretrained(
        folder, dtype=dtype, ignore_mismatched_sizes=True,
        attn_implementation="sdpa" if dtype == torch.float64 else "eager").eval()
    scale = load_file(os.path.join(folder, "model.safetensors"))[
        TABLE + ".embedding_scale"]
    model.get_submodule(TABLE).embedding_scale = torch.nn.Parameter(scale)
    for module in model.modules():
        if hasattr(module, "scalar_embed_scale"):
            # The same float32 factor as everyone else's.
            root = torch.tensor(float(module.scalar_embed_scale)).float()
            module.scalar_embed_scale = float(root)
            if hasattr(module, "embed_scale"):
                module.embed_scale = root.to(dtype)
    if path:
        projection = reference.dequantized(path)["per_layer_model_proj.weight"]
        with torch.no_grad():
            model.model.per_layer_model_projection.weight.copy_(
                torch.from_numpy(projection))
    return model


def weights(model, modules):
    """{GGUF name: float32 values that transformers multiplies with}"""
    values = {}
    for name in modules:
        module = model.get_submodule(name)
        table = "embed_tokens" in name
        found = module.weight if table else module._dequantize_weights()
        gguf = "output.weight" if name == HEAD else gguf_name(name + ".weight")
        values[gguf] = found.detach().numpy()
    return values


def import_folder(args, work, folder):
    """(path of the GGUF, report)"""
    path = folder + ".gguf"
    found = subprocess.run(
        [os.path.join(args.bin_dir, "services/exporter/exporter"),
         f"--import={folder}", f"--out={path}",
         f"--tokenizer_from={work}/tokenizer.gguf"],
        check=True, text=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    return path, json.loads(found.stdout)


def compare_weights(path, expected, report):
    """(matrices that are as they must be, those with the same bits, largest
    relative error, whether the report names just the others)"""
    ours = reference.dequantized(path)
    good, moved, largest = 0, set(), 0.0
    for name, values in expected.items():
        found = ours[name].astype(np.float32)
        table = "embd" in name
        bound = 2.0 ** (-12 if table else -9)
        error = np.abs(found - values) / np.maximum(np.abs(values), 1e-30)
        # A scale is off by half of its last bit's step, of its own binade.
        worst = float(error.max())
        largest = max(largest, worst)
        good += worst <= 2 * bound
        if worst > 0:
            moved.add(name)
    tensors = report.get("tensorsOffGrid", report.get("tensors_off_grid", []))
    named = {tensor["tensor"] for tensor in tensors}
    return good, len(expected) - len(moved), largest, named == moved


def compare_log_probs(args, folder, path, seed):
    """(error of the engine, of transformers in float32)"""
    exact_model = load(folder, torch.float64, path)
    model = load(folder, torch.float32, path)
    vocabulary = model.config.vocab_size
    random = np.random.default_rng(seed)
    ids = [2] + random.integers(4, vocabulary, POSITIONS).tolist()
    exact = reference.log_probs(exact_model, ids)[:-1]
    peer = abs(reference.log_probs(model, ids)[:-1] - exact).max()
    binary = os.path.join(args.bin_dir, "services/inference/inference")
    with Engine(binary, path, FLOAT_MODE) as engine:
        response = engine.score(ids, 1,
                                candidates=list(range(vocabulary)) * POSITIONS)
    ours = np.array(response.candidate_logprobs).reshape(POSITIONS, vocabulary)
    return abs(ours - exact).max(), peer


def run(args, work):
    make_models.write_tokenizer(os.path.join(work, "tokenizer.gguf"))
    checks = []
    print(f"{'scales':<12}{'matrices':>9}{'same bits':>10}{'largest error':>15}"
          f"{'named':>7}{'log-prob. error':>17}{'transformers':>14}")
    for name in ("8 bits", "f32"):
        exact = name == "8 bits"
        folder = os.path.join(work, name.replace(" ", "_"))
        modules = make_folder(folder, args.seed, exact)
        path, report = import_folder(args, work, folder)
        expected = weights(load(folder, torch.float32), modules)
        good, same, largest, named = compare_weights(path, expected, report)
        checks += [good == len(expected), named]
        row = f"{name:<12}{len(expected):>9}{same:>10}{largest:>15.2g}"
        row += f"{'yes' if named else 'NO':>7}"
        if exact:
            checks.append(same == len(expected))
            error, peer = compare_log_probs(args, folder, path, args.seed)
            checks.append(error <= FACTOR * peer)
            row += f"{error:>17.2g}{peer:>14.2g}"
        print(row)
    print(f"mobile_layout: {sum(checks)} of {len(checks)} checks hold (target "
          f"{len(checks)})")
    return 0 if all(checks) else 1


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--bin-dir", required=True, help="built binaries")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", help="new folder for the models; default: none")
    args = parser.parse_args()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    if args.out:
        os.makedirs(args.out)
        return run(args, args.out)
    with tempfile.TemporaryDirectory() as work:
        return run(args, work)


if __name__ == "__main__":
    sys.exit(main())
