"""A window of predictions against what the model was trained on, as findings MW001 to MW008."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from configs.spec import Bound
from evidence.checks import gated
from evidence.metrics import Array, auroc, interval, observed_over_expected
from evidence.report import Finding, Report
from evidence.subgroups import SMALLEST_CELL
from models.bundle import Bundle
from models.training import histogram

FALSE_ALARMS = 0.01
"""The chance, about, that a window without drift raises any alarm on its inputs or score; shared among the tests."""


@dataclass(frozen=True)
class Seen:
    """A window of n predictions of one bundle, in the order in which they came.

    `X` (n, d) are their features, `risk` (n,), `outcomes` (n,) 0, 1 or NaN where not yet known, `attributes[name]` (n,)
    their labels, `received` (n,) when each came and `now` when they are looked at, in seconds since 1970. Of `sampled`
    predictions whose features were computed again, `skewed` came out otherwise. `refused` counts the records that the
    contract refused in the same time, by code and field ("" where it names none).
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

    def __len__(self) -> int:
        return len(self.risk)


def judge(bundle: Bundle, window: str, seen: Seen) -> Report:
    """The monitoring report of one window; `window` names it."""
    findings = [_size(len(seen))]
    if len(seen):
        findings += _inputs(bundle, seen.X, seen.attributes)
        findings.append(_score(bundle, seen.risk))
        findings.append(_skew(seen.skewed, seen.sampled))
    findings += _performance(bundle, seen.risk, seen.outcomes, seen.attributes)
    return Report(bundle.spec.name, "monitoring", bundle.digest, window, tuple(findings), {"n": len(seen)})


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
    before, now = known["missing"] / n, float(gone.mean())
    about = f"{now:.0%} missing in the window, {before:.0%} in training{_by_site(gone, attributes)}"
    if gone.all():
        about = f"missing in every record; {about}"
    p = p_value([known["missing"], n - known["missing"]], [int(gone.sum()), int((~gone).sum())])
    everywhere = bool(gone.all()) and known["missing"] < n
    return _tested("MW002", f"missing: {name}", 0.0 if everywhere else p, alpha, about)


def _drift(name: str, known: dict[str, Any], present: Array, alpha: float) -> Finding:
    if not len(present):
        why = "no value in the window to compare"
        return Finding("MW003", f"drift: {name}", "not applicable", None, f"p >= {alpha:.2g}", why)
    if "categories" in known:
        counts = [int((present == index).sum()) for index in range(len(known["categories"]))]
    else:
        counts = histogram(present, known["edges"])
    about = f"{len(present)} values, population stability index {stability_index(known['counts'], counts):.2f}"
    return _tested("MW003", f"drift: {name}", p_value(known["counts"], counts), alpha, about)


def _score(bundle: Bundle, risk: Array) -> Finding:
    known = bundle.reference["score"]
    alpha = FALSE_ALARMS / (2 * len(bundle.reference["features"]) + 1)
    about = f"mean risk {risk.mean():.2f}, in training {known['mean']:.2f}"
    return _tested("MW004", "drift: risk", p_value(known["counts"], histogram(risk, known["edges"])), alpha, about)


def _tested(code: str, title: str, p: float, alpha: float, about: str) -> Finding:
    """A test's p value against its share of the false alarms."""
    return Finding(code, title, "failed" if p < alpha else "passed", p, f"p >= {alpha:.2g}", about)


def _skew(skewed: int, n: int) -> Finding:
    about = f"{n} predictions computed again from what is on record"
    return gated("MW005", "training-serving skew", float(skewed), None, Bound(low=None, high=0.0), about)


def _performance(bundle: Bundle, risk: Array, outcomes: Array, attributes: Mapping[str, Any]) -> list[Finding]:
    spec = bundle.spec
    known = ~np.isnan(outcomes)
    y, said = outcomes[known], risk[known]
    fewest = spec.monitoring.min_outcomes
    titles = {"MW006": "prevalence", "MW007": "AUROC", "MW008": "observed / expected events"}
    if len(y) < fewest:
        why = f"{len(y)} outcomes are known, {fewest} are needed"
        return [Finding(code, title, "not applicable", None, None, why) for code, title in titles.items()]
    before = [bundle.reference["events"], bundle.reference["n"] - bundle.reference["events"]]
    groups = _by_site(y == 1, {name: labels[known] for name, labels in attributes.items()})
    about = f"{y.mean():.2f} in {len(y)} outcomes, {before[0] / sum(before):.2f} in training{groups}"
    found = [_tested("MW006", titles["MW006"], p_value(before, [y.sum(), (1 - y).sum()]), FALSE_ALARMS, about)]
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


def _by_site(rows: NDArray[np.bool_], attributes: Mapping[str, NDArray[np.str_]]) -> str:
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
    """Chance of counts at least this unlike if one source gave both (chi-square; Fisher's exact for two by two)."""
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
