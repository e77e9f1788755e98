"""Texts as rows of numbers: the code point of each character, padded with 0, so that a text travels like a number.

Nothing is learned here, and nothing of the text is changed: no trimming, no other case, no other form of an accent. An
encoder does with it what it was trained to do. float32 holds every code point exactly (the largest is 1,114,111, below
2 ** 24), so a text survives a feature matrix.
"""

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from configs.errors import RecordError
from configs.spec import Column
from features.definitions import Array, Profile

CONTROL = r"\u0000-\u0008\u000b\u000c\u000e-\u001f\u007f-\u009f"
"""All control characters but tab, line feed and carriage return, as a regular expression's class holds them."""
PATTERN = rf"^[^{CONTROL}]*[^\s{CONTROL}][^{CONTROL}]*$"
"""A text that is not blank and holds no control character, for Python's and JavaScript's regular expressions alike."""
_CONTROL = re.compile(f"[{CONTROL}]")
_SURROGATE = re.compile(r"[\ud800-\udfff]")


def check(name: str, column: Column, value: Any) -> Array:
    """The code points of a text that keeps its contract, (length,). The message of a RecordError holds nothing of it.

    Refused: what is no string, is blank, is longer than `length` characters, or holds a control character (tabs and
    ends of lines are read) or half of a surrogate pair, which is no character.
    """
    assert column.length is not None  # the Spec demands it of a text
    if not isinstance(value, str):
        raise RecordError("not_a_text", name, f"{name}: a text is expected, not {_kind(value)}.")
    if not value.strip():
        said = f"{name}: the text is blank; one that is missing is left out, or null."
        raise RecordError("blank_text", name, said)
    if len(value) > column.length:
        raise RecordError(
            "too_long",
            name,
            f"{name}: a text of {len(value)} characters; at most {column.length} are read, and none is cut off here: "
            "send the part that matters.",
        )
    if (found := _SURROGATE.search(value)) is not None:
        said = f"{name}: at character {found.start() + 1} stands half of a surrogate pair, which is no character."
        raise RecordError("not_a_character", name, said)
    if (found := _CONTROL.search(value)) is not None:
        shown = f"U+{ord(found[0]):04X}"
        said = f"{name}: at character {found.start() + 1} stands the control character {shown}; only tabs and ends of "
        raise RecordError("control_character", name, f"{said}lines are read.")
    return encode(value, column.length)


def encode(text: str, length: int) -> Array:
    """The text's code points, (length,), 0 behind the end. It has at most `length` characters."""
    found = np.zeros(length)
    found[: len(text)] = np.frombuffer(text.encode("utf-32-le"), np.uint32)
    return found


def decode(rows: NDArray[np.floating[Any]]) -> Sequence[str | None]:
    """The texts of rows (n, length) that `encode` made; None where a row is NaN."""
    ends = np.count_nonzero(rows, axis=1)
    return [
        None if np.isnan(row[0]) else row[:end].astype(np.uint32).tobytes().decode("utf-32-le")
        for row, end in zip(rows, ends, strict=True)
    ]


def summary(texts: Profile | NDArray[np.float32]) -> Array:
    """How many characters each text has, (n,); NaN where it is missing."""
    return np.where(np.isnan(texts[:, 0]), np.nan, np.count_nonzero(texts, axis=1))


def _kind(value: Any) -> str:
    return {bool: "true or false", int: "a number", float: "a number", list: "a list", dict: "an object"}.get(
        type(value), f"a {type(value).__name__}"
    )
