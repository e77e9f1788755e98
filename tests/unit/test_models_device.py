"""Where networks are computed: the same bits alone and together on the CPU; a card's memory shared and survived."""

from collections import Counter
from types import SimpleNamespace
from weakref import finalize

import numpy as np
import pytest
import torch
from hypothesis import Phase
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from torch import nn

from configs.errors import DeviceMemoryError
from configs.settings import Settings
from models import device
from models.device import CardMemory, Device, HostMemory, Use, using

CPU = torch.device("cpu")


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


class Seen:
    """What a device told."""

    def __init__(self) -> None:
        self.batches: list[tuple[str, int]] = []
        self.events: Counter[tuple[str, str]] = Counter()

    def computed(self, model, rows, seconds):
        assert seconds >= 0
        self.batches.append((model, rows))

    def happened(self, model, event):
        self.events[model, event] += 1


class Card(HostMemory):
    """A card's memory, pretended: so many bytes, and what it has held at most. `fails`: raised by the next batch."""

    def __init__(self, capacity: int) -> None:
        self.capacity, self.weights, self.most, self.emptied = capacity, 0, 0, 0
        self.fails: list[Exception] = []

    def copy(self, network):
        size = weights_of(network)
        self._hold(size)
        copy = super().copy(network)
        self.weights += size
        finalize(copy, self._free, size)
        return copy

    def measured(self, compute):
        if self.fails:
            raise self.fails.pop(0)
        return super().measured(compute)

    def take(self, held):
        self._hold(held)

    def empty(self):
        self.emptied += 1

    def _hold(self, more):
        if self.weights + more > self.capacity:
            raise torch.OutOfMemoryError(f"CUDA out of memory. Tried to allocate {more} bytes.")
        self.most = max(self.most, self.weights + more)

    def _free(self, size):
        self.weights -= size


def weights_of(network):
    return sum(tensor.nbytes for tensor in (*network.parameters(), *network.buffers()))


def network(width: int, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(4, width), nn.ReLU(), nn.Linear(width, width), nn.Linear(width, 2))


def one_row_of(net: nn.Module) -> int:
    """Bytes that one row takes beside the weights."""
    with torch.inference_mode():
        return HostMemory().measured(lambda: net(torch.zeros(1, 4)))[1]


def table(n: int, seed: int = 0) -> list[np.ndarray]:
    return [np.random.default_rng(seed).normal(size=(n, 4)).astype(np.float32)]


def pretended(capacity: int = 10**9, budget: int | None = None) -> tuple[Device, Card, Seen]:
    card, seen = Card(capacity), Seen()
    return Device(CPU, card, budget, seen, exact=False), card, seen


def compute(place: Device, net: nn.Module, parts, model: str = "angina", precision=None, block: int = 8) -> np.ndarray:
    with using(Use(place, model, precision)):
        return device.run(net, parts, block)


def test_the_first_row_is_measured_and_the_next_batch_has_the_size_that_follows_from_it():
    place, _, seen = pretended()
    net = network(100)

    assert np.allclose(compute(place, net, table(40)), device.run(net, table(40), 8), atol=1e-5)

    assert [rows for _, rows in seen.batches] == [1, 39]
    weights, batch = place.held["angina"]
    assert weights == weights_of(net)
    assert batch >= 64 * 4 * (4 + 100)  # 39 rows are filled up to 64; the inputs and both layers' results


def test_a_budget_bounds_the_batch_by_what_was_measured():
    net = network(200)
    one_row = one_row_of(net)
    place, card, seen = pretended(budget=weights_of(net) + 5 * one_row)

    compute(place, net, table(1))
    compute(place, net, table(8, seed=1))

    assert [rows for _, rows in seen.batches] == [1, 4, 4]
    assert card.most <= weights_of(net) + 5 * one_row
    assert not seen.events


