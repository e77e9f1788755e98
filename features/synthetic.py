"""Invented records that keep the contract: for self-tests, examples and parity checks. No patient is in them."""

from base64 import b64encode
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np

from configs.spec import Column

SHARE_MISSING = 0.2
MOST_EVENTS = 8
"""Of one code in one record."""
AT = datetime(2026, 1, 1, tzinfo=UTC)
"""The time of prediction of a record with events."""
LETTERS = "aeiou bcdfghlmnprstv"
LONGEST_BEFORE = timedelta(days=3652)
"""How long before it an event may lie, where a column reads all of the past."""


def draw(
    columns: Mapping[str, Column], n: int, seed: int, events: Mapping[str, Column] | None = None
) -> list[dict[str, Any]]:
    """`n` random valid records, as a request holds them: values uniform in their range, some optional ones left out.

    With `events`, the codes' contracts, most of them tell what happened before `AT`, most of it lately.
    """
    generator = np.random.default_rng(seed)
    records = []
    for _ in range(n):
        record: dict[str, Any] = {}
        for name, column in _sent(columns).items():
            place, left_out = generator.random(2).tolist()
            if column.required or left_out >= SHARE_MISSING:
                if column.signal:
                    record[name] = _signal(column, generator)
                    continue
                record[name] = _value(column, place)
                if column.size is not None:
                    record[name] = [_value(column, place)[0] for place in generator.random(column.size).tolist()]
        if events and generator.random() >= SHARE_MISSING:
            record |= {"at": AT.isoformat(), "events": []}
            for code in events:
                longest = _longest(columns, code)
                for _ in range(generator.integers(0, MOST_EVENTS, endpoint=True)):
                    place, ago = generator.random(2).tolist()
                    record["events"].append(_event(code, events[code], place, ago**3 * longest))
        records.append(record)
    return records


def edges(columns: Mapping[str, Column], events: Mapping[str, Column] | None = None) -> list[dict[str, Any]]:
    """The corners of the contract: everything lowest, everything highest, and nothing but what is required.

    With `events`, each code falls from its highest to its lowest value, or rises, from the beginning of its longest
    window to the last moment before `AT`.
    """
    lowest = {name: _value(column, 0.0) for name, column in _sent(columns).items()}
    highest = {name: _value(column, 1.0) for name, column in _sent(columns).items()}
    fewest = {name: _value(column, 0.5) for name, column in columns.items() if column.required}
    if events:
        for corner, last in ((lowest, 0.0), (highest, 1.0)):
            told = [
                _event(code, column, place, ago)
                for code, column in events.items()
                for place, ago in ((1 - last, _longest(columns, code)), (last, timedelta(seconds=1)))
            ]
            corner |= {"at": AT.isoformat(), "events": told}
    return [lowest, highest, fewest]


def _sent(columns: Mapping[str, Column]) -> dict[str, Column]:
    return {name: column for name, column in columns.items() if column.event is None}


def _longest(columns: Mapping[str, Column], code: str) -> timedelta:
    """How long before the time of prediction an event of this code may lie."""
    windows = [column.window_seconds for column in columns.values() if column.event == code]
    return timedelta(seconds=min(max(windows, default=np.inf), LONGEST_BEFORE.total_seconds()))


def _event(code: str, column: Column, place: float, ago: timedelta) -> dict[str, Any]:
    event = {"time": (AT - max(ago, timedelta(seconds=1))).isoformat(), "code": code, "value": _value(column, place)}
    return event if column.unit is None else {**event, "unit": column.unit}


def _signal(column: Column, generator: np.random.Generator) -> str:
    """An invented waveform or image as a base64 text of float32, or a text of invented words."""
    if column.type == "text":
        assert column.length is not None  # the Spec demands it of a text
        letters = generator.integers(0, len(LETTERS), column.length)
        return "".join(LETTERS[letter] for letter in letters).strip() or LETTERS[0]
    assert column.range is not None  # the Spec demands it of both
    low, high = column.range
    along = np.linspace(0, 1, column.shape[-1])
    rows = column.shape[:-1]
    frequency = generator.uniform(1, 12, (*rows, 1))
    phase, size = generator.uniform(0, 2 * np.pi, (*rows, 1)), generator.uniform(0.05, 0.4, (*rows, 1))
    wave = size * np.sin(2 * np.pi * frequency * along + phase) + generator.normal(0, 0.01, column.shape)
    values = (low + high) / 2 + np.clip(wave, -0.49, 0.49) * (high - low)
    return b64encode(values.astype("<f4").tobytes()).decode()


def _value(column: Column, place: float) -> Any:
    """The value that lies at `place`, 0 to 1, of what the column allows; an array is full of it."""
    if column.signal:
        return _signal(column, np.random.default_rng(int(place * 100)))
    if column.type == "array":
        assert column.range is not None and column.size is not None  # the Spec demands both of an array
        low, high = column.range
        return [min(max(round(low + place * (high - low), 4), low), high)] * column.size
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
