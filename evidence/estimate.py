"""Performance without outcomes, from calibrated risks alone; and how far such estimates have earned to be believed.

Confidence-based performance estimation (CBPE): if risks are calibrated, they say how often each answer is right.
Source: NannyML, https://nannyml.readthedocs.io. Nothing is fitted here: the risks are the model's own, calibrated.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from evidence.metrics import Array, wilson

DRAWS = 1000
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

    Each has the 95 % interval of what these very patients may come to: outcomes drawn from the risks. A figure that
    cannot be estimated is absent.
    """
    found: dict[str, Any] = {}
    n = len(risk)
    if not n:
        return found
    drawn = np.random.default_rng(seed).random((DRAWS, n)) < risk
    if (value := expected_auroc(risk)) is not None:
        found |= _with_interval("auroc", value, _aurocs(drawn, risk))
    ppv: dict[str, Any] = {}
    alerts: dict[str, Any] = {}
    for point, threshold in thresholds.items():
        alerted = risk >= threshold
        low, high = wilson(int(alerted.sum()), n) or (0.0, 1.0)
        alerts[point] = {"value": 100 * float(alerted.mean()), "low": 100 * low, "high": 100 * high}
        if alerted.any():
            shares = drawn[:, alerted].mean(axis=1)
            ppv |= _with_interval(point, float(risk[alerted].mean()), shares)
    return {**found, **({"ppv": ppv} if ppv else {}), "alerts_per_100": alerts}


def expected_auroc(risk: Array) -> float | None:
    """The expected share of event/non-event pairs in the right order, if every risk is true; a tie counts half.

    None where all are sure to be of one class.
    """
    events, non_events = float(risk.sum()), float((1 - risk).sum())
    if not events or not non_events:
        return None
    order = np.argsort(risk, kind="stable")
    values, starts = np.unique(risk[order], return_index=True)
    of_events = np.add.reduceat(risk[order], starts)
    of_others = np.add.reduceat(1 - risk[order], starts)
    below = np.cumsum(of_others) - of_others
    pairs = float((of_events * (below + of_others / 2)).sum())
    # a patient makes no pair with itself, and the halves above counted it
    alone = float((risk * (1 - risk)).sum()) / 2
    total = events * non_events - 2 * alone
    return (pairs - alone) / total if len(values) and total > 0 else None


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


def _aurocs(drawn: Any, risk: Array) -> Array:
    """The AUROC of each row of drawn outcomes (m, n); NaN with one class."""
    from scipy.stats import rankdata

    events = drawn.sum(axis=1).astype(np.float64)
    others = drawn.shape[1] - events
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray((drawn @ rankdata(risk) - events * (events + 1) / 2) / (events * others))


def _with_interval(name: str, value: float, draws: Array) -> dict[str, dict[str, float]]:
    finite = draws[np.isfinite(draws)]
    if len(finite) < DRAWS // 2:
        return {}
    low, high = np.percentile(finite, [2.5, 97.5])
    return {name: {"value": value, "low": float(low), "high": float(high)}}
