"""Runs an inference server and talks to it; for the parity scripts.

Needs grpcio, protobuf and the system's protoc.
"""

import os
import signal
import subprocess
import sys
import tempfile
import time

import grpc

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
FLOAT_MODE = ["--activations=f32", "--kv_cache=f32"]
START_SECONDS = 120


def _load_messages():
    folder = tempfile.mkdtemp()
    subprocess.run(
        ["protoc", "-I", ROOT, f"--python_out={folder}",
         "proto/onegrid/v1/generation.proto"],
        check=True,
    )
    sys.path.insert(0, folder)
    from proto.onegrid.v1 import generation_pb2

    return generation_pb2


messages = _load_messages()


def _method(kind, name, request, response):
    return kind(
        "/onegrid.v1.GenerationService/" + name,
        request_serializer=request.SerializeToString,
        response_deserializer=response.FromString,
    )


def connect(address):
    """The Generate method of the server at host:port."""
    return _method(
        grpc.insecure_channel(address).unary_stream, "Generate",
        messages.GenerateRequest, messages.GenerateResponse,
    )


class Engine:
    """`with Engine(binary, model, flags) as engine`: one server on loopback."""

    def __init__(self, binary, model, flags=(), stderr=None):
        port_file = os.path.join(tempfile.mkdtemp(), "port")
        self._process = subprocess.Popen(
            [binary, f"--model={model}", f"--port_file={port_file}", *flags],
            stderr=stderr,
        )
        try:
            self._connect(port_file)
        except BaseException:
            # Or it would outlive this program, with its output.
            self._process.kill()
            self._process.wait()
            raise

    def _connect(self, port_file):
        deadline = time.time() + START_SECONDS
        while not os.path.exists(port_file):
            if self._process.poll() is not None or time.time() > deadline:
                raise RuntimeError("the inference server did not start")
            time.sleep(0.05)
        with open(port_file, encoding="utf-8") as file:
            self.address = file.read().strip()
        channel = grpc.insecure_channel(
            self.address, options=[("grpc.max_receive_message_length", -1)]
        )
        self._tokenize = _method(
            channel.unary_unary, "Tokenize",
            messages.TokenizeRequest, messages.TokenizeResponse,
        )
        self._score = _method(
            channel.unary_unary, "ScoreTokens",
            messages.ScoreTokensRequest, messages.ScoreTokensResponse,
        )
        self._generate = _method(
            channel.unary_stream, "Generate",
            messages.GenerateRequest, messages.GenerateResponse,
        )
        self._get_load = _method(
            channel.unary_unary, "GetLoad", messages.GetLoadRequest, messages.Load,
        )
        self._load_adapter = _method(
            channel.unary_unary, "LoadAdapter",
            messages.LoadAdapterRequest, messages.AdapterInfo,
        )
        self._unload_adapter = _method(
            channel.unary_unary, "UnloadAdapter",
            messages.UnloadAdapterRequest, messages.UnloadAdapterResponse,
        )

    @property
    def pid(self):
        return self._process.pid

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._process.send_signal(signal.SIGTERM)
        self._process.wait(60)

    def load(self):
        """What GetLoad says."""
        return self._get_load(messages.GetLoadRequest())

    def tokenize(self, text, add_bos=True):
        request = messages.TokenizeRequest(text=text, add_bos=add_bos)
        return list(self._tokenize(request).token_ids)

    def load_adapter(self, name, path):
        return self._load_adapter(messages.LoadAdapterRequest(name=name, path=path))

    def unload_adapter(self, name):
        self._unload_adapter(messages.UnloadAdapterRequest(name=name))

    def greedy(self, prompt, tokens):
        """At most `tokens` ids after the prompt's, without an end token."""
        request = messages.GenerateRequest(
            token_ids=messages.TokenIds(ids=prompt),
            stopping=messages.Stopping(max_tokens=tokens),
        )
        ids = []
        for response in self._generate(request):
            ids.extend(response.delta.token_ids)
        return ids

    def score(self, ids, first_scored, top=0, candidates=(), adapter=""):
        """ScoreTokensResponse; `candidates` are as many of each position."""
        return self._score(messages.ScoreTokensRequest(
            token_ids=ids,
            first_scored=first_scored,
            top_n=top,
            candidates_per_position=len(candidates) // (len(ids) - first_scored),
            candidate_ids=candidates,
            adapter=adapter,
        ))

    def next_logprobs(self, prompt, candidates):
        """The best log-probability after the prompt, and the candidates'."""
        request = messages.ScoreTokensRequest(
            token_ids=[*prompt, candidates[0]],
            first_scored=len(prompt),
            top_n=1,
            candidates_per_position=len(candidates),
            candidate_ids=candidates,
        )
        response = self._score(request)
        return response.top_logprobs[0], list(response.candidate_logprobs)
