"""The benchmark of edits runs on a tiny cascade."""

import importlib.util
import re
import sys
from pathlib import Path

FOLDER = Path(__file__).parents[2] / "benchmarks"


def test_it_prints_ratios(model, capsys, monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))
    spec = importlib.util.spec_from_file_location("bench_editing", FOLDER / "editing.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    tiled = []
    monkeypatch.setattr(module, "time_ratio", lambda *given: tiled.append(given[1:]) or [1.5])
    words = ["editing.py", "--model", str(model), "--rounds", "1"]
    monkeypatch.setattr(sys, "argv", words)
    module.main()
    printed = capsys.readouterr().out
    assert (
        len(re.findall(r"with mask channels against one without: \d+\.\d{3} times", printed)) == 3
    )
    assert re.search(r"in-painting 32² against sampling it: \d+\.\d{3} times \(", printed)
    assert "4096² in tiles against sixteen of 1024²: 1.500 times" in printed and tiled == [(32, 1)]
