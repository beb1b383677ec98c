"""Who says which style a sample shows, and what is counted."""

import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from calotype.emoji.prompts import ImageRow
from calotype.emoji.styles import StyleJudge, main, style_of_class, summary
from calotype.errors import UsageError

ROW = ImageRow("noto/1", "cat", "noto style", "noto", "", "cat", "train")
ROWS = [ROW, replace(ROW, name="dog"), replace(ROW, style="3d render style", set="fluent-3d")]


class Clip:
    """Says that captions of noto fit light images, others dark ones."""

    def embed_texts(self, captions):
        return torch.tensor([[1.0, 0] if "noto" in text else [0.0, 1] for text in captions])

    def embed_images(self, images):
        light = images.mean((1, 2, 3)) > 0
        return torch.stack((light, ~light), dim=1).float()


def test_the_judge_takes_the_style_whose_captions_fit_best():
    images = torch.tensor([0.5, -0.5, 0.1])[:, None, None, None].expand(-1, 3, 8, 8)
    assert StyleJudge(Clip(), ROWS)(images) == ["noto style", "3d render style", "noto style"]


def test_classes_are_sets_or_styles():
    assert style_of_class(ROWS, ["fluent-3d", "noto"]) == {
        "fluent-3d": "3d render style",
        "noto": "noto style",
    }
    assert style_of_class(ROWS, ["noto style"]) == {"noto style": "noto style"}
    with pytest.raises(UsageError, match="got a classifier of 'animals'; expected one of"):
        style_of_class(ROWS, ["noto", "animals"])


def test_fractions_are_of_what_was_wanted():
    """The interval is Wilson's of 3 of 4, by his formula: 0.3006 to 0.9544."""
    pytest.importorskip("scipy")
    shown = {"noto": ["noto style", "3d render style"], "fluent-3d": 2 * ["3d render style"]}
    found = summary(shown, style_of_class(ROWS, ["noto", "fluent-3d"]))
    assert (found["images"], found["right"]) == (4, 0.75)
    assert (found["low"], found["high"]) == (0.3006, 0.9544)
    assert found["by_class"] == {"noto": 0.5, "fluent-3d": 1.0}


@pytest.mark.parametrize(
    ("option", "message"),
    [
        (("--scales", "0,x"), "got --scales '0,x'; expected numbers of at least 0"),
        (("--scales=-1,2",), "got --scales '-1,2'; expected numbers of at least 0"),
        (("--samples", "0"), "got --samples 0; expected at least 1"),
    ],
)
def test_what_cannot_be_sampled_is_refused_in_one_line(option, message, capsys):
    words = ("--model", "a", "--classifier", "b", "--judge", "c", "--data", "d")
    assert main([*words, *option]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line


class Base:
    """Is dark, but where a guide pulls it to the light style."""

    def __init__(self):
        self.stages = [SimpleNamespace(config=SimpleNamespace(resolution=8))]
        self.asked = []

    def sample(self, captions, *, seeds, stop_at, pulls):
        assert captions == [""] * len(seeds) and stop_at == 8
        wanted = pulls[0].guide.wanted if pulls else None
        self.asked.append((list(seeds), wanted, pulls[0].scale if pulls else 0.0))
        light = 0.5 if wanted == "noto" else -0.5
        return SimpleNamespace(images=[torch.full((len(seeds), 3, 8, 8), light)])


class Classifier:
    """A classifier's files and the guide of it at once."""

    classes = ("fluent-3d", "noto")

    def __init__(self, wanted=None):
        self.wanted = wanted

    def to(self, device):
        return self

    def towards(self, wanted):
        return Classifier(wanted)


def test_every_class_is_sampled_at_every_scale_from_the_same_noise(monkeypatch, capsys, tmp_path):
    pytest.importorskip("scipy")
    base = Base()
    held_out = [replace(row, split="unseen_pair", key=f"{i}") for i, row in enumerate(ROWS)]
    real = {"0": 0.5, "1": -0.5, "2": -0.5}  # of noto one looks as noto
    gallery = SimpleNamespace(rows=held_out, real=lambda key: torch.full((3, 8, 8), real[key]))
    for name, stand_in in {
        "load_cascade": lambda options: (base, SimpleNamespace(device="cpu")),
        "read_gallery": lambda data, side: gallery,
        "load_classifier": lambda folder: Classifier(),
        "load_clip": lambda folder: Clip(),
        "ClassifierGuide": lambda model, wanted: model,
    }.items():
        monkeypatch.setattr(f"calotype.emoji.styles.{name}", stand_in)
    words = ["--model", "a", "--classifier", "b", "--judge", "c", "--data", "d"]
    sheet = tmp_path / "sheet.png"
    assert main([*words, "--scales", "0,2", "--samples", "2", "--sheet", str(sheet)]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(line["scale"], line["images"], line["right"]) for line in lines] == [
        (None, 3, 0.6667), (0.0, 4, 0.5), (2.0, 4, 1.0),
    ]  # fmt: skip
    assert base.asked == [
        ([0, 1], None, 0.0), ([2, 3], None, 0.0), ([0, 1], "fluent-3d", 2.0), ([2, 3], "noto", 2.0),
    ]  # fmt: skip
    with Image.open(sheet) as image:  # two rows of two of each class; the last two are light
        rows = np.asarray(image.convert("L")) > 128
    height, width = rows.shape
    assert not rows[2, 2] and not rows[2, -3] and not rows[-3, 2] and rows[-3, -3]
    assert width > height
