"""A file of records as a request would send them: JSON, JSON lines, or a table of the contract's columns."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from configs.errors import ContractError, SourceError
from configs.settings import Settings
from configs.spec import Spec
from features.columns import translate
from pipelines import signals, sources

if TYPE_CHECKING:
    import pandas as pd

TABLES = (".csv", ".parquet")
LINES = (".jsonl", ".ndjson")


def read(path: Path, spec: Spec, settings: Settings) -> list[Any]:
    """The records of a file, by its suffix. Raises SourceError or ContractError; no record is checked yet."""
    if path.suffix in TABLES:
        return from_table(read_table(path), spec, path, settings)
    return beside(read_json(path), spec, path)


def beside(records: list[Any], spec: Spec, path: Path) -> list[Any]:
    """The records, where each signal that names a file, `{"file": "visit-1.npy"}`, is what it holds.

    The file's path goes from the folder of the records' own. One that cannot be read is its RecordError.
    """
    columns = {name: column for name, column in spec.fields.items() if column.type in ("waveform", "image")}

    def opened(record: Any) -> Any:
        named = {
            name: signals.read(name, column, path.parent, record[name]["file"])
            for name, column in columns.items()
            if isinstance(record, dict) and isinstance(record.get(name), dict) and set(record[name]) == {"file"}
        }
        return {**record, **named} if named else record

    return [opened(record) for record in records]


def read_json(path: Path) -> list[Any]:
    """The records of a JSON file: one object, a list, a request's body; or one object a line."""
    try:
        text = path.read_text(encoding="utf-8")
        if path.suffix in LINES:
            return [json.loads(line, parse_constant=_no_number) for line in text.splitlines() if line.strip()]
        body = json.loads(text, parse_constant=_no_number)
    except OSError as exc:
        raise SourceError(f"{path}: cannot be read ({exc.strerror}).") from exc
    except ValueError as exc:
        raise SourceError(f"{path}: is no JSON ({exc}).") from exc
    if isinstance(body, dict):
        body = body.get("records", [body])
    if not isinstance(body, list):
        raise SourceError(f"{path}: a record, a list of records, or an object with `records` is expected.")
    return body


def _no_number(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no number in JSON")


def read_table(path: Path) -> "pd.DataFrame":
    """The table of a .csv or .parquet file. Raises SourceError if it cannot be read or is empty."""
    try:
        frame = sources.read_file(path)
    except OSError as exc:
        raise SourceError(f"{path}: cannot be read ({exc.strerror}).") from exc
    except ValueError as exc:  # pandas' and pyarrow's own; their text may quote cells
        raise SourceError(f"{path}: is no readable table ({type(exc).__name__}).") from exc
    if frame.empty:
        raise SourceError(f"{path}: the table is empty.")
    return frame


def from_table(frame: "pd.DataFrame", spec: Spec, path: Path, settings: Settings) -> list[dict[str, Any]]:
    """One record a row, of the contract's columns under its names or the source's; what is missing is None. A signal
    whose column has a `folder` is what its file holds, or the RecordError of one that cannot be read.

    Of a disease with events `at` and `events` are read too: a list of events a cell, as Parquet holds it, or as JSON.
    Raises ContractError if the table has none of the columns.
    """
    cells = {}
    for name, column in spec.fields.items():
        found = name if name in frame else column.from_ or name
        if found in frame:
            cells[name] = [translate(column, _present(cell)) for cell in frame[found].tolist()]
    cells = signals.opened(spec, cells, settings)
    if spec.events and "events" in frame:
        cells["events"] = [_events(cell, f"{path}, row {row + 1}") for row, cell in enumerate(frame["events"].tolist())]
    if not cells:
        raise ContractError(f"{path}: has none of the contract's columns: {', '.join(spec.fields)}.")
    if spec.events and "at" in frame:
        cells["at"] = [_written(cell) for cell in frame["at"].tolist()]
    return [dict(zip(cells, row, strict=True)) for row in zip(*cells.values(), strict=True)]


def _present(cell: Any) -> Any:
    """A table's cell; None where it is empty."""
    import pandas as pd

    return cell if pd.api.types.is_list_like(cell) or not pd.isna(cell) else None


def _events(cell: Any, where: str) -> Any:
    """A cell's list of events as a request holds it: what an event does not have is not there."""
    if isinstance(cell, str):
        try:
            return json.loads(cell, parse_constant=_no_number)
        except ValueError as exc:
            raise SourceError(f"{where}: `events` is no JSON ({exc}).") from exc
    found = cell.tolist() if hasattr(cell, "tolist") else _present(cell)
    if not isinstance(found, list):
        return found
    return [
        {key: told for key, value in event.items() if (told := _written(value)) is not None}
        if isinstance(event, dict)
        else event
        for event in found
    ]


def _written(value: Any) -> Any:
    """A time as ISO 8601, anything else as it is; None where it is missing."""
    present = _present(value)
    return present.isoformat() if hasattr(present, "isoformat") else present
