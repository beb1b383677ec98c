"""The benchmark of tiles runs on a tiny cascade."""

import importlib.util
import sys
from pathlib import Path

import pytest
import torch

from calotype.evaluation.superresolution import RealImage

FILE = Path(__file__).parents[2] / "benchmarks" / "tiled.py"


@pytest.fixture(scope="module")
def bench():
    spec = importlib.util.spec_from_file_location("bench_tiled", FILE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
def test_it_prints_what_it_measured(bench, model, capsys, monkeypatch):
    def images(count, size):
        assert size == 64
        return iter([RealImage(torch.rand(3, size, size) * 2 - 1, "")] * count)

    monkeypatch.setattr(bench, "heldout_images", images)
    words = ["tiled.py", "--model", str(model), "--rounds", "1", "--images", "2"]
    monkeypatch.setattr(sys, "argv", words)
    threads = torch.get_num_threads()
    bench.main()
    torch.set_num_threads(threads)
    out = capsys.readouterr().out
    assert "against 4 enlargements to 32" in out and " GB\n" in out
    assert "PSNR of 2 held-out vector images at 64" in out
