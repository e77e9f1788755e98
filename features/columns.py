"""The contract, applied: one value, one record, one table, by the same function.

A checked value is a float: a number in its canonical unit, a category's index in its values, NaN for missing; of an
array it is as many floats as the array is long, all of them NaN for missing. What the contract does not allow is
refused with the column's name; text that a source holds is never repeated in a message, because nobody knows what was
typed there.
"""

import json
import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from configs.errors import ContractError, RecordError
from configs.spec import RESERVED_FIELDS, Column, Spec, as_key, as_text
from features import images, texts, units, waveforms
from features.definitions import Array, Profile
from features.events import Events, Reducer
from features.outcomes import as_number, classified, happened, observed, within_horizon
from features.records import Records

MISSING = math.nan
LARGEST_SHOWN = 10**40
Value = float | Array
"""A checked value: a float, or the floats of an array, (length,)."""
BEYOND = re.compile(r"\s*([<>])\s*((?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)\s*", re.ASCII)
"""A value that the assay cannot tell: on which side of its limit it lies, and the limit."""
ROUNDED = 1e-6
"""Two limits this close, relatively, are one that was written in two units."""
LONGEST_TEXT = 200
"""Characters of a caller's own identifier."""
MOST_EVENTS = 10_000
"""Of one record: a minute's vital signs over a week."""
EVENT_KEYS = ("time", "code", "value", "unit", "patient")
ABSENT = object()
"""Stands for a value that an event does not have: it happened, and that is all."""
LATER = "at or after the time of prediction"
TWICE = "twice"
UNREAD = "a code that the model does not read"
VALUELESS = "without a value"


@dataclass(frozen=True)
class Told:
    """The events of one record that count: `code` places in the Spec's `events`, `time` seconds since 1970, `value`s.

    `places` are theirs among all that were sent; `ignored` counts the others, by reason.
    """

    code: list[int]
    time: list[float]
    value: list[float]
    places: list[int]
    ignored: dict[str, int]


@dataclass(frozen=True)
class Record:
    """One checked record of a request: the contract's values, and what the caller said about it.

    `values` holds every column, those of events computed as of `at`; `told` is None where no events were.
    """

    values: dict[str, Value]
    at: datetime | None
    patient: str | None
    reference: str | None
    told: Told | None = None


@dataclass(frozen=True)
class Refusal:
    """One value of a table that breaks the contract. `row` counts data rows from 1; no value, no identifier."""

    row: int
    column: str
    code: str
    message: str


@dataclass(frozen=True)
class History:
    """What the long tables tell of each row of the patients' table: `columns[name]` (n,) the columns of events, and
    `happened` (n,), seconds since 1970, when the outcome first did, NaN if never; None where it is no event.

    `doubtful` (n,): when the first event of the outcome's code came that could not be read, -inf where its time could
    not; inf if all could.
    """

    columns: dict[str, Array]
    happened: Array | None
    doubtful: Array | None = None


def check_value(name: str, column: Column, value: Any) -> Value:
    """The value as a float or, of an array, (length,) floats; NaN if it is missing.

    Raises RecordError, naming the field, if it is of the wrong type, length, unit, range or category, or not finite.
    """
    if column.signal:
        return _signal(name, column, value)
    unit = None
    if isinstance(value, dict):
        if set(value) != {"value", "unit"}:
            raise RecordError("malformed", name, f"{name}: expected a value, or {{value, unit}} and nothing else.")
        value, unit = value["value"], value["unit"]
    if unit is not None:
        _conversion(name, column, unit)  # an unknown unit is refused, whatever the value
    if value is None:
        return _missing(name, column)
    if not isinstance(value, bool) and not isinstance(value, list | dict) and value in column.missing_if:
        return _missing(name, column)
    if column.type == "number":
        return _number(name, column, value, unit)
    if column.type == "array":
        return _array(name, column, value, unit)
    if column.type == "boolean":
        if not isinstance(value, bool):
            raise RecordError("not_a_boolean", name, f"{name}: {_shown(value)} is not true or false.")
        return float(value)
    try:
        return float(column.categories.index(value))
    except ValueError:
        expected = ", ".join(column.categories)
        raise RecordError("unknown_category", name, f"{name}: {_shown(value)} is not one of: {expected}.") from None


