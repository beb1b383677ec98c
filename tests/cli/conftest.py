"""The tiny recipe's three stages with random weights, saved as a cascade folder."""

import pytest
import torch

from calotype.cascade import Stage, save_cascade
from calotype.cli import run
from calotype.training.recipes import load_recipe


@pytest.fixture(scope="session")
def model(tmp_path_factory):
    recipe = load_recipe("tiny")
    stages = []
    for index, config in enumerate(recipe.stages):
        torch.manual_seed(index)
        stage = Stage(config.stage)
        with torch.no_grad():
            for parameter in stage.parameters():
                parameter.add_(0.1 * torch.randn_like(parameter))
        stages.append(stage)
    folder = tmp_path_factory.mktemp("models") / "small"
    save_cascade(folder, stages=stages, text_encoder="bytes:16", name="small")
    return folder


@pytest.fixture
def command(capsys, tmp_path, monkeypatch, model):
    """Run a command in an empty folder; returns (exit code, stdout, stderr)."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / ".cache"))
    monkeypatch.delenv("CALOTYPE_DEBUG", raising=False)

    def call(*arguments):
        words = list(arguments)
        if words and words[0] in ("sample", "upscale") and "--model" not in words:
            words += ["--model", str(model), "--dtype", "float32"]
        code = run(words)
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call
