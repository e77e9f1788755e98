"""Acting on a threshold, counted by hand, and by other people's code."""

import numpy as np
import pytest

from evidence.utility import alert_burden, decision_curve, utility

# 100 patients, 30 with the event. At 0.25: 24 events and 14 others are alerted.
Y = np.r_[np.ones(24), np.ones(6), np.zeros(14), np.zeros(56)]
RISK = np.r_[np.full(24, 0.6), np.full(6, 0.1), np.full(14, 0.25), np.full(56, 0.2)]


def test_a_table_counted_by_hand():
    found = utility(Y, RISK, 0.25)

    assert found.sensitivity == 24 / 30
    assert found.specificity == 56 / 70
    assert found.ppv == 24 / 38
    assert found.npv == 56 / 62
    assert found.alerts_per_100 == pytest.approx(38)
    assert found.net_benefit == pytest.approx(0.24 - 0.14 / 3)  # at 0.25 a false alarm costs a third of a found event
    assert found.net_benefit_treat_all == pytest.approx(0.30 - 0.70 / 3)


def test_a_threshold_at_or_below_every_risk_treats_all():
    found = utility(Y, RISK, 0.1)

    assert (found.sensitivity, found.specificity, found.ppv, found.npv) == (1, 0, 0.3, None)
    assert found.alerts_per_100 == 100
    assert found.net_benefit == pytest.approx(found.net_benefit_treat_all)


def test_a_threshold_that_nobody_reaches_treats_none():
    found = utility(Y, RISK, 0.7)

    assert (found.sensitivity, found.specificity, found.ppv, found.npv) == (0, 1, None, 0.7)
    assert (found.alerts_per_100, found.net_benefit) == (0, 0)
    assert found.net_benefit_treat_all == pytest.approx(0.3 - 0.7 * 0.7 / 0.3)


def test_at_the_prevalence_treating_all_is_worth_nothing():
    assert utility(Y, RISK, 0.3).net_benefit_treat_all == pytest.approx(0)


@pytest.mark.parametrize("threshold", [0.0, 1.0])
@pytest.mark.parametrize("outcome", [0.0, 1.0])
def test_the_ends_of_the_scale_and_one_class_are_never_an_exception(threshold, outcome):
    found = utility(np.full(10, outcome), np.linspace(0, 1, 10), threshold)
    assert found.sensitivity is None if outcome == 0 else found.specificity is None
    assert not np.isnan(found.net_benefit)
    assert not np.isnan(found.net_benefit_treat_all)


@pytest.mark.parametrize("threshold", [0.1, 0.25, 0.5, 0.7])
def test_each_figures_interval_is_wilsons(threshold):
    """As statsmodels computes it from the counts."""
    proportion = pytest.importorskip("statsmodels.stats.proportion")
    alert = threshold <= RISK
    counts = {
        "sensitivity": (Y[alert].sum(), 30),
        "specificity": ((1 - Y[~alert]).sum(), 70),
        "ppv": (Y[alert].sum(), alert.sum()),
        "npv": ((1 - Y[~alert]).sum(), (~alert).sum()),
        "alerts_per_100": (alert.sum(), 100),
    }
    found = utility(Y, RISK, threshold)

    assert set(found.intervals) == {name for name, (_, whole) in counts.items() if whole}
    for name, spread in found.intervals.items():
        scale = 100 if name == "alerts_per_100" else 1
        theirs = np.array(proportion.proportion_confint(*counts[name], method="wilson"))
        assert spread == pytest.approx(scale * theirs, abs=1e-9)
        assert spread[0] <= getattr(found, name) <= spread[1]


def test_nobody_is_never_an_exception():
    found = utility(np.empty(0), np.empty(0), 0.3)

    assert (found.sensitivity, found.specificity, found.ppv, found.npv) == (None, None, None, None)
    assert np.isnan([found.alerts_per_100, found.net_benefit, found.net_benefit_treat_all]).all()
    assert found.intervals == {}


def test_the_decision_curve_is_that_of_dcurves():
    dcurves = pytest.importorskip("dcurves")
    import pandas

    dice = np.random.default_rng(1)
    y = dice.integers(0, 2, 400).astype(float)
    risk = np.round(np.clip(0.3 * y + dice.random(400) * 0.7, 0, 1), 2)  # many equal to a threshold
    thresholds = np.round(np.arange(0.01, 1, 0.01), 2)
    theirs = dcurves.dca(pandas.DataFrame({"y": y, "risk": risk}), "y", ["risk"], thresholds=thresholds)
    theirs = theirs.set_index("threshold").groupby("model")["net_benefit"]

    ours = decision_curve(y, risk, thresholds)

    for name, curve in (("risk", ours.model), ("all", ours.treat_all), ("none", ours.treat_none)):
        assert curve == pytest.approx(theirs.get_group(name).loc[thresholds].to_numpy(), abs=1e-12)


def test_a_curve_is_its_points_one_by_one():
    thresholds = np.linspace(0, 1, 21)
    curve, burden = decision_curve(Y, RISK, thresholds), alert_burden(Y, RISK, thresholds)

    for position, threshold in enumerate(thresholds):
        point = utility(Y, RISK, float(threshold))
        assert (curve.model[position], curve.treat_all[position]) == (point.net_benefit, point.net_benefit_treat_all)
        if point.alerts_per_100 >= 10:
            assert burden.alerts_per_100[position] == point.alerts_per_100
            assert (burden.sensitivity[position], burden.ppv[position]) == (point.sensitivity, point.ppv)


@pytest.mark.parametrize(("alerted", "told"), [(9, False), (10, True)])
def test_the_alert_burden_says_nothing_of_fewer_than_ten(alerted, told):
    risk = np.r_[np.full(alerted, 0.9), np.full(90, 0.1)]
    burden = alert_burden(np.arange(len(risk)) % 2.0, risk, np.array([0.05, 0.5, 0.95]))

    figures = np.array([burden.alerts_per_100, burden.sensitivity, burden.ppv])
    assert np.isfinite(figures[:, 0]).all() and np.isnan(figures[:, 2]).all()
    assert np.isfinite(figures[:, 1]).all() == told and np.isnan(figures[:, 1]).all() != told


@pytest.mark.parametrize("n", [0, 5, 40])
def test_a_curve_of_one_class_or_of_nobody_is_never_an_exception(n):
    ends = np.array([0.0, 0.5, 1.0])
    burden, curve = alert_burden(np.zeros(n), np.ones(n), ends), decision_curve(np.zeros(n), np.ones(n), ends)

    assert np.isnan(burden.sensitivity).all()
    assert np.isnan(curve.model).all() == (n == 0)
    assert curve.treat_none.tolist() == [0, 0, 0]