def _missing(name: str, column: Column) -> Value:
    if column.required:
        raise RecordError("missing_field", name, f"{name}: is required and is missing.")
    return MISSING if column.size is None else np.full(column.size, MISSING)


def _signal(name: str, column: Column, value: Any) -> Array:
    """The floats of a waveform, an image or a text, (size,). A file that could not be read comes as its RecordError."""
    if isinstance(value, RecordError):
        raise value
    if value is None:
        return np.asarray(_missing(name, column))
    judge = {"waveform": waveforms.check, "image": images.check, "text": texts.check}
    return judge[column.type](name, column, value)


def kept_signal(column: Column, sent: Any, checked: Value) -> Any:
    """What stands on record for a signal that was sent, and `checked` (size,): JSON, or bytes that it holds as base64.

    `check_value` makes the same bits of it again. Of an image its pixels stay, and never the file.
    """
    if sent is None or column.type == "text":
        return sent
    return np.asarray(checked, "<f4").tobytes() if column.type == "image" else waveforms.kept(column, sent)


def _array(name: str, column: Column, value: Any, unit: Any) -> Array:
    """The floats of an array, (length,). Raises RecordError for the first that is none, with its place from 1."""
    if not isinstance(value, list | tuple):
        raise RecordError("not_an_array", name, f"{name}: {_shown(value)} is not a list of {column.size} numbers.")
    if len(value) != column.size:
        raise RecordError(
            "wrong_length",
            name,
            f"{name}: a list of {len(value)}; {column.size} numbers are expected, in this order.",
        )
    assert column.range is not None  # the Spec demands it of an array
    if unit in (None, column.unit) and set(map(type, value)) <= {int, float}:  # all of them at once
        try:
            found = np.array(value, np.float64) + 0.0  # minus zero becomes zero: equal values have equal bits
        except OverflowError:
            found = np.full(len(value), math.inf)
        if ((found >= column.range[0]) & (found <= column.range[1])).all():
            return found
    numbers = []
    for place, entry in enumerate(value):
        try:
            numbers.append(_number(name, column, entry, unit))
        except RecordError as exc:
            told = str(exc).removeprefix(f"{name}: ")
            raise RecordError(exc.code, name, f"{name}: at place {place + 1} of {len(value)}: {told}") from None
    return np.array(numbers)


def _number(name: str, column: Column, value: Any, unit: Any) -> float:
    if isinstance(value, str) and (said := BEYOND.fullmatch(value)) is not None:
        return _beyond(name, column, said[1], float(said[2]), unit)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise RecordError("not_a_number", name, f"{name}: {_shown(value)} is not a number.")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise RecordError("not_finite", name, f"{name}: the number is not finite.")
    assert column.unit is not None and column.range is not None  # the Spec demands both of a number
    if unit is not None:
        number = _conversion(name, column, unit)(number)
    low, high = column.range
    if not low <= number <= high:
        raise RecordError(
            "out_of_range", name, f"{name}: {number:g} {column.unit} lies outside {low:g} to {high:g} {column.unit}."
        )
    return detected(column, number)


def detected(column: Column, number: float) -> float:
    """What a number within its range counts as: itself, or what the contract writes where it is beyond detection."""
    below, above = column.below_detection, column.above_detection
    if below is not None and number < below.limit:
        number = below.counts_as
    elif above is not None and number > above.limit:
        number = above.counts_as
    return number + 0.0  # minus zero becomes zero: equal values have equal bits


