"""An outcome is 1, 0 or unknown, by the comparison that the Spec promises and by nothing else."""

from datetime import date
from decimal import Decimal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from configs.errors import ContractError
from configs.spec import SECONDS, Outcome, as_key
from features.outcomes import REASONS, classified, happened, observed, within_horizon

NAN = float("nan")


def outcomes(positive, cells):
    known = [as_key(cell) for cell in cells if cell is not None and cell == cell]
    return observed(Outcome(column="num", positive=positive, values=[*known, "-"]), cells).tolist()


@pytest.mark.parametrize("cell", ["unknown", "pending", "Malignant", " malignant", 1, True])
def test_a_value_that_nobody_named_is_refused_and_never_counts_as_no_event(cell):
    outcome = Outcome(column="biopsy", positive="== malignant", values=["malignant", "benign"], missing_if=["?"])

    assert_array_equal(observed(outcome, ["malignant", "benign", "?", None]), [1, 0, NAN, NAN])
    with pytest.raises(ContractError, match=r"outcome 'biopsy', row 2: holds a .* that is not one of") as refused:
        observed(outcome, ["benign", cell])
    assert "pending" not in str(refused.value)


@pytest.mark.parametrize("cell", [-9, 999, "-9", "high"])
def test_a_measured_outcome_out_of_its_range_is_refused(cell):
    outcome = Outcome(column="ejection_fraction", positive="< 40", range=[0, 100])

    assert_array_equal(observed(outcome, [35, 60.0]), [1, 0])
    with pytest.raises(ContractError, match="row 1"):
        observed(outcome, [cell])


ORIGIN = Outcome(
    column="origin",
    classes={"none": ["none", 0], "colon": ["crc", "colon"], "lung": ["lung", 2]},
    positive=["colon", "lung"],
    missing_if=["?"],
)


def test_a_code_is_the_number_of_its_class_in_the_order_of_the_spec():
    label = classified(ORIGIN, ["none", "colon", "crc", "lung", "?", None, NAN, 0, 2.0, "2"])

    assert_array_equal(label, [0, 1, 1, 2, NAN, NAN, NAN, 0, 2, 2])
    assert_array_equal(happened(ORIGIN, label), [0, 1, 1, 1, NAN, NAN, NAN, 0, 1, 1])


@pytest.mark.parametrize("cell", ["unknown primary", "Colon", "", 7, -9])
def test_a_code_of_no_class_is_refused_and_never_counts_as_one(cell):
    with pytest.raises(
        ContractError, match=r"outcome 'origin', row 2: .* none of the classes none, colon, lung"
    ) as refused:
        classified(ORIGIN, ["none", cell])
    assert "primary" not in str(refused.value)


@pytest.mark.parametrize("closed", [{}, {"values": [0, 1], "range": [0, 1]}])
def test_an_outcome_says_what_its_column_may_hold(closed):
    with pytest.raises(ValueError, match="exactly one of `values`"):
        Outcome(column="num", positive="> 0", **closed)


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


def test_a_numeral_in_a_text_is_its_number_since_one_word_makes_text_of_a_csvs_column():
    outcome = Outcome(column="sick", positive="== 1", values=[0, 1], missing_if=["NA"])

    assert_array_equal(observed(outcome, ["0", "1", "NA", "1.0", ""][:4]), [0, 1, NAN, 1])


def test_no_cells_give_no_outcomes():
    assert outcomes("> 0", []) == []


D = SECONDS["d"]
AT = 1_000 * D
DIED = Outcome(
    column="status", positive="== 1", values=[0, 1], time="futime", horizon_days=30.0, gap_days=2.0
)  # fmt: skip


def over_time(happened, ended):
    """The outcome and why it is unknown, of days after the prediction; None is never."""
    times = [np.array([NAN if day is None else AT + day * D]) for day in (happened, ended)]
    y, why = within_horizon(DIED, *times, np.array([AT]))
    return (y.tolist()[0], why.tolist()[0])


@pytest.mark.parametrize(
    ("day", "expected"),
    [
        (-1, (NAN, "the outcome before the time of prediction")),
        (0, (NAN, "the outcome before the time of prediction")),
        (1, (NAN, "the outcome within the gap")),
        (2, (NAN, "the outcome within the gap")),
        (2.5, (1, "")),
        (32, (1, "")),
        (32.5, (0, "")),
    ],
)
def test_an_outcome_counts_after_the_gap_and_up_to_the_horizon(day, expected):
    assert str(over_time(day, day)) == str((float(expected[0]), expected[1]))


@pytest.mark.parametrize(
    ("last_day", "expected"),
    [
        (-1, "no record after the time of prediction"),
        (0, "no record after the time of prediction"),
        (1, "censored before the horizon"),
        (31.9, "censored before the horizon"),
        (32, ""),
        (900, ""),
    ],
)
def test_a_record_without_the_outcome_is_a_no_only_where_it_reaches_its_horizon(last_day, expected):
    y, why = over_time(None, last_day)

    assert why == expected
    assert y == 0 if why == "" else np.isnan(y)


DAYS = st.one_of(st.none(), st.floats(-50, 80))


@given(DAYS, DAYS)
def test_an_outcome_is_known_or_unknown_for_one_reason(happened, ended):
    y, why = over_time(happened, ended)

    assert np.isnan(y) == (why != "")
    assert why in ("", *REASONS)


@given(st.floats(0.1, 100), st.floats(0, 100))
def test_who_is_followed_for_longer_is_never_less_known(ended, more):
    if not np.isnan(over_time(None, ended)[0]):
        assert over_time(None, ended + more) == over_time(None, ended)
