"""What the monitor found last, as Prometheus reads it: from the ledger alone, so every worker tells the same.

BentoML's own metrics add up what the workers count. A figure must not be added up, and one whose model has another
champion now must go: neither can be told through files that the workers share, so it is written out here.
"""

from collections.abc import Iterator, Mapping, Sequence
from math import isfinite
from typing import Any

from ledger import alerts, windows
from ledger.database import Engine
from ledger.promotions import Promotion

Sample = tuple[Mapping[str, Any], float]
"""Labels and value."""

WINDOW = {
    "medimind_window_number": "The number of the newest judged window of the champion's predictions.",
    "medimind_window_predictions": "Predictions in the newest judged window.",
    "medimind_window_outcomes": "Predictions of the newest judged window whose outcome was known.",
    "medimind_window_failed_findings": "Findings that failed in the newest judged window.",
    "medimind_window_judged_timestamp_seconds": "When the newest judged window was judged last.",
}
SMALLEST_COUNT = 10
"""Nothing is told that fewer patients could be counted from: whoever reads /metrics need not be the ledger's owner."""
FIGURE = "medimind_window_figure"
EPISODES = "medimind_episodes_open"
UNDELIVERED = "medimind_alerts_undelivered"
HELP = WINDOW | {
    FIGURE: "A figure of the newest judged window: realized, by its outcomes, or an estimate without them.",
    EPISODES: "Findings that failed and have not passed since.",
    UNDELIVERED: "Alerts that wait for a channel to take them.",
}


def read(engine: Engine, champions: Sequence[Promotion]) -> bytes:
    """The gauges of these champions' newest judged windows, and of the alerts, in Prometheus' text format.

    Raises LedgerError if they cannot be read.
    """
    found: dict[str, list[Sample]] = {name: [] for name in HELP}
    for champion in champions:
        of = {"model": champion.model, "version": champion.version}
        for judged in windows.judged(engine, champion.model, champion.bundle, last=1):
            report = judged.report
            values = (
                judged.block.number,
                judged.block.n,
                judged.outcomes if judged.outcomes >= SMALLEST_COUNT or not judged.outcomes else None,
                len(report.failed),
                judged.judged_at.timestamp(),
            )
            for name, value in zip(WINDOW, values, strict=True):
                if value is not None:
                    found[name].append((of, value))
            for kind, figures in _told(report.figures):
                for named, value in _values(figures):
                    found[FIGURE].append(({**of, "kind": kind, **named}, value))
        found[EPISODES].append(({"model": champion.model}, len(alerts.open_episodes(engine, champion.model))))
    found[UNDELIVERED].append(({}, alerts.waiting(engine)))
    return "".join(_lines(found)).encode()


def _told(figures: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """A window's figures, without those that fewer than 10 patients could be counted from: what came true of fewer
    events or non-events, and the alerts where fewer were alerted, or were not."""
    if not figures.get("few"):
        yield "realized", figures.get("realized") or {}
    estimate, n = dict(figures.get("estimate") or {}), figures.get("n") or 0
    if isinstance(alerts_per_100 := estimate.get("alerts_per_100"), Mapping):
        estimate["alerts_per_100"] = {
            point: row
            for point, row in alerts_per_100.items()
            if min(row["value"], 100 - row["value"]) * n / 100 > SMALLEST_COUNT - 0.5
        }
    yield "estimate", estimate


def _values(figures: Mapping[str, Any]) -> Iterator[tuple[Mapping[str, str], float]]:
    """The finite values among a report's figures, by name, and by operating point where there is one for each."""
    for name, figure in figures.items():
        if not isinstance(figure, Mapping):
            continue
        by_point = {"": figure} if "value" in figure else figure
        for point, of_point in by_point.items():
            value = of_point.get("value") if isinstance(of_point, Mapping) else None
            if isinstance(value, int | float) and isfinite(value):
                yield ({"figure": name, "point": point} if point else {"figure": name}), value


def _lines(found: Mapping[str, Sequence[Sample]]) -> Iterator[str]:
    for name, samples in found.items():
        if samples:
            yield f"# HELP {name} {HELP[name]}\n# TYPE {name} gauge\n"
        for labels, value in samples:
            inner = ",".join(f'{label}="{_escaped(str(text))}"' for label, text in labels.items())
            yield f"{name}{{{inner}}} {float(value)!r}\n" if inner else f"{name} {float(value)!r}\n"


def _escaped(text: str) -> str:
    return text.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")
