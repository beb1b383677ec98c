"""The benchmark of evaluation runs on a tiny cascade, and its stub is evaluated like a model."""

import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from calotype.evaluation.features.extractor import ExtractorSpec
from calotype.evaluation.results import read_results

FOLDER = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def load(monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))

    def loaded(name):
        spec = importlib.util.spec_from_file_location(f"bench_{name}", FOLDER / f"{name}.py")
        module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    yield loaded
    for name in ("bench_evaluation", "bench_evaluation_memory"):
        sys.modules.pop(name, None)


def test_it_prints_ratios(load, model, capsys, monkeypatch):
    module = load("evaluation")
    peaks = iter([(1e9, 5e8), (1.2e9, 5.25e8)])
    asked = []

    def run(command, **options):
        asked.append(command[1:])
        resident, own = next(peaks)
        said = json.dumps({"seconds": 3, "resident": resident, "own": own})
        return subprocess.CompletedProcess(command, 0, said)

    monkeypatch.setattr(module.subprocess, "run", run)
    words = "--sizes 8 --images 3 --rounds 1 --rows 80 --counts 5 50 --reference 7".split()
    monkeypatch.setattr(sys, "argv", ["evaluation.py", "--model", str(model), *words])
    module.main()
    out = capsys.readouterr().out
    number = r"\d+\.\d{3} times \("
    assert "best batch at 8²: 3, of 3\n" in out
    for line in (
        "images/s of `evaluate` at 8² to the best batch",
        "images/s of the best batch at 8² to single images",
        "features of 3 samples of 8² to the convolutions alone",
    ):
        assert re.search(f"{re.escape(line)}: {number}", out)
    assert re.search(r"of 80 x 1280 beside as many: \d+ s, and \d+ s once for the reference", out)
    assert "with 50 samples: 1200 MB resident (+20.0%), of it 525 MB its own (+5.0%); 3 s" in out
    memory = str(FOLDER / "evaluation_memory.py")
    assert asked[1] == [memory, "50", "--reference", "7", "--threads", "1"]


def test_the_stub_is_evaluated_like_a_model(load, tmp_path, monkeypatch):
    module = load("evaluation_memory")

    class Means:
        """Mean colours of the four corners."""

        name, description, fingerprint, dimension = "means", "", "e" * 64, 12
        device = torch.device("cpu")

        def __call__(self, images):
            corners = torch.nn.functional.avg_pool2d(images.float(), module.SIDE // 2)
            return corners.flatten(1)

    class Spec(ExtractorSpec):
        def load(self):
            return Means()

    monkeypatch.setattr(module, "ExtractorSpec", Spec)
    found = module.measured(tmp_path, 40, 30)
    results, scores = read_results(tmp_path / "out")
    assert results.samples.count == 40 == len(scores.samples) and results.reference.count == 30
    assert results.number("KID", "means") is not None
    assert found["seconds"] > 0 and 1e7 < found["resident"]
    assert found["own"] <= found["resident"]
