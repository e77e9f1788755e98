"""The windows of a model one after the other, as one page: what was seen, what was estimated, what came true.

Made of the windows' reports alone: no network, no script, no patient, no count under 10.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from html import escape
from string import ascii_uppercase
from typing import Any

from evidence import exhibits, monitoring
from evidence.estimate import ASSUMPTION
from evidence.exhibits import Figures, number, spread
from evidence.page import banner, foot, top
from evidence.report import Report
from evidence.subgroups import SMALLEST_CELL
from evidence.svg import Axis, Line, lines

CLOSE = 0.09
"""Of the axis' length: what two marks' letters need between them."""

FEW = 40
"""Of up to so many windows each has its dot."""


@dataclass(frozen=True)
class Shown:
    """A window that was judged: the version that answered in it, its number among that version's, and its report.

    `page` is the address of its own page, as seen from the time line. One that is on no record has no number.
    """

    version: int
    number: int | None
    n: int
    outcomes: int
    begins_at: datetime
    ends_at: datetime
    report: Report
    page: str

    @property
    def title(self) -> str:
        return "a window on no record" if self.number is None else f"window {self.number}"

    @property
    def label(self) -> str:
        return f"@{self.version} · {'not full' if self.number is None else self.number}"


@dataclass(frozen=True)
class Mark:
    """What happened to the model at that time, in words: a promotion, a rollback, a step of a retraining."""

    at: datetime
    words: str


@dataclass(frozen=True)
class Series:
    """A figure over the windows: its name, how a window tells it, and how it is drawn."""

    label: str
    of: Callable[[Shown], Figures | None]
    kind: str = "line"


def html(
    title: str, windows: Sequence[Shown], marks: Sequence[Mark], notes: Sequence[str], champion: int | None = None
) -> str:
    """The page of a model's windows, in the order in which they came, at least one.

    `notes` are sentences that stand on top: where the data are invented or replayed, say so here. `champion`: the
    version that is champion now, so that the figures of another are not taken for its own.
    """
    newest = windows[-1]
    other = ""
    if champion is not None and champion != newest.version:
        other = (
            f'<p class="note">Version {champion} is champion now, and no window of it is newest here: the figures on '
            f"top, the CUSUM and the trust in the estimates are those of version {newest.version}.</p>"
        )
    drawn = _Drawn(windows, _placed(windows, marks))
    said = "".join(f"<p class='invented'>{escape(note)}</p>" for note in notes)
    sections = {
        "performance": ("Performance", f"{_estimate(windows)}{_exhibits(_performance(drawn))}"),
        "inputs": ("Inputs and risks", _exhibits(_inputs(drawn))),
        "marks": ("What happened", _told(drawn.marks)),
        "windows": ("Windows", _windows(windows)),
    }
    contents = "".join(f'<li><a href="#{key}">{heading}</a></li>' for key, (heading, _) in sections.items())
    bodies = "".join(
        f'<section aria-labelledby="{key}"><h2 id="{key}">{heading}</h2>{body}</section>'
        for key, (heading, body) in sections.items()
    )
    return (
        f'{top(title)}<header><a class="skip" href="#performance">To the figures</a>'
        f'<p class="eyebrow">Monitoring · {escape(newest.report.name)}</p><h1>{escape(title)}</h1>{said}'
        f'<p class="about">The newest window, <a href="{escape(newest.page)}">{escape(newest.label)}</a>: '
        f"{count(newest.n)} predictions, {newest.begins_at:%Y-%m-%d %H:%M} to {newest.ends_at:%Y-%m-%d %H:%M} UTC, "
        f"the outcome of {count(newest.outcomes)} known.</p>{other}{banner(newest.report)}"
        f"{_tiles(newest.report.figures)}"
        f'<nav aria-label="Contents"><ul>{contents}</ul></nav></header><main>{bodies}</main>{foot(newest.report)}'
    )


def count(n: int) -> str:
    """A number of patients; one under 10 is not told."""
    return f"fewer than {SMALLEST_CELL}" if 0 < n < SMALLEST_CELL else f"{n:,}" if n else "none"


def held(figures: Figures, *keys: str) -> Figures | None:
    """A figure with its interval, where a window has it."""
    found: Any = figures
    for key in keys:
        found = found.get(key) if isinstance(found, Mapping) else None
    if isinstance(found, int | float):
        return {"value": float(found)}
    return found if isinstance(found, Mapping) and found.get("value") is not None else None  # type: ignore[return-value]


def error_of(estimate: Figures | None, realized: Figures | None) -> float | None:
    """How far an estimate lay above what came true."""
    return estimate["value"] - realized["value"] if estimate and realized else None


@dataclass(frozen=True)
class _Drawn:
    """The windows, and the marks as they are drawn: letter, place on the axis, and what happened."""

    windows: Sequence[Shown]
    marks: Sequence[tuple[str, float, Mark]]

    @property
    def axis(self) -> Axis:
        return Axis("window, in order", 0.5, max(len(self.windows), 5) + 0.5, whole=True)

    def chart(
        self,
        key: str,
        title: str,
        said: str,
        axis: tuple[str, float, float, bool],
        series: Sequence[Series],
        reference: tuple[str, float] | None = None,
        extra: tuple[str, Callable[[Shown], str]] | None = None,
    ) -> tuple[str, str]:
        """The figure over the windows, or a sentence that no window has it. The axis grows to hold what is drawn."""
        found = [[one.of(window) for window in self.windows] for one in series]
        if not any(any(row) for row in found):
            return title, '<p class="absent">Not known for any window yet.</p>'
        label, low, high, percent = axis
        y_axis = Axis(label, *_grown(low, high, [row for rows in found for row in rows if row]), percent)
        drawn = self._verticals(y_axis)
        if reference is not None:
            drawn.append(Line("", [(0.5, reference[1]), (self.axis.high, reference[1])], "dotted"))
        for one, rows in zip(series, found, strict=True):
            drawn += _curves(one, rows, [window.version for window in self.windows], y_axis)
        heads = ["window", *(one.label for one in series), *([extra[0]] if extra else [])]
        cells = [
            [window.label, *(_cell(row[place], percent) for row in found), *([extra[1](window)] if extra else [])]
            for place, window in enumerate(self.windows)
        ]
        if reference is not None:
            said = f"{said} Dotted: {reference[0]}."
        drawing = lines(key, (title, said), (self.axis, y_axis), drawn)
        return title, exhibits.figure(title, drawing, said, heads, cells)

    def _verticals(self, axis: Axis) -> list[Line]:
        """A line for each mark; of those too close for a letter each, the first has the letters of all."""
        near = (self.axis.high - self.axis.low) * CLOSE
        groups: list[list[tuple[str, float]]] = []
        for letter, place, _ in self.marks:
            if groups and place - groups[-1][0][1] < near:
                groups[-1].append((letter, place))
            else:
                groups.append([(letter, place)])
        drawn = []
        for group in groups:
            letters, at = [letter for letter, _ in group], group[0][1]
            label = letters[0] if len(letters) == 1 else f"{letters[0]}–{letters[-1]}"
            drawn.append(Line(label, [(at, axis.low), (at, axis.high)], "dashed", (at, axis.high)))
            rest = dict.fromkeys(place for _, place in group if place != at)
            drawn += [Line("", [(place, axis.low), (place, axis.high)], "dashed") for place in rest]
        return drawn


def _placed(windows: Sequence[Shown], marks: Sequence[Mark]) -> list[tuple[str, float, Mark]]:
    placed = []
    for index, mark in enumerate(sorted(marks, key=lambda mark: mark.at)):
        before = sum(window.ends_at <= mark.at for window in windows)
        round_, letter = divmod(index, len(ascii_uppercase))
        placed.append((ascii_uppercase[letter] + (str(round_ + 1) if round_ else ""), before + 0.5, mark))
    return placed


def _has(row: Figures, end: str) -> bool:
    return row.get(end) is not None


def _grown(low: float, high: float, rows: Sequence[Figures]) -> tuple[float, float]:
    """The axis' ends, moved to hold every value, and the intervals as far as twice the axis goes."""
    span = high - low
    lows, highs = ([row[end] for row in rows if _has(row, end)] for end in ("low", "high"))
    values = [row["value"] for row in rows]
    return min(max(min([low, *lows]), low - span), *values), max(min(max([high, *highs]), high + span), *values)


