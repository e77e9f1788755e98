"""A residual network for tables: an ensemble whose members share nearly all of their weights, in the manner of TabM.

A number is told to the network by how far it has come through each of its quantile bins (piecewise-linear encoding), by
its standardised value beyond them, and by a flag if it is missing. A category has a vector for each of its values, and
one for missing. What is missing is thus a thing of its own, never a zero.

Sources, from memory, not looked up: Gorishniy Y, Rubachev I, Babenko A. On embeddings for numerical features in tabular
deep learning. NeurIPS 2022. Gorishniy Y, Kotelnikov A, Babenko A. TabM: advancing tabular deep learning with
parameter-efficient ensembling. ICLR 2025. Wen Y, Tran D, Ba J. BatchEnsemble. ICLR 2020.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from configs.errors import BundleError, TrainingError
from features.build import Plan
from models import device, learner, weights
from models.encoding import Encoding, numbers_of
from models.family import Choice, Range, Task
from models.learner import Habits

FAMILY = "tabular_net"
OWN: Mapping[str, float] = {"width": 128, "depth": 2, "dropout": 0.1, "learning_rate": 4e-3, "weight_decay": 1e-2}
"""2026-11: the best of a dozen by the out-of-fold log loss of two diseases' training parts (docs/log.md)."""
NETWORK = True
SPACE: Mapping[str, Range | Choice] = {
    "width": Choice((64, 128, 256)),
    "depth": Range(1, 4),
    "dropout": Range(0.0, 0.5),
    "learning_rate": Range(5e-4, 1e-2, log=True),
    "weight_decay": Range(1e-4, 1e-1, log=True),
}
EPOCHS, PATIENCE = 60, 5
SMALLEST_BATCH, LARGEST_BATCH, STEPS = 64, 256, 16
"""A batch is the learned rows over the steps of an epoch, within these ends: hundreds of patients need steps too."""
MEMBERS, EMBEDDING, BINS = 8, 8, 16
BLOCK = 32
"""Rows that are computed at once where the model answers."""
PATIENTS_A_BIN = 20
"""Training patients in a quantile bin, at least; our own convention."""
FURTHEST = 4.0
"""Standard deviations from the median, beyond which a number counts as no further; our own convention."""
NORMAL_QUARTILES = 1.349
"""A normal distribution's quartiles lie this many standard deviations apart."""

Matrix = NDArray[np.float32]


