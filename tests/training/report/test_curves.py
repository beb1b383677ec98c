import json

import numpy as np
import pytest

from calotype.training.record import read_run
from calotype.training.report.charts import loss_charts, speed_charts
from calotype.training.report.curves import MOST_POINTS, make_curve, smoothed, thinned


def test_thinning_keeps_ends_and_extremes():
    x = np.arange(200_000.0)
    y = np.sin(x / 5000)
    y[123_456], y[7] = 50.0, -50.0
    a, b = thinned(x, y)
    assert 900 < len(a) <= MOST_POINTS
    assert (np.diff(a) > 0).all() and (a[0], a[-1]) == (0, 199_999)
    assert b.max() == 50 and b.min() == -50
    np.testing.assert_array_equal(b, y[a.astype(int)])


def test_few_points_stay_as_they_are():
    x, y = np.arange(5.0), np.array([1, np.nan, 3, np.inf, 5])
    a, b = thinned(x, y)
    assert a.tolist() == [0, 2, 4] and b.tolist() == [1, 3, 5]


def test_smoothing_is_the_weighted_mean_around():
    y = np.arange(11.0)
    assert smoothed(y)[5] == pytest.approx(5) and smoothed(y)[0] == pytest.approx(2.5)
    y[5] = np.nan
    assert smoothed(y)[5] == pytest.approx(5)
    weights = np.zeros(11)
    weights[[2, 8]] = 1, 3
    assert smoothed(y, weights)[5] == pytest.approx((2 + 3 * 8) / 4)
    assert np.isnan(smoothed(np.full(3, np.nan))).all()


def test_nothing_is_smoothed_across_stages():
    y = np.concatenate([np.zeros(50), np.ones(50)])
    parts = [slice(0, 50), slice(50, 100)]
    curve = make_curve("a", "main", (np.arange(100.0), y), parts, smooth=True)
    gaps = np.isnan(curve.y)
    assert gaps.sum() == 3 and (gaps == np.isnan(curve.x)).all()
    assert set(curve.y[curve.x < 50]) == {0.0} and set(curve.y[curve.x >= 50]) == {1.0}


def test_a_single_point_stays_and_nothing_is_nothing():
    curve = make_curve("a", "main", (np.arange(3.0), np.array([1, np.nan, np.inf])), [slice(0, 3)])
    assert curve.x[1:-1].tolist() == [0, 0] and curve.last == 1
    assert make_curve("a", "main", (np.zeros(2), np.full(2, np.nan)), [slice(0, 2)]).last is None


def test_a_long_log_gives_curves_of_a_thousand_points(write_run):
    folder = write_run(steps=1)
    lines = (
        json.dumps({"images": 8 * i, "stage": 8, "loss": i % 97 + (1e6 if i == 5000 else 0)})
        for i in range(1, 20_001)
    )
    (folder / "log.jsonl").write_text("\n".join(lines) + "\n")
    run = read_run(folder)
    assert len(run.steps["loss"]) == 20_000
    for chart in (*loss_charts(run), *speed_charts(run)):
        for curve in chart.curves:
            assert np.isfinite(curve.x).sum() <= MOST_POINTS
    raw = loss_charts(run)[0].curves[0]
    assert np.nanmax(raw.y) == 1e6 + 5000 % 97
