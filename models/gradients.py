"""Why a network's risk is what it is: each feature's contribution to the log-odds, by integrated gradients.

A contribution is what the log-odds gain on the way from a typical patient to this one, as far as the feature moves.
The typical patient has the median of each number, the most frequent value of each category, and signals without
content: a flat recording, a picture of one grey. On the way numbers and categories move together, in a straight line,
and contribute their integrated gradients (Sundararajan M, Taly A, Yan Q. ICML 2017, arXiv:1703.01365), by captum. A
signal moves in one step, and what the patient lacks goes missing in one: half a recording, or half of an absence, is
nothing that a network was taught. The steps are taken before all else moves, and, in the opposite order, after it; the
mean of both ways counts.

The contributions add up to what the patient's log-odds are above the typical one's; each explanation is held to it.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from configs.errors import BundleError
from features.build import Plan
from models.explain import Late, LateError, never

if TYPE_CHECKING:
    from torch import Tensor, nn

Row = NDArray[np.float32]
TOLERANCE = 0.01
"""How far, in log-odds, base and contributions together may lie from what the model says: a hundredth of the odds."""
POINTS = 16
"""Where gradients are taken on a piece of the line, which begins as one piece."""
PIECES = 128
"""At most. Where the network has a kink the gradients miss it, and the piece that missed most is halved."""


class Readable(Protocol):
    """A network that says what it reads of X (n, d): `parts`, each (n, …), that hang on the features one by one."""

    network: "nn.Module"

    def parts(self, X: NDArray[np.float32]) -> "Sequence[Tensor | NDArray[np.float32]]": ...

    def log_odds(self, X: NDArray[np.float32]) -> NDArray[np.float64]: ...


@dataclass(frozen=True)
class Explainer:
    """A network that can be explained, on the CPU; `typical` (d,) is the row of X that its explanations begin with.

    `places` are the columns of each feature, the `plain` ones first.
    """

    model: Readable
    places: tuple[slice, ...]
    plain: int
    typical: Row
    at_once = 1

    def by_output(self, X: NDArray[np.float32], late: Late = never) -> list[tuple[float, NDArray[np.float64]]]:
        """For each output, its base and the contribution (n, k) of each plain feature and each signal.

        Raises LateError soon after it is too `late`, BundleError if the contributions do not add up.
        """
        from models.device import one_thread

        bases = self._said(self.typical[None])[0]
        with one_thread():
            found = np.array([self._row(row, late) for row in X]).reshape(len(X), len(bases), len(self.places))
        return [(float(base), found[:, output]) for output, base in enumerate(bases)]

    def maps(self, X: NDArray[np.float32], output: int, /) -> NDArray[np.float32] | None:
        """Where each row's picture raises that output, (n, height, width), 0 to 1; None without a picture."""
        gradcam = getattr(self.model, "gradcam", None)
        return None if gradcam is None else np.asarray(gradcam(X, output))

    def _said(self, X: NDArray[np.float32]) -> NDArray[np.float64]:
        """The log-odds (n, 1), or of several classes (n, K)."""
        return self.model.log_odds(X).reshape(len(X), -1)

    def _row(self, row: Row, late: Late) -> NDArray[np.float64]:
        """Each output's contributions of one row, (K, k)."""
        steps = [number for number, place in enumerate(self.places) if self._steps(number, row[place])]
        jumped = self._with(self.typical, row, steps)
        moved = self._with(row, self.typical, steps)  # all but the steps
        jumps = self._jumps(self.typical, row, steps) + self._jumps(moved, row, steps[::-1])
        lines = self._line(self.typical, moved, late)
        lines += self._line(jumped, row, late) if steps else lines
        found: NDArray[np.float64] = (jumps + lines) / 2
        above = (self._said(row[None]) - self._said(self.typical[None]))[0]
        gap = float(np.abs(found.sum(axis=1) - above).max())
        if not gap <= TOLERANCE:
            raise BundleError(
                f"the contributions add up to {gap:.2g} of log-odds beside what the model says (limit {TOLERANCE:g})."
            )
        return found

    def _steps(self, number: int, value: Row) -> bool:
        """Whether the feature moves in one step: it is a signal, or missing."""
        return number >= self.plain or bool(np.isnan(value).all())

    def _with(self, one: Row, other: Row, numbers: Sequence[int]) -> Row:
        """The one row with these features of the other."""
        found = one.copy()
        for number in numbers:
            found[self.places[number]] = other[self.places[number]]
        return found

    def _jumps(self, begin: Row, row: Row, order: Sequence[int]) -> NDArray[np.float64]:
        """What these features do when they take the row's values one after the other, each output's (K, k)."""
        rows = np.stack([self._with(begin, row, order[:count]) for count in range(len(order) + 1)])
        said = self._said(rows)
        found = np.zeros((said.shape[1], len(self.places)))
        found[:, list(order)] = np.diff(said, axis=0).T
        return found

    def _line(self, begin: Row, end: Row, late: Late) -> NDArray[np.float64]:
        """The integrated gradients of the straight line between two rows, each output's (K, k)."""

        from models.learner import answer

        here, there = self._parts(begin), self._parts(end)
        moving = [
            which for which, (one, other) in enumerate(zip(here, there, strict=True)) if _differ(one, other).any()
        ]
        outputs = self._said(end[None]).shape[1]
        found = np.zeros((outputs, len(self.places)))
        if not moving:
            return found
        owned = []
        for number in range(self.plain):
            alone = self._parts(self._with(begin, end, [number]))
            owned.append([_differ(alone[which], here[which]) for which in moving])

        def said(*parts: "Tensor") -> "Tensor":
            if late():
                raise LateError
            whole = [part.expand(len(parts[0]), *part.shape[1:]) for part in here]
            for which, part in zip(moving, parts, strict=True):
                whole[which] = part
            return answer(self.model.network(*whole)).reshape(len(parts[0]), -1)

        ends = [here[which] for which in moving], [there[which] for which in moving]
        for output in range(outputs):
            gained = _integrated(said, *ends, output)
            for number, masks in enumerate(owned):
                found[output, number] = sum(float(part[mask].sum()) for part, mask in zip(gained, masks, strict=True))
        return found

    def _parts(self, row: Row) -> "list[Tensor]":
        import torch

        return [torch.as_tensor(part).float() for part in self.model.parts(row[None])]


