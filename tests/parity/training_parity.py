#!/usr/bin/env python3
"""Compares one training batch with transformers + peft.

  training_parity.py --base GGUF --f32 F --bf16 F [--peft FOLDER]

The two files are what //services/finetuner:dump_parity wrote for the batch in
each precision, with the adapter they share; --peft: the folder where peft
itself saved it, to be read by peft, else it is taken from the files. The peers' model is built from the
same GGUF, dequantized by the `gguf` package, and run three times: in float64
(the exact gradient), in float32 and in bfloat16.

Tolerance. Two float32 programs that round in different orders differ, so
"equal" means: our distance from the exact gradient is of the size of the peer's
own rounding error. With random rounding both distances are draws of one
spread, over the same chain of products; a factor of 4 covers the different
order of sums, and a wrong term (a mask, a scale, a missing norm) is orders of
magnitude larger. The distance is ||g - exact|| / ||exact|| over all gradients
together, and the largest of any one matrix likewise. For the loss the peer's
error can vanish by chance, so its bound has a floor of 8 units of float32 (or
bfloat16) at the size of the logits, which is where it is rounded.
"""

import argparse
import json
import sys

import gguf
import numpy as np
import torch
from gguf_names import gguf_name
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors import safe_open
from transformers import Gemma3ForCausalLM, Gemma3TextConfig
from transformers.models.gemma3 import modeling_gemma3
from transformers.utils import logging

FACTOR = 4.0
PRECISIONS = {  # and the unit in the last place of 1
    "f32": (torch.float32, 2.0**-24),
    "bf16": (torch.bfloat16, 2.0**-9),
}
CONFIG_FIELDS = ("r", "lora_alpha", "target_modules", "rank_pattern",
                 "alpha_pattern", "use_rslora")


def build_model(path, dtype):
    reader = gguf.GGUFReader(path)
    field = lambda key: reader.get_field("gemma3." + key).contents()
    tensors = {tensor.name: tensor for tensor in reader.tensors}
    config = Gemma3TextConfig(
        vocab_size=int(tensors["token_embd.weight"].shape[1]),
        hidden_size=int(field("embedding_length")),
        intermediate_size=int(field("feed_forward_length")),
        num_hidden_layers=int(field("block_count")),
        num_attention_heads=int(field("attention.head_count")),
        num_key_value_heads=int(field("attention.head_count_kv")),
        head_dim=int(field("attention.key_length")),
        query_pre_attn_scalar=int(field("attention.key_length")),
        sliding_window=int(field("attention.sliding_window")),
        rms_norm_eps=float(field("attention.layer_norm_rms_epsilon")),
        max_position_embeddings=int(field("context_length")),
        # The eager form takes its softmax in float32, which is right for all
        # but the exact run.
        attn_implementation="sdpa" if dtype == torch.float64 else "eager",
    )
    with torch.device("meta"):
        model = Gemma3ForCausalLM(config)
    model = model.to_empty(device="cpu").to(dtype)
    model.tie_weights()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            tensor = tensors[gguf_name(name)]
            values = gguf.dequantize(tensor.data, tensor.tensor_type)
            if "norm" in name:
                values = values.astype(np.float64) - 1.0
            parameter.copy_(torch.from_numpy(np.ascontiguousarray(values)))
    embedding = model.model.embed_tokens
    embedding.embed_scale = torch.tensor(config.hidden_size**0.5, dtype=dtype)
    if dtype == torch.float64:  # The same float32 factor as everyone else's.
        embedding.embed_scale = embedding.embed_scale.float().double()
    return model, config


def exact_rotation(config):
    """Rotary angles in float64, cast at the end."""

    def forward(self, x, position_ids, layer_type):
        theta = config.rope_parameters[layer_type]["rope_theta"]
        steps = torch.arange(0, config.head_dim, 2, dtype=torch.float64)
        angles = position_ids[..., None].double() * theta ** (-steps / config.head_dim)
        angles = torch.cat((angles, angles), dim=-1)
        return angles.cos().to(x.dtype), angles.sin().to(x.dtype)

    return forward


def load_gemma3(path):
    """What `run` takes: the model of a GGUF in a precision."""

    def load(dtype):
        model, config = build_model(path, dtype)
        modeling_gemma3.Gemma3RotaryEmbedding.forward = exact_rotation(config)
        return model

    return load


