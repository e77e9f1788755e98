"""Every figure against somebody else's implementation of it."""

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from evidence import metrics
from evidence.metrics import (
    METRICS,
    auprc,
    auroc,
    brier,
    calibration_intercept,
    calibration_slope,
    interval,
    log_loss,
    wilson,
)

RELATIVES = {"auroc", "auprc", "calibration_slope", "calibration_intercept"}


def patients(n, seed, slope=1.0, intercept=0.0, ties=False):
    dice = np.random.default_rng(seed)
    log_odds = dice.normal(-0.5, 1.4, n)
    y = (dice.random(n) < 1 / (1 + np.exp(-(slope * log_odds + intercept)))).astype(float)
    risk = 1 / (1 + np.exp(-log_odds))
    return y, np.round(risk, 1).clip(0.05, 0.95) if ties else risk


cohorts = pytest.mark.parametrize(
    ("y", "risk"),
    [
        patients(40, 1),
        patients(300, 2),
        patients(300, 3, slope=0.4, intercept=1.5),
        patients(2000, 4, slope=2.5, intercept=-1.0),
        patients(300, 5, ties=True),
    ],
)


@cohorts
def test_discrimination_and_error_are_those_of_scikit_learn(y, risk):
    from sklearn import metrics as theirs

    assert auroc(y, risk) == pytest.approx(theirs.roc_auc_score(y, risk), abs=1e-12)
    assert auprc(y, risk) == pytest.approx(theirs.average_precision_score(y, risk), abs=1e-12)
    assert brier(y, risk) == pytest.approx(theirs.brier_score_loss(y, risk), abs=1e-12)
    assert log_loss(y, risk) == pytest.approx(theirs.log_loss(y, risk), abs=1e-12)


@cohorts
def test_the_average_precision_is_the_sum_over_distinct_thresholds(y, risk):
    total, recall = 0.0, 0.0
    for threshold in np.unique(risk)[::-1]:
        alert = risk >= threshold
        now = y[alert].sum() / y.sum()
        total += (now - recall) * y[alert].mean()
        recall = now
    assert auprc(y, risk) == pytest.approx(total, abs=1e-12)


@cohorts
def test_the_calibration_slope_is_that_of_statsmodels(y, risk):
    api = pytest.importorskip("statsmodels.api")
    fitted = api.Logit(y, api.add_constant(np.log(risk / (1 - risk)))).fit(disp=False, tol=1e-14, maxiter=200)

    assert calibration_slope(y, risk) == pytest.approx(fitted.params[1], abs=1e-7)


@cohorts
def test_the_calibration_intercept_is_that_of_statsmodels_with_an_offset(y, risk):
    api = pytest.importorskip("statsmodels.api")
    model = api.GLM(y, np.ones(len(y)), family=api.families.Binomial(), offset=np.log(risk / (1 - risk)))

    assert calibration_intercept(y, risk) == pytest.approx(model.fit(tol=1e-14).params[0], abs=1e-7)


@pytest.mark.parametrize("times", [3, 6])
def test_risks_that_are_far_too_extreme_have_a_slope_that_says_so(times):
    api = pytest.importorskip("statsmodels.api")
    y, risk = patients(600, 6)
    log_odds = times * np.log(risk / (1 - risk)) + 2
    extreme = 1 / (1 + np.exp(-log_odds))
    fitted = api.Logit(y, api.add_constant(log_odds)).fit(disp=False, tol=1e-14, maxiter=200)

    assert calibration_slope(y, extreme) == pytest.approx(fitted.params[1], abs=1e-4)  # risks are cut at 1e-12
    assert fitted.params[1] == pytest.approx(1 / times, rel=0.3)
    assert calibration_intercept(y, extreme) < -1


def test_observed_over_expected_as_counted_by_hand():
    assert METRICS["observed_over_expected"](np.array([1.0, 0, 1, 0]), np.array([0.5, 0.25, 0.5, 0.25])) == 2 / 1.5


