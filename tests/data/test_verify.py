import json
import xml.etree.ElementTree as ET

import numpy as np
import pytest
from PIL import Image

from calotype.data.statistics import statistics_svg, statistics_text
from calotype.data.verify import verify_data
from calotype.data.work import Work
from calotype.errors import UsageError


def drawing(seed, side=32):
    """A few rectangles: unlike noise, it still looks like itself when enlarged."""
    rng = np.random.default_rng(seed)
    pixels = np.full((side, side, 3), 255, np.uint8)
    for _ in range(6):
        top, left = rng.integers(0, side - 8, 2)
        pixels[top : top + 8, left : left + 8] = rng.integers(0, 256, 3)
    return Image.fromarray(pixels)


@pytest.fixture
def folder(tmp_path):
    for number in range(6):
        drawing(number).save(tmp_path / f"{number}.png")
        (tmp_path / f"{number}.txt").write_text("word " * (number + 1))
    drawing(0).resize((96, 96), Image.Resampling.NEAREST).save(tmp_path / "again.png")
    (tmp_path / "again.txt").write_bytes(b"B\xe4r")
    (tmp_path / "empty.png").write_bytes(b"")
    Image.new("RGB", (1, 1)).save(tmp_path / "dot.png")
    return tmp_path


def test_the_report_counts_and_names(folder):
    done = []
    report = verify_data(folder, work=Work(on_result=done.append))
    part = report.parts[""]
    assert (part.examples, part.usable, sum(len(facts.images) for facts in done)) == (9, 7, 9)
    assert set(part.broken) == {"empty.png", "dot.png"}
    assert part.broken["empty.png"] == "empty file (0 bytes)"
    assert part.broken_share == pytest.approx(2 / 9)
    assert part.duplicates == (("0.png", "again.png"),)
    assert set(part.empty_captions) == {"empty.png", "dot.png"}
    assert part.replaced_captions == ("again.png",)
    assert part.sizes == {"32x32": 6, "96x96": 1}
    assert sum(part.histograms["width in pixels"].counts) == 7
    assert part.histograms["width in pixels"].edges[-1] == 96


def test_the_report_is_plain_json(folder):
    data = json.loads(json.dumps(verify_data(folder).to_dict()))
    assert data["examples"] == 9
    assert data["broken"] == 2
    assert data["duplicates"] == 1
    assert data["parts"][""]["broken"]["dot.png"].startswith("got 1x1 pixels")


def test_a_red_and_a_blue_square_are_no_duplicates(tmp_path):
    for name, colour in (("red", (200, 30, 30)), ("blue", (30, 60, 220))):
        image = Image.new("RGB", (32, 32), "white")
        image.paste(colour, (8, 8, 24, 24))
        image.save(tmp_path / f"{name}.png")
    assert verify_data(tmp_path).parts[""].duplicates == ()


def test_statistics_are_plotted(folder):
    report = verify_data(folder)
    drawing = ET.fromstring(statistics_svg(report))
    axes = [e for e in drawing.iter() if e.get("id", "").startswith("axes_")]
    assert len(axes) == len(report.parts[""].histograms) > 2
    text = statistics_text(report)
    assert "9 examples, 7 usable, 2 broken (22.2%), 1 duplicates" in text
    assert "width in pixels" in text


def test_nothing_there(tmp_path):
    with pytest.raises(UsageError, match="no images"):
        verify_data(tmp_path)
