"""Checks which layer includes what, by reading every #include of the tree.

usage: layering.py [ROOT]

Bazel's visibility keeps one package from naming another, but the distribution's
headers are found without any dependency, so only reading the includes shows, for
instance, that a kernel uses gRPC. Prints one line per violation, exits 1 if
there is one.
"""

import os
import re
import subprocess
import sys

_INCLUDE = re.compile(r'^\s*#\s*include\s*[<"]([^>"]+)[>"]')
_SOURCES = (".cc", ".h")

_TORCH = ("torch/", "ATen/", "c10/", "caffe2/")
_WIRE = ("proto/", "grpc/", "grpcpp/", "google/protobuf/")
_LIBRARIES = ("nlohmann/", "prometheus/", "sentencepiece", "sqlite3",
              "yaml-cpp/", "openssl/", "CLI/", "microhttpd.h", "curl/")
_WORKERS_AND_SERVERS = tuple(
    f"services/{name}/"
    for name in ("controller", "evaluator", "exporter", "finetuner",
                 "gateway", "inference"))
_TEST_FILE = re.compile(r"_(test|benchmark|testing)\.(cc|h)$")

# (files, includes they must not have, why). A file is matched by prefix.
_RULES = (
    ("kernels/", _WIRE + _TORCH + _LIBRARIES + ("services/", "client/"),
     "kernels know numbers only"),
    ("kernels/base/", ("kernels/quant/", "kernels/reference/", "kernels/cpu/"),
     "base is below the other kernels"),
    ("kernels/quant/", ("kernels/reference/", "kernels/cpu/"),
     "quant is below reference and cpu"),
    ("services/common/", ("services/model/", "kernels/") + _WORKERS_AND_SERVERS,
     "common is below model and the services"),
    ("services/model/", _WIRE + _WORKERS_AND_SERVERS,
     "model reads and writes files: no wire, no service"),
    ("services/", ("client/",), "services do not know their clients"),
    ("client/", ("kernels/", "services/model/") + _WORKERS_AND_SERVERS,
     "clients meet services only through proto"),
)

# `onegrid model inspect` reads files on the user's own machine, where no service
# may run: the one thing of services/model that the client calls as a library.
_CLIENT_MAY_INCLUDE = ("services/model/inspect.h",)


def _forbidden(path, include):
    """Why `path` must not include `include`; None if it may."""
    if path.startswith("client/cli/") and include in _CLIENT_MAY_INCLUDE:
        return None
    is_test = bool(_TEST_FILE.search(path)) or path.startswith("tests/")
    for prefix, includes, why in _RULES:
        # A test may compare with a layer above its own.
        if is_test and include.startswith("kernels/"):
            continue
        if path.startswith(prefix) and include.startswith(includes):
            return why
    if include.startswith(_TORCH) and not path.startswith(
            ("services/finetuner/", "tests/build/")):
        return "only finetuner includes LibTorch"
    if include.startswith("oneapi/") and not path.startswith(
            ("kernels/cpu/", "tests/build/")):
        return "only kernels/cpu includes oneDNN"
    if include.startswith("kernels/cpu/") and not path.startswith(
            ("kernels/cpu/", "services/inference/", "tests/")):
        return "only inference uses kernels/cpu"
    if include.startswith(_WORKERS_AND_SERVERS) and path.startswith(
            _WORKERS_AND_SERVERS):
        if path.split("/")[1] != include.split("/")[1]:
            return "services meet only through proto"
    if include.startswith("absl/flags/") and not path.endswith("_main.cc"):
        return "flags are read only in *_main.cc"
    if include.startswith("tests/") and not is_test:
        return "only tests include tests"
    return None


def check_file(path, lines):
    """Violations of one file, "path:line: ..." each."""
    violations = []
    for number, line in enumerate(lines, 1):
        match = _INCLUDE.match(line)
        why = _forbidden(path, match.group(1)) if match else None
        if why:
            violations.append(
                f"{path}:{number}: includes {match.group(1)}: {why}")
    return violations


def check_tree(root):
    """Violations of all C++ files that git knows or would add below `root`."""
    listing = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=root, check=True, capture_output=True, text=True).stdout
    violations = []
    files = 0
    for path in sorted(set(listing.splitlines())):
        full = os.path.join(root, path)
        if not path.endswith(_SOURCES) or not os.path.isfile(full):
            continue
        files += 1
        with open(full, encoding="utf-8") as source:
            violations += check_file(path, source)
    if not files:
        violations.append(f"{root}: no C++ file found")
    return violations


def main():
    here = os.path.dirname(os.path.abspath(__file__))
    root = sys.argv[1] if len(sys.argv) > 1 else os.path.join(here, "../..")
    violations = check_tree(root)
    for violation in violations:
        print(violation)
    sys.exit(1 if violations else 0)


if __name__ == "__main__":
    main()
