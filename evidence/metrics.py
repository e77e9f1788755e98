"""How good a risk is: discrimination, calibration, and what their 95 % intervals are.

`y` (n,) is 0 or 1, `risk` (n,) a probability. A figure that needs both classes is NaN without them.
"""

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Metric = Callable[[Array, Array], float]

RESAMPLES = 1000
FEWER_RESAMPLES = 200
"""Of more than 20,000 patients, whose intervals are narrow and whose resamples are long."""
SMALLEST_RISK = 1e-12

Z95 = 1.959963984540054
"""Standard normal quantile at 0.975: 95 % lie within it on both sides."""


def auroc(y: Array, risk: Array) -> float:
    """Share of event/non-event pairs in which the event has the higher risk; a tie counts half."""
    from scipy.stats import rankdata

    events = float(y.sum())
    non_events = len(y) - events
    if not events or not non_events:
        return float("nan")
    ranks = rankdata(risk)
    return float((ranks[y == 1].sum() - events * (events + 1) / 2) / (events * non_events))


def auprc(y: Array, risk: Array) -> float:
    """Area under the precision-recall curve, as average precision."""
    from sklearn.metrics import average_precision_score

    return float(average_precision_score(y, risk)) if 0 < y.sum() < len(y) else float("nan")


def brier(y: Array, risk: Array) -> float:
    """Mean squared distance between risk and outcome; 0 is perfect."""
    return float(np.mean((risk - y) ** 2)) if len(y) else float("nan")


def log_loss(y: Array, risk: Array) -> float:
    """Mean negative log-likelihood of the outcomes; 0 is perfect."""
    if not len(y):
        return float("nan")
    clipped = np.clip(risk, SMALLEST_RISK, 1 - SMALLEST_RISK)
    return float(-np.mean(y * np.log(clipped) + (1 - y) * np.log(1 - clipped)))


def observed_over_expected(y: Array, risk: Array) -> float:
    """Events that happened for each one that was predicted; 1 is calibrated in the large. NaN if none was predicted."""
    expected = float(risk.sum())
    return float(y.sum()) / expected if expected else float("nan")


def calibration_slope(y: Array, risk: Array) -> float:
    """Slope of the outcome on the risk's log-odds, by maximum likelihood; under 1 the risks are too extreme.

    Source: Cox DR. Two further applications of a model for binary regression. Biometrika 1958;45:562-565.
    """
    return recalibration(y, risk)[1]


def recalibration(y: Array, risk: Array) -> tuple[float, float]:
    """Intercept and slope of the outcome on the risk's log-odds, fitted together; source as `calibration_slope`."""
    return _logistic_fit(y, logit(risk), free_slope=True)


def calibration_intercept(y: Array, risk: Array) -> float:
    """Intercept of the outcome on the risk's log-odds with the slope held at 1; above 0 the risks are too low."""
    return _logistic_fit(y, logit(risk), free_slope=False)[0]


METRICS: dict[str, Metric] = {
    "auroc": auroc,
    "auprc": auprc,
    "brier": brier,
    "log_loss": log_loss,
    "observed_over_expected": observed_over_expected,
    "calibration_slope": calibration_slope,
    "calibration_intercept": calibration_intercept,
}


def interval(metric: Metric, y: Array, risk: Array, seed: int) -> tuple[float, float] | None:
    """The metric's 95 % percentile bootstrap interval over patients; None if too few resamples could be computed."""
    generator = np.random.default_rng(seed)
    found = []
    for _ in range(RESAMPLES if len(y) else 0):
        rows = generator.integers(0, len(y), len(y))
        found.append(metric(y[rows], risk[rows]))
    finite = np.array(found)[np.isfinite(found)]
    if len(finite) < RESAMPLES // 2:
        return None
    low, high = np.percentile(finite, [2.5, 97.5])
    return float(low), float(high)


def resampled(n: int, generator: np.random.Generator) -> Iterator[NDArray[np.int64]]:
    """The rows (m, n) of resamples of n patients, a few resamples at a time: their memory does not grow with n."""
    left = RESAMPLES if n <= 20_000 else FEWER_RESAMPLES
    while left and n:
        several = min(left, max(1, 1_000_000 // n))
        yield generator.integers(0, n, (several, n))
        left -= several


def wilson(part: float, whole: float) -> tuple[float, float] | None:
    """The 95 % interval of a share, `part` of `whole`, by its score test; None of nobody.

    Source: Wilson EB. Probable inference, the law of succession, and statistical inference. J Am Stat Assoc
    1927;22:209-212.
    """
    if not whole:
        return None
    share, spread = part / whole, Z95**2 / whole
    middle = share + spread / 2
    half = (spread * (share * (1 - share) + spread / 4)) ** 0.5
    # at no or every patient one end is exact, and rounding would carry it past the scale
    low = 0.0 if part == 0 else (middle - half) / (1 + spread)
    high = 1.0 if part == whole else (middle + half) / (1 + spread)
    return low, high


def logit(risk: Array) -> Array:
    """Log-odds of risks (n,), cut at 1e-12 from either end."""
    clipped = np.clip(risk, SMALLEST_RISK, 1 - SMALLEST_RISK)
    return np.log(clipped / (1 - clipped))


def _logistic_fit(y: Array, x: Array, free_slope: bool) -> tuple[float, float]:
    """Intercept and slope of y on x by Newton's method; NaN where the likelihood has no maximum."""
    if not 0 < y.sum() < len(y):
        return float("nan"), float("nan")
    intercept, slope, steepness = 0.0, 1.0, np.inf
    step = np.zeros(2)
    for _ in range(100):
        p = 1 / (1 + np.exp(-np.clip(intercept + slope * x, -700, 700)))
        gradient = np.array([(y - p).sum(), ((y - p) * x).sum() if free_slope else 0.0])
        if np.abs(gradient).sum() > steepness:  # of risks far too extreme a whole step goes past the maximum
            step = step / 2
            intercept, slope = intercept - float(step[0]), slope - float(step[1])
            continue
        steepness = np.abs(gradient).sum()
        weight = p * (1 - p)
        if free_slope:
            cross = (weight * x).sum()
            hessian = np.array([[weight.sum(), cross], [cross, (weight * x * x).sum()]])
            if abs(np.linalg.det(hessian)) < 1e-12:
                return float("nan"), float("nan")
            step = np.linalg.solve(hessian, gradient)
        else:
            if weight.sum() < 1e-12:
                return float("nan"), float("nan")
            step = np.array([gradient[0] / weight.sum(), 0.0])
        step = step * min(1.0, 2 / max(float(np.abs(step).max()), 1e-300))
        intercept, slope = intercept + float(step[0]), slope + float(step[1])
        if np.abs(step).max() < 1e-10:
            return intercept, slope
    return float("nan"), float("nan")
