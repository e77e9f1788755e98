"""Two models on the same patients: how far apart they are, and whether chance alone could have done it.

`y` (n,) is 0 or 1; `a` and `b` (n,) are the two models' risks of the same patients, in order. A comparison that these
patients cannot decide has a NaN for its difference, or None for its interval and p, and never raises.
"""

import math
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from evidence.metrics import METRICS, RESAMPLES, Z95, Array, Metric, auroc


@dataclass(frozen=True)
class Paired:
    """A's figure, B's, and A minus B with its 95 % interval. `p` is two-sided, None where no test was made."""

    a: float
    b: float
    difference: float
    low: float | None
    high: float | None
    p: float | None

    @property
    def document(self) -> dict[str, float | None]:
        """As plain JSON: what cannot be computed is null."""
        return {name: value if value is None or math.isfinite(value) else None for name, value in asdict(self).items()}


def figures(y: Array, a: Array, b: Array, seed: int) -> dict[str, Paired]:
    """Every metric of both: the AUROC by DeLong, the others by the paired bootstrap."""
    return {
        name: delong(y, a, b) if metric is auroc else paired_interval(metric, y, a, b, seed)
        for name, metric in METRICS.items()
    }


def delong(y: Array, a: Array, b: Array) -> Paired:
    """The two AUROCs, compared; equal risks, or risks in the same order, give p = 1.

    Without interval and p where the test's variance cannot be known: a class of fewer than two, or both models at an
    end of the scale (all pairs right, all tied), where it would be nil and anything significant.
    Source: DeLong ER, DeLong DM, Clarke-Pearson DL. Comparing the areas under two or more correlated receiver
    operating characteristic curves: a nonparametric approach. Biometrics 1988;44:837-845.
    """
    one, other = auroc(y, a), auroc(y, b)
    difference = one - other
    variance = _variance(y, a, b)
    if not math.isfinite(variance) or (variance == 0 and difference):
        return Paired(one, other, difference, None, None, None)
    half = Z95 * math.sqrt(variance)
    p = math.erfc(abs(difference) / math.sqrt(2 * variance)) if variance else 1.0
    return Paired(one, other, difference, max(difference - half, -1.0), min(difference + half, 1.0), p)


def delong_interval(y: Array, risk: Array) -> tuple[float, float] | None:
    """The AUROC's 95 % interval by DeLong's variance, cut to 0-1; None where the variance is nil or unknown."""
    variance = _variance(y, risk, None)
    if not math.isfinite(variance) or variance == 0:
        return None
    value, half = auroc(y, risk), Z95 * math.sqrt(variance)
    return max(value - half, 0.0), min(value + half, 1.0)


def paired_interval(metric: Metric, y: Array, a: Array, b: Array, seed: int) -> Paired:
    """The metric of both, and the 95 % percentile bootstrap interval of their difference, each resample shared.

    Without interval if too few resamples could be computed; no test, so no p.
    """
    one, other = metric(y, a), metric(y, b)
    generator = np.random.default_rng(seed)
    found = []
    for _ in range(RESAMPLES if len(y) else 0):
        rows = generator.integers(0, len(y), len(y))
        found.append(metric(y[rows], a[rows]) - metric(y[rows], b[rows]))
    finite = np.array(found)[np.isfinite(found)]
    if len(finite) < max(RESAMPLES // 2, 1):
        return Paired(one, other, one - other, None, None, None)
    low, high = np.percentile(finite, [2.5, 97.5])
    return Paired(one, other, one - other, float(low), float(high), None)


def _variance(y: Array, a: Array, b: Array | None) -> float:
    """DeLong's variance of A's AUROC, or of A's less B's; NaN with fewer than two of a class."""
    events = y == 1
    m, n = int(events.sum()), int((~events).sum())
    if min(m, n) < 2:
        return float("nan")
    below, above = _placements(a, events)
    if b is not None:
        below_b, above_b = _placements(b, events)
        below, above = below - below_b, above - above_b
    # counts until here, which are exact: models that differ alike for everybody have a variance of nil, and not nearly
    return float(below.var(ddof=1) / n**2 / m + above.var(ddof=1) / m**2 / n)


def _placements(risk: Array, events: NDArray[np.bool_]) -> tuple[Array, Array]:
    """For each event how many non-events are below it, for each non-event how many events are above; a tie is a half.

    By mid-ranks, in the time of a sort. Source: Sun X, Xu W. Fast implementation of DeLong's algorithm for comparing
    the areas under correlated receiver operating characteristic curves. IEEE Signal Process Lett 2014;21:1389-1393.
    """
    from scipy.stats import rankdata

    among_all = rankdata(risk)
    below = among_all[events] - rankdata(risk[events])
    above = events.sum() - (among_all[~events] - rankdata(risk[~events]))
    return below, above
