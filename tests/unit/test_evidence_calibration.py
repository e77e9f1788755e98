"""As many have the event as were predicted to: the smoothed curve, its one number, and the Brier score's parts."""

import json
import math

import numpy as np
import pandas
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import brier_score_loss

from evidence import calibration
from evidence.calibration import brier_decomposition, drawn, grid_within, histogram, ici, smooth


def patients(n, seed, slope=1.0, centre=-0.5):
    dice = np.random.default_rng(seed)
    log_odds = dice.normal(centre, 1.4, n)
    y = (dice.random(n) < 1 / (1 + np.exp(-slope * log_odds))).astype(float)
    return y, 1 / (1 + np.exp(-log_odds))


def straight_lines(y, risk, at):
    """Cleveland's lowess by its definition: at each point a weighted least squares line over the nearest 2/3."""
    fitted = []
    for point in at:
        distance = np.abs(risk - point)
        reach = np.sort(distance)[int(len(risk) * 2 / 3) - 1]
        weight = np.where(distance < reach, 1 - (distance / reach) ** 3, 0) ** 1.5  # polyfit squares it: tricube
        slope, intercept = np.polyfit(risk, y, 1, w=weight)
        fitted.append(np.clip(intercept + slope * point, 0, 1))
    return np.array(fitted)


@pytest.mark.parametrize("slope", [1.0, 0.3, 2.5])
def test_ici_e50_and_e90_are_the_distances_from_cleveland_lowess(slope):
    y, risk = patients(90, 1, slope)
    distance = np.abs(straight_lines(y, risk, risk) - risk)

    assert ici(y, risk) == pytest.approx((distance.mean(), np.median(distance), np.quantile(distance, 0.9)), abs=1e-6)


def test_many_patients_are_smoothed_at_fewer_places_and_it_makes_no_difference():
    y, risk = patients(1500, 2, 0.5)
    assert ici(y, risk)[0] == pytest.approx(np.abs(straight_lines(y, risk, risk) - risk).mean(), abs=2e-4)


def test_a_shift_of_every_risk_is_the_ici():
    dice = np.random.default_rng(3)
    risk = dice.uniform(0.2, 0.6, 20_000)
    y = (dice.random(20_000) < risk + 0.15).astype(float)

    assert ici(y, risk) == pytest.approx((0.15, 0.15, 0.15), abs=0.025)
    assert ici(y, risk + 0.15)[0] < 0.015


def test_a_risk_that_most_share_is_judged_by_what_happened_to_them():
    risk = np.r_[np.full(80, 0.2), np.full(20, 0.6)]
    y = np.r_[np.ones(12), np.zeros(68), np.ones(11), np.zeros(9)]

    assert ici(y, risk)[0] == pytest.approx(0.8 * 0.05 + 0.2 * 0.05)
    assert ici(np.r_[np.ones(30), np.zeros(70)], np.full(100, 0.2)) == pytest.approx((0.1, 0.1, 0.1))


def test_of_nobody_there_is_no_ici():
    assert all(math.isnan(figure) for figure in ici(np.empty(0), np.empty(0)))


@given(st.lists(st.tuples(st.booleans(), st.sampled_from([0.0, 0.1, 0.5, 0.9, 1.0])), min_size=1, max_size=20))
def test_no_figure_raises_and_every_distance_is_a_share(rows):
    y, risk = np.array([float(row[0]) for row in rows]), np.array([row[1] for row in rows])

    assert all(0 <= figure <= 1 for figure in ici(y, risk))
    assert len(histogram(risk)) == 20


def test_the_curve_is_that_of_cleveland_and_lies_in_its_interval():
    y, risk = patients(100, 4)
    at = np.sort(risk)[[20, 50, 80]]

    curve = smooth(y, risk, 17, at)

    assert curve.observed == pytest.approx(straight_lines(y, risk, at), abs=1e-6)
    assert (curve.low < curve.observed).all() and (curve.observed < curve.high).all()
    assert smooth(y, risk, 17, at).low.tolist() == curve.low.tolist()


def test_the_interval_holds_the_truth_about_as_often_as_it_says():
    """Where the risks are the truth; 200 cohorts of 150 had it in 89 to 96 % at these risks."""
    at = np.array([0.1, 0.2, 0.4, 0.6, 0.8])
    curves = [smooth(*patients(150, seed), seed, at) for seed in range(12)]

    assert np.mean([(curve.low < at) & (at < curve.high) for curve in curves]) > 0.85


def test_the_curves_interval_narrows_with_more_patients():
    def width(n):
        curve = smooth(*patients(n, 5), 17, np.array([0.3]))
        return (curve.high - curve.low)[0]

    assert width(1600) < width(100) / 2.5


def test_the_curve_says_nothing_where_there_are_no_patients():
    curve = smooth(*patients(60, 6), 17, np.array([0.0, 0.4, 1.0]))
    assert np.isfinite(curve.observed).tolist() == [False, True, False]
    assert np.isfinite(curve.low).tolist() == np.isfinite(curve.high).tolist() == [False, True, False]

    nobody = smooth(np.empty(0), np.empty(0), 17, np.array([0.5]))
    assert np.isnan([nobody.observed[0], nobody.low[0], nobody.high[0]]).all()


