"""The interval of a difference, and the card of the embedded CLIP."""

import json
import re

import pytest

from calotype.emoji.best_of import SPLITS, summary
from calotype.training.recipes import load_recipe
from calotype.vision.clip import find_clip, load_clip

pytest.importorskip("scipy")


def test_no_difference_has_no_width():
    found = summary("pixels", "x", [(True, True), (False, False)] * 10)
    assert (found.one, found.best, found.difference, found.low, found.high) == (0.5, 0.5, 0, 0, 0)


def test_the_interval_is_that_of_pairs():
    """100 prompts, of which the best finds 30 more and loses none: normal theory is near."""
    found = summary(
        "pixels", "x", [(False, True)] * 30 + [(True, True)] * 40 + [(False, False)] * 30
    )
    assert (found.one, found.best, found.difference) == (0.4, 0.7, 0.3)
    error = (0.3 * 0.7 / 100) ** 0.5
    assert found.low == pytest.approx(0.3 - 1.96 * error, abs=0.02)
    assert found.high == pytest.approx(0.3 + 1.96 * error, abs=0.02)
    lost = summary("pixels", "x", [(True, False)] * 30 + [(False, False)] * 70)
    assert lost.high < 0


def test_the_embedded_clip_is_what_its_card_says():
    model = load_clip()
    folder = find_clip(None)
    card = (folder / "README.md").read_text()
    assert (folder / "weights.safetensors").stat().st_size <= 8_000_000
    assert model.file.clip == load_recipe("clip-emoji").stages[0].clip
    assert f"{sum(p.numel() for p in model.network.parameters()):,} parameters" in card
    rows = {m[1]: float(m[2]) for m in re.finditer(r"\| (\w+ \w+) \| (0\.\d\d) \|", card)}
    assert rows["unseen pairs"] >= 0.85 and rows["unseen concepts"] >= 0.15
    assert all(split.replace("_", " ") in card for split in SPLITS)
    assert json.loads((folder / "clip.json").read_text())["name"] == "clip-emoji"
