"""The long tables of a source, checked: which events keep the contract, and what they tell of each patient.

An event that cannot be used is named by its code and counted by its reason; the rest goes on. A value is judged by the
judge of columns.py, once for each distinct value of a code, so that half a million events take about a second.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from configs.errors import ContractError, RecordError
from configs.spec import Column, EventTable, Spec, as_text
from features import events, outcomes
from features.columns import ABSENT, LATER, TWICE, VALUELESS, History, check_event, moment, side, translate
from features.definitions import Array
from features.events import Events

Table = Mapping[str, Sequence[Any]]
Whole = NDArray[np.int64]
Rows = dict[str, NDArray[np.bool_]]
"""By reason, which rows (m,) of a long table."""

NO_PATIENT = "of no patient in the table"
NO_TIME = "no time"
NO_UNIT = "no unit"
BEYOND = {"below": "below detection", "above": "above detection"}
HARMLESS = (TWICE, LATER, VALUELESS, *BEYOND.values())
"""Reasons that break no contract: said once is enough, what comes later is the outcome's, a blank says nothing, and
what is beyond detection counts as the contract says."""
SENT = ("time", "code", "value")


@dataclass(frozen=True)
class Histories:
    """Checked events of the patients `names` (p,), which `events.patient` numbers.

    `read` counts the events of a code that the Spec names, `not_read` those of any other, `reasons[code][reason]` what
    was left out, or told for information: the HARMLESS ones break nothing.
    `first[code, reason]` is where the first such event stands: the long table and its row, both from 1.
    `doubtful` (p,) is when each patient's first event of the outcome's code came that could not be read, in seconds
    since 1970: -inf where its time could not, inf where there is none.
    """

    names: NDArray[np.str_]
    events: Events
    read: int
    not_read: int
    reasons: dict[str, dict[str, int]]
    first: dict[tuple[str, str], tuple[int, int]]
    doubtful: Array

    @property
    def broken(self) -> dict[tuple[str, str], int]:
        """By code and reason, the most frequent first: how many events break the contract."""
        counts = {
            (code, reason): count
            for code, reasons in self.reasons.items()
            for reason, count in reasons.items()
            if reason not in HARMLESS
        }
        return dict(sorted(counts.items(), key=lambda item: -item[1]))


@dataclass(frozen=True)
class _Cells:
    """A column of a long table: `number` (m,) of each cell among the `distinct` ones."""

    number: Whole
    distinct: list[Any]


def check(spec: Spec, patient: NDArray[np.str_], at: Array, tables: Sequence[Table]) -> Histories:
    """The events of the source's long `tables` that keep the contract, for the rows of the patients' table.

    `patient` (n,) and `at` (n,) are those of the patients' table. What is wrong with an event is told in this order:
    its patient, its time, its unit, its value.

    Raises ContractError if a table lacks one of its columns.
    """
    names = np.unique(patient)
    until = np.full(len(names), -np.inf)  # after a patient's last prediction nothing can be a feature
    np.maximum.at(until, np.searchsorted(names, patient), at)
    codes = list(spec.events)
    reasons: dict[str, dict[str, int]] = {code: {} for code in codes}
    first: dict[tuple[str, str], tuple[int, int]] = {}
    found: list[Events] = []
    doubtful = np.full(len(names), np.inf)
    read = not_read = 0
    for place, (table, cells) in enumerate(zip(spec.source.events, tables, strict=True), start=1):
        kept, unfit, code, patient_of, time = _check_table(spec, table, cells, names)
        read, not_read = read + int((code >= 0).sum()), not_read + int((code < 0).sum())
        for reason, rows in unfit.items():
            for number, at_first, count in zip(
                *np.unique(code[rows], return_index=True, return_counts=True), strict=True
            ):
                of = codes[number]
                reasons[of][reason] = reasons[of].get(reason, 0) + int(count)
                first.setdefault((of, reason), (place, int(rows[at_first]) + 1))
            if spec.outcome.event is not None and reason not in (NO_PATIENT, *HARMLESS):
                lost = rows[code[rows] == codes.index(spec.outcome.event)]
                np.minimum.at(doubtful, patient_of[lost], np.where(np.isnan(time[lost]), -np.inf, time[lost]))
        found.append(kept)
    merged = Events(
        *(np.concatenate([getattr(kept, name) for kept in found]) for name in ("patient", "time", "code", "value"))
    )
    again = _again(merged)
    distinct = Events(merged.patient[~again], merged.time[~again], merged.code[~again], merged.value[~again])
    for reason, of in ((TWICE, merged.code[again]), (LATER, distinct.code[distinct.time >= until[distinct.patient]])):
        for number, count in zip(*np.unique(of, return_counts=True), strict=True):
            reasons[codes[number]][reason] = int(count)
    return Histories(
        names, distinct, read, not_read, {code: why for code, why in reasons.items() if why}, first, doubtful
    )


def history(spec: Spec, held: Histories, patient: NDArray[np.str_], at: Array) -> History:
    """What the events tell of each row of the patients' table: its columns of events, and when the outcome happened.

    A source with long tables tells of each of its patients: who has no event of a code has none, and the count is 0.
    """
    row = np.searchsorted(held.names, patient).astype(np.int64)
    columns = events.reduce(spec, held.events, row, at, np.ones(len(row), bool))
    happened = None
    if spec.outcome.event is not None:
        of_outcome = held.events.code == list(spec.events).index(spec.outcome.event)
        of_outcome &= outcomes.holds(spec.outcome, held.events.value)
        earliest = np.full(len(held.names), np.inf)
        np.minimum.at(earliest, held.events.patient[of_outcome], held.events.time[of_outcome])
        happened = np.where(np.isinf(earliest), np.nan, earliest)[row]
    return History(columns, happened, held.doubtful[row])


def sent(spec: Spec, held: Histories, patient: str) -> list[dict[str, Any]]:
    """One patient's events as an app sends them with a record, oldest first; none of one who is not among `names`."""
    rows = np.flatnonzero(held.names[held.events.patient] == patient)
    rows = rows[np.argsort(held.events.time[rows], kind="stable")]
    told = []
    for time, place, value in zip(*(getattr(held.events, name)[rows].tolist() for name in SENT), strict=True):
        code = list(spec.events)[place]
        column = spec.events[code]
        event = {"time": datetime.fromtimestamp(time, UTC).isoformat(), "code": code}
        event |= {"value": bool(value)} if column.type == "boolean" else {"value": value, "unit": column.unit}
        told.append(event)
    return told


