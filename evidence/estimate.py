"""Performance without outcomes, from calibrated risks alone; and how far such estimates have earned to be believed.

Confidence-based performance estimation (CBPE): if risks are calibrated, they say how often each answer is right.
Source: NannyML, https://nannyml.readthedocs.io. Nothing is fitted here: the risks are the model's own, calibrated.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from evidence.metrics import Array, resampled, wilson

FEWEST_WINDOWS = 5
FEWEST_INSIDE = 0.8
"""Our own rule: in four of five windows what came true lay in the 95 % interval. By chance alone it is 19 of 20."""

ASSUMPTION = (
    "It takes for granted that the risks are calibrated for these patients. It sees that other patients come, and "
    "cannot see that the same kind of patients has the event more or less often than before (concept drift)."
)

Figure = Mapping[str, float]
"""`value`, `low` and `high`: a figure with its 95 % interval."""


@dataclass(frozen=True)
class Trust:
    """Whether an estimate of this figure may stand in for outcomes, from how it did in earlier windows, and why."""

    trusted: bool
    windows: int
    inside: int
    mean_error: float | None
    why: str


def estimate(risk: Array, thresholds: Mapping[str, float], seed: int) -> dict[str, Any]:
    """Expected AUROC, and PPV and alerts per 100 at each threshold, of patients with these risks (n,).

    Each has the 95 % interval of what such patients may come to: patients drawn anew, and their outcomes drawn from the
    risks. A figure that cannot be estimated is absent.
    """
    found: dict[str, Any] = {}
    n = len(risk)
    if not n:
        return found
    aurocs, shares = _drawn(risk, thresholds, seed)
    if (value := expected_auroc(risk)) is not None:
        found |= _with_interval("auroc", value, aurocs)
    ppv: dict[str, Any] = {}
    alerts: dict[str, Any] = {}
    for point, threshold in thresholds.items():
        alerted = risk >= threshold
        low, high = wilson(int(alerted.sum()), n) or (0.0, 1.0)
        alerts[point] = {"value": 100 * float(alerted.mean()), "low": 100 * low, "high": 100 * high}
        if alerted.any():
            ppv |= _with_interval(point, float(risk[alerted].mean()), shares[point])
    return {**found, **({"ppv": ppv} if ppv else {}), "alerts_per_100": alerts}


def expected_auroc(risk: Array) -> float | None:
    """The expected share of event/non-event pairs in the right order, if every risk is true; a tie counts half.

    None where all are sure to be of one class.
    """
    order = np.argsort(risk, kind="stable")
    events, others = risk[order][None, :], 1 - risk[order][None, :]
    total = float(events.sum() * others.sum())
    # a patient makes no pair with itself; NannyML counts it as a tie, which draws few patients' estimate to a half
    alone = float((risk * (1 - risk)).sum())
    if not total - alone > 1e-12:
        return None
    return (float(_aurocs(events, others, _ties(risk[order]))[0]) * total - alone / 2) / (total - alone)


def earned(pairs: Sequence[tuple[Figure, Figure]]) -> Trust:
    """The trust that a figure's estimates have earned: each with what came true of the same window."""
    inside = sum(said["low"] <= came["value"] <= said["high"] for said, came in pairs)
    n = len(pairs)
    error = float(np.mean([said["value"] - came["value"] for said, came in pairs])) if n else None
    told = f"in {inside} of {n} windows with outcomes what came true lay in the estimate's interval"
    if n < FEWEST_WINDOWS:
        return Trust(False, n, inside, error, f"{told}; {FEWEST_WINDOWS} windows are needed to trust it")
    if inside < FEWEST_INSIDE * n:
        return Trust(False, n, inside, error, f"{told}: too seldom, it is not trusted")
    return Trust(True, n, inside, error, f"{told}: it is trusted")


def _drawn(risk: Array, thresholds: Mapping[str, float], seed: int) -> tuple[Array, dict[str, Array]]:
    """The AUROC, and the PPV at each threshold, of drawn patients with drawn outcomes; NaN where there is none."""
    generator, n, ordered = np.random.default_rng(seed), len(risk), np.sort(risk)
    ties = _ties(ordered)
    aurocs: list[Array] = []
    shares: dict[str, list[Array]] = {point: [] for point in thresholds}
    for rows in resampled(n, generator):
        happened = generator.random(rows.shape) < ordered[rows]
        places = rows + n * np.arange(len(rows))[:, None]
        everybody = np.bincount(places.ravel(), minlength=rows.size).reshape(rows.shape).astype(np.float64)
        events = np.bincount(places[happened], minlength=rows.size).reshape(rows.shape).astype(np.float64)
        aurocs.append(_aurocs(events, everybody - events, ties))
        for point, threshold in thresholds.items():
            first = int(np.searchsorted(ordered, threshold))
            with np.errstate(invalid="ignore"):
                shares[point].append(events[:, first:].sum(axis=1) / everybody[:, first:].sum(axis=1))
    return np.concatenate(aurocs), {point: np.concatenate(found) for point, found in shares.items()}


def _ties(ordered: Array) -> Any:
    """Where each run of equal risks begins."""
    return np.flatnonzero(np.diff(ordered, prepend=-np.inf))


def _aurocs(events: Array, others: Array, ties: Any) -> Array:
    """The AUROC of each row of events and of non-events (m, n), in order of risk; NaN with one class.

    Source of the formula with risks in place of outcomes: NannyML, confidence-based estimation of ROC AUC.
    """
    events, others = np.add.reduceat(events, ties, axis=1), np.add.reduceat(others, ties, axis=1)
    below = np.cumsum(others, axis=1) - others / 2
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray((events * below).sum(axis=1) / (events.sum(axis=1) * others.sum(axis=1)))


def _with_interval(name: str, value: float, draws: Array) -> dict[str, dict[str, float]]:
    finite = draws[np.isfinite(draws)]
    if len(finite) < len(draws) // 2:
        return {}
    low, high = np.percentile(finite, [2.5, 97.5])
    return {name: {"value": value, "low": float(low), "high": float(high)}}