class Architecture(BaseModel):
    """What the network is rebuilt from. `levels`: how many values each category has."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")

    numbers: int = Field(ge=0, le=100_000)
    levels: tuple[Annotated[int, Field(ge=1, le=100_000)], ...]
    bins: int = Field(ge=1, le=1024)
    embedding: int = Field(ge=1, le=1024)
    width: int = Field(ge=1, le=8192)
    depth: int = Field(ge=1, le=64)
    members: int = Field(ge=1, le=1024)
    outputs: int = Field(ge=1, le=10_000)


class Shared(nn.Module):
    """A linear layer (n, E, i) to (n, E, o) that all members share, but for each one's signs and scales of what comes
    in and goes out, and its own intercepts."""

    def __init__(self, members: int, inputs: int, outputs: int, *, first: bool = False) -> None:
        super().__init__()
        reach = 1 / math.sqrt(inputs)
        self.weight = nn.Parameter(torch.empty(inputs, outputs).uniform_(-reach, reach))
        self.bias = nn.Parameter(torch.empty(members, outputs).uniform_(-reach, reach))
        # The members begin as different views of the same patient in the first layer alone.
        taken = torch.randint(0, 2, (members, inputs)) * 2.0 - 1.0 if first else torch.ones(members, inputs)
        self.taken, self.given = nn.Parameter(taken), nn.Parameter(torch.ones(members, outputs))

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = ((x * self.taken) @ self.weight) * self.given + self.bias
        return found


class Network(nn.Module):
    """Logits (n, E, outputs) of `numbers` (n, p), which of them are `missing` (n, p), and `chosen` (n, sum of levels):
    1 for the category's value, 0 throughout where it is missing or was never seen."""

    starts: Tensor
    widths: Tensor
    medians: Tensor
    spreads: Tensor

    def __init__(self, architecture: Architecture, dropout: float = 0.0) -> None:
        super().__init__()
        kind = architecture
        p, k, members = kind.numbers, kind.embedding, kind.members
        self.levels = kind.levels
        self.register_buffer("starts", torch.zeros(p, kind.bins))
        self.register_buffer("widths", torch.ones(p, kind.bins))
        self.register_buffer("medians", torch.zeros(p))
        self.register_buffer("spreads", torch.ones(p))
        self.passed = nn.Parameter(torch.zeros(p, kind.bins, k))  # of each bin
        self.slope = nn.Parameter(torch.empty(p, k).uniform_(-1, 1))
        self.intercept = nn.Parameter(torch.empty(p, k).uniform_(-1, 1))
        self.unknown = nn.Parameter(torch.randn(p, k) * 0.05)
        self.values = nn.ParameterList(torch.randn(count + 1, min(k, count + 1)) * 0.5 for count in kind.levels)
        inputs = p * (k + 1) + sum(min(k, count + 1) for count in kind.levels)
        self.first = Shared(members, inputs, kind.width, first=True)
        self.blocks = nn.ModuleList(Shared(members, kind.width, kind.width) for _ in range(kind.depth - 1))
        reach = 1 / math.sqrt(kind.width)
        self.heads = nn.Parameter(torch.empty(members, kind.width, kind.outputs).uniform_(-reach, reach))
        self.bias = nn.Parameter(torch.zeros(members, kind.outputs))
        self.dropout = nn.Dropout(dropout)
        self.members = members

    @property
    def last(self) -> tuple[Tensor, Tensor]:
        """The weights (E, width, outputs) and intercepts (E, outputs) that its logits come from."""
        return self.heads, self.bias

    def forward(self, numbers: Tensor, missing: Tensor, chosen: Tensor) -> Tensor:
        h = self.told(numbers, missing, chosen)[:, None, :].expand(-1, self.members, -1)
        h = self.dropout(torch.relu(self.first(h)))
        for block in self.blocks:
            h = h + self.dropout(torch.relu(block(h)))
        found: Tensor = torch.einsum("nei,eio->neo", h, self.heads) + self.bias
        return found

    def told(self, numbers: Tensor, missing: Tensor, chosen: Tensor) -> Tensor:
        """What the first layer reads of each patient, (n, inputs)."""
        passed = ((numbers[:, :, None] - self.starts) / self.widths).clamp(0, 1)
        beyond = ((numbers - self.medians) / self.spreads).clamp(-FURTHEST, FURTHEST)
        known = torch.einsum("npt,ptk->npk", passed, self.passed) + beyond[:, :, None] * self.slope + self.intercept
        gone = missing[:, :, None]
        vectors = torch.relu(known) * (1 - gone) + self.unknown * gone
        parts, start = [vectors.flatten(1), missing], 0
        for count, values in zip(self.levels, self.values, strict=True):
            of_one = chosen[:, start : start + count]
            parts.append(torch.cat([of_one, 1 - of_one.sum(1, keepdim=True)], 1) @ values)
            start += count
        return torch.cat(parts, 1)


@dataclass(frozen=True)
class Fitted:
    layout: Encoding
    architecture: Architecture
    network: Network

    def log_odds(self, X: Matrix) -> NDArray[np.float64]:
        found: NDArray[np.float64] = learner.answer(
            torch.from_numpy(device.run(self.network, self.parts(X), BLOCK))
        ).numpy()
        return found

    def parts(self, X: Matrix) -> tuple[Tensor, ...]:
        """What the network reads of X (n, d)."""
        return parts(self.layout, X)

    def export(self, folder: Path) -> None:
        weights.save(folder, FAMILY, self.architecture, self.network)


