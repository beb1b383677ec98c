"""The worked example's parts: its images are what its script draws, its commands those shown."""

import importlib.util
import json
import shlex
import sys
from importlib import resources
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from calotype.cascade import find

DOCS = Path(__file__).parents[2] / "docs"
MASCOT = DOCS / "examples" / "mascot"


@pytest.fixture(scope="module")
def script():
    """Loads a script of docs/examples as a module."""
    loaded = []

    def load(name):
        spec = importlib.util.spec_from_file_location(name, DOCS / "examples" / f"{name}.py")
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module  # dataclasses look it up
        loaded.append(name)
        spec.loader.exec_module(module)
        return module

    yield load
    for name in loaded:
        sys.modules.pop(name, None)


def pixels(path):
    return np.asarray(Image.open(path).convert("RGBA").reduce(4), dtype=float)


def test_the_images_are_what_the_script_draws(script, tmp_path):
    pytest.importorskip("pyvips")
    assert script("draw_mascot").main([str(tmp_path)]) == 0
    drawn = sorted(path.name for path in tmp_path.iterdir())
    assert drawn == sorted(path.name for path in MASCOT.iterdir())
    assert len(drawn) == 12
    for path in MASCOT.glob("*.png"):
        assert pixels(path).shape == (256, 256, 4)
        # Another version of the renderer may smooth edges otherwise, and nothing else.
        assert np.abs(pixels(path) - pixels(tmp_path / path.name)).mean() < 1
        caption = path.with_suffix(".txt").read_text("utf-8")
        assert caption == (tmp_path / path.name).with_suffix(".txt").read_text("utf-8")
        assert caption == f"{path.stem.replace('-', ' ')}, flat twemoji style\n"


def test_images_are_small_and_differ():
    images = [pixels(path) for path in sorted(MASCOT.glob("*.png"))]
    assert sum(path.stat().st_size for path in MASCOT.iterdir()) < 200_000
    for i, image in enumerate(images):
        assert image[0, 0, 3] == 0  # on transparency
        assert all(np.abs(image - other).mean() > 0.5 for other in images[:i])


def test_nothing_held_out_is_drawn_or_asked_for(script):
    package = resources.files("calotype")
    held_out = json.loads((package / "assets" / "heldout.json").read_text("utf-8"))
    before = (DOCS / "examples" / "before.txt").read_text("utf-8").splitlines()
    example = script("worked_example")
    captions = [*before, *example.OTHERS, *example.NEW]
    names = {caption.partition(",")[0].removeprefix("a ") for caption in captions}
    assert not names & set(held_out["unseen_concept"])
    assert example.THING not in held_out["unseen_concept"] + list(held_out["unseen_pair"])
    assert set(example.SHOWN[4:]) <= set(before)
    assert not set(example.SHOWN[:4]) & set(before)


def test_commands_come_from_the_page_and_can_be_shortened(script):
    example = script("worked_example")
    page = example.PAGE.read_text("utf-8")
    full, short = example.commands(page), example.commands(page, images=60)
    trainings = [shlex.split(line) for line in full if line.startswith("calotype train ")]
    assert [words[words.index("--out") + 1] for words in trainings] == list(example.RUNS)
    lengths = [int(words[words.index("--images") + 1]) for words in trainings]
    assert lengths == [example.IMAGES, example.IMAGES // 2]
    assert not any("2400" in line or "1200" in line for line in short)
    assert "mascot/lora/60-64.safetensors" in short[-2]


def test_the_sheet_has_full_rows_and_the_numbers_are_of_what_was_drawn(
    script, tmp_path, monkeypatch
):
    example = script("worked_example")
    monkeypatch.chdir(tmp_path)
    for run in example.RUNS:
        (tmp_path / run / "lora").mkdir(parents=True)
        (tmp_path / run / "lora" / "60-64.safetensors").write_bytes(bytes(2**19))
        steps = [{"images": 12 * i, "images_per_second": float(i)} for i in (1, 2, 3)]
        log = "".join(json.dumps(step) + "\n" for step in [*steps, {"event": "end"}])
        (tmp_path / run / "log.jsonl").write_text(log)

    mascot = example.Mascot.read()
    goal = torch.nn.functional.avg_pool2d(mascot.images, 4)
    others = {"": 0.0, "mascot": 0.1, "mascot-alone": 0.5}
    results = example.Results(
        mascot,
        {weight: goal + weight for weight in example.WEIGHTS},
        torch.zeros(len(example.NEW), 3, 64, 64),
        {run: torch.full((len(example.OTHERS), 3, 64, 64), value) for run, value in others.items()},
    )
    text = example.numbers(results, {"mascot": 90.0, "mascot-alone": 45.0})
    assert "| 0 | 0.000 |" in text and "| 1.5 | 2.250 |" in text
    assert "| `mascot` | 36 | 90 | 2.0 | 0.0100 |" in text
    assert "| `mascot-alone` | 36 | 45 | 2.0 | 0.2500 |" in text
    assert "0.5 MiB" in text

    class Painter:
        def enlarge(self, images, captions):
            assert len(images) == len(captions)
            return torch.nn.functional.interpolate(images, scale_factor=4)

    cells = example.draw_cells(Painter(), results)
    assert len(cells) % 6 == 0
    assert len({cell.caption for cell in cells}) == len(cells)
    sheet = example.render_sheet(cells, columns=6, side=32)
    example.save_sheet(sheet, tmp_path / "out" / "sheet.png")
    assert Image.open(tmp_path / "out" / "sheet.png").size == sheet.size


@pytest.mark.slow
@pytest.mark.skipif(
    not (Path(find.__file__).parents[1] / "assets" / "default" / find.CASCADE_FILE).is_file(),
    reason="needs the embedded weights",
)
def test_the_whole_example_runs_on_the_embedded_weights(script, tmp_path):
    example = script("worked_example")
    out = tmp_path / "out"
    out.mkdir()
    arguments = ["--images", "24", "--work", str(tmp_path / "work"), "--out", str(out)]
    assert example.main(arguments) == 0
    assert "| `mascot` | 24 |" in (out / "numbers.md").read_text("utf-8")
    assert Image.open(out / "finetuning.png").width > 600
