"""A window of predictions against what the model was trained on, as findings MW001 to MW025; and what makes it due.

Every test of the inputs and of the score has its share of one chance in a hundred: so often, and no oftener, does a
window of patients who have not changed raise any of their alarms.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from configs.spec import Bound, Column, RetrainWhen, Spec
from evidence import cusum, estimate
from evidence.checks import gated, least_covered
from evidence.comparison import delong_interval
from evidence.estimate import ASSUMPTION, Trust
from evidence.metrics import (
    METRICS,
    SMALLEST_RISK,
    Z95,
    Array,
    auroc,
    calibration_intercept,
    logit,
    observed_over_expected,
    recalibration,
    resampled,
    wilson,
)
from evidence.report import Finding, Report, Verdict
from evidence.subgroups import FEWEST_OF_A_CLASS, FEWEST_PATIENTS, SMALLEST_CELL, told
from features import units
from models.bundle import Bundle
from models.conformal import Conformal
from models.training import histogram

FALSE_ALARMS = 0.01
"""The chance, about, that a window without drift raises any alarm on its inputs or score; shared among the tests."""


FEWEST_EXPECTED = 5
"""A smaller expected count makes the chi-square law untrue (Cochran WG. Biometrics 1954;10:417-451)."""
TABLES = 2_000
"""Drawn at a time for a p value where the law does not hold."""
MOST_TABLES = 400_000
EXCEEDING = 20
"""Tables as unlike as the one that is judged after which no more are drawn."""
REFUSED_AT_MOST = 0.01
"""The share of records that may be refused for one field, unless the spec tolerates more at ingest; our own limit."""
OF_REFUSALS = {"MW015": "out of range", "MW016": "new category", "MW017": "refused otherwise"}
REFUSAL_CODES = {"out_of_range": "MW015", "unknown_category": "MW016"}
ALIKE = 0.2
"""The share of a drift's stability index that another unit may leave, to be named; our own limit."""
CLOCK_MAY_DIFFER_S = 60.0
TITLES = {
    "auroc": "AUROC",
    "observed_over_expected": "observed / expected events",
    "calibration_slope": "calibration slope",
}
OF_OUTCOMES = {
    "MW006": "prevalence",
    "MW007": "AUROC",
    "MW008": "observed / expected events",
    "MW009": "calibration slope",
    "MW010": "calibration intercept",
    "MW011": "CUSUM of observed against expected",
    "MW012": "coverage of the prediction sets",
    "MW013": "AUROC of the worst subgroup",
    "MW021": "Brier score",
    "MW022": "log loss",
    "MW023": "PPV",
}


@dataclass(frozen=True)
class Seen:
    """A window of n predictions of one bundle, in the order in which they came.

    `X` (n, d) are their features, `risk` (n,), `outcomes` (n,) 0, 1 or NaN where not yet known, `attributes[name]` (n,)
    their labels, `received` (n,) when each came and `now` when they are looked at, in seconds since 1970. Of `sampled`
    predictions whose features were computed again, `skewed` came out otherwise. `refused` counts the records that the
    contract refused in the same time, by code and field ("" where it names none). Of several classes `risks` (n, K) are
    each one's, and `label` (n,) is the number of the one that came true, NaN where that is not known.
    """

    X: NDArray[np.float32]
    risk: Array
    outcomes: Array
    attributes: Mapping[str, NDArray[np.str_]]
    received: Array
    now: float
    skewed: int
    sampled: int
    refused: Mapping[tuple[str, str], int]
    risks: NDArray[np.float64] | None = None
    label: Array | None = None

    def __len__(self) -> int:
        return len(self.risk)


def judge(bundle: Bundle, window: str, seen: Seen) -> Report:
    """The monitoring report of one window; `window` names it. `figures` is what the pages, /metrics and `due` read.

    Of 1 to 9 predictions any figure would speak of single patients: nothing is judged but the server.
    """
    findings = [_size(len(seen))]
    if 0 < len(seen) < SMALLEST_CELL:
        server = (_skew(seen.skewed, seen.sampled), _clock(seen))
        return Report(bundle.spec.name, "monitoring", bundle.digest, window, (*findings, *server))
    known = int((~np.isnan(seen.outcomes)).sum())
    figures: dict[str, Any] = {"n": len(seen), "outcomes": None if 0 < known < SMALLEST_CELL else known}
    if len(seen):
        classes = bundle.reference.get("classes", {}) if seen.risks is not None else {}
        alpha = FALSE_ALARMS / (2 * len(bundle.reference["features"]) + 1 + len(classes))
        inputs, figures["drift"], figures["missing"] = _inputs(bundle, seen, alpha)
        findings += [*inputs, _score(bundle, seen.risk, alpha), *_class_scores(classes, seen.risks, alpha)]
        findings.append(_skew(seen.skewed, seen.sampled))
        findings += _units(bundle, seen.X, alpha)
        figures["mean_risk"] = float(seen.risk.mean())
        figures["estimate"] = estimate.estimate(seen.risk, bundle.thresholds, bundle.spec.split.seed)
        findings.append(_clock(seen))
    findings += _refused(bundle, seen)
    performance, more = _performance(bundle, seen)
    if len(seen):
        findings.append(_estimated(figures["estimate"], more.get("realized", {})))
    return Report(bundle.spec.name, "monitoring", bundle.digest, window, (*findings, *performance), {**figures, **more})


