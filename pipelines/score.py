"""A file of records, scored by the champion. Nothing goes on record: that is what the server is for."""

from pathlib import Path
from typing import Any

from configs.errors import LedgerError, RecordError, SourceError
from configs.settings import Settings
from ledger.database import connect
from ledger.promotions import find_champion
from models.bundle import get
from models.predict import Predictor
from pipelines import inputs
from pipelines.files import replacing


def champion(name: str, settings: Settings) -> tuple[Predictor, int]:
    """The disease's champion, ready to answer, and its version. Raises LedgerError if it has none."""
    found = find_champion(connect(settings), name)
    if found is None:
        raise LedgerError(f"{name}: has no champion; `medimind run {name}` makes one.")
    return Predictor(get(found.bundle, settings)), found.version


def predict(name: str, path: Path, settings: Settings) -> dict[str, Any]:
    """What the champion says of the records in a JSON file: one, a list, a request's body, or one a line.

    A waveform or an image may be the path of a file beside it: `{"file": "visit-1.npy"}`.
    """
    records = inputs.read_json(path)
    predictor, version = champion(name, settings)
    records = inputs.beside(records, predictor.spec, path)
    return {"model": name, "version": version, "predictions": [_answer(predictor, record) for record in records]}


def _answer(predictor: Predictor, record: Any) -> dict[str, Any]:
    try:
        checked = predictor.check(record)
    except RecordError as exc:
        return {"error": {"code": exc.code, "message": str(exc), "field": exc.field}}
    risks = predictor.risks(predictor.features([checked]))
    (prediction,) = predictor.predictions([checked], risks)
    told: dict[str, Any] = {"risk": prediction.risk, "band": prediction.band, "missing": prediction.missing}
    certain = {"set": prediction.set, "abstained": prediction.abstained}
    told |= {name: value for name, value in certain.items() if value is not None}
    told |= {"ignored": checked.told.ignored} if checked.told and checked.told.ignored else {}
    return told if prediction.risks is None else told | {"risks": prediction.risks, "class": prediction.label}


def score(name: str, source: Path, target: Path, settings: Settings) -> tuple[int, int]:
    """Score a table (.csv, .parquet) of the contract's or the source's columns into `target`, row by row.

    `target` holds row, risk, band, set, abstained and error, and of several classes `class` and each one's risk, as
    `risk of NAME`: no column of the source. Returns how many rows were scored and refused.
    """
    import pandas as pd

    if source.resolve() == target.resolve() or (source.exists() and target.exists() and source.samefile(target)):
        raise SourceError(f"{target}: is the same file as the input, which stays as it is; name another output.")
    frame = inputs.read_table(source)
    predictor, _ = champion(name, settings)
    answers = [_answer(predictor, record) for record in inputs.from_table(frame, predictor.spec, source, settings)]
    rows = [
        {
            "row": row + 1,
            "risk": answer.get("risk"),
            "band": answer.get("band"),
            "set": " or ".join(answer["set"]) if "set" in answer else None,
            "abstained": answer.get("abstained"),
            **({"class": answer.get("class")} if predictor.classes else {}),
            **{f"risk of {name}": answer.get("risks", {}).get(name) for name in predictor.classes},
            "error": answer["error"]["message"] if "error" in answer else None,
        }
        for row, answer in enumerate(answers)
    ]
    out = pd.DataFrame(rows)
    with replacing(target, SourceError) as partial:
        out.to_parquet(partial) if target.suffix == ".parquet" else out.to_csv(partial, index=False)
    refused = sum("error" in answer for answer in answers)
    return len(rows) - refused, refused