def test_a_network_that_never_fits_is_refused_with_both_sizes_and_drives_nobody_out():
    small, large = network(10), network(800)
    place, _, seen = pretended(budget=100_000)
    compute(place, small, table(2), "small")

    with pytest.raises(DeviceMemoryError, match=r"large: its weights and its smallest batch take 2\.5 MB .* 0\.1 MB"):
        compute(place, large, table(1), "large")

    assert place.held["small"][0] == weights_of(small) and place.held.get("large", (0, 0))[0] == 0
    assert not seen.events


def test_the_network_used_longest_ago_makes_room_and_comes_back_with_the_same_answers():
    one, two, three = (network(100, seed) for seed in range(3))
    place, card, seen = pretended(budget=int(2.5 * weights_of(one)))
    alone = compute(place, one, table(4), "one")
    compute(place, two, table(4), "two")
    compute(place, one, table(4), "one")

    compute(place, three, table(4), "three")

    assert seen.events == {("two", "evicted"): 1}
    assert (place.held["two"][0], place.held["one"][0]) == (0, weights_of(one))
    assert card.weights == weights_of(one) + weights_of(three)
    assert np.allclose(compute(place, one, table(4), "one"), alone, atol=1e-6)


def test_a_full_memory_is_emptied_the_batch_halved_and_tried_once_more():
    place, card, seen = pretended()
    net = network(50)
    whole = compute(place, net, table(9))
    card.fails = [torch.OutOfMemoryError("CUDA out of memory.")]
    seen.batches.clear()

    again = compute(place, net, table(9))

    assert np.allclose(again, whole, atol=1e-6)
    assert card.emptied == 1
    assert seen.events == {("angina", "oom_retry"): 1}
    assert [rows for _, rows in seen.batches] == [8, 1]  # of 16


def test_a_memory_that_was_full_for_a_while_is_asked_for_more_again():
    """Somebody else had the card for a minute; the batches are not small for ever."""
    place, card, seen = pretended()
    net = network(50)
    compute(place, net, table(16))
    card.fails = [torch.OutOfMemoryError("CUDA out of memory.")]
    compute(place, net, table(16))
    for _ in range(device.AGAIN_AFTER):
        compute(place, net, table(8))
    seen.batches.clear()
    compute(place, net, table(16))
    assert [rows for _, rows in seen.batches] == [16]


def test_a_memory_that_stays_full_raises_an_error_that_asks_to_come_again_and_the_next_batch_is_computed():
    place, card, seen = pretended()
    net = network(50)
    whole = compute(place, net, table(9))
    card.fails = [torch.OutOfMemoryError("CUDA out of memory."), RuntimeError("CUBLAS_STATUS_ALLOC_FAILED")]

    with pytest.raises(DeviceMemoryError, match="angina: the memory of cpu does not take 8 rows now; ask again"):
        compute(place, net, table(9))

    assert seen.events == {("angina", "oom_retry"): 1, ("angina", "out_of_memory"): 1}
    assert np.allclose(compute(place, net, table(9)), whole, atol=1e-6)


def test_a_memory_that_takes_less_than_the_budget_promised_is_survived():
    one, two = network(100, 1), network(100, 2)
    place, _, seen = pretended(capacity=int(1.5 * weights_of(one)), budget=10**9)

    first = compute(place, one, table(3), "one")
    compute(place, two, table(3), "two")

    assert seen.events["one", "evicted"] == 1
    assert np.array_equal(compute(place, one, table(3), "one"), first)


@pytest.mark.parametrize(
    "failure",
    [
        torch.AcceleratorError("CUDA error: unspecified launch failure"),
        RuntimeError("CUDA error: device-side assert triggered"),
        RuntimeError("No CUDA GPUs are available: no CUDA-capable device is detected"),
    ],
)
def test_a_card_that_vanishes_leaves_all_to_the_cpu_to_the_bit_and_it_is_said(failure, caplog):
    place, card, seen = pretended()
    nets = [network(30), network(40)]
    for net in nets:
        compute(place, net, table(5))
    card.fails = [failure]

    found = compute(place, nets[0], table(5))

    assert found.tobytes() == device.run(nets[0], table(5), 8).tobytes()
    assert compute(place, nets[1], table(5)).tobytes() == device.run(nets[1], table(5), 8).tobytes()
    assert seen.events == {("angina", "lost"): 1}
    assert place.exact and "all is computed on the CPU" in place.lost
    assert place.lost in caplog.text
    failure.__traceback__ = None  # its frames hold the batch that failed
    assert card.weights == 0


