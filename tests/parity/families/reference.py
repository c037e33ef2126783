"""A model of tests/parity/families in transformers, with a GGUF's weights.

`load(folder, path, dtype)` gives the model of the Hugging Face folder's
configuration, its weights those that the GGUF file holds, dequantized by the
`gguf` package: so what is compared is the computing, not the rounding of
weights.
"""

import gguf
import numpy as np
import torch
from gguf_names import gguf_name
from transformers import AutoConfig, Gemma3ForCausalLM, Gemma4ForCausalLM
from transformers.models.gemma3 import modeling_gemma3
from transformers.models.gemma4 import modeling_gemma4

OWN_HEAD = "output.weight"


def dequantized(path):
    """{GGUF name: float64 array in Hugging Face's shape}"""
    return {
        tensor.name: gguf.dequantize(tensor.data, tensor.tensor_type)
        .astype(np.float64).reshape([int(n) for n in reversed(tensor.shape)])
        for tensor in gguf.GGUFReader(path).tensors
    }


def exact_rotation(self, x, position_ids, layer_type):
    """Rotary angles in float64, cast at the end."""
    rope = self.config.rope_parameters[layer_type]
    index = self.config.layer_types.index(layer_type)
    if self.config.model_type.startswith("gemma4"):
        head_dim = self.config.per_layer_config[index].head_dim
    else:
        head_dim = self.config.head_dim
    steps = torch.arange(0, head_dim, 2, dtype=torch.float64)
    frequencies = rope["rope_theta"] ** (-steps / head_dim)
    if rope["rope_type"] == "linear":
        frequencies /= rope["factor"]
    if rope["rope_type"] == "proportional":
        rotated = int(rope["partial_rotary_factor"] * head_dim // 2)
        frequencies[rotated:] = 0
    angles = position_ids[..., None].double() * frequencies
    angles = torch.cat((angles, angles), dim=-1)
    return angles.cos().to(x.dtype), angles.sin().to(x.dtype)


modeling_gemma3.Gemma3RotaryEmbedding.forward = exact_rotation
modeling_gemma4.Gemma4TextRotaryEmbedding.forward = exact_rotation


def load(folder, path, dtype):
    config = AutoConfig.from_pretrained(folder)
    # The eager form takes its softmax in float32, which is right for all but
    # the exact run; experts likewise one by one.
    config._attn_implementation = "sdpa" if dtype == torch.float64 else "eager"
    config._experts_implementation = "eager"
    gemma3 = config.model_type.startswith("gemma3")
    kind = Gemma3ForCausalLM if gemma3 else Gemma4ForCausalLM
    model = kind(config).to(dtype).eval()
    arrays = dequantized(path)
    # A tied head is the embedding's tensor under another name.
    names = {"lm_head.weight": OWN_HEAD} if OWN_HEAD in arrays else {}
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            values = arrays[names.get(name) or gguf_name(name)]
            if gemma3 and "norm" in name:
                values = values - 1.0
            tensor.copy_(torch.from_numpy(np.ascontiguousarray(values)))
        for module in model.modules():
            if hasattr(module, "embed_scale"):
                # The same float32 factor as everyone else's.
                root = torch.tensor(float(module.scalar_embed_scale))
                module.embed_scale = root.float().to(dtype)
    return model


class Doubles:
    """Within it, float64 models take norms in float64, too."""

    def __enter__(self):
        self.kept = torch.Tensor.float
        torch.Tensor.float = torch.Tensor.double

    def __exit__(self, *_):
        torch.Tensor.float = self.kept


def log_probs(model, ids):
    """[positions, vocabulary] float64 log-probabilities after each token."""
    tokens = torch.tensor([ids])
    with torch.no_grad():
        if model.dtype == torch.float64:
            with Doubles():
                logits = model(input_ids=tokens, use_cache=False).logits[0]
        else:
            logits = model(input_ids=tokens, use_cache=False).logits[0]
    return torch.log_softmax(logits.double(), dim=-1).numpy()


def greedy(model, ids, count):
    """`count` ids after the prompt's, with a key/value cache."""
    with torch.no_grad():
        out = model.generate(
            torch.tensor([ids]), max_new_tokens=count, do_sample=False,
            eos_token_id=None, pad_token_id=0, use_cache=True)
    return out[0, len(ids):].tolist()
