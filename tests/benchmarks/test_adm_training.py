"""The reference of the training benchmark is the same network, and the benchmark runs."""

import importlib.util
import re
import sys
from pathlib import Path

import pytest
import torch

from calotype.conditioning import Conditioning, TokenIds
from calotype.config.adm import AdmConfig, AdmLevel, TokensText
from calotype.networks import AdmUNet

FOLDER = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def benchmark(monkeypatch):
    """Import a module of the benchmarks by name."""
    monkeypatch.syspath_prepend(str(FOLDER))

    def load(name):
        spec = importlib.util.spec_from_file_location(name, FOLDER / f"{name}.py")
        module = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, name, module)
        spec.loader.exec_module(module)
        return module

    return load


CONFIG = AdmConfig(
    levels=(
        AdmLevel(channels=16, blocks=1),
        AdmLevel(channels=32, blocks=2, attention="joined"),
    ),
    text_dim=1,
    text=TokensText(width=16, layers=2, heads=2, context=6, vocabulary=20),
    fold=2,
    head_dim=16,
    norm_groups=8,
    learned_variance=True,
)


def test_guided_diffusions_formulation_answers_as_ours(benchmark):
    ours = AdmUNet(CONFIG)
    with torch.no_grad():
        for parameter in ours.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    theirs = benchmark("guided_diffusion").GuidedDiffusionUNet(CONFIG)
    theirs.load(ours)
    ids = torch.randint(0, 20, (2, 6))
    cond = Conditioning(TokenIds(ids, torch.arange(6)[None] < torch.tensor([[6], [2]])))
    z, timesteps = torch.randn(2, 3, 16, 16), torch.tensor([3.0, 800.0])
    expected = ours(z, timesteps, cond)
    torch.testing.assert_close(theirs(z, timesteps, cond), expected, atol=1e-4, rtol=1e-4)


@pytest.mark.slow
def test_it_prints_a_ratio(benchmark, capsys):
    benchmark("adm_training").main(["--rounds", "1", "--batch", "1"])
    printed = capsys.readouterr().out
    assert "the other one 0.99" in printed or "the other one 1.00" in printed
    assert re.search(r"ratio \d\.\d{3} \(\d\.\d\d to \d\.\d\d over 1 rounds\)", printed)
