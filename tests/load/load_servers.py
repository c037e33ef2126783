"""The servers that are put under load: OneGrid's with its gateway, and
llama-server. Each is a context; `pids` are the processes that serve."""

import os
import signal
import socket
import subprocess
import time
import urllib.request

START_SECONDS = 120
STOP_SECONDS = 60


class ServerFailed(RuntimeError):
    """It did not start, or did not end well when it was told to."""


def end_of(path):
    with open(path, encoding="utf-8", errors="replace") as file:
        return file.read()[-2000:]


class _Server:
    def __init__(self, work):
        self._work, self._processes = work, []

    @property
    def pids(self):
        return [process.pid for process, _ in self._processes]

    def alive(self):
        return all(process.poll() is None for process, _ in self._processes)

    def log_paths(self):
        return [log for _, log in self._processes]

    def _start(self, command, name, environment=None):
        log = os.path.join(self._work, f"{name}-{os.getpid()}-{time.monotonic_ns()}.log")
        with open(log, "wb") as said:
            self._processes.append((subprocess.Popen(
                command, stdout=said, stderr=said, stdin=subprocess.DEVNULL,
                env={**os.environ, **(environment or {})}), log))

    def _wait_for(self, ready, seconds=START_SECONDS):
        deadline = time.monotonic() + seconds
        while not ready():
            process, log = self._processes[-1]
            if process.poll() is not None or time.monotonic() > deadline:
                self.stop(check=False)
                raise ServerFailed(f"{process.args[0]} did not start:\n{end_of(log)}")
            time.sleep(0.1)

    def stop(self, check=True):
        """Ends them by SIGTERM, the last one first."""
        failed = []
        while self._processes:
            process, log = self._processes.pop()
            process.send_signal(signal.SIGTERM)
            try:
                if process.wait(STOP_SECONDS) != 0:
                    failed.append((process, log))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
                failed.append((process, log))
        if check and failed:
            raise ServerFailed("\n".join(
                f"{process.args[0]} ended with {process.returncode}:\n{end_of(log)}"
                for process, log in failed))

    def __exit__(self, kind, *_):
        self.stop(check=kind is None)


class OneGrid(_Server):
    """`grpc` and `http` are host:port of the inference server and its gateway."""

    def __init__(self, inference, gateway, model, work, flags=(), environment=None):
        super().__init__(work)
        self._commands = [[inference, f"--model={model}", *flags],
                          [gateway, "--model_name=gemma"]]
        self._environment = environment

    def _serve(self, command, name):
        port_file = os.path.join(self._work, f"{name}-{os.getpid()}.port")
        if os.path.exists(port_file):
            os.remove(port_file)
        self._start([*command, f"--port_file={port_file}"], name, self._environment)
        self._wait_for(lambda: os.path.exists(port_file))
        with open(port_file, encoding="ascii") as file:
            return file.read().strip()

    def __enter__(self):
        inference, gateway = self._commands
        self.grpc = self._serve(inference, "inference")
        self.http = self._serve([*gateway, f"--backend={self.grpc}"], "gateway")
        return self


class LlamaServer(_Server):
    """llama-server with continuous batching and its prompt cache, on a free port."""

    # So much of a sequence; a prompt and its answer are no longer.
    CONTEXT = 1280

    def __init__(self, folder, model, work, settings=(), slots=8, threads=2):
        super().__init__(work)
        self._command = [os.path.join(folder, "llama-server"), "-m", model, "-t", str(threads),
                         "-np", str(slots), "-c", str(slots * self.CONTEXT), "-ngl", "0",
                         "-cb", "--cache-prompt", "--offline", *settings]

    def __enter__(self):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.http = f"127.0.0.1:{probe.getsockname()[1]}"
        self._start([*self._command, "--host", "127.0.0.1", "--port",
                     self.http.rpartition(":")[2]], "llama-server")
        self._wait_for(self._ready)
        return self

    def _ready(self):
        try:
            with urllib.request.urlopen(f"http://{self.http}/health", timeout=5) as response:
                return response.status == 200
        except OSError:
            return False
