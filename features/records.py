"""Checked rows, on their way from the source to the cohort, and the Parquet file that keeps them."""

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from configs.errors import ContractError
from configs.spec import Column, Spec
from features.definitions import Array
from features.outcomes import REASONS, UNKNOWN


@dataclass(frozen=True)
class Records:
    """`values[column]` (n,) checked floats, of an array (n, length); `outcome` (n,) 0, 1 or NaN, `patient` (n,), `at`
    (n,) epoch seconds.

    `future` counts, for each column that says when it was measured, the values measured after the time of prediction
    among all rows that kept the contract. Where the outcome has classes `label` (n,) is the number of each, NaN
    if unknown; where it names the stage's column `stage` (n,) is that, "" if unknown; where it has a horizon `why` (n,)
    says why it is unknown, "" if it is known. `beyond` counts, for each column with a limit of detection, the values
    `below` and `above` it.
    """

    values: dict[str, Array]
    outcome: Array
    patient: NDArray[np.str_]
    at: Array
    future: dict[str, int] = field(default_factory=dict)
    label: Array | None = None
    stage: NDArray[np.str_] | None = None
    beyond: dict[str, dict[str, int]] = field(default_factory=dict)
    why: NDArray[np.str_] | None = None

    def __len__(self) -> int:
        return len(self.outcome)

    @property
    def target(self) -> Array:
        """The number of the class, or 0 and 1 where there is one event alone; NaN if unknown. (n,)"""
        return self.outcome if self.label is None else self.label

    @property
    def unknown(self) -> dict[str, int]:
        """How many outcomes are unknown, by reason, in the order in which the reasons are looked for."""
        gone = np.isnan(self.outcome)
        why = np.full(int(gone.sum()), UNKNOWN) if self.why is None else self.why[gone]
        return {reason: int((why == reason).sum()) for reason in REASONS if (why == reason).any()}

    def take(self, rows: NDArray[Any]) -> "Records":
        values = {name: array[rows] for name, array in self.values.items()}
        label, stage, why = (None if array is None else array[rows] for array in (self.label, self.stage, self.why))
        return Records(
            values,
            self.outcome[rows],
            self.patient[rows],
            self.at[rows],
            self.future,
            label,
            stage,
            self.beyond,
            why,
        )


def labels(categories: Sequence[str], values: Array) -> list[Any]:
    """Checked floats (n,) as people read them: a category's name where there are `categories`, a number, None if
    missing."""
    if not categories:
        return [None if math.isnan(value) else float(value) for value in values]
    return [None if math.isnan(value) else categories[int(value)] for value in values]


def save(records: Records, spec: Spec, dropped: Mapping[str, int], path: Path) -> None:
    """Write the records as one Parquet file that people can read; its counts stand in the file's metadata."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns = spec.columns
    table: dict[str, Any] = {
        name: _lists(columns[name], values) if values.ndim > 1 else labels(columns[name].categories, values)
        for name, values in records.values.items()
    }
    table |= {"(outcome)": records.outcome, "(patient)": records.patient, "(at)": records.at}
    table |= {} if records.why is None else {"(why)": records.why}
    types = {name: _arrow_type(columns[name]) for name in records.values if columns[name].size is None}
    table |= {} if records.label is None else {"(label)": records.label}
    table |= {} if records.stage is None else {"(stage)": records.stage}
    arrays = {name: pa.array(values, types.get(name)) for name, values in table.items()}
    about = {
        "dropped": json.dumps(dropped),
        "future": json.dumps(records.future),
        "beyond": json.dumps(records.beyond),
        "contract": contract_digest(spec),
    }
    pq.write_table(pa.table(arrays).replace_schema_metadata(about), path)


def _arrow_type(column: Column) -> Any:
    import pyarrow as pa

    return pa.string() if column.categories else pa.float64()


def _lists(column: Column, values: Array) -> Any:
    """Rows (n, size) as Arrow's lists of numbers, null where missing; never as Python's own, which take 32 bytes each.

    A signal's are float32, which holds all that its judge lets through.
    """
    import pyarrow as pa

    gone = np.isnan(values[:, 0])
    ends = np.append(0, np.cumsum(np.where(gone, 0, values.shape[1])))
    numbers = values[~gone].astype(np.float32 if column.signal else np.float64).ravel()
    return pa.LargeListArray.from_arrays(ends, numbers, mask=pa.array(gone))


def _rows(lists: Any, size: int) -> Array:
    """What `_lists` made of rows (n, size). Raises ValueError if it is not that."""
    import pyarrow.compute as pc

    there = lists.is_valid().to_numpy()
    if not bool(pc.all(pc.equal(pc.list_value_length(lists.drop_null()), size)).as_py()):
        raise ValueError(f"a list of another length than {size}")
    found = np.full((len(there), size), math.nan)
    found[there] = lists.drop_null().combine_chunks().flatten().to_numpy(zero_copy_only=False).reshape(-1, size)
    return found


def load(spec: Spec, path: Path) -> tuple[Records, dict[str, int]]:
    """The records that `save` wrote under this contract, and its counts.

    Raises ContractError if the file is missing or was written under another contract.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    again = f"`medimind ingest {path.stem}` makes it"
    try:
        table = pq.read_table(path)
    except (OSError, pa.ArrowInvalid) as exc:
        raise ContractError(f"{path.name}: no readable records; {again}.") from exc
    about = table.schema.metadata or {}
    if about.get(b"contract") != contract_digest(spec).encode():
        raise ContractError(f"{path.name}: was written under another contract; {again} anew.")
    try:
        values = {}
        for name, column in spec.columns.items():
            if column.size is not None:
                values[name] = _rows(table[name], column.size)
                continue
            cells = table[name].to_pylist()
            index = {label: float(position) for position, label in enumerate(column.categories)}
            values[name] = np.array([math.nan if c is None else index[c] if index else float(c) for c in cells])
        records = Records(
            values,
            table["(outcome)"].to_numpy().astype(np.float64),
            np.array(table["(patient)"].to_pylist(), dtype=np.str_),
            table["(at)"].to_numpy().astype(np.float64),
            json.loads(about[b"future"]),
            table["(label)"].to_numpy().astype(np.float64) if "(label)" in table.column_names else None,
            np.array(table["(stage)"].to_pylist(), np.str_) if "(stage)" in table.column_names else None,
            json.loads(about[b"beyond"]),
            np.array(table["(why)"].to_pylist(), np.str_) if "(why)" in table.column_names else None,
        )
        return records, json.loads(about[b"dropped"])
    except (KeyError, ValueError) as exc:
        raise ContractError(f"{path.name}: is not what was written; {again} anew.") from exc


def contract_digest(spec: Spec) -> str:
    """SHA-256 of what makes records of a source: a range, a horizon or a window that changed makes others of it."""
    contract = {name: column.model_dump_json() for name, column in spec.columns.items()}
    contract |= {f"events.{code}": column.model_dump_json() for code, column in spec.events.items()}
    contract["outcome"] = spec.outcome.model_dump_json()
    contract["at"] = f"{spec.at}, {spec.landmark_day} after {spec.day_zero}"
    return hashlib.sha256(json.dumps(contract).encode()).hexdigest()
