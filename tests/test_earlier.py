"""A run, a cascade, adapters and an image of an earlier version resume and sample as before.

`tests/fixtures/make_earlier.py` made them. On the same machine, with the same torch, the weights
and pixels are the same to the bit.
"""

import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file

from calotype.cli import run

HERE = Path(__file__).parent
COMPUTE = ("--dtype", "float32", "--threads", "1", "--device", "cpu")
CAPTION = "a red square on the left, white ground"
sys.path.insert(0, str(HERE / "pins"))

from record import machine  # noqa: E402


@pytest.fixture
def earlier(tmp_path):
    """The files, in a folder of their own."""
    with tarfile.open(HERE / "fixtures/earlier.tar.xz") as archive:
        archive.extractall(tmp_path, filter="data")
    return tmp_path


@pytest.fixture
def expected(earlier):
    return load_file(earlier / "expected.safetensors")


@pytest.fixture
def to_the_bit(earlier):
    """Whether this machine made the numbers."""
    with safe_open(earlier / "expected.safetensors", framework="pt") as file:
        return file.metadata()["machine"] == machine()


def test_a_killed_run_resumes_to_the_same_weights(earlier, expected, to_the_bit):
    out = earlier / "run"
    assert not (out / "checkpoints/96").exists()
    words = ("train", str(out / "recipe.json"), "--data", str(earlier / "data"))
    assert run([*words, "--out", str(out), "--resume", "--quiet"]) == 0
    names = {key.partition("/")[0] for key in expected} - {"pixels", "pixels-lora"}
    assert {"weights.safetensors", "ema.safetensors", "ema-0.050.safetensors"} == names
    for name in names:
        found = load_file(out / "checkpoints/96" / name)
        assert {f"{name}/{key}" for key in found} == {k for k in expected if k.startswith(name)}
        for key, value in found.items():
            wanted = expected[f"{name}/{key}"]
            if to_the_bit:
                assert torch.equal(value, wanted), (name, key)
            far, size = (value - wanted).float().norm(), wanted.float().norm()
            assert far <= 1e-4 * size + 1e-7, (name, key)


@pytest.mark.parametrize("name", ["pixels", "pixels-lora", "like"])
def test_it_samples_the_same_pixels(earlier, expected, to_the_bit, name, monkeypatch):
    (earlier / "out").mkdir()
    monkeypatch.chdir(earlier / "out")
    words = ["sample", "--model", str(earlier / "cascade"), *COMPUTE]
    if name == "like":
        words += ["--like", str(earlier / "like.png")]
    else:
        words += [CAPTION, "--seed", "5", "-n", "4"]
    if name == "pixels-lora":
        words += ["--lora", str(earlier / "lora.safetensors")]
    assert run(words) == 0
    images = [np.asarray(Image.open(path)) for path in sorted(Path().glob("*.png"))]
    wanted = expected["pixels"][:1] if name == "like" else expected[name]
    far = np.abs(np.stack(images).astype(int) - wanted.numpy().astype(int)).max()
    assert far <= (0 if to_the_bit else 1)
