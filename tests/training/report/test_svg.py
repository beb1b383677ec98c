import numpy as np
import pytest

from calotype.training.report.curves import make_curve
from calotype.training.report.svg import Axis, Chart, draw, human, ticks


def _chart(y, **options):
    x = np.arange(1.0, len(y) + 1)
    curve = make_curve("<i>", "main", x=x, y=np.array(y), parts=[slice(0, len(y))])
    return Chart("A & B", (curve,), **options)


def test_an_axis_maps_its_ends():
    assert Axis(0, 10, 100, 0)(np.array([0.0, 5, 10])).tolist() == [100, 50, 0]
    assert Axis(1, 100, 0, 10, log=True)(np.array([1.0, 10, 100])) == pytest.approx([0, 5, 10])


def test_ticks_are_round_numbers_between_the_ends():
    assert ticks(0, 1) == pytest.approx([0, 0.2, 0.4, 0.6, 0.8, 1.0])
    assert ticks(0.013, 0.021, most=4) == pytest.approx([0.014, 0.016, 0.018, 0.02])
    assert ticks(0.9, 1100, log=True) == pytest.approx([1, 10, 100, 1000])
    assert ticks(0.02, 0.6, log=True) == pytest.approx([0.02, 0.05, 0.1, 0.2, 0.5])


def test_large_numbers_in_short():
    texts = [human(value) for value in (0, 0.5, 999, 1500, 2e7, 3.21e9, 4e12)]
    assert texts == ["0", "0.5", "999", "1.5k", "20M", "3.21G", "4T"]


def test_names_are_escaped():
    svg = draw(_chart([1.0, 2.0], bounds=((0.0, "<b>"),)))
    assert "<i>" not in svg and "&lt;i&gt;" in svg
    assert "<b>" not in svg and "A &amp; B" in svg


def test_wide_ranges_get_a_logarithmic_axis():
    assert 'data-log="1"' in draw(_chart([1.0, 1000.0]))
    assert 'data-log="0"' in draw(_chart([1.0, 2.0]))
    assert 'data-log="0"' in draw(_chart([0.0, 1000.0]))
    assert 'data-log="0"' in draw(_chart([1.0, 1000.0], logarithmic=False))


def test_values_lie_where_the_axis_says():
    svg = draw(_chart([1.0, 3.0, 2.0], size=(200, 100), floor=0.0))
    path = svg.split(' d="')[1].split('"')[0]
    x0, y0, x1, y1, x2, y2 = map(float, path[1:].split())
    assert x2 > x1 > x0 and x2 == 188
    assert (y0 - y2) == pytest.approx(y2 - y1, abs=0.02)


def test_one_point_and_none():
    assert "h0" in draw(_chart([5.0]))
    assert draw(_chart([float("nan")])) == ""
    assert "curve" in draw(_chart([0.0, 0.0, 0.0]))
