"""Each definition: a value from its source, missing in missing out, and every row for itself."""

import inspect
import math
import pkgutil
from importlib import import_module

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from features import definitions
from features.build import definitions_of
from features.definitions.cardiac import heart_rate_reserve_used
from features.definitions.demographics import age_band, child_age_band

NAN = math.nan
TOPICS = [import_module(f"features.definitions.{topic.name}") for topic in pkgutil.iter_modules(definitions.__path__)]
OF_ARRAYS = {"short_fragments", "fragment_sizes", "methylation_betas", "variant_reads", "lesion_picture", "ecg", "note"}
"""Columns that hold arrays: what reads them is tested with its topic, test_features_cfdna.py and its neighbours."""
FUNCTIONS = [
    pytest.param(function, id=f"{topic.__name__.rpartition('.')[2]}.{name}")
    for topic in TOPICS
    for name in definitions_of(topic)
    if not OF_ARRAYS & set(inspect.signature(function := getattr(topic, name)).parameters)
]


def column(*values):
    return np.array(values, dtype=np.float64)


def test_a_third_of_the_reserve():
    assert_array_equal(heart_rate_reserve_used(column(160, 80, 190, NAN), column(60, 60, 30, 50)), [1, 0.5, 1, NAN])
    assert_array_equal(heart_rate_reserve_used(column(160), column(NAN)), [NAN])


@pytest.mark.parametrize(
    ("age", "band"),
    [(18, 18), (44.9, 18), (45, 45), (54, 45), (55, 55), (64, 55), (65, 65), (74, 65), (75, 75), (120, 75), (17, 18)],
)
def test_an_age_falls_into_the_band_that_begins_at_or_before_it(age, band):
    assert age_band(column(age)).tolist() == [band]


@pytest.mark.parametrize(
    ("age", "band"), [(0, 0), (1.9, 0), (2, 2), (5, 2), (6, 6), (12, 12), (17, 12), (18, 18), (90, 18)]
)
def test_a_child_falls_into_the_band_of_its_age(age, band):
    assert child_age_band(column(age)).tolist() == [band]


def test_an_unknown_age_is_in_no_band():
    assert_array_equal(age_band(column(NAN, 50)), [NAN, 45])


@pytest.mark.parametrize("function", FUNCTIONS)
def test_every_definition_is_missing_where_all_it_reads_is_missing(function):
    reads = inspect.signature(function).parameters

    assert_array_equal(function(*[column(NAN, NAN)] * len(reads)), [NAN, NAN])


@pytest.mark.parametrize("function", FUNCTIONS)
@given(data=st.data())
def test_every_definition_takes_each_row_for_itself_and_changes_nothing_it_was_given(function, data):
    n = data.draw(st.integers(min_value=0, max_value=5))
    cells = st.floats(min_value=0, max_value=300) | st.just(NAN)
    given_columns = [
        np.array(data.draw(st.lists(cells, min_size=n, max_size=n)), dtype=np.float64)
        for _ in inspect.signature(function).parameters
    ]
    before = [values.copy() for values in given_columns]

    with np.errstate(all="ignore"):
        together = function(*given_columns)
        alone = [function(*[values[row : row + 1] for values in given_columns])[0] for row in range(n)]

    assert together.shape == (n,)
    assert together.tobytes() == np.array(alone, dtype=np.float64).tobytes()
    for now, then in zip(given_columns, before, strict=True):
        assert_array_equal(now, then)


@pytest.mark.parametrize("topic", TOPICS)
def test_no_definition_can_see_an_outcome(topic):
    assert "outcomes" not in inspect.getsource(topic)


@pytest.mark.parametrize("function", FUNCTIONS)
def test_every_definition_says_what_comes_out(function):
    assert function.__doc__
