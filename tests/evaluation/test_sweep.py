"""Sweeps: what is tried, what cells share, the rule that chooses, figures that do not change."""

import dataclasses
import json
import re
import shutil

import numpy as np
import pytest
import torch

from calotype.config.sampling import SamplingConfig
from calotype.errors import UsageError
from calotype.evaluation.features.colours import MeanColour
from calotype.evaluation.features.extractor import ExtractorSpec
from calotype.evaluation.options import MeasureOptions
from calotype.evaluation.report.sweep_page import write_sweep_page
from calotype.evaluation.results import Number
from calotype.evaluation.samples import open_samples
from calotype.evaluation.suites.suite import Prompt, Suite
from calotype.evaluation.sweep.axes import Axis, cells_of, parse_axis, preset_axes
from calotype.evaluation.sweep.found import SweepCell, choose, write_defaults
from calotype.evaluation.sweep.plots import pareto
from calotype.evaluation.sweep.run import Sweep
from calotype.generation.request import Request

SUITE = Suite("s", tuple(Prompt(f"p{n}", f"$a {n}") for n in range(4)), "0" * 64)


def test_reads_axes():
    assert parse_axis("64:guidance_weight=1, 1.5") == Axis(64, "guidance_weight", ("1", "1.5"))
    assert parse_axis("64:guidance_interval=[0.5,5],null").values == ("[0.5,5]", "null")
    assert parse_axis("8:thresholding=none,dynamic").assignments("dynamic") == (
        "threshold_percentile=0.995",
    )
    for text in ("sigma_max=1", "64:sigma_max", "64:=1", "base:steps=2", "8:thresholding=some"):
        with pytest.raises(UsageError, match="got --axis"):
            parse_axis(text)


def test_presets_hold_the_papers_grids():
    (axis,) = preset_axes("guidance", [64, 256])
    assert axis.resolution == 64 and axis.values[:5] == ("1", "1.25", "1.5", "1.75", "2")
    (axis,) = preset_axes("guidance-super-resolution", [64, 256])
    assert axis.resolution == 256 and axis.values[-1] == "18"
    with pytest.raises(UsageError, match="of one stage"):
        preset_axes("aug_level", [64])
    with pytest.raises(UsageError, match="expected one of guidance"):
        preset_axes("all", [64])


def test_cells_are_checked_before_anything_is_sampled():
    known = {8: SamplingConfig()}
    axes = [Axis(8, "steps", ("2", "3")), Axis(8, "thresholding", ("none", "static"))]
    cells = cells_of(axes, known)
    assert len(cells) == 4 and len({cell.folder(axes) for cell in cells}) == 4
    assert cells[1].options(axes) == ["8:steps=2", "8:threshold_percentile=null,static_clip=true"]
    for axis, message in (
        (Axis(16, "steps", ("2",)), "one of the stages"),
        (Axis(8, "step", ("2",)), "unknown key 'step'"),
        (Axis(8, "steps", ("0",)), "steps"),
        (Axis(8, "steps", tuple(map(str, range(1, 500)))), "got 499 cells"),
    ):
        with pytest.raises(UsageError, match=message):
            cells_of([axis], known)
    twice = (
        [Axis(8, "steps", ("2", "2"))],
        [Axis(8, "steps", ("2", "3")), Axis(8, "steps", ("4",))],
    )
    for axes in twice:
        with pytest.raises(UsageError, match=r"'8:steps=.* the same settings"):
            cells_of(axes, known)


def cell(alignment, kid, *notes):
    numbers = (
        Number(metric="CLIP score", value=alignment, count=1, higher_is_better=True, notes=notes),
        Number(metric="KID", value=kid, count=1, higher_is_better=False),
    )
    return SweepCell(values=("1",), stages=(), numbers=numbers)


def test_the_rule():
    # The third has the lowest KID, but its alignment is 3 % below the best.
    assert choose([cell(30, 0.5), cell(29.5, 0.4), cell(29.1, 0.1)]) == 1
    assert choose([cell(30, 0.5), cell(30, 0.5)]) == 0
    # Images that this CLIP chose cannot be judged by it.
    assert choose([cell(30, 0.5), cell(30, 0.4, "no judge: it chose")]) is None
    assert choose([SweepCell(values=("1",), stages=(), numbers=())]) is None


def test_fid_of_coco_30k_is_an_fid():
    own = Number(metric="FID-30K", value=1.0, count=30_000, higher_is_better=False)
    assert SweepCell(values=("1",), stages=(), numbers=(own,)).number("FID") is own


def test_pareto():
    assert pareto([(0, 0), (1, 0), (0, 1), (0.5, 0.5), (0.4, 0.4)]) == [1, 2, 3]
    assert pareto([(1, 1), (1, 1)]) == [0, 1]


class Brightness:
    """Features that need no package: the means of four parts."""

    name, description, fingerprint, dimension = "brightness", "means", "1" * 64, 12
    device = torch.device("cpu")

    def __call__(self, images):
        return torch.nn.functional.adaptive_avg_pool2d(images.float(), 2).flatten(1)