@pytest.mark.parametrize("centre", [-5.0, -2.0, 0.0, 3.0])
@pytest.mark.parametrize("n", [25, 400])
def test_a_curve_is_told_at_few_round_risks_away_from_both_ends(n, centre):
    _, risk = patients(n, 7, centre=centre)
    grid = grid_within(risk)

    assert 3 <= len(grid) <= 51
    assert (risk <= grid[0]).sum() >= 10 and (risk >= grid[-1]).sum() >= 10
    assert (np.round(grid, 4) == pytest.approx(grid, abs=1e-12)) and not set(grid) & set(risk)


@pytest.mark.parametrize("risk", [[], [0.4], np.linspace(0, 1, 19), np.full(50, 1 / 3)])
def test_few_patients_or_one_risk_have_no_curve(risk):
    risk = np.asarray(risk, dtype=float)
    y = np.arange(len(risk)) % 2.0

    assert grid_within(risk).tolist() == []
    assert drawn(y, risk, 17) == {}
    assert drawn(np.zeros(30), np.linspace(0, 1, 30), 17) == {}


def test_what_is_drawn_is_json_and_tells_of_no_fewer_than_ten(monkeypatch):
    monkeypatch.setattr(calibration, "RESAMPLES", 20)
    y, risk = patients(300, 8)

    figure = drawn(y, risk, 17)

    assert json.loads(json.dumps(figure, allow_nan=False)) == figure
    assert len(figure["risk"]) == len(figure["observed"]) == len(figure["low"]) == len(figure["high"]) <= 51
    assert len(figure["histogram"]["edges"]) == 21
    assert all(count is None or count >= 10 for count in figure["histogram"]["counts"])


def test_the_histogram_counts_the_patients_of_each_twentieth():
    risk = np.r_[np.full(30, 0.0), np.full(12, 0.07), np.full(9, 0.52), np.full(3, 0.61), np.full(40, 1.0)]
    counts = histogram(risk)

    assert (counts[0], counts[1], counts[19]) == (30, 12, 40)
    assert counts[2:19] == [None] * 17


def test_a_bin_that_the_total_would_tell_takes_the_next_with_it():
    counts = histogram(np.r_[np.full(30, 0.02), np.full(12, 0.07), np.full(9, 0.52)])
    assert (counts[0], counts[1], counts[10]) == (30, None, None)


def written_out(y, risk, bins):
    """Stephenson's five terms, a bin at a time."""
    frame = pandas.DataFrame({"y": y, "risk": risk}).sort_values("risk", kind="stable")
    cuts = np.unique([frame.risk.iloc[math.ceil(k * len(y) / bins) - 1] for k in range(1, bins)])
    terms = np.zeros(5)
    for _, group in frame.groupby(np.searchsorted(cuts, frame.risk)):
        f, o = group.risk.to_numpy(), group.y.to_numpy()
        terms += [
            len(group) * (f.mean() - o.mean()) ** 2,
            len(group) * (o.mean() - y.mean()) ** 2,
            0,
            ((f - f.mean()) ** 2).sum(),
            2 * ((o - o.mean()) * (f - f.mean())).sum(),
        ]
    return [*(terms / len(y))[:2], y.mean() * (1 - y.mean()), *(terms / len(y))[3:]]


def test_the_briers_parts_are_those_of_stephenson():
    y, risk = patients(203, 9, 0.5)
    found = brier_decomposition(y, risk, 10)

    assert list(vars(found).values()) == pytest.approx(written_out(y, risk, 10), abs=1e-12)


@given(
    st.lists(st.tuples(st.booleans(), st.floats(0, 1)), min_size=1, max_size=40),
    st.integers(1, 12),
)
def test_the_parts_add_up_to_the_brier_score(rows, bins):
    y, risk = np.array([float(row[0]) for row in rows]), np.array([row[1] for row in rows])
    parts = brier_decomposition(y, risk, bins)

    whole = parts.reliability - parts.resolution + parts.uncertainty + parts.within_variance - parts.within_covariance

    assert whole == pytest.approx(brier_score_loss(y, risk, labels=[0, 1]), abs=1e-12)
    assert min(parts.reliability, parts.resolution, parts.uncertainty, parts.within_variance) >= 0


def test_with_few_distinct_risks_the_parts_are_murphys_three():
    risk = np.repeat([0.1, 0.4, 0.8], 40)
    y = np.r_[np.repeat([1.0, 0], [4, 36]), np.repeat([1.0, 0], [20, 20]), np.repeat([1.0, 0], [30, 10])]
    parts = brier_decomposition(y, risk, 3)

    assert parts.reliability == pytest.approx((0 + 0.1**2 + 0.05**2) / 3)
    assert parts.resolution == pytest.approx(np.var([0.1, 0.5, 0.75]))
    assert (parts.within_variance, parts.within_covariance) == pytest.approx((0, 0), abs=1e-15)


def test_of_nobody_there_are_no_parts():
    assert all(math.isnan(part) for part in vars(brier_decomposition(np.empty(0), np.empty(0), 10)).values())
