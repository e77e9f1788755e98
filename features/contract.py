"""A contract, compiled once: what a request's bytes are decoded and checked with.

The judge of a value is features/columns.py. Here msgspec decides the same question in C for the common case, a value
of the right type, in range and without a unit; whatever it does not take as it stands goes to that judge, so that the
floats and the errors are the judge's own. A property test holds the two ways equal, to the bit.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any, Literal

import msgspec
import numpy as np
from msgspec import UNSET, Meta, UnsetType
from msgspec.structs import astuple, replace
from numpy.typing import NDArray

from configs.errors import RecordError
from configs.spec import Column
from features import units
from features.columns import (
    ABSENT,
    MISSING,
    MOST_EVENTS,
    Told,
    check_event,
    check_record,
    check_time,
    check_value,
    detected,
    is_text,
    kept_signal,
    reduce_told,
    settled,
)
from features.events import Reducer

Matrix = NDArray[np.float64]

TOLD = ("at", "patient", "reference")
"""What a caller may say about a record, beside its columns."""
UNTOLD = (None, None, None)
UNREAD_CODE = (-1, MISSING, MISSING)


class Quantity(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A number in a unit of its own."""

    value: float
    unit: str


class Event(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Something that happened to a patient, or was measured; without a `value` it just happened."""

    time: str
    code: str
    value: float | bool | str | UnsetType | None = UNSET
    unit: str | None = None
    patient: str | None = None


@dataclass(frozen=True)
class Checked:
    """Records that keep the contract, and why the others do not.

    `values` (n, w) are checked values in the contract's order of columns, an array's numbers and a signal's side by
    side; `at` (n,) the times of prediction in seconds since 1970. `cells` are the n records as they came, in that order
    but for what is computed, a signal as its float32; behind them the events that count, where the contract has events,
    and the time of prediction where one was told; no identifier. `ignored` says of each record how many events did not
    count, by reason. `errors` maps a
    position among all that were sent to its error.
    """

    values: Matrix
    at: NDArray[np.float64]
    patients: list[str | None]
    references: list[str | None]
    cells: list[tuple[Any, ...]]
    ignored: list[dict[str, int]]
    errors: dict[int, RecordError]


class _Numbers(dict[Any, Any]):
    """A number with missing codes, each of them missing or refused where the column is required, or with limits of
    detection."""

    def __init__(self, codes: Sequence[float], column: Column) -> None:
        super().__init__({None: MISSING} if column.required else dict.fromkeys([None, *codes], MISSING))
        assert column.range is not None  # the Spec demands it of a number
        self.column = column
        self.low, self.high = column.range
        self.refused = set(codes) if column.required else set()

    def __missing__(self, cell: float | Quantity) -> Any:
        if not isinstance(cell, float):
            return cell
        if cell in self.refused or not self.low <= cell <= self.high:
            raise TypeError
        return detected(self.column, cell)


class Contract:
    """A disease's contract, ready to check. `record` is the type of a record that msgspec takes as it stands, `fields`
    are what it holds of a patient."""

    def __init__(self, columns: Mapping[str, Column], events: Mapping[str, Column] | None = None) -> None:
        """`events`: the codes' contracts, where some of the `columns` are computed from events."""
        self.columns = columns
        self.reducer = Reducer(columns, events or {})
        self.sent = {name: column for name, column in columns.items() if column.event is None}
        """The columns that a caller sends."""
        for column in (*self.sent.values(), *(events or {}).values()):
            for unit in column.accepts:  # worked out here, so that no request waits for it
                units.conversion(unit, column.unit or unit, column.loinc)
        lengths = [column.size or 1 for column in columns.values()]
        ends = np.cumsum(lengths).tolist()
        self.starts = dict(zip(columns, (end - length for end, length in zip(ends, lengths, strict=True)), strict=True))
        """Where in a row of checked values each column's begin."""
        self._width = sum(lengths)
        self._signals = [
            (place, name, column, slice(self.starts[name], self.starts[name] + (column.size or 0)))
            for place, (name, column) in enumerate(self.sent.items())
            if column.signal
        ]
        rest = [column for column in columns.values() if not column.signal]
        self._arrays = [(place, column.size) for place, column in enumerate(rest) if column.size is not None]
        self._computed = [place for place, column in enumerate(rest) if column.event is not None]
        signal = [np.full(column.size or 1, column.signal) for column in columns.values()]
        self._rest = np.flatnonzero(~np.concatenate(signal))
        """Where in a row of checked values those of the columns lie that are no signals."""
        self._events = {
            code: (place, column, *_plain(column)) for place, (code, column) in enumerate((events or {}).items())
        }
        self._single = {name: column for name, column in self.sent.items() if not column.signal}
        self._tables: list[tuple[int, Callable[[Any], Any]]] = []
        fields: list[Any] = []
        names = {}
        for place, (name, column) in enumerate(self.sent.items()):
            field = f"column_{place}"  # a column may be named `class`, and its neighbour `class_`
            names[field] = name
            kind, table = _typed(column)
            if table is not None:
                self._tables.append((place, table.__getitem__))
            fields.append((field, kind) if column.required else (field, kind | None, None))
        if events:
            fields.append(("events", list[Event] | None, None))
        fields += [(name, str | None, None) for name in TOLD]
        self.fields = (*self.sent, "events") if events else tuple(self.sent)
        self._head = msgspec.json.encode([*self.fields, "at"])
        self.record: Any = msgspec.defstruct(
            "Record", fields, rename=names, kw_only=True, forbid_unknown_fields=True, omit_defaults=True
        )

    def check(self, sent: Sequence[Any], received: datetime) -> Checked:
        """The records, as `record` or as plain JSON values, checked; a record without a time of its own is of now."""
        records = self.typed(sent)
        checked = self.quick(records, received)
        return self._one_by_one(records, received) if checked is None else checked

    def typed(self, sent: Sequence[Any]) -> Sequence[Any]:
        """The records as `record`; one that msgspec does not take stays what it is, for the judge."""
        return sent if set(map(type, sent)) == {self.record} else [_converted(item, self.record) for item in sent]

    def quick(self, sent: Sequence[Any], received: datetime) -> Checked | None:
        """The same in one go, if all are of the type `record` and nothing is odd about any of them; else None."""
        if set(map(type, sent)) != {self.record}:
            return None
        try:
            return self._all(sent, received)
        except (TypeError, RecordError):
            return None

    def _all(self, records: Sequence[Any], received: datetime) -> Checked:
        """All records, each of which msgspec took. Raises TypeError or RecordError if one is odd."""
        width, tables = len(self.sent), self._tables
        signals = [place for place, *_ in reversed(self._signals)]
        cells = [astuple(record) for record in records]
        rows = []
        for cells_of_one in cells:
            row = list(cells_of_one[:width])
            for place, number_of in tables:
                row[place] = number_of(row[place])
            for place in signals:
                del row[place]
            rows.append(row)
        try:
            values = np.array(self._whole(rows), np.float64)
        except TypeError:
            values = np.array(self._whole([self._scaled(row) for row in rows]), np.float64)
        values = values.reshape(len(rows), len(self._rest))
        values += 0.0  # minus zero becomes zero: equal values have equal bits
        if signals:
            whole = np.empty((len(rows), self._width))
            whole[:, self._rest] = values
            values, cells = whole, self._judged(cells, whole)
        patients: list[str | None] = [None] * len(cells)
        references: list[str | None] = [None] * len(cells)
        at = np.full(len(cells), received.timestamp())
        kept = [cells_of_one[:-2] for cells_of_one in cells]
        for place in [place for place, cells_of_one in enumerate(cells) if cells_of_one[-3:] != UNTOLD]:
            told, patient, reference = cells[place][-3:]
            time = check_time(told)
            for text in (patient, reference):
                if text is not None and not is_text(text):
                    raise TypeError
            patients[place], references[place] = patient, reference
            if time is not None:
                at[place] = time.timestamp()
                kept[place] = (*kept[place][:-1], time.isoformat())
        if not self._events:
            return Checked(values, at, patients, references, kept, [{}] * len(cells), {})
        each: list[Told | None] = []
        for place, (cells_of_one, moment) in enumerate(zip(cells, at.tolist(), strict=True)):
            of_one = self._told(cells_of_one[width], patients[place], moment)
            if of_one is not None:
                kept[place] = (*kept[place][:width], _kept(cells_of_one[width], of_one), kept[place][-1])
            each.append(of_one)
        for name, computed in reduce_told(self.reducer, each, at).items():
            values[:, self.starts[name]] = computed
        ignored = [of_one.ignored if of_one else {} for of_one in each]
        return Checked(values, at, patients, references, kept, ignored, {})

    def _judged(self, cells: list[tuple[Any, ...]], values: Matrix) -> list[tuple[Any, ...]]:
        """The records' cells, with their signals as they go on record; what the judge makes of these is in `values`.

        Raises RecordError for the first that breaks its contract.
        """
        found = []
        for cells_of_one, row in zip(cells, values, strict=True):
            kept = list(cells_of_one)
            for place, name, column, where in self._signals:
                row[where] = check_value(name, column, cells_of_one[place])
                kept[place] = kept_signal(column, cells_of_one[place], row[where])
            found.append(tuple(kept))
        return found

    def _told(self, sent: list[Event] | None, patient: str | None, at: float) -> Told | None:
        """The events of one record, checked. Raises TypeError or RecordError if one is odd."""
        if sent is None:
            return None
        if len(sent) > MOST_EVENTS:
            raise TypeError
        found = []
        for event in sent:
            if event.patient is not None and event.patient != patient:
                raise TypeError
            if event.code not in self._events:
                found.append(UNREAD_CODE)
                continue
            place, column, unit, low, high = self._events[event.code]
            value: Any = event.value
            if value.__class__ is not float or event.unit != unit or not low <= value <= high:
                value = check_event("", column, ABSENT if value is UNSET else value, event.unit)
            time = check_time(event.time)
            assert time is not None  # msgspec demands one
            found.append((place, time.timestamp(), value + 0.0))
        return settled(found, at)

    def _scaled(self, row: Sequence[Any]) -> list[Any]:
        """A row whose quantities are numbers of the canonical unit. Raises RecordError."""
        return [
            check_value(name, column, {"value": cell.value, "unit": cell.unit}) if isinstance(cell, Quantity) else cell
            for cell, (name, column) in zip(row, self._single.items(), strict=True)
        ]

    def _whole(self, rows: list[list[Any]]) -> list[list[Any]]:
        """Rows of what was sent, with room in their places for what is computed, and arrays' numbers in the row."""
        if not self._computed and not self._arrays:
            return rows
        whole = [row.copy() for row in rows]  # they are asked for once more if one holds a quantity
        for place in self._computed:
            for row in whole:
                row.insert(place, MISSING)
        return self._flat(whole)

    def _flat(self, rows: list[list[Any]]) -> list[list[Any]]:
        """Rows whose arrays' numbers stand in the row itself."""
        for place, length in reversed(self._arrays):
            for row in rows:
                row[place : place + 1] = [MISSING] * length if row[place] is None else row[place]
        return rows

    def by_column(self, values: Matrix) -> dict[str, Matrix]:
        """Checked values (n, w) as `build` takes them: for each column (n,), of an array (n, length)."""
        if len(self.columns) == self._width:
            return dict(zip(self.columns, values.T, strict=True))
        return {
            name: values[:, start] if column.size is None else values[:, start : start + column.size]
            for (name, column), start in zip(self.columns.items(), self.starts.values(), strict=True)
        }

    def _one_by_one(self, records: Sequence[Any], received: datetime) -> Checked:
        """The same by the judge of values, record by record, where it is needed."""
        rows: list[Matrix] = []
        at: list[float] = []
        patients: list[str | None] = []
        references: list[str | None] = []
        kept: list[tuple[Any, ...]] = []
        ignored: list[dict[str, int]] = []
        errors: dict[int, RecordError] = {}
        for position, item in enumerate(records):
            raw = self._plain_of(item) if isinstance(item, self.record) else item
            try:
                record = check_record(self.columns, raw, self.reducer, received)
            except RecordError as exc:
                errors[position] = exc
                continue
            rows.append(np.hstack(list(record.values.values())))
            at.append((record.at or received).timestamp())
            patients.append(record.patient)
            references.append(record.reference)
            told = record.told
            events = [] if not self._events else [_kept(raw["events"], told) if told else None]
            cells = [
                kept_signal(column, raw.get(name), record.values[name]) if column.signal else raw.get(name)
                for name, column in self.sent.items()
            ]
            kept.append((*cells, *events, record.at.isoformat() if record.at else None))
            ignored.append(told.ignored if told else {})
        values = np.array(rows, np.float64).reshape(len(rows), self._width)
        return Checked(values, np.array(at), patients, references, kept, ignored, errors)

    def _plain_of(self, record: Any) -> dict[str, Any]:
        """A `record` as JSON would hold it, but for its signals, which may be arrays: they stay what they are."""
        told = zip((*self.fields, *TOLD), astuple(record), strict=True)
        signals = {name for _, name, *_ in self._signals}
        return {name: cell if name in signals else msgspec.to_builtins(cell) for name, cell in told if cell is not None}

    def table(self, cells: Sequence[tuple[Any, ...]]) -> bytes:
        """Checked records as the ledger keeps them: JSON of the fields' names, once, and of the records' cells."""
        if self._signals:  # one by one: Python's lock is held for one recording, and not for half a second
            rows = b",".join(map(msgspec.json.encode, cells))
            return b'{"fields":%s,"rows":[%s]}' % (self._head, rows)
        return b'{"fields":%s,"rows":%s}' % (self._head, msgspec.json.encode(cells))


def _kept(sent: Sequence[Any], told: Told) -> list[Event]:
    """The events that count, as they came, of nobody by name."""
    chosen = (msgspec.convert(sent[place], Event) for place in told.places)
    return [event if event.patient is None else replace(event, patient=None) for event in chosen]


def _plain(column: Column) -> tuple[str | None, float, float]:
    """The unit and the range of an event's number that is taken as it stands; an empty range where none is."""
    plain = column.type == "number" and not (column.missing_if or column.below_detection or column.above_detection)
    if not plain or column.range is None:
        return None, np.inf, -np.inf
    return column.unit, *column.range


def _converted(item: Any, kind: Any) -> Any:
    """The item as msgspec's type, or as it is, for the judge."""
    if item.__class__ is kind:
        return item
    try:
        return msgspec.convert(item, kind)
    except (msgspec.ValidationError, RecursionError):
        return item


def _typed(column: Column) -> tuple[Any, Mapping[Any, Any] | None]:
    """A column's type as msgspec checks it, and the table that makes floats of its values (None: they are floats)."""
    if column.signal:
        return Any, None
    if column.type == "boolean":
        return bool, {False: 0.0, True: 1.0, None: MISSING}
    if column.type == "category":
        codes = [code for code in column.missing_if if isinstance(code, str)]
        table: dict[Any, float] = {value: float(column.categories.index(value)) for value in column.categories}
        table |= dict.fromkeys([None, *codes], MISSING)
        taken = [value for value in table if value is not None and not (column.required and value in codes)]
        return Literal[tuple(taken)] if taken else None, table
    if column.type == "array":
        assert column.range is not None  # the Spec demands it of an array
        entry = Annotated[float, Meta(ge=column.range[0], le=column.range[1])]
        return Annotated[list[entry], Meta(min_length=column.size, max_length=column.size)], None
    numbers = [float(code) for code in column.missing_if if isinstance(code, int | float)]
    if numbers or column.below_detection or column.above_detection:
        return float | Quantity, _Numbers(numbers, column)
    assert column.range is not None  # the Spec demands it of a number
    low, high = column.range
    return Annotated[float, Meta(ge=low, le=high)] | Quantity, None
