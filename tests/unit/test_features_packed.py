"""A text is the bytes that it holds as base64, or it is none."""

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from features.packed import unpacked


@given(st.binary(max_size=100))
def test_what_was_packed_is_unpacked(content):
    assert unpacked(base64.b64encode(content).decode()) == content


@pytest.mark.parametrize(
    "text", ["A", "AA", "AA=", "AA\n==", " AAAA", "AAAA\n", "AA-_", "é", "AAAA=", "====", "\ud800"]
)
def test_a_text_that_is_no_base64_is_none(text):
    assert unpacked(text) is None
