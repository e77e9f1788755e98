"""An estimate without outcomes is right when its assumption holds, and is not believed when it was wrong."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evidence.estimate import earned, estimate, expected_auroc
from evidence.metrics import auroc

POINTS = {"rule_out": 0.2, "alert": 0.6}


def risks(n, seed):
    return 1 / (1 + np.exp(-np.random.default_rng(seed).normal(0, 1.3, n)))


@given(values=st.lists(st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.8, 1.0]), min_size=2, max_size=9))
def test_the_expected_auroc_is_that_of_all_pairs(values):
    risk = np.array(values)
    right = total = 0.0
    for i, one in enumerate(risk):
        for j, other in enumerate(risk):
            if i != j:
                weight = one * (1 - other)  # i has the event, j has not
                total += weight
                right += weight * (1.0 if one > other else 0.5 if one == other else 0.0)
    found = expected_auroc(risk)
    assert (found is None) == (total == 0)
    if found is not None:
        assert found == pytest.approx(right / total)


@given(values=st.lists(st.floats(0.01, 0.99), min_size=3, max_size=30))
def test_it_is_nannymls_but_for_the_pair_that_a_patient_would_make_with_itself(values):
    """NannyML: the area under the curve of expected true and false positive rates over every threshold."""
    risk = np.array(values)
    places = np.unique(risk)[::-1]
    sensitivity = [0.0, *(risk[risk >= place].sum() / risk.sum() for place in places)]
    false_alarms = [0.0, *((1 - risk)[risk >= place].sum() / (1 - risk).sum() for place in places)]
    theirs = np.trapezoid(sensitivity, false_alarms)
    itself = (risk * (1 - risk)).sum() / (risk.sum() * (1 - risk).sum())
    ours = expected_auroc(risk)
    assert ours is not None
    assert theirs == pytest.approx(ours * (1 - itself) + itself / 2)


def test_what_comes_true_of_calibrated_patients_lies_in_the_interval_about_95_times_in_100():
    inside = 0
    for seed in range(200):
        risk = risks(120, seed)
        said = estimate(risk, {}, 17)["auroc"]
        y = (np.random.default_rng(seed + 5000).random(120) < risk).astype(float)
        inside += said["low"] <= auroc(y, risk) <= said["high"]
    assert 180 <= inside <= 198


def test_ppv_and_alerts_are_those_of_the_threshold():
    risk = risks(300, 1)
    said = estimate(risk, POINTS, 17)
    assert said["ppv"]["alert"]["value"] == pytest.approx(risk[risk >= 0.6].mean())
    assert said["alerts_per_100"]["alert"]["value"] == pytest.approx(100 * (risk >= 0.6).mean())
    assert said["ppv"]["alert"]["low"] < said["ppv"]["alert"]["value"] < said["ppv"]["alert"]["high"]


def test_it_is_blind_to_a_concept_that_drifts():
    risk = risks(400, 2)
    said = estimate(risk, {}, 17)["auroc"]
    y = (np.random.default_rng(1).random(400) < 1 - risk).astype(float)
    assert auroc(y, risk) < said["low"]


@pytest.mark.parametrize("risk", [[], [0.3], [0.0, 0.0], [1.0], [0.5] * 30, [0.0, 1.0]])
def test_whatever_the_risks_nothing_is_invented(risk):
    said = estimate(np.array(risk, float), POINTS, 17)
    assert all(np.isfinite(list(figure.values())).all() for name, figure in said.items() if name == "auroc")
    assert ("alerts_per_100" in said) == bool(risk)


def pairs(inside, n):
    said = {"value": 0.8, "low": 0.75, "high": 0.85}
    return [(said, {"value": 0.8 if place < inside else 0.6}) for place in range(n)]


@pytest.mark.parametrize(
    ("inside", "n", "trusted"),
    [(0, 0, False), (4, 4, False), (5, 5, True), (4, 5, True), (3, 5, False), (12, 16, False), (13, 16, True)],
)
def test_trust_is_earned_in_four_of_five_windows_and_never_in_fewer_than_five(inside, n, trusted):
    found = earned(pairs(inside, n))
    assert (found.trusted, found.windows, found.inside) == (trusted, n, inside)
    assert found.mean_error == (pytest.approx((n - inside) * 0.2 / n) if n else None)