def _curves(series: Series, rows: Sequence[Figures | None], versions: Sequence[int], axis: Axis) -> list[Line]:
    """One line for each run of windows of one version that have the figure."""

    def inside(value: float) -> float:
        return min(max(value, axis.low), axis.high)

    runs: list[list[int]] = []
    for place, row in enumerate(rows):
        if row is None:
            continue
        if runs and runs[-1][-1] == place - 1 and versions[place] == versions[place - 1]:
            runs[-1].append(place)
        else:
            runs.append([place])
    drawn: list[Line] = []
    for position, run in enumerate(runs):
        known = [rows[place] or {} for place in run]
        points = [(place + 1.0, inside(row["value"])) for place, row in zip(run, known, strict=True)]
        band: list[tuple[float, float]] = []
        if series.kind == "line" and all(_has(row, "low") and _has(row, "high") for row in known):
            band = [(inside(row["low"]), inside(row["high"])) for row in known]
        drawn.append(Line(series.label if position == 0 else "", points, series.kind, band=band))
        if len(run) == 1 and band:
            drawn.append(Line("", [(points[0][0], end) for end in band[0]], "interval"))
        if series.kind == "line" and (len(rows) <= FEW or len(run) == 1):
            drawn.append(Line("", points, "dots"))
        elif len(run) == 1:
            drawn.append(
                Line("", [(points[0][0] - 0.3, points[0][1]), (points[0][0] + 0.3, points[0][1])], series.kind)
            )
    return drawn


