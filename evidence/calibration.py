"""Whether as many have the event as were predicted to: along the whole scale, in one number, and by parts.

`y` (n,) is 0 or 1, `risk` (n,) a probability. A figure that cannot be computed is NaN or None, never an exception.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from evidence.figures import listed
from evidence.metrics import Array
from evidence.subgroups import SMALLEST_CELL, told

SPAN = 2 / 3
"""The share of patients, the nearest, that each point of the smoothed curve is fitted to; lowess's own default."""
ANCHORS = 101
"""The curve is fitted at no more risks than this, spread evenly over the patients, and straight between them."""
RESAMPLES = 200
"""Of the curve's interval: a drawing's, and of each resample 101 fits."""
GRID = 51
"""The most risks at which a curve is told."""
EDGES: Array = np.linspace(0, 1, 21)


@dataclass(frozen=True)
class Curve:
    """Share observed at each risk of the grid, all (g,), with its pointwise 95 % interval; NaN where not known."""

    risk: Array
    observed: Array
    low: Array
    high: Array


@dataclass(frozen=True)
class BrierParts:
    """Brier score = reliability - resolution + uncertainty + within_variance - within_covariance, exactly.

    `reliability`: how far the bins' risks are from what happened in them, 0 is calibrated; `resolution`: how far what
    happened differs between the bins; `uncertainty`: of the outcome, whatever the model. The last two are what
    Murphy's three leave out where the risks of a bin differ.
    """

    reliability: float
    resolution: float
    uncertainty: float
    within_variance: float
    within_covariance: float


def ici(y: Array, risk: Array) -> tuple[float, float, float]:
    """ICI, E50 and E90: mean, median and 90th percentile of the distance between risk and smoothed observed share.

    Source: Austin PC, Steyerberg EW. The Integrated Calibration Index (ICI) and related metrics for quantifying the
    calibration of logistic regression models. Stat Med 2019;38:4051-4065. They smooth with R's loess; here it is
    lowess, straight lines over two thirds of the patients and no robust iterations, as in the rms package's val.prob.
    """
    distance = np.abs(_smoothed(y, risk, risk) - risk)
    if not len(distance) or np.isnan(distance).any():
        return float("nan"), float("nan"), float("nan")
    middle, far = np.quantile(distance, [0.5, 0.9])
    return float(distance.mean()), float(middle), float(far)


def smooth(y: Array, risk: Array, seed: int, grid: Array) -> Curve:
    """The smoothed observed share at the grid's risks, (g,), with a percentile bootstrap interval over patients.

    NaN outside the observed risks, and in the interval where fewer than half of the resamples reach.
    """
    generator = np.random.default_rng(seed)
    observed = _smoothed(y, risk, grid)
    found = np.full((RESAMPLES, len(grid)), np.nan)
    for resample in range(RESAMPLES if len(y) else 0):
        rows = generator.integers(0, len(y), len(y))
        found[resample] = _smoothed(y[rows], risk[rows], grid)
    enough = (np.isfinite(found).sum(axis=0) >= RESAMPLES // 2) & np.isfinite(observed)
    low, high = np.full((2, len(grid)), np.nan)
    if enough.any():
        low[enough], high[enough] = np.nanpercentile(found[:, enough], [2.5, 97.5], axis=0)
    return Curve(grid, observed, low, high)


def grid_within(risk: Array) -> Array:
    """At most 51 round risks, evenly apart, between the 10th lowest and the 10th highest; none with too few patients.

    Round, and away from the ends, so that no point of a curve is a patient's.
    """
    if len(risk) < 2 * SMALLEST_CELL:
        return np.empty(0)
    low, high = np.sort(risk)[[SMALLEST_CELL - 1, -SMALLEST_CELL]]
    for exponent in range(-4, 1):
        for digit in (1, 2, 5):
            step = digit * 10.0**exponent
            first, last = math.ceil(low / step), math.floor(high / step)
            if last - first < GRID:
                return np.arange(first, last + 1) * step
    return np.empty(0)


def drawn(y: Array, risk: Array, seed: int) -> dict[str, Any]:
    """The smoothed curve and the histogram of risks, as plain JSON; empty with one class, too few or one risk."""
    grid = grid_within(risk)
    if not 0 < y.sum() < len(y) or not len(grid):
        return {}
    curve = smooth(y, risk, seed, grid)
    return {
        **{name: listed(getattr(curve, name)) for name in ("risk", "observed", "low", "high")},
        "histogram": {"edges": listed(EDGES), "counts": histogram(risk)},
    }


def histogram(risk: Array) -> list[int | None]:
    """Patients in each 0.05 of risk, 20 counts; None for fewer than 10, and for one that would tell such a count."""
    counts, _ = np.histogram(risk, EDGES)
    return told(counts.tolist())


def brier_decomposition(y: Array, risk: Array, bins: int) -> BrierParts:
    """The Brier score's parts over so many bins of equally many patients; equal risks share one. NaN of nobody.

    Source: Murphy AH. A new vector partition of the probability score. J Appl Meteorol 1973;12:595-600; its two
    within-bin terms: Stephenson DB, Coelho CAS, Jolliffe IT. Two extra components in the Brier score decomposition.
    Weather Forecast 2008;23:752-757.
    """
    n = len(y)
    if not n:
        return BrierParts(*[float("nan")] * 5)
    cuts = np.unique(np.quantile(risk, np.linspace(0, 1, bins + 1)[1:-1], method="inverted_cdf"))
    bin_of = np.searchsorted(cuts, risk)
    held = np.bincount(bin_of)

    def mean(values: Array) -> Array:
        return (np.bincount(bin_of, values) / np.maximum(held, 1))[bin_of]

    predicted, happened, overall = mean(risk), mean(y), y.mean()
    return BrierParts(
        reliability=float(np.mean((predicted - happened) ** 2)),
        resolution=float(np.mean((happened - overall) ** 2)),
        uncertainty=float(overall * (1 - overall)),
        within_variance=float(np.mean((risk - predicted) ** 2)),
        within_covariance=float(2 * np.mean((y - happened) * (risk - predicted))),
    )


def _smoothed(y: Array, risk: Array, at: Array) -> Array:
    """The smoothed observed share at risks `at` (m,), within 0-1; NaN outside the observed risks."""
    from statsmodels.nonparametric.smoothers_lowess import lowess

    if not len(y):
        return np.full(len(at), np.nan)
    order = np.argsort(risk, kind="stable")
    risk, y = risk[order], y[order]
    anchors = np.unique(risk[np.linspace(0, len(risk) - 1, ANCHORS).round().astype(int)])
    with np.errstate(invalid="ignore"):
        fitted = lowess(y, risk, frac=SPAN, it=0, xvals=anchors, is_sorted=True)
    # a risk that fills the span alone, or that no other is near to, has no line: what happened to its patients stands
    for alone in np.flatnonzero(np.isnan(fitted)):
        fitted[alone] = y[risk == anchors[alone]].mean()
    return np.asarray(np.interp(at, anchors, np.clip(fitted, 0, 1), left=np.nan, right=np.nan))
