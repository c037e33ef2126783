"""For hybrid_routing: an upstream that notes and fails, and the rules once more.

The rules, breaker, budget and fallbacks are written here from their description in
services/gateway/README.md, not from the gateway's code.
"""

import http.server
import json
import socket
import struct
import threading
import time

USAGE = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}
WHOLE = json.dumps({"object": "text_completion", "choices": [
    {"index": 0, "text": "from outside", "finish_reason": "stop"}], "usage": USAGE}).encode()
EVENT = b'data: {"choices":[{"index":0,"text":"from outside"}]}\n\n'
USAGE_EVENT = b"data: " + json.dumps({"choices": [], "usage": USAGE}).encode() + b"\n\n"
CUT_BYTES = 40


def config(address, open_ms, timeout_ms, requests):
    def upstream(name, tokens):
        return {"name": name, "base_url": f"{address}/{name}/v1", "model": f"model-of-{name}",
                "api_key_file": "key", "connect_timeout_ms": 1000,
                "request_timeout_ms": timeout_ms, "budget": {"tokens_per_day": tokens},
                "breaker": {"failures": 2, "open_ms": open_ms}}

    return {
        "default_privacy": "public",
        "upstreams": [upstream("big", 5 * requests), upstream("spare", 10 ** 9)],
        "rules": [
            {"name": "alias", "when": {"model": "outside"}, "send": "big"},
            {"name": "brief", "when": {"max_tokens_max": 1}, "send": "local"},
            {"name": "long", "when": {"prompt_characters_min": 250}, "send": "big"},
            {"name": "code", "when": {"task": ["code"]}, "send": "spare"},
            {"name": "unsure", "when": {"task": ["chat"], "max_tokens_min": 2},
             "escalate": {"to": "spare", "mean_logprob_below": -2.0}},
        ],
        "on_local_failure": "spare",
    }


