"""The Dockerfiles name files and packages that exist, without a daemon.

Also: each image installs exactly the packages whose libraries its binary loads.
Binaries come from $ONEGRID_BIN, by default bazel-bin.
"""

import os
import pathlib
import re
import subprocess

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
DOCKER = ROOT / "deploy" / "docker"
BIN = pathlib.Path(os.environ.get("ONEGRID_BIN", ROOT / "bazel-bin"))
SERVICES = ["controller", "evaluator", "exporter", "finetuner", "gateway",
            "inference"]


def instructions(name):
    """(instruction, rest) of each logical line of a Dockerfile."""
    text = (DOCKER / f"{name}.Dockerfile").read_text()
    text = re.sub(r"^\s*#.*\n", "", text, flags=re.M)
    text = re.sub(r"\\\n", " ", text)
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return [tuple(line.split(None, 1)) for line in lines]


def packages(service):
    (run,) = [rest for word, rest in instructions(service)
              if word == "RUN" and "apt-get install" in rest]
    words = run.split("--no-install-recommends", 1)[1].split("&&")[0].split()
    return set(words)


def test_there_is_one_dockerfile_for_each_service_and_the_builder():
    names = {p.name.removesuffix(".Dockerfile")
             for p in DOCKER.glob("*.Dockerfile")}
    assert names == set(SERVICES) | {"builder"}


@pytest.mark.parametrize("name", SERVICES + ["builder"])
def test_only_known_instructions_and_from_first(name):
    words = [word for word, _ in instructions(name)]
    assert set(words) <= {"ARG", "COPY", "ENTRYPOINT", "ENV", "FROM", "RUN",
                          "USER", "WORKDIR"}
    assert words[0] == "FROM" or words[:2] == ["ARG", "FROM"]


def test_builder_copies_what_the_tree_has():
    for word, rest in instructions("builder"):
        if word == "COPY":
            for source in rest.split()[:-1]:
                assert (ROOT / source).exists(), source


def test_builder_builds_what_the_images_copy():
    build = " ".join(rest for word, rest in instructions("builder")
                     if word == "RUN")
    for service in SERVICES:
        assert f"//services/{service} " in build
    for service in SERVICES:
        copies = [rest.split() for word, rest in instructions(service)
                  if word == "COPY"]
        assert ["--from=builder", f"/out/{service}",
                f"/usr/local/bin/{service}"] in copies
        for copy in copies:
            assert copy[0] == "--from=builder"
            assert copy[1] in (f"/out/{service}", "/out/lib/")


@pytest.mark.parametrize("service", SERVICES)
def test_image_runs_its_binary_as_an_ordinary_user(service):
    last = instructions(service)[-2:]
    assert last == [("USER", "65532:65532"),
                    ("ENTRYPOINT", f'["/usr/local/bin/{service}"]')]


def packages_of(paths):
    """The Debian packages that hold the files, with /lib or /usr/lib names."""
    names = [name for path in paths
             for name in (path, path.removeprefix("/usr"), "/usr" + path)]
    # Exits 1 because each file is known by one of its names only.
    found = subprocess.run(["dpkg-query", "-S"] + names,
                           capture_output=True, text=True).stdout
    packages = {}
    for line in found.splitlines():
        package, path = line.split(": ", 1)
        packages[path.removeprefix("/usr")] = package.split(":")[0]
    return {packages[path.removeprefix("/usr")] for path in paths}


@pytest.mark.parametrize("service", SERVICES)
def test_image_installs_the_libraries_that_the_binary_names(service):
    binary = BIN / "services" / service / service
    dynamic = subprocess.run(["readelf", "-d", str(binary)], check=True,
                             capture_output=True, text=True).stdout
    needed = set(re.findall(r"\(NEEDED\).*\[(.*)\]", dynamic))
    loaded = dict(re.findall(
        r"^\s*(\S+) => (/\S+)", subprocess.run(
            ["ldd", str(binary)], check=True, capture_output=True,
            text=True).stdout, flags=re.M))
    base_image = {"libc6", "libgcc-s1", "libstdc++6", "zlib1g"}
    files = {os.path.realpath(loaded[name]) for name in needed & set(loaded)}
    torch = {path for path in files if "torch" in path}
    assert not torch or service == "finetuner"
    # Whom TLS trusts; the gateway's upstreams need it.
    authorities = {"ca-certificates"} if service == "gateway" else set()
    assert (packages_of(files - torch) - base_image | authorities
            == packages(service))


def test_packages_exist():
    wanted = set().union(*map(packages, SERVICES))
    shown = subprocess.run(["apt-cache", "show"] + sorted(wanted),
                           capture_output=True, text=True).stdout
    assert set(re.findall(r"^Package: (\S+)", shown, flags=re.M)) == wanted