def _cell(row: Figures | None, percent: bool) -> str:
    if row is None:
        return "–"
    if percent:
        return f"{number(row['value'] * 100, 1)} %"
    return spread(row["value"], row.get("low"), row.get("high"))


def _performance(drawn: _Drawn) -> list[tuple[str, str]]:
    def realized(key: str) -> Callable[[Shown], Figures | None]:
        return lambda window: held(window.report.figures, "realized", key)

    def estimated(key: str) -> Callable[[Shown], Figures | None]:
        return lambda window: held(window.report.figures, "estimate", key)

    def error(window: Shown) -> str:
        return number(error_of(estimated("auroc")(window), realized("auroc")(window)))

    return [
        drawn.chart(
            "auroc",
            "AUROC, estimated and realized",
            "Realized as far as outcomes are known, with its 95 % interval; estimated from the risks alone.",
            ("AUROC", 0.5, 1.0, False),
            [
                Series("realized", realized("auroc")),
                Series("estimated", estimated("auroc"), "dashed"),
            ],
            extra=("error of the estimate", error),
        ),
        drawn.chart(
            "oe",
            "Observed / expected events",
            "How many events came for each that the risks announced, with the 95 % interval.",
            ("observed / expected", 0.0, 2.0, False),
            [Series("observed / expected", realized("observed_over_expected"))],
            ("as many as expected", 1.0),
        ),
        ("CUSUM of observed against expected", _cusum(drawn)),
        drawn.chart(
            "slope",
            "Calibration slope",
            "Below 1 the risks are too extreme, above 1 too timid; the 95 % interval is shaded.",
            ("slope", 0.0, 2.0, False),
            [Series("slope", realized("calibration_slope"))],
            ("perfect", 1.0),
        ),
        drawn.chart(
            "intercept",
            "Calibration intercept",
            "Above 0 the risks are too low on the whole, below 0 too high; the 95 % interval is shaded.",
            ("intercept", -1.0, 1.0, False),
            [Series("intercept", realized("calibration_intercept"))],
            ("perfect", 0.0),
        ),
        drawn.chart(
            "coverage",
            "Coverage of the prediction sets",
            "How often a prediction set held the truth, with the 95 % interval.",
            ("coverage", 0.5, 1.0, True),
            [Series("coverage", _coverage)],
            next(
                (("promised", row["nominal"]) for window in drawn.windows for row in coverages(window.report)),
                None,
            ),
        ),
    ]


