"""A small world of what a user has: images, a run, a cascade, an image of it, captions, a study."""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # for what these tests share
sys.path.insert(0, str(Path(__file__).parents[1] / "evaluation"))

from apart import in_child, preload
from eyes import colours, eyes

__all__ = ["colours", "eyes"]

MODULES = "modules.txt"
_RECIPE = {
    "name": "micro",
    "stages": [
        {
            "stage": {
                "resolution": 8,
                "parametrization": "v",
                "network": {
                    "kind": "unet",
                    "text_dim": 8,
                    "head_dim": 8,
                    "levels": [{"channels": 8, "blocks": 1}],
                },
                "sampling": {"steps": 2, "sampler": "ddim", "threshold_percentile": None},
            },
            "text_encoder": "bytes:8",
            "batch_size": 4,
            "total_images": 16,
            "checkpoint_images": 8,
            "grid_images": 0,
            "posthoc_ema_images": 4,
            "optimizer": {"warmup_images": 8},
        }
    ],
}


def _build(folder: Path) -> int:
    import numpy as np
    from PIL import Image

    from calotype.cli import run

    (folder / "images").mkdir()
    for number, name in enumerate(("left", "right", "up", "down")):
        pixels = np.full((16, 16, 3), 60 * number, np.uint8)
        Image.fromarray(pixels).save(folder / "images" / f"{name}.png")
        (folder / "images" / f"{name}.txt").write_text(f"it is {name}")
    (folder / "micro.json").write_text(json.dumps(_RECIPE))
    (folder / "captions.txt").write_text("left\nright\n")
    (folder / "captions-all.txt").write_text("it is left\nit is right\nit is up\nit is down\n")
    os.chdir(folder)
    for line in (
        "train micro.json --data images --out run --quiet --device cpu --dtype float32 --threads 1",
        "assemble run -o cascade",
        "sample left --model cascade --dtype float32 -o image.png",
        "data shard images --out shards --processes 1",
        "data verify images --processes 1",
        "data embed images --encoder bytes:8 --out embedded --processes 1",
        "report run -o report.html",
        "rate new study --protocol caption --set a=images --suite captions-all.txt --raters 1",
        "info cascade",
    ):
        code = run(line.split())
        if code != 0:
            return code
    (folder / MODULES).write_text("\n".join(sorted(sys.modules)))
    return 0


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder; read it, copy from it, change nothing."""
    folder = tmp_path_factory.mktemp("world")
    outcome = in_child(lambda: _build(folder), folder, seconds=120)
    assert outcome.code == 0, outcome
    # What commands import takes most of their time: children find it imported.
    preload((folder / MODULES).read_text().split("\n"))
    (folder / MODULES).unlink()
    return folder


@pytest.fixture
def place(world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the world to work in, with its own cache folder."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("CALOTYPE_DEBUG", raising=False)
    folder = tmp_path / "w"
    shutil.copytree(world, folder, symlinks=True)
    (folder / "out").mkdir()
    return folder
