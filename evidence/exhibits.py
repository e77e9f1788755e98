"""The review page's figures: each a plot, a sentence that says it in words, and its numbers as a table.

They are drawn from a Report's `figures` alone. One that a report does not hold says so in its place.
"""

from collections.abc import Callable, Mapping, Sequence
from html import escape
from typing import Any

from evidence.svg import Axis, Histogram, Line, Point, Row, bars, forest, lines

Figures = dict[str, Any]

MOST_ROWS = 51
"""Of a curve's table; a longer one is thinned evenly, its ends kept."""
LOWEST_NET_BENEFIT = -0.05
"""Below it a decision curve only says "worse than nothing", and would flatten what matters."""


def discrimination(figures: Figures) -> str:
    return _each(figures, {"roc": _roc, "precision_recall": _precision_recall})


def calibration(figures: Figures) -> str:
    return _each(figures, {"calibration": _calibration})


def use(figures: Figures) -> str:
    drawn = _each(figures, {"decision_curve": _decision_curve, "alert_burden": _alert_burden})
    return drawn + _each(figures, {"operating_points": _operating_points}, plain=True)


def fairness(figures: Figures) -> str:
    return _each(figures, {"subgroups": _subgroups, "sites": _sites})


def uncertainty(figures: Figures, promised: bool) -> str:
    if not promised and figures and not figures.get("conformal"):
        return '<p class="absent">Not reported: the spec promises no coverage (it has no <code>uncertainty</code>).</p>'
    return _each(figures, {"conformal": _conformal})


def classes(figures: Figures) -> str:
    """Nothing where the outcome has no classes."""
    beside = _held(figures, {"classes": _classes, "confusion": _confusion})
    return beside + _held(
        figures, {"origins": _origins, "class_sets": _class_sets, "class_calibration": _class_calibration}, plain=True
    )


def screening(figures: Figures) -> str:
    """Nothing where the spec names neither stages nor where the disease is screened for."""
    return _held(figures, {"stages": _stages}) + _held(figures, {"screening": _screening}, plain=True)


def reliance(figures: Figures) -> str:
    return _each(figures, {"importance": _importance, "robustness": _robustness})


def patients(figures: Figures) -> str:
    return _each(figures, {"flow": _flow, "table1": _table1, "sample_size": _sample_size}, plain=True)


TITLES = {
    "roc": "ROC curve",
    "precision_recall": "Precision and recall",
    "calibration": "Observed against predicted risk",
    "decision_curve": "Decision curve",
    "alert_burden": "Alert burden by threshold",
    "operating_points": "Operating points",
    "subgroups": "Subgroups",
    "sites": "Sites",
    "conformal": "Coverage of the prediction sets",
    "importance": "Feature importance",
    "robustness": "Robustness",
    "flow": "Cohort flow",
    "table1": "Table 1",
    "sample_size": "Sample size",
}
OF_SOME = {
    "classes": "Each class against the rest",
    "confusion": "Classes named",
    "origins": "Right class of the positives",
    "class_calibration": "Observed against predicted, by class",
    "class_sets": "Prediction sets by class",
    "stages": "Sensitivity by stage",
    "screening": "Where the disease is screened for",
}
"""What only some specs ask for: a report without such a figure does not miss it."""


def _held(figures: Figures, drawn: dict[str, Callable[[Any], str]], plain: bool = False) -> str:
    """Those of the figures that are there."""
    there = {key: draw for key, draw in drawn.items() if figures.get(key)}
    return _each(figures, there, plain) if there else ""


def _each(figures: Figures, drawn: dict[str, Callable[[Any], str]], plain: bool = False) -> str:
    told = []
    for key, draw in drawn.items():
        missing = f'<p class="absent">Not reported: {absent(figures)}.</p>'
        body = draw(figures[key]) if figures.get(key) else missing
        told.append(f'<section class="exhibit"><h3>{(TITLES | OF_SOME)[key]}</h3>{body}</section>')
    return "".join(told) if plain else f'<div class="exhibits">{"".join(told)}</div>'