def due(windows: Sequence[Mapping[str, Any]], when: RetrainWhen) -> tuple[str, ...]:
    """Why a retraining is due, a sentence for each bound that the figures of a model's windows miss, oldest first.

    A bound is missed where the whole 95 % interval lies on its wrong side in the last two windows whose outcomes are
    known. Where outcomes are missing an estimate stands in for AUROC, if it has earned trust in earlier windows; it
    can add a reason, and never take one away: what it cannot see, outcomes have seen.
    """
    found = []
    for name, bound in when.bounds.items():
        for estimates in (False, True):
            known = list(_known(windows, name, estimates))[-2:]
            sides = [_side(figure, bound) for figure, _ in known]
            if len(known) == 2 and sides[0] is not None and sides[0] == sides[1]:
                told = " and ".join(
                    f"{figure['value']:.3g} ({figure['low']:.3g} to {figure['high']:.3g}){how}" for figure, how in known
                )
                found.append(f"{TITLES[name]} {told} in two windows in a row: {sides[0]} {bound.text}")
                break
    return tuple(found)


def trust(windows: Sequence[Mapping[str, Any]], name: str) -> Trust:
    """How far the estimates of a figure have earned to be believed, in the windows of which the outcomes are known."""
    return estimate.earned(
        [
            (said, came)
            for window in windows
            if (said := _held(window, "estimate", name)) and (came := _held(window, "realized", name))
        ]
    )


def _known(
    windows: Sequence[Mapping[str, Any]], name: str, estimates: bool
) -> Iterator[tuple[Mapping[str, float], str]]:
    """A figure of the windows of which it is known, oldest first: by outcomes, or by an estimate that is trusted."""
    believed = estimates and trust(windows, name).trusted
    for window in windows:
        if (came := _held(window, "realized", name)) is not None:
            yield came, ""
        elif believed and (said := _held(window, "estimate", name)) is not None:
            yield said, ", estimated"


def _held(window: Mapping[str, Any], kind: str, name: str) -> Mapping[str, float] | None:
    figure = (window.get(kind) or {}).get(name)
    if figure is None or any(figure.get(end) is None for end in ("value", "low", "high")):
        return None
    return dict(figure)


def _side(figure: Mapping[str, float], bound: Bound) -> str | None:
    if bound.low is not None and figure["high"] < bound.low:
        return "below"
    if bound.high is not None and figure["low"] > bound.high:
        return "above"
    return None


def _size(n: int) -> Finding:
    if n == 0:
        why = "no prediction of this version is on record in the window: is anybody asking, and is it the champion?"
        return Finding("MW001", "predictions in the window", "failed", 0.0, ">= 1", why)
    value = float(n) if n >= SMALLEST_CELL else None
    return Finding("MW001", "predictions in the window", "passed", value, ">= 1", f"{_counted(n)} predictions")


def _counted(n: int) -> str:
    """A number of patients; of 1 to 9 no more than that."""
    return f"fewer than {SMALLEST_CELL}" if 0 < n < SMALLEST_CELL else str(n)


def _inputs(bundle: Bundle, seen: Seen, alpha: float) -> tuple[list[Finding], dict[str, Any], dict[str, float]]:
    """MW002 and MW003 of each feature, and their figures."""
    findings, drifts, missing = [], {}, {}
    for position, (name, known) in enumerate(bundle.reference["features"].items()):
        column = seen.X[:, position].astype(np.float64)
        gone = np.isnan(column)
        findings.append(_missingness(name, known, bundle.reference["n"], gone, alpha, seen.attributes))
        finding, index = _drift(name, known, column[~gone], alpha)
        findings.append(finding)
        drifts[name] = {"p": finding.value, "psi": index, "failed": finding.verdict == "failed"}
        missing[name] = float(gone.mean())
    return findings, drifts, missing


