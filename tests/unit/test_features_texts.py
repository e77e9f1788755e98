"""A text is its code points and back, and nothing of it stands in a message."""

import re
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from configs.errors import RecordError
from features import texts

NOTE = SimpleNamespace(length=40)


def judged(value):
    return texts.check("note", NOTE, value)


@given(st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=40))
def test_a_text_survives_float32_and_comes_back_as_it_was(text):
    row = texts.encode(text, 40).astype(np.float32)

    assert texts.decode(row[None]) == [text]
    assert texts.summary(row[None]).tolist() == [len(text)]


def test_a_missing_text_is_unknown_and_has_no_number_of_characters():
    gone = np.full((1, 40), np.nan)

    assert texts.decode(gone) == [None]
    assert_array_equal(texts.summary(gone), [np.nan])


def test_a_text_as_long_as_the_contract_allows_is_read_whole_and_unchanged():
    text = "é\tÅngström\r\n" + "x" * 28

    assert len(text) == 40
    assert texts.decode(judged(text)[None]) == [text]


@pytest.mark.parametrize(
    ("value", "code", "told"),
    [
        ("fell twice in the bathroom, alone, at night", "too_long", "43 characters; at most 40"),
        ("", "blank_text", "blank"),
        (" \n\t ", "blank_text", "blank"),
        ("fell\x00 twice", "control_character", "character 5 stands the control character U+0000"),
        ("fell \x1b[31mtwice", "control_character", "U+001B"),
        ("fell\x85 twice", "control_character", "U+0085"),
        ("fell \ud83d twice", "not_a_character", "character 6"),
        (7, "not_a_text", "not a number"),
        (True, "not_a_text", "not true or false"),
        (["fell"], "not_a_text", "not a list"),
        ({"text": "fell"}, "not_a_text", "not an object"),
    ],
)
def test_what_is_no_text_of_the_contract_is_refused_without_quoting_it(value, code, told):
    with pytest.raises(RecordError, match="note: ") as refused:
        judged(value)

    assert (refused.value.code, refused.value.field) == (code, "note")
    assert told in str(refused.value)
    assert "fell" not in str(refused.value)


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=40))
def test_the_pattern_that_callers_are_told_lets_through_what_the_contract_reads(text):
    try:
        judged(text)
    except RecordError:
        allowed = False
    else:
        allowed = True

    assert bool(re.search(texts.PATTERN, text)) == allowed
