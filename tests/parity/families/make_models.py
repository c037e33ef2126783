"""Makes tiny random models of the structure of every Gemma that is supported.

  make_models.py --out DIR [--seed N] [--chat] [--only NAME]...

Writes DIR/NAME, a Hugging Face folder of f32 weights, for each structure (see
MODELS), and DIR/tokenizer.gguf, a vocabulary of bytes for all of them. Norms
and scales are random around 1, so that one left out or used twice is seen; the
linears' weights are such that attention and experts choose, not average.
Needs torch, transformers and gguf.
"""

import argparse
import os

import gguf
import torch
from transformers import (
    Gemma3ForCausalLM, Gemma3TextConfig, Gemma4ForCausalLM, Gemma4TextConfig,
)

VOCABULARY = 320
SLIDING, FULL = "sliding_attention", "full_attention"
COMMON = {
    "vocab_size": VOCABULARY, "hidden_size": 64, "intermediate_size": 96,
    "num_attention_heads": 4, "head_dim": 32, "sliding_window": 16,
    "max_position_embeddings": 2048,
}
GEMMA4 = {
    "global_head_dim": 64, "final_logit_softcapping": 30.0,
    "vocab_size_per_layer_input": VOCABULARY,
}


def pattern(count, every):
    return [FULL if (i + 1) % every == 0 else SLIDING for i in range(count)]


MODELS = {
    # name: (family, what makes it, configuration)
    "gemma3": (3, "Gemma 3 270M, 1B: one key/value head", {
        "num_hidden_layers": 6, "num_key_value_heads": 1,
        "query_pre_attn_scalar": 32, "layer_types": pattern(6, 6)}),
    "gemma3_scaled": (3, "Gemma 3 4B, 12B: grouped heads, linear rope scaling", {
        "num_hidden_layers": 6, "num_key_value_heads": 2,
        "query_pre_attn_scalar": 32, "layer_types": pattern(6, 6),
        "rope_parameters": {
            FULL: {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6},
            SLIDING: {"rope_type": "default", "rope_theta": 1e4}}}),
    "gemma4_e2b": (4, "E2B: per-layer inputs, shared keys, double-wide MLP", {
        "num_hidden_layers": 10, "num_key_value_heads": 1,
        "layer_types": pattern(10, 5), "hidden_size_per_layer_input": 32,
        "num_kv_shared_layers": 5, "use_double_wide_mlp": True}),
    "gemma4_own_head": (4, "E2B as for phones: a head of its own", {
        "num_hidden_layers": 10, "num_key_value_heads": 1,
        "layer_types": pattern(10, 5), "hidden_size_per_layer_input": 32,
        "num_kv_shared_layers": 5, "use_double_wide_mlp": True,
        "tie_word_embeddings": False}),
    "gemma4_e4b": (4, "E4B: per-layer inputs, shared keys, grouped heads", {
        "num_hidden_layers": 12, "num_key_value_heads": 2,
        "layer_types": pattern(12, 6), "hidden_size_per_layer_input": 32,
        "num_kv_shared_layers": 6}),
    "gemma4_12b": (4, "12B, 31B: values are keys, one global key/value head", {
        "num_hidden_layers": 6, "num_key_value_heads": 2,
        "num_global_key_value_heads": 1, "attention_k_eq_v": True,
        "layer_types": pattern(6, 6), "hidden_size_per_layer_input": 0}),
    "gemma4_26b_a4b": (4, "26B-A4B: experts beside the MLP", {
        "num_hidden_layers": 6, "num_key_value_heads": 2,
        "num_global_key_value_heads": 1, "attention_k_eq_v": True,
        "layer_types": pattern(6, 6), "hidden_size_per_layer_input": 0,
        "enable_moe_block": True, "num_experts": 8, "top_k_experts": 2,
        "moe_intermediate_size": 32}),
}


def randomize(model, seed):
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        named = [*model.named_parameters(), *(
            (name, buffer) for name, buffer in model.named_buffers()
            if name.endswith("layer_scalar"))]
        for name, tensor in named:
            noise = torch.randn(tensor.shape, generator=generator)
            if name.endswith("layer_scalar"):
                tensor.copy_(0.8 + 0.1 * noise.clamp(-2, 2))
            elif name.endswith(("q_norm.weight", "k_norm.weight")) and isinstance(
                    model, Gemma4ForCausalLM):
                # There is no other factor on the scores.
                tensor.copy_(0.4 + 0.08 * noise.clamp(-2, 2))
            elif "norm" in name or name.endswith(("scale",)):
                plain = 0.0 if isinstance(model, Gemma3ForCausalLM) else 1.0
                tensor.copy_(plain + 0.2 * noise.clamp(-2, 2))
            elif "embed" in name:
                tensor.copy_(noise * 0.5)
            else:
                tensor.copy_(noise * tensor.shape[-1] ** -0.5 * 1.5)


def make_model(name, seed):
    family, _, values = MODELS[name]
    if family == 3:
        config = Gemma3TextConfig(**{**COMMON, **values})
        model = Gemma3ForCausalLM(config)
    else:
        config = Gemma4TextConfig(**{**COMMON, **GEMMA4, **values})
        model = Gemma4ForCausalLM(config)
    randomize(model, seed)
    return model


def write_tokenizer(path, chat=False):
    """Control tokens, one token for each byte, and letters to fill up; for a chat
    the marks of Gemma 3's turns."""
    tokens = ["<pad>", "<eos>", "<bos>", "<unk>"]
    types = [3, 3, 3, 2]
    tokens += [f"<0x{byte:02X}>" for byte in range(256)]
    types += [6] * 256
    if chat:
        tokens += ["<start_of_turn>", "<end_of_turn>"]
        types += [3, 3]
    while len(tokens) < VOCABULARY:
        tokens.append(chr(0x4E00 + len(tokens)))
        types.append(1)
    writer = gguf.GGUFWriter(path, "gemma3")
    writer.add_tokenizer_model("llama")
    writer.add_token_list(tokens)
    writer.add_token_scores([-1000.0] * len(tokens))
    writer.add_token_types(types)
    writer.add_bos_token_id(2)
    writer.add_eos_token_id(1)
    writer.add_unk_token_id(3)
    writer.add_pad_token_id(0)
    writer.add_add_space_prefix(False)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--out", required=True)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--chat", action="store_true", help="a tokenizer with turns")
    parser.add_argument("--only", action="append", choices=sorted(MODELS))
    args = parser.parse_args()
    os.makedirs(args.out, exist_ok=True)
    write_tokenizer(os.path.join(args.out, "tokenizer.gguf"), args.chat)
    for name in args.only or MODELS:
        model = make_model(name, args.seed)
        model.save_pretrained(os.path.join(args.out, name))
        print(f"{name}: {sum(p.numel() for p in model.parameters())} parameters")


if __name__ == "__main__":
    main()
