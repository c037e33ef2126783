"""OpenAI's own Python client against a gateway with rules.

The gateway stands between a fake inference server and an upstream, a small HTTP server
of this process that notes what it is sent. Binaries come from $ONEGRID_BIN, by default
bazel-bin.
"""

import http.server
import json
import os
import pathlib
import ssl
import subprocess
import threading
import time
import urllib.request

import openai
import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
BIN = pathlib.Path(os.environ.get("ONEGRID_BIN", ROOT / "bazel-bin"))
GATEWAY = BIN / "services" / "gateway"
CLIENT_KEY = "key-of-the-client"
UPSTREAM_KEY = "key-of-the-upstream"
START_SECONDS = 60
ROUTES = """
default_privacy: public
upstreams:
  - name: big
    base_url: http://127.0.0.1:{port}/v1
    model: big-model
    api_key_file: upstream-key
    request_timeout_ms: 2000
    budget: {{requests_per_minute: 1000, tokens_per_day: 100000}}
  - {{name: stranger, base_url: "https://127.0.0.1:{tls_port}/v1", model: m}}
  - {{name: trusted, base_url: "https://localhost:{tls_port}/v1", model: m, ca_file: ca.pem}}
rules:
  - {{name: stranger, when: {{model: stranger}}, send: stranger}}
  - {{name: trusted, when: {{model: trusted}}, send: trusted}}
  - {{name: large, when: {{model: large}}, send: big}}
  - {{name: format, when: {{has_response_format: true}}, send: big}}
  - {{name: unsure, when: {{task: chat}}, escalate: {{to: big, mean_logprob_below: -0.1}}}}
"""


GOOD = ROUTES.format(port=1, tls_port=1)


def chunk(content):
    return {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "big-model",
            "choices": [{"index": 0, "delta": {"content": content}, "finish_reason": None}]}


class Upstream(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    received = []
    ports = []  # of the connections that they came on
    broken = False
    gone = threading.Event()

    def log_message(self, *_):
        pass

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.received.append((self.path, dict(self.headers), json.loads(body)))
        self.ports.append(self.client_address[1])
        if self.broken:
            return self.send_error(500)
        if json.loads(body).get("stream"):
            return self.stream(json.loads(body))
        answer = json.dumps({
            "id": "c", "object": "chat.completion", "created": 1, "model": "big-model",
            "choices": [{"index": 0, "finish_reason": "stop",
                         "message": {"role": "assistant", "content": "from outside"}}],
            "usage": {"prompt_tokens": 4, "completion_tokens": 2, "total_tokens": 6},
        }).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(answer)))
        self.send_header("Set-Cookie", "a=b")
        self.end_headers()
        self.wfile.write(answer)

    def stream(self, body):
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Connection", "close")
        self.end_headers()
        self.close_connection = True
        endless = body["messages"][-1]["content"] == "forever"
        try:
            for number in range(1_000_000 if endless else 3):
                self.wfile.write(f"data: {json.dumps(chunk(f'{number} '))}\n\n".encode())
                self.wfile.flush()
                time.sleep(0.01)
            self.wfile.write(b"data: [DONE]\n\n")
        except OSError:
            self.gone.set()


