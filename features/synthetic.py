"""Invented records that keep the contract: for self-tests, examples and parity checks. No patient is in them."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from configs.spec import Column

SHARE_MISSING = 0.2


def draw(columns: Mapping[str, Column], n: int, seed: int) -> list[dict[str, Any]]:
    """`n` random valid records, as a request holds them: values uniform in their range, some optional ones left out."""
    generator = np.random.default_rng(seed)
    records = []
    for _ in range(n):
        record = {}
        for name, column in columns.items():
            place, left_out = generator.random(2).tolist()
            if column.required or left_out >= SHARE_MISSING:
                record[name] = _value(column, place)
                if column.length is not None:
                    record[name] = [_value(column, place)[0] for place in generator.random(column.length).tolist()]
        records.append(record)
    return records


def edges(columns: Mapping[str, Column]) -> list[dict[str, Any]]:
    """The corners of the contract: everything lowest, everything highest, and nothing but what is required."""
    lowest = {name: _value(column, 0.0) for name, column in columns.items()}
    highest = {name: _value(column, 1.0) for name, column in columns.items()}
    fewest = {name: _value(column, 0.5) for name, column in columns.items() if column.required}
    return [lowest, highest, fewest]


def _value(column: Column, place: float) -> Any:
    """The value that lies at `place`, 0 to 1, of what the column allows; an array is full of it."""
    if column.type == "array":
        assert column.range is not None and column.length is not None  # the Spec demands both of an array
        low, high = column.range
        return [min(max(round(low + place * (high - low), 4), low), high)] * column.length
    if column.type == "number":
        assert column.range is not None  # the Spec demands it of a number
        low, high = column.range
        value = round(low + place * (high - low), 2)
        inside = (low + (high - low) / part for part in range(2, len(column.missing_if) + 3))  # one more than the codes
        return next(value for value in (value, *inside) if low <= value <= high and value not in column.missing_if)
    if column.type == "boolean":
        choices: tuple[Any, ...] = (False, True)
    else:
        choices = tuple(category for category in column.categories if category not in column.missing_if)
    return choices[min(int(place * len(choices)), len(choices) - 1)]
