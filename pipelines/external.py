"""A registered version on patients of somewhere else: a file of the source's own columns, outcomes among them."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from configs.errors import CohortError, LedgerError, SourceError
from configs.settings import Settings
from configs.spec import Source, Spec, load_spec
from evidence import case, checks, page
from evidence.checks import FEWEST_ELSEWHERE
from evidence.metrics import Array
from evidence.report import Report
from features import build, cohort
from ledger.database import audit, connect, deciding, now
from models.bundle import Bundle
from models.predict import Matrix, Predictor
from pipelines.compare import registered
from pipelines.files import replacing
from pipelines.ingest import check_source, dropped_by_reason


@dataclass(frozen=True)
class External:
    report: Report
    page: Path


def validate_on(name: str, number: int, where: str, settings: Settings) -> External:
    """Judge a registered version on the patients of `where`: a .csv or .parquet file, or a known disease's source.

    Nothing is learned, and the version's standing does not change. Raises SourceError if the patients cannot be read,
    CohortError if fewer than 10 events or non-events are among them, RegistryError if there is no such version.
    """
    version, bundle = f"{name}@{number}", registered(name, number, settings)
    spec, predictor = bundle.spec, Predictor(bundle)
    read = check_source(as_source(spec, where, settings), settings)
    dropped = dropped_by_reason(read.refusals) | read.records.unknown
    broken_events = read.histories.broken if read.histories is not None else {}
    records = read.records.take(~np.isnan(read.records.outcome))
    y = records.outcome
    events = int(y.sum())
    if min(events, len(y) - events) < FEWEST_ELSEWHERE:
        raise CohortError(
            f"{version}: {where} has {events} events and {len(y) - events} non-events that keep the contract; at least "
            f"{FEWEST_ELSEWHERE} of each are needed to say anything. Nothing was judged."
        )
    X = build.build(predictor.plan, records.values, records.at)
    attributes = build.attributes(predictor.plan, records.values, records.at)
    fingerprint = cohort.fingerprint_of(predictor.plan.names, X, y, attributes)
    risks = predictor.risks(X)
    report = checks.judge_elsewhere(
        bundle,
        fingerprint,
        y,
        predictor.positive(risks),
        attributes,
        _learned_from(bundle, X, y, settings),
        case.classes_and_screening(predictor, y, records.label, records.stage, risks),
    )

    out = settings.private(settings.reports / name) / f"external-{number}-{now():%Y%m%dT%H%M%S}.html"
    notes = [
        f"{spec.title}. Version {number} on {len(y)} patients of {where}, {events} with the event.",
        *(f"Left out: {count} rows, {reason}." for reason, count in dropped.items()),
        *(f"Left out: {count} events of {code}, {reason}." for (code, reason), count in broken_events.items()),
        "The version stays as it is: nothing is learned here.",
    ]
    with replacing(out, LedgerError) as partial:
        partial.write_text(page.html(report, f"{version}: external validation", notes), encoding="utf-8")
    with replacing(out.with_suffix(".json"), LedgerError) as partial:
        partial.write_text(report.to_json(), encoding="utf-8")
    with deciding(connect(settings)) as connection:
        audit(connection, settings.actor, "validate on", f"{version} {bundle.digest} data {fingerprint}")
    return External(report, out)


def _learned_from(bundle: Bundle, X: Matrix, y: Array, settings: Settings) -> int | None:
    """How many rows stand, alike in every feature and the outcome, in the training part; None if it is not here."""
    try:
        patients = cohort.load(settings.data / "cohorts" / f"{bundle.spec.name}.parquet")
    except CohortError:
        return None
    if patients.fingerprint != bundle.training["data"]:
        return None
    train = patients.only("train")
    known = {(row.tobytes(), outcome) for row, outcome in zip(train.X, train.y.tolist(), strict=True)}
    return sum((row.tobytes(), outcome) in known for row, outcome in zip(X, y.tolist(), strict=True))


def as_source(spec: Spec, where: str, settings: Settings) -> Spec:
    """The spec with another source: a file of this machine, or that of another disease's YAML."""
    path = Path(where)
    if path.suffix in (".csv", ".parquet"):
        if not path.exists():
            raise SourceError(f"{where}: does not exist. A .csv or .parquet file, or a disease's name, is expected.")
        return spec.model_copy(update={"source": Source.model_validate({path.suffix[1:]: str(path.absolute())})})
    if (settings.configs / "diseases" / f"{where}.yaml").exists():
        other = load_spec(where, settings.configs)
        return spec.model_copy(update={"source": other.source, "name": other.name})
    raise SourceError(f"{where!r}: is neither a .csv or .parquet file nor a disease that has a YAML.")
