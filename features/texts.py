"""A text as the numbers of its characters: Unicode code points, which a float32 holds exactly, and 0 behind the end."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from configs.errors import RecordError
from configs.spec import Column
from features.definitions import Array, Profile


def check(name: str, column: Column, value: Any) -> Array:
    """The code points of a text, (length,). Raises RecordError for what is none, is blank, or is longer than that."""
    if not isinstance(value, str):
        raise RecordError("not_a_text", name, f"{name}: a text is expected, not a {type(value).__name__}.")
    assert column.length is not None  # the Spec demands it of a text
    if len(value) > column.length:
        said = f"{name}: a text of {len(value)} characters; at most {column.length} are expected."
        raise RecordError("too_long", name, said)
    if not value.strip():
        raise RecordError("blank_text", name, f"{name}: the text is blank; leave it out if there is none.")
    if "\0" in value or any("\ud800" <= character <= "\udfff" for character in value):
        raise RecordError("not_a_text", name, f"{name}: the text holds characters that are none.")
    return encode(value, column.length)


def encode(text: str, length: int) -> Array:
    """(length,) code points, 0 behind the end."""
    found = np.zeros(length)
    found[: len(text)] = list(map(ord, text))
    return found


def decode(rows: NDArray[np.floating[Any]]) -> Sequence[str | None]:
    """The texts of rows (n, length) that `encode` made; None where a row is NaN."""
    return [None if np.isnan(row[0]) else "".join(map(chr, row[row > 0].astype(int).tolist())) for row in rows]


def summary(texts: Profile | NDArray[np.float32]) -> Array:
    """How many characters each text has, (n,); NaN where it is missing."""
    return np.where(np.isnan(texts[:, 0]), np.nan, (texts > 0).sum(axis=1))
