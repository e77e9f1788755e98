"""From a model's log-odds to a risk that means what it says (Platt scaling, on out-of-fold predictions).

Sources: Platt J. Probabilistic outputs for support vector machines. Advances in Large Margin Classifiers, 1999. Of
several classes: one slope for all and an intercept for each, which with two classes is Platt's own; bias-corrected
temperature scaling of Alexandari A, Kundaje A, Shrikumar A. ICML 2020. Why not a slope for each class (vector scaling,
Guo C et al. ICML 2017) or a matrix (Kull M et al. NeurIPS 2019): a rare class has too few patients to fit them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from configs.errors import TrainingError

STEPS = 100
"""Newton's method takes about ten; where the classes are told apart without error the slope would grow for ever."""


@dataclass(frozen=True)
class Calibration:
    slope: float
    intercept: float

    @property
    def document(self) -> dict[str, float]:
        return {"slope": self.slope, "intercept": self.intercept}

    @property
    def terms(self) -> dict[str, float]:
        return self.document

    def risk(self, log_odds: NDArray[np.float64]) -> NDArray[np.float64]:
        """Calibrated probabilities, (n,) in and out."""
        return 1 / (1 + np.exp(-np.clip(self.slope * log_odds + self.intercept, -700, 700)))

    def risks(self, log_odds: NDArray[np.float64]) -> NDArray[np.float64]:
        """The same: with one event there is nothing else to tell."""
        return self.risk(log_odds)

    def positive(self, risks: NDArray[np.float64]) -> NDArray[np.float64]:
        """The event's share of `risks`: they are that."""
        return risks


@dataclass(frozen=True)
class ClassCalibration:
    """`intercepts` of each class by its name, in the order that numbers them; the `events` are those of the event."""

    slope: float
    intercepts: dict[str, float]
    events: tuple[str, ...]

    @property
    def document(self) -> dict[str, Any]:
        return {"slope": self.slope, "intercepts": self.intercepts}

    @property
    def terms(self) -> dict[str, float]:
        return {"slope": self.slope, **{f"intercept_{name}": value for name, value in self.intercepts.items()}}

    def risk(self, log_odds: NDArray[np.float64]) -> NDArray[np.float64]:
        """The calibrated probability (n,) that the class is one of the event's, from `log_odds` (n, K)."""
        return self.positive(self.risks(log_odds))

    def risks(self, log_odds: NDArray[np.float64]) -> NDArray[np.float64]:
        """Calibrated probabilities of the classes, (n, K) in and out; a row's sum to 1."""
        terms = np.clip(self.slope * log_odds + np.array(list(self.intercepts.values())), -1e300, 1e300)
        shares = np.exp(np.ascontiguousarray(terms - terms.max(axis=1, keepdims=True)))
        found: NDArray[np.float64] = shares / _sum(shares, range(shares.shape[1]))[:, None]
        return found

    def positive(self, risks: NDArray[np.float64]) -> NDArray[np.float64]:
        """The probability (n,) that the class is one of the event's, from the `risks` of all classes (n, K)."""
        names = list(self.intercepts)
        total: NDArray[np.float64] = np.minimum(_sum(risks, [names.index(name) for name in self.events]), 1.0)
        return total


def _sum(risks: NDArray[np.float64], places: Sequence[int]) -> NDArray[np.float64]:
    """The sum (n,) of these columns, one after the other: a row's bits do not hang on how many rows there are."""
    total: NDArray[np.float64] = np.zeros(len(risks))
    for place in places:
        total += risks[:, place]
    return total


def calibrate(log_odds: NDArray[np.float64], y: NDArray[np.float64]) -> Calibration:
    """The slope and intercept that make out-of-fold `log_odds` (n,) fit the outcomes `y` (n,).

    Raises TrainingError if higher log-odds do not go with more events: such a model has learned nothing.
    """
    from sklearn.linear_model import LogisticRegression

    fitted = LogisticRegression(C=np.inf, tol=1e-10, max_iter=1000).fit(log_odds[:, None], y)
    slope, intercept = float(fitted.coef_[0, 0]), float(fitted.intercept_[0])
    if slope <= 0:
        raise TrainingError(_learned_nothing(slope, "a higher risk does not go with more events"))
    return Calibration(slope, intercept)


def calibrate_classes(
    log_odds: NDArray[np.float64], label: NDArray[np.float64], classes: tuple[str, ...], events: tuple[str, ...]
) -> ClassCalibration:
    """The slope and intercepts that make out-of-fold `log_odds` (n, K) fit each patient's class, `label` (n,) 0 to K-1.

    The maximum of the likelihood, by Newton's method; the first class's intercept is 0. Every class has to be there.
    Raises TrainingError if a class's higher log-odds do not go with more of its patients.
    """
    true = label.astype(np.int64)
    shares = np.bincount(true, minlength=len(classes)) / len(true)
    theta = np.concatenate([[0.0], np.log(shares[1:] / shares[0])])  # the slope, and the intercepts but the first
    loss, gradient, curvature = _likelihood(theta, log_odds, true)
    for _ in range(STEPS):
        step = np.linalg.lstsq(curvature, gradient)[0]  # a score without any spread leaves it singular
        again = _likelihood(theta - step, log_odds, true)
        while again[0] > loss and np.abs(step).max() > 1e-12:
            step = step / 2
            again = _likelihood(theta - step, log_odds, true)
        if again[0] > loss or np.abs(step).max() <= 1e-12:
            break
        theta, (loss, gradient, curvature) = theta - step, again
    slope = float(theta[0])
    if slope <= 0:
        raise TrainingError(_learned_nothing(slope, "a class's higher risk does not go with more of its patients"))
    return ClassCalibration(slope, dict(zip(classes, [0.0, *theta[1:].tolist()], strict=True)), events)


def _likelihood(
    theta: NDArray[np.float64], log_odds: NDArray[np.float64], true: NDArray[np.int64]
) -> tuple[float, NDArray[np.float64], NDArray[np.float64]]:
    """The mean negative log-likelihood at `theta` (K,), its gradient (K,) and its second derivative (K, K)."""
    n, count = log_odds.shape
    terms = theta[0] * log_odds
    terms[:, 1:] += theta[1:]
    terms -= terms.max(axis=1, keepdims=True)
    log_risks = terms - np.log(np.exp(terms).sum(axis=1, keepdims=True))
    risks = np.exp(log_risks)
    of = np.zeros((n, count, count))  # what each parameter adds to each class's term
    of[:, :, 0] = log_odds
    of[:, range(1, count), range(1, count)] = 1
    expected = np.einsum("nk,nkp->np", risks, of)
    gradient = (expected - of[np.arange(n), true]).mean(axis=0)
    curvature = np.einsum("nk,nkp,nkq->pq", risks, of, of) / n - expected.T @ expected / n
    return float(-log_risks[np.arange(n), true].mean()), gradient, curvature


def _learned_nothing(slope: float, what: str) -> str:
    return (
        f"calibration slope {slope:.3f}: on patients held out of the fit, {what}. The features say nothing about this "
        "outcome, or `outcome.positive` is the wrong way round."
    )
