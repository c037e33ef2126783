"""The choice of a peer's settings, with programs made up for the test."""

import os
import sys

import pytest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import peers


class Peer:
    """Its speed by setting; None: it fails."""

    name = "peer"

    def __init__(self, speeds):
        self.speeds = speeds

    def settings(self, _case):
        return [[name] for name in self.speeds]

    def speed(self, _case, settings):
        speed = self.speeds[settings[0]]
        if speed is None:
            raise RuntimeError(f"{settings[0]} ended with -4")
        return speed, None


CASE = peers.Case("prompt", "pp", 512)


def test_the_fastest_settings_are_taken():
    assert peers.best_settings(Peer({"a": 1.0, "b": 3.0, "c": 2.0}), CASE) == ["b"]


def test_settings_with_which_it_fails_are_left_out():
    assert peers.best_settings(Peer({"a": None, "b": 1.0, "c": 2.0}), CASE) == ["c"]


def test_failing_with_all_settings_is_an_error():
    with pytest.raises(RuntimeError, match="b ended with -4"):
        peers.best_settings(Peer({"a": None, "b": None}), CASE)


# As ik_llama.cpp's llama-batched-bench does.
def test_a_table_on_the_error_output_is_read(tmp_path):
    program = tmp_path / "llama-batched-bench"
    program.write_text("""#!/bin/sh
echo > llama.log
echo '|    PP |     TG |    B | S_TG t/s |' >&2
echo '|-------|--------|------|----------|' >&2
echo '|   512 |     16 |    8 |   119.17 |' >&2
""")
    program.chmod(0o755)
    here = set(os.listdir("."))
    peer = peers.IkLlamaCpp(str(tmp_path), "model.gguf", 2)
    case = peers.Case("8", "tg", 16, depth=512, batch=8)
    assert peer.speed(case, ["-fa", "1", "-rtr", "0"]) == (119.17, None)
    # The log that it leaves where it runs.
    assert set(os.listdir(".")) == here


def test_onegrid_is_asked_for_as_many_logits_as_the_case_says(tmp_path):
    program = tmp_path / "bench"
    program.write_text("""#!/bin/sh
case "$*" in
*--top_k=1*--text=*text.txt*) echo '{"cases": [{"median": 5.0}]}' ;;
*) exit 1 ;;
esac
""")
    program.chmod(0o755)
    ours = peers.OneGrid(str(program), "model.gguf", 2, "text.txt")
    assert ours.speed(peers.Case("decode", "tg", 128, top_k=1), [])[0] == 5.0
    with pytest.raises(RuntimeError):
        ours.speed(peers.Case("decode", "tg", 128), [])