def _beyond(name: str, column: Column, sign: str, limit: float, unit: Any) -> float:
    """What `<0.6` or `>5000` counts as. Raises RecordError if the contract has no such limit, or another one."""
    key, rule = ("below_detection", column.below_detection)
    if sign == ">":
        key, rule = ("above_detection", column.above_detection)
    if rule is None:
        said = f"{name}: a limit of detection is not a number; the contract has no `{key}`."
        raise RecordError("not_a_number", name, said)
    assert column.unit is not None  # the Spec demands it of a number
    ours = limit if unit is None else _conversion(name, column, unit)(limit)
    if not math.isclose(ours, rule.limit, rel_tol=ROUNDED):
        raise RecordError(
            "detection_limit",
            name,
            f"{name}: {sign}{ours:g} {column.unit}, but the contract's limit is {rule.limit:g} {column.unit}; "
            "is it from another laboratory's kit?",
        )
    return rule.counts_as + 0.0


def side(column: Column, cell: Any, unit: str | None = None) -> str | None:
    """`below` or `above` where a source's cell, which keeps the contract, lies beyond detection; None elsewhere."""
    said = BEYOND.fullmatch(cell) if isinstance(cell, str) else None
    if said is not None:
        return "below" if said[1] == "<" else "above"
    if not isinstance(cell, int | float) or not (column.below_detection or column.above_detection):
        return None
    number = float(cell) if unit is None else _conversion("", column, unit)(float(cell))
    for name, rule, sign in (("below", column.below_detection, 1), ("above", column.above_detection, -1)):
        if rule is not None and sign * number < sign * rule.limit:
            return name
    return None


def _conversion(name: str, column: Column, unit: Any) -> units.Conversion:
    """How a number in `unit` is made one of the column's. Raises RecordError for a unit that it does not accept."""
    if column.unit is None:
        raise RecordError("unit", name, f"{name}: a {column.type} has no unit.")
    allowed = isinstance(unit, str) and unit in (column.unit, *column.accepts)
    found = units.conversion(unit, column.unit, column.loinc) if allowed else None
    if found is None:
        expected = ", ".join((column.unit, *column.accepts))
        raise RecordError("unit", name, f"{name}: {_shown(unit)} is not one of its units: {expected}.")
    return found


def _shown(value: Any) -> str:
    """A value as a message may repeat it: numbers as they are, text by its length alone."""
    if isinstance(value, str):
        return f"a text of {len(value)} characters"
    if isinstance(value, int) and abs(value) >= LARGEST_SHOWN:  # Python refuses to write out an int of 4,300 digits
        return "an enormous number"
    if isinstance(value, bool | int | float):
        return f"{value!r:.40}"
    return f"a {type(value).__name__}"


def check_record(
    columns: Mapping[str, Column], record: Any, reducer: Reducer | None = None, received: datetime | None = None
) -> Record:
    """The record of a request, checked: every column of the contract has its float, NaN where nothing was sent.

    A `reducer` computes the columns of events, as of the record's own time, or else of when it was `received`.
    Raises RecordError for the first thing that is wrong.
    """
    if not isinstance(record, dict):
        raise RecordError("malformed", None, f"a record is an object of fields, not {_shown(record)}.")
    fields = {name: column for name, column in columns.items() if column.event is None}
    for name in record:
        if name not in fields and name not in RESERVED_FIELDS:
            shown = name[:60]
            said = f"{shown}: is computed from `events`" if name in columns else f"{shown}: no such field"
            raise RecordError("unknown_field", shown, f"{said}. Known: {', '.join(fields)}.")
    sent = record.get("events")
    reads_events = reducer is not None and bool(reducer.events)
    if sent and not reads_events:
        raise RecordError("unknown_field", "events", "events: this model reads no events.")
    values = {name: check_value(name, column, record.get(name)) for name, column in fields.items()}
    at, patient, reference = check_time(record.get("at")), _text("patient", record), _text("reference", record)
    if reducer is None or not reads_events:
        return Record(values, at, patient, reference)
    as_of = at or received
    if sent is not None and as_of is None:
        raise RecordError("missing_field", "at", "at: the time of prediction is expected beside `events`.")
    seconds = MISSING if as_of is None else as_of.timestamp()
    told = None if sent is None else check_events(reducer.events, sent, patient, seconds)
    computed = reduce_told(reducer, [told], np.array([seconds]))
    values |= {name: float(of_each[0]) for name, of_each in computed.items()}
    return Record({name: values[name] for name in columns}, at, patient, reference, told)