def fit(X: Matrix, y: NDArray[np.float64], task: Task) -> Fitted:
    """Learn from the plain numbers of X (n, d), NaN where missing, and y (n,); a sixth of the patients says when to
    stop. Raises TrainingError where there is nothing to learn from, or nobody to stop by."""
    layout, chosen = numbers_of(task.plan, FAMILY), _chosen(task.parameters)
    X, y, task = learner.in_order(X, y, task)
    hold = learner.hold_out(y, task.groups, task.seed)
    architecture = Architecture(
        numbers=len(layout.numbers),
        levels=_levels(layout),
        bins=BINS,
        embedding=EMBEDDING,
        width=int(chosen["width"]),
        depth=int(chosen["depth"]),
        members=MEMBERS,
        outputs=1 if task.classes == 2 else task.classes,
    )
    with learner.seeded(task.seed):
        network = Network(architecture, dropout=chosen["dropout"])
    _measure(network, X[~hold][:, list(layout.numbers)])
    batch = min(max(int((~hold).sum()) // STEPS, SMALLEST_BATCH), LARGEST_BATCH)
    habits = Habits(EPOCHS, PATIENCE, batch, chosen["learning_rate"], chosen["weight_decay"])
    rows = parts(layout, X), torch.from_numpy(y).float()
    learner.learn(network, *rows, task, habits, hold=torch.from_numpy(hold))
    return Fitted(layout, architecture, network)


def load(folder: Path, plan: Plan) -> Fitted:
    """The network whose files lie in `folder`. Raises BundleError if they are not those of this plan's features."""
    layout = numbers_of(plan, FAMILY)
    architecture, network = weights.load(folder, FAMILY, Architecture, Network)
    for what, found, expected in (
        ("numbers", architecture.numbers, len(layout.numbers)),
        ("levels", architecture.levels, _levels(layout)),
    ):
        if found != expected:
            raise BundleError(f"{weights.DOCUMENT}: {what} is {found}, the spec's features ask for {expected}.")
    return Fitted(layout, architecture, network)


def parts(layout: Encoding, X: Matrix) -> tuple[Tensor, ...]:
    """What the network reads of X (n, d): the numbers, which of them are missing, and the categories' values."""
    encoded = layout.apply(X)
    numbers, chosen = encoded[:, : len(layout.numbers)], encoded[:, len(layout.numbers) :]
    found = np.nan_to_num(numbers, nan=0.0), np.isnan(numbers).astype(np.float32), np.nan_to_num(chosen, nan=0.0)
    return tuple(torch.from_numpy(np.ascontiguousarray(part)) for part in found)


def _chosen(parameters: Mapping[str, Any]) -> dict[str, float]:
    """The family's own hyper-parameters, and in their place those that trials chose."""
    if odd := sorted(set(parameters) - set(OWN)):
        raise TrainingError(f"{FAMILY} has no parameter {odd[0]!r}; it has {', '.join(OWN)}.")
    return {**OWN, **parameters}


def _levels(layout: Encoding) -> tuple[int, ...]:
    """How many values each category has, in the order of their columns."""
    found: dict[int, int] = {}
    for position, _ in layout.choices:
        found[position] = found.get(position, 0) + 1
    return tuple(found.values())


def _measure(network: Network, numbers: Matrix) -> None:
    """Lay down each number's quantile bins, median and spread, from the rows that are learned from."""
    network.starts.zero_()
    network.widths.fill_(math.inf)  # a bin that no value comes through
    for place, column in enumerate(numbers.T):
        present = column[~np.isnan(column)].astype(np.float64)
        if not len(present):
            continue
        bins = max(1, min(BINS, len(present) // PATIENTS_A_BIN))
        edges = np.unique(np.quantile(present, np.linspace(0, 1, bins + 1)))
        low, median, high = np.quantile(present, [0.25, 0.5, 0.75])
        network.starts[place, : len(edges) - 1] = torch.from_numpy(edges[:-1])
        network.widths[place, : len(edges) - 1] = torch.from_numpy(np.diff(edges))
        network.medians[place] = float(median)
        network.spreads[place] = float((high - low) / NORMAL_QUARTILES or present.std() or 1.0)
