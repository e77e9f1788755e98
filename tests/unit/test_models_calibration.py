"""A risk that means what it says."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from configs.errors import TrainingError
from models.calibration import Calibration, ClassCalibration, calibrate, calibrate_classes


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


CLASSES, EVENTS = ("none", "colon", "lung"), ("colon", "lung")


def of_three(slope, intercepts, n=4000, seed=0):
    """Scores of three classes, and the class that each patient is of: by the softmax of these terms."""
    dice = np.random.default_rng(seed)
    log_odds = dice.normal(0, 1.5, (n, 3))
    terms = slope * log_odds + np.array(intercepts) + dice.gumbel(size=(n, 3))
    return log_odds, terms.argmax(axis=1).astype(float)


@pytest.mark.parametrize(("slope", "intercepts"), [(1.0, (0, 0, 0)), (0.5, (0, -1.0, 1.0)), (2.0, (0, 0.7, -2.0))])
def test_it_finds_the_slope_and_each_classs_intercept_that_made_the_classes(slope, intercepts):
    found = calibrate_classes(*of_three(slope, intercepts, n=40_000), CLASSES, EVENTS)

    assert found.slope == pytest.approx(slope, rel=0.05)
    assert list(found.intercepts) == list(CLASSES)
    assert list(found.intercepts.values()) == pytest.approx(intercepts, abs=0.07)


def test_no_other_slope_and_intercepts_are_likelier():
    log_odds, label = of_three(0.6, (0, -0.4, -1.5), n=300)
    found = calibrate_classes(log_odds, label, CLASSES, EVENTS)

    def loss(slope, colon, lung):
        risks = ClassCalibration(slope, {"none": 0.0, "colon": colon, "lung": lung}, EVENTS).risks(log_odds)
        return -np.log(risks[np.arange(len(label)), label.astype(int)]).mean()

    best = np.array([found.slope, *list(found.intercepts.values())[1:]])
    for nudge in np.vstack([np.eye(3), -np.eye(3)]) * 1e-4:
        assert loss(*best) < loss(*(best + nudge))


def test_with_two_classes_it_is_platts_own():
    log_odds, y = patients(0.6, -0.4, n=300)
    spread = np.random.default_rng(1).normal(size=len(y))  # what a row's classes share says nothing

    found = calibrate_classes(np.column_stack([spread, spread + log_odds]), y, ("no", "yes"), ("yes",))
    plain = calibrate(log_odds, y)

    assert (found.slope, found.intercepts["yes"]) == pytest.approx((plain.slope, plain.intercept), abs=1e-5)
    assert_allclose(found.risk(np.column_stack([0 * log_odds, log_odds])), plain.risk(log_odds), atol=1e-5)


def test_each_classs_calibrated_risks_add_up_to_its_patients():
    log_odds, label = of_three(0.3, (0, 1.0, -1.0))

    risks = calibrate_classes(log_odds, label, CLASSES, EVENTS).risks(log_odds)

    assert_allclose(risks.sum(axis=0), np.bincount(label.astype(int)), rtol=1e-9)


def test_the_order_of_the_patients_changes_no_calibration():
    log_odds, label = of_three(0.8, (0, -1.0, -2.0), n=500)
    shuffled = np.random.default_rng(2).permutation(len(label))

    found = calibrate_classes(log_odds, label, CLASSES, EVENTS)
    again = calibrate_classes(log_odds[shuffled], label[shuffled], CLASSES, EVENTS)

    assert again.slope == pytest.approx(found.slope, abs=1e-9)
    assert list(again.intercepts.values()) == pytest.approx(list(found.intercepts.values()), abs=1e-9)


@pytest.mark.parametrize("change", [np.negative, np.zeros_like], ids=["the wrong way", "nothing"])
def test_scores_of_classes_that_know_nothing_are_refused(change):
    log_odds, label = of_three(1.0, (0, 0, 0), n=500)
    with pytest.raises(TrainingError, match="calibration slope"):
        calibrate_classes(change(log_odds), label, CLASSES, EVENTS)


def test_classes_that_are_told_apart_without_error_are_calibrated_to_that():
    label = np.tile([0.0, 1.0, 2.0], 20)
    log_odds = 4 * np.eye(3)[label.astype(int)] + np.random.default_rng(0).normal(size=(60, 3)) / 10

    risks = calibrate_classes(log_odds, label, CLASSES, EVENTS).risks(log_odds)

    assert (risks[np.arange(60), label.astype(int)] > 0.99).all()


rows_of_three = st.lists(st.tuples(*[st.floats(-1e300, 1e300)] * 3), min_size=1, max_size=20)


@given(rows_of_three, st.floats(1e-3, 10), st.tuples(*[st.floats(-10, 10)] * 3))
def test_the_risks_of_the_classes_sum_to_one_and_the_events_is_the_sum_of_its_own(rows, slope, intercepts):
    calibration = ClassCalibration(slope, dict(zip(CLASSES, intercepts, strict=True)), EVENTS)
    log_odds = np.array(rows)

    risks = calibration.risks(log_odds)
    risk = calibration.positive(risks)

    assert ((risks >= 0) & (risks <= 1)).all()
    assert np.abs(risks.sum(axis=1) - 1).max() <= 1e-12
    assert np.abs(risks[:, 1] + risks[:, 2] - risk).max() <= 1e-12
    assert ((risk >= 0) & (risk <= 1)).all()
    assert_array_equal(calibration.risk(log_odds), risk)


@given(rows_of_three)
def test_a_row_of_classes_alone_has_the_same_bits_as_among_others(rows):
    calibration = ClassCalibration(0.8, {"none": 0.0, "colon": -1.0, "lung": 0.5}, EVENTS)
    log_odds = np.array(rows)

    alone = np.concatenate([calibration.risks(row[None, :]) for row in log_odds])

    assert_array_equal(alone, calibration.risks(log_odds))
