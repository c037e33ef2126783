"""Compares the inference server's log-probabilities with transformers'.

  engine_logits_parity.py --server BIN --model FILE.gguf --text FILE

Both sides compute the same dequantized weights of FILE.gguf: transformers
(Gemma3ForCausalLM, float32) and the server, once with float activations and
KV cache, once as served. For every position of --tokens tokens in windows of
--window, it takes transformers' 1,024 most likely ids and compares the two
log-probabilities of each; what is outside them is one more outcome of the KL
divergence. Prints one line per mode and exits 0 only if float mode stays below
--max_abs for ids above --floor and the served mode below --served_kl.
Needs torch, transformers, gguf, grpcio and the system's protoc.
"""

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time

import gguf
import grpc
import numpy as np
import torch
from transformers import Gemma3ForCausalLM, Gemma3TextConfig

TOP = 1024
HF_LINEARS = {
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
HF_NORMS = {
    "attn_norm": "input_layernorm",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "post_attention_norm": "post_attention_layernorm",
    "ffn_norm": "pre_feedforward_layernorm",
    "post_ffw_norm": "post_feedforward_layernorm",
}


def hf_name(name):
    """The transformers name of a GGUF tensor, and whether it is a norm."""
    if name == "token_embd.weight":
        return "model.embed_tokens.weight", False
    if name == "output_norm.weight":
        return "model.norm.weight", True
    _, layer, part, _ = name.split(".")
    norm = part in HF_NORMS
    tail = HF_NORMS[part] if norm else HF_LINEARS[part]
    return f"model.layers.{layer}.{tail}.weight", norm


def load_reference(path):
    reader = gguf.GGUFReader(path)

    def key(name, default=None):
        field = reader.get_field("gemma3." + name)
        return default if field is None else field.contents()

    layers = key("block_count")
    state = {}
    for tensor in reader.tensors:
        name, is_norm = hf_name(tensor.name)
        values = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
        values = torch.from_numpy(np.array(values, dtype=np.float32))
        state[name] = values - 1 if is_norm else values
    config = Gemma3TextConfig(
        vocab_size=state["model.embed_tokens.weight"].shape[0],
        hidden_size=key("embedding_length"),
        intermediate_size=key("feed_forward_length"),
        num_hidden_layers=layers,
        num_attention_heads=key("attention.head_count"),
        num_key_value_heads=key("attention.head_count_kv"),
        head_dim=key("attention.key_length"),
        query_pre_attn_scalar=key("attention.key_length"),
        sliding_window=key("attention.sliding_window"),
        layer_types=[
            "full_attention" if (i + 1) % 6 == 0 else "sliding_attention"
            for i in range(layers)
        ],
        rms_norm_eps=key("attention.layer_norm_rms_epsilon"),
        max_position_embeddings=key("context_length"),
        tie_word_embeddings=True,
        attn_implementation="eager",
    )
    with torch.device("meta"):
        model = Gemma3ForCausalLM(config)
    state["lm_head.weight"] = state["model.embed_tokens.weight"]
    model = model.to_empty(device="cpu").float()
    # Buffers (rotary frequencies, embedding scale) are not in the state.
    fresh = Gemma3ForCausalLM(
        Gemma3TextConfig(**{**config.to_dict(), "vocab_size": 8}))
    buffers = dict(fresh.named_buffers())
    for name, buffer in model.named_buffers():
        buffer.copy_(buffers[name])
    model.load_state_dict(state, strict=True)
    return model.eval()


class Server:
    def __init__(self, binary, model, flags, folder, messages):
        port_file = os.path.join(folder, "port")
        if os.path.exists(port_file):
            os.remove(port_file)
        self.process = subprocess.Popen(
            [binary, f"--model={model}", f"--port_file={port_file}", *flags])
        deadline = time.time() + 60
        while not os.path.exists(port_file):
            if self.process.poll() is not None or time.time() > deadline:
                sys.exit("the server did not start")
            time.sleep(0.05)
        with open(port_file) as file:
            address = file.read().strip()
        limit = [("grpc.max_receive_message_length", -1)]
        channel = grpc.insecure_channel(address, options=limit)

        def unary(name, request, response):
            return channel.unary_unary(
                "/onegrid.v1.GenerationService/" + name,
                request_serializer=request.SerializeToString,
                response_deserializer=response.FromString)

        self.score = unary("ScoreTokens", messages.ScoreTokensRequest,
                           messages.ScoreTokensResponse)
        self.tokenize = unary("Tokenize", messages.TokenizeRequest,
                              messages.TokenizeResponse)

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        if self.process.wait(60) != 0:
            sys.exit("the server did not stop cleanly")


def import_messages(folder):
    root = os.path.dirname(
        os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    subprocess.run(
        ["protoc", "-I", root, f"--python_out={folder}",
         "proto/onegrid/v1/generation.proto"], check=True)
    sys.path.insert(0, folder)
    from proto.onegrid.v1 import generation_pb2
    return generation_pb2


def kl_with_rest(p_log, q_log):
    """KL(p || q) per row over the listed ids and everything else as one."""
    p, q = np.exp(p_log), np.exp(q_log)
    kl = (p * (p_log - q_log)).sum(1)
    p_rest = np.maximum(1 - p.sum(1), 1e-12)
    q_rest = np.maximum(1 - q.sum(1), 1e-12)
    return kl + p_rest * np.log(p_rest / q_rest)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--server", required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--text", required=True)
    parser.add_argument("--tokens", type=int, default=1536)
    parser.add_argument("--window", type=int, default=768)
    parser.add_argument("--max_abs", type=float, default=2e-3)
    parser.add_argument("--floor", type=float, default=-12.0)
    parser.add_argument("--served_kl", type=float, default=0.005)
    args = parser.parse_args()

    folder = tempfile.mkdtemp()
    messages = import_messages(folder)
    with open(args.text, encoding="utf-8") as file:
        text = file.read()
    model = load_reference(args.model)

    windows, reference = None, []
    failed = False
    for mode, flags in [
        ("float", ["--activations=f32", "--kv_cache=f32"]),
        ("served", []),
    ]:
        server = Server(args.server, args.model, flags, folder, messages)
        if windows is None:
            ids = list(server.tokenize(
                messages.TokenizeRequest(text=text)).token_ids)[:args.tokens]
            windows = [[2] + ids[i:i + args.window]
                       for i in range(0, len(ids), args.window)]
            for window in windows:
                with torch.no_grad():
                    logits = model(torch.tensor([window])).logits[0, :-1]
                    top = torch.log_softmax(logits, -1).topk(TOP, -1)
                reference.append((top.indices.numpy(), top.values.numpy()))
        worst, kls, same, seconds = 0.0, [], [], 0.0
        for window, (top_ids, top_log) in zip(windows, reference):
            reply = server.score(messages.ScoreTokensRequest(
                token_ids=window, candidates_per_position=TOP,
                candidate_ids=top_ids.reshape(-1)))
            ours = np.array(reply.candidate_logprobs,
                            dtype=np.float64).reshape(top_log.shape)
            likely = top_log > args.floor
            worst = max(worst, float(np.abs(ours - top_log)[likely].max()))
            kls.append(kl_with_rest(top_log.astype(np.float64), ours))
            same.append(np.array(reply.argmax_ids) == top_ids[:, 0])
            seconds += (reply.compute_time.seconds +
                        reply.compute_time.nanos * 1e-9)
        server.stop()
        kl, top1 = np.concatenate(kls).mean(), np.concatenate(same).mean()
        positions = sum(len(w) - 1 for w in windows)
        print(f"{mode}: positions={positions} max_abs_logprob={worst:.2e} "
              f"mean_kl={kl:.2e} top1={100 * top1:.2f}% "
              f"positions_per_second={positions / seconds:.0f}", flush=True)
        if mode == "float":
            failed |= worst > args.max_abs
        else:
            failed |= kl > args.served_kl
    print("FAILED" if failed else "OK")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