def run(load, adapter, examples, dtype):
    """Mean loss per label and {PEFT name: gradient in float64}.

    adapter: {"tensors" by name, "config"}, or "folder" instead of the config.
    """
    model = load(dtype)
    if "folder" in adapter:
        model = PeftModel.from_pretrained(model, adapter["folder"], is_trainable=True)
    else:
        model = get_peft_model(model, LoraConfig(**adapter["config"]))
    lora_dtype = torch.float64 if dtype == torch.float64 else torch.float32
    parameters = {}
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            key = name.replace(".default", "")
            tensor = adapter["tensors"][key]
            if "folder" in adapter and not torch.equal(parameter.float(), tensor):
                raise SystemExit(f"training parity: {key} is not as peft reads it")
            parameter.data = tensor.to(lora_dtype)
            parameters[key] = parameter
    labels = sum(len(tokens) - start for tokens, start in examples)
    keep_float = torch.Tensor.float
    if dtype == torch.float64:  # The norms go through Tensor.float().
        torch.Tensor.float = torch.Tensor.double
    try:
        loss = 0.0
        for tokens, start in examples:
            ids = torch.tensor([tokens])
            positions = torch.arange(start - 1, len(tokens) - 1)
            logits = model(input_ids=ids, logits_to_keep=positions, use_cache=False).logits[0]
            one = torch.nn.functional.cross_entropy(
                logits.to(lora_dtype), ids[0, start:], reduction="sum") / labels
            one.backward()
            loss += one.item()
    finally:
        torch.Tensor.float = keep_float
    return loss, {name: p.grad.double() for name, p in parameters.items()}


def distance(gradients, exact):
    """Over all matrices together, and the largest of any one."""
    errors = {n: (gradients[n] - exact[n]).norm().item() for n in exact}
    norms = {n: exact[n].norm().item() for n in exact}
    total = sum(e * e for e in errors.values()) ** 0.5
    return total / sum(n * n for n in norms.values()) ** 0.5, max(
        errors[n] / norms[n] for n in exact
    )


def read_dump(path):
    """(tensors by name, mean loss, what the config says of the adapter)"""
    with safe_open(path, framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}
        config = json.loads(file.metadata()["adapter_config"])
        return tensors, float(file.metadata()["loss"]), {
            name: config[name] for name in CONFIG_FIELDS}


def batch_of(tensors):
    """[(token ids, index of the first completion token)]"""
    tokens = tensors["tokens"].tolist()
    ends = tensors["segment_starts"].tolist()
    starts = tensors["completion_starts"].tolist()
    return [(tokens[a:b], start) for a, b, start in zip(ends, ends[1:], starts)]


def compare(dumps, load, folder=None):
    """(loss in float64, [(precision, what, our error, the peer's, bound)])

    dumps: {"f32" or "bf16": what read_dump gives}; load: as `run` takes it;
    folder: where peft saved the adapter.
    """
    first = next(iter(dumps.values()))
    tensors = {n: t for n, t in first[0].items() if n.startswith("base_model.")}
    adapter = {"tensors": tensors}
    adapter.update({"folder": folder} if folder else {"config": first[2]})
    examples = batch_of(first[0])
    exact_loss, exact = run(load, adapter, examples, torch.float64)
    rows = []
    for precision, dump in dumps.items():
        dtype, unit = PRECISIONS[precision]
        ours = {n: dump[0]["grad." + n].double() for n in exact}
        peer_loss, peer = run(load, adapter, examples, dtype)
        mine, theirs = distance(ours, exact), distance(peer, exact)
        loss_error = abs(peer_loss - exact_loss)
        rows += [
            (precision, "loss", abs(dump[1] - exact_loss), loss_error,
             max(FACTOR * loss_error, 8 * unit * 32)),
            (precision, "gradients, all", mine[0], theirs[0], FACTOR * theirs[0]),
            (precision, "gradients, worst matrix", mine[1], theirs[1],
             FACTOR * theirs[1]),
        ]
    return exact_loss, rows


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ("base", "f32", "bf16"):
        parser.add_argument("--" + name, required=True)
    parser.add_argument("--peft", help="where peft saved the adapter")
    arguments = parser.parse_args()
    logging.set_verbosity_error()

    dumps = {"f32": read_dump(arguments.f32), "bf16": read_dump(arguments.bf16)}
    tensors, _, config = dumps["f32"]
    matrices = [t for n, t in tensors.items() if n.startswith("base_model.")]
    ranks = sorted({t.shape[0] for n, t in tensors.items()
                    if n.startswith("base_model.") and "lora_A" in n})
    examples = batch_of(tensors)
    labels = sum(len(tokens) - start for tokens, start in examples)
    exact_loss, rows = compare(dumps, load_gemma3(arguments.base), arguments.peft)
    print(f"batch: {len(examples)} examples, {labels} labels, exact loss {exact_loss:.9f},"
          f" {len(matrices)} LoRA matrices of ranks {ranks}, use_rslora"
          f" {config['use_rslora']}")
    print(f"{'precision':<10}{'':<22}{'onegrid':>12}{'peft':>12}{'bound':>12}")
    worst = 0.0
    for precision, what, a, b, bound in rows:
        print(f"{precision:<10}{what:<24}{a:>10.2e}{b:>12.2e}{bound:>12.2e}")
        worst = max(worst, a / bound)
    print(f"training parity: largest error is {worst:.2f} of its bound, target <= 1")
    return 0 if worst <= 1 else 1


if __name__ == "__main__":
    sys.exit(main())