def coverages(report: Report) -> list[Figures]:
    """The rows of a window's coverage, the one of all patients first."""
    return [row for row in report.figures.get("coverage") or [] if row.get("coverage") is not None]


def alerts_of(report: Report) -> dict[str, Figures]:
    """How many of 100 patients reached each operating point: risks alone tell it, and exactly."""
    return (report.figures.get("estimate") or {}).get("alerts_per_100") or {}


def _coverage(window: Shown) -> Figures | None:
    for row in coverages(window.report)[:1]:
        return {"value": row["coverage"], "low": row.get("low"), "high": row.get("high")}
    return None


def _cusum(drawn: _Drawn) -> str:
    known = [window for window in drawn.windows if window.report.figures.get("cusum")]
    if not known:
        return '<p class="absent">Not known for any window yet.</p>'
    crossed = [window.label for window in known if cusum_crossed(window.report.figures["cusum"])]
    over = f"It crossed its limit in {'; '.join(crossed)}." if crossed else "It crossed its limit in no window."
    said = f"The newest window with outcomes, {known[-1].label}. {over}"
    return cusum("cusum", known[-1].report.figures["cusum"], said)


def cusum_crossed(chart: Figures) -> bool:
    return any(chart.get(side) is not None for side in ("crossed_up", "crossed_down"))


def cusum(key: str, chart: Figures, said: str) -> str:
    """The risk-adjusted CUSUM of one window, upwards for more events than expected and downwards for fewer."""
    up, down, limit = chart["up"], chart["down"], float(chart["limit"])
    at = chart.get("at") or list(range(1, len(up) + 1))
    most = max([limit, *up, *(abs(value) for value in down)]) * 1.1 or 1.0
    last = max(float(at[-1]), 5.0) if at else 5.0
    drawn = [
        Line("", [(0.0, limit), (last, limit)], "dotted"),
        Line("", [(0.0, -limit), (last, -limit)], "dotted"),
        Line("more events", list(zip(at, up, strict=True))),
        Line("fewer", [(x, -abs(y)) for x, y in zip(at, down, strict=True)], "dashed"),
    ]
    title = "CUSUM of observed against expected"
    said = f"{said} Dotted: the limit that a calibrated model crosses in about 1 % of windows."
    axes = Axis("patients, in order", 0, last, whole=True), Axis("log likelihood ratio", -most, most)
    rows = [[f"{x:g}", number(y, 2), number(-abs(z), 2)] for x, y, z in zip(at, up, down, strict=True)]
    return exhibits.figure(title, lines(key, (title, said), axes, drawn), said, ("patient", "more", "fewer"), rows)


def failed(report: Report, code: str) -> list[str]:
    """What of this code failed: the features, where a finding's title names one."""
    return [finding.title.partition(": ")[2] or finding.title for finding in report.failed if finding.code == code]


def _inputs(drawn: _Drawn) -> list[tuple[str, str]]:
    def drifted(window: Shown) -> Figures | None:
        features = window.report.figures.get("drift")
        return {"value": len(failed(window.report, "MW003")) / len(features)} if features else None

    def missing(window: Shown) -> Figures | None:
        shares = list((window.report.figures.get("missing") or {}).values())
        return {"value": sum(shares) / len(shares)} if shares else None

    def named(code: str) -> Callable[[Shown], str]:
        return lambda window: ", ".join(failed(window.report, code)) or "none"

    points = list(dict.fromkeys(p for window in drawn.windows for p in alerts_of(window.report)))

    def alerts(point: str) -> Callable[[Shown], Figures | None]:
        def found(window: Shown) -> Figures | None:
            row = alerts_of(window.report).get(point)
            return {"value": row["value"] / 100} if row else None

        return found

    return [
        drawn.chart(
            "drift",
            "Features that drift",
            "The share of the features whose values are other than in training; false alarms over all of them are "
            "held at 1 % a window.",
            ("features", 0.0, 1.0, True),
            [Series("drift", drifted)],
            extra=("which", named("MW003")),
        ),
        drawn.chart(
            "missing",
            "Missing values",
            "The share of all values that were missing.",
            ("missing", 0.0, 0.1, True),
            [Series("missing", missing)],
            extra=("more or fewer than in training", named("MW002")),
        ),
        drawn.chart(
            "risk",
            "Mean risk and alerts",
            "The mean risk, and of 100 patients how many reached each operating point.",
            ("per 100", 0.0, 1.0, True),
            [
                Series("mean risk", lambda window: held(window.report.figures, "mean_risk")),
                *(
                    Series(point, alerts(point), kind)
                    for point, kind in zip(points, ("dashed", "dotted"), strict=False)
                ),
            ],
        ),
    ]


