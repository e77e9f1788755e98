"""The champion watched: its windows judged and kept, people told, pages written, the newest window's inputs drawn."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from itertools import pairwise
from pathlib import Path
from time import monotonic, sleep
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from configs.errors import BusyError, CohortError, LedgerError, RecordError
from configs.settings import Settings
from evidence import monitoring
from evidence.metrics import Array
from evidence.monitoring import Seen
from evidence.report import Finding, Report
from evidence.timeline import Shown, count
from features import build, cohort
from features.columns import Record, as_arrays
from features.records import labels
from ledger import locks, predictions, refusals, stops, windows
from ledger.alerts import Episode, Key, failing
from ledger.database import Engine, connect, now
from ledger.predictions import Window, feature_digest
from ledger.promotions import Promotion, find_champion
from ledger.windows import Block, Judged
from models import bundle as bundles
from models.predict import Predictor
from pipelines import alerts, drift, pages
from pipelines.alerts import Told

if TYPE_CHECKING:
    import pandas as pd

MOST_AT_FIRST = 20
"""Windows that the first look at a bundle judges; of what the ledger held before, the rest is passed over."""

OTHERS_WAIT_S = 60.0
"""How long a look waits for another one at the same model."""

SILENT = ("MW001", "predictions")
"""The finding that nothing is answered any more."""

SILENT_WINDOWS = 3
"""Nothing for as long as so many windows take is silence; and so many are needed to say how long one takes."""

A_WINDOW_AT_LEAST = timedelta(days=1)
"""No silence is told of sooner than if a window took a day: a ward has its nights and weekends."""

RECOMPUTED = 200
"""Predictions of a window that are computed again from what is on record."""

BROKEN = "MW020"

OF_REFUSALS = {"MW015", "MW016", "MW017"}

ONLY_IF_THERE = {*OF_REFUSALS, BROKEN}
"""Findings that name what was refused or broken: a newer window that does not name it has none of it."""


@dataclass(frozen=True)
class Watched:
    """What one look did: the windows it judged, how many predictions it passed over, the episodes that began."""

    judged: tuple[Judged, ...]
    passed_over: int
    opened: tuple[Episode, ...]


@dataclass(frozen=True)
class Monitored:
    """The newest window's report and page, the time line, and Evidently's drawing; `undrawn`: what is not in it, why.

    An ad-hoc window has no time line, is on no record, and nobody is told of it.
    """

    report: Report
    page: Path
    drawing: Path
    undrawn: Mapping[str, str]
    timeline: Path | None = None
    watched: Watched | None = None
    told: Told | None = None


def monitor(name: str, since: datetime | None, settings: Settings) -> Monitored:
    """Judge what the champion answered, tell whom it concerns, and write the pages.

    `since` looks at all that was answered since that time instead, and keeps nothing. Raises LedgerError if the disease
    has no champion.
    """
    engine = connect(settings)
    champion = find_champion(engine, name)
    if champion is None:
        raise LedgerError(f"{name}: has no champion; `medimind run {name}` makes one.")
    predictor = Predictor(bundles.get(champion.bundle, settings))
    if since is not None:
        return _ad_hoc(engine, champion, predictor, since, settings)
    channels = alerts.channels(settings)
    watched = watch(engine, champion, predictor, settings, list(channels))
    told = alerts.deliver(engine, settings)

    full = windows.judged(engine, name, champion.bundle, last=1)
    if full:
        newest, filling = pages.shown(full[-1]), None
        window, _ = windows.read(engine, full[-1].block)
    else:
        newest, window = _filling(engine, champion, predictor)
        filling = newest
    changed = [pages.shown(one).page for one in watched.judged]
    timeline, path = pages.write(engine, name, settings, changed, filling)
    drawing, undrawn, notes = _draw(champion, predictor, window, settings)
    pages.write_window(path, newest, notes)
    return Monitored(newest.report, path, drawing, undrawn, timeline, watched, told)


def watch(
    engine: Engine, champion: Promotion, predictor: Predictor, settings: Settings, channels: Sequence[str] = ()
) -> Watched:
    """Judge the champion's windows that are full, and again those of which more is known now, other champions' too.

    Each is kept, and a finding of the champion's that fails begins an episode, to be told on these channels. Writes no
    page.
    """
    with _alone(engine, settings, champion.model):
        return _look(engine, champion, predictor, settings, channels)


@contextmanager
def _alone(engine: Engine, settings: Settings, model: str) -> Iterator[None]:
    """One look at a model at a time. Raises BusyError if another one takes longer than OTHERS_WAIT_S."""
    until = monotonic() + OTHERS_WAIT_S
    with ExitStack() as held:
        while True:
            try:
                held.enter_context(locks.alone(engine, settings, f"{model}-monitor"))
                break
            except BusyError as exc:
                if monotonic() > until:
                    raise BusyError(
                        f"{model} is being monitored by another process; wait until it has ended, and try again."
                    ) from exc
                sleep(0.2)
        yield


def _look(
    engine: Engine, champion: Promotion, predictor: Predictor, settings: Settings, channels: Sequence[str]
) -> Watched:
    model, bundle = champion.model, champion.bundle
    known = {one.block.number: one for one in windows.judged(engine, model, bundle)}
    opened = _episodes(engine, champion, known.values(), channels)  # an earlier look may have died before it said so
    stale = [one.block for one in windows.stale(engine, list(known.values()))]
    size = predictor.spec.monitoring.window
    due, passed_over = windows.due(engine, model, champion.version, bundle, size, MOST_AT_FIRST)
    judged = []
    for block in [*stale, *due]:
        known[block.number] = _judge(engine, predictor, block)
        judged.append(known[block.number])
        opened += _episodes(engine, champion, known.values(), channels)
    opened += _episodes(engine, champion, known.values(), channels, _since(engine, champion, predictor, known))
    for other in pages.champions(pages.decided(engine, model)) - {bundle}:
        if late := windows.stale(engine, windows.judged(engine, model, other)):
            its_own = Predictor(bundles.get(other, settings))
            judged += [_judge(engine, its_own, one.block) for one in late]
    return Watched(tuple(judged), passed_over, tuple(opened))


def _since(engine: Engine, champion: Promotion, predictor: Predictor, judged: Mapping[int, Judged]) -> dict[Key, str]:
    """What fails of what came after the last window: records refused, or nothing at all for too long; "" if not so.

    A field of which fewer than 10 records were refused waits for its window: of few records one is a large share.
    """
    model, bundle = champion.model, champion.bundle
    size = predictor.spec.monitoring.window
    block = windows.open_block(engine, model, champion.version, bundle, size)
    if block is not None and block.n >= size:  # windows are left for the next look
        return {SILENT: ""}
    window = windows.read(engine, block)[0] if block is not None else predictions.laid_out((), {}, 0)
    begin = max(windows.ended(engine, model, bundle) or champion.at, champion.at)
    stood = stops.find(engine, model)
    asleep = stood.stopped is not None or champion.version in stood.retired
    found = {SILENT: "" if asleep else _silence(champion, judged, window.last)}
    refused = refusals.between(engine, model, begin, now())
    if refused:
        report = judge_window(predictor, f"all since {begin:%Y-%m-%d %H:%M} UTC", window, refused)
        for one in report.failed:
            if one.code in OF_REFUSALS and one.value is not None:
                found[one.code, one.title] = _text(report, one)
    return found


def _silence(champion: Promotion, judged: Mapping[int, Judged], last: datetime | None) -> str:
    """Whether nothing was answered for three times as long as windows took, in the median; empty if it was."""
    ends = [judged[number].ends_at for number in sorted(judged)]
    if len(ends) < SILENT_WINDOWS:
        return ""
    since = max(ends[-1], champion.at, last or champion.at)
    took = timedelta(seconds=float(np.median([abs(b - a).total_seconds() for a, b in pairwise(ends)])))
    silent = now() - since
    if silent <= SILENT_WINDOWS * max(took, A_WINDOW_AT_LEAST):
        return ""
    days, usual = silent / timedelta(days=1), took / timedelta(days=1)
    return (
        f"no prediction since {since:%Y-%m-%d %H:%M} UTC, for {days:.1f} days, where a window took {usual:.1f}: is "
        "anybody asking, and is it the champion?"
    )


def judge_window(predictor: Predictor, named: str, window: Window, refused: Mapping[tuple[str, str], int]) -> Report:
    """The report of one window. `refused`: records that the contract refused in its time, by code and field."""
    if window.purged and not len(window):
        refused = {}  # of how many records nobody can tell
    checked = [_checked(predictor, record) for record in window.records]
    broken = sum(record is None for record in checked)
    values = as_arrays(predictor.spec.columns, checked)
    at = np.array([record.at.timestamp() if record and record.at else np.nan for record in checked])
    sampled = _sample(predictor, [place for place, record in enumerate(checked) if record is not None])
    seen = Seen(
        X=window.features,
        risk=window.risks,
        outcomes=window.outcomes,
        attributes=build.attributes(predictor.plan, values, at),
        received=window.received,
        now=now().timestamp(),
        skewed=_skewed(predictor, window, values, at, sampled),
        sampled=len(sampled),
        refused=refused,
        risks=window.by_class.risks if window.by_class else None,
        label=_label(predictor, window),
    )
    report = monitoring.judge(predictor.bundle, named, seen)
    if window.purged and not len(window):
        report = replace(report, findings=tuple(_purged(finding, window.purged) for finding in report.findings))
    if not broken:
        return report
    why = (
        f"the records of {count(broken)} of {count(len(window))} predictions do not keep the contract as this code "
        "reads it; they were not computed again"
    )
    found = Finding(BROKEN, "records that keep the contract", "failed", 1 - broken / len(window), "= 1", why)
    return replace(report, findings=(*report.findings, found))


def _label(predictor: Predictor, window: Window) -> Array | None:
    """The number of the class that came true, (n,), NaN where it is not known; None of a model without several."""
    if window.by_class is None:
        return None
    number = {name: float(place) for place, name in enumerate(predictor.classes)}
    return np.array([number[name] if name else np.nan for name in window.happened], np.float64)


def _purged(finding: Finding, n: int) -> Finding:
    """Of a window of which nothing is left: that nobody asked is not so."""
    if finding.code != "MW001":
        return finding
    why = f"purged: the records of all {count(n)} predictions were removed before they were judged"
    return replace(finding, verdict="not applicable", value=None, explanation=why)


def _checked(predictor: Predictor, record: dict[str, Any]) -> Record | None:
    try:
        return predictor.check(record)
    except RecordError:
        return None


def _sample(predictor: Predictor, places: Sequence[int]) -> NDArray[np.intp]:
    generator = np.random.default_rng(predictor.spec.split.seed)
    return np.sort(generator.choice(np.array(places, np.intp), min(RECOMPUTED, len(places)), replace=False))


def _skewed(
    predictor: Predictor, window: Window, values: Mapping[str, Array], at: Array, sampled: NDArray[np.intp]
) -> int:
    """How many of these predictions come out otherwise now: other features, or a risk that lies too far off."""
    if not len(sampled):
        return 0
    X = build.build(predictor.plan, {name: column[sampled] for name, column in values.items()}, at[sampled])
    same = np.array([feature_digest(row) == window.digests[place] for row, place in zip(X, sampled, strict=True)])
    risks = predictor.risks(X)
    close = np.abs(predictor.positive(risks) - window.risks[sampled]) <= predictor.tolerance
    if window.by_class is not None:
        close &= np.abs(risks - window.by_class.risks[sampled]).max(axis=1) <= predictor.tolerance
    return int((~(same & close)).sum())


def _judge(engine: Engine, predictor: Predictor, block: Block) -> Judged:
    window, outcomes_to = windows.read(engine, block)
    report = judge_window(predictor, _named(f"window {block.number}", window), window, _refused(engine, block, window))
    return windows.keep(engine, block, window, outcomes_to, report)


def _refused(engine: Engine, block: Block, window: Window) -> dict[tuple[str, str], int]:
    """What was refused after the window before and up to this one's end: each refusal belongs to one window.

    Of a first window, since the bundle was promoted; since its own first prediction where others were passed over.
    """
    if window.first is None or window.last is None:
        return {}
    before = windows.ended(engine, block.model, block.bundle, before=block.number)
    at = [
        one.at
        for one in pages.decided(engine, block.model)
        if one.kind == "promotions" and one.fields["bundle"] == block.bundle and one.at <= window.last
    ]
    if before is not None:
        begin = max([before, *at])
    else:
        begin = max(at, default=window.first) if block.first == (0, 0) else window.first
    return refusals.between(engine, block.model, begin, window.last)


def _named(what: str, window: Window) -> str:
    if window.first is None or window.last is None:
        return f"{what}, which is empty"
    purged = f" (and {count(window.purged)} that were purged)" if window.purged else ""
    return (
        f"{what}, {count(len(window))} predictions{purged}, "
        f"{window.first:%Y-%m-%d %H:%M} to {window.last:%Y-%m-%d %H:%M} UTC"
    )


def _episodes(
    engine: Engine,
    champion: Promotion,
    judged: Iterable[Judged],
    channels: Sequence[str],
    since: Mapping[Key, str] | None = None,
) -> list[Episode]:
    """Begin and end episodes: of each finding the newest window counts in which it could be judged.

    `since`: what is so after the last window, a text where it fails; it counts before what windows say. Without it
    nothing is ended that may still be so.
    """
    newest: dict[Key, str] = {}
    for one in sorted(judged, key=lambda one: one.block.number):
        if any(finding.code == "MW001" and finding.verdict == "passed" for finding in one.report.findings):
            newest |= {key: "" for key in newest if key[0] in ONLY_IF_THERE}
        newest |= {
            (finding.code, finding.title): _text(one.report, finding) if finding.verdict == "failed" else ""
            for finding in one.report.findings
            if finding.verdict != "not applicable"
        }
    if since is None:  # what came after the last window may fail still
        newest = {key: text for key, text in newest.items() if text or key[0] not in OF_REFUSALS}
    newest |= since or {}
    texts = {key: text for key, text in newest.items() if text}
    return failing(engine, champion.model, champion.version, texts, newest.keys() - texts.keys(), channels)


def _text(report: Report, finding: Finding) -> str:
    """What failed, for a person to read."""
    return f"{finding.title}: {finding.explanation} ({report.data})"


def _filling(engine: Engine, champion: Promotion, predictor: Predictor) -> tuple[Shown, Window]:
    """The champion's window that is not full yet, or has nothing in it at all; it is on no record."""
    size = predictor.spec.monitoring.window
    block = windows.open_block(engine, champion.model, champion.version, champion.bundle, size)
    window = predictions.laid_out((), {}, 0)
    if block is not None:
        window, _ = windows.read(engine, block)
    begin = max(windows.ended(engine, champion.model, champion.bundle) or champion.at, champion.at)
    refused = refusals.between(engine, champion.model, begin, now())
    report = judge_window(predictor, _named("a window that is not full yet", window), window, refused)
    return _unkept(champion, window, report, f"window-{champion.version}-filling.html"), window


