"""The benchmark of guidance by a gradient runs on recipes' settings."""

import importlib.util
import re
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "benchmarks"


@pytest.mark.slow
def test_it_prints_ratios(capsys, monkeypatch):
    spec = importlib.util.spec_from_file_location("bench_guidance", FOLDER / "guidance.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    words = ["guidance.py", "--rounds", "1", "--batch", "1", "--bases", "glide-emoji-64"]
    monkeypatch.setattr(sys, "argv", words)
    module.main()
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2
    assert all(re.search(r"1 at once: \d+\.\d{3} times \(", line) for line in lines)