def _check_table(
    spec: Spec, table: EventTable, cells: Table, names: NDArray[np.str_]
) -> tuple[Events, dict[str, Whole], Whole, Whole, Array]:
    """The events of one table that keep the contract; by reason the rows that do not, and those that keep it and are
    beyond detection; each row's code and patient (m,), or -1, and time (m,), NaN if it is none."""
    wanted = [key for key in (table.patient, table.time, table.code, table.value, table.unit) if key is not None]
    if lacking := sorted(set(wanted) - set(cells)):
        raise ContractError(
            f"{spec.name}: a long table has no column {', '.join(map(repr, lacking))}. It has: {', '.join(cells)}."
        )
    by_source = {as_text(column.from_ or code): place for place, (code, column) in enumerate(spec.events.items())}
    code = _looked_up(_numbered(table.code, cells), lambda cell: by_source.get(as_text(cell), -1)).astype(np.int64)
    position = {name: place for place, name in enumerate(names.tolist())}
    patient = _looked_up(_numbered(table.patient, cells), lambda cell: position.get(as_text(cell), -1)).astype(np.int64)
    time = _looked_up(_numbered(table.time, cells), lambda cell: _moment(spec, cell))
    value, unfit, beyond = _values(spec, table, cells, code)
    left = code >= 0
    rows: dict[str, Whole] = {}
    for reason, wrong in ((NO_PATIENT, patient < 0), (NO_TIME, np.isnan(time)), *unfit.items()):
        if (left & wrong).any():
            rows[reason] = np.flatnonzero(left & wrong)
            left &= ~wrong
    rows |= {reason: np.flatnonzero(left & told) for reason, told in beyond.items() if (left & told).any()}
    return Events(patient[left], time[left], code[left], value[left]), rows, code, patient, time