def absent(figures: Figures) -> str:
    """Why a figure is not there."""
    if not figures:
        return "this version was validated by a release whose reports held no figures"
    return "the validation did not compute it for this version"


def table(caption: str, heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table of texts in a frame that scrolls by itself where the page is narrow; a row's first cell is its head."""
    head = "".join(f'<th scope="col">{escape(text)}</th>' for text in heads)
    body = "".join(
        f'<tr><th scope="row">{escape(row[0])}</th>{"".join(f"<td>{escape(cell)}</td>" for cell in row[1:])}</tr>'
        for row in rows
    )
    return (
        f'<div class="wide" role="group" tabindex="0" aria-label="{escape(caption)}"><table>'
        f"<caption>{escape(caption)}</caption><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def parameters(chosen: Mapping[str, float | int | str]) -> str:
    """What trials chose, in words."""
    told = [f"{name} {value:.3g}" if isinstance(value, float) else f"{name} {value}" for name, value in chosen.items()]
    return ", ".join(told) or "the family's own"


def number(value: float | None, digits: int = 3) -> str:
    """With so many decimals, a true minus, and a dash where there is none."""
    if value is None:
        return "–"
    text = f"{value:.{digits}f}" if abs(value) < 10_000 else f"{value:,.{digits}f}"
    return text.replace("-", "−") if float(text.replace(",", "")) else text.lstrip("-")


def spread(value: float | None, low: float | None, high: float | None, digits: int = 3) -> str:
    """A figure with its 95 % interval."""
    if value is None or low is None or high is None:
        return number(value, digits)
    return f"{number(value, digits)} ({number(low, digits)} to {number(high, digits)})"


def figure(
    title: str, drawing: str, said: str, heads: Sequence[str], rows: Sequence[Sequence[str]], note: str = ""
) -> str:
    """A drawing, the sentence that says it in words, and its numbers as a table that opens."""
    numbers = table(f"{title}: the numbers", heads, rows)
    return (
        f"<figure>{drawing}<figcaption>{escape(said)}</figcaption></figure>"
        f"<details><summary>{title} as a table{note}</summary>{numbers}</details>"
    )


def _figure(drawing: str, said: str, key: str, heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    thinned = _thinned(rows)
    note = f" ({len(thinned)} of {len(rows)} points)" if len(thinned) < len(rows) else ""
    return figure((TITLES | OF_SOME)[key], drawing, said, heads, thinned, note)


def _thinned(rows: Sequence[Sequence[str]]) -> list[Sequence[str]]:
    if len(rows) <= MOST_ROWS:
        return list(rows)
    return [rows[round(place * (len(rows) - 1) / (MOST_ROWS - 1))] for place in range(MOST_ROWS)]


def _pairs(xs: Sequence[float | None], ys: Sequence[float | None]) -> list[Point]:
    return [(x, y) for x, y in zip(xs, ys, strict=True) if x is not None and y is not None]


def _columns(*columns: Sequence[float | None]) -> list[list[str]]:
    return [[number(cell) for cell in row] for row in zip(*columns, strict=True)]


def _roc(roc: Figures) -> str:
    points = [(0.0, 0.0), *_pairs(roc["fpr"], roc["tpr"])]
    said = "How many of the events are found (sensitivity) at the price of how many false alarms (1 − specificity)."
    drawing = lines(
        "roc",
        (TITLES["roc"], said),
        (Axis("1 − specificity", 0, 1), Axis("sensitivity", 0, 1)),
        [
            Line("chance", [(0, 0), (1, 1)], "dashed", (0.66, 0.58)),
            Line("", points),
        ],
    )
    return _figure(drawing, said, "roc", ("1 − specificity", "sensitivity"), _columns(roc["fpr"], roc["tpr"]))


def _precision_recall(curve: Figures) -> str:
    points = sorted(_pairs(curve["recall"], curve["precision"]), key=lambda point: (point[0], -point[1]))
    prevalence = points[-1][1]
    said = (
        f"How many of the alarms are right as more of the events are found. "
        f"Alarms for everybody are right for {prevalence * 100:.0f} %."
    )
    drawing = lines(
        "precision-recall",
        (TITLES["precision_recall"], said),
        (Axis("sensitivity (recall)", 0, 1), Axis("PPV (precision)", 0, 1)),
        [
            Line("everybody", [(0, prevalence), (1, prevalence)], "dashed", (0.02, max(prevalence - 0.07, 0.02))),
            Line("", points),
        ],
    )
    rows = _columns(curve["recall"], curve["precision"])
    return _figure(drawing, said, "precision_recall", ("sensitivity", "PPV"), rows)


def _calibration(curve: Figures) -> str:
    return _calibration_of("calibration", TITLES["calibration"], curve, "predicted risk", "have the event")


def _calibration_of(name: str, title: str, curve: Figures, predicted: str, have: str) -> str:
    kept = [
        (risk, observed, low, high)
        for risk, observed, low, high in zip(curve["risk"], curve["observed"], curve["low"], curve["high"], strict=True)
        if None not in (risk, observed, low, high)
    ]
    said = (
        f"Where the curve lies on the dashed line, as many patients {have} as were predicted to; "
        "the shade is its 95 % interval, the bars are the patients at each risk."
    )
    histogram = curve.get("histogram")
    drawing = lines(
        name,
        (title, said),
        (Axis(predicted, 0, 1, percent=True), Axis("observed", 0, 1, percent=True)),
        [
            Line("perfect", [(0, 0), (1, 1)], "dashed", (0.68, 0.60)),
            Line("", [(row[0], row[1]) for row in kept], band=[(max(row[2], 0), min(row[3], 1)) for row in kept]),
        ],
        Histogram(histogram["edges"], histogram["counts"]) if histogram else None,
    )
    rows = [[number(risk), number(observed), number(low), number(high)] for risk, observed, low, high in kept]
    heads = ("predicted", "observed", "95 % from", "to")
    told = figure(title, drawing, said, heads, rows)
    if histogram:
        edges = histogram["edges"]
        counted = [
            [f"{number(low, 2)} to {number(high, 2)}", "fewer than 10" if count is None else str(count)]
            for low, high, count in zip(edges, edges[1:], histogram["counts"], strict=False)
        ]
        held = table(f"Patients by {predicted}", (predicted, "patients"), counted)
        told += f"<details><summary>Patients by {predicted} as a table</summary>{held}</details>"
    return told


def _decision_curve(curve: Figures) -> str:
    model, everybody = (_pairs(curve["threshold"], curve[name]) for name in ("model", "treat_all"))
    highest = max(y for _, y in model + everybody)
    top = max(highest * 1.1, 0.01)
    low, high = curve["threshold"][0], curve["threshold"][-1]
    ahead = [x for x, y in model if y > 0 and y > dict(everybody).get(x, 0)]
    where = (
        f"The model is ahead of both at {len(ahead)} of the {len(model)} thresholds drawn."
        if ahead
        else "The model is ahead of both nowhere."
    )
    said = (
        f"Net benefit of acting on the model, on everybody and on nobody, by the risk at which one would act. {where}"
    )
    drawing = lines(
        "decision-curve",
        (TITLES["decision_curve"], said),
        (Axis("risk at which one acts", low, high, percent=True), Axis("net benefit", LOWEST_NET_BENEFIT, top)),
        [
            Line("nobody", [(low, 0.0), (high, 0.0)], "dotted"),
            Line("everybody", _above(everybody, LOWEST_NET_BENEFIT), "dashed"),
            Line("model", _above(model, LOWEST_NET_BENEFIT)),
        ],
    )
    rows = _columns(curve["threshold"], curve["model"], curve["treat_all"])
    return _figure(drawing, said, "decision_curve", ("threshold", "model", "everybody"), rows)


def _above(points: Sequence[Point], floor: float) -> list[Point]:
    """The part of a curve above the floor, up to where it falls through it."""
    kept: list[Point] = []
    for (x1, y1), (x2, y2) in zip(points, [*points[1:], points[-1]], strict=True):
        if y1 >= floor:
            kept.append((x1, y1))
        if (y1 - floor) * (y2 - floor) < 0:
            kept.append((x1 + (floor - y1) / (y2 - y1) * (x2 - x1), floor))
    return kept


def _alert_burden(burden: Figures) -> str:
    thresholds = burden["threshold"]
    said = "Of 100 patients, how many raise an alert; of 100 events, how many are found; of 100 alerts, how many hold."
    alerts = [(x, y / 100) for x, y in _pairs(thresholds, burden["alerts_per_100"])]
    drawing = lines(
        "alert-burden",
        (TITLES["alert_burden"], said),
        (
            Axis("alert from this risk", thresholds[0], thresholds[-1], percent=True),
            Axis("per 100", 0, 1, percent=True),
        ),
        [
            Line("alerts", alerts),
            Line("sensitivity", _pairs(thresholds, burden["sensitivity"]), "dashed"),
            Line("PPV", _pairs(thresholds, burden["ppv"]), "dotted"),
        ],
    )
    rows = [
        [number(threshold), number(alert, 1), number(found), number(right)]
        for threshold, alert, found, right in zip(
            thresholds, burden["alerts_per_100"], burden["sensitivity"], burden["ppv"], strict=True
        )
    ]
    return _figure(drawing, said, "alert_burden", ("threshold", "alerts per 100", "sensitivity", "PPV"), rows)


def _operating_points(points: Sequence[Figures]) -> str:
    names = ("sensitivity", "specificity", "ppv", "npv", "alerts_per_100")
    rows = []
    for point in points:
        cells = [str(point["name"]), number(point["threshold"])]
        for name in names:
            held = point.get(name) or {}
            digits = 1 if name == "alerts_per_100" else 2
            cells.append(spread(held.get("value"), held.get("low"), held.get("high"), digits))
        rows.append([*cells, number(point.get("net_benefit"))])
    heads = ("point", "risk from", "sensitivity", "specificity", "PPV", "NPV", "alerts per 100", "net benefit")
    return table("What acting at each operating point does, with 95 % intervals", heads, rows)


def _subgroups(groups: Sequence[Figures]) -> str:
    rows = [
        Row(
            f"{group['attribute']}: {group['label']}",
            _told(group, group.get("auroc"), group.get("n")),
            group.get("auroc"),
            group.get("low"),
            group.get("high"),
        )
        for group in groups
    ]
    said = "AUROC of each subgroup with its 95 % interval; what is too small to be judged says so."
    listed = [
        [
            f"{group['attribute']}: {group['label']}",
            _count(group.get("n")),
            _count(group.get("events")),
            spread(group.get("auroc"), group.get("low"), group.get("high")),
            group.get("why") or "",
        ]
        for group in groups
    ]
    heads = ("subgroup", "patients", "events", "AUROC (95 %)", "not judged because")
    drawing = forest("subgroups", (TITLES["subgroups"], said), _auroc_axis(rows), rows, reference=0.5)
    return _figure(drawing, said, "subgroups", heads, listed)


def _sites(sites: Sequence[Figures]) -> str:
    def named(site: Figures) -> str:
        return f"{site['site']}, {site['kind']}" if site.get("kind") else str(site["site"])

    rows = [
        Row(
            named(site),
            _told(site, site.get("auroc"), site.get("n")),
            site.get("auroc"),
            site.get("low"),
            site.get("high"),
        )
        for site in sites
    ]
    said = "AUROC where the site's patients were not learned from, with its 95 % interval."
    listed = [
        [
            named(site),
            _count(site.get("n")),
            _count(site.get("events")),
            spread(site.get("auroc"), site.get("low"), site.get("high")),
            number(site.get("oe"), 2),
            site.get("why") or "",
        ]
        for site in sites
    ]
    heads = ("site", "patients", "events", "AUROC (95 %)", "observed / expected", "not judged because")
    drawing = forest("sites", (TITLES["sites"], said), _auroc_axis(rows), rows, reference=0.5)
    return _figure(drawing, said, "sites", heads, listed)


def _told(group: Figures, value: float | None, n: int | None) -> str:
    people = f"n {n}" if n is not None else "n < 10"
    return (
        f"{people} · {spread(value, group.get('low'), group.get('high'), 2)}"
        if value is not None
        else f"{people} · not judged"
    )


def _count(count: int | None) -> str:
    return "fewer than 10" if count is None else str(count)


def _auroc_axis(rows: Sequence[Row]) -> Axis:
    lowest = min((row.low if row.low is not None else row.value or 0.5 for row in rows), default=0.5)
    return Axis("AUROC", min(0.4, int(lowest * 10) / 10), 1)


def _conformal(groups: Sequence[Figures]) -> str:
    nominal = groups[0]["nominal"]
    rows = [
        Row(
            str(group["group"]),
            _covered(group),
            group["coverage"],
            group.get("low"),
            group.get("high"),
        )
        for group in groups
    ]
    said = f"How often the prediction set holds the truth; {nominal * 100:.0f} % is promised (dotted)."
    lowest = min((row.low if row.low is not None else row.value or 0 for row in rows), default=0.0)
    drawing = forest(
        "conformal",
        (TITLES["conformal"], said),
        Axis("coverage", min(0.7, int(lowest * 10) / 10), 1, percent=True),
        rows,
        reference=nominal,
    )
    listed = [
        [
            str(group["group"]),
            "–" if group.get("n") is None else str(group["n"]),
            spread(group["coverage"], group.get("low"), group.get("high")),
            number(group["nominal"], 2),
            number(group.get("abstained")),
        ]
        for group in groups
    ]
    heads = ("patients", "number", "coverage (95 %)", "promised", "abstained")
    return _figure(drawing, said, "conformal", heads, listed)


def _covered(group: Figures) -> str:
    """A group's coverage beside its line. A subgroup's number is left out: with the share it would tell a count."""
    share = spread(group["coverage"], group.get("low"), group.get("high"), 2)
    return share if group.get("n") is None else f"n {group['n']} · {share}"


def _classes(found: Sequence[Figures]) -> str:
    rows = [
        Row(
            one["name"],
            f"n {_count(one['n'])} · {spread(one['auroc'], *_ends(one['auroc_interval']), 2)}"
            if one["auroc"] is not None
            else "not judged",
            one["auroc"],
            *_ends(one["auroc_interval"]),
        )
        for one in found
    ]
    said = "How well each class is told from all others together (AUROC), with its 95 % interval."
    listed = [
        [
            one["name"],
            _count(one["n"]),
            spread(one["auroc"], *_ends(one["auroc_interval"])),
            spread(one["oe"], *_ends(one["oe_interval"]), 2),
            spread(one["slope"], *_ends(one["slope_interval"]), 2),
            number(one["intercept"], 2),
            number(one["ici"]),
            number(one["brier"]),
            one["why"] or "",
        ]
        for one in found
    ]
    heads = (
        *("class", "patients", "AUROC (95 %)", "observed / expected (95 %)", "calibration slope (95 %)"),
        *("intercept", "ICI", "Brier score", "not judged because"),
    )
    drawing = forest("classes", (OF_SOME["classes"], said), _auroc_axis(rows), rows, reference=0.5)
    return _figure(drawing, said, "classes", heads, listed)


def _confusion(held: Figures) -> str:
    rows = [
        [name, *("not told" if count is None else f"about {count}" for count in row)]
        for name, row in zip(held["classes"], held["rows"], strict=True)
    ]
    said = (
        "Of how many patients of each class (rows) the model names each class (columns), to the nearest ten. What is "
        "not told is a count under 10, or one of too few patients."
    )
    heads = ("of class", *(f"said {name}" for name in held["classes"]))
    return f"<p>{said}</p>" + table(OF_SOME["confusion"], heads, rows)


def _origins(rows: Sequence[Figures]) -> str:
    listed = [
        [
            f"{row['of']}, {'first guess' if row['guesses'] == 1 else 'first two guesses'}",
            _count(row["n"]),
            spread(row["right"], row["low"], row["high"]),
        ]
        for row in rows
    ]
    caption = "Of the patients with a positive class, how often it is the likeliest positive one"
    return table(caption, ("of", "patients", "right (95 %)"), listed)


def _class_calibration(curves: Figures) -> str:
    drawn = []
    for place, (name, curve) in enumerate(curves.items()):
        title = f"{name}: {TITLES['calibration'].lower()}"
        plot = _calibration_of(f"calibration-{place}", title, curve, f"predicted {name}", "are of the class")
        drawn.append(f"<div><h4>{escape(name)}</h4>{plot}</div>")
    return f'<div class="exhibits">{"".join(drawn)}</div>'


def _class_sets(rows: Sequence[Figures]) -> str:
    listed = [
        [row["class"], str(row["n"]), number(row["size"], 2), number(row["one"], 2), number(row["right_alone"], 2)]
        for row in rows
    ]
    heads = (
        "of class",
        "patients",
        "classes left, on average",
        "share with one left",
        "share with the right one alone",
    )
    return table("How many classes a prediction set leaves possible", heads, listed)


def _stages(stages: Sequence[Figures]) -> str:
    def named(one: Figures) -> str:
        return f"{one['point']}: stage {one['stage']}"

    rows = [
        Row(
            named(one),
            f"n {one['n']} · {spread(one['sensitivity'], one['low'], one['high'], 2)}"
            if one["sensitivity"] is not None
            else "not told",
            one["sensitivity"],
            one["low"],
            one["high"],
        )
        for one in stages
    ]
    said = "The share of patients with the disease who are found, by its stage, with Wilson's 95 % interval."
    listed = [
        [
            named(one),
            "not told" if one["n"] is None else str(one["n"]),
            spread(one["sensitivity"], one["low"], one["high"]),
            one["why"] or "",
        ]
        for one in stages
    ]
    drawing = forest("stages", (OF_SOME["stages"], said), Axis("sensitivity", 0, 1, percent=True), rows)
    return _figure(
        drawing, said, "stages", ("point and stage", "patients", "sensitivity (95 %)", "not told because"), listed
    )


def _screening(held: Figures) -> str:
    def told(estimate: Figures | None, digits: int = 3) -> str:
        return (
            number(None) if estimate is None else spread(estimate["value"], estimate["low"], estimate["high"], digits)
        )

    rows = [
        [
            point["name"],
            told(point["ppv"]),
            number(point["study_ppv"]),
            told(point["npv"], 4),
            told(point["alerts"], 0),
            told(point["found"], 0),
        ]
        for point in held["points"]
    ]
    heads = ("point", "PPV", "PPV in the study", "NPV", "alerts of 100,000", "of whom with the disease")
    said = (
        f"Where {100 * held['prevalence']:.3g} % have the disease ({held['source']}); in the study "
        f"{100 * held['study_prevalence']:.3g} % have it. It holds if sensitivity and specificity are the "
        "study's. The risk that an answer tells is the study's as well, and is not made for another prevalence."
    )
    return f"<p>{escape(said)}</p>" + table("What screening 100,000 people comes to, with 95 % intervals", heads, rows)


def _ends(interval: Sequence[float] | None) -> tuple[float | None, float | None]:
    return (None, None) if interval is None else (interval[0], interval[1])


def _importance(features: Sequence[Figures]) -> str:
    ordered = sorted(features, key=lambda feature: -feature["drop"])
    said = "How much AUROC is lost when a feature's values are shuffled among the patients."
    drawing = bars(
        "importance",
        (TITLES["importance"], said),
        [(str(f["feature"]), number(f["drop"]), max(f["drop"], 0.0)) for f in ordered],
    )
    rows = [[str(f["feature"]), spread(f["drop"], f.get("low"), f.get("high"))] for f in ordered]
    return _figure(drawing, said, "importance", ("feature", "loss of AUROC (95 %)"), rows)


def _robustness(probes: Sequence[Figures]) -> str:
    def named(probe: Figures) -> str:
        return f"{probe['probe']}: {probe['feature']}" if probe.get("feature") else str(probe["probe"])

    rows = [Row(named(p), number(p["change"]), p["change"], p.get("low"), p.get("high")) for p in probes]
    ends = [end for row in rows for end in (row.value, row.low, row.high) if end is not None]
    low, high = min([*ends, -0.02]), max([*ends, 0.02])
    said = "How much AUROC changes when a value is missing, in another unit, or noisy."
    drawing = forest(
        "robustness", (TITLES["robustness"], said), Axis("change in AUROC", low, high), rows, reference=0.0
    )
    listed = [
        [str(p["probe"]), str(p.get("feature") or "all"), spread(p["change"], p.get("low"), p.get("high"))]
        for p in probes
    ]
    return _figure(drawing, said, "robustness", ("probe", "feature", "change in AUROC (95 %)"), listed)


def attrition(flow: Figures) -> list[tuple[str, str, str, str]]:
    """From the rows read, step by step, to the patients of each part: the step, its rows, how many are left after it,
    and the events among them. What is left out counts down from what was read, and the parts add up to what is kept."""
    left, parts = flow["read"], flow["parts"]
    told = [("rows read", f"{left:,}", f"{left:,}", "")]
    for reason, count in flow["dropped"].items():
        left -= count
        told.append((f"left out: {reason}", f"−{count:,}", f"{left:,}", ""))
    kept, events = (sum(part[key] for part in parts.values()) for key in ("n", "events"))
    told.append(("kept", f"{kept:,}", f"{left:,}", f"{events:,}"))
    return [*told, *((name, f"{part['n']:,}", "", f"{part['events']:,}") for name, part in parts.items())]


def _flow(flow: Figures) -> str:
    drawn = table(
        "From the rows read to the patients of each part", ("step", "rows", "left", "events"), attrition(flow)
    )
    return f"{drawn}{_beyond(flow.get('beyond') or {})}"


def _beyond(counts: Figures) -> str:
    """Values that the assay could not tell, which count as what the contract says."""
    if not counts:
        return ""
    rows = [
        [name, *(f"{sides[side]:,}" if side in sides else "no limit" for side in ("below", "above"))]
        for name, sides in counts.items()
    ]
    return table("Values beyond detection, among all rows that keep the contract", ("input", "below", "above"), rows)


def _table1(held: Figures) -> str:
    rows = [
        [f"{row['name']}: {row['level']}" if row.get("level") else str(row["name"]), *map(str, row["cells"])]
        for row in held["rows"]
    ]
    return table("The patients, by outcome", ("characteristic", *map(str, held["columns"])), rows)


def _sample_size(criteria: Sequence[Figures]) -> str:
    rows = [
        [
            str(held["criterion"]),
            number(held.get("needed"), 0),
            number(held.get("have"), 0),
            "–" if held.get("needed") is None or held.get("have") is None
            else "enough" if held["have"] >= held["needed"] else "too few",
        ]
        for held in criteria
    ]  # fmt: skip
    return table("Patients needed to develop the model", ("criterion", "needed", "there are", "which is"), rows)
