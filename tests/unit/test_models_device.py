"""Where networks are computed: the same bits alone and together on the CPU."""

import numpy as np
import pytest
import torch
from torch import nn

from models import device


class Signals(nn.Module):
    """A network of a signal (n, 2, 60) and two plain numbers (n, 2), with three outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(2, 8, 7, stride=2, padding=3)
        self.norm = nn.GroupNorm(2, 8)
        self.drop = nn.Dropout(0.5)
        self.head = nn.Linear(10, 3)

    def forward(self, signal: torch.Tensor, numbers: torch.Tensor) -> torch.Tensor:
        pooled = torch.relu(self.norm(self.conv(signal))).mean(-1)
        return self.head(self.drop(torch.cat([pooled, numbers], 1)))


def seeded(make) -> nn.Module:
    torch.manual_seed(5)
    return make()


NETWORKS = {
    "table": (lambda: nn.Sequential(nn.Linear(7, 33), nn.LayerNorm(33), nn.ReLU(), nn.Linear(33, 1)), [(7,)]),
    "signal": (Signals, [(2, 60), (2,)]),
    "image": (
        lambda: nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 4)),
        [(3, 12, 12)],
    ),
}


def rows(name: str, n: int) -> list[np.ndarray]:
    rng = np.random.default_rng(3)
    return [rng.normal(size=(n, *shape)).astype(np.float32) for shape in NETWORKS[name][1]]


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("block", [4, 8, 16, 32])
def test_a_row_has_the_same_bits_alone_and_in_every_batch(name, block):
    module, parts = seeded(NETWORKS[name][0]), rows(name, 67)
    together = device.run(module, parts, block)
    for size in (1, 2, 7, 64):
        pieces = [device.run(module, [p[i : i + size] for p in parts], block) for i in range(0, 67, size)]
        assert np.concatenate(pieces).tobytes() == together.tobytes()


@pytest.mark.parametrize("name", NETWORKS)
def test_neither_neighbours_nor_the_place_in_a_block_change_a_row(name):
    module, parts = seeded(NETWORKS[name][0]), rows(name, 32)
    order = np.random.default_rng(1).permutation(32)
    shuffled = device.run(module, [part[order] for part in parts], 8)
    assert shuffled.tobytes() == device.run(module, parts, 8)[order].tobytes()
    poisoned = [part.copy() for part in parts]
    for part in poisoned:
        part[1:] = np.nan
    assert device.run(module, poisoned, 8)[0].tobytes() == device.run(module, parts, 8)[0].tobytes()


def test_a_network_in_training_is_computed_as_it_will_be_served():
    module, parts = seeded(Signals), rows("signal", 5)
    served = device.run(module.eval(), parts, 8)
    assert device.run(module.train(), parts, 8).tobytes() == served.tobytes()


def test_the_number_of_threads_is_left_as_it_was_and_changes_no_bit():
    module, parts = seeded(Signals), rows("signal", 20)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        two = device.run(module, parts, 8)
        assert torch.get_num_threads() == 2
        torch.set_num_threads(1)
        assert device.run(module, parts, 8).tobytes() == two.tobytes()
    finally:
        torch.set_num_threads(before)


def test_no_rows_give_an_empty_answer_of_the_right_shape():
    assert device.run(seeded(Signals), rows("signal", 0), 8).shape == (0, 3)


def test_the_callers_rows_are_left_as_they_were():
    parts = rows("signal", 5)
    before = [part.copy() for part in parts]
    device.run(seeded(Signals), parts, 8)
    assert all(np.array_equal(part, kept) for part, kept in zip(parts, before, strict=True))
