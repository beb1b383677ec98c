"""How soon a command begins to sample."""

import subprocess
import sys

import pytest

COMMAND = """
import sys
from calotype.cli import run
sys.argv = ["calotype", *sys.argv[1:]]
code = run()
print(code, "torch._dynamo" in sys.modules)
"""


@pytest.mark.slow
def test_torchs_compiler_is_not_imported(tmp_path):
    """A second in which nothing is sampled: see `networks.blocks.normal`."""
    words = ("an owl", "--model", "default", "--size", "64", "--clip-guidance", "1", "--steps", "2")
    command = [sys.executable, "-c", COMMAND, "sample", *words, "-o", str(tmp_path / "owl.png")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] in ("0 False", "None False"), done.stderr
