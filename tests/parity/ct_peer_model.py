#!/usr/bin/env python3
"""Writes small Gemma 3 models that compressed-tensors quantized and packed.

  ct_peer_model.py --out DIR [--seed 1] SCHEME-DTYPE...

SCHEME is a key of SCHEMES below, DTYPE bfloat16 or another. Weights are random;
scales are the peer's own (minimum and maximum of each group), in the model's
dtype, and the folder DIR/SCHEME-DTYPE is what ModelCompressor and
save_pretrained make of it. The vocabulary is that of Gemma 3 270M, whose GGUF
can lend its tokenizer.
"""

import argparse
import os

import torch
from compressed_tensors import ModelCompressor
from compressed_tensors.quantization import (
    QuantizationConfig,
    QuantizationStatus,
    apply_quantization_config,
)
from compressed_tensors.quantization.utils import calculate_qparams
from transformers import Gemma3ForCausalLM, Gemma3TextConfig
from transformers.utils import logging

VOCABULARY = 262144


def scheme(bits, group, targets=("Linear",)):
    weights = {"num_bits": bits, "type": "int", "symmetric": True}
    if group:
        weights |= {"strategy": "group", "group_size": group}
    else:
        weights |= {"strategy": "channel"}
    return {"targets": list(targets), "weights": weights}


# name -> config groups
SCHEMES = {
    "w4a16_g32": [scheme(4, 32)],
    "w4a16_g128": [scheme(4, 128)],
    "w4a16_channel": [scheme(4, 0)],
    "w8a16_g32": [scheme(8, 32)],
    "w8a16_channel": [scheme(8, 0)],
    "w2a16_g64": [scheme(2, 64)],
    "mixed": [
        scheme(4, 32, ["re:.*self_attn.*"]),
        scheme(8, 32, ["re:.*down_proj"]),
        scheme(2, 64, ["re:.*layers.0.mlp.(gate|up)_proj"]),
    ],
}


def make_model(dtype, seed):
    torch.manual_seed(seed)
    config = Gemma3TextConfig(
        vocab_size=VOCABULARY, hidden_size=128, intermediate_size=256,
        num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
        head_dim=64, query_pre_attn_scalar=64, sliding_window=64,
        max_position_embeddings=512, dtype=dtype)
    model = Gemma3ForCausalLM(config).to(dtype)
    for name, parameter in model.named_parameters():
        # Norms about 0, as the architecture has them, not all the same.
        scale = 0.1 if name.endswith("norm.weight") else 0.05
        torch.nn.init.normal_(parameter.data, std=scale)
    return model


def calibrate(module):
    """Scales from the largest weights of each group."""
    args = module.quantization_scheme.weights
    weight = module.weight.data
    group = args.group_size if args.strategy == "group" else weight.shape[1]
    groups = weight.reshape(weight.shape[0], -1, group)
    scales, _ = calculate_qparams(groups.amin(-1), groups.amax(-1), args)
    module.weight_scale.data = scales.to(weight.dtype)
    module.weight_zero_point.data.zero_()
    module.quantization_status = QuantizationStatus.FROZEN


def write_model(out, name, dtype, seed):
    model = make_model(dtype, seed)
    groups = {f"group_{i}": group for i, group in enumerate(SCHEMES[name])}
    apply_quantization_config(
        model, QuantizationConfig(config_groups=groups, ignore=["lm_head"]),
        show_progress=False)
    for module in model.modules():
        if getattr(module, "quantization_scheme", None) is not None:
            calibrate(module)
    compressor = ModelCompressor.from_pretrained_model(model)
    compressor.compress_model(model)
    model.save_pretrained(out)
    compressor.update_config(out)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", required=True)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("models", nargs="+", metavar="SCHEME-DTYPE")
    args = parser.parse_args()
    logging.disable_progress_bar()
    torch.set_num_threads(2)
    for model in args.models:
        name, dtype = model.rsplit("-", 1)
        write_model(os.path.join(args.out, model), name, getattr(torch, dtype),
                    args.seed)


if __name__ == "__main__":
    main()
