"""Who says which style a sample shows, and what is counted."""

from dataclasses import replace

import pytest
import torch

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