def _ad_hoc(
    engine: Engine, champion: Promotion, predictor: Predictor, since: datetime, settings: Settings
) -> Monitored:
    window = predictions.window(engine, champion.model, champion.bundle, None, since)
    refused = refusals.between(engine, champion.model, since, now())
    report = judge_window(predictor, _named(f"all since {since:%Y-%m-%d %H:%M} UTC", window), window, refused)
    shown = _unkept(champion, window, report, f"since-{since:%Y%m%dT%H%M%S}.html")
    drawing, undrawn, notes = _draw(champion, predictor, window, settings)
    path = settings.reports / champion.model / shown.page
    pages.write_window(path, shown, notes)
    return Monitored(report, path, drawing, undrawn)


def _unkept(champion: Promotion, window: Window, report: Report, page: str) -> Shown:
    return Shown(
        version=champion.version,
        number=None,
        n=len(window),
        outcomes=int(np.isfinite(window.outcomes).sum()),
        begins_at=window.first or now(),
        ends_at=window.last or now(),
        report=report,
        page=page,
    )


def _draw(
    champion: Promotion, predictor: Predictor, window: Window, settings: Settings
) -> tuple[Path, dict[str, str], list[str]]:
    """Evidently's drawing of the window's inputs, what it does not hold and why, and what a page says about it."""
    folder = settings.private(settings.reports / champion.model)
    path = folder / "drift.html"
    reference, note = _reference(predictor, settings)
    kinds = {feature.name: "category" if feature.categories else "number" for feature in predictor.plan.summaries}
    title = f"{champion.model}@{champion.version}: drift of the inputs, {_named('the newest window', window)}"
    current = _frame(predictor.plan, window.features)
    try:
        undrawn = drift.page(reference, current, kinds, title, path, predictor.spec.split.seed)  # type: ignore[arg-type]
    except OSError as exc:
        raise LedgerError(f"{path.name}: could not be written ({exc.strerror or exc}). Nothing was changed.") from exc
    notes = [
        f"{predictor.spec.title}. Version {champion.version}, champion since {champion.at:%Y-%m-%d %H:%M} UTC.",
        f"Drawing of the newest window's inputs, with patients' values in it: {path.name}. {note}",
        *(f"Not drawn: {column}, {why}" for column, why in undrawn.items()),
    ]
    return path, undrawn, notes


def _reference(predictor: Predictor, settings: Settings) -> tuple["pd.DataFrame | None", str]:
    """The rows that the bundle was trained on, if this machine has them, and what the page says about it."""
    bundle = predictor.bundle
    name = bundle.spec.name
    try:
        patients = cohort.load(settings.data / "cohorts" / f"{name}.parquet")
    except CohortError as exc:
        return None, f"It has no reference: {exc}"
    if patients.fingerprint != bundle.training["data"]:
        return None, "It has no reference: the cohort on this machine is not the one this version was trained on."
    learned = predictor.plan.summary(patients.only("train").X)
    return _frame(predictor.plan, learned), "Its reference is the training part of the cohort."


def _frame(plan: build.Plan, X: NDArray[np.float32]) -> "pd.DataFrame":
    """The columns of a plan's `summary`, as people read them."""
    import pandas as pd

    columns = {}
    for position, feature in enumerate(plan.summaries):
        column = X[:, position].astype(np.float64) if len(X) else np.empty(0)
        columns[feature.name] = labels(feature.categories, column) if feature.categories else column
    return pd.DataFrame(columns)
