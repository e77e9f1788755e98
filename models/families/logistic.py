"""Logistic regression with a ridge penalty; what is missing counts as average.

A missing number takes the training median and a missing category the training shares, so that an unknown value moves
the risk neither up nor down. Only a column that was often missing in training gets a flag of its own: the weight of a
flag learned from a handful of patients would be noise, and would move every later patient without that value.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.encoding import Encoding, numbers_of
from models.family import Choice, Range, Task

FEWEST_MISSING = 20
"""Training patients without a value, and with one, before its absence is learned from; our own convention."""


SPACE: Mapping[str, Range | Choice] = {"C": Range(0.001, 100.0, log=True)}
OWN = {"C": 1.0}
"""The inverse of the ridge penalty on standardised inputs, where no trials chose: scikit-learn's own."""


@dataclass(frozen=True)
class Fitted:
    """`filled_with` (k,) stands in for missing encoded columns, `flagged` (m,) are those that add a missing flag."""

    layout: Encoding
    width: int
    filled_with: NDArray[np.float64]
    flagged: NDArray[np.int64]
    pipeline: Any

    def log_odds(self, X: NDArray[np.float32]) -> NDArray[np.float64]:
        encoded = self.layout.apply(X).astype(np.float64)
        found: NDArray[np.float64] = self.pipeline.decision_function(_terms(encoded, self.filled_with, self.flagged))
        return found

    def export(self, folder: Path) -> None:
        from models.onnx import write_linear

        scaler, model = (step for _, step in self.pipeline.steps)
        weights = model.coef_ / scaler.scale_
        intercepts = model.intercept_ - (scaler.mean_ * weights).sum(axis=1)
        path = folder / "model.onnx"
        write_linear(self.layout, self.width, self.filled_with, self.flagged, weights.T, intercepts, path)


def fit(X: NDArray[np.float32], y: NDArray[np.float64], task: Task) -> Fitted:
    """Learn from the plain numbers of X (n, d), NaN where missing, and y (n,).

    Several classes are learned as one multinomial model.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    layout = numbers_of(task.plan, "logistic")
    encoded = layout.apply(X).astype(np.float64)
    missing = np.isnan(encoded)
    numbers = len(layout.numbers)
    filled_with = np.zeros(layout.width)
    for column in range(layout.width):
        present = encoded[~missing[:, column], column]
        if len(present):  # a column without any value is 0 throughout, and learns nothing
            filled_with[column] = np.median(present) if column < numbers else present.mean()
    often = (missing.sum(axis=0) >= FEWEST_MISSING) & ((~missing).sum(axis=0) >= FEWEST_MISSING)
    once = [*range(numbers), *(numbers + place for place, (_, index) in enumerate(layout.choices) if index == 0)]
    flagged = np.array([column for column in once if often[column]], np.int64)
    its = {**OWN, **task.parameters}
    model = LogisticRegression(**its, max_iter=2000, tol=1e-8, random_state=task.seed)
    pipeline = make_pipeline(StandardScaler(), model)
    pipeline.fit(_terms(encoded, filled_with, flagged), y)
    return Fitted(layout, X.shape[1], filled_with, flagged, pipeline)


def _terms(
    encoded: NDArray[np.float64], filled_with: NDArray[np.float64], flagged: NDArray[np.int64]
) -> NDArray[np.float64]:
    """What the linear model sees: encoded columns without gaps, then the flags."""
    missing = np.isnan(encoded)
    return np.column_stack([np.where(missing, filled_with, encoded), missing[:, flagged]])
