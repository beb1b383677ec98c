"""The benchmark of serving runs on a tiny cascade, and memory stays under its requests."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "serving_http.py"

pytestmark = pytest.mark.slow


def run(*words):
    command = [sys.executable, str(SCRIPT), *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_it_prints_ratios_and_waits(model):
    options = ["--sizes", "16", "--images", "8", "--rounds", "1", "--threads", "1"]
    printed = run(
        "clients", "previews", "cancels", "overhead", "health", "--model", str(model), *options
    )
    assert (
        len(re.findall(r"16²: together over (?:alone|plain), aim .*: \d+\.\d{3} times", printed))
        == 2
    )
    assert "first preview, idle: " in printed and "HTTP adds: " in printed
    assert re.search(r"until its rows are free: \d+\.\d{3} s", printed)
    median = float(re.search(r"/healthz (\d+\.\d) ms", printed)[1])
    assert median < 40  # what an answer takes that waits to be confirmed


def test_memory_stays_under_sizes_previews_and_cancels():
    printed = run("memory", "--requests", "150")
    assert "after 150 requests" in printed
    ratio = float(re.search(r"first part: (\d\.\d+), aim", printed)[1])
    assert ratio < 1.15, printed  # 150 requests do not fill what is remembered
