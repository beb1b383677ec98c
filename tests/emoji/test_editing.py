"""Measuring edits: holes that are what they are said to be, and an oracle that fills them."""

import json
import re

import pytest
import torch
from PIL import Image

from calotype.cascade import CascadeSample
from calotype.config.typed_json import load_config, to_dict
from calotype.emoji import editing, holes
from calotype.emoji.editing_results import EditingResults, editing_tables
from calotype.emoji.gallery import read_gallery


@pytest.fixture()
def gallery(data):
    return read_gallery(data, 8)


def test_holes_are_halves_boxes_and_quarters(gallery, data):
    (half,) = holes.half_hidden(gallery, 5)  # there is one unseen pair
    assert half.keep.float().mean() == 0.5
    assert half.keep.all(1).any() or half.keep.all(2).any()  # whole rows, or whole columns
    things, _ = holes.another_thing(gallery, 6)
    assert len(things) == 6
    for hole in things:
        ground = hole.image[:, hole.keep[0]]
        assert torch.equal(ground, ground[:, :1].expand_as(ground))  # the thing is hidden
        assert hole.image.shape == hole.wanted.shape and not torch.equal(hole.image, hole.wanted)
    boxes = holes.box_hidden(gallery, data, 32, 3)
    assert len(boxes) == 2  # of each group one
    assert all(hole.keep.float().mean() == 0.75 for hole in boxes)


def test_what_fills_holes_with_the_wanted_image_is_perfect(gallery, cascade, monkeypatch):
    things, rank = holes.another_thing(gallery, 6)
    wanted = iter(torch.stack([hole.wanted for hole in things]))

    def generate(plan):
        known = plan.stages[0].edit.known
        made = torch.stack([next(wanted) for _ in plan.seeds])
        yield from ()
        return CascadeSample([torch.where(known.mask, known.image, made)], plan.seeds)

    monkeypatch.setattr(cascade, "generate", generate)
    way = [editing.Way("oracle")]
    task, cells = editing.measure_task(cascade, "things", things, ways=way, stop_at=8, rank=rank)
    (found,) = task.ways
    assert found.found == found.kept == 6 and found.psnr > 100
    assert len(cells) == 6 and not any(cell.failed for cell in cells)


def test_a_cascade_that_spoils_what_is_kept_is_found_out(gallery, cascade, monkeypatch):
    def generate(plan):
        image = plan.stages[0].edit.known.image.clone()
        image[0, 0, 0, 0] += 1e-3
        image[:, :, -1, -1] += 1e-3
        yield from ()
        return CascadeSample([image], plan.seeds)

    monkeypatch.setattr(cascade, "generate", generate)
    keep = torch.ones(1, 8, 8, dtype=torch.bool)
    keep[:, 4:, 4:] = False
    image = gallery.real(gallery.rows[0].key)
    filled = [holes.Hole(image, keep, "x", image)] * 3
    task, _ = editing.measure_task(cascade, "x", filled, ways=[editing.Way("spoils")], stop_at=8)
    assert task.ways[0].kept == 2


def test_the_command_writes_tables_that_the_card_prints(model, data, tmp_path):
    out = tmp_path / "out"
    arguments = ["--model", str(model), "--data", str(data)]
    sizes = ["--halves", "1", "--things", "3", "--boxes", "2"]
    assert editing.main([*arguments, *sizes, "--out", str(out), "--threads", "1"]) == 0
    found = load_config(out / "editing.json", EditingResults)
    assert to_dict(found) == json.loads((out / "editing.json").read_text())
    text = (out / "editing.md").read_text()
    assert text == editing_tables(found)
    assert (
        text.count("| replacement |") == 3 and text.count("| replacement, with RePaint 4,4 |") == 2
    )
    assert re.search(r"\| this cascade \| \d+ \| [\d.-]+ dB \| \d of 3 \|", text)
    assert "| seam at 8² | seam at 16² | seam at 32² | kept |" in text
    for file in re.findall(r"\]\(([^)]*)\)", text):
        Image.open(out / file).verify()
    for task in found.tasks:
        assert all(way.kept == task.images for way in task.ways)
