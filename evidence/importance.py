"""How much the model leans on each feature: what is lost when its values are shuffled among the test patients."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from evidence.metrics import auroc
from features.build import AT
from features.cohort import Cohort
from models.predict import Predictor

REPEATS = 20
DIGITS = 4


@dataclass(frozen=True)
class Importance:
    """The mean drop in AUROC over shuffles of these features together, and the interval of 95 % of the shuffles."""

    features: tuple[str, ...]
    drop: float
    low: float
    high: float

    @property
    def name(self) -> str:
        """The features' names; those of one definition as `topic.function.*`."""
        together: dict[str, list[str]] = {}
        for name in self.features:
            together.setdefault(".".join(name.split(".")[:2]), []).append(name)
        return ", ".join(names[0] if len(names) == 1 else f"{one}.*" for one, names in together.items())


def permutation(predictor: Predictor, test: Cohort, seed: int) -> list[Importance]:
    """Each feature's importance on these patients, the greatest first; NaN without both classes.

    Features that read the same columns, whether one column alone or several of which one is an array, are shuffled
    together: with one of them in its place, the model would still be told what the others hide. The order of ties is
    the spec's.
    Source: Breiman L. Random forests. Mach Learn 2001;45:5-32, section 10.
    """
    before = auroc(test.y, predictor.risk(test.X))
    generator = np.random.default_rng(seed)
    found = []
    for names, positions in _together(predictor):
        drops = []
        for _ in range(REPEATS):
            X = test.X.copy()
            X[:, positions] = X[generator.permutation(len(X))][:, positions]
            drops.append(before - auroc(test.y, predictor.risk(X)))
        low, high = np.percentile(drops, [2.5, 97.5])
        found.append(Importance(names, float(np.mean(drops)), float(low), float(high)))
    return sorted(found, key=lambda one: -one.drop)


def drawn(predictor: Predictor, test: Cohort, seed: int) -> list[dict[str, Any]]:
    """The importances as the review page draws them; empty without both classes, of which there is no AUROC."""
    if not 0 < test.y.sum() < len(test):
        return []
    return [
        {
            "feature": one.name,
            "drop": round(one.drop, DIGITS),
            "low": round(one.low, DIGITS),
            "high": round(one.high, DIGITS),
        }
        for one in permutation(predictor, test, seed)
    ]


def _together(predictor: Predictor) -> list[tuple[tuple[str, ...], list[int]]]:
    """The features that are shuffled together, and their positions in X."""
    columns, plan = predictor.spec.columns, predictor.plan
    groups: dict[tuple[str, ...], list[str]] = {}
    for feature in plan.summaries:
        read = tuple(name for name in feature.reads if name != AT) or (feature.name,)
        alike = len(read) == 1 or any(columns[name].size for name in read)
        groups.setdefault(read if alike else (feature.name,), []).append(feature.name)
    return [
        (tuple(names), [place for name in names for place in range(*plan.places(name).indices(plan.width))])
        for names in groups.values()
    ]
