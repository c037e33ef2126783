"""deploy/dev/count_tests.py counts what Bazel and pytest report."""

import json
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
GOOD = """<testsuites><testsuite>
<testcase name="a" status="run" result="completed"/>
<testcase name="b" status="run" result="skipped"/>
<testcase name="c" status="notrun" result="suppressed"/>
</testsuite></testsuites>"""
BAD = """<testsuites><testsuite><testcase name="a"/>
<testcase name="b"><failure message="no"/></testcase>
</testsuite></testsuites>"""


def built(label, success=True):
    done = {"completed": {"success": True}} if success else {"aborted": {}}
    return {"id": {"targetCompleted": {"label": label}}, **done}


@pytest.fixture
def count(tmp_path):
    def run(results, events=(), bazel=0, pytest_xml=None, pytest_status=0):
        lines = list(events)
        for number, (status, text) in enumerate(results):
            xml = tmp_path / f"{number}.xml"
            xml.write_text(text)
            lines.append({
                "id": {"testResult": {"label": f"//:t{number}"}},
                "testResult": {"status": status, "testActionOutput": [
                    {"name": "test.xml", "uri": xml.as_uri()}]}})
        (tmp_path / "events.json").write_text(
            "\n".join(json.dumps(line) for line in lines))
        if pytest_xml:
            (tmp_path / "pytest.xml").write_text(pytest_xml)
        done = subprocess.run(
            [sys.executable, str(ROOT / "deploy/dev/count_tests.py"),
             str(tmp_path), str(bazel), str(pytest_status)],
            capture_output=True, text=True)
        return done.returncode, done.stdout.splitlines()[-1]
    return run


def test_cases_add_up_and_skipped_ones_are_neither(count):
    assert count([("PASSED", GOOD)], [built("//:t0")], pytest_xml=GOOD) == (
        0, "2 passed, 0 failed")


def test_failed_cases_count_one_by_one(count):
    assert count([("FAILED", BAD)], bazel=3, pytest_xml=BAD,
                 pytest_status=1) == (1, "2 passed, 2 failed")


def test_a_binary_that_dies_is_one_failure(count):
    assert count([("FAILED", "<testsuites/>"), ("PASSED", GOOD)], bazel=3) == (
        1, "1 passed, 1 failed")


def test_a_target_that_does_not_build_is_one_failure(count):
    assert count([("PASSED", GOOD)], [built("//:broken", False)], bazel=1) == (
        1, "1 passed, 1 failed")


def test_a_tool_that_fails_without_a_culprit_is_one_failure(count):
    assert count([("PASSED", GOOD)], bazel=1, pytest_status=2) == (
        1, "1 passed, 2 failed")


def test_nothing_run_is_not_success(count):
    assert count([]) == (1, "0 passed, 0 failed")
