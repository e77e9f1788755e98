"""Source to records: fetched, judged against the contract, checked row by row, and kept."""

import json
from collections import Counter
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from configs.errors import ContractError
from configs.settings import Settings
from configs.spec import Spec, load_spec
from features import columns, histories, records
from features.columns import Refusal
from features.histories import Histories
from features.records import Records
from pipelines import encoders, expectations, signals, sources
from pipelines.files import alone, replacing
from pipelines.sources import Table

SHOWN = 5
"""Refused values that an error names; all of them stand in the refusals' file."""


@dataclass(frozen=True)
class Ingested:
    """What came of a source: rows read, rows kept, rows left out by reason; values `beyond` detection, by column and
    side; `expectations` met, and of how many; and what the long tables hold, None where the source has none."""

    name: str
    rows: int
    kept: int
    dropped: dict[str, int]
    beyond: dict[str, dict[str, int]]
    expectations: tuple[int, int]
    path: Path
    histories: Histories | None


@dataclass(frozen=True)
class Read:
    """A source's patients: the table's own rows, its translated `cells`, the records that keep the contract, what was
    refused, and the checked events, None where the source has none."""

    table: Table
    cells: dict[str, list[Any]]
    records: Records
    refusals: list[Refusal]
    histories: Histories | None


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
    if spec.encoder is not None:
        encoders.lay(spec.encoder, settings)
    read = check_source(spec, settings)
    refusals, held = read.refusals, read.histories
    judgements = expectations.judge(spec, pd.DataFrame(read.cells, dtype=object))
    _keep_refusals(settings.data / "records" / f"{name}.refusals.json", refusals)
    rows = columns.rows_in(read.table)
    refused = {refusal.row for refusal in refusals}
    if len(refused) > spec.refused_rows_at_most * rows:
        raise ContractError(_refused(spec, refusals, len(refused), rows))
    if held is not None:
        _judge_events(spec, held)
    broken = sum(judgement.unexpected for judgement in judgements if not judgement.success)
    if broken and not refused:
        worst = next(judgement for judgement in judgements if not judgement.success)
        raise ContractError(f"{name}: Great Expectations finds {worst.expectation} broken in column {worst.column!r}.")
    dropped = dropped_by_reason(refusals)
    path = settings.data / "records" / f"{name}.parquet"
    with ExitStack() as together:  # every file is written before the first takes its place

        def written(suffix: str) -> Path:
            return together.enter_context(replacing(path.with_suffix(suffix), ContractError))

        if held is not None:
            histories.save(held, spec, written(".events.parquet"))
            written(".events.json").write_text(json.dumps(_counts(held), indent=1), encoding="utf-8")
        told = json.dumps([asdict(judgement) for judgement in judgements], indent=1)
        written(".expectations.json").write_text(told, encoding="utf-8")
        records.save(read.records, spec, dropped, written(".parquet"))
    met = sum(judgement.success for judgement in judgements)
    found = read.records
    return Ingested(name, rows, len(found), dropped, found.beyond, (met, len(judgements)), path, held)


def check_source(spec: Spec, settings: Settings) -> Read:
    """The source's tables, read and checked. Nothing is kept.

    Raises SourceError for a table that cannot be read, ContractError for one that is not what the contract is about.
    """
    table = sources.read(spec, settings)
    cells = signals.opened(spec, columns.translate_table(spec, table), settings)
    held = history = None
    if spec.source.events:
        patient, at = columns.whose_and_when(spec, table)
        held = histories.check(spec, patient, at, sources.read_events(spec, settings))
        history = histories.history(spec, held, patient, at)
    found, refusals = columns.check_table(spec, table, cells, history)
    return Read(table, cells, found, refusals, held)


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


def _judge_events(spec: Spec, held: Histories) -> None:
    if never := [code for place, code in enumerate(spec.events) if not (held.events.code == place).any()]:
        raise ContractError(
            f"{spec.name}: no event of {', '.join(map(repr, never))} that keeps the contract is in the source: every "
            "count of it would be 0. Is `from` the source's code? If nobody has it, take it out of `events`. Nothing "
            "was changed."
        )
    broken = held.broken
    count, most = sum(broken.values()), spec.refused_events_at_most
    if most is None or count <= most * held.read:
        return
    named = "; ".join(
        f"{code}: {number} with {reason!r}, first in long table {held.first[code, reason][0]}, "
        f"row {held.first[code, reason][1]}"
        for (code, reason), number in list(broken.items())[:SHOWN]
    )
    more = f"; and {len(broken) - SHOWN} more reasons" if len(broken) > SHOWN else ""
    raise ContractError(
        f"{spec.name}: {count} of {held.read} events break the contract, at most {most:.1%} may: {named}{more}. "
        "Correct the source, or the contract (`events`: `unit`, `accepts`, `range`, `missing_if`), or write a larger "
        "`refused_events_at_most`. Nothing was changed."
    )


def _counts(held: Histories) -> dict[str, Any]:
    """How many events were read, and of each code how many were left out and why."""
    return {"read": held.read, "not_read": held.not_read, "kept": len(held.events), "reasons": held.reasons}


def _keep_refusals(path: Path, refusals: list[Refusal]) -> None:
    """Row, column and reason of every refused value; the values stay in the source."""
    rows = [{"row": refusal.row, "column": refusal.column, "code": refusal.code} for refusal in refusals]
    with replacing(path, ContractError) as partial:
        partial.write_text(json.dumps(rows, indent=1), encoding="utf-8")