def test_an_error_of_the_network_itself_is_no_fault_of_the_card():
    place, _, seen = pretended()
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        compute(place, network(5), [np.zeros((2, 9), np.float32)])
    assert place.lost is None and not seen.events


def test_a_network_that_is_let_go_leaves_the_card_and_is_told_of_no_more():
    place, card, _ = pretended()
    compute(place, network(30), table(5))
    assert card.weights == 0
    assert place._weights() == 0
    assert place.held == {}


@pytest.mark.parametrize(("precision", "limit"), [("bf16", 0.05), ("fp16", 0.005)])
def test_a_lower_precision_changes_the_answer_a_little_and_leaves_integers_whole(precision, limit):
    class Looked(nn.Module):
        """Codes up to 70,000, which neither 16-bit float could hold."""

        def __init__(self) -> None:
            super().__init__()
            self.table = nn.Embedding(70_001, 8)
            self.head = nn.Linear(8, 1)

        def forward(self, codes):
            return self.head(self.table(codes[:, 0].long()))

    net, codes = seeded(Looked), [np.array([[70_000], [257], [65_537]], np.float32)]
    place, _, _ = pretended()
    exact = device.run(net, codes, 8)

    low = compute(place, net, codes, precision=precision)

    assert not np.array_equal(low, exact)
    assert np.abs(low - exact).max() < limit


def test_on_the_cpu_a_use_changes_no_bit_and_its_memory_is_measured():
    seen = Seen()
    place = Device(CPU, HostMemory(), None, seen, exact=True)
    net = network(100)

    for precision in (None, "bf16"):
        assert compute(place, net, table(11), precision=precision).tobytes() == device.run(net, table(11), 8).tobytes()

    assert seen.batches == [("angina", 8), ("angina", 3)] * 2
    assert place.held["angina"] == (weights_of(net), 8 * 4 * (100 + 100))


def test_on_the_cpu_a_network_that_a_budget_never_takes_is_refused_at_once():
    place = Device(CPU, HostMemory(), 5000, Seen(), exact=True)
    with pytest.raises(DeviceMemoryError, match="angina: its weights and its smallest batch take"):
        compute(place, network(100), table(1))
    assert compute(place, network(10), table(1), "small").shape == (1, 2)


def test_on_the_cpu_a_full_memory_is_tried_once_more_and_then_told():
    seen, card = Seen(), Card(10**9)
    place = Device(CPU, card, None, seen, exact=True)
    net = network(100)
    full = "[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 40000000 bytes"
    card.fails = [RuntimeError(full)]
    assert compute(place, net, table(3)).tobytes() == device.run(net, table(3), 8).tobytes()
    assert seen.events == {("angina", "oom_retry"): 1}

    place = Device(CPU, card, None, seen, exact=True)
    card.fails = [RuntimeError(full)] * 2
    with pytest.raises(DeviceMemoryError):
        compute(place, net, table(3))


def test_settings_choose_the_cpu_where_there_is_no_card_and_say_so_if_one_was_demanded(caplog):
    before = torch.get_num_threads()
    try:
        auto = device.open_device(Settings(device="auto"), Seen())
        demanded = device.open_device(Settings(device="cuda", device_memory_mb=7), Seen())
    finally:
        torch.set_num_threads(before)
    assert (auto.place, auto.exact, auto.lost, auto.budget) == (CPU, True, None, None)
    assert (demanded.place, demanded.exact, demanded.budget) == (CPU, True, 7 * 2**20)
    assert "no CUDA device is here" in demanded.lost and demanded.lost in caplog.text


