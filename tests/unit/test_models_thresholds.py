"""Operating points reach what they are named by, and none does so more gladly."""

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from configs.errors import TrainingError
from configs.spec import OperatingPoint
from models.thresholds import operating_points

RISK = np.array([0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8])
Y = np.array([0, 0, 1, 0, 0, 1, 1, 1], float)

patients = st.lists(st.tuples(st.integers(0, 12).map(lambda tenth: tenth / 12), st.booleans()), min_size=2, max_size=40)
shares = st.floats(0.01, 1)


def figure(kind, risk, y, threshold):
    alert = risk >= threshold
    match kind:
        case "sensitivity":
            return (alert & (y == 1)).sum() / (y == 1).sum()
        case "specificity":
            return (~alert & (y == 0)).sum() / (y == 0).sum()
        case _:
            return (alert & (y == 1)).sum() / alert.sum()


@pytest.mark.parametrize(
    ("point", "threshold"),
    [
        ({"sensitivity": 1.0}, 0.3),
        ({"sensitivity": 0.75}, 0.6),
        ({"specificity": 0.5}, 0.3),
        ({"specificity": 1.0}, 0.6),
        ({"ppv": 0.6}, 0.3),  # 0.3: 4 of 6 alerts
        ({"ppv": 0.7}, 0.5),  # 0.5: 3 of 4 alerts
    ],
)
def test_a_threshold_as_counted_by_hand(point, threshold):
    assert operating_points({"a": OperatingPoint(**point)}, RISK, Y) == {"a": threshold}


@given(patients, st.sampled_from(["sensitivity", "specificity", "ppv"]), shares)
def test_the_promise_is_kept_and_no_threshold_on_the_better_side_keeps_it(rows, kind, share):
    risk, y = np.array([row[0] for row in rows]), np.array([float(row[1]) for row in rows])
    assume(0 < y.sum() < len(y))
    reached = [threshold for threshold in np.unique(risk) if figure(kind, risk, y, threshold) >= share]

    if not reached:
        with pytest.raises(TrainingError, match=f"no threshold reaches {kind}"):
            operating_points({"point": OperatingPoint(**{kind: share})}, risk, y)
        return
    found = operating_points({"point": OperatingPoint(**{kind: share})}, risk, y)["point"]

    assert figure(kind, risk, y, found) >= share
    assert found == (max(reached) if kind == "sensitivity" else min(reached))


def test_points_in_the_wrong_order_are_refused():
    wanted = {"alert": OperatingPoint(specificity=1.0), "rule_out": OperatingPoint(sensitivity=1.0)}
    with pytest.raises(TrainingError, match=r"operating_points.rule_out: .* below 'alert' at 0.600"):
        operating_points(wanted, RISK, Y)


def test_a_point_may_coincide_with_the_one_before():
    wanted = {"a": OperatingPoint(sensitivity=1.0), "b": OperatingPoint(specificity=0.5)}
    assert operating_points(wanted, RISK, Y) == {"a": 0.3, "b": 0.3}


def test_a_point_that_cannot_be_reached_is_refused_by_name():
    with pytest.raises(TrainingError, match=r"operating_points\.sure: no threshold reaches ppv 1 in the training part"):
        operating_points({"sure": OperatingPoint(ppv=1.0)}, RISK, 1 - Y)


def test_the_order_of_the_patients_does_not_matter():
    wanted = {"rule_out": OperatingPoint(sensitivity=0.75), "alert": OperatingPoint(ppv=0.9)}
    shuffled = np.random.default_rng(0).permutation(len(Y))
    assert operating_points(wanted, RISK[shuffled], Y[shuffled]) == operating_points(wanted, RISK, Y)