def _estimate(windows: Sequence[Shown]) -> str:
    """What the estimates take for granted, and how far those of the newest version have earned to be believed."""
    version = windows[-1].version
    trust = monitoring.trust([window.report.figures for window in windows if window.version == version], "auroc")
    error = ""
    if trust.mean_error is not None:
        side = "above" if trust.mean_error > 0 else "below"
        error = f" On the mean it lay {number(abs(trust.mean_error))} {side} what came true."
    return f"<p>{escape(ASSUMPTION)}</p><p>The estimated AUROC of version {version}: {escape(trust.why)}.{error}</p>"


def _exhibits(found: Sequence[tuple[str, str]]) -> str:
    told = "".join(f'<section class="exhibit"><h3>{title}</h3>{body}</section>' for title, body in found)
    return f'<div class="exhibits">{told}</div>'


def _told(marks: Sequence[tuple[str, float, Mark]]) -> str:
    if not marks:
        return "<p>Nothing was promoted, rolled back or retrained while these windows came.</p>"
    rows = [[letter, f"{mark.at:%Y-%m-%d %H:%M}", mark.words] for letter, _, mark in marks]
    return exhibits.table("Marks of the figures above, times in UTC", ("mark", "when", "what"), rows)


def _windows(windows: Sequence[Shown]) -> str:
    heads = ("window", "from", "to (UTC)", "predictions", "outcomes", "AUROC (95 %)", "estimated", "failed")
    head = "".join(f'<th scope="col">{text}</th>' for text in heads)
    body = ""
    for window in reversed(windows):
        figures = window.report.figures
        cells = (
            f"{window.begins_at:%Y-%m-%d %H:%M}",
            f"{window.ends_at:%Y-%m-%d %H:%M}",
            count(window.n),
            count(window.outcomes),
            _cell(held(figures, "realized", "auroc"), False),
            _cell(held(figures, "estimate", "auroc"), False),
            ", ".join(dict.fromkeys(finding.code for finding in window.report.failed)) or "none",
        )
        body += f'<tr><th scope="row"><a href="{escape(window.page)}">{escape(window.label)}</a></th>'
        body += "".join(f"<td>{escape(cell)}</td>" for cell in cells) + "</tr>"
    caption = "Every window, the newest first: version, number"
    return (
        f'<div class="wide" role="group" tabindex="0" aria-label="{caption}"><table class="lined">'
        f"<caption>{caption}</caption><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def _tiles(figures: Figures) -> str:
    told = []
    for title, keys in (
        ("AUROC", ("realized", "auroc")),
        ("AUROC, estimated", ("estimate", "auroc")),
        ("observed / expected", ("realized", "observed_over_expected")),
        ("calibration slope", ("realized", "calibration_slope")),
        ("mean risk", ("mean_risk",)),
    ):
        if row := held(figures, *keys):
            ends = f"95 %: {number(row['low'])} to {number(row['high'])}" if _has(row, "low") else ""
            told.append(f"<div><dt>{title}</dt><dd>{number(row['value'])}<small>{ends}</small></dd></div>")
    return f'<dl class="tiles">{"".join(told)}</dl>' if told else ""
