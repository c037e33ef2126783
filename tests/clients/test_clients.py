"""Clients of others against real servers: the checks of
tests/evidence/foreign_clients, each a test.

Those with conversations run on Gemma 3 270M, if it is in $ONEGRID_CACHE; the others
on a model of random weights, which is faster and knows no turns. Binaries come from
$ONEGRID_BIN, by default bazel-bin.
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


def serving(folder, command):
    """Servers of the model that a program writes to the path it is given."""
    model = folder / "model.gguf"
    subprocess.run(command(model), check=True, stdout=subprocess.DEVNULL)
    return checks.Servers(str(BIN), str(model), str(folder))


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    with serving(tmp_path_factory.mktemp("tiny"), lambda model: [
            BIN / "services/inference/write_tiny_model", model]) as servers:
        yield servers


@pytest.fixture(scope="module")
def gemma(tmp_path_factory):
    if not MODEL.exists():
        pytest.skip("Gemma 3 270M is not there")
    with serving(tmp_path_factory.mktemp("gemma"), lambda model: [
            BIN / "services/exporter/exporter", f"--import={MODEL}",
            f"--out={model}"]) as servers:
        yield servers


def named(case):
    return f"{case.client}: {case.words}"


@pytest.mark.parametrize(
    "case", [c for c in checks.CHECKS if not c.needs_turns], ids=named)
def test_client(case, tiny):
    case.function(tiny)


@pytest.mark.parametrize("case", [c for c in checks.CHECKS if c.needs_turns], ids=named)
def test_client_in_conversation(case, gemma):
    case.function(gemma)
