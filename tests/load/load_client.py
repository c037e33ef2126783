"""Clients that stream one answer each, over gRPC and over OpenAI's HTTP, and the
loops that ask: open, at given times, and closed, so many at once.

The client shares the machine with the server it measures, so it does little: one
process, one thread, no HTTP library, and of a message only what is counted.
"""

import asyncio
import json
import os
import sys
import time

import load_report
from load_report import ERROR, HUNG, OK, REFUSED, Record

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
TEMPERATURE, TOP_K = 0.8, 40
# An answer that has not ended so long after it was asked for counts as hung.
HUNG_SECONDS = 180
READ_BYTES = 1 << 16


class GrpcClient:
    """onegrid.v1.GenerationService at an endpoint. Needs grpcio and protoc."""

    def __init__(self, endpoint):
        sys.path.insert(0, os.path.join(ROOT, "tests/parity"))
        import grpc
        from engine import messages

        self._grpc, self._messages = grpc, messages
        self._channel = grpc.aio.insecure_channel(
            endpoint, options=[("grpc.max_receive_message_length", -1)])
        self._generate = self._channel.unary_stream(
            "/onegrid.v1.GenerationService/Generate",
            request_serializer=messages.GenerateRequest.SerializeToString,
            response_deserializer=messages.GenerateResponse.FromString)
        self._tokenize = self._channel.unary_unary(
            "/onegrid.v1.GenerationService/Tokenize",
            request_serializer=messages.TokenizeRequest.SerializeToString,
            response_deserializer=messages.TokenizeResponse.FromString)

    async def tokenize(self, text):
        answer = await self._tokenize(self._messages.TokenizeRequest(text=text))
        return list(answer.token_ids)

    async def ask(self, request, record, now):
        m = self._messages
        call = self._generate(m.GenerateRequest(
            token_ids=m.TokenIds(ids=request.prompt),
            sampling=m.Sampling(temperature=TEMPERATURE, top_k=TOP_K, seed=request.seed),
            stopping=m.Stopping(max_tokens=request.output_tokens, ignore_eos=True)))
        try:
            async for response in call:
                kind = response.WhichOneof("event")
                if kind == "delta":
                    if response.delta.token_ids:
                        record.times.append(now())
                elif kind == "started":
                    record.cached_tokens = response.started.cached_tokens
                elif kind == "finished":
                    record.output_tokens = response.finished.completion_tokens
                    record.prompt_tokens = response.finished.prompt_tokens
                    record.outcome = OK
            if record.outcome != OK:
                record.why = "ended without a last message"
        except self._grpc.aio.AioRpcError as error:
            code = error.code()
            refused = code == self._grpc.StatusCode.RESOURCE_EXHAUSTED
            record.outcome = REFUSED if refused else ERROR
            record.why = code.name if refused else f"{code.name} {error.details()[:80]}"

    async def close(self):
        await self._channel.close()


class SseReader:
    """Bytes of one HTTP/1.1 answer in; its status and the data of its server-sent
    events out."""

    def __init__(self):
        self.status = 0
        self.body = b""  # of an answer that is no stream of events
        self.ended = False
        self._raw = b""
        self._chunked = False
        self._text = b""

    def feed(self, data):
        """The data of the events that are complete now, in order."""
        self._raw += data
        if self.status == 0 and not self._take_head():
            return []
        self._text += self._take_chunks() if self._chunked else self._take_all()
        if self.status != 200:
            self.body, self._text = self.body + self._text, b""
            return []
        *events, self._text = self._text.split(b"\n\n")
        return [event[6:] for event in events if event.startswith(b"data: ")]

    def _take_head(self):
        head, found, rest = self._raw.partition(b"\r\n\r\n")
        if not found:
            return False
        lines = head.split(b"\r\n")
        self.status = int(lines[0].split()[1])
        self._chunked = any(
            line.lower().replace(b" ", b"") == b"transfer-encoding:chunked" for line in lines)
        self._raw = rest
        return True

    def _take_all(self):
        taken, self._raw = self._raw, b""
        return taken

    def _take_chunks(self):
        taken = []
        while not self.ended:
            size, found, rest = self._raw.partition(b"\r\n")
            if not found:
                break
            count = int(size.split(b";")[0], 16)
            if len(rest) < count + 2:
                break
            taken.append(rest[:count])
            self._raw = rest[count + 2:]
            self.ended = count == 0
        return b"".join(taken)