def _missingness(
    name: str, known: dict[str, Any], n: int, gone: NDArray[np.bool_], alpha: float, attributes: Mapping[str, Any]
) -> Finding:
    before, now = known["missing"] / n, float(gone.mean())
    about = f"{now:.0%} missing in the window, {before:.0%} in training{_by_site(gone, attributes, everybody=True)}"
    if gone.all():
        about = f"missing in every record; {about}"
    p = p_value([known["missing"], n - known["missing"]], [int(gone.sum()), int((~gone).sum())])
    return _tested("MW002", f"missing: {name}", p, alpha, about)


def _drift(name: str, known: dict[str, Any], present: Array, alpha: float) -> tuple[Finding, float | None]:
    if not len(present):
        why = "no value in the window to compare"
        return Finding("MW003", f"drift: {name}", "not applicable", None, f"p >= {alpha:.2g}", why), None
    counts = _counts(known, present)
    index = stability_index(known["counts"], counts)
    about = f"{len(present)} values, population stability index {index:.2f}"
    return _tested("MW003", f"drift: {name}", p_value(known["counts"], counts, alpha), alpha, about), index


def _counts(known: Mapping[str, Any], present: Array) -> list[int]:
    if "categories" in known:
        return [int((present == index).sum()) for index in range(len(known["categories"]))]
    return histogram(present, known["edges"])


def _score(bundle: Bundle, risk: Array, alpha: float) -> Finding:
    known = bundle.reference["score"]
    alerts = [
        f"{100 * (risk >= threshold).mean():.0f} alerts per 100 at {point}, in training about "
        f"{100 * _share_above(known, threshold):.0f}"
        for point, threshold in bundle.thresholds.items()
    ]
    about = "; ".join([f"mean risk {risk.mean():.2f}, in training {known['mean']:.2f}", *alerts])
    p = p_value(known["counts"], histogram(risk, known["edges"]), alpha)
    return _tested("MW004", "drift: risk", p, alpha, about)


def _class_scores(
    classes: Mapping[str, Mapping[str, Any]], risks: NDArray[np.float64] | None, alpha: float
) -> Iterator[Finding]:
    """MW024: the risk of each class, whose means are the mix of classes that is expected."""
    for place, (name, known) in enumerate(classes.items()):
        assert risks is not None
        risk, before = risks[:, place], known["score"]
        about = f"mean risk {risk.mean():.2f}, in training {before['mean']:.2f}"
        p = p_value(before["counts"], histogram(risk, before["edges"]), alpha)
        yield _tested("MW024", f"drift: risk of {name}", p, alpha, about)


def _share_above(known: Mapping[str, Any], threshold: float) -> float:
    """The share of the training's risks from a threshold on, as far as their histogram tells: even within a bin."""
    below = np.cumsum([0, *known["counts"]]) / sum(known["counts"])
    return 1 - float(np.interp(threshold, [0.0, *known["edges"], 1.0], below))


def _tested(code: str, title: str, p: float, alpha: float, about: str) -> Finding:
    """A test's p value against its share of the false alarms."""
    return Finding(code, title, "failed" if p < alpha else "passed", p, f"p >= {alpha:.2g}", about)


def _skew(skewed: int, sampled: int) -> Finding:
    title = "training-serving skew"
    what = "computed again from what is on record: features to the bit, risks within 1e-6"
    about = f"{_counted(sampled)} predictions {what}"
    value = None if 0 < sampled < SMALLEST_CELL else float(skewed)
    return Finding("MW005", title, "failed" if skewed else "passed", value, "<= 0", about)


def _units(bundle: Bundle, X: NDArray[np.float32], alpha: float) -> list[Finding]:
    """MW014: each number that has drifted, and not or far less if values are taken to be in another unit."""
    findings = []
    for position, (name, known) in enumerate(bundle.reference["features"].items()):
        column = bundle.spec.contract_of(name)
        if column is None or column.signal or column.unit is None or "edges" not in known:
            continue
        present = X[:, position].astype(np.float64)
        present = present[~np.isnan(present)]
        others = units.beside(column.unit, column.accepts, column.loinc)
        if not others or len(present) < SMALLEST_CELL:
            continue
        before, as_is = known["counts"], histogram(present, known["edges"])
        index = stability_index(before, as_is)
        verdict: Verdict = "passed"
        why = f"stability index {index:.2f} as {column.unit}"
        fits = [fit for unit, way in others.items() for fit in _taken_as(unit, way, column, known["edges"], present)]
        if fits and p_value(before, as_is, alpha) < alpha:
            best = min(fits, key=lambda fit: stability_index(before, fit.counts))
            left = stability_index(before, best.counts)
            if left < ALIKE * index or p_value(before, best.counts, alpha) >= alpha:
                verdict = "failed"
                why = f"{best.share:.0%} of the values look like {best.unit}: {why}, {left:.2f} if they are {best.unit}"
        findings.append(Finding("MW014", f"unit: {name}", verdict, index, "no other unit fits", why))
    return findings


