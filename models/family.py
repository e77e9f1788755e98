"""The small interface that every model family keeps."""

from collections.abc import Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Protocol, cast

import numpy as np
from numpy.typing import NDArray

from configs.errors import SpecError
from features.build import Feature


class Fitted(Protocol):
    """A model that has learned. Both ways to its log-odds agree to 1e-6 in risk; training checks it."""

    def log_odds(self, X: NDArray[np.float32]) -> NDArray[np.float64]:
        """The library's own log-odds of the event, (n,), uncalibrated.

        Of K classes, three or more, (n, K): each one's log-probability, up to a constant that a row's classes share.
        """
        ...

    def export(self, path: Path) -> None:
        """Write model.onnx: input `X` float32 (n, d), output `log_odds` (n, 1), or (n, K) of K classes."""
        ...


class Family(Protocol):
    """A module of models/families."""

    def fit(self, X: NDArray[np.float32], y: NDArray[np.float64], inputs: Sequence[Feature], seed: int) -> Fitted:
        """Learn from `X` (n, d), NaN where missing, and `y` (n,) 0 or 1, or 0 to K - 1 where there are K classes.

        Each class has to be there. The same arguments give the same model.
        """
        ...


def family(name: str) -> Family:
    """The module models/families/<name>.py. Raises SpecError if there is none."""
    if not name.isidentifier() or find_spec(f"models.families.{name}") is None:
        known = sorted(path.stem for path in (Path(__file__).parent / "families").glob("[a-z]*.py"))
        raise SpecError(f"model family {name!r}: models/families/{name}.py does not exist. Known: {', '.join(known)}.")
    return cast(Family, import_module(f"models.families.{name}"))
