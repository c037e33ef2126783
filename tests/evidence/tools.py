"""What the evidence commands share: the built programs and how to run them."""

import contextlib
import json
import math
import os
import signal
import subprocess
import sys
import time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
CACHE = os.environ.get("ONEGRID_CACHE") or os.path.expanduser("~/.cache/onegrid")
MODEL = os.path.join(CACHE, "models/gemma-3-270m-Q4_K_M.gguf")
TARGETS = [
    "//services/evaluator:evaluator",
    "//services/exporter:exporter",
    "//services/finetuner:finetuner",
    "//services/finetuner:quantize",
    "//services/inference:inference",
]
SERVE_SECONDS = 60


def log(text):
    print(text, file=sys.stderr, flush=True)


def build(targets, bin_dir=None):
    """Folder of the built binaries; builds them unless one is given."""
    if bin_dir:
        return os.path.abspath(bin_dir)
    subprocess.run(["bazel", "build", *targets], cwd=ROOT, check=True, stdout=sys.stderr)
    return subprocess.run(
        ["bazel", "info", "bazel-bin"], cwd=ROOT, check=True, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
    ).stdout.strip()


def kl_of_top(reference, other):
    """The KL divergence, in nats, of two lists of log-probabilities of the same
    outcomes; what they leave out is one more."""
    total = sum(math.exp(p) * (p - q) for p, q in zip(reference, other))
    p = 1 - sum(map(math.exp, reference))
    q = 1 - sum(map(math.exp, other))
    if p > 1e-9 and q > 1e-9:
        total += p * (math.log(p) - math.log(q))
    return total


def flags(values):
    """--name=value for each item; True and False as absl flags take them."""
    out = []
    for name, value in values.items():
        if isinstance(value, bool):
            value = "true" if value else "false"
        out.append(f"--{name}={value}")
    return out


