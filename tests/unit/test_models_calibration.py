"""A risk that means what it says."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from configs.errors import TrainingError
from models.calibration import Calibration, calibrate


def patients(slope, intercept, n=4000, seed=0):
    dice = np.random.default_rng(seed)
    log_odds = dice.normal(0, 1.5, n)
    return log_odds, (dice.random(n) < 1 / (1 + np.exp(-(slope * log_odds + intercept)))).astype(float)


@pytest.mark.parametrize(("slope", "intercept"), [(1.0, 0.0), (0.5, -1.0), (2.0, 0.7)])
def test_it_finds_the_slope_and_intercept_that_made_the_outcomes(slope, intercept):
    found = calibrate(*patients(slope, intercept, n=40_000))

    assert found.slope == pytest.approx(slope, rel=0.05)
    assert found.intercept == pytest.approx(intercept, abs=0.05)


def test_it_is_the_maximum_of_the_likelihood():
    api = pytest.importorskip("statsmodels.api")
    log_odds, y = patients(0.6, -0.4, n=300)

    found = calibrate(log_odds, y)

    intercept, slope = api.Logit(y, api.add_constant(log_odds)).fit(disp=False, tol=1e-12).params
    assert (found.slope, found.intercept) == pytest.approx((slope, intercept), abs=1e-5)


def test_calibrated_risks_add_up_to_the_events_that_happened():
    log_odds, y = patients(0.3, 1.0)
    assert calibrate(log_odds, y).risk(log_odds).sum() == pytest.approx(y.sum(), rel=1e-4)


def test_a_score_that_points_the_wrong_way_is_refused():
    log_odds, y = patients(1.0, 0.0)
    with pytest.raises(TrainingError, match="calibration slope -"):
        calibrate(-log_odds, y)


def test_a_constant_score_is_refused():
    with pytest.raises(TrainingError, match="calibration slope"):
        calibrate(np.zeros(40), np.tile([0.0, 1.0], 20))


@given(st.lists(st.floats(-1e300, 1e300), min_size=1, max_size=20), st.floats(1e-3, 10), st.floats(-10, 10))
def test_a_risk_is_a_probability_and_rises_with_the_log_odds(log_odds, slope, intercept):
    risk = Calibration(slope, intercept).risk(np.sort(log_odds))

    assert ((risk >= 0) & (risk <= 1)).all()
    assert (np.diff(risk) >= 0).all()