@pytest.fixture
def options(tmp_path, monkeypatch):
    found = {"colours": MeanColour()}
    monkeypatch.setattr(ExtractorSpec, "load", lambda self: found.get(self.name, Brightness()))
    from PIL import Image

    folder = tmp_path / "real"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for number in range(12):
        pixels = rng.integers(0, 255, (8, 8, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
    return MeasureOptions(
        side=8, extractors=(ExtractorSpec("lite0"),), reference=folder, root=tmp_path / "features"
    )


@pytest.fixture
def planned(model):
    request = Request(model=str(model), threads=1, dtype="float32")
    axes = [Axis(8, "thresholding", ("none", "static")), Axis(8, "guidance_weight", ("1", "3"))]
    return Sweep(request, axes, SUITE, each=2, seed=5)


def test_cells_share_prompts_and_seeds_and_come_out_as_numbers_and_figures(
    planned, options, tmp_path
):
    out = tmp_path / "out"
    found = planned.run(out, options)
    assert [cell.values for cell in found.cells] == [
        ("none", "1"), ("none", "3"), ("static", "1"), ("static", "3"),
    ]  # fmt: skip
    sets = [open_samples(path) for path in sorted((out / "cells").iterdir())]
    rows = [[(s.prompt, s.index, s.seed) for s in one.samples] for one in sets]
    assert len(rows) == 4 and all(row == rows[0] for row in rows)
    assert all(one.manifest.size == (8, 8) for one in sets)  # no finer than what is tried
    weights = [one.manifest.recipe["stages"][0]["sampling"]["guidance_weight"] for one in sets]
    assert sorted(weights) == [1, 1, 3, 3]
    assert found.cells[1].stages[0].static_clip is False
    assert json.loads((out / "sweep.json").read_text())["chosen"] is None  # no captions are scored
    table = (out / "sweep.csv").read_text().splitlines()
    assert table[0].startswith("8:thresholding,8:guidance_weight,metric")
    assert len([line for line in table if ",KID," in line]) == 4
    svg = (out / "recall-precision.svg").read_text()
    assert "guidance" not in svg and "thresholding static" in svg
    write_sweep_page(out, found)
    page = (out / "index.html").read_text()
    assert not re.search(r"(src|href)=\"(?!data:|#)", page)
    assert "<figure" in page and "of --reference" not in page
    bare = [dataclasses.replace(cell, numbers=()) for cell in found.cells]
    write_sweep_page(tmp_path, dataclasses.replace(found, cells=tuple(bare)))
    page = (tmp_path / "index.html").read_text()
    assert "<figure" not in page and "of --reference" in page
    # Everything again, to the byte.
    files = [path for path in out.rglob("*") if path.is_file() and path.suffix != ".html"]
    before = {path: path.read_bytes() for path in files}
    planned.run(out, options)
    assert {path: path.read_bytes() for path in before} == before


def test_a_sweep_above_the_base_samples_the_base_once(model, options, tmp_path, monkeypatch):
    from calotype.cascade import Cascade

    sampled, generate = [], Cascade.generate

    def counted(self, plan):
        sampled.append([stage.index for stage in plan.stages])
        return generate(self, plan)

    monkeypatch.setattr(Cascade, "generate", counted)
    request = Request(model=str(model), threads=1, dtype="float32")
    axes = [Axis(16, "aug_level", ("0", "0.5")), Axis(16, "steps", ("1", "2"))]
    Sweep(request, axes, SUITE).run(tmp_path / "out", options)
    assert sampled == [[0], [1], [1], [1], [1]]
    sets = [open_samples(path) for path in sorted((tmp_path / "out" / "cells").iterdir())]
    assert len(sets) == 4 and all(one.manifest.size == (16, 16) for one in sets)


def test_defaults_are_written_by_the_rule(planned, model, tmp_path):
    folder = tmp_path / "cascade"
    shutil.copytree(model, folder)
    cells = tuple(
        SweepCell(
            values=planned.cells[n].values,
            stages=tuple(s for r, s in job.sampling.items() if r <= 8),
            numbers=cell(30, 0.5 - n / 10).numbers,
        )
        for n, job in enumerate(planned.jobs)
    )
    from calotype.evaluation.sweep.found import SweepResults

    found = SweepResults(
        first=None, axes=planned.axes, resolutions=(8,), cells=cells, chosen=choose(cells)
    )
    assert found.chosen == 3
    before = (folder / "16" / "stage.json").read_bytes()
    write_defaults(folder, found)
    sampling = json.loads((folder / "8" / "stage.json").read_text())["sampling"]
    assert sampling["guidance_weight"] == 3
    assert (folder / "16" / "stage.json").read_bytes() == before
    from calotype.cascade import Cascade

    assert Cascade.load(str(folder)).stages[0].config.sampling.guidance_weight == 3
    with pytest.raises(UsageError, match="expected a cascade folder"):
        write_defaults(tmp_path, found)


def test_sweeps_that_make_no_sense(model):
    request = Request(model=str(model), best_of=2)
    with pytest.raises(UsageError, match="--best-of"):
        Sweep(request, [Axis(8, "steps", ("1",))], SUITE)
    with pytest.raises(UsageError, match="nothing to sweep"):
        Sweep(Request(model=str(model)), [], SUITE)
