"""Gemma 4's structures against transformers: the evidence command's two that
have most parts. Binaries come from $ONEGRID_BIN, by default bazel-bin."""

import os
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
BIN = pathlib.Path(os.environ.get("ONEGRID_BIN", ROOT / "bazel-bin"))


def test_mobile_layout_is_read_as_transformers_reads_it():
    venv = pathlib.Path(os.environ.get(
        "ONEGRID_CACHE", pathlib.Path.home() / ".cache/onegrid")) / "venv"
    python = venv / "bin/python3"
    found = subprocess.run(
        [python if python.exists() else sys.executable,
         ROOT / "tests/parity/mobile_layout.py", f"--bin-dir={BIN}"],
        text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert found.returncode == 0, found.stdout + found.stderr
    assert "mobile_layout: 6 of 6 checks hold" in found.stdout


def test_engine_and_trainer_compute_what_transformers_computes():
    found = subprocess.run(
        [ROOT / "tests/evidence/families_parity", f"--bin-dir={BIN}",
         "--only=gemma4_e2b", "--only=gemma4_26b_a4b"],
        text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert found.returncode == 0, found.stdout + found.stderr
    assert "families: 2 of 2 structures hold" in found.stdout