@given(st.lists(st.tuples(st.booleans(), st.integers(1, 9)), min_size=2, max_size=30))
def test_auroc_is_the_share_of_pairs_in_the_right_order(rows):
    y, risk = np.array([float(row[0]) for row in rows]), np.array([row[1] / 10 for row in rows])
    assume(0 < y.sum() < len(y))
    pairs = [(a > b) + (a == b) / 2 for a in risk[y == 1] for b in risk[y == 0]]

    assert auroc(y, risk) == pytest.approx(np.mean(pairs), abs=1e-12)


@pytest.mark.parametrize("name", METRICS)
@pytest.mark.parametrize("outcome", [0.0, 1.0])
@pytest.mark.parametrize("n", [1, 30])
def test_one_class_alone_is_never_an_exception(name, outcome, n):
    value = METRICS[name](np.full(n, outcome), np.linspace(0.1, 0.9, n))

    assert isinstance(value, float)
    assert np.isfinite(value) == (name not in RELATIVES)


@pytest.mark.parametrize("name", METRICS)
@pytest.mark.parametrize("risk", [0.0, 0.3, 1.0])
def test_one_risk_for_everybody_is_never_an_exception(name, risk):
    y = np.tile([0.0, 1.0], 20)
    assert isinstance(METRICS[name](y, np.full(40, risk)), float)


def test_patients_that_a_risk_separates_have_no_slope():
    assert np.isnan(calibration_slope(np.repeat([0.0, 1.0], 20), np.linspace(0.1, 0.9, 40)))


@given(st.lists(st.tuples(st.booleans(), st.floats(0, 1)), min_size=1, max_size=30))
def test_no_metric_ever_raises(rows):
    y, risk = np.array([float(row[0]) for row in rows]), np.array([row[1] for row in rows])
    for metric in METRICS.values():
        assert isinstance(metric(y, risk), float)


@pytest.mark.parametrize("name", METRICS)
def test_an_interval_holds_its_value_and_is_seeded(name, monkeypatch):
    monkeypatch.setattr(metrics, "RESAMPLES", 200)  # scikit-learn's average precision takes milliseconds
    y, risk = patients(200, 6)
    value = METRICS[name](y, risk)

    low, high = interval(METRICS[name], y, risk, seed=17)

    assert low < value < high
    assert interval(METRICS[name], y, risk, seed=17) == (low, high)


def test_another_seed_gives_another_interval_close_by():
    y, risk = patients(200, 6)
    first, second = np.array(interval(auroc, y, risk, seed=17)), np.array(interval(auroc, y, risk, seed=18))

    assert (first != second).all()
    assert np.abs(first - second).max() < 0.02


def test_an_interval_narrows_with_more_patients():
    def width(n):
        low, high = interval(auroc, *patients(n, 7), seed=17)
        return high - low

    assert width(2000) < width(100) / 3


def test_too_few_computable_resamples_have_no_interval():
    y = np.zeros(200)
    assert interval(auroc, y, np.linspace(0.1, 0.9, 200), seed=17) is None


@pytest.mark.parametrize("name", METRICS)
def test_nobody_has_no_figure_and_no_interval(name):
    nobody = np.empty(0)
    assert np.isnan(METRICS[name](nobody, nobody))
    assert interval(METRICS[name], nobody, nobody, seed=17) is None


@given(st.integers(1, 2000), st.floats(0, 1))
def test_wilsons_interval_is_that_of_statsmodels(whole, share):
    proportion = pytest.importorskip("statsmodels.stats.proportion")
    part = round(share * whole)

    low, high = wilson(part, whole)

    assert (low, high) == pytest.approx(proportion.proportion_confint(part, whole, method="wilson"), abs=1e-12)
    assert 0 <= low <= part / whole <= high <= 1


def test_wilsons_interval_as_published():
    """Newcombe RG. Two-sided confidence intervals for the single proportion. Stat Med 1998;17:857-872, table I."""
    assert wilson(81, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert wilson(15, 148) == pytest.approx((0.0624, 0.1605), abs=5e-5)
    assert wilson(0, 20) == pytest.approx((0.0000, 0.1611), abs=5e-5)
    assert wilson(1, 29) == pytest.approx((0.0061, 0.1718), abs=5e-5)


def test_a_share_of_nobody_has_no_interval():
    assert wilson(0, 0) is None
