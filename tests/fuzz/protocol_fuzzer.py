"""Sends the requests of protocol_inputs.py to OneGrid's servers, over both
protocols, many at once, and reports answers that no request may have."""

import asyncio
import json
import random
import re
import socket
import struct
import time

GRPC_WORKERS, HTTP_WORKERS = 4, 12
ANSWER_SECONDS, CALM_SECONDS = 60, 120
# For requests to which no answer is due.
PART_SECONDS = 0.3
BLAMES = ("UNKNOWN", "UNAVAILABLE", "DATA_LOSS")
# Under which the inference server has to know its model.
MODEL_NAME = "m"
INFER_METHODS = ["/inference.GRPCInferenceService/ModelInfer",
                 "/inference.GRPCInferenceService/ModelStreamInfer"]
OTHER_METHODS = ["/grpc.health.v1.Health/Check", "/grpc.health.v1.Health/Watch",
                 "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
                 "/onegrid.v1.GenerationService/Nothing", "/"]


class Fuzzer:
    """servers: load_servers.OneGrid. log: told of each report as it is found."""

    def __init__(self, servers, seed, log):
        import grpc
        import protocol_inputs
        from engine import messages
        from tritonclient.grpc import service_pb2

        self.grpc, self.inputs, self.messages = grpc, protocol_inputs, messages
        self.servers, self.seed, self._log = servers, seed, log
        self.counts, self.reports = {}, []
        services = (messages.DESCRIPTOR.services_by_name["GenerationService"],
                    service_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"])
        self.methods = {f"/{service.full_name}/{method.name}": method.input_type._concrete_class
                        for service in services for method in service.methods}
        self.channel = None

    def count(self, what):
        self.counts[what] = self.counts.get(what, 0) + 1

    def report(self, what):
        self._log(f"fuzz_protocols: {what}")
        self.reports.append(what)

    def payload(self, source, method):
        """Bytes for a method, and whether they are a message of it."""
        kind = source.random()
        if method not in self.methods or kind < 0.1:
            return source.randbytes(source.choice([0, 1, 5, 100, 5000])), False
        message = self.methods[method]()
        if method.endswith("/Generate") and kind < 0.35:
            message.text, message.stopping.max_tokens = "Hello", 8
            message.sampling.temperature = source.choice(self.inputs.FLOATS)
        elif method in INFER_METHODS and kind < 0.7:
            self.inputs.fill_inference(source, message, MODEL_NAME)
        else:
            self.inputs.fill(source, message)
        data = message.SerializeToString()
        return (self.inputs.mutated(source, data), False) if kind > 0.7 else (data, True)

    async def call(self, source):
        method = source.choice([*self.methods, *self.methods, *INFER_METHODS,
                                "/onegrid.v1.GenerationService/Generate", *OTHER_METHODS])
        data, well_formed = self.payload(source, method)
        call = self.channel.unary_stream(method)(
            data, timeout=source.choice([0.001, 0.01, 0.1, 1, 10]))
        cancel_after = source.choice([None, None, 0, 1, 3])
        try:
            taken = 0
            async for _ in call:
                taken += 1
                if taken == cancel_after:
                    call.cancel()
            code = "OK"
        except asyncio.CancelledError:
            if not call.cancelled():
                raise
            code = "CANCELLED"
        except self.grpc.aio.AioRpcError as error:
            code = error.code().name
        self.count(f"gRPC {code}")
        if code in BLAMES or (code == "INTERNAL" and well_formed):
            self.report(f"{method} of {data[:60]!r} gave {code}")

    async def no_http2(self, source):
        data = source.choice([b"", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"])
        for _ in range(source.choice([1, 3, 20])):
            body = source.randbytes(source.choice([0, 4, 40]))
            data += struct.pack(">I", len(body))[1:] + source.randbytes(2) + struct.pack(
                ">I", source.choice([0, 1, 3, 1 << 30])) + body
        await self.exchange(self.servers.grpc, [self.inputs.mutated(source, data)], PART_SECONDS)
        self.count("gRPC no HTTP/2")

    async def exchange(self, endpoint, parts, seconds, pause=0.0, leave=None):
        """What is answered in the time; None: the server did not end it. leave:
        "reset" the connection, or "close" this side of it, when all is sent."""
        host, _, port = endpoint.rpartition(":")
        try:
            reader, writer = await asyncio.open_connection(host, int(port))
        except OSError as error:
            self.report(f"{endpoint} takes no connection: {error}")
            return b""
        data = b""
        try:
            for part in parts:
                writer.write(part)
                await writer.drain()
                if pause:
                    await asyncio.sleep(pause)
            if leave == "reset":
                writer.get_extra_info("socket").setsockopt(
                    socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                return b""
            if leave == "close":
                writer.write_eof()
            deadline = time.monotonic() + seconds
            while True:
                part = await asyncio.wait_for(
                    reader.read(1 << 16), max(0.01, deadline - time.monotonic()))
                if not part:
                    return data
                data += part
        except asyncio.TimeoutError:
            return None
        except OSError:
            return data
        finally:
            writer.close()

    async def http(self, source):
        data, whole = self.inputs.http_request(source)
        kind, pause, leave, seconds = source.random(), 0.0, None, PART_SECONDS
        parts = [data]
        if kind < 0.15:
            parts = [b"".join(self.inputs.http_request(source)[0] for _ in range(4))]
            whole = False
        elif kind < 0.25:
            cuts = sorted(source.randrange(len(data) + 1) for _ in range(6))
            parts = [data[a:b] for a, b in zip([0, *cuts], [*cuts, len(data)])]
            pause = source.choice([0.01, 0.2])
        elif kind < 0.35:
            parts, whole = [data[:source.randrange(len(data) + 1)]], False
            leave = source.choice(["reset", "close", None])
        if whole:
            seconds = ANSWER_SECONDS
        answer = await self.exchange(self.servers.http, parts, seconds, pause, leave)
        found = re.findall(rb"^HTTP/1\.1 (\d{3}) ", answer or b"", re.MULTILINE)
        self.count(f"HTTP {found[0].decode()}" if found else "HTTP no answer")
        if any(status in (b"500", b"502") for status in found):
            self.report(f"{data[:200]!r} gave {found}: {answer[-200:]!r}")
        if whole and answer is None:
            self.report(f"{data[:200]!r} has no answer in {ANSWER_SECONDS} s")

    async def worker(self, number, until):
        source = random.Random(f"{self.seed} {number}")
        kinds = [self.call] * 9 + [self.no_http2] if number < GRPC_WORKERS else [self.http]
        while time.monotonic() < until and self.servers.alive():
            await source.choice(kinds)(source)

    async def good_answer(self):
        """What a good request is answered over both protocols."""
        messages, grpc_answer = self.messages, []
        request = messages.GenerateRequest(
            text="Hello", stopping=messages.Stopping(max_tokens=24, ignore_eos=True))
        generate = self.channel.unary_stream(
            "/onegrid.v1.GenerationService/Generate",
            request_serializer=messages.GenerateRequest.SerializeToString,
            response_deserializer=messages.GenerateResponse.FromString)
        async for response in generate(request, timeout=ANSWER_SECONDS):
            grpc_answer.extend(response.delta.token_ids)
        body = json.dumps(self.inputs.COMPLETION).encode()
        answer = await self.exchange(self.servers.http, [
            b"POST /v1/completions HTTP/1.1\r\nHost: a\r\nConnection: close\r\n"
            b"Content-Length: %d\r\n\r\n" % len(body) + body], ANSWER_SECONDS)
        choices = json.loads((answer or b"").partition(b"\r\n\r\n")[2])["choices"]
        return grpc_answer, choices

    async def is_idle(self):
        """Whether the server says that it has nothing left to do."""
        load = self.channel.unary_unary(
            "/onegrid.v1.GenerationService/GetLoad",
            response_deserializer=self.messages.Load.FromString)
        deadline = time.monotonic() + CALM_SECONDS
        while time.monotonic() < deadline:
            try:
                found = await load(b"", timeout=ANSWER_SECONDS)
            except self.grpc.aio.AioRpcError as error:
                return error.code() == self.grpc.StatusCode.UNIMPLEMENTED
            if found.running == 0 and found.queued == 0:
                return True
            await asyncio.sleep(0.5)
        return False

    async def run(self, seconds):
        async with self.grpc.aio.insecure_channel(self.servers.grpc) as self.channel:
            await self._run(seconds)

    async def _run(self, seconds):
        before = await self.good_answer()
        until = time.monotonic() + seconds
        await asyncio.gather(*(self.worker(i, until) for i in range(GRPC_WORKERS + HTTP_WORKERS)))
        if not self.servers.alive():
            self.report("a server ended")
            return
        try:
            if not await self.is_idle():
                self.report(f"requests are left {CALM_SECONDS} s after the last one")
            if await self.good_answer() != before:
                self.report("a good request is answered otherwise than before")
        except (self.grpc.aio.AioRpcError, ValueError, KeyError) as error:
            self.report(f"a good request is not answered: {error!r}")
