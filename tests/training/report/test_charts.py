import re
import sys

import numpy as np
import pytest

from calotype.cli import run
from calotype.training.report.charts import Chart, human, plot
from calotype.training.report.curves import make_curve


def _chart(y, **options):
    x = np.arange(1.0, len(y) + 1)
    curve = make_curve("<i>", "main", [(x, np.array(y))])
    return Chart("A & B", (curve,), **options)


def _points(svg):
    """Pixels of the curve, (N, 2)."""
    path = re.search(r'data-name="&lt;i&gt;">\s*<path d="([^"]*)"', svg).group(1)
    return np.array(re.sub("[ML]", "", path).split(), dtype=float).reshape(-1, 2)


def _scale(svg, name):
    return [float(part) for part in re.search(f'data-{name}="([^"]*)"', svg).group(1).split()]


def test_large_numbers_in_short():
    texts = [human(value) for value in (0, 0.5, 999, 1500, 2e7, 3.21e9, 4e12)]
    assert texts == ["0", "0.5", "999", "1.5k", "20M", "3.21G", "4T"]


def test_names_are_escaped():
    svg = plot(_chart([1.0, 2.0]), ((0.0, "<b>"),))
    assert "<i>" not in svg and "&lt;i&gt;" in svg
    assert "<b>" not in svg and "A &amp; B" in svg


def test_wide_ranges_get_a_logarithmic_axis():
    assert 'data-log="1"' in plot(_chart([1.0, 1000.0]))
    assert 'data-log="0"' in plot(_chart([1.0, 2.0]))
    assert 'data-log="0"' in plot(_chart([0.0, 1000.0]))
    assert 'data-log="0"' in plot(_chart([1.0, 1000.0], from_zero=True))


@pytest.mark.parametrize(("y", "log"), [([1.0, 3.0, 2.0], False), ([1.0, 10.0, 100.0], True)])
def test_values_are_read_back_from_the_chart(y, log):
    svg = plot(_chart(y))
    for values, scale, pixels in zip(
        ([1, 2, 3], np.log(y) if log else y), "xy", _points(svg).T, strict=True
    ):
        low, high, start, end = _scale(svg, scale)
        if scale == "y" and log:
            low, high = np.log([low, high])
        read = low + (pixels - start) / (end - start) * (high - low)
        assert read == pytest.approx(np.array(values), rel=1e-3, abs=2e-3)


def test_values_stand_at_the_axis():
    assert ">0.001</text>" in plot(_chart([0.0, 0.001])) and ">5k<" in plot(_chart([1.0] * 5001))


def test_an_axis_reaches_down_to_zero():
    assert _scale(plot(_chart([2.0, 3.0], from_zero=True)), "y")[0] == 0
    assert _scale(plot(_chart([2.0, 3.0])), "y")[0] > 1


def test_one_point_is_a_dot():
    points = _points(plot(_chart([5.0])))
    assert len(points) == 2 and (points[0] == points[1]).all()
    assert _chart([float("nan")]).empty


def test_colours_are_the_page_s():
    svg = plot(_chart([1.0, 2.0]))
    assert "stroke: var(--main)" in svg and "fill: var(--soft)" in svg
    assert "#" not in svg and " id=" not in svg  # what several charts would both have


@pytest.mark.parametrize("package", ["jinja2", "matplotlib"])
def test_a_package_that_is_missing_is_one_line(monkeypatch, write_run, capsys, package):
    rooms = ("calotype.training.report", "calotype.pages")
    for name in [name for name in sys.modules if name.startswith(rooms)]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)  # how Python marks what cannot be imported
    assert run(["report", str(write_run())]) == 1
    said = capsys.readouterr().err
    assert f"'{package}'" in said and "pip install 'calotype[train]'" in said
    assert said.count("\n") == 1
