"""What acting on a threshold does: who is alerted, who is missed, and whether it beats alerting everybody.

`y` (n,) is 0 or 1, `risk` (n,) a probability; whoever's risk reaches the threshold is alerted.
Net benefit: Vickers AJ, Elkin EB. Decision curve analysis. Med Decis Making 2006;26:565-574.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from evidence.metrics import Array, wilson
from evidence.subgroups import SMALLEST_CELL


@dataclass(frozen=True)
class Utility:
    """Figures at one threshold; None where nothing stands below the line. Net benefit is a share of all patients.

    `intervals`: 95 % intervals by Wilson's score of sensitivity, specificity, ppv, npv and alerts_per_100, by these
    names and as far as they have a value.
    """

    sensitivity: float | None
    specificity: float | None
    ppv: float | None
    npv: float | None
    alerts_per_100: float
    net_benefit: float
    net_benefit_treat_all: float
    intervals: Mapping[str, tuple[float, float]]


@dataclass(frozen=True)
class DecisionCurve:
    """Net benefit at each threshold, all (t,): of the model, of alerting everybody and, 0 by definition, nobody."""

    threshold: Array
    model: Array
    treat_all: Array
    treat_none: Array


@dataclass(frozen=True)
class AlertBurden:
    """At each threshold, all (t,): alerts of 100 patients, share of events found, share of alerts that are right.

    NaN where fewer than 10 patients are alerted: the curve would tell of single ones.
    """

    threshold: Array
    alerts_per_100: Array
    sensitivity: Array
    ppv: Array


def utility(y: Array, risk: Array, threshold: float) -> Utility:
    """The figures of alerting at `risk >= threshold`; without patients, net benefit and alerts are NaN."""
    n, events = len(y), float(y.sum())
    found, false_alarms = (float(count[0]) for count in _alerted(y, risk, np.array([threshold])))
    alerts, spared = found + false_alarms, n - events - false_alarms
    shares = {
        "sensitivity": (found, events),
        "specificity": (spared, n - events),
        "ppv": (found, alerts),
        "npv": (spared, n - alerts),
    }
    intervals = {name: spread for name, share in shares.items() if (spread := wilson(*share))}
    if spread := wilson(alerts, n):
        intervals["alerts_per_100"] = (100 * spread[0], 100 * spread[1])
    curve = decision_curve(y, risk, np.array([threshold]))
    return Utility(
        **{name: part / whole if whole else None for name, (part, whole) in shares.items()},
        alerts_per_100=100 * alerts / n if n else float("nan"),
        net_benefit=float(curve.model[0]),
        net_benefit_treat_all=float(curve.treat_all[0]),
        intervals=intervals,
    )


def decision_curve(y: Array, risk: Array, thresholds: Array) -> DecisionCurve:
    """Net benefit over thresholds (t,); at 1 a false alarm costs infinitely much."""
    n, events = len(y), float(y.sum())
    found, false_alarms = _alerted(y, risk, thresholds)
    odds = np.divide(thresholds, 1 - thresholds, out=np.full(len(thresholds), np.inf), where=thresholds < 1)

    def net_benefit(found: Array, false_alarms: Array) -> Array:
        if not n:
            return np.full(len(thresholds), np.nan)
        cost = np.zeros(len(thresholds))
        np.multiply(false_alarms, odds, out=cost, where=false_alarms > 0)
        return np.asarray((found - cost) / n)

    everybody = np.full(len(thresholds), events), np.full(len(thresholds), n - events)
    return DecisionCurve(
        thresholds, net_benefit(found, false_alarms), net_benefit(*everybody), np.zeros(len(thresholds))
    )


def alert_burden(y: Array, risk: Array, thresholds: Array) -> AlertBurden:
    """What alerting costs and finds over thresholds (t,)."""
    found, false_alarms = _alerted(y, risk, thresholds)
    alerts = found + false_alarms
    told = alerts >= SMALLEST_CELL

    def share(part: Array, whole: Array | float) -> Array:
        shares = np.full(len(thresholds), np.nan)
        np.divide(part, whole, out=shares, where=told & (np.asarray(whole) > 0))
        return shares

    return AlertBurden(thresholds, 100 * share(alerts, len(y)), share(found, y.sum()), share(found, alerts))


def _alerted(y: Array, risk: Array, thresholds: Array) -> tuple[Array, Array]:
    """How many events, and how many non-events, reach each threshold."""
    events, non_events = (np.sort(risk[y == outcome]) for outcome in (1, 0))
    found = len(events) - np.searchsorted(events, thresholds)
    false_alarms = len(non_events) - np.searchsorted(non_events, thresholds)
    return found.astype(float), false_alarms.astype(float)
