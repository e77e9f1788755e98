"""Operating points: the risk from which a patient counts as high, named by the figure it reaches."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from configs.errors import TrainingError
from configs.spec import OperatingPoint


def operating_points(
    wanted: Mapping[str, OperatingPoint], risk: NDArray[np.float64], y: NDArray[np.float64]
) -> dict[str, float]:
    """Each point's threshold: a risk at or above it is an alert. `risk`, `y` (n,) are out of fold.

    A sensitivity takes the highest threshold that still reaches it, a specificity or PPV the lowest.
    Raises TrainingError if a point cannot be reached, or a later point lies below an earlier one.
    """
    thresholds = np.unique(risk)
    order = np.argsort(risk)
    first = np.searchsorted(risk[order], thresholds)
    events_from = np.concatenate([np.cumsum(y[order][::-1])[::-1], [0.0]])[first]
    alerts = len(y) - first
    non_events_below = first - (y.sum() - events_from)
    found: dict[str, float] = {}
    for name, point in wanted.items():
        if point.sensitivity is not None:
            reached = thresholds[events_from / y.sum() >= point.sensitivity][-1:]
        elif point.specificity is not None:
            reached = thresholds[non_events_below / (len(y) - y.sum()) >= point.specificity][:1]
        elif point.ppv is not None:
            reached = thresholds[events_from / alerts >= point.ppv][:1]
        if not len(reached):
            raise TrainingError(f"operating_points.{name}: no threshold reaches {_said(point)} in the training part.")
        if found and reached[0] < max(found.values()):
            earlier = max(found, key=lambda other: found[other])
            raise TrainingError(
                f"operating_points.{name}: {_said(point)} is reached from a risk of {reached[0]:.3f}, below "
                f"{earlier!r} at {found[earlier]:.3f}; points are written in rising order of risk."
            )
        found[name] = float(reached[0])
    return found


def _said(point: OperatingPoint) -> str:
    return ", ".join(f"{key} {value:g}" for key, value in point.model_dump(exclude_none=True).items())
