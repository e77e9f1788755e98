"""A window of predictions against what the model was trained on, as findings MW001 to MW009."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from configs.spec import Bound
from evidence.checks import gated
from evidence.metrics import Array, auroc, interval, observed_over_expected
from evidence.report import Finding, Report
from models.bundle import Bundle
from models.training import histogram

FALSE_ALARMS = 0.01
"""The chance, about, that a window without drift raises any alarm on its inputs or score; shared among the tests."""

SMALLEST_CELL = 10
"""Groups smaller than this are not told, lest a figure speak of single patients."""


def judge(
    bundle: Bundle,
    window: str,
    X: NDArray[np.float32],
    risk: Array,
    outcomes: Array,
    attributes: Mapping[str, NDArray[np.str_]],
    skewed: int,
) -> Report:
    """The monitoring report of one window.

    `X` (n, d), `risk` (n,), `outcomes` (n,) 0, 1 or NaN where not yet known, `attributes[name]` (n,), all in the same
    order; `skewed` counts the predictions whose features come out otherwise when computed again; `window` names it.
    """
    findings = [_size(len(risk))]
    if len(risk):
        findings += _inputs(bundle, X, attributes)
        findings.append(_score(bundle, risk))
        findings.append(_skew(skewed, len(risk)))
    findings += _performance(bundle, risk, outcomes, attributes)
    return Report(bundle.spec.name, "monitoring", bundle.digest, window, tuple(findings))


def _size(n: int) -> Finding:
    if n == 0:
        why = "no prediction of this version is on record in the window: is anybody asking, and is it the champion?"
        return Finding("MW001", "predictions in the window", "failed", 0.0, ">= 1", why)
    return Finding("MW001", "predictions in the window", "passed", float(n), ">= 1", f"{n} predictions")


def _inputs(bundle: Bundle, X: NDArray[np.float32], attributes: Mapping[str, NDArray[np.str_]]) -> list[Finding]:
    reference = bundle.reference["features"]
    alpha = FALSE_ALARMS / (2 * len(reference) + 1)
    findings = []
    for position, (name, known) in enumerate(reference.items()):
        column = X[:, position].astype(np.float64)
        gone = np.isnan(column)
        findings.append(_missingness(name, known, bundle.reference["n"], gone, alpha, attributes))
        findings.append(_drift(name, known, column[~gone], alpha))
    return findings


def _missingness(
    name: str, known: dict[str, Any], n: int, gone: NDArray[np.bool_], alpha: float, attributes: Mapping[str, Any]
) -> Finding:
    title = f"missing: {name}"
    before, now = known["missing"] / n, float(gone.mean())
    about = f"{now:.0%} missing in the window, {before:.0%} in training{_by_group(gone, attributes)}"
    p = p_value([known["missing"], n - known["missing"]], [int(gone.sum()), int((~gone).sum())])
    if gone.all() and known["missing"] < n:
        return Finding("MW002", title, "failed", now, f"p >= {alpha:.2g}", f"missing in every record; {about}")
    return Finding(
        "MW002", title, "failed" if p < alpha else "passed", now, f"p >= {alpha:.2g}", f"{about}; p = {p:.2g}"
    )


def _drift(name: str, known: dict[str, Any], present: Array, alpha: float) -> Finding:
    title = f"drift: {name}"
    if not len(present):
        return Finding("MW003", title, "not applicable", None, f"p >= {alpha:.2g}", "no value in the window to compare")
    if "categories" in known:
        counts = [int((present == index).sum()) for index in range(len(known["categories"]))]
    else:
        counts = histogram(present, known["edges"])
    p = p_value(known["counts"], counts)
    shift = stability_index(known["counts"], counts)
    about = f"{len(present)} values, chi-square p = {p:.2g}; `value` is the population stability index"
    return Finding("MW003", title, "failed" if p < alpha else "passed", shift, f"p >= {alpha:.2g}", about)


def _score(bundle: Bundle, risk: Array) -> Finding:
    known = bundle.reference["score"]
    alpha = FALSE_ALARMS / (2 * len(bundle.reference["features"]) + 1)
    p = p_value(known["counts"], histogram(risk, known["edges"]))
    about = f"mean risk {risk.mean():.2f}, in training {known['mean']:.2f}; chi-square p = {p:.2g}"
    return Finding(
        "MW004", "drift: risk", "failed" if p < alpha else "passed", float(risk.mean()), f"p >= {alpha:.2g}", about
    )


def _skew(skewed: int, n: int) -> Finding:
    about = f"{n} predictions computed again from what is on record"
    verdict = gated("MW005", "training-serving skew", float(skewed), None, Bound(low=None, high=0.0), about)
    return verdict


def _performance(bundle: Bundle, risk: Array, outcomes: Array, attributes: Mapping[str, Any]) -> list[Finding]:
    spec = bundle.spec
    known = ~np.isnan(outcomes)
    y, said = outcomes[known], risk[known]
    fewest = spec.monitoring.min_outcomes
    trained = bundle.reference["events"] / bundle.reference["n"]
    titles = {"MW006": "prevalence", "MW007": "AUROC", "MW008": "observed / expected events"}
    if len(y) < fewest:
        why = f"{len(y)} outcomes are known, {fewest} are needed"
        return [Finding(code, title, "not applicable", None, None, why) for code, title in titles.items()]
    share = float(y.mean())
    alpha = FALSE_ALARMS
    p = p_value(
        [bundle.reference["events"], bundle.reference["n"] - bundle.reference["events"]], [y.sum(), (1 - y).sum()]
    )
    groups = _by_group(y == 1, {name: labels[known] for name, labels in attributes.items()})
    about = f"{share:.2f} in {len(y)} outcomes, {trained:.2f} in training{groups}; p = {p:.2g}"
    verdict = "failed" if p < alpha else "passed"
    found = [Finding("MW006", titles["MW006"], verdict, share, f"p >= {alpha:.2g}", about)]  # type: ignore[arg-type]
    counted = f"{len(y)} outcomes, {int(y.sum())} events"
    for code, metric, bound in (
        ("MW007", auroc, spec.gates.auroc),
        ("MW008", observed_over_expected, spec.gates.observed_over_expected),
    ):
        value = metric(y, said)
        if not np.isfinite(value):
            why = f"cannot be computed: {counted}"
            found.append(Finding(code, titles[code], "not applicable", None, bound.text if bound else None, why))
            continue
        spread = interval(metric, y, said, spec.split.seed)
        by_interval = bound.model_copy(update={"by_interval": True}) if bound else None  # noise alone raises no alarm
        found.append(gated(code, titles[code], value, spread, by_interval, counted))
    return found


def _by_group(rows: NDArray[np.bool_], attributes: Mapping[str, NDArray[np.str_]]) -> str:
    """How the share differs between sites, where a window holds several."""
    sites = attributes.get("site")
    if sites is None:
        return ""
    told = []
    for site in sorted(set(sites.tolist())):
        here = rows[sites == site]
        told.append(
            f"{site} {here.mean():.0%}" if len(here) >= SMALLEST_CELL else f"{site}: fewer than {SMALLEST_CELL}"
        )
    return f" ({', '.join(told)})"


def p_value(before: Any, now: Any) -> float:
    """Chance of counts at least this unlike if both came from one source (chi-square; Fisher's exact for two by two)."""
    from scipy.stats import chi2_contingency, fisher_exact

    table = np.array([before, now], float)
    table = table[:, table.sum(axis=0) > 0]
    if table.shape[1] < 2 or (table.sum(axis=1) == 0).any():
        return 1.0
    if table.shape[1] == 2:
        return float(fisher_exact(table)[1])
    return float(chi2_contingency(table)[1])


def stability_index(before: Any, now: Any) -> float:
    """Population stability index of two histograms; half a count stands in for an empty bin.

    Source: Yurdakul B. Statistical properties of population stability index. Western Michigan University, 2018.
    """
    old, new = np.maximum(np.array(before, float), 0.5), np.maximum(np.array(now, float), 0.5)
    old, new = old / old.sum(), new / new.sum()
    return float(((new - old) * np.log(new / old)).sum())
