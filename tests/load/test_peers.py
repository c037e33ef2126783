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
