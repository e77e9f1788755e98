"""An outcome is 1, 0 or unknown, by the comparison that the Spec promises and by nothing else."""

from datetime import date
from decimal import Decimal

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from configs.errors import ContractError
from configs.spec import Outcome
from features.outcomes import observed

NAN = float("nan")


def outcomes(positive, cells):
    return observed(Outcome(column="num", positive=positive), cells).tolist()


@pytest.mark.parametrize(
    ("positive", "expected"),
    [
        ("> 0", [0, 1, 1, 1]),
        (">= 2", [0, 0, 1, 1]),
        ("< 1", [1, 0, 0, 0]),
        ("<=1", [1, 1, 0, 0]),
        ("== 2", [0, 0, 1, 0]),
        ("!= 2", [1, 1, 0, 1]),
        ("> -1", [1, 1, 1, 1]),
        ("== 2.0", [0, 0, 1, 0]),
    ],
)
def test_a_number_is_compared_as_a_number(positive, expected):
    assert outcomes(positive, [0, 1.0, np.int64(2), Decimal(4)]) == expected


@pytest.mark.parametrize("positive", ["== malignant", "== 'malignant'", '== "malignant"', "==malignant"])
def test_a_text_is_compared_as_it_stands(positive):
    assert outcomes(positive, ["malignant", "benign", "Malignant"]) == [1, 0, 0]


def test_everything_but_a_text_can_be_positive():
    assert outcomes("!= alive", ["alive", "dead"]) == [0, 1]


@pytest.mark.parametrize("positive", ["== true", "== True", "!= false", "== 1", "> 0"])
@pytest.mark.parametrize("kind", [bool, np.bool_])
def test_a_boolean_is_read_however_it_is_written(positive, kind):
    assert outcomes(positive, [kind(True), kind(False)]) == [1, 0]


def test_a_missing_outcome_is_unknown_and_never_negative():
    assert_array_equal(outcomes("> 0", [None, NAN, np.nan, 1, 0]), [NAN, NAN, NAN, 1, 0])
    assert_array_equal(outcomes("== dead", [None, "dead"]), [NAN, 1])


@pytest.mark.parametrize(
    ("positive", "cell"),
    [
        ("> 0", "1"),
        ("> 0", "?"),
        ("> high", "high"),
        ("> high", 1),
        ("> 0", date(2026, 1, 1)),
        ("> 0", [1]),
    ],
)
def test_a_cell_that_cannot_be_compared_is_refused_by_row_and_not_repeated(positive, cell):
    with pytest.raises(ContractError) as refused:
        outcomes(positive, [None, cell])

    assert "outcome 'num', row 2: a " in str(refused.value)
    assert "?" not in str(refused.value)


def test_no_cells_give_no_outcomes():
    assert outcomes("> 0", []) == []
