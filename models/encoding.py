"""Features as a table model sees them: numbers as they are, a category as one 0/1 column a value.

Nothing is learned here. The same encoding is written twice, for numpy and as ONNX nodes, and training holds them equal.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from configs.errors import TrainingError
from features.build import Feature, Plan


@dataclass(frozen=True)
class Encoding:
    """`numbers`: positions in X taken as they are; `choices`: (position, index) of each 0/1 column after them."""

    numbers: tuple[int, ...]
    choices: tuple[tuple[int, int], ...]

    @property
    def width(self) -> int:
        return len(self.numbers) + len(self.choices)

    def apply(self, X: NDArray[np.float32]) -> NDArray[np.float32]:
        """X (n, d) as (n, width); a missing number stays NaN, and a missing category is NaN in all of its columns."""
        chosen = [
            np.where(np.isnan(X[:, position]), np.nan, X[:, position] == index) for position, index in self.choices
        ]
        return np.column_stack([X[:, list(self.numbers)], *chosen]).astype(np.float32)


def encoding(inputs: Sequence[Feature]) -> Encoding:
    """How these features are laid out."""
    numbers = tuple(position for position, feature in enumerate(inputs) if not feature.categories)
    choices = tuple(
        (position, index) for position, feature in enumerate(inputs) for index in range(len(feature.categories))
    )
    return Encoding(numbers, choices)


def numbers_of(plan: Plan, family: str) -> Encoding:
    """How the plan's plain numbers are laid out for a family that reads no signal. Raises TrainingError without any."""
    if not plan.features:
        names = ", ".join(signal.name for signal in plan.signals)
        raise TrainingError(
            f"{family} reads plain numbers, and the `features` are {names} alone: name a definition that makes a "
            "number of it, or take the candidate out."
        )
    return encoding(plan.features)
