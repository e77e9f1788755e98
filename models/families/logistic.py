"""Logistic regression: medians and missing flags for numbers, one column a category, ridge penalty."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from features.build import Feature
from models.encoding import Encoding, encoding


@dataclass(frozen=True)
class Fitted:
    layout: Encoding
    width: int
    pipeline: Any

    def log_odds(self, X: NDArray[np.float32]) -> NDArray[np.float64]:
        found: NDArray[np.float64] = self.pipeline.decision_function(self.layout.apply(X).astype(np.float64))
        return found

    def export(self, path: Path) -> None:
        from models.onnx import write_linear

        imputer, scaler, model = (step for _, step in self.pipeline.steps)
        weights = model.coef_[0] / scaler.scale_
        intercept = float(model.intercept_[0] - (scaler.mean_ * weights).sum())
        flagged = imputer.indicator_.features_
        write_linear(self.layout, self.width, imputer.statistics_, flagged, weights, intercept, path)


def fit(X: NDArray[np.float32], y: NDArray[np.float64], inputs: Sequence[Feature], seed: int) -> Fitted:
    """Learn from X (n, d) and y (n,). A number that is never missing here is filled with its median all the same."""
    from sklearn.impute import SimpleImputer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    layout = encoding(inputs)
    pipeline = make_pipeline(
        SimpleImputer(strategy="median", add_indicator=True, keep_empty_features=True),
        StandardScaler(),
        LogisticRegression(C=1.0, max_iter=2000, tol=1e-8, random_state=seed),
    )
    pipeline.fit(layout.apply(X).astype(np.float64), y)
    return Fitted(layout, X.shape[1], pipeline)
