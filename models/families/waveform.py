"""A residual network on one waveform, with the plain features beside it; some hundred recordings are enough to begin.

Some 100,000 weights, because a hospital's recordings are few: one of 200,000 was no better on simulated rhythms.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from configs.errors import BundleError, TrainingError
from features.build import Plan, Signal
from models import weights
from models.encoding import Encoding, encoding
from models.family import Choice, Range, Task

if TYPE_CHECKING:
    from models.waveform_network import WaveformNetwork

NAME = "waveform"
BLOCK = 1
"""Rows that are computed together (models/device.py says why one by one)."""
NETWORK = True
SPACE: Mapping[str, Range | Choice] = {
    "width": Choice((8, 16, 24)),
    "dropout": Range(0.0, 0.5),
    "learning_rate": Range(5e-4, 5e-3, log=True),
    "weight_decay": Range(1e-3, 1e-1, log=True),
}


class Architecture(BaseModel):
    """What the network is rebuilt from."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")

    leads: Annotated[int, Field(ge=1, le=1024)]
    samples: Annotated[int, Field(ge=2, le=10_000_000)]
    inputs: Annotated[int, Field(ge=0, le=100_000)]
    outputs: Annotated[int, Field(ge=1, le=1000)]
    width: Annotated[int, Field(ge=1, le=1024)]
    dropout: Annotated[float, Field(ge=0, lt=1)]


@dataclass(frozen=True)
class Fitted:
    architecture: Architecture
    network: "WaveformNetwork"
    signal: Signal
    layout: Encoding

    def log_odds(self, X: NDArray[np.float32]) -> NDArray[np.float64]:
        import torch

        from models import device
        from models.learner import answer

        logits = device.run(self.network, self.parts(X), BLOCK)
        found: NDArray[np.float64] = answer(torch.from_numpy(logits)).numpy()
        return found

    def parts(self, X: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """What the network reads of X (n, d)."""
        return _parts(X, self.signal, self.layout)

    def export(self, folder: Path) -> None:
        weights.save(folder, NAME, self.architecture, self.network)


def fit(X: NDArray[np.float32], y: NDArray[np.float64], task: Task) -> Fitted:
    """Learn from X (n, d) and y (n,). Raises TrainingError unless the features name one waveform that somebody has."""
    import torch

    from models.learner import Habits, hold_out, in_order, learn, seeded
    from models.waveform_network import altered

    signal, layout = _signal(task.plan), encoding(task.plan.features)
    X, y, task = in_order(X, y, task)
    hold = hold_out(y, task.groups, task.seed)
    parts = _parts(X, signal, layout)
    chosen = task.parameters
    architecture = Architecture(
        leads=signal.column.shape[0],
        samples=signal.column.shape[1],
        inputs=layout.width,
        outputs=1 if task.classes == 2 else task.classes,
        width=int(chosen.get("width", 16)),
        dropout=float(chosen.get("dropout", 0.2)),
    )
    with seeded(task.seed):
        network = _rebuild(architecture)
    _measure(network, [part[~hold] for part in parts], signal)
    habits = Habits(
        epochs=32,
        patience=10,
        batch=32,
        learning_rate=float(chosen.get("learning_rate", 2e-3)),
        weight_decay=float(chosen.get("weight_decay", 1e-2)),
        augment=altered,
    )
    tensors = tuple(torch.from_numpy(part) for part in parts)
    learned = learn(network, tensors, torch.from_numpy(y), task, habits, hold=torch.from_numpy(hold))
    return Fitted(architecture, cast("WaveformNetwork", learned), signal, layout)


def load(folder: Path, plan: Plan) -> Fitted:
    """The network whose files lie in `folder`. Raises BundleError if they are of other inputs, or not its own."""
    architecture, network = weights.load(folder, NAME, Architecture, _rebuild)
    try:
        signal = _signal(plan)
    except TrainingError as exc:
        raise BundleError(f"{weights.DOCUMENT}: {exc}") from exc
    layout = encoding(plan.features)
    here = (*signal.column.shape, layout.width)
    there = (architecture.leads, architecture.samples, architecture.inputs)
    if here != there:
        raise BundleError(
            f"{weights.DOCUMENT}: a network of {there[0]} leads, {there[1]} samples and {there[2]} numbers; the spec "
            f"has {here[0]}, {here[1]} and {here[2]}."
        )
    return Fitted(architecture, network, signal, layout)


def _signal(plan: Plan) -> Signal:
    waves = [signal for signal in plan.signals if signal.column.type == "waveform"]
    if len(waves) != 1:
        named = ", ".join(signal.name for signal in waves) or "none"
        raise TrainingError(f"waveform reads one column of type waveform; the `features` name {named}.")
    return waves[0]


def _rebuild(architecture: Architecture) -> "WaveformNetwork":
    from models.waveform_network import WaveformNetwork

    of = architecture
    return WaveformNetwork(of.leads, of.inputs, of.outputs, of.width, of.dropout)


def _parts(X: NDArray[np.float32], signal: Signal, layout: Encoding) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """The recordings (n, leads, samples) and the plain numbers (n, inputs), each NaN where missing."""
    return np.ascontiguousarray(signal.of(X)), np.ascontiguousarray(layout.apply(X))


def _measure(network: "WaveformNetwork", parts: list[NDArray[np.float32]], signal: Signal) -> None:
    """Tell the network how large each lead usually is, and where and how wide each number lies, in these rows."""
    import torch

    recordings, numbers = (part.astype(np.float64) for part in parts)
    there = ~np.isnan(recordings).any(axis=(1, 2))
    if not there.any():
        raise TrainingError(f"{signal.name}: no training patient has a recording.")
    size = 2 * np.median(np.abs(recordings[there]), axis=(0, 2))
    network.lead_size.copy_(torch.from_numpy(np.where(size > 0, size, 1.0)))
    for place in range(numbers.shape[1]):
        known = numbers[~np.isnan(numbers[:, place]), place]
        if len(known):
            spread = float(known.std())
            network.centre[place], network.spread[place] = float(np.median(known)), spread if spread > 0 else 1.0
