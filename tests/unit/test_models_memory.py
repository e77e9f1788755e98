"""What a network's training takes of the memory."""

import re
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import nn

from configs.settings import ROOT, Settings
from configs.spec import Learning
from models.family import Task, family
from models.learner import Habits, learn
from models.memory import Footprint, footprint

HABITS = Habits(epochs=3, patience=3, batch=64, learning_rate=0.01, weight_decay=0.0)
N = 300


def trains(module: nn.Module, batch: int = 64, **asked: Any) -> nn.Module:
    no_plan: Any = None
    task = Task(no_plan, 1, np.arange(N), Settings(device="cpu"), learning=Learning(**asked))
    X, y = torch.randn(N, 4, generator=torch.Generator().manual_seed(1)), torch.arange(N) % 2
    return learn(module, (X,), y.double(), task, replace(HABITS, batch=batch), hold=torch.arange(N) < 60)


class Net(nn.Sequential):
    @property
    def last(self) -> tuple[torch.Tensor, torch.Tensor]:
        return self[-1].weight, self[-1].bias


def net() -> Net:
    return Net(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 1))


def of(module: nn.Module, **asked: Any) -> Footprint:
    found = footprint(lambda: trains(module, **asked))
    assert found is not None
    return found


def test_weights_gradients_and_the_optimisers_moments_are_counted():
    found = of(net())
    weights = 4 * (4 * 16 + 16 + 16 + 1)  # float32
    assert (found.rows, found.weights, found.gradients) == (64, weights, weights)
    assert found.optimiser == 2 * weights + 4 * 4  # two moments of each weight, and the number of steps of each tensor
    assert found.table == N * 4 * 5  # four columns and the outcome


def test_what_a_forward_pass_keeps_for_the_backward_one_grows_with_the_rows():
    small, large = of(net(), batch=64), of(net(), batch=128)
    layers = 4 * (4 + 16)  # what each row's two linear layers read; ReLU keeps what it gave, which the second one reads
    assert small.activations >= 64 * layers
    assert large.activations - small.activations == small.activations
    assert of(net(), batch=128, precision="bf16").activations != large.activations


def test_weights_are_no_activations():
    wide = nn.Sequential(nn.Linear(4, 5000), nn.Linear(5000, 1))
    assert of(wide, batch=2).activations < 2 * 5000 * 4 * 3 < of(wide, batch=2).weights


def test_nothing_is_trained():
    module = net()
    before = [weight.clone() for weight in module.parameters()]
    of(module)
    assert all(torch.equal(a, b) and b.grad is None for a, b in zip(before, module.parameters(), strict=True))
    trains(module)  # and afterwards a network is trained again
    assert not torch.equal(before[0], next(module.parameters()))


def test_a_fit_that_trains_no_network_has_no_footprint():
    assert footprint(lambda: None) is None


def test_it_reads_in_megabytes():
    said = str(Footprint(rows=64, table=2_000_000, weights=1_500_000, gradients=0, optimiser=0, activations=250_000))
    assert said == (
        "64 rows at a time: weights 1.50 MB, gradients 0.00 MB, optimiser 0.00 MB, activations 0.25 MB: 1.75 MB, and "
        "2.00 MB of table"
    )


def test_every_family_that_trains_a_network_says_so():
    for path in (ROOT / "models" / "families").glob("[a-z]*.py"):
        trains_one = re.search(r"\blearn\(", path.read_text(encoding="utf-8")) is not None
        assert getattr(family(path.stem), "NETWORK", False) == trains_one, path.stem