def as_arrays(columns: Mapping[str, Column], records: Sequence[Record | None]) -> dict[str, Array]:
    """Checked records as `build` takes them: a column (n,), an array (n, length); NaN where a record is None."""
    found = {}
    for name, column in columns.items():
        gone: Value = MISSING if column.size is None else np.full(column.size, MISSING)
        rows = [gone if record is None else record.values[name] for record in records]
        shape = (len(rows),) if column.size is None else (len(rows), column.size)
        found[name] = np.array(rows, np.float64).reshape(shape)
    return found


def is_missing(values: Array | Profile) -> NDArray[np.bool_]:
    """Which of a column's checked values, (n,) or (n, length), are missing, (n,)."""
    return np.isnan(values if values.ndim == 1 else values[:, 0])


def times(records: Sequence[Record | None]) -> Array:
    """Each record's own time of prediction, (n,), seconds since 1970; NaN where it tells none, or is None."""
    return np.array([record.at.timestamp() if record and record.at else MISSING for record in records], np.float64)


def check_events(events: Mapping[str, Column], sent: Any, patient: str | None, at: float) -> Told:
    """The events that came with one record of the `patient`, as of `at`, seconds since 1970, checked.

    Raises RecordError for the first that is wrong, by its place: `events[3].unit`.
    """
    if not isinstance(sent, list):
        raise RecordError("malformed", "events", f"events: a list of events is expected, not {_shown(sent)}.")
    if len(sent) > MOST_EVENTS:
        said = f"events: {len(sent)} are more than the {MOST_EVENTS} of one record; send those of the windows alone."
        raise RecordError("too_many_events", "events", said)
    places = {code: place for place, code in enumerate(events)}
    found = []
    for position, event in enumerate(sent):
        name = f"events[{position}]"
        if not isinstance(event, dict) or not set(event) <= set(EVENT_KEYS):
            raise RecordError("malformed", name, f"{name}: an object of {', '.join(EVENT_KEYS)} is expected.")
        whose = _text("patient", event, f"{name}.patient")
        patient = patient or whose
        if whose not in (None, patient):
            said = f"{name}.patient: is not whose the record, or another of its events, is; send each with its own."
            raise RecordError("two_patients", f"{name}.patient", said)
        code = event.get("code")
        if not isinstance(code, str):
            raise RecordError("malformed", f"{name}.code", f"{name}.code: a code is expected, not {_shown(code)}.")
        if code not in events:
            found.append((-1, MISSING, MISSING))
            continue
        time = check_time(event.get("time"), f"{name}.time")
        if time is None:
            raise RecordError("missing_field", f"{name}.time", f"{name}.time: is missing; every event has its own.")
        value = check_event(name, events[code], event.get("value", ABSENT), event.get("unit"))
        found.append((places[code], time.timestamp(), value))
    return settled(found, at)


def check_event(name: str, column: Column, value: Any, unit: Any) -> float:
    """The value of one event in its code's own unit, NaN where it has none; 1 where it is ABSENT and just happened.

    Raises RecordError, naming `NAME.value` or `NAME.unit`, as `check_value` does, and for a number without a unit.
    """
    if value is ABSENT:
        value = True if column.type == "boolean" else None
    try:
        found = check_value(f"{name}.value", column, {"value": value, "unit": unit})
    except RecordError as exc:
        if exc.code != "unit":
            raise
        raise RecordError("unit", f"{name}.unit", str(exc).replace(".value", ".unit", 1)) from exc
    if unit is None and column.unit not in (None, "1") and found == found:
        expected = ", ".join((column.unit or "", *column.accepts))
        raise RecordError("unit", f"{name}.unit", f"{name}.unit: a number needs its unit, one of: {expected}.")
    assert isinstance(found, float)  # the Spec lets no event be an array
    return found


