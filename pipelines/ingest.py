"""Source to records: fetched, judged against the contract, checked row by row, and kept."""

import json
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path

from configs.errors import ContractError
from configs.settings import Settings
from configs.spec import Spec, load_spec
from features import columns, records
from features.columns import Refusal
from pipelines import expectations, sources
from pipelines.files import alone, replacing

SHOWN = 5
"""Refused values that an error names; all of them stand in the refusals' file."""


@dataclass(frozen=True)
class Ingested:
    """What came of a source: rows read, rows kept, rows left out by reason; `expectations` met, and of how many."""

    name: str
    rows: int
    kept: int
    dropped: dict[str, int]
    expectations: tuple[int, int]
    path: Path


def ingest(name: str, settings: Settings) -> Ingested:
    """Read the disease's source into `data/records/<name>.parquet`.

    Raises SourceError for a source that cannot be read, ContractError if more rows break the contract than the Spec
    tolerates; the records of an earlier ingest then stay as they were.
    """
    with alone(name, settings):
        return _ingest(name, settings)


def _ingest(name: str, settings: Settings) -> Ingested:
    import pandas as pd

    spec = load_spec(name, settings.configs)
    raw = settings.data / "raw"
    (raw / name).mkdir(parents=True, exist_ok=True)  # DVC's stage names it for any source
    raw.chmod(0o700)
    table = sources.read(spec, settings)
    cells = columns.translate_table(spec, table)
    found, refusals = columns.check_table(spec, table, cells)
    judgements = expectations.judge(spec, pd.DataFrame(cells, dtype=object))
    _keep_refusals(settings.data / "records" / f"{name}.refusals.json", refusals)
    rows = columns.rows_in(table)
    refused = {refusal.row for refusal in refusals}
    if len(refused) > spec.refused_rows_at_most * rows:
        raise ContractError(_refused(spec, refusals, len(refused), rows))
    broken = sum(judgement.unexpected for judgement in judgements if not judgement.success)
    if broken and not refused:
        worst = next(judgement for judgement in judgements if not judgement.success)
        raise ContractError(f"{name}: Great Expectations finds {worst.expectation} broken in column {worst.column!r}.")
    dropped = dropped_by_reason(refusals)
    path = settings.data / "records" / f"{name}.parquet"
    with replacing(path, ContractError) as partial:
        records.save(found, spec.columns, dropped, partial)
    with replacing(path.with_suffix(".expectations.json"), ContractError) as partial:
        partial.write_text(json.dumps([asdict(judgement) for judgement in judgements], indent=1), encoding="utf-8")
    met = sum(judgement.success for judgement in judgements)
    return Ingested(name, rows, len(found), dropped, (met, len(judgements)), path)


def dropped_by_reason(refusals: list[Refusal]) -> dict[str, int]:
    """Rows by the first thing that was wrong with each."""
    first: dict[int, Refusal] = {}
    for refusal in refusals:
        first.setdefault(refusal.row, refusal)
    return dict(Counter(f"{refusal.column}: {refusal.code.replace('_', ' ')}" for refusal in first.values()))


def _refused(spec: Spec, refusals: list[Refusal], refused: int, rows: int) -> str:
    named = "; ".join(f"row {refusal.row}: {refusal.message.rstrip('.')}" for refusal in refusals[:SHOWN])
    more = f"; and {len(refusals) - SHOWN} more values" if len(refusals) > SHOWN else ""
    return (
        f"{spec.name}: {refused} of {rows} rows break the contract, at most {spec.refused_rows_at_most:.1%} may: "
        f"{named}{more}. Correct the source, or the contract (`range`, `map`, `missing_if`), or write a larger "
        f"`refused_rows_at_most`. All of them: data/records/{spec.name}.refusals.json."
    )


def _keep_refusals(path: Path, refusals: list[Refusal]) -> None:
    """Row, column and reason of every refused value; the values stay in the source."""
    rows = [{"row": refusal.row, "column": refusal.column, "code": refusal.code} for refusal in refusals]
    with replacing(path, ContractError) as partial:
        partial.write_text(json.dumps(rows, indent=1), encoding="utf-8")