def _values(spec: Spec, table: EventTable, cells: Table, code: Whole) -> tuple[Array, Rows, Rows]:
    """Each event's value (m,) in its code's unit; by reason which have none, and which are beyond detection. Judged
    once for each distinct one."""
    once = _Cells(np.zeros(len(code), np.int64), [None])
    value = _numbered(table.value, cells) if table.value is not None else once
    unit = _numbered(table.unit, cells) if table.unit is not None else once
    key = ((code + 1) * len(value.distinct) + value.number) * len(unit.distinct) + unit.number
    kinds, kind = np.unique(key, return_inverse=True)
    columns = list(spec.events.values())
    found = np.full(len(kinds), np.nan)
    why: dict[str, list[int]] = {}
    beyond: dict[str, list[int]] = {}
    for place, known in enumerate(kinds.tolist()):
        rest, of_unit = divmod(known, len(unit.distinct))
        of_code, of_value = divmod(rest, len(value.distinct))
        if of_code == 0:
            continue  # no code that the Spec names
        column = columns[of_code - 1]
        cell = ABSENT if table.value is None else _cell(column, value.distinct[of_value])
        written = unit.distinct[of_unit] if table.unit is not None else column.unit
        found[place], reason = _judged(column, cell, written)
        if reason:
            why.setdefault(reason, []).append(place)
        elif (known_side := side(column, cell, None if _blank(written) else written)) is not None:
            beyond.setdefault(BEYOND[known_side], []).append(place)
    of_reason, of_side = ({told: np.isin(kind, at) for told, at in places.items()} for places in (why, beyond))
    return found[kind], of_reason, of_side


def _cell(column: Column, raw: Any) -> Any:
    """A cell as the contract speaks. Diagnoses often stand in one table with measurements: there their value is blank,
    and they happened."""
    return ABSENT if column.type == "boolean" and _blank(raw) else translate(column, raw)


def _blank(cell: Any) -> bool:
    return cell is None or (isinstance(cell, str) and not cell.strip())


def _judged(column: Column, cell: Any, unit: Any) -> tuple[float, str]:
    """A cell's value in its code's unit, or NaN and what is wrong with it."""
    if cell is None:
        return np.nan, VALUELESS
    written = None if _blank(unit) else unit
    if written is None and column.unit not in (None, "1"):
        return np.nan, NO_UNIT
    try:
        found = check_event("event", column, cell, written)
    except RecordError as exc:
        return np.nan, exc.code.replace("_", " ")
    return found, "" if found == found else VALUELESS


def _numbered(name: str, cells: Table) -> _Cells:
    """A column's cells by number; 1, 1.0 and True are three, as their types tell."""
    numbers: dict[Any, int] = {}
    try:
        number = [numbers.setdefault((type(cell), cell), len(numbers)) for cell in cells[name]]
    except TypeError:
        raise ContractError(f"column {name!r} of a long table: one plain value a cell is expected.") from None
    return _Cells(np.array(number, np.int64), [cell for _, cell in numbers])


def _looked_up(cells: _Cells, function: Any) -> Array:
    """`function` of each cell, computed once for each distinct one. (m,)"""
    return np.array([function(cell) for cell in cells.distinct], np.float64)[cells.number]


def _moment(spec: Spec, cell: Any) -> float:
    try:
        return moment(spec, cell)
    except (ValueError, TypeError, OverflowError):
        return np.nan


def _again(found: Events) -> NDArray[np.bool_]:
    """Events that are alike in everything to an earlier one of the same table or of another. (m,)"""
    order = np.lexsort((found.value, found.time, found.code, found.patient))
    same = np.ones(max(len(order) - 1, 0), bool)
    for array in (found.value, found.time, found.code, found.patient):
        same &= array[order][1:] == array[order][:-1]
    again = np.zeros(len(order), bool)
    again[order[1:][same]] = True
    return again


def save(held: Histories, spec: Spec, path: Path) -> None:
    """Write the events as one Parquet file: whose, when in seconds since 1970, which code of ours, and its value."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    codes = pa.array(list(spec.events))
    table = pa.table(
        {
            "patient": pa.DictionaryArray.from_arrays(pa.array(held.events.patient), pa.array(held.names)),
            "time": pa.array(held.events.time),
            "code": pa.DictionaryArray.from_arrays(pa.array(held.events.code), codes),
            "value": pa.array(held.events.value),
        }
    )
    pq.write_table(table, path)