def settled(found: Iterable[tuple[int, float, float]], at: float) -> Told:
    """What checked events (code, -1 if it is not read; time; value) tell as of `at`: each once, none later."""
    told = Told([], [], [], [], {})
    known: set[tuple[int, float, float]] = set()
    for place, event in enumerate(found):
        code, time, value = event
        if code < 0:
            why = UNREAD
        elif not time < at:
            why = LATER
        elif value != value:
            why = VALUELESS
        elif event in known:
            why = TWICE
        else:
            known.add(event)
            told.code.append(code)
            told.time.append(time)
            told.value.append(value)
            told.places.append(place)
            continue
        told.ignored[why] = told.ignored.get(why, 0) + 1
    return told


def reduce_told(reducer: Reducer, told: Sequence[Told | None], at: Array) -> dict[str, Array]:
    """The columns of events of n records, (n,), as of `at` (n,)."""
    some = [one or Told([], [], [], [], {}) for one in told]
    events = Events(
        np.repeat(np.arange(len(some)), [len(one.time) for one in some]),
        np.array([time for one in some for time in one.time], np.float64),
        np.array([code for one in some for code in one.code], np.int64),
        np.array([value for one in some for value in one.value], np.float64),
    )
    sent: NDArray[np.bool_] = np.array([one is not None for one in told], bool)
    return reducer.reduce(events, np.arange(len(some)), at, sent)


def _text(key: str, record: Mapping[str, Any], name: str = "") -> str | None:
    value = record.get(key)
    if value is not None and not (isinstance(value, str) and is_text(value)):
        name = name or key
        raise RecordError("malformed", name, f"{name}: 1 to {LONGEST_TEXT} printable characters are expected.")
    return value


def is_text(value: str) -> bool:
    """Whether a caller may send this as an identifier, a key or a tag of its own."""
    return 0 < len(value) <= LONGEST_TEXT and value.isprintable()


def check_time(value: Any, name: str = "at") -> datetime | None:
    """A time in UTC, None if there is none. Raises RecordError if it is no time with its offset."""
    if value is None:
        return None
    try:
        moment = datetime.fromisoformat(value)
        if moment.tzinfo is not None:
            return moment.astimezone(UTC)
    except (TypeError, ValueError, OverflowError):  # overflow: in UTC it is before year 1 or after year 9999
        pass
    said = f"{name}: an ISO 8601 time with its offset is expected, 2026-11-23T09:30:00Z."
    raise RecordError("malformed", name, said)


def translate(column: Column, raw: Any) -> Any:
    """A source's cell as the contract speaks: mapped to our category, numpy's scalar to Python's, NaN to None.

    A category that the map does not know stays as it is, for check_value to refuse. An array is a list, or a text with
    one in JSON, as a CSV's cell holds it. A signal may be a list of all its numbers, or lists in a list.
    """
    if column.type == "array":
        return _translated_array(raw)
    if isinstance(raw, np.ndarray) and column.signal:
        return _translated_signal(column, raw)
    if isinstance(raw, np.generic):
        raw = raw.item()
    if raw is None or raw != raw or (raw in column.missing_if and not isinstance(raw, bool)):
        return None
    if column.map is not None:
        return _by_text(column)(raw)
    if column.type == "category" and not isinstance(raw, str):
        return as_text(raw)
    if column.type == "boolean" and isinstance(raw, str):  # among numbers or words a CSV's true and false are texts
        return {"true": True, "false": False}.get(raw.strip().lower(), raw)
    return as_number(raw) if column.type == "number" else raw


