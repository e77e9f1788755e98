"""A file of records, scored by the champion. Nothing goes on record: that is what the server is for."""

import json
from pathlib import Path
from typing import Any, NoReturn

from configs.errors import ContractError, LedgerError, RecordError, SourceError
from configs.settings import Settings
from features.columns import translate
from ledger.database import connect
from ledger.promotions import find_champion
from models.bundle import get
from models.predict import Predictor
from pipelines import sources
from pipelines.files import replacing


def champion(name: str, settings: Settings) -> tuple[Predictor, int]:
    """The disease's champion, ready to answer, and its version. Raises LedgerError if it has none."""
    found = find_champion(connect(settings), name)
    if found is None:
        raise LedgerError(f"{name}: has no champion; `medimind run {name}` makes one.")
    return Predictor(get(found.bundle, settings.store)), found.version


def predict(name: str, path: Path, settings: Settings) -> dict[str, Any]:
    """What the champion says of the records in a JSON file: one object, a list, or a request's body."""
    try:
        body = json.loads(path.read_text(encoding="utf-8"), parse_constant=_no_number)
    except OSError as exc:
        raise SourceError(f"{path}: cannot be read ({exc.strerror}).") from exc
    except ValueError as exc:
        raise SourceError(f"{path}: is no JSON ({exc}).") from exc
    if isinstance(body, dict):
        body = body.get("records", [body])
    if not isinstance(body, list):
        raise SourceError(f"{path}: a record, a list of records, or an object with `records` is expected.")
    predictor, version = champion(name, settings)
    return {"model": name, "version": version, "predictions": [_answer(predictor, record) for record in body]}


def _no_number(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no number in JSON")


def _answer(predictor: Predictor, record: Any) -> dict[str, Any]:
    try:
        checked = predictor.check(record)
    except RecordError as exc:
        return {"error": {"code": exc.code, "message": str(exc), "field": exc.field}}
    risk = predictor.risk(predictor.features([checked]))
    (prediction,) = predictor.predictions([checked], risk)
    return {"risk": prediction.risk, "band": prediction.band, "missing": prediction.missing}


def score(name: str, source: Path, target: Path, settings: Settings) -> tuple[int, int]:
    """Score a table (.csv, .parquet) of the contract's or the source's columns into `target`, row by row.

    `target` holds row, risk, band and error: no column of the source. Returns how many rows were scored and refused.
    """
    import pandas as pd

    if source.resolve() == target.resolve() or (source.exists() and target.exists() and source.samefile(target)):
        raise SourceError(f"{target}: is the same file as the input, which stays as it is; name another output.")
    try:
        frame: Any = sources.read_file(source)
    except OSError as exc:
        raise SourceError(f"{source}: cannot be read ({exc.strerror}).") from exc
    except ValueError as exc:  # pandas' and pyarrow's own; their text may quote cells
        raise SourceError(f"{source}: is no readable table ({type(exc).__name__}).") from exc
    if frame.empty:
        raise SourceError(f"{source}: the table is empty.")
    predictor, _ = champion(name, settings)
    cells = {}
    for key, column in predictor.spec.columns.items():
        found = key if key in frame else column.from_ or key
        if found in frame:
            cells[key] = [translate(column, None if pd.isna(cell) else cell) for cell in frame[found].tolist()]
    if not cells:
        raise ContractError(f"{source}: has none of the contract's columns: {', '.join(predictor.spec.columns)}.")
    answers = [_answer(predictor, {key: column[row] for key, column in cells.items()}) for row in range(len(frame))]
    rows = [
        {
            "row": row + 1,
            "risk": answer.get("risk"),
            "band": answer.get("band"),
            "error": answer["error"]["message"] if "error" in answer else None,
        }
        for row, answer in enumerate(answers)
    ]
    out = pd.DataFrame(rows)
    with replacing(target, SourceError) as partial:
        out.to_parquet(partial) if target.suffix == ".parquet" else out.to_csv(partial, index=False)
    refused = sum("error" in answer for answer in answers)
    return len(rows) - refused, refused
