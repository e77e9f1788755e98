"""A category as 0/1 columns, twice the same: in numpy and as ONNX nodes."""

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from features.build import Feature
from models.encoding import encoding
from models.onnx import Graph, Session

AGE = Feature("age_years", ("age_years",), None, ())
PAIN = Feature("pain", ("pain",), None, ("none", "exertion", "rest"))
SMOKER = Feature("smoker", ("smoker",), None, ("false", "true"))
NAN = np.nan

X = np.array([[0, 50, 1], [2, NAN, 0], [NAN, 61.5, NAN], [3, 70, 0.5]], np.float32)


def test_numbers_come_first_and_then_one_column_a_value():
    layout = encoding([PAIN, AGE, SMOKER])

    assert layout.width == 6
    assert_array_equal(
        layout.apply(X),
        np.array(
            [  # age, none, exertion, rest, false, true
                [50, 1, 0, 0, 0, 1],
                [NAN, 0, 0, 1, 1, 0],
                [61.5, NAN, NAN, NAN, NAN, NAN],
                [70, 0, 0, 0, 0, 0],
            ],
            np.float32,
        ),
    )
    assert layout.apply(X).dtype == np.float32


def test_apply_leaves_its_argument_alone():
    before = X.copy()
    encoding([PAIN, AGE, SMOKER]).apply(X)
    assert_array_equal(X, before)


@pytest.mark.parametrize("inputs", [[PAIN, AGE, SMOKER], [AGE, AGE, AGE], [PAIN, SMOKER, PAIN]])
def test_the_onnx_nodes_say_the_same(inputs, tmp_path):
    layout = encoding(inputs)
    expected = layout.apply(X)

    for column in range(layout.width):
        graph = Graph(3)
        one = graph.node("Gather", [graph.encode(layout), graph.constant(np.array([column]))], axis=1)
        graph.save(one, False, tmp_path / "column.onnx")
        assert_array_equal(Session(tmp_path / "column.onnx").log_odds(X), expected[:, column].astype(float))
