"""The recorder sees every convolution and product, with its shapes, and can repeat it."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.nn import functional

FOLDER = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def kernels():
    spec = importlib.util.spec_from_file_location("kernels", FOLDER / "kernels.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["kernels"] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules["kernels"]


@torch.no_grad()
def test_records_what_costs_and_nothing_else(kernels):
    x, weight, matrix = torch.ones(2, 4, 8, 8), torch.ones(6, 4, 3, 3), torch.ones(5, 7)
    heads = torch.ones(1, 2, 16, 8)
    with kernels.recorded() as recording:
        functional.conv2d(x, weight, padding=1).relu().sum()
        for _ in range(3):
            functional.linear(torch.ones(3, 7), matrix)
        functional.scaled_dot_product_attention(heads, heads, heads)
    assert len(recording.order) == 5 and recording.order[1:4] == [1, 1, 1]
    assert len(recording.distinct) == 3
    convolution = 2 * (2 * 6 * 8 * 8) * (4 * 3 * 3)
    products = 3 * 2 * (3 * 5 * 7)
    attention = 2 * 2 * (2 * 16 * 16 * 8)
    assert recording.flops == convolution + products + attention
    assert 0 < recording.replay(1) < 10


def test_the_way_back_is_recorded_too(kernels):
    x, weight = torch.ones(2, 4, 8, 8), torch.ones(6, 4, 3, 3, requires_grad=True)
    heads = torch.ones(1, 2, 16, 8, requires_grad=True)
    with kernels.recorded() as recording:
        functional.conv2d(x, weight, padding=1).sum().backward()
        functional.scaled_dot_product_attention(heads, heads, heads).sum().backward()
    assert len(recording.order) == len(recording.distinct) == 4
    convolution = 2 * (2 * 6 * 8 * 8) * (4 * 3 * 3)  # the gradient of the weights costs as much
    attention = 2 * 2 * (2 * 16 * 16 * 8)  # back five products for two
    assert recording.flops == 2 * convolution + attention * 7 // 2
    assert 0 < recording.replay(1) < 10


@torch.no_grad()
def test_repeats_with_the_same_shapes_and_strides(kernels):
    x = torch.ones(1, 4, 8, 8).to(memory_format=torch.channels_last)
    with kernels.recorded() as recording:
        wanted = functional.conv2d(x, torch.ones(6, 4, 3, 3), stride=2)
    again = recording.distinct[0]()
    assert again.shape == wanted.shape and again.stride() == wanted.stride()


@pytest.mark.slow
def test_benchmark_runs_on_a_tiny_cascade(tmp_path):
    from calotype.cascade import Cascade, Stage
    from calotype.config.network import LevelConfig, UNetConfig
    from calotype.config.sampling import SamplingConfig
    from calotype.config.stage import StageConfig

    network = UNetConfig(levels=(LevelConfig(channels=8, blocks=1),), text_dim=16, head_dim=8)
    config = StageConfig(resolution=8, network=network, sampling=SamplingConfig(steps=2))
    Cascade("bytes:16", [Stage(config)]).save(tmp_path / "tiny")
    command = [sys.executable, str(FOLDER / "draw.py"), "--model", str(tmp_path / "tiny")]
    command += ["--stages-only", "--json", "--repeats", "1", "--threads", "1", "--dtype", "float32"]
    printed = subprocess.run(command, check=True, capture_output=True, text=True, timeout=100)
    stages = json.loads(printed.stdout)["stages"]["stages"]
    assert [stage["resolution"] for stage in stages] == [8]
    assert stages[0]["gflop"] > 0 and stages[0]["ratio"] > 0
