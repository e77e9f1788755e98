"""Where a network is computed, and how: the only place that runs one.

On the CPU a batch and its rows one by one agree to the bit. A network alone does not give that: its matrix product
takes another path for one row than for sixty-four. So it always sees the same number of rows, a block; the last one is
filled up. Measured on a Xeon with AVX-512 and torch 2.13, over an MLP, an ensemble of 16 in the manner of TabM,
residual 1-D networks of 3 x 500 and 12 x 1,000 and a residual 2-D one of 3 x 48 x 48, 64 rows each, sent 1, 2, 7 and 13
at a time:

| rows a block | 1 | 2 | 4 | 8 | 16 | 32 |
|---|---|---|---|---|---|---|
| rows whose bits depend on their batch, of 64 | 0 | 0-26 | 0 | 0 | 0 | 0 |
| other bits with 2 threads than with 1 | conv | - | none | none | none | none |
| ms a row, MLP | 0.040 | 0.020 | 0.010 | 0.007 | 0.003 | 0.003 |
| ms a row, the family waveform, 3 x 500 | 0.79 | 0.96 | 0.51 | 0.49 | 0.34 | 0.30 |
| the same, 12 x 1,000 | 2.05 | 1.41 | 1.12 | 0.80 | 0.74 | 0.73 |
| the same, 12 x 5,000 | 4.07 | 3.58 | 3.23 | 3.39 | 3.02 | 2.96 |

Those networks have one output. A linear layer with two or three gives a row other bits in another place of a block of 4
or 8 (5 of 24 rows of a waveform's network of three classes), and in none of 16 or 32. Neither the neighbours nor where
the numbers lie in memory changed a bit. A block of 1 has other bits than the others, so a family's block is part of
what it is. Tables have 32. Signals and images are computed one by one, which holds on any CPU: a lone recording of
12 x 5,000 then takes 4 ms and not the 48 of a block of 16, for a third more in bulk.

A card gives no such promise, and other bits than a CPU: there a batch has the size that its memory was measured to
take, and `models/predict.py` holds its risks to a tolerance. Several networks share a card. Each stays whole on the
host and has a copy on the card; the copies that were used longest ago go when room is needed, and a card that fails
leaves nothing behind that the host does not have.
"""

import gc
import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from copy import deepcopy
from dataclasses import dataclass, field
from time import perf_counter
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeVar
from weakref import WeakKeyDictionary, finalize

import numpy as np
from numpy.typing import NDArray

from configs.errors import DeviceMemoryError
from configs.settings import Settings

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

Precision = Literal["bf16", "fp16"]
Parts = Sequence["Tensor"]
T = TypeVar("T")

SHARE = 0.8
"""Of a card's free memory, where nobody says how much is ours: the libraries' own workspaces need some. Our choice."""
AGAIN_AFTER = 100
"""Batches that a halved size was taken, before its double is tried again. Our choice."""
MB = 2**20
LOST = ("CUDA error", "no CUDA-capable device", "device-side assert", "CUDA driver", "CUDNN_STATUS", "CUBLAS_STATUS")
FULL = ("out of memory", "can't allocate memory", "ALLOC_FAILED")

log = logging.getLogger("bentoml.medimind")


@dataclass(frozen=True)
class Watcher:
    """Who is told what a device does, by model."""

    computed: Callable[[str, int, float], None]
    """Model, rows that were computed together, and the seconds that it took."""
    happened: Callable[[str, str], None]
    """Model, and `evicted`, `oom_retry`, `out_of_memory`, `not_finite` or `lost`."""


class Memory(Protocol):
    """A device's memory, as far as anybody asks. Raises torch.OutOfMemoryError when it is full."""

    def copy(self, network: "nn.Module") -> "nn.Module":
        """The network with its weights in this memory; they leave it when nobody holds the copy."""
        ...

    def measured(self, compute: Callable[[], T]) -> tuple[T, int]:
        """What `compute` returns, and the most bytes that it took beyond what lay there before."""
        ...

    def empty(self) -> None:
        """Give back what the allocator keeps for later."""
        ...