def serve(certificate=None):
    """An upstream and its port; with a certificate, over TLS."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Upstream)
    if certificate is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, certificate.with_name("ca.key"))
        server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server, server.server_address[1]


def start(folder, name, *flags):
    """The process and its host:port; what it logs goes to folder/name.log."""
    port_file = folder / f"{name}.port"
    # Nobody listens there: proxies of the environment are not used.
    environment = {**os.environ, "http_proxy": "http://127.0.0.1:1",
                   "https_proxy": "http://127.0.0.1:1", "ALL_PROXY": "http://127.0.0.1:1",
                   "no_grpc_proxy": "127.0.0.1"}
    with open(folder / f"{name}.log", "wb") as log:
        process = subprocess.Popen(
            [str(GATEWAY / name), f"--port_file={port_file}", *flags], stderr=log,
            env=environment if name == "gateway" else None)
    deadline = time.time() + START_SECONDS
    while not port_file.exists():
        assert process.poll() is None and time.time() < deadline
        time.sleep(0.02)
    return process, port_file.read_text()


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    folder = tmp_path_factory.mktemp("routes")
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2",
         "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1",
         "-keyout", folder / "ca.key", "-out", folder / "ca.pem"],
        check=True, capture_output=True)
    server, port = serve()
    tls_server, tls_port = serve(folder / "ca.pem")
    (folder / "upstream-key").write_text(UPSTREAM_KEY + "\n")
    (folder / "client-key").write_text(CLIENT_KEY + "\n")
    (folder / "routes.yaml").write_text(ROUTES.format(port=port, tls_port=tls_port))
    backend, endpoint = start(folder, "fake_backend_server")
    gateway, address = start(
        folder, "gateway", f"--backend={endpoint}", "--model_name=gemma",
        f"--api_key_file={folder / 'client-key'}", f"--routes={folder / 'routes.yaml'}")
    yield address
    for process in (gateway, backend):
        process.terminate()
        process.wait()
    server.shutdown()
    tls_server.shutdown()
    log = (folder / "gateway.log").read_text()
    assert 'route="big; rule=large; reason=rule"' in log
    for secret in (CLIENT_KEY, UPSTREAM_KEY, "Tell me"):
        assert secret not in log


@pytest.fixture
def client(address):
    Upstream.received.clear()
    Upstream.broken = False
    return openai.OpenAI(base_url=f"http://{address}/v1", api_key=CLIENT_KEY,
                         max_retries=0, timeout=20)


def ask(client, text, **options):
    """The answer and its x-onegrid-route."""
    raw = client.chat.completions.with_raw_response.create(
        **{"model": "gemma", "messages": [{"role": "user", "content": text}], **options})
    return raw.parse(), raw.headers["x-onegrid-route"]


def test_a_rule_sends_outside(client):
    answer, route = ask(client, "Tell me", model="large", logit_bias={"5": 1})
    assert route == "big; rule=large; reason=rule"
    assert answer.choices[0].message.content == "from outside"
    assert answer.usage.total_tokens == 6
    ((path, headers, body),) = Upstream.received
    assert path == "/v1/chat/completions"
    assert headers["Authorization"] == f"Bearer {UPSTREAM_KEY}"
    assert CLIENT_KEY not in str(headers)
    assert "x-stainless-lang" not in {name.lower() for name in headers}
    assert body == {"model": "big-model", "logit_bias": {"5": 1},
                    "messages": [{"role": "user", "content": "Tell me"}]}


def test_private_requests_stay(client):
    for options in ({"extra_headers": {"x-onegrid-privacy": "private"}},
                    {"metadata": {"privacy": "private"}}):
        answer, route = ask(client, "Tell me", model="large", **options)
        assert route == "local; rule=private; reason=private"
        assert "Tell me" in answer.choices[0].message.content
    # Tells what went wrong, and that it was sent nowhere else.
    with pytest.raises(openai.RateLimitError, match="private and was sent nowhere"):
        ask(client, "queue full", model="large", metadata={"privacy": "private"})
    assert not Upstream.received


def test_local_model_stands_in(client):
    Upstream.broken = True
    answer, route = ask(client, "Tell me", model="large")
    assert route == "local; rule=large; reason=upstream_status"
    assert "Tell me" in answer.choices[0].message.content
    assert answer.model == "gemma"
    with pytest.raises(openai.InternalServerError, match="neither does the local model"):
        ask(client, "a", response_format={"type": "json_object"},
            extra_body={"min_tokens": 3})


def test_unsure_answers_escalate(client):
    answer, route = ask(client, "Tell me", extra_headers={"x-onegrid-task": "chat"})
    assert route == "big; rule=unsure; reason=not_confident"
    assert answer.choices[0].message.content == "from outside"


def test_streams(client):
    stream = client.chat.completions.create(
        model="large", stream=True, messages=[{"role": "user", "content": "Tell me"}])
    assert [c.choices[0].delta.content for c in stream] == ["0 ", "1 ", "2 "]


def test_a_closed_stream_ends_the_upstreams(client):
    Upstream.gone.clear()
    stream = client.chat.completions.create(
        model="large", stream=True, messages=[{"role": "user", "content": "forever"}])
    for _ in range(3):
        next(stream)
    stream.close()
    assert Upstream.gone.wait(5)


def test_connections_are_kept(client):
    Upstream.ports.clear()
    for _ in range(3):
        ask(client, "Tell me", model="large")
        ask(client, "Tell me", model="trusted")
    assert len(Upstream.ports) == 6
    assert len(set(Upstream.ports)) == 2


def test_certificates_are_verified(client):
    _, route = ask(client, "Tell me", model="stranger")
    assert route == "local; rule=stranger; reason=upstream_unreachable"
    assert not Upstream.received
    answer, route = ask(client, "Tell me", model="trusted")
    assert route == "trusted; rule=trusted; reason=rule"
    ((_, headers, _),) = Upstream.received
    # An upstream without a key gets none.
    assert "Authorization" not in headers


def test_models_are_those_of_the_rules(client):
    assert [model.id for model in client.models.list()] == [
        "gemma", "stranger", "trusted", "large", "tuned"]
    assert client.models.retrieve("large").id == "large"
    with pytest.raises(openai.NotFoundError):
        ask(client, "a", model="huge")


def test_metrics(client, address):
    ask(client, "Tell me", model="large")
    with urllib.request.urlopen(f"http://{address}/metrics", timeout=10) as answer:
        text = answer.read().decode()
    assert 'onegrid_route_total{target="big",rule="large",reason="rule"}' in text
    assert 'onegrid_upstream_breaker_state{upstream="big"} 0' in text
    assert 'onegrid_upstream_tokens_today{upstream="big"}' in text


@pytest.mark.parametrize("text, message", [
    ("default_privacy: public\nrules: []\nupstream: []\n", "line 3, file: unknown key upstream"),
    (GOOD.replace("upstream-key", "no-such-file"), "api_key_file"),
    (GOOD.replace("send: big", "send: bigger", 1), "send: no upstream"),
    ("{", "not YAML"),
])
def test_wrong_routes_end_with_a_message(tmp_path, text, message):
    for name in ("upstream-key", "ca.pem"):
        (tmp_path / name).write_text("k")
    (tmp_path / "routes.yaml").write_text(text)
    run = subprocess.run(
        [str(GATEWAY / "gateway"), "--backend=a:1", "--model_name=m",
         f"--routes={tmp_path / 'routes.yaml'}"], capture_output=True, text=True, timeout=60)
    assert run.returncode == 1
    assert message in run.stderr
