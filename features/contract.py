"""A contract, compiled once: what a request's bytes are decoded and checked with.

The judge of a value is features/columns.py. Here msgspec decides the same question in C for the common case, a value
of the right type, in range and without a unit; whatever it does not take as it stands goes to that judge, so that the
floats and the errors are the judge's own. A property test holds the two ways equal, to the bit.
"""

import keyword
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any, Literal

import msgspec
import numpy as np
from msgspec import Meta
from numpy.typing import NDArray

from configs.errors import RecordError
from configs.spec import Column
from features.columns import MISSING, Record, check_record, check_time, check_value, is_text

Matrix = NDArray[np.float64]


class Quantity(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A number in a unit of its own."""

    value: float
    unit: str


@dataclass(frozen=True)
class Checked:
    """Records that keep the contract, and why the others do not.

    `values` (n, c) are checked values in the contract's order of columns, `at` (n,) the times of prediction in seconds
    since 1970. `kept` holds each record as the ledger keeps it: JSON of the contract's fields as they came and the
    time of prediction, without an identifier. `errors` maps a position among all that were sent to its error.
    """

    values: Matrix
    at: NDArray[np.float64]
    patients: list[str | None]
    references: list[str | None]
    kept: list[bytes]
    errors: dict[int, RecordError]

    @staticmethod
    def join(pieces: Sequence["Checked"], size: int) -> "Checked":
        """Records that were checked `size` at a time, together."""
        return Checked(
            np.concatenate([piece.values for piece in pieces]),
            np.concatenate([piece.at for piece in pieces]),
            [patient for piece in pieces for patient in piece.patients],
            [reference for piece in pieces for reference in piece.references],
            [record for piece in pieces for record in piece.kept],
            {
                number * size + place: error
                for number, piece in enumerate(pieces)
                for place, error in piece.errors.items()
            },
        )


class _Coded(dict[Any, Any]):
    """A number with missing codes: each of them is missing, or refused where the column is required."""

    def __init__(self, codes: Sequence[float], column: Column) -> None:
        super().__init__({None: MISSING} if column.required else dict.fromkeys([None, *codes], MISSING))
        assert column.range is not None  # the Spec demands it of a number
        self.low, self.high = column.range
        self.refused = set(codes) if column.required else set()

    def __missing__(self, cell: float | Quantity) -> Any:
        if isinstance(cell, float) and (cell in self.refused or not self.low <= cell <= self.high):
            raise TypeError
        return cell


class Contract:
    """A disease's contract, ready to check. `record` is the type of a record that msgspec takes as it stands."""

    def __init__(self, columns: Mapping[str, Column]) -> None:
        self.columns = columns
        self._tables: list[Mapping[Any, Any] | None] = []
        fields: list[Any] = []
        names = {}
        for name, column in columns.items():
            field = f"{name}_" if keyword.iskeyword(name) else name
            names[field] = name
            kind, table = _typed(column)
            self._tables.append(table)
            fields.append((field, kind) if column.required else (field, kind | None, None))
        fields += [(name, str | None, None) for name in ("patient", "reference", "at")]
        self.record: Any = msgspec.defstruct(
            "Record", fields, rename=names, kw_only=True, forbid_unknown_fields=True, omit_defaults=True
        )

    def check(self, sent: Sequence[Any], received: datetime) -> Checked:
        """The records, as `record` or as plain JSON values, checked; a record without a time of its own is of now."""
        rows: list[list[Any]] = []
        at: list[float] = []
        patients: list[str | None] = []
        references: list[str | None] = []
        kept: list[bytes] = []
        errors: dict[int, RecordError] = {}
        for position, item in enumerate(sent):
            try:
                if item.__class__ is not self.record:
                    item = msgspec.convert(item, self.record)
                row = self._row(item)
                patient, reference = item.patient, item.reference
                if not ((patient is None or is_text(patient)) and (reference is None or is_text(reference))):
                    raise TypeError
                time = check_time(item.at) or received
            except (TypeError, ValueError, RecordError, RecursionError):  # msgspec's errors are ValueErrors
                try:
                    record, raw = self._judged(item)
                except RecordError as exc:
                    errors[position] = exc
                    continue
                row, patient, reference = list(record.values.values()), record.patient, record.reference
                time = record.at or received
                kept.append(msgspec.json.encode(raw | {"at": time.isoformat()}))
            else:
                item.patient = item.reference = None
                item.at = time.isoformat()
                kept.append(msgspec.json.encode(item))
            rows.append(row)
            at.append(time.timestamp())
            patients.append(patient)
            references.append(reference)
        values = np.array(rows, np.float64).reshape(len(rows), len(self._tables))
        values += 0.0  # minus zero becomes zero: equal values have equal bits
        return Checked(values, np.array(at), patients, references, kept, errors)

    def _row(self, record: Any) -> list[Any]:
        """The record's values as floats, None for missing. Raises TypeError for what only the judge can decide."""
        cells = msgspec.structs.astuple(record)
        row = [cell if table is None else table[cell] for cell, table in zip(cells, self._tables, strict=False)]
        if Quantity in map(type, row):
            for position, name in enumerate(self.columns):
                if isinstance(cell := row[position], Quantity):
                    row[position] = check_value(name, self.columns[name], {"value": cell.value, "unit": cell.unit})
        return row

    def _judged(self, item: Any) -> tuple[Record, dict[str, Any]]:
        """The record by the judge of values, and its fields as they came. Raises RecordError."""
        raw = msgspec.to_builtins(item) if isinstance(item, self.record) else item
        record = check_record(self.columns, raw)
        return record, {name: value for name, value in raw.items() if name in self.columns}


def _typed(column: Column) -> tuple[Any, Mapping[Any, Any] | None]:
    """A column's type as msgspec checks it, and the table that makes floats of its values (None: they are floats)."""
    if column.type == "boolean":
        return bool, {False: 0.0, True: 1.0, None: MISSING}
    if column.type == "category":
        codes = [code for code in column.missing_if if isinstance(code, str)]
        table: dict[Any, float] = {value: float(index) for index, value in enumerate(column.categories)}
        table |= dict.fromkeys([None, *codes], MISSING)
        taken = [value for value in table if value is not None and not (column.required and value in codes)]
        return Literal[tuple(taken)] if taken else None, table
    numbers = [float(code) for code in column.missing_if if isinstance(code, int | float)]
    if numbers:
        return float | Quantity, _Coded(numbers, column)
    assert column.range is not None  # the Spec demands it of a number
    low, high = column.range
    return Annotated[float, Meta(ge=low, le=high)] | Quantity, None