class CardMemory:
    """A card's memory, by torch's own allocator."""

    def __init__(self, place: "torch.device") -> None:
        self.place = place

    def free(self) -> int:
        """Bytes that nobody has taken."""
        import torch

        return int(torch.cuda.mem_get_info(self.place)[0])

    def copy(self, network: "nn.Module") -> "nn.Module":
        return deepcopy(network).to(self.place)

    def measured(self, compute: Callable[[], T]) -> tuple[T, int]:
        import torch

        torch.cuda.reset_peak_memory_stats(self.place)
        before = torch.cuda.memory_allocated(self.place)
        found = compute()
        return found, int(torch.cuda.max_memory_allocated(self.place)) - before

    def empty(self) -> None:
        import torch

        torch.cuda.empty_cache()


class HostMemory:
    """The CPU's memory: torch has no figures of it, so what an operation makes is counted until it is let go."""

    def copy(self, network: "nn.Module") -> "nn.Module":
        return deepcopy(network)

    def measured(self, compute: Callable[[], T]) -> tuple[T, int]:
        counted = self._counting()
        with counted:
            found = compute()
        return found, int(counted.peak)

    def take(self, held: int) -> None:
        """Called with the bytes that an operation's results have come to; a memory with an end raises here."""

    def empty(self) -> None:
        gc.collect()

    def _counting(self) -> Any:
        from torch import Tensor
        from torch.overrides import TorchFunctionMode  # a dispatch mode would import the compiler, 5 s
        from torch.utils._pytree import tree_leaves

        take = self.take

        class Counting(TorchFunctionMode):
            """The bytes of all that operations have made and somebody still holds."""

            def __init__(self) -> None:
                super().__init__()
                self.held = self.peak = 0
                self.seen: set[int] = set()

            def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
                made = function(*args, **(kwargs or {}))
                for tensor in tree_leaves(made):
                    if isinstance(tensor, Tensor):
                        self.count(tensor.untyped_storage())
                return made

            def count(self, storage: Any) -> None:
                at, size = storage.data_ptr(), storage.nbytes()
                if at and at not in self.seen:
                    self.seen.add(at)
                    self.held += size
                    self.peak = max(self.peak, self.held)
                    finalize(storage, self.gone, at, size)
                    take(self.held)

            def gone(self, at: int, size: int) -> None:
                self.seen.discard(at)
                self.held -= size

        return Counting()