class Programs:
    """The services' standalone modes."""

    def __init__(self, work, bin_dir=None, model=MODEL, targets=TARGETS):
        self.bin = build(targets, bin_dir)
        self.work = work
        self.model = model
        self.servers = 0
        os.makedirs(work, exist_ok=True)

    def path(self, service, name=None):
        return os.path.join(self.bin, "services", service, name or service)

    def base(self):
        """The model on the int4 grid, imported once."""
        out = os.path.join(self.work, "base.gguf")
        if not os.path.exists(out):
            subprocess.run(
                [self.path("exporter"), f"--import={self.model}", f"--out={out}"],
                check=True, stdout=sys.stderr,
            )
        return out

    def dataset(self, test=500):
        """Folder of the section task's splits, with `test` held-out examples."""
        out = os.path.join(self.work, f"data-{test}")
        if not os.path.exists(os.path.join(out, "test.jsonl")):
            python = os.path.join(CACHE, "venv/bin/python")
            subprocess.run(
                [python, os.path.join(ROOT, "deploy/dev/section_dataset"), "--out", out,
                 f"--test={test}"],
                check=True, stdout=sys.stderr,
            )
        return out

    def corpus(self, folder=None):
        """Folder of train.txt and heldout.txt, English text; `folder` if given."""
        out = folder or os.path.join(self.work, "corpus")
        if not os.path.exists(os.path.join(out, "heldout.txt")):
            subprocess.run([os.path.join(ROOT, "deploy/dev/corpus"), "--out", out],
                           check=True, stdout=sys.stderr)
        return out

    def quantize(self, out, **options):
        """The report of the quantize tool, run on the source model unless it is
        in the folder `out`."""
        report = os.path.join(out, "report.json")
        if not os.path.exists(report):
            subprocess.run(
                [self.path("finetuner", "quantize"),
                 *flags({"source": self.model, "out": out, **options})],
                check=True, stdout=sys.stderr,
            )
        with open(report, encoding="utf-8") as file:
            return json.load(file)

    def run_json(self, command, log_path):
        """The JSON that a program prints; what it says goes to a log."""
        with open(log_path, "w", encoding="utf-8") as said:
            done = subprocess.run(
                command, stdout=subprocess.PIPE, stderr=said, text=True, check=False
            )
        if done.returncode != 0:
            with open(log_path, encoding="utf-8") as said:
                tail = said.read()[-2000:]
            raise RuntimeError(f"{' '.join(command)} ended with {done.returncode}:\n{tail}")
        return json.loads(done.stdout)

    def finetune(self, out, **options):
        """One tuning run into the folder `out`, or its report if it is there. One
        that was cut off goes on from its last checkpoint."""
        report = os.path.join(out, "result.json")
        if os.path.exists(report):
            with open(report, encoding="utf-8") as file:
                return json.load(file)
        os.makedirs(out, exist_ok=True)
        checkpoint = os.path.join(out, "checkpoint.safetensors")
        if os.path.exists(checkpoint):
            options["resume"] = checkpoint
        start = time.monotonic()
        result = self.run_json(
            [self.path("finetuner"), *flags({"out": out, **options})],
            os.path.join(out, "log.txt"),
        )
        result["seconds"] = time.monotonic() - start
        with open(report, "w", encoding="utf-8") as file:
            json.dump(result, file)
        return result

    def export(self, base, folded, out):
        """The GGUF of a tuned model."""
        gguf = os.path.join(out, "gguf", "model.gguf")
        if not os.path.exists(gguf):
            subprocess.run(
                [self.path("exporter"), f"--export_base={base}", f"--folded={folded}",
                 f"--out={out}"],
                check=True, stdout=subprocess.DEVNULL,
            )
        return gguf

    @contextlib.contextmanager
    def _running(self, service, **options):
        """host:port of one of the services."""
        self.servers += 1
        port_file = os.path.join(self.work, f"port-{self.servers}")
        with contextlib.suppress(FileNotFoundError):
            os.remove(port_file)
        with open(os.path.join(self.work, f"{service}.log"), "a", encoding="utf-8") as said:
            server = subprocess.Popen(
                [self.path(service), *flags({"port_file": port_file, **options})],
                stdout=said, stderr=said,
            )
        try:
            deadline = time.monotonic() + SERVE_SECONDS
            while not os.path.exists(port_file):
                if server.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError(f"{service} with {options} did not start")
                time.sleep(0.1)
            with open(port_file, encoding="utf-8") as file:
                yield file.read().strip()
        finally:
            server.send_signal(signal.SIGTERM)
            server.wait()

    def serving(self, gguf, **options):
        """host:port of an inference server for the model."""
        # Evidence asks all at once and wants all answers.
        options = {"max_queue_delay": "inf", **options}
        return self._running("inference", model=gguf, **options)

    def gateway(self, backend, model_name):
        """host:port of a gateway before an inference server."""
        return self._running("gateway", backend=backend, model_name=model_name)

    def accuracy(self, gguf, split, count=0):
        """Metrics of the served model on a split, kept beside the file."""
        kept = f"{os.path.splitext(gguf)[0]}-{os.path.basename(split)}-{count}.json"
        if not os.path.exists(kept):
            with self.serving(gguf) as endpoint:
                report = self.run_json(
                    [self.path("evaluator"),
                     *flags({"endpoint": endpoint, "split": split, "max_examples": count})],
                    os.path.join(self.work, "evaluator.log"),
                )
            with open(kept, "w", encoding="utf-8") as file:
                json.dump(report, file)
        with open(kept, encoding="utf-8") as file:
            return json.load(file)["metrics"]

    def agreement(self, gguf, probe, served, **options):
        """How a served model agrees with a probe of the trainer."""
        key = "served_endpoint" if served else "float_endpoint"
        if not served:
            options = {"activations": "f32", "kv_cache": "f32", **options}
        with self.serving(gguf, **options) as endpoint:
            report = self.run_json(
                [self.path("evaluator"), *flags({"probe": probe, key: endpoint})],
                os.path.join(self.work, "evaluator.log"),
            )
        return report["served_engine" if served else "float_engine"]


def table(rows, columns):
    """Prints rows (dicts) under the columns (key, title, format)."""
    cells = [[title for _, title, _ in columns]]
    for row in rows:
        cells.append([
            "" if row.get(key) is None else format(row[key], spec)
            for key, _, spec in columns
        ])
    widths = [max(len(line[i]) for line in cells) for i in range(len(columns))]
    for number, line in enumerate(cells):
        print("| " + " | ".join(
            text.ljust(width) if i == 0 else text.rjust(width)
            for i, (text, width) in enumerate(zip(line, widths))) + " |")
        if number == 0:
            print("|" + "|".join("-" * (width + 2) for width in widths) + "|")
