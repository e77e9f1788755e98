"""Prediction sets: which outcomes or classes cannot be ruled out for a patient, at a stated coverage.

Class-conditional split-conformal sets: each class has a threshold of its own, so that the rarer one keeps its coverage.
Source: Vovk V. Conditional validity of inductive conformal predictors. ACML 2012; Sadinle M, Lei J, Wasserman L. Least
ambiguous set-valued classifiers with bounded error levels. J Am Stat Assoc 2019;114:223-234.

The thresholds come from the out-of-fold risks of the training part, while the model that answers is fitted on all of
it: close to cross-conformal, but not split-conformal to the letter, so the coverage is measured on the test part and
not taken for granted (MM025 to MM027).
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from configs.spec import Uncertainty

LABELS = ("negative", "positive")
"""No event, and the event, in the order of the sets' columns; several classes have names of their own."""


@dataclass(frozen=True)
class Conformal:
    """`negative` cannot be ruled out up to this risk, `positive` from this one on; the rest is the spec's rule."""

    coverage: float
    negative: float
    positive: float

    @property
    def document(self) -> dict[str, Any]:
        return asdict(self)

    def sets(self, risk: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Which labels each risk (n,) leaves possible, (n, 2): negative, positive."""
        return np.column_stack([risk <= self.negative, risk >= self.positive])


@dataclass(frozen=True)
class ClassConformal:
    """A class cannot be ruled out from the risk of `least` on; by the classes' names, in their order."""

    coverage: float
    least: dict[str, float]

    @property
    def document(self) -> dict[str, Any]:
        return asdict(self)

    def sets(self, risks: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Which classes the risks (n, K) of a row leave possible, (n, K)."""
        return np.column_stack([risks[:, place] >= least for place, least in enumerate(self.least.values())])


def thresholds(risk: NDArray[np.float64], y: NDArray[np.float64], coverage: float) -> Conformal:
    """The thresholds of out-of-fold risks (n,) and outcomes (n,) 0 or 1.

    A class of too few patients for this coverage is never ruled out: its threshold is the end of the scale.
    """
    negative = _quantile(risk[y == 0], coverage)
    positive = -_quantile(-risk[y == 1], coverage)
    return Conformal(coverage, min(negative, 1.0), max(positive, 0.0))


def class_thresholds(
    risks: NDArray[np.float64], label: NDArray[np.float64], classes: Sequence[str], coverage: float
) -> ClassConformal:
    """The thresholds of the classes' out-of-fold risks (n, K), from each patient's class, `label` (n,) 0 to K-1.

    A class of too few patients for this coverage is never ruled out.
    """
    least = {name: -_quantile(-risks[label == place, place], coverage) for place, name in enumerate(classes)}
    return ClassConformal(coverage, {name: max(value, 0.0) for name, value in least.items()})


def labels(possible: NDArray[np.bool_], names: Sequence[str]) -> list[list[str]]:
    """Each row's possible labels (n, K), by their `names`."""
    return [[name for name, there in zip(names, row, strict=True) if there] for row in possible.tolist()]


def abstentions(
    rule: Uncertainty, possible: NDArray[np.bool_], event: NDArray[np.bool_], missing: Sequence[int]
) -> list[str | None]:
    """Why no band is told, for each row of `possible` (n, K) and its number of missing columns; None: it is told.

    `event` (K,) says which labels are the event's. Classes of the event that cannot be told apart leave no doubt of it.
    """
    found: list[str | None] = []
    sides = np.column_stack([possible[:, ~event].any(axis=1), possible[:, event].any(axis=1)])
    for (negative, positive), gone in zip(sides.tolist(), missing, strict=True):
        if rule.missing_at_most is not None and gone > rule.missing_at_most:
            found.append(f"{gone} values are missing, at most {rule.missing_at_most} may be")
        elif rule.abstain_unless_one_label and negative == positive:
            found.append("neither outcome can be ruled out" if negative else "the risk is that of neither outcome")
        else:
            found.append(None)
    return found


def _quantile(scores: NDArray[np.float64], coverage: float) -> float:
    """The ceil((n + 1) coverage)-th smallest score: what the next one stays below, at least so often."""
    rank = math.ceil((len(scores) + 1) * coverage)
    return float(np.sort(scores)[rank - 1]) if rank <= len(scores) else math.inf