class Upstream:
    """One request at a time; `behaviour` says what becomes of the next one."""

    def __init__(self, timeout_seconds):
        self.behaviour = "answer"
        self.received = []
        self.ended = 0.0  # when the last one failed, as the gateway sees it
        self.timeout_seconds = timeout_seconds
        self.closing = threading.Event()
        owner = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self):
                owner.answer(self)

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.port = self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def close(self):
        self.closing.set()
        self.server.shutdown()
        self.server.server_close()

    def answer(self, handler):
        behaviour = self.behaviour
        began = time.monotonic()
        body = handler.rfile.read(int(handler.headers["Content-Length"]))
        self.received.append(
            handler.requestline.encode() + bytes(handler.headers) + body)
        handler.close_connection = True
        if behaviour == "silence":
            self.ended = began + self.timeout_seconds
            self.closing.wait(self.timeout_seconds + 1)
        elif behaviour.startswith("status"):
            self.ended = began
            self.send(handler, int(behaviour[-3:]), "application/json", b'{"error":{}}')
        elif behaviour == "close":
            self.ended = began
            self.reset(handler)
        elif json.loads(body).get("stream"):
            self.stream(handler, behaviour)
        elif behaviour == "break_off":
            self.ended = began
            self.send(handler, 200, "application/json", WHOLE, len(WHOLE) - CUT_BYTES)
            handler.wfile.flush()
            handler.connection.shutdown(socket.SHUT_RDWR)
        else:
            self.send(handler, 200, "application/json", WHOLE)

    def stream(self, handler, behaviour):
        self.send(handler, 200, "text/event-stream", None)
        handler.wfile.write(EVENT)
        handler.wfile.flush()
        # Apart, so that the first event is on its way.
        time.sleep(0.1)
        if behaviour == "break_off":
            self.ended = time.monotonic()
            handler.wfile.write(EVENT[:20])
            handler.wfile.flush()
            return self.reset(handler)
        handler.wfile.write(EVENT + USAGE_EVENT + b"data: [DONE]\n\n")

    @staticmethod
    def send(handler, status, kind, body, cut=None):
        handler.send_response(status)
        handler.send_header("Content-Type", kind)
        handler.send_header("Connection", "close")
        if body is not None:
            handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        if body is not None:
            handler.wfile.write(body[:cut])

    @staticmethod
    def reset(handler):
        handler.connection.setsockopt(
            socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        handler.connection.close()


def outcome(status, text):
    """What a client got: "whole", "cut" (a stream without its end), or the status."""
    if status != 200:
        return str(status)
    if text.startswith("data:"):
        return "whole" if text.endswith("data: [DONE]\n\n") else "cut"
    return "whole" if "choices" in json.loads(text) else "cut"


class _State:
    """Breaker and budget of one upstream."""

    def __init__(self, settings):
        self.tokens_left = settings["budget"]["tokens_per_day"]
        self.failures_max = settings["breaker"]["failures"]
        self.open_seconds = settings["breaker"]["open_ms"] / 1000
        self.failures = 0
        self.open_until = None
        self.opening = False  # since the last request

    def succeeded(self):
        self.failures = 0
        self.open_until = None

    def failed(self):
        self.failures += 1
        if self.open_until is not None or self.failures >= self.failures_max:
            self.opening = True


class Replica:
    FAILURES = {"status_500": "upstream_status", "status_429": "upstream_rate_limit",
                "silence": "upstream_timeout", "close": "upstream_broken",
                "break_off": "upstream_broken"}

    def __init__(self, settings):
        self.settings = settings
        self.states = {upstream["name"]: _State(upstream)
                       for upstream in settings["upstreams"]}

    def wait_for_breakers(self, margin_seconds):
        for state in self.states.values():
            if state.open_until is None:
                continue
            left = state.open_until - time.monotonic()
            if abs(left) < margin_seconds:
                time.sleep(left + margin_seconds)

    def settle(self, ended):
        """A breaker that opened did so when the upstream failed."""
        for state in self.states.values():
            if state.opening:
                state.open_until = ended + state.open_seconds
                state.opening = False

    def _rule(self, body, headers):
        task = headers.get("x-onegrid-task") or body.get("metadata", {}).get("task")
        for rule in self.settings["rules"]:
            when = rule["when"]
            if ("model" not in when or when["model"] == body["model"]) and (
                    "task" not in when or task in when["task"]) and (
                    len(body["prompt"]) >= when.get("prompt_characters_min", 0)) and (
                    when.get("max_tokens_min", 0) <= body["max_tokens"]
                    <= when.get("max_tokens_max", 10 ** 9)):
                return rule
        return None

    def _ask(self, name, body, behaviour):
        """(why the upstream gives no answer or None, what the client gets)"""
        state = self.states[name]
        prompt_tokens = -(-len(body["prompt"]) // 4)
        if prompt_tokens + body["max_tokens"] > state.tokens_left:
            return "budget_tokens", None
        if state.open_until is not None and time.monotonic() < state.open_until:
            return "breaker_open", None
        if behaviour == "answer":
            state.tokens_left -= USAGE["prompt_tokens"] + USAGE["completion_tokens"]
            state.succeeded()
            return None, "whole"
        state.failed()
        if behaviour in ("silence", "close"):
            state.tokens_left -= prompt_tokens
        if behaviour == "break_off" and body["stream"]:
            state.tokens_left -= prompt_tokens + 1
            return None, "cut"
        if behaviour == "break_off":
            state.tokens_left -= prompt_tokens + (len(WHOLE) - CUT_BYTES) // 4
        return self.FAILURES[behaviour], None

    def decide(self, body, headers, is_private, behaviour, local_up, confidence):
        """(target, rule, reason, outcome). `confidence` asks the local model."""
        if is_private:
            return "local", "private", "private", "whole" if local_up else "503"
        rule = self._rule(body, headers)
        name = rule["name"] if rule else "default"
        local = "whole" if local_up else "503"
        if rule and "escalate" in rule:
            target = rule["escalate"]["to"]
            if local_up and confidence() >= rule["escalate"]["mean_logprob_below"]:
                return "local", name, "confident", "whole"
            failure, got = self._ask(target, body, behaviour)
            if failure:
                return "local", name, failure, local
            return target, name, "not_confident" if local_up else "local_failed", got
        if rule and rule["send"] != "local":
            failure, got = self._ask(rule["send"], body, behaviour)
            if failure:
                return "local", name, failure, local
            return rule["send"], name, "rule", got
        if local_up:
            return "local", name, "rule" if rule else "default", "whole"
        target = self.settings["on_local_failure"]
        failure, got = self._ask(target, body, behaviour)
        if failure:
            return "local", name, failure, local
        return target, name, "local_failed", got
