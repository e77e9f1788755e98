"""Invented records keep the contract, whatever the contract."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from configs.settings import ROOT
from configs.spec import Column, diseases, load_spec
from features.columns import check_record
from features.synthetic import SHARE_MISSING, draw, edges

ends = st.floats(min_value=-1e6, max_value=1e6)
codes = st.lists(st.sampled_from([0, -9, 999, 0.5, 50]), max_size=5)
words = st.lists(st.text(alphabet="abc", min_size=1, max_size=2), min_size=1, max_size=4, unique=True)
numbers = st.builds(
    lambda low, width, missing, required: Column(
        type="number", unit="1", range=(low, low + width), missing_if=tuple(missing), required=required
    ),
    ends,
    st.floats(min_value=1e-3, max_value=1e6),
    codes,
    st.booleans(),
)
categories = st.builds(
    lambda values, unknown, required: Column(
        type="category", values=(*values, "known"), missing_if=tuple(values) if unknown else (), required=required
    ),
    words,
    st.booleans(),
    st.booleans(),
)
arrays = st.builds(
    lambda low, width, length, required: Column(
        type="array", unit="1", range=(low, low + width), length=length, required=required
    ),
    ends,
    st.floats(min_value=1e-3, max_value=1e6),
    st.integers(2, 5),
    st.booleans(),
)
booleans = st.builds(
    lambda missing, required: Column(type="boolean", missing_if=tuple(missing), required=required), codes, st.booleans()
)
contracts = st.dictionaries(st.sampled_from("abcdef"), numbers | categories | booleans | arrays, min_size=1)


@given(contracts, st.integers(min_value=0, max_value=2**32))
def test_drawn_records_and_edges_always_pass_the_contract(columns, seed):
    for record in [*draw(columns, 5, seed), *edges(columns)]:
        checked = check_record(columns, json.loads(json.dumps(record)))
        assert not any(np.isnan(checked.values[name]).any() for name, column in columns.items() if column.required)


@pytest.mark.parametrize("name", diseases(ROOT / "configs"))
def test_records_of_the_shipped_diseases_pass(name):
    columns = load_spec(name, ROOT / "configs").columns

    for record in [*draw(columns, 100, 5), *edges(columns)]:
        check_record(columns, record)


def test_a_seed_always_draws_the_same():
    columns = load_spec("heart_disease", ROOT / "configs").columns

    assert draw(columns, 20, 3) == draw(columns, 20, 3)
    assert draw(columns, 20, 3) != draw(columns, 20, 4)


def test_more_records_begin_with_the_fewer():
    columns = load_spec("heart_disease", ROOT / "configs").columns

    assert draw(columns, 20, 3)[:5] == draw(columns, 5, 3)


def test_optional_values_are_left_out_now_and_then_and_required_ones_never():
    columns = load_spec("heart_disease", ROOT / "configs").columns

    records = draw(columns, 500, 3)

    assert all("age_years" in record for record in records)
    absent = sum("cholesterol_mg_dl" not in record for record in records) / 500
    assert absent == pytest.approx(SHARE_MISSING, abs=0.06)


def test_the_edges_are_the_lowest_the_highest_and_the_fewest():
    columns = load_spec("heart_disease", ROOT / "configs").columns

    lowest, highest, fewest = edges(columns)

    assert (lowest["age_years"], highest["age_years"]) == (18, 120)
    assert (lowest["sex"], highest["sex"]) == ("male", "female")
    assert (lowest["exercise_angina"], highest["exercise_angina"]) == (False, True)
    assert set(fewest) == {"age_years", "sex"}