@dataclass(frozen=True)
class _Fit:
    """The histogram of a column's values if such a share of them is in that unit."""

    unit: str
    share: float
    counts: list[int]


def _taken_as(unit: str, way: units.Conversion, column: Column, edges: list[float], present: Array) -> Iterator[_Fit]:
    """All values taken to be in that unit, and those alone that lie beyond the training's outermost tenth.

    Those of which the contract would have taken the right number, and if they are 10 or more.
    """
    assert column.range is not None  # the Spec demands it of a number
    low, high = column.range
    meant = way(present)
    allowed = (meant >= low) & (meant <= high)
    outer = present < edges[0] if way(edges[0]) > edges[0] else present >= edges[-1]
    for chosen in (allowed, allowed & outer):
        if chosen.sum() >= SMALLEST_CELL:
            counts = histogram(np.where(chosen, meant, present), edges)
            yield _Fit(unit, float(chosen.mean()), counts)


def _refused(bundle: Bundle, seen: Seen) -> list[Finding]:
    """MW015 to MW017: records that the contract refused in the window's time, by field: out of range, a category that
    nobody knew, anything else."""
    asked = len(seen) + sum(seen.refused.values())
    allowed = max(bundle.spec.refused_rows_at_most, REFUSED_AT_MOST)
    findings = []
    for code, title in OF_REFUSALS.items():
        by_field: dict[str, int] = {}
        for (kind, field), n in seen.refused.items():
            if REFUSAL_CODES.get(kind, "MW017") == code:
                by_field[field] = by_field.get(field, 0) + n
        if not by_field:
            if asked:
                about = "no record was refused for it"
                findings.append(Finding(code, title, "passed", 0.0, f"share <= {allowed:g}", about))
            continue
        for field, n in sorted(by_field.items()):
            low, high = wilson(n, asked) or (0.0, 1.0)
            column = bundle.spec.columns.get(field)
            hint = ""
            if code == "MW015" and column is not None and column.accepts:
                hint = f"; a number without a unit counts as {column.unit}: is it {' or '.join(column.accepts)}?"
            shown = f"{title}: {field}" if field else title
            share = n / asked if n >= SMALLEST_CELL else None
            findings.append(
                Finding(
                    code,
                    shown,
                    "failed" if low > allowed else "passed",
                    share,
                    f"share <= {allowed:g}",
                    f"{_counted(n)} of {asked} records refused{hint}",
                    (low, high) if share is not None else None,
                )
            )
    return findings


def _estimated(figures: Mapping[str, Any], realized: Mapping[str, Any]) -> Finding:
    """MW018, shown and never judged: an estimate is no evidence against a model before outcomes bear it out."""
    said = figures.get("auroc")
    if said is None:
        why = "no AUROC can be expected of these risks"
        return Finding("MW018", "AUROC, estimated without outcomes", "not applicable", None, None, why)
    spread, came, about = (said["low"], said["high"]), realized.get("auroc"), ASSUMPTION
    if came is not None:
        about = f"{came['value']:.3f} came true: it was off by {said['value'] - came['value']:+.3f}. {ASSUMPTION}"
    return Finding("MW018", "AUROC, estimated without outcomes", "not applicable", said["value"], None, about, spread)


def _clock(seen: Seen) -> Finding:
    """MW019: whether the server's clock went back, or was ahead of this machine's."""
    steps = np.diff(seen.received)
    back = float(-steps.min()) if len(steps) and steps.min() < 0 else 0.0
    ahead = float(max(seen.received.max() - seen.now, 0.0)) if len(seen.received) else 0.0
    worst = max(back, ahead)
    about = "times rise, and none lies ahead"
    if worst > CLOCK_MAY_DIFFER_S:
        about = (
            f"the clock went back by {back:.0f} s, or was ahead of this machine's by {ahead:.0f} s; windows are in the "
            "order of their numbers all the same, but an age in days may be wrong"
        )
    return gated("MW019", "clock of the server", worst, None, Bound(low=None, high=CLOCK_MAY_DIFFER_S), about)


