"""How servers are started and stopped, with programs made up for the test."""

import os
import sys
import textwrap

import pytest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import load_servers

# Answers /health; on SIGTERM it ends with the status that follows --status.
HEALTHY = """
    import http.server, signal, sys
    def value(name, default=None):
        return sys.argv[sys.argv.index(name) + 1] if name in sys.argv else default
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.end_headers()
        def log_message(self, *_):
            pass
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(int(value("--status", 0))))
    http.server.HTTPServer(("127.0.0.1", int(value("--port"))), Handler).serve_forever()
"""
# Writes its --port_file, as OneGrid's services do, and tells what it was given.
SERVICE = """
    import signal, sys, time
    flags = dict(word[2:].split("=", 1) for word in sys.argv[1:])
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    print(sorted(flags), flush=True)
    with open(flags["port_file"], "w") as file:
        file.write("127.0.0.1:" + ("1" if "model" in flags else "2"))
    while True:
        time.sleep(1)
"""


def program(folder, name, code):
    path = folder / name
    path.write_text(f"#!{sys.executable}\n" + textwrap.dedent(code))
    path.chmod(0o755)
    return str(path)


def test_a_peer_serves_while_it_is_entered(tmp_path):
    program(tmp_path, "llama-server", HEALTHY)
    with load_servers.LlamaServer(str(tmp_path), "m", str(tmp_path)) as server:
        assert server.alive() and len(server.pids) == 1
        pid = server.pids[0]
    assert not os.path.exists(f"/proc/{pid}")


def test_what_does_not_start_says_why(tmp_path):
    program(tmp_path, "llama-server", "import sys; sys.exit('no such model')")
    with pytest.raises(load_servers.ServerFailed, match="no such model"):
        with load_servers.LlamaServer(str(tmp_path), "m", str(tmp_path)):
            pass


def test_an_end_in_failure_is_an_error(tmp_path):
    program(tmp_path, "llama-server", HEALTHY)
    with pytest.raises(load_servers.ServerFailed, match="ended with 3"):
        with load_servers.LlamaServer(str(tmp_path), "m", str(tmp_path), ["--status", "3"]):
            pass


def test_the_gateway_is_told_where_the_backend_is(tmp_path):
    service = program(tmp_path, "service", SERVICE)
    with load_servers.OneGrid(service, service, "m", str(tmp_path), ["--threads=1"]) as server:
        assert (server.grpc, server.http) == ("127.0.0.1:1", "127.0.0.1:2")
        assert len(server.pids) == 2
        logs = server.log_paths()
    said = [open(path, encoding="utf-8").read().strip() for path in logs]
    assert said == ["['model', 'port_file', 'threads']", "['backend', 'model_name', 'port_file']"]
