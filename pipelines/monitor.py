"""The champion's newest predictions against what it was trained on: a report, its page, and Evidently's drawing."""

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from configs.errors import CohortError, LedgerError, RecordError
from configs.settings import Settings
from evidence import monitoring, page
from evidence.report import Report
from features import build, cohort
from features.records import labels
from ledger.database import connect, now
from ledger.predictions import Window, feature_digest, window
from ledger.promotions import find_champion
from models import bundle as bundles
from models.bundle import Bundle
from models.predict import Predictor
from pipelines import drift
from pipelines.files import replacing

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Monitored:
    """The report, and where its page and Evidently's drawing lie. `undrawn` is what could not be drawn, and why."""

    report: Report
    page: Path
    drawing: Path
    undrawn: dict[str, str]


def monitor(name: str, since: datetime | None, settings: Settings) -> Monitored:
    """Judge the champion's newest `monitoring.window` predictions, or all since a time, and write the pages.

    Raises LedgerError if the disease has no champion.
    """
    engine = connect(settings)
    champion = find_champion(engine, name)
    if champion is None:
        raise LedgerError(f"{name}: has no champion; `medimind run {name}` makes one.")
    bundle = bundles.get(champion.bundle, settings)
    predictor = Predictor(bundle)
    last = None if since else bundle.spec.monitoring.window
    seen = window(engine, name, bundle.digest, last, since)
    attributes, skewed = _again(predictor, seen)
    judged = monitoring.Seen(
        X=seen.features,
        risk=seen.risks,
        outcomes=seen.outcomes,
        attributes=attributes,
        received=seen.received,
        now=now().timestamp(),
        skewed=skewed,
        sampled=len(seen),
        refused={},
    )
    report = monitoring.judge(bundle, _name(seen), judged)

    folder = settings.private(settings.reports / name)
    stamp = f"{now():%Y%m%dT%H%M%S}"
    drawing = folder / f"monitor-{stamp}-drift.html"
    reference, note = _reference(bundle, settings)
    kinds = {feature.name: "category" if feature.categories else "number" for feature in predictor.plan.features}
    title = f"{name}@{champion.version}: drift of the inputs"
    current = _frame(predictor.plan, seen.features)
    try:
        undrawn = drift.page(reference, current, kinds, title, drawing, bundle.spec.split.seed)  # type: ignore[arg-type]
    except OSError as exc:
        raise LedgerError(
            f"{drawing.name}: could not be written ({exc.strerror or exc}). Nothing was changed."
        ) from exc
    notes = [
        f"{bundle.spec.title}. Version {champion.version}, champion since {champion.at:%Y-%m-%d %H:%M} UTC.",
        f"Drawing of the inputs, with patients' values in it: {drawing.name}. {note}",
        *(f"Not drawn: {column}, {why}" for column, why in undrawn.items()),
    ]
    if seen.purged:
        notes.append(f"{seen.purged} older predictions were purged and are not judged.")
    path = folder / f"monitor-{stamp}.html"
    with replacing(path, LedgerError) as partial:
        partial.write_text(page.html(report, f"{name}: monitoring", notes), encoding="utf-8")
    with replacing(path.with_suffix(".json"), LedgerError) as partial:
        partial.write_text(report.to_json(), encoding="utf-8")
    return Monitored(report, path, drawing, undrawn)


def _name(seen: Window) -> str:
    if seen.first is None or seen.last is None:
        return "an empty window"
    return f"{len(seen)} predictions, {seen.first:%Y-%m-%d %H:%M} to {seen.last:%Y-%m-%d %H:%M} UTC"


def _again(predictor: Predictor, seen: Window) -> tuple[dict[str, NDArray[np.str_]], int]:
    """Each prediction's attributes, and how many come out with other features when computed again."""
    try:
        checked = [predictor.check(record) for record in seen.records]
    except RecordError as exc:
        raise LedgerError(f"a prediction on record no longer keeps the contract: {exc}") from exc
    values = {name: np.array([record.values[name] for record in checked]) for name in predictor.spec.columns}
    at = np.array([record.at.timestamp() if record.at else np.nan for record in checked])
    X = build.build(predictor.plan, values, at)
    skewed = sum(feature_digest(row) != digest for row, digest in zip(X, seen.digests, strict=True))
    return build.attributes(predictor.plan, values, at), skewed


def _reference(bundle: Bundle, settings: Settings) -> tuple["pd.DataFrame | None", str]:
    """The rows that the bundle was trained on, if this machine has them, and what the page says about it."""
    name = bundle.spec.name
    try:
        patients = cohort.load(settings.data / "cohorts" / f"{name}.parquet")
    except CohortError as exc:
        return None, f"It has no reference: {exc}"
    if patients.fingerprint != bundle.training["data"]:
        return None, "It has no reference: the cohort on this machine is not the one this version was trained on."
    return _frame(
        build.plan(bundle.spec), patients.only("train").X
    ), "Its reference is the training part of the cohort."


def _frame(plan: build.Plan, X: NDArray[np.float32]) -> "pd.DataFrame":
    import pandas as pd

    columns = {}
    for position, feature in enumerate(plan.features):
        column = X[:, position].astype(np.float64) if len(X) else np.empty(0)
        columns[feature.name] = labels(feature.categories, column) if feature.categories else column
    return pd.DataFrame(columns)