def _translated_array(raw: Any) -> Any:
    if isinstance(raw, np.ndarray):
        raw = raw.tolist()
    if isinstance(raw, str):
        try:
            return json.loads(raw)
        except ValueError:
            return raw
    return None if raw is None or (isinstance(raw, float) and math.isnan(raw)) else raw


def _translated_signal(column: Column, raw: NDArray[Any]) -> NDArray[Any]:
    """An array as it is; of arrays, as a table holds lists in lists, one of all; what does not fit stays as it is."""
    try:
        while raw.dtype == object and raw.size and isinstance(raw.flat[0], np.ndarray):
            raw = np.stack([*raw.flat]).reshape(*raw.shape, *raw.flat[0].shape)
    except ValueError:  # of several lengths
        return raw
    return raw.reshape(column.shape) if raw.shape == (column.size,) else raw


def _by_text(column: Column) -> Callable[[Any], Any]:
    assert column.map is not None
    known = {as_key(key): value for key, value in column.map.items()}
    return lambda raw: known.get(as_key(raw), raw)


def translate_table(spec: Spec, table: Mapping[str, Sequence[Any]]) -> dict[str, list[Any]]:
    """The contract's columns of a source's table, translated cell by cell and not yet checked.

    Raises ContractError if the table lacks a column that the contract names.
    """
    outcome = spec.outcome
    wanted = {column.from_ or name for name, column in spec.fields.items()}
    wanted |= {key for key in (spec.patient_id, spec.at, outcome.column, outcome.time, outcome.stage) if key}
    wanted |= {column.measured_at for column in spec.columns.values() if column.measured_at}
    if lacking := sorted(wanted - set(table)):
        has = ", ".join(map(str, table))
        raise ContractError(f"{spec.name}: the source has no column {', '.join(map(repr, lacking))}. It has: {has}.")
    return {
        name: [translate(column, cell) for cell in table[column.from_ or name]]
        if column.size is not None
        else _each(name, table[column.from_ or name], partial(translate, column))
        for name, column in spec.fields.items()
    }


def check_table(
    spec: Spec,
    table: Mapping[str, Sequence[Any]],
    cells: Mapping[str, list[Any]],
    history: History | None = None,
) -> tuple[Records, list[Refusal]]:
    """The rows of a source's table that keep the contract, and every value that does not.

    `table` is the source's own, `cells` its translated columns, `history` what the long tables tell of its rows. A row
    with a refused value is left out of the Records.
    Raises ContractError for an empty table, a column that is missing everywhere, or, where the Spec has neither `at`
    nor `landmark_day`, a patient on two rows.
    """
    n = rows_in(table)
    if n == 0:
        raise ContractError(f"{spec.name}: the source's table is empty.")
    if history is None and spec.events:
        raise ContractError(
            f"{spec.name}: the patients' events are read too ({', '.join(spec.events)}), and these patients come "
            "without any. A source with `events` is expected."
        )
    refusals: list[Refusal] = []
    values: dict[str, Array] = {}
    for name, column in spec.columns.items():
        if column.event is not None:
            assert history is not None
            values[name] = history.columns[name]
            if np.isnan(values[name]).all():
                raise ContractError(
                    f"{spec.name}: column {name!r} is missing in all {n} rows: no event {column.event!r} lies in its "
                    f"window. Is `events.{column.event}.from` the source's code?"
                )
            continue
        found = np.full(n if column.size is None else (n, column.size), MISSING)
        memory: dict[Any, Value | RecordError] = {}
        for row, cell in enumerate(cells[name]):
            if column.size is not None:  # two samples never agree, nor can be hashed
                checked = _checked(name, column, cell)
            else:
                key = type(cell), cell
                if key not in memory:
                    memory[key] = _checked(name, column, cell)
                checked = memory[key]
            if isinstance(checked, RecordError):
                refusals.append(Refusal(row + 1, name, checked.code, str(checked)))
            else:
                found[row] = checked
        if is_missing(found).all() and not any(refusal.column == name for refusal in refusals):
            raise ContractError(f"{spec.name}: column {name!r} is missing in all {n} rows; is its source column right?")
        values[name] = found
    patient, at = whose_and_when(spec, table)
    measured = {
        name: _measured(name, table[column.measured_at], values[name], refusals)
        for name, column in spec.columns.items()
        if column.measured_at
    }
    kept = np.ones(n, bool)
    kept[[refusal.row - 1 for refusal in refusals]] = False
    beyond = {
        name: count_beyond(column, [cells[name][row] for row in np.flatnonzero(kept & ~np.isnan(values[name]))])
        for name, column in spec.fields.items()
        if column.below_detection or column.above_detection
    }
    future = {name: int((times > at)[kept].sum()) for name, times in measured.items()}
    outcome, why, label = _outcome(spec, table, at, history)
    stage = None if spec.outcome.stage is None else _stages(table[spec.outcome.stage])
    records = Records(values, outcome, patient, at, future, label, stage, beyond, why)
    return records.take(kept), refusals


