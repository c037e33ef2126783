"""Clients of others against real servers: the checks of
tests/evidence/foreign_clients, each a test.

They run on Gemma 3 270M if it is in $ONEGRID_CACHE, else on a model of random
weights, which knows no turns. Binaries come from $ONEGRID_BIN, by default
bazel-bin.
"""

import os
import pathlib
import subprocess
import sys

import pytest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import checks
import open_inference_checks  # noqa: F401
import openai_checks  # noqa: F401
import standard_checks  # noqa: F401

ROOT = pathlib.Path(__file__).resolve().parents[2]
BIN = pathlib.Path(os.environ.get("ONEGRID_BIN", ROOT / "bazel-bin"))
CACHE = pathlib.Path(os.environ.get("ONEGRID_CACHE", pathlib.Path.home() / ".cache/onegrid"))
MODEL = CACHE / "models/gemma-3-270m-Q4_K_M.gguf"


@pytest.fixture(scope="module")
def servers(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clients")
    model = folder / "model.gguf"
    if MODEL.exists():
        command = [BIN / "services/exporter/exporter", f"--import={MODEL}", f"--out={model}"]
    else:
        command = [BIN / "services/inference/write_tiny_model", model]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    with checks.Servers(str(BIN), str(model), str(folder)) as running:
        yield running


@pytest.mark.parametrize("case", checks.CHECKS, ids=lambda c: f"{c.client}: {c.words}")
def test_client(case, servers):
    if case.needs_turns and not MODEL.exists():
        pytest.skip("the model of random weights knows no turns")
    case.function(servers)
