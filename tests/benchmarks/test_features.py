"""The benchmark of features runs, and leaves nothing out of its convolutions."""

import importlib.util
from pathlib import Path

import torch

FOLDER = Path(__file__).parents[2] / "benchmarks"


def test_it_counts_the_convolutions(monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))
    spec = importlib.util.spec_from_file_location("bench_features", FOLDER / "features.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)

    class Slow:
        """Half of its time passes in a convolution, and half in one that is hidden."""

        name, description, fingerprint, dimension = "slow", "", "f" * 64, 3
        device = torch.device("cpu")
        weight = torch.ones(16, 3, 15, 15)

        def __call__(self, images):
            x = images.float()
            for _ in range(2):
                found = torch.nn.functional.conv2d(x, self.weight).mean((2, 3))
            return found[:, :3]

    ratios = module.feature_ratios(Slow(), 2, count=2)
    assert len(ratios) == 2 and all(0.5 < ratio < 3 for ratio in ratios)