def whose_and_when(spec: Spec, table: Mapping[str, Sequence[Any]]) -> tuple[NDArray[np.str_], Array]:
    """Each row's patient, (n,), and time of prediction in seconds since 1970, (n,), NaN where the Spec names none.

    Raises ContractError for a patient who is missing, or stands on two rows that no time tells apart.
    """
    n = rows_in(table)
    return _patients(spec, table, n), _times(spec, table, n)


def _outcome(
    spec: Spec, table: Mapping[str, Sequence[Any]], at: Array, history: History | None
) -> tuple[Array, NDArray[np.str_] | None, Array | None]:
    """Each row's outcome, (n,), NaN if unknown; why it is unknown, where the Spec has a horizon; and the number of its
    class, where the Spec has classes. Of an event that is the outcome the `history` tells when it came first."""
    outcome = spec.outcome
    if outcome.classes is not None:
        label = classified(outcome, table[outcome.column or ""])
        return happened(outcome, label), None, label
    status = None if outcome.column is None else observed(outcome, table[outcome.column])
    if outcome.time is None:
        assert status is not None  # the Spec demands a horizon of an event
        return status, None, None
    ended = np.full(len(at), MISSING)
    for row, cell in enumerate(table[outcome.time]):
        if cell is not None and cell == cell:
            ended[row] = _moment_of_row(spec, f"{outcome.time!r}, where the record ends,", row, cell)
    if status is not None:
        first = np.where(status == 1, ended, MISSING)
        ended = np.where(np.isnan(status), MISSING, ended)
        return *within_horizon(outcome, first, ended, at), None
    assert history is not None and history.happened is not None  # of an event as the outcome the History tells it
    return *within_horizon(outcome, history.happened, ended, at, history.doubtful), None


def _checked(name: str, column: Column, cell: Any) -> Value | RecordError:
    try:
        return check_value(name, column, cell)
    except RecordError as exc:
        return exc


def count_beyond(column: Column, cells: Iterable[Any]) -> dict[str, int]:
    """How many present cells lie `below` and `above` detection, of the sides that the contract has rules for."""
    rules = {"below": column.below_detection, "above": column.above_detection}
    found = Counter(side(column, cell) for cell in cells)
    return {name: found[name] for name, rule in rules.items() if rule is not None}


def rows_in(table: Mapping[str, Sequence[Any]]) -> int:
    """How many rows a source's table has."""
    return len(next(iter(table.values()), ()))


def _stages(cells: Sequence[Any]) -> NDArray[np.str_]:
    """Each patient's stage as the source writes it, (n,); empty where it is unknown."""
    return np.array(["" if cell is None or cell != cell else as_text(cell).strip() for cell in cells], np.str_)


