"""Gradient-boosted trees (scikit-learn's HistGradientBoosting), small and slow enough for some hundred patients."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.encoding import Encoding, numbers_of
from models.family import Choice, Range, Task

SPACE: Mapping[str, Range | Choice] = {
    "learning_rate": Range(0.01, 0.3, log=True),
    "max_iter": Range(40, 400, log=True),
    "max_leaf_nodes": Range(3, 31, log=True),
    "min_samples_leaf": Range(15, 60, log=True),  # the export tells how many patients each leaf had
    "l2_regularization": Range(0.01, 30.0, log=True),
}
OWN = {
    "learning_rate": 0.05,
    "max_iter": 120,
    "max_leaf_nodes": 6,
    "min_samples_leaf": 15,
    "l2_regularization": 1.0,
}
"""What holds where no trials chose: small and slow enough for some hundred patients."""


@dataclass(frozen=True)
class Fitted:
    layout: Encoding
    width: int
    model: Any

    def log_odds(self, X: NDArray[np.float32]) -> NDArray[np.float64]:
        found: NDArray[np.float64] = self.model.decision_function(self.layout.apply(X))
        return found

    def export(self, folder: Path) -> None:
        from models.onnx import Tree, write_trees

        # _predictors and _baseline_prediction are private; tests/unit/test_models_families.py notices if they go.
        trees = []
        for predictor in chain.from_iterable(self.model._predictors):  # in turn for each class
            nodes = predictor.nodes
            trees.append(
                Tree(
                    feature=nodes["feature_idx"].astype(np.int64),
                    threshold=nodes["num_threshold"],
                    missing_left=nodes["missing_go_to_left"].astype(bool),
                    left=nodes["left"].astype(np.int64),
                    right=nodes["right"].astype(np.int64),
                    leaf=nodes["is_leaf"].astype(bool),
                    value=nodes["value"],
                    count=nodes["count"].astype(np.int64),
                )
            )
        write_trees(self.layout, self.width, trees, self.model._baseline_prediction[0], folder / "model.onnx")


def fit(X: NDArray[np.float32], y: NDArray[np.float64], task: Task) -> Fitted:
    """Learn from the plain numbers of X (n, d), and y (n,). Missing ones take the branch that suited training patients.

    Several classes have a tree each in every round.
    """
    from sklearn.ensemble import HistGradientBoostingClassifier

    layout = numbers_of(task.plan, "boosted")
    model = HistGradientBoostingClassifier(
        **{**OWN, **task.parameters},
        early_stopping=False,
        random_state=task.seed,
    )
    encoded = layout.apply(X)
    encoded[:, np.isnan(encoded).all(axis=0)] = 0  # scikit-learn cannot bin a column without a value; none splits on it
    model.fit(encoded, y)
    return Fitted(layout, X.shape[1], model)