def test_a_card_is_asked_for_its_free_bytes_and_its_peaks(monkeypatch):
    """The calls a card's memory is made of, answered by a pretended driver."""
    stats = SimpleNamespace(now=100, peak=100, emptied=0)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (1000, 2000))
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda _: stats.now)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda _: stats.peak)
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda _: setattr(stats, "peak", stats.now))
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: setattr(stats, "emptied", stats.emptied + 1))

    place = device.open_device(Settings(), Seen())
    assert (str(place.place), place.exact, place.budget) == ("cuda:0", False, 800)
    assert device.open_device(Settings(device_memory_mb=1), Seen()).budget == 2**20
    assert device.open_device(Settings(device="cpu"), Seen()).place == CPU

    memory = CardMemory(CPU)
    assert memory.measured(lambda: setattr(stats, "peak", 175)) == (None, 75)
    memory.empty()
    assert stats.emptied == 1
    net = network(3)
    assert memory.copy(net) is not net and memory.copy(net).state_dict().keys() == net.state_dict().keys()


def test_a_card_that_does_not_answer_at_the_start_leaves_all_to_the_cpu_and_it_is_said(monkeypatch, caplog):
    def broken(_place):
        raise torch.AcceleratorError("CUDA error: unknown error")

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.cuda, "mem_get_info", broken)
    before = torch.get_num_threads()
    try:
        place = device.open_device(Settings(), Seen())
    finally:
        torch.set_num_threads(before)
    assert place.exact and place.place == CPU
    assert "does not answer" in place.lost and place.lost in caplog.text
    assert np.array_equal(compute(place, network(5), table(3)), device.run(network(5), table(3), 8))


class Shared(RuleBasedStateMachine):
    """Several networks on one pretended card, asked in any order: within its budget, and never other answers."""

    @initialize(widths=st.lists(st.sampled_from([20, 50, 100]), min_size=2, max_size=5), rows=st.integers(1, 20))
    def begin(self, widths, rows):
        self.nets = [network(width, seed) for seed, width in enumerate(widths)]
        self.alone = [device.run(net, table(64, seed), 8) for seed, net in enumerate(self.nets)]
        largest = max(self.nets, key=weights_of)
        self.budget = weights_of(largest) + rows * one_row_of(largest)
        self.place, self.card, self.seen = pretended(budget=self.budget)
        for place, net in enumerate(self.nets):  # as at loading: the smallest batch is measured with all the rest out
            compute(self.place, net, [part[:1] for part in table(64, place)], str(place))
        self.card.most = 0
        self.last = len(self.nets) - 1

    @rule(data=st.data(), rows=st.integers(1, 64))
    def ask(self, data, rows):
        place = data.draw(st.integers(0, len(self.nets) - 1))
        found = compute(self.place, self.nets[place], [part[:rows] for part in table(64, place)], str(place))
        assert np.allclose(found, self.alone[place][:rows], atol=1e-5)
        self.last = place

    @rule(data=st.data(), rows=st.integers(1, 64), twice=st.booleans())
    def ask_when_full(self, data, rows, twice):
        place = data.draw(st.integers(0, len(self.nets) - 1))
        self.card.fails = [torch.OutOfMemoryError("CUDA out of memory.")] * (1 + twice)
        parts = [part[:rows] for part in table(64, place)]
        if twice:
            with pytest.raises(DeviceMemoryError):
                compute(self.place, self.nets[place], parts, str(place))
        else:
            found = compute(self.place, self.nets[place], parts, str(place))
            assert np.allclose(found, self.alone[place][:rows], atol=1e-5)
        self.card.fails = []
        self.last = place

    @precondition(lambda self: hasattr(self, "last"))
    @invariant()
    def the_budget_holds_and_the_newest_stays(self):
        assert self.card.most <= self.budget
        assert self.place.held[str(self.last)][0] == weights_of(self.nets[self.last])
        assert self.place.lost is None


TestShared = Shared.TestCase
TestShared.settings = hypothesis_settings(
    max_examples=20, stateful_step_count=10, deadline=None, phases=[Phase.explicit, Phase.reuse, Phase.generate]
)