def _each(name: str, cells: Sequence[Any], function: Callable[[Any], Any]) -> list[Any]:
    """`function` of each cell, computed once for each distinct one."""
    memory: dict[Any, Any] = {}
    out = []
    for row, cell in enumerate(cells):
        if isinstance(cell, list | dict | np.ndarray):
            raise ContractError(
                f"column {name!r}, row {row + 1}: holds a {type(cell).__name__}; one plain value is expected."
            )
        key = (type(cell), cell)
        if key not in memory:
            memory[key] = function(cell)
        out.append(memory[key])
    return out


def _patients(spec: Spec, table: Mapping[str, Sequence[Any]], n: int) -> NDArray[np.str_]:
    if spec.patient_id is None:
        return np.array([f"row {row + 1}" for row in range(n)])
    first: dict[str, int] = {}
    found = []
    for row, cell in enumerate(table[spec.patient_id]):
        if cell is None or cell != cell or str(cell).strip() == "":
            raise ContractError(
                f"{spec.name}: {spec.patient_id!r}, the patient's identifier, is missing in row {row + 1}."
            )
        key = as_text(cell.item() if isinstance(cell, np.generic) else cell)
        if key in first and spec.at is None:
            raise ContractError(
                f"{spec.name}: {spec.patient_id!r} has the same patient in rows {first[key] + 1} and {row + 1}; "
                "one row a patient is expected. Remove the older row, or name the time that tells them apart (`at`)."
            )
        first.setdefault(key, row)
        found.append(key)
    return np.array(found)


def _times(spec: Spec, table: Mapping[str, Sequence[Any]], n: int) -> Array:
    if spec.at is None:
        if spec.day_zero is None or spec.landmark_day is None:
            return np.full(n, MISSING)
        return np.full(n, day_begins(spec.day_zero, spec.landmark_day))
    said = f"{spec.at!r}, the time of prediction,"
    return np.array([_moment_of_row(spec, said, row, cell) for row, cell in enumerate(table[spec.at])])


def _moment_of_row(spec: Spec, what: str, row: int, cell: Any) -> float:
    try:
        return moment(spec, cell)
    except (ValueError, TypeError, OverflowError):
        expected = "ISO 8601 time" if spec.day_zero is None else f"count of days since {spec.day_zero}"
        raise ContractError(f"{spec.name}: {what} is no {expected} in row {row + 1}.") from None


def moment(spec: Spec, cell: Any) -> float:
    """Seconds since 1970 of a source's time: an ISO 8601 time, or whole days since `day_zero` where the Spec has one.

    Raises ValueError, TypeError or OverflowError if the cell is no such time.
    """
    return _seconds(cell) if spec.day_zero is None else day_begins(spec.day_zero, cell)


def day_begins(day: date, days: Any = 0) -> float:
    """Seconds since 1970 at which the day begins, in UTC, that comes so many whole days after `day`.

    Raises ValueError, TypeError or OverflowError if `days` is no count of days.
    """
    if isinstance(days, bool) or days != int(days):
        raise ValueError
    return datetime.combine(day + timedelta(days=int(days)), time(), UTC).timestamp()


def _measured(name: str, cells: Sequence[Any], values: Array, refusals: list[Refusal]) -> Array:
    """When each present value was measured, (n,) seconds, NaN where no value is; a cell that is no time is refused."""
    times = np.full(len(values), MISSING)
    for row in np.flatnonzero(~is_missing(values)).tolist():
        try:
            times[row] = _seconds(cells[row])
        except ValueError:
            said = f"{name}: its time of measurement is no ISO 8601 time, such as 2026-11-23T09:30:00Z."
            refusals.append(Refusal(row + 1, name, "not_a_time", said))
    return times


def _seconds(cell: Any) -> float:
    """Seconds since 1970 of an ISO 8601 time, in UTC unless it says otherwise. Raises ValueError if it is none."""
    moment = datetime.fromisoformat(str(cell))
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
