"""The class that is said costs least in the mean, and without costs it is the likeliest."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from configs.spec import Outcome
from models.decision import costs, said

CLASSES = {"none": ["none"], "colon": ["crc"], "lung": ["lung"]}
COSTS = {"none": {"colon": 1, "lung": 1}, "colon": {"none": 20, "lung": 4}, "lung": {"none": 20, "colon": 4}}

risks_of_three = st.lists(st.tuples(*[st.floats(0.01, 1)] * 3), min_size=1, max_size=20).map(
    lambda rows: np.array(rows) / np.array(rows).sum(axis=1, keepdims=True)
)


def outcome(**changed):
    return Outcome(column="origin", classes=CLASSES, positive=["colon", "lung"], **changed)


def test_a_cost_stands_in_the_row_of_the_true_class_and_the_column_of_the_one_that_is_said():
    assert_array_equal(costs(outcome(costs=COSTS)), [[0, 1, 1], [20, 0, 4], [20, 4, 0]])
    assert costs(outcome()) is None


@pytest.mark.parametrize(
    ("risks", "likeliest", "cheapest"),
    [
        ([0.97, 0.02, 0.01], 0, 0),
        ([0.90, 0.06, 0.04], 0, 1),  # none would cost 2.0, colon 1.06, lung 1.14
        ([0.40, 0.25, 0.35], 0, 2),
        ([0.10, 0.50, 0.40], 1, 1),
    ],
)
def test_a_class_as_counted_by_hand(risks, likeliest, cheapest):
    assert said(np.array([risks]), None).tolist() == [likeliest]
    assert said(np.array([risks]), costs(outcome(costs=COSTS))).tolist() == [cheapest]


def test_of_equal_classes_the_first_is_said():
    assert said(np.array([[0.2, 0.4, 0.4]]), None).tolist() == [1]
    assert said(np.array([[0.2, 0.4, 0.4]]), costs(outcome(costs=COSTS))).tolist() == [1]


@given(risks_of_three)
def test_no_other_class_would_cost_less(risks):
    matrix = costs(outcome(costs=COSTS))

    expected = risks @ matrix

    chosen = expected[np.arange(len(risks)), said(risks, matrix)]
    assert (chosen <= expected.min(axis=1) + 1e-12).all()


@given(risks_of_three)
def test_a_row_alone_is_decided_as_among_others(risks):
    matrix = costs(outcome(costs=COSTS))

    assert [said(row[None, :], matrix).item() for row in risks] == said(risks, matrix).tolist()