def _performance(bundle: Bundle, seen: Seen) -> tuple[list[Finding], dict[str, Any]]:
    """MW006 to MW013 of the outcomes that are known, and their figures."""
    spec = bundle.spec
    known = ~np.isnan(seen.outcomes)
    y, risk = seen.outcomes[known], seen.risk[known]
    attributes = {name: labels[known] for name, labels in seen.attributes.items()}
    fewest = max(spec.monitoring.min_outcomes, SMALLEST_CELL)
    if len(y) < fewest:
        why = f"{_counted(len(y))} outcomes are known, {fewest} are needed"
        return [Finding(code, title, "not applicable", None, None, why) for code, title in OF_OUTCOMES.items()], {}
    figures = realized(y, risk, bundle.thresholds, spec.split.seed)
    half = 2 * len(y) >= len(seen)
    series = cusum.chart(y, risk, spec.split.seed) if half else {}
    classes = tuple(spec.outcome.classes or ())
    risks, label = (None if of_each is None else of_each[known] for of_each in (seen.risks, seen.label))
    held = _in_sets(bundle, y, risk, risks, label)
    coverage = _coverage(bundle, held, attributes)
    groups = _groups(y, risk, attributes)
    few = min(y.sum(), len(y) - y.sum()) < SMALLEST_CELL
    events = f"fewer than {SMALLEST_CELL} events or non-events" if few else f"{int(y.sum())} events"
    counted = f"{len(y)} outcomes, {events}"
    when = spec.monitoring.retrain_when
    early = f"the outcomes of fewer than half of {len(seen)} predictions are known; it is judged from half on"
    waits = {code: Finding(code, OF_OUTCOMES[code], "not applicable", None, None, early) for code in ("MW006", "MW011")}
    findings = [_prevalence(bundle, y, attributes, few) if half else waits["MW006"]]
    for code, name in (
        ("MW007", "auroc"),
        ("MW008", "observed_over_expected"),
        ("MW009", "calibration_slope"),
        ("MW010", "calibration_intercept"),
        ("MW021", "brier"),
        ("MW022", "log_loss"),
    ):
        bound = (when.bounds.get(name) if when else None) or getattr(spec.gates, name)
        findings.append(_realized(code, OF_OUTCOMES[code], figures.get(name), bound, counted))
    findings += _alerted(bundle, len(y), figures.get("ppv", {}))
    findings += [
        _cusum(series, counted) if half else waits["MW011"],
        _covered(bundle, held, fewest),
        _gap(spec, figures, groups),
    ]
    if risks is not None and label is not None:
        findings += _class_totals(classes, risks, label, spec.split.seed)
    more: dict[str, Any] = {"realized": figures, "cusum": series, "coverage": coverage, "subgroups": groups}
    more["few"] = bool(few)
    return findings, {key: value for key, value in more.items() if value}