class HttpClient:
    """/v1/completions of OneGrid's gateway, of llama-server and of their like."""

    def __init__(self, endpoint, model="gemma"):
        host, _, port = endpoint.rpartition(":")
        self._host, self._port, self._model = host, int(port), model

    async def _post(self, path, body):
        reader, writer = await asyncio.open_connection(self._host, self._port)
        data = json.dumps(body).encode()
        writer.write(f"POST {path} HTTP/1.1\r\nHost: {self._host}\r\n"
                     "Content-Type: application/json\r\nConnection: close\r\n"
                     f"Content-Length: {len(data)}\r\n\r\n".encode() + data)
        return reader, writer

    async def tokenize(self, text):
        """llama-server's."""
        reader, writer = await self._post("/tokenize", {"content": text})
        answer = await reader.read()
        writer.close()
        head, _, body = answer.partition(b"\r\n\r\n")
        if b" 200 " not in head.split(b"\r\n")[0]:
            raise RuntimeError(f"no text is tokenized here: {head[:80]!r}")
        return json.loads(body)["tokens"]

    async def ask(self, request, record, now):
        try:
            reader, writer = await self._post("/v1/completions", {
                "model": self._model, "prompt": request.prompt, "stream": True,
                "stream_options": {"include_usage": True}, "seed": request.seed,
                "max_tokens": request.output_tokens, "ignore_eos": True,
                "temperature": TEMPERATURE, "top_k": TOP_K, "top_p": 1, "min_p": 0})
        except OSError as error:
            record.why = f"not connected: {error.strerror}"
            return
        try:
            await self._read(reader, record, now)
        except OSError as error:
            record.why = f"broke off: {error.strerror}"
        except (KeyError, TypeError, ValueError) as error:  # no such protocol
            record.outcome, record.why = ERROR, f"broke off: {error}"
        finally:
            writer.close()

    async def _read(self, reader, record, now):
        sse = SseReader()
        while not sse.ended and (data := await reader.read(READ_BYTES)):
            for event in sse.feed(data):
                if event == b"[DONE]":
                    record.outcome = OK
                else:
                    self._take(json.loads(event), record, now)
        if sse.status in (429, 503):
            record.outcome, record.why = REFUSED, str(sse.status)
        elif sse.status != 200:
            record.why = f"{sse.status} {sse.body[:80].decode(errors='replace')}"
        elif record.outcome != OK:
            record.why = record.why or "ended without [DONE]"

    @staticmethod
    def _take(event, record, now):
        if usage := event.get("usage"):
            record.output_tokens = usage["completion_tokens"]
            record.prompt_tokens = usage["prompt_tokens"]
            details = usage.get("prompt_tokens_details") or {}
            record.cached_tokens = details.get("cached_tokens", 0)
        if choices := event.get("choices"):
            if choices[0].get("text"):
                record.times.append(now())
        elif "error" in event:
            record.why = str(event["error"].get("code"))

    async def close(self):
        pass


async def ask_within(client, request, record, now, limit=HUNG_SECONDS):
    record.sent = now()
    try:
        await asyncio.wait_for(client.ask(request, record, now), limit)
    except asyncio.TimeoutError:
        record.outcome, record.why = HUNG, f"no end in {limit} s"
    record.end = now()


async def open_loop(client, requests, times, limit=HUNG_SECONDS):
    """Asks at each time, however many are not answered yet. The Records."""
    start = time.monotonic()
    now = lambda: time.monotonic() - start
    records, tasks = [], []
    for due in times:
        request = next(requests)
        if (wait := due - now()) > 0:
            await asyncio.sleep(wait)
        records.append(Record(due))
        tasks.append(asyncio.create_task(
            ask_within(client, request, records[-1], now, limit)))
    await asyncio.gather(*tasks)
    return records


async def closed_loop(client, requests, clients, seconds, limit=HUNG_SECONDS):
    """So many at once for so long, each asking again when it was answered."""
    start = time.monotonic()
    now = lambda: time.monotonic() - start
    records = []

    async def one():
        while now() < seconds:
            record = Record(now())
            records.append(record)
            await ask_within(client, next(requests), record, now, limit)
            if record.outcome != OK:  # Nothing is gained by asking at once.
                await asyncio.sleep(0.1)

    await asyncio.gather(*(one() for _ in range(clients)))
    return records


def resident_bytes(pid):
    """0 if there is no such process."""
    try:
        with open(f"/proc/{pid}/status", encoding="ascii") as file:
            for line in file:
                if line.startswith("VmRSS:"):
                    return 1024 * int(line.split()[1])
    except OSError:
        pass
    return 0


async def watch_memory(pids, samples, period=1.0):
    """Adds (time.time(), bytes of all of them) until cancelled."""
    while True:
        samples.append((time.time(), sum(map(resident_bytes, pids))))
        await asyncio.sleep(period)


async def measured(loop, pids, seconds, begin=0.0):
    """(Run, {client_cpu_share, rss_mb, rss}) of a loop that is awaited."""
    samples = []
    watcher = asyncio.create_task(watch_memory(pids, samples))
    cpu, wall = time.process_time(), time.monotonic()
    records = await loop
    cpu, wall = time.process_time() - cpu, time.monotonic() - wall
    watcher.cancel()
    run = load_report.Run(records, seconds, begin)
    return run, {"client_cpu_share": cpu / wall, "rss": samples,
                 "rss_mb": max((size for _, size in samples), default=0) / 1e6}
