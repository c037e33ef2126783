"""What the checks of other people's clients share: the servers they run against,
and the list of checks.

A check is a function of the servers that raises if something does not hold. The
module of each client adds its own with @check.
"""

import contextlib
import dataclasses
import importlib.metadata
import os
import signal
import subprocess
import time
import traceback
import urllib.request

MODEL_NAME = "gemma"
START_SECONDS = 120
WAIT_SECONDS = 30
CHECKS = []


@dataclasses.dataclass
class Check:
    client: str
    words: str
    function: object
    needs_turns: bool

    @property
    def version(self):
        return importlib.metadata.version(self.client)

    def row(self, servers):
        """Runs it: a row with the result, and what was wrong if it fails."""
        row = {"client": self.client, "version": self.version, "check": self.words,
               "result": "holds", "wrong": ""}
        try:
            self.function(servers)
        except Exception as error:
            places = traceback.extract_tb(error.__traceback__)
            here = os.path.dirname(os.path.abspath(__file__))
            place = [p for p in places if os.path.dirname(p.filename) == here][-1]
            text = " ".join(f"{type(error).__name__} {error}".split())[:300]
            row["result"] = "FAILS"
            row["wrong"] = f"{os.path.basename(place.filename)}:{place.lineno}: {text}"
        return row


def check(client, words, needs_turns=False):
    """Adds a check. needs_turns: the model must know the marks of turns."""
    def add(function):
        CHECKS.append(Check(client, words, function, needs_turns))
        return function
    return add


def wait_for(condition, what):
    deadline = time.monotonic() + WAIT_SECONDS
    while not condition():
        assert time.monotonic() < deadline, f"waited {WAIT_SECONDS} s for {what}"
        time.sleep(0.05)


class Servers:
    """An inference server with a gateway in front of it; with stand_in also a
    gateway in front of one that answers as a Gemma 4 that calls tools would."""

    def __init__(self, bin_dir, model, folder, stand_in=True):
        self.stand_in = stand_in
        self.bin_dir = bin_dir
        self.model = model
        self.folder = folder
        self._running = []
        self._count = 0

    def start(self, service, name, *flags):
        """(process, host:port)"""
        self._count += 1
        port_file = os.path.join(self.folder, f"client-port-{self._count}")
        with contextlib.suppress(FileNotFoundError):
            os.remove(port_file)
        with open(os.path.join(self.folder, f"{name}.log"), "ab") as said:
            process = subprocess.Popen(
                [os.path.join(self.bin_dir, "services", service, name),
                 f"--port_file={port_file}", *flags], stdout=said, stderr=said)
        self._running.append(process)
        deadline = time.monotonic() + START_SECONDS
        while not os.path.exists(port_file):
            assert process.poll() is None and time.monotonic() < deadline, (
                f"{name} did not start")
            time.sleep(0.05)
        with open(port_file, encoding="utf-8") as file:
            return process, file.read().strip()

    def start_inference(self, *flags):
        return self.start("inference", "inference", f"--model={self.model}",
                          f"--model_name={MODEL_NAME}", "--max_context=2048", *flags)

    def __enter__(self):
        try:
            return self._start_all()
        except BaseException:
            self.__exit__()
            raise

    def _start_all(self):
        _, self.endpoint = self.start_inference()
        _, self.gateway = self.start("gateway", "gateway", f"--backend={self.endpoint}",
                                     f"--model_name={MODEL_NAME}")
        wait_for(self._healthy, "the gateway to reach its server")
        if not self.stand_in:
            return self
        _, stand_in = self.start("gateway", "fake_backend_server",
                                 "--chat_format=gemma4-empty-thought")
        _, self.tools_gateway = self.start("gateway", "gateway", f"--backend={stand_in}",
                                           f"--model_name={MODEL_NAME}")
        return self

    def __exit__(self, *_):
        for process in reversed(self._running):
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGKILL)
            process.wait()

    def _healthy(self):
        try:
            with urllib.request.urlopen(f"http://{self.gateway}/health", timeout=10):
                return True
        except OSError:
            return False

    def ended(self):
        """Exit statuses of those that no longer run."""
        return [p.returncode for p in self._running if p.poll() is not None]

    def metric(self, name):
        """A gauge of the gateway."""
        with urllib.request.urlopen(f"http://{self.gateway}/metrics", timeout=10) as answer:
            for line in answer.read().decode().splitlines():
                if line.startswith(f"onegrid_{name}{{"):
                    return float(line.split()[-1])
        raise KeyError(name)