def realized(y: Array, risk: Array, thresholds: Mapping[str, float], seed: int) -> dict[str, Any]:
    """What came true of patients with these outcomes and risks (n,): each figure with its 95 % interval.

    AUROC by DeLong's variance, calibration slope and intercept by Wald, PPV by Wilson's score, the others by a
    percentile bootstrap. A figure that cannot be computed, or whose interval cannot, is absent; so is the AUROC of
    fewer than 10 of a class, whose variance is not known well enough. With so few, observed over expected has the
    exact interval of the observed share (Clopper, Pearson. Biometrika 1934;26:404-413): of no event a bootstrap knows
    only that there was none.
    """
    from scipy.stats import binomtest

    found: dict[str, Any] = {}
    n = len(y)
    if not n:
        return found

    def add(name: str, value: float, spread: tuple[float, float] | None) -> None:
        if spread is not None and np.isfinite([value, *spread]).all():
            found[name] = {"value": float(value), "low": float(spread[0]), "high": float(spread[1])}

    few = min(y.sum(), n - y.sum()) < FEWEST_OF_A_CLASS
    if not few:
        add("auroc", auroc(y, risk), delong_interval(y, risk))
    for name, value, error in _wald(y, risk):
        add(name, value, (value - Z95 * error, value + Z95 * error))
    clipped = np.clip(risk, SMALLEST_RISK, 1 - SMALLEST_RISK)
    each = np.array([y, risk, (risk - y) ** 2, -(y * np.log(clipped) + (1 - y) * np.log(1 - clipped))])
    chunks = [each[:, rows].sum(axis=2) for rows in resampled(n, np.random.default_rng(seed))]
    observed, expected, squares, losses = np.concatenate(chunks, axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        drawn = {"observed_over_expected": observed / expected, "brier": squares / n, "log_loss": losses / n}
    for name, values in drawn.items():
        finite = values[np.isfinite(values)]
        if len(finite) >= len(values) // 2:
            spread = np.percentile(finite, [2.5, 97.5])
            if name == "observed_over_expected" and few and risk.sum():
                spread = np.array(binomtest(int(y.sum()), n).proportion_ci(method="exact")) * n / risk.sum()
            add(name, METRICS[name](y, risk), (spread[0], spread[1]))
    ppv = {}
    for point, threshold in thresholds.items():
        alerted = risk >= threshold
        right, alerts = int(y[alerted].sum()), int(alerted.sum())
        if min(right, alerts - right) >= SMALLEST_CELL:
            low, high = wilson(right, alerts) or (0.0, 1.0)
            ppv[point] = {"value": right / alerts, "low": low, "high": high}
    return {**found, **({"ppv": ppv} if ppv else {})}


def _wald(y: Array, risk: Array) -> Iterator[tuple[str, float, float]]:
    """Calibration slope and intercept with their standard errors, from the information at the maximum."""
    odds = logit(risk)
    (level, slope), intercept = recalibration(y, risk), calibration_intercept(y, risk)
    if np.isfinite(intercept):
        p = 1 / (1 + np.exp(-(intercept + odds)))
        yield "calibration_intercept", intercept, float(1 / np.sqrt((p * (1 - p)).sum()))
    if np.isfinite(slope):
        p = 1 / (1 + np.exp(-(level + slope * odds)))
        w = p * (1 - p)
        centred = odds - (w * odds).sum() / w.sum()
        yield "calibration_slope", slope, float(1 / np.sqrt((w * centred**2).sum()))


def _prevalence(bundle: Bundle, y: Array, attributes: Mapping[str, NDArray[np.str_]], few: bool) -> Finding:
    before = [bundle.reference["events"], bundle.reference["n"] - bundle.reference["events"]]
    share = f"{y.mean():.2f}" if not few else f"fewer than {SMALLEST_CELL} events or non-events"
    groups = "" if few else _by_site(y == 1, attributes)
    about = f"{share} in {len(y)} outcomes, {before[0] / sum(before):.2f} in training{groups}"
    return _tested("MW006", "prevalence", p_value(before, [y.sum(), (1 - y).sum()]), FALSE_ALARMS / cusum.LOOKS, about)


def _realized(code: str, title: str, figure: Mapping[str, float] | None, bound: Bound | None, counted: str) -> Finding:
    if figure is None:
        why = f"cannot be computed: {counted}"
        return Finding(code, title, "not applicable", None, bound.text if bound else None, why)
    by_interval = bound.model_copy(update={"by_interval": True}) if bound else None  # noise alone raises no alarm
    return gated(code, title, figure["value"], (figure["low"], figure["high"]), by_interval, counted)


def _alerted(bundle: Bundle, n: int, figures: Mapping[str, Mapping[str, float]]) -> Iterator[Finding]:
    """MW023: the PPV of each operating point, against what the spec promises of it."""
    for point in bundle.thresholds:
        promised = bundle.spec.operating_points.get(point)
        bound = None if promised is None or promised.ppv is None else Bound(low=promised.ppv, high=None)
        about = f"{n} outcomes" if point in figures else f"fewer than {SMALLEST_CELL} right, or wrong, alerts"
        yield _realized("MW023", f"{OF_OUTCOMES['MW023']}: {point}", figures.get(point), bound, about)


def _cusum(series: Mapping[str, Any], counted: str) -> Finding:
    limit = Bound(low=None, high=series["limit"])
    where = [
        f"{kind} events than the risks announced, by patient {series[side]}"
        for side, kind in (("crossed_up", "more"), ("crossed_down", "fewer"))
        if series[side] is not None
    ]
    law = "a calibrated model crosses in about 1 % of windows, however often they are looked at"
    about = f"{'; '.join(where) or 'within its limit'}; {counted}; {law}"
    return gated("MW011", OF_OUTCOMES["MW011"], series["highest"], None, limit, about)


@dataclass(frozen=True)
class _InSets:
    """Whether the sets held what happened (m,), and its name (m,), of the `rows` (n,) of which it is known."""

    rows: NDArray[np.bool_]
    held: NDArray[np.bool_]
    happened: NDArray[np.str_]


def _in_sets(
    bundle: Bundle, y: Array, risk: Array, risks: NDArray[np.float64] | None, label: Array | None
) -> _InSets | None:
    """None without sets."""
    sets = bundle.conformal
    if bundle.spec.uncertainty is None or sets is None:
        return None
    if isinstance(sets, Conformal):
        held = np.where(y == 1, risk >= sets.positive, risk <= sets.negative)
        return _InSets(np.ones(len(y), bool), held, np.where(y == 1, "event", "no event"))
    assert risks is not None and label is not None  # the bundle has several classes
    rows = ~np.isnan(label)
    places = label[rows].astype(np.int64)
    names = np.array(list(bundle.spec.outcome.classes or ()))
    return _InSets(rows, sets.sets(risks[rows])[np.arange(len(places)), places], names[places])


def _class_totals(classes: Sequence[str], risks: NDArray[np.float64], label: Array, seed: int) -> Iterator[Finding]:
    """MW025: of each class, patients who have it for each that was expected, where the class that came true is known.

    Told of a class that 10 patients have, and 10 do not, and whose number no other class's number tells. Not told where
    of 10 patients and more only the event is known: they have it, more often than not, and the others are not like all.
    """
    rows = ~np.isnan(label)
    counts = [int((label[rows] == place).sum()) for place in range(len(classes))]
    unnamed = int((~rows).sum())
    for place, (name, n) in enumerate(zip(classes, told(counts), strict=True)):
        title = f"observed / expected patients: {name}"
        if unnamed >= SMALLEST_CELL:
            why = f"of {unnamed} of {len(label)} patients the outcome is known, and not which class came true"
            yield Finding("MW025", title, "not applicable", None, None, why)
            continue
        if n is None or rows.sum() - n < SMALLEST_CELL:
            why = f"fewer than {SMALLEST_CELL} patients of the class, or of another one"
            yield Finding("MW025", title, "not applicable", None, None, why)
            continue
        figures = realized((label[rows] == place).astype(np.float64), risks[rows, place], {}, seed)
        about = f"{rows.sum()} patients whose class is known, {n} of {name}"
        yield _realized("MW025", title, figures.get("observed_over_expected"), None, about)


def _coverage(
    bundle: Bundle, known: _InSets | None, attributes: Mapping[str, NDArray[np.str_]]
) -> list[dict[str, Any]]:
    """How often the sets held what happened: of all, by outcome or class, by group.

    Told only where at least 10 were held and 10 were not, and where no other group's can be found by subtraction.
    """
    rule = bundle.spec.uncertainty
    if rule is None or known is None:
        return []
    held, everybody = known.held, np.full(len(known.held), "")
    found = []
    groups = {name: labels[known.rows] for name, labels in attributes.items()}
    for name, labels in {"all": everybody, "outcome": known.happened, **groups}.items():
        names = sorted(set(labels.tolist()))
        cells = [[int((held[labels == label] == inside).sum()) for label in names] for inside in (True, False)]
        for label, covered, missed in zip(names, *map(told, cells), strict=True):
            row: dict[str, Any] = {"attribute": name, "label": label, "nominal": rule.coverage}
            if covered is None or missed is None:
                found.append({**row, "n": None, "coverage": None, "low": None, "high": None})
                continue
            n = covered + missed
            low, high = wilson(covered, n) or (0.0, 1.0)
            found.append({**row, "n": n, "coverage": covered / n, "low": low, "high": high})
    return found


def _covered(bundle: Bundle, known: _InSets | None, fewest: int) -> Finding:
    """MW012: fails below what chance explains where the sets keep their promise, as MM025 does."""
    title, rule = OF_OUTCOMES["MW012"], bundle.spec.uncertainty
    if rule is None or known is None:
        return Finding("MW012", title, "not applicable", None, None, "the model has no prediction sets")
    n, covered = len(known.held), int(known.held.sum())
    if n < fewest:
        why = f"the class of {_counted(n)} patients is known, {fewest} are needed"
        return Finding("MW012", title, "not applicable", None, None, why)
    limit = Bound(low=least_covered(bundle, title, n, rule.coverage), high=None)
    about = f"{n} outcomes; class-conditional sets for {rule.coverage:.0%}"
    finding = gated("MW012", title, covered / n, wilson(covered, n), limit, about)
    if min(covered, n - covered) >= SMALLEST_CELL:
        return finding
    about = f"{about}; fewer than {SMALLEST_CELL} outside of them, or inside"
    return replace(finding, value=None, interval=None, explanation=about)


def _groups(y: Array, risk: Array, attributes: Mapping[str, NDArray[np.str_]]) -> list[dict[str, Any]]:
    """AUROC and observed over expected of each group that is large enough: 30 patients, 10 of each class.

    How many it has is not told where that would tell how many another has that is under 10.
    """
    found = []
    for name, labels in attributes.items():
        names = sorted(set(labels.tolist()))
        for label, counted in zip(names, told([int((labels == label).sum()) for label in names]), strict=True):
            here = labels == label
            n, events = int(here.sum()), int(y[here].sum())
            if n < FEWEST_PATIENTS or min(events, n - events) < FEWEST_OF_A_CLASS:
                continue
            spread = delong_interval(y[here], risk[here])
            ratio = observed_over_expected(y[here], risk[here])
            found.append(
                {
                    "attribute": name,
                    "label": label,
                    "n": counted,
                    "auroc": auroc(y[here], risk[here]),
                    "low": spread[0] if spread else None,
                    "high": spread[1] if spread else None,
                    "observed_over_expected": ratio if np.isfinite(ratio) else None,
                }
            )
    return found


def _gap(spec: Spec, figures: Mapping[str, Any], groups: Sequence[Mapping[str, Any]]) -> Finding:
    """MW013: the group whose AUROC is lowest, against the gate on the worst one, by its interval."""
    title = OF_OUTCOMES["MW013"]
    bound = spec.gates.worst_subgroup_auroc
    judged = [group for group in groups if group["low"] is not None]
    if not judged or "auroc" not in figures:
        why = f"no group has {FEWEST_PATIENTS} outcomes, {FEWEST_OF_A_CLASS} events and {FEWEST_OF_A_CLASS} non-events"
        return Finding("MW013", title, "not applicable", None, bound.text if bound else None, why)
    worst = min(judged, key=lambda group: group["auroc"])
    counted = "" if worst["n"] is None else f", {worst['n']} outcomes"
    about = f"{worst['attribute']} {worst['label']}{counted}; all together {figures['auroc']['value']:.3f}"
    return _realized(
        "MW013", title, {"value": worst["auroc"], "low": worst["low"], "high": worst["high"]}, bound, about
    )


def _by_site(rows: NDArray[np.bool_], attributes: Mapping[str, NDArray[np.str_]], everybody: bool = False) -> str:
    """How the share differs between sites, where a window holds several.

    Told only of 10 and of 10 others, and where no other site's can be found by subtraction; `everybody`: also of all
    or of none of the 10 and more of a site.
    """
    sites = attributes.get("site")
    if sites is None:
        return ""
    names = sorted(set(sites.tolist()))
    sizes = [int((sites == site).sum()) for site in names]

    def cells(inside: bool) -> list[int | None]:
        counts = [int((rows[sites == site] == inside).sum()) for site in names]
        free = [everybody and not count and size >= SMALLEST_CELL for count, size in zip(counts, sizes, strict=True)]
        kept = iter(told([count for count, is_free in zip(counts, free, strict=True) if not is_free]))
        return [0 if is_free else next(kept) for is_free in free]

    said = []
    for site, inside, outside in zip(names, cells(True), cells(False), strict=True):
        if inside is None or outside is None:
            said.append(f"{site}: not told, as too few")
        else:
            said.append(f"{site} {inside / (inside + outside):.0%}")
    return f" ({', '.join(said)})"


def p_value(before: Any, now: Any, alpha: float = FALSE_ALARMS) -> float:
    """Chance of counts at least this unlike if one source gave both, exact enough to be held against `alpha`.

    Fisher's exact test for two by two. Otherwise chi-square, and where a count of fewer than 5 is expected, which makes
    its law untrue, the same statistic over tables of the same margins that are drawn at random, until 20 are as unlike.
    Source: Besag J, Clifford P. Sequential Monte Carlo p-values. Biometrika 1991;78:301-304.
    """
    from scipy.stats import chi2_contingency, fisher_exact

    table = np.array([before, now], float)
    table = table[:, table.sum(axis=0) > 0]
    if table.shape[1] < 2 or (table.sum(axis=1) == 0).any():
        return 1.0
    if table.shape[1] == 2:
        return float(fisher_exact(table)[1])
    found = chi2_contingency(table)
    if found.expected_freq.min() >= FEWEST_EXPECTED:
        return float(found.pvalue)
    columns, size = table.sum(axis=0).astype(int), int(table[1].sum())
    expected = found.expected_freq
    here = float(((table - expected) ** 2 / expected).sum())
    generator, unlike, drawn = np.random.default_rng(0), 0, 0
    while unlike < EXCEEDING and drawn < min(10 / alpha, MOST_TABLES):
        tables = generator.multivariate_hypergeometric(columns, size, TABLES, method="marginals")
        far = (tables - expected[1]) ** 2
        unlike += int(((far / expected[1] + far / expected[0]).sum(axis=1) >= here - 1e-9).sum())
        drawn += TABLES
    return (1 + unlike) / (1 + drawn)


def stability_index(before: Any, now: Any) -> float:
    """Population stability index of two histograms; half a count stands in for an empty bin.

    Source: Yurdakul B. Statistical properties of population stability index. Western Michigan University, 2018.
    """
    old, new = np.maximum(np.array(before, float), 0.5), np.maximum(np.array(now, float), 0.5)
    old, new = old / old.sum(), new / new.sum()
    return float(((new - old) * np.log(new / old)).sum())
