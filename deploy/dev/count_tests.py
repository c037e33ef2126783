"""Sums what Bazel and pytest ran; the last line is "N passed, M failed".

usage: count_tests.py FOLDER BAZEL_STATUS PYTEST_STATUS

FOLDER holds Bazel's events.json and pytest's pytest.xml. Each test case of a
GoogleTest binary counts. A target that did not build, a test binary that died
before it reported, and a tool that failed without saying which test it was, each
count as one failure. Exits 0 only if something passed and nothing failed.
"""

import json
import os
import sys
import urllib.parse
import xml.etree.ElementTree as ElementTree


def count_xml(path):
    """(passed, failed) of a JUnit file; skipped cases are neither."""
    passed = failed = 0
    for case in ElementTree.parse(path).iter("testcase"):
        if case.find("failure") is not None or case.find("error") is not None:
            failed += 1
        elif (case.find("skipped") is None
              and case.get("status") != "notrun"
              and case.get("result") != "skipped"):
            passed += 1
    return passed, failed


def count_bazel(events, status):
    """(passed, failed, names of failed targets) of a build event file."""
    passed = failed = 0
    bad = []
    for event in events:
        identity = event.get("id", {})
        if "testResult" in event:
            result = event["testResult"]
            case = (0, 0)
            for output in result.get("testActionOutput", []):
                if output["name"] == "test.xml":
                    uri = urllib.parse.urlparse(output["uri"])
                    case = count_xml(urllib.parse.unquote(uri.path))
            ok = result["status"] in ("PASSED", "FLAKY")
            passed += case[0]
            failed += case[1] if ok else max(case[1], 1)
            if not ok or case[1]:
                bad.append(identity["testResult"]["label"])
        elif "targetCompleted" in identity:
            # An aborted target carries no "completed".
            if not event.get("completed", {}).get("success", False):
                label = identity["targetCompleted"]["label"]
                failed += 1
                bad.append(label + " (does not build)")
    if status != 0 and not failed:
        failed += 1
        bad.append(f"bazel ended with status {status}")
    return passed, failed, bad


def main():
    folder, bazel_status, pytest_status = sys.argv[1:]
    path = os.path.join(folder, "events.json")
    events = []
    if os.path.exists(path):
        with open(path, encoding="utf-8") as file:
            events = [json.loads(line) for line in file if line.strip()]
    passed, failed, bad = count_bazel(events, int(bazel_status))

    path = os.path.join(folder, "pytest.xml")
    python = count_xml(path) if os.path.exists(path) else (0, 0)
    passed += python[0]
    failed += python[1]
    if int(pytest_status) != 0 and not python[1]:
        failed += 1
        bad.append(f"pytest ended with status {pytest_status}")
    for name in bad:
        print("failed:", name)
    print(f"{passed} passed, {failed} failed")
    sys.exit(0 if passed and not failed else 1)


if __name__ == "__main__":
    main()
