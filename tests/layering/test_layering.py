"""The layering check passes on the tree and catches each kind of violation."""

import os
import subprocess
import sys

import pytest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import layering

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "../..")


def test_the_tree_keeps_its_layers():
    assert layering.check_tree(ROOT) == []


@pytest.mark.parametrize("path, include", [
    ("kernels/quant/a.cc", "proto/onegrid/v1/tuning.pb.h"),
    ("kernels/base/a.h", "services/common/files.h"),
    ("kernels/cpu/a.cc", "grpcpp/grpcpp.h"),
    ("kernels/reference/a.cc", "torch/torch.h"),
    ("kernels/base/a.cc", "kernels/quant/grid.h"),
    ("kernels/quant/a.h", "kernels/cpu/packed_linear.h"),
    ("services/inference/a.cc", "torch/torch.h"),
    ("services/inference/a.cc", "services/finetuner/trainer.h"),
    ("services/exporter/a.cc", "kernels/cpu/packed_linear.h"),
    ("services/inference/a.cc", "oneapi/dnnl/dnnl.hpp"),
    ("services/model/a.cc", "proto/onegrid/v1/common.pb.h"),
    ("services/common/a.cc", "services/model/gguf_reader.h"),
    ("services/common/server.cc", "absl/flags/flag.h"),
    ("services/common/server.cc", "tests/support/matchers.h"),
    ("client/cli/a.cc", "services/controller/store.h"),
    ("client/cli/a.cc", "services/model/gguf_reader.h"),
    ("client/python/a.cc", "services/model/inspect.h"),
])
def test_a_violation_is_caught(path, include):
    for line in (f'#include "{include}"\n', f"# include <{include}>\n"):
        found = layering.check_file(path, ["// why\n", line])
        assert len(found) == 1
        assert found[0].startswith(f"{path}:2: includes {include}: ")


@pytest.mark.parametrize("path, include", [
    ("kernels/cpu/a.cc", "oneapi/dnnl/dnnl.hpp"),
    ("kernels/quant/a_test.cc", "kernels/reference/matmul.h"),
    ("services/finetuner/a.cc", "torch/torch.h"),
    ("services/inference/a.cc", "kernels/cpu/packed_linear.h"),
    ("services/inference/a.cc", "services/inference/engine.h"),
    ("services/inference/inference_main.cc", "absl/flags/flag.h"),
    ("services/model/a.cc", "services/common/error_info.h"),
    ("services/model/a_test.cc", "tests/support/matchers.h"),
    ("client/cli/main.cc", "services/model/inspect.h"),
])
def test_what_a_layer_may_include_passes(path, include):
    assert layering.check_file(path, [f'#include "{include}"\n']) == []


def test_a_violation_in_a_tree_fails_the_command(tmp_path):
    folder = tmp_path / "kernels" / "base"
    folder.mkdir(parents=True)
    (folder / "a.h").write_text("#include <grpcpp/grpcpp.h>\n")
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    run = subprocess.run(
        [sys.executable, layering.__file__, str(tmp_path)],
        capture_output=True, text=True)
    assert run.returncode == 1
    assert "kernels/base/a.h:1: includes grpcpp/grpcpp.h" in run.stdout
