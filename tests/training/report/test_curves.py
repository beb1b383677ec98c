import json
import re

import numpy as np
import pytest

from calotype.training.record import read_run
from calotype.training.report.charts import loss_charts, plot
from calotype.training.report.curves import make_curve, smoothed


def test_pieces_have_gaps_and_single_points_are_dots():
    nan, ones = np.nan, np.ones(3)
    pieces = [(ones, np.array([1, nan, np.inf])), (2 * ones, 2 * ones), (3 * ones, nan * ones)]
    curve = make_curve("a", "main", pieces)
    np.testing.assert_array_equal(curve.y, [nan, 1, 1, nan, 2, 2, 2, nan, nan])
    np.testing.assert_array_equal(curve.x, curve.y)
    assert curve.last == 2 and make_curve("a", "main", pieces[2:]).last is None


def test_smoothing_is_the_weighted_mean_around():
    y = np.arange(11.0)
    assert smoothed(y)[5] == pytest.approx(5) and smoothed(y)[0] == pytest.approx(2.5)
    y[5] = np.nan
    assert smoothed(y)[5] == pytest.approx(5)
    weights = np.zeros(11)
    weights[[2, 8]] = 1, 3
    assert smoothed(y, weights)[5] == pytest.approx((2 + 3 * 8) / 4)
    assert np.isnan(smoothed(np.full(3, np.nan))).all()


def test_nothing_is_smoothed_across_stages(write_run):
    folder = write_run(steps=50)
    lines = ({"images": i + 1, "stage": i // 50, "loss": float(i // 50)} for i in range(100))
    (folder / "log.jsonl").write_text("\n".join(map(json.dumps, lines)))
    smooth = loss_charts(read_run(folder))[0].curves[1]
    assert np.isnan(smooth.y[[0, 51, 102]]).all()
    assert set(smooth.y[1:51]) == {0.0} and set(smooth.y[52:102]) == {1.0}


def test_a_long_log_gives_curves_of_a_thousand_points(write_run):
    folder = write_run(steps=1)
    lines = (
        json.dumps({"images": 8 * i, "stage": 8, "loss": i % 97 + (1e6 if i == 50_000 else 0)})
        for i in range(1, 100_001)
    )
    (folder / "log.jsonl").write_text("\n".join(lines) + "\n")
    run = read_run(folder)
    assert len(run.steps["loss"]) == 100_000
    svg = plot(loss_charts(run)[0])
    raw = re.search(r'data-name="a step">\s*<path d="([^"]*)"', svg).group(1)
    y = [float(point.split()[1]) for point in re.split("[ML]", raw)[1:]]
    assert len(y) < 2000
    top = float(re.search('data-y="([^"]*)"', svg).group(1).split()[3])
    assert min(y) < top + 10  # the one extreme is in it