def _integrated(
    said: "Callable[..., Tensor]", here: "Sequence[Tensor]", there: "Sequence[Tensor]", output: int
) -> "list[Tensor]":
    """The integrated gradients of an output between these parts, each like its part; as good as PIECES make them."""
    import torch
    from captum.attr import IntegratedGradients

    method = IntegratedGradients(said)

    def at(share: float) -> "tuple[Tensor, ...]":
        return tuple(one + share * (other - one) for one, other in zip(here, there, strict=True))

    def piece(start: float, stop: float) -> "tuple[float, float, float, list[Tensor]]":
        """How much of the log-odds' change the gradients miss, where, and the gradients."""
        begin, end = at(start), at(stop)
        gained = method.attribute(end, begin, target=output, n_steps=POINTS, method="gausslegendre")
        with torch.no_grad():
            change = float(said(*end)[0, output] - said(*begin)[0, output])
        gained = [part.double().nan_to_num() for part in gained]
        return abs(change - sum(float(part.sum()) for part in gained)), start, stop, gained

    with torch.enable_grad():
        pieces = [piece(0.0, 1.0)]
        while sum(missed for missed, *_ in pieces) > TOLERANCE / 2 and len(pieces) < PIECES:
            worst = max(range(len(pieces)), key=lambda place: pieces[place][0])
            _, start, stop, _ = pieces.pop(worst)
            middle = (start + stop) / 2
            pieces += [piece(start, middle), piece(middle, stop)]
    return [torch.stack(parts).sum(dim=0) for parts in zip(*(gained for *_, gained in pieces), strict=True)]


def _differ(one: "Tensor", other: "Tensor") -> "Tensor":
    """Where the two differ; a NaN of both is alike."""
    return (one != other) & ~(one.isnan() & other.isnan())


def explainer(model: Readable, plan: Plan, reference: Mapping[str, Any]) -> Explainer:
    """What explains this network's predictions; `reference` are the histograms of the patients that it learned from."""
    model.network.eval().requires_grad_(False)
    places = tuple(plan.places(name) for name in plan.names)
    typical = np.zeros(plan.width, np.float32)
    for feature in plan.summaries:
        column = next((signal.column for signal in plan.signals if signal.name == feature.name), None)
        if column is None or column.type == "image":
            typical[plan.places(feature.name)] = _middle(reference["features"][feature.name])
    return Explainer(model, places, len(plan.features), typical)


def _middle(histogram: Mapping[str, Any]) -> float:
    """The most frequent category's index, or the cut between two bins that lies next to the median."""
    counts = np.array(histogram["counts"])
    if "categories" in histogram:
        return float(counts.argmax())
    below = np.cumsum(counts)[:-1] - counts.sum() / 2
    return float(histogram["edges"][int(np.abs(below).argmin())])
