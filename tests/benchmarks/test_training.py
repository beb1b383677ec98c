"""The training benchmark runs at tiny sizes, counts what it should, and says what is missing."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.nn import functional

FOLDER = Path(__file__).parents[2] / "benchmarks"
COMMAND = [sys.executable, str(FOLDER / "training.py"), "--small", "--rounds", "2", "--steps", "1"]


def _load(name):
    spec = importlib.util.spec_from_file_location(name, FOLDER / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def peers():
    yield _load("training_peers")
    del sys.modules["training_peers"]


@pytest.fixture(scope="module")
def bench(peers):
    yield _load("training")
    del sys.modules["training"]


def test_counts_forward_and_backward(peers):
    x, weight = torch.ones(3, 7), torch.ones(5, 7, requires_grad=True)
    heads = torch.ones(1, 2, 16, 8, requires_grad=True)

    def step():
        functional.linear(x, weight).sum().backward()
        functional.scaled_dot_product_attention(heads, heads, heads).sum().backward()

    product = 2 * 3 * 5 * 7
    attention = 2 * (2 * 16 * 16 * 8)  # of one of its two products
    # Forward and the weight's gradient; two products forward, five backward (one computed again).
    assert peers.count_flops(step) == 2 * product + 7 * attention


def test_task_survives_the_command_line(bench, peers):
    assert peers.Task.from_json(bench.FULL.to_json()) == bench.FULL


def test_verdict_compares_round_by_round(bench):
    about = {"notes": ["said"]}
    own = bench.Measured("calotype", about, [4.0, 2.0, 6.0], flops=100.0, peak_bytes=10)
    near = bench.Measured("near", about, [2.0, 1.0, 2.0], flops=109.0, peak_bytes=10)
    far = bench.Measured("far", about, [1.0, 1.0, 1.0], flops=111.0, peak_bytes=5)
    lines = bench.verdict([own, near, far])
    assert "2.00 times the images/s (2.00–3.00 over 3 rounds)" in lines[0]
    assert "1.09 of calotype's, within 10 %" in lines[0]
    assert "NOT within 10 %" in lines[2] and "2.00 times the memory" in lines[2]
    assert lines[-1].endswith("(near) with no more memory: reached")
    own.peak_bytes = 11
    assert bench.verdict([own, near, far])[-1].endswith("not reached")


def test_a_worker_that_fails_says_why(bench):
    worker = bench.Worker("broken", [sys.executable, "-c", "raise ValueError('the reason')"], 1)
    try:
        with pytest.raises(SystemExit, match=r"worker of broken ended early(?s:.)*the reason"):
            worker.wait_until_ready()
    finally:
        worker.close()


def test_a_peer_that_is_not_there_is_named(bench, monkeypatch):
    monkeypatch.setattr(bench, "MODULES", {"nobody": "no_such_module"})
    commands, left_out = bench.commands_of(bench.SMALL, [sys.executable])
    assert list(commands) == ["calotype"]
    assert left_out[0].startswith("nobody: left out") and "--peers-python" in left_out[0]


@pytest.mark.slow
def test_compares_with_diffusers():
    pytest.importorskip("diffusers")
    printed = subprocess.run(COMMAND, check=True, capture_output=True, text=True, timeout=600)
    lines = printed.stdout.splitlines()
    ratios = [line for line in lines if line.startswith("- ratio to diffusers")]
    assert len(ratios) == 2 and all("within 10 %" in line for line in ratios)
    assert not any("NOT" in line for line in ratios)
    if importlib.util.find_spec("imagen_pytorch") is None:
        assert any(line.startswith("imagen-pytorch: left out") for line in lines)


@pytest.mark.slow
def test_profile_shows_where_time_goes():
    command = [*COMMAND, "--profile"]
    printed = subprocess.run(command, check=True, capture_output=True, text=True, timeout=600)
    assert "| `convolution_backward` |" in printed.stdout
    assert "convolutions and products alone" in printed.stdout
    rows = [line for line in printed.stdout.splitlines() if line.startswith("| channels_last off")]
    assert len(rows) == 1
