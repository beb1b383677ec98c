"""The sweep of sampling settings: the rule, the axes, and the value that is known to be better."""

import json
from dataclasses import replace

import pytest
import torch

from calotype.cascade import Cascade, CascadeSample
from calotype.config.sampling import SamplingConfig
from calotype.config.typed_json import load_config
from calotype.emoji import settings
from calotype.emoji.gallery import over_background, read_images, read_rows
from calotype.emoji.sweep import Axis, SweepSize, default_axes, parse_axis, sweep
from calotype.emoji.sweep_results import Cell, Sweep, choose
from calotype.errors import UsageError

pytest.importorskip("torchmetrics")
SIZE = SweepSize(captions=2, reference=6)


def brightness(images):
    """Features that need no package: the means of sixteen parts, (N, 48)."""
    return torch.nn.functional.adaptive_avg_pool2d(images, 4).flatten(1)


def cell(unseen, kid):
    return Cell(sampling=SamplingConfig(), trained=0.0, unseen=unseen, kid=kid)


def test_the_rule():
    # The third has the lowest KID, but its error is 6 % above the lowest.
    assert choose([cell(1.0, 0.5), cell(1.05, 0.4), cell(1.06, 0.1)]) == 1
    assert choose([cell(1.0, 0.5), cell(1.0, 0.5)]) == 0


def test_reads_axes():
    assert parse_axis("64:sigma_max=0.3,0.5") == Axis(64, "sigma_max", ("0.3", "0.5"))
    assert parse_axis("64:guidance_interval=[0.5,5],null").values == ("[0.5,5]", "null")
    for text in ("sigma_max=1", "64:sigma_max", "64:=1", "base:steps=2"):
        with pytest.raises(UsageError, match="got axis"):
            parse_axis(text)


def test_default_axes_fit_the_grid(cascade):
    base, second, _ = cascade.config.stages  # their grid is the schedule's
    assert [axis.setting for axis in default_axes([base])] == ["steps", "guidance_weight"]
    assert [axis.setting for axis in default_axes([second])] == ["aug_level", "steps"]
    karras = replace(second, sampling=replace(second.sampling, grid="karras"))
    assert {"sigma_min", "sigma_max"} < {axis.setting for axis in default_axes([karras])}
    # A base that starts from noise keeps its first level; from a draft it is tried.
    karras = replace(base, sampling=replace(base.sampling, grid="karras"))
    assert "sigma_max" not in {axis.setting for axis in default_axes([karras])}


@pytest.fixture()
def oracle(cascade, data, monkeypatch):
    """A cascade that guidance of 2 and an aug_level of 0 make perfect; anything else spoils it."""
    seen = []

    def real(captions, side, spoiled, lowres=None):
        keys = {row.caption: row.key for row in read_rows(data)}
        images = {k: over_background(x) for k, x in read_images(data, keys.values(), side)}
        x = torch.stack([images[keys[caption]] for caption in captions])
        seen.append((side, spoiled, None if lowres is None else lowres.clone()))
        return CascadeSample((x * (1 - spoiled),), tuple(range(len(captions))))

    def sample(self, captions, *, seeds, stop_at, sampling):
        return real(captions, stop_at, abs(sampling[stop_at].guidance_weight - 2) / 10)

    def upscale(self, lowres, captions, *, seeds, stop_at, sampling):
        return real(captions, stop_at, sampling[stop_at].aug_level, lowres)

    monkeypatch.setattr(Cascade, "sample", sample)
    monkeypatch.setattr(Cascade, "upscale", upscale)
    return seen


def test_chooses_what_is_known_to_be_better(cascade, data, oracle):
    axes = [
        Axis(16, "aug_level", (0.5, 0.0, 0.2)),
        Axis(8, "guidance_weight", (1.5, 2.0)),
        Axis(16, "steps", (2, 4)),
    ]
    found = sweep(cascade, data, axes, features=brightness, size=SIZE, say=lambda _: None)
    # Coarse stages first; the value in force, 1, is tried as well.
    assert [(axis.resolution, axis.setting) for axis in found.axes] == [
        (8, "guidance_weight"),
        (16, "aug_level"),
        (16, "steps"),
    ]
    guidance, aug_level, steps = found.axes
    values = [cell.sampling.guidance_weight for cell in guidance.cells]
    assert values == [1.0, 1.5, 2.0] and guidance.chosen == 2
    assert aug_level.chosen == 0 and aug_level.cells[0].unseen == pytest.approx(0, abs=1e-8)
    assert aug_level.cells[0].kid < aug_level.cells[2].kid
    assert all(cell.sampling.aug_level == 0 for cell in steps.cells)
    assert (guidance.trained, guidance.unseen, guidance.reference) == (1, 1, 6)
    # The stage before is sampled once, with the best settings, and enlarged each time; what has
    # been measured is not measured again.
    enlarged = [(spoiled, lowres) for side, spoiled, lowres in oracle if side == 16]
    assert [spoiled for spoiled, _ in enlarged] == [0.0, 0.2, 0.5, 0.0]
    assert all(torch.equal(lowres, enlarged[0][1]) for _, lowres in enlarged)
    assert [spoiled for side, spoiled, _ in oracle if side == 8] == [0.1, 0.05, 0.0, 0.0]


def test_the_command_writes_every_cell(cascade, data, tmp_path, monkeypatch):
    monkeypatch.setattr(settings, "load_features", lambda: brightness)
    cascade.save(tmp_path / "model")
    arguments = ["--model", str(tmp_path / "model"), "--data", str(data), "--threads", "1"]
    arguments += ["--captions", "2", "--reference", "6", "--out", str(tmp_path / "out")]
    assert settings.main([*arguments, "--axis", "8:steps=1,3", "--axis", "16:steps=1,2"]) == 0
    found = load_config(tmp_path / "out" / "settings.json", Sweep)
    assert [len(axis.cells) for axis in found.axes] == [3, 2]
    text = (tmp_path / "out" / "settings.md").read_text()
    assert text.count("N = 1 trained + 1 unseen pairs; KID to 6 real images") == 2
    for axis in found.axes:
        assert f"| **{axis.cells[axis.chosen].sampling.steps}** |" in text
    assert "within 5% of the lowest" in text
    json.loads((tmp_path / "out" / "settings.json").read_text())


@pytest.mark.parametrize(
    ("axis", "expected"),
    [
        ("64:steps=1", r"expected one of \[8, 16, 32\]"),
        ("8:stepz=1", "did you mean 'steps'"),
        ("16:aug_level=2", "axis value 16:aug_level=2"),
        ("16:sampler=euler", "expected one of"),
    ],
)
def test_refuses_axes_before_anything_is_sampled(cascade, data, axis, expected):
    with pytest.raises(UsageError, match=expected):
        sweep(cascade, data, [parse_axis(axis)], features=brightness, size=SIZE)


def test_refuses_more_captions_than_there_are(cascade, data):
    size = replace(SIZE, captions=4)  # one unseen pair is there
    with pytest.raises(UsageError, match="ask for fewer captions"):
        sweep(
            cascade,
            data,
            [Axis(8, "steps", (1,))],
            features=brightness,
            size=size,
            say=lambda _: None,
        )
