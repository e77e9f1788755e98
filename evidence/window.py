"""One window of predictions as a page: the verdicts, what was estimated and what came true, what differs from training.

Made of the window's report alone, as the time line is.
"""

from collections.abc import Sequence
from html import escape

from evidence import exhibits
from evidence.estimate import ASSUMPTION
from evidence.exhibits import Figures, number, spread
from evidence.page import banner, figure, foot, top, verdict
from evidence.report import Report
from evidence.timeline import coverages, cusum, error_of, held

FIGURES = {
    "auroc": "AUROC",
    "observed_over_expected": "observed / expected events",
    "calibration_slope": "calibration slope",
    "calibration_intercept": "calibration intercept",
    "brier": "Brier score",
    "log_loss": "log loss",
    "ppv": "PPV",
    "alerts_per_100": "alerts per 100",
}


def html(report: Report, title: str, notes: Sequence[str]) -> str:
    """The page. `notes` are sentences about where the window stands."""
    figures = report.figures
    sections = {
        "verdicts": ("Verdicts", _verdicts(report)),
        "performance": ("Estimated and realized", f"<p>{escape(ASSUMPTION)}</p>{_performance(figures)}"),
        "cusum": ("Observed against expected", _cusum(figures)),
        "coverage": ("Coverage of the prediction sets", _coverage(report)),
        "subgroups": ("Subgroups", _subgroups(figures)),
        "inputs": ("Inputs against the training", _inputs(figures)),
    }
    contents = "".join(f'<li><a href="#{key}">{heading}</a></li>' for key, (heading, _) in sections.items())
    bodies = "".join(
        f'<section aria-labelledby="{key}"><h2 id="{key}">{heading}</h2>{body}</section>'
        for key, (heading, body) in sections.items()
    )
    said = "".join(f"<p>{escape(note)}</p>" for note in notes)
    return (
        f'{top(title)}<header><a class="skip" href="#verdicts">To the verdicts</a>'
        f'<p class="eyebrow">Monitoring · {escape(report.name)}</p><h1>{escape(title)}</h1>{said}{banner(report)}'
        f'<nav aria-label="Contents"><ul>{contents}</ul></nav></header><main>{bodies}</main>{foot(report)}'
    )


def _verdicts(report: Report) -> str:
    """What failed, to be read; what passed, and what could not be judged, to be opened."""
    failed = "".join(map(verdict, report.failed))
    told = f'<ul class="findings">{failed}</ul>' if failed else "<p>No finding failed.</p>"
    for kind in ("passed", "not applicable"):
        rows = [
            [f.code, f.title, figure(f), f.limit or "", f.explanation] for f in report.findings if f.verdict == kind
        ]
        if rows:
            held = exhibits.table(f"Findings, {kind}", ("code", "finding", "value (95 %)", "limit", "about"), rows)
            told += f"<details><summary>{len(rows)} findings: {kind}</summary>{held}</details>"
    return told


def _performance(figures: Figures) -> str:
    named = dict(FIGURES)
    for kind in ("realized", "estimate"):
        for key in figures.get(kind) or {}:
            named.setdefault(key, key.replace("_", " "))
    rows = []
    for key, name in named.items():
        said, came = (list(_rows(figures, kind, key)) for kind in ("estimate", "realized"))
        for point in dict.fromkeys([*(p for p, _ in said), *(p for p, _ in came)]):
            estimate, realized = dict(said).get(point), dict(came).get(point)
            error = number(error_of(estimate, realized))
            rows.append([f"{name}: {point}" if point else name, _told(estimate), _told(realized), error])
    if not rows:
        return '<p class="absent">Nothing could be estimated, and too few outcomes are known.</p>'
    heads = ("figure", "estimated (95 %)", "realized (95 %)", "error of the estimate")
    return exhibits.table("What the risks promised and what came true", heads, rows)


def _rows(figures: Figures, kind: str, key: str) -> list[tuple[str, Figures]]:
    """The figure, or where it has one for each operating point, those by the point's name."""
    if (row := held(figures, kind, key)) is not None:
        return [("", row)]
    by_point = (figures.get(kind) or {}).get(key)
    names = by_point if isinstance(by_point, dict) else {}
    return [(point, row) for point in names if (row := held(figures, kind, key, point)) is not None]


def _told(row: Figures | None) -> str:
    if row is None:
        return "–"
    return spread(row["value"], row.get("low"), row.get("high"), 1 if abs(row["value"]) >= 10 else 3)


def _cusum(figures: Figures) -> str:
    if not figures.get("cusum"):
        return '<p class="absent">Too few outcomes are known.</p>'
    return cusum("cusum", figures["cusum"], "Log likelihood of twice and of half the odds of an event.")


def _coverage(report: Report) -> str:
    rows = [
        [
            _group(row),
            f"{row['n']:,}",
            spread(row["coverage"], row.get("low"), row.get("high")),
            number(row.get("nominal"), 2),
        ]
        for row in coverages(report)
    ]
    if not rows:
        return '<p class="absent">Too few outcomes are known, or this version has no prediction sets.</p>'
    return exhibits.table(
        "How often the set held the truth", ("patients", "number", "coverage (95 %)", "promised"), rows
    )


def _subgroups(figures: Figures) -> str:
    rows = [
        [
            _group(row),
            "–" if row["n"] is None else f"{row['n']:,}",
            spread(row["auroc"], row.get("low"), row.get("high")),
        ]
        for row in figures.get("subgroups") or []
    ]
    if not rows:
        return '<p class="absent">No group is large enough.</p>'
    return exhibits.table("AUROC of each group that is large enough", ("patients", "outcomes", "AUROC (95 %)"), rows)


def _group(row: Figures) -> str:
    return f"{row['attribute']}: {row['label']}" if row["label"] else str(row["attribute"])


def _inputs(figures: Figures) -> str:
    drift, missing = figures.get("drift") or {}, figures.get("missing") or {}
    rows = [
        [
            name,
            f"{(drift.get(name) or {})['p']:.2g}" if (drift.get(name) or {}).get("p") is not None else "–",
            number((drift.get(name) or {}).get("psi"), 2),
            f"{missing[name]:.0%}" if missing.get(name) is not None else "–",
        ]
        for name in dict.fromkeys([*drift, *missing])
    ]
    if not rows:
        return '<p class="absent">There is nothing to compare.</p>'
    heads = ("feature", "p of no drift", "population stability index", "missing")
    return exhibits.table("Every feature against the training", heads, rows)
