"""The benchmark of data preparation runs and counts what it should."""

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

FILE = Path(__file__).parents[2] / "benchmarks" / "data.py"


@pytest.fixture(scope="module")
def bench():
    spec = importlib.util.spec_from_file_location("bench_data", FILE)
    module = importlib.util.module_from_spec(spec)
    sys.modules["bench_data"] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules["bench_data"]


def test_costs_are_of_each_image(bench, tmp_path):
    data, work = tmp_path / "data", tmp_path / "work"
    data.mkdir()
    sizes = []
    for number in range(5):
        pixels = np.random.default_rng(number).integers(0, 256, (40, 40, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(data / f"{number}.png")
        (data / f"{number}.txt").write_text(f"caption {number % 4}")
        sizes.append((data / f"{number}.png").stat().st_size)
    costs = {c.work: c for c in bench.measure(data, work, encoder="bytes:64", rows=3)}
    assert [c.each for c in costs.values()] == ["image"] * 3 + ["caption"] * 2
    assert np.mean(sizes) < costs["shard"].size < np.mean(sizes) + 2000
    assert costs["verify"].size == 24
    # "caption 1" is nine bytes, each a token of 64 channels; then key and offset.
    assert 9 * 64 * 2 + 24 < costs["embed float16"].size < 9 * 64 * 2 + 1000
    assert 9 * 64 < costs["embed int8"].size < costs["embed float16"].size
    assert all(c.seconds > 0 and c.processor_seconds >= 0 for c in costs.values())