@dataclass
class Resident:
    """What a device knows of a network. `most`: rows that its memory last took, None as long as it took all; `taken`:
    how many batches of so many it took since."""

    model: str
    weights: int
    copy: "nn.Module | None" = None
    used: int = 0
    most: int | None = None
    taken: int = 0
    peaks: dict[tuple[Precision | None, int], int] = field(default_factory=dict)
    """Bytes beyond the weights, by precision and rows of a batch: as measured."""

    def need(self, precision: Precision | None, rows: int) -> int:
        """Bytes that a batch of so many rows takes: measured, else in proportion to the largest smaller one."""
        if (known := self.peaks.get((precision, rows))) is not None:
            return known
        below = max(size for kind, size in self.peaks if kind == precision and size < rows)
        return -(-self.peaks[precision, below] * rows // below)

    def largest(self) -> int:
        return max(self.peaks.values(), default=0)


@dataclass
class Use:
    """As which model, on which device and in which precision networks are computed; `ran`: whether one was."""

    device: "Device"
    model: str
    precision: Precision | None = None
    """None: float32."""
    ran: bool = False


_use: ContextVar[Use | None] = ContextVar("use", default=None)


@contextmanager
def using(use: Use | None) -> Iterator[None]:
    """Within it `run` computes so; None: on the CPU, as without it."""
    before = _use.set(use)
    try:
        yield
    finally:
        _use.reset(before)


class Device:
    """What several networks share: one card and its memory, or the CPU.

    `exact`: on the CPU, in fixed blocks and to the bit. `lost`: why all is computed there although a card was chosen.
    """

    def __init__(
        self,
        place: "torch.device",
        memory: Memory,
        budget: int | None,
        watcher: Watcher,
        exact: bool,
        lost: str | None = None,
    ) -> None:
        """`budget`: bytes for all networks together, None: no end."""
        self.place, self.memory, self.budget, self.exact, self.lost = place, memory, budget, exact, lost
        self._watcher = watcher
        self._lock = threading.Lock()  # a card computes one batch at a time
        self._books = threading.Lock()
        self._turn = 0
        self._residents: WeakKeyDictionary[nn.Module, Resident] = WeakKeyDictionary()

    @property
    def held(self) -> dict[str, tuple[int, int]]:
        """By model, the bytes of the weights that lie on the device now, and of its largest batch so far."""
        found: dict[str, tuple[int, int]] = {}
        for one in self._known():
            weights, batch = found.get(one.model, (0, 0))
            here = self.exact or one.copy is not None
            found[one.model] = (weights + one.weights * here, max(batch, one.largest()))
        return found

    def not_finite(self, use: Use) -> None:
        """Count that it said something of a row that is no number."""
        self._watcher.happened(use.model, "not_finite")

    def compute(self, network: "nn.Module", parts: Parts, block: int, use: Use) -> NDArray[np.float64]:
        """What the network says of each row of the parts. Raises DeviceMemoryError if its memory does not take it."""
        if not self.exact:
            try:
                if (found := self._batches(network, parts, use)) is not None:
                    return found
            except RuntimeError as exc:
                if not is_lost(exc):
                    raise
                self._lose(exc, use)
        return self._blocks(network, parts, block, use)

    def _blocks(self, network: "nn.Module", parts: Parts, block: int, use: Use) -> NDArray[np.float64]:
        """In fixed blocks on the CPU, where a block is not to be halved: it would have other bits."""
        host = self._resident(network, use)

        def once(filled: Parts, rows: int) -> NDArray[np.float64]:
            began = perf_counter()
            peak = host.peaks.get((None, block))
            if peak is None:
                found, peak = self.memory.measured(lambda: _said(network, filled))
                host.peaks[None, block] = peak
            else:
                found = _said(network, filled)
            self._refuse_if_too_large(host, peak)
            self._watcher.computed(use.model, rows, perf_counter() - began)
            return found

        def patient(filled: Parts, rows: int) -> NDArray[np.float64]:
            if (found := _if_room(lambda: once(filled, rows))) is not None:
                return found
            self.memory.empty()
            self._watcher.happened(use.model, "oom_retry")
            if (found := _if_room(lambda: once(filled, rows))) is not None:
                return found
            raise self._full(use, block)

        return _in_blocks(patient, parts, block)

    def _batches(self, network: "nn.Module", parts: Parts, use: Use) -> NDArray[np.float64] | None:
        """In batches of a power of two rows, each as large as the memory was measured to take; None: it was lost."""
        n, start = len(parts[0]), 0
        found = []
        while start < max(n, 1):
            with self._lock:
                if self.exact:  # another network's batch found it lost
                    return None
                resident = self._brought(network, use)
                size = self._admitted(resident, n - start, use)
                said = self._batch(resident, parts, start, size, use)
                if said is None:
                    self._watcher.happened(use.model, "oom_retry")
                    self._empty_but(resident)
                    size = resident.most = max(size // 2, 1)
                    resident.taken = 0
                    said = self._batch(resident, parts, start, size, use)
                if said is None:
                    raise self._full(use, size)
                if size == resident.most:
                    resident.taken += 1
                    if resident.taken >= AGAIN_AFTER:
                        resident.most, resident.taken = 2 * size, 0
            found.append(said)
            start += size
        return np.concatenate(found)

    def _batch(self, resident: Resident, parts: Parts, start: int, size: int, use: Use) -> NDArray[np.float64] | None:
        """One batch on the card, the missing rows filled up; None if its memory is full."""
        network = resident.copy
        assert network is not None
        rows = min(size, len(parts[0]) - start)

        filled = _filled(parts, start, rows, size)

        def once() -> tuple[NDArray[np.float64], int]:
            with _at(self.place, use.precision):
                return self.memory.measured(lambda: _said(network, [part.to(self.place) for part in filled]))

        began = perf_counter()
        found = _if_room(once)
        if found is None:
            return None
        self._watcher.computed(use.model, rows, perf_counter() - began)
        key = use.precision, size
        if found[1] > resident.peaks.get(key, -1):
            resident.peaks[key] = found[1]
        return found[0][:rows]

    def _known(self) -> list[Resident]:
        """All networks that are still there; another thread may add one meanwhile."""
        with self._books:
            return list(self._residents.values())

    def _resident(self, network: "nn.Module", use: Use) -> Resident:
        with self._books:
            resident = self._residents.get(network)
            if resident is None:
                weights = sum(tensor.nbytes for tensor in (*network.parameters(), *network.buffers()))
                resident = self._residents[network] = Resident(use.model, weights)
        return resident

    def _brought(self, network: "nn.Module", use: Use) -> Resident:
        """The network with its copy on the card, used now; those used longest ago go if there is no room."""
        resident = self._resident(network, use)
        known = any(kind == use.precision for kind, _ in resident.peaks)
        self._refuse_if_too_large(resident, resident.need(use.precision, 1) if known else 0)
        self._turn += 1
        resident.used = self._turn
        if resident.copy is None:
            self._make_room(resident, resident.weights)
            copy = _if_room(lambda: self.memory.copy(network))
            if copy is None:  # the card has less than was thought
                self._empty_but(resident)
                copy = _if_room(lambda: self.memory.copy(network))
            if copy is None:
                raise self._full(use, 1)
            resident.copy, resident.most = copy, None
        return resident

    def _admitted(self, resident: Resident, rows: int, use: Use) -> int:
        """How many rows the next batch has: a power of two that is no smaller than need be, and has its room."""
        if all(kind != use.precision for kind, _ in resident.peaks):
            return 1  # nothing is known yet: one row is measured first
        size = 1
        while size < rows and size * 2 <= (resident.most or size * 2):
            size *= 2
        if self.budget is None:
            return size
        while size > 1 and resident.weights + resident.need(use.precision, size) > self.budget:
            size //= 2
        self._refuse_if_too_large(resident, resident.need(use.precision, size))
        self._make_room(resident, resident.need(use.precision, size))
        return size

    def _make_room(self, resident: Resident, more: int) -> None:
        """Move others out until `more` bytes fit beside the weights that stay."""
        if self.budget is None:
            return
        while self._weights() + more > self.budget and self._evict_but(resident):
            pass

    def _refuse_if_too_large(self, resident: Resident, more: int) -> None:
        if self.budget is not None and (total := resident.weights + more) > self.budget:
            raise DeviceMemoryError(
                f"{resident.model}: its weights and its smallest batch take {total / MB:.1f} MB of {self.place}, and "
                f"{self.budget / MB:.1f} MB are for all networks together (MEDIMIND_DEVICE_MEMORY_MB)."
            )

    def _weights(self) -> int:
        return sum(one.weights for one in self._known() if one.copy is not None)

    def _evict_but(self, resident: Resident) -> bool:
        """Move out the copy that was used longest ago, but never this one's; whether there was one."""
        others = [one for one in self._known() if one.copy is not None and one is not resident]
        if not others:
            return False
        oldest = min(others, key=lambda one: one.used)
        oldest.copy = None
        self._watcher.happened(oldest.model, "evicted")
        return True

    def _empty_but(self, resident: Resident) -> None:
        """Move out all others, and what the allocator keeps."""
        while self._evict_but(resident):
            pass
        self.memory.empty()

    def _full(self, use: Use, rows: int) -> DeviceMemoryError:
        self._watcher.happened(use.model, "out_of_memory")
        return DeviceMemoryError(
            f"{use.model}: the memory of {self.place} does not take {rows} row{'s' * (rows != 1)} now; ask again."
        )

    def _lose(self, exc: RuntimeError, use: Use) -> None:
        """From now on all is computed on the CPU."""
        import torch

        with self._lock:
            if self.exact:
                return
            self.lost = f"{self.place} failed ({type(exc).__name__}); all is computed on the CPU until a restart."
            self.place, self.memory, self.budget, self.exact = torch.device("cpu"), HostMemory(), None, True
            for one in self._known():
                one.copy = None
                one.peaks.clear()
        log.error("%s", self.lost)
        self._watcher.happened(use.model, "lost")


def open_device(settings: Settings, watcher: Watcher) -> Device:
    """The device that this machine's settings choose: a card where one is there and may be used, else the CPU."""
    import torch

    budget = None if settings.device_memory_mb is None else settings.device_memory_mb * MB
    lost = None
    if settings.device != "cpu" and torch.cuda.is_available():
        try:
            place = torch.device("cuda", torch.cuda.current_device())
            memory = CardMemory(place)
            budget_there = budget or int(memory.free() * SHARE)
        except RuntimeError as exc:
            lost = f"the CUDA device does not answer ({type(exc).__name__}); all is computed on the CPU."
        else:
            torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False  # float32 is float32
            return Device(place, memory, budget_there, watcher, exact=False)
    elif settings.device == "cuda":
        lost = "no CUDA device is here (MEDIMIND_DEVICE=cuda); all is computed on the CPU."
    if lost is not None:
        log.error("%s", lost)
    torch.set_num_threads(1)  # networks of several models are computed beside each other, one thread each
    return Device(torch.device("cpu"), HostMemory(), budget, watcher, exact=True, lost=lost)


def run(network: "nn.Module", parts: "Sequence[Tensor | NDArray[Any]]", block: int) -> NDArray[np.float64]:
    """What the network says of each row of `parts`, each (n, …): its output (n, …), as float64.

    On the CPU it is computed `block` rows at a time: a row's bits do not depend on who is beside it. Within `using` it
    is computed where and how that says. Raises DeviceMemoryError if the memory there is full.
    """
    import torch

    tensors = [torch.as_tensor(part) for part in parts]
    network.eval()
    use = _use.get()
    with torch.inference_mode(), one_thread():
        if use is None:
            return _in_blocks(lambda filled, _: _said(network, filled), tensors, block)
        use.ran = True
        return use.device.compute(network, tensors, block, use)


def is_out_of_memory(exc: BaseException) -> bool:
    """Whether a device's memory, or the host's, was full."""
    import torch

    return isinstance(exc, torch.OutOfMemoryError) or (
        isinstance(exc, RuntimeError) and any(words in str(exc) for words in FULL)
    )


def is_lost(exc: BaseException) -> bool:
    """Whether the card itself failed, and will not answer this process any more."""
    import torch

    if is_out_of_memory(exc):
        return False
    return isinstance(exc, torch.AcceleratorError) or any(words in str(exc) for words in LOST)


def _in_blocks(compute: Callable[[Parts, int], NDArray[np.float64]], parts: Parts, block: int) -> NDArray[np.float64]:
    """`compute(filled, rows)`: what is said of a block whose first `rows` are somebody's."""
    n = len(parts[0])
    found = []
    for start in range(0, max(n, 1), block):
        rows = min(block, n - start)
        found.append(compute(_filled(parts, start, rows, block), rows)[:rows])
    return np.concatenate(found)


def _filled(parts: Parts, start: int, rows: int, size: int) -> "list[Tensor]":
    """So many rows of each part, filled up to `size`, in memory of their own: how a caller's slice lies is chance."""
    filled = [part.new_zeros((size, *part.shape[1:])) for part in parts]
    for whole, part in zip(filled, parts, strict=True):
        whole[:rows] = part[start : start + rows]
    return filled


def _said(network: "nn.Module", parts: Parts) -> NDArray[np.float64]:
    found: NDArray[np.float64] = network(*parts).float().cpu().numpy().astype(np.float64)
    return found


def _if_room(compute: Callable[[], T]) -> T | None:
    """What it returns; None if a memory is full. The failed try's tensors are free again when this returns."""
    try:
        return compute()
    except RuntimeError as exc:
        if not is_out_of_memory(exc):
            raise
    return None


def _at(place: "torch.device", precision: Precision | None) -> Any:
    """Computes in that precision where it is exact enough, as torch judges; weights and inputs stay float32."""
    import torch

    if precision is None:
        return nullcontext()
    return torch.autocast(place.type, dtype={"bf16": torch.bfloat16, "fp16": torch.float16}[precision])


@contextmanager
def one_thread() -> Iterator[None]:
    """One thread for each operation, which no other process on the machine is then in the way of."""
    import torch

    threads = torch.get_num_threads()
    if threads == 1:  # as in the server, where several networks are computed at a time: nothing is set there
        yield
        return
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
