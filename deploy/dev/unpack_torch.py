"""Unpacks LibTorch from a PyTorch wheel into a folder Bazel can use.

usage: unpack_torch.py WHEEL FOLDER

FOLDER gets include/ and lib/. The wheel's copies of protobuf's and oneDNN's
headers are left out: they would shadow other versions that the build uses.
"""

import os
import shutil
import sys
import zipfile

_LIBRARIES = (
    "libc10.so",
    "libgomp.so.1",
    "libtorch.so",
    "libtorch_cpu.so",
)
_SHADOWING = (
    "google/protobuf/",
    "oneapi/",
    "dnnl",
    "pybind11/",
)


def target_of(name):
    """The path below FOLDER of a member of the wheel, None to leave it out."""
    if name.startswith("torch/include/") and not name.endswith("/"):
        header = name[len("torch/include/"):]
        return None if header.startswith(_SHADOWING) else "include/" + header
    if name.startswith("torch/lib/"):
        library = name[len("torch/lib/"):]
        return "lib/" + library if library in _LIBRARIES else None
    return None


def main():
    wheel, folder = sys.argv[1:]
    staging = folder + ".staging"
    shutil.rmtree(staging, ignore_errors=True)
    with zipfile.ZipFile(wheel) as archive:
        for member in archive.infolist():
            target = target_of(member.filename)
            if target is None:
                continue
            path = os.path.join(staging, target)
            os.makedirs(os.path.dirname(path), exist_ok=True)
            with archive.open(member) as source, open(path, "wb") as copy:
                shutil.copyfileobj(source, copy, 1 << 20)
    for library in _LIBRARIES:
        if not os.path.exists(os.path.join(staging, "lib", library)):
            sys.exit(f"{wheel}: no torch/lib/{library}")
    shutil.rmtree(folder, ignore_errors=True)
    os.rename(staging, folder)


if __name__ == "__main__":
    main()
