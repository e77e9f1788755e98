"""The small interface that every model family keeps."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from configs.errors import BundleError, SpecError
from configs.settings import Settings
from configs.spec import Encoder, Learning
from features.build import Plan
from models import weights


@dataclass(frozen=True)
class Range:
    """A number that trials vary between `low` and `high`, on a logarithmic scale where `log`; whole ones where both
    ends are."""

    low: float
    high: float
    log: bool = False


@dataclass(frozen=True)
class Choice:
    """One of these that trials choose."""

    values: tuple[str | int | float, ...]


def _nothing(_epoch: int, _figures: Mapping[str, float]) -> None:
    return None


@dataclass(frozen=True)
class Task:
    """What a family learns with, beside X and y. The same task and the same rows give the same model.

    `classes` is 2, or K. `groups` (n,) says whose row each is: a hold-out keeps a patient on one side. `parameters` are
    what trials chose; what is absent is the family's own. `checkpoints` is where a training leaves its state and goes
    on from; `told` is called once an epoch, with its number and figures.
    """

    plan: Plan
    seed: int
    groups: NDArray[np.int64]
    settings: Settings
    classes: int = 2
    learning: Learning = field(default_factory=Learning)
    encoder: Encoder | None = None
    parameters: Mapping[str, float | int | str] = field(default_factory=dict)
    checkpoints: Path | None = None
    told: Callable[[int, Mapping[str, float]], None] = _nothing

    def of(self, rows: NDArray[Any]) -> "Task":
        """The same for some of the rows."""
        return replace(self, groups=self.groups[rows])


class Model(Protocol):
    """A model that answers."""

    def log_odds(self, X: NDArray[np.float32]) -> NDArray[np.float64]:
        """The log-odds of the event, (n,), uncalibrated.

        Of K classes, three or more, (n, K): each one's log-probability, up to a constant that a row's classes share.
        """
        ...


class Fitted(Model, Protocol):
    """A model that has learned. What it says and what its files say agree to 1e-6 in risk; training checks it."""

    def export(self, folder: Path) -> None:
        """Write its files: model.onnx, whose input is `X` float32 (n, d) and output `log_odds` (n, 1), or (n, K) of K
        classes; or model.json, which names the family, beside weights.safetensors or a model.onnx of its own."""
        ...


class Family(Protocol):
    """A module of models/families. One that writes a model.json has `load` as well: `load(folder, plan) -> Model`.

    One that trains a network, by models/learner.py, says so: `NETWORK = True`.
    """

    SPACE: Mapping[str, Range | Choice]
    """What trials may vary, by name; empty where there is nothing to choose."""

    def fit(self, X: NDArray[np.float32], y: NDArray[np.float64], task: Task) -> Fitted:
        """Learn from `X` (n, d), NaN where missing, and `y` (n,) 0 or 1, or 0 to K - 1 where there are K classes.

        Each class has to be there. Raises TrainingError for what the family cannot learn from.
        """
        ...


def family(name: str) -> Family:
    """The module models/families/<name>.py. Raises SpecError if there is none."""
    if not name.isidentifier() or find_spec(f"models.families.{name}") is None:
        known = sorted(path.stem for path in (Path(__file__).parent / "families").glob("[a-z]*.py"))
        raise SpecError(f"model family {name!r}: models/families/{name}.py does not exist. Known: {', '.join(known)}.")
    return cast(Family, import_module(f"models.families.{name}"))


def space(name: str, encoder: Encoder | None) -> Mapping[str, Range | Choice]:
    """What trials may vary of a candidate, by name; of a frozen encoder that of its head, which alone learns."""
    return family(encoder.head if name == "frozen_encoder" and encoder else name).SPACE


def load(folder: Path, plan: Plan) -> Model:
    """The model whose files lie in `folder`. Raises BundleError, saying what is wrong with them."""
    from models.onnx import Session

    if not (folder / weights.DOCUMENT).exists():
        return Session(folder / "model.onnx")
    try:
        of_family: Any = family(weights.family_of(folder))
    except SpecError as exc:
        raise BundleError(f"{folder.name}: {weights.DOCUMENT}: {exc}") from exc
    if not hasattr(of_family, "load"):
        raise BundleError(
            f"{folder.name}: {weights.DOCUMENT}: a model of {weights.family_of(folder)} has no such file."
        )
    found: Model = of_family.load(folder, plan)
    return found
