import json
import math

import pytest
from PIL import Image

from calotype.config.typed_json import to_dict
from calotype.diffusion.noise_marks import BINS, NOISE_RATIOS
from calotype.training.recipes import load_recipe


def _step(images, stage, scale):
    """A line of a log whose loss falls as 1/sqrt(images)."""
    loss = scale * (0.05 + 1 / math.sqrt(images) + 0.01 * math.sin(images))
    return {
        "images": images,
        "stage": stage,
        "loss": loss,
        "grad_norm": 3 * loss,
        "lr": 1e-3 * min(1.0, images / 400),
        "skipped": int(images > 100),
        "rewinds": 0,
        "images_per_second": 50.0,
        "data_wait": 0.02,
        "flops_per_second": 6.0e9,
        "flops_share_of_peak": 0.3,
        "loss_by_level": {name: loss * (i + 1) / 4.5 for i, name in enumerate(BINS)},
        "images_by_level": dict.fromkeys(BINS, 1),
    }


@pytest.fixture
def write_run(tmp_path):
    """Make a run folder: three stages of `steps` steps of 8 images, with samples."""

    def write(steps=40, **changes):
        run = tmp_path / "run"
        for folder in (run / "grids", run / "checkpoints" / "80"):
            folder.mkdir(parents=True)
        recipe = {**to_dict(load_recipe("tiny")), **changes}
        (run / "recipe.json").write_text(json.dumps(recipe))
        state = {"images": 80, "runtime": {"device": "cpu"}, "versions": {"torch": "2.x"}}
        (run / "checkpoints/80/state.json").write_text(json.dumps(state))
        (run / "checkpoints/80/manifest.json").write_text("{}")
        with (run / "log.jsonl").open("w") as log, (run / "validation.jsonl").open("w") as errors:
            for number in range(3 * steps):
                images, stage = 8 * (number + 1), (8, 16, 32)[number // steps]
                log.write(json.dumps(_step(images, stage, scale=stage / 8)) + "\n")
                if (number + 1) % 10 == 0:
                    line = {"images": images, "stage": stage, "seconds": 2.0}
                    for kind in ("validation", "trained"):
                        line[kind] = {f"{r:g}": r / math.sqrt(images) for r in NOISE_RATIOS}
                    errors.write(json.dumps(line) + "\n")
                    image = Image.new("RGB", (64, 32), (number % 256, 80, 80))
                    image.save(run / "grids" / f"{images}.png")
        note = {"images": 104, "reason": "not finite", "keys": ["<b>one</b>", "two"]}
        (run / "skipped.jsonl").write_text(json.dumps(note) + "\n")
        return run

    return write
