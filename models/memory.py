"""What a network's training takes of the memory: measured on one step of a copy, which learns nothing for anybody."""

from collections.abc import Callable
from contextvars import ContextVar
from copy import deepcopy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn

from models.family import Task

if TYPE_CHECKING:
    from torch import Tensor, nn

    from models.learner import Habits

MB = 1_000_000


@dataclass(frozen=True)
class Footprint:
    """Bytes of a training with so many `rows` at a time; `table` is what all rows take, which lie on the device."""

    rows: int
    table: int
    weights: int
    gradients: int
    optimiser: int
    activations: int

    def __str__(self) -> str:
        parts = ("weights", "gradients", "optimiser", "activations")
        listed = ", ".join(f"{part} {getattr(self, part) / MB:.2f} MB" for part in parts)
        whole = sum(getattr(self, part) for part in parts)
        return f"{self.rows} rows at a time: {listed}: {whole / MB:.2f} MB, and {self.table / MB:.2f} MB of table"


class _Measured(Exception):
    def __init__(self, footprint: Footprint) -> None:
        super().__init__()
        self.footprint = footprint


_asked: ContextVar[bool] = ContextVar("asked", default=False)


def footprint(fit: Callable[[], Any]) -> Footprint | None:
    """What the first network that `fit` would train takes; None if it trains none. Nothing is trained."""
    token = _asked.set(True)
    try:
        fit()
    except _Measured as done:
        return done.footprint
    finally:
        _asked.reset(token)
    return None


def wanted() -> bool:
    """Whether somebody waits for a footprint, and not for a network."""
    return _asked.get()


def measure(
    module: "nn.Module", parts: "tuple[Tensor, ...]", y: "Tensor", task: Task, habits: "Habits", hold: "Tensor"
) -> NoReturn:
    """Give whoever called `footprint` what a step of this training takes: forward, backward, and an update."""
    import torch

    from models.lesson import Lesson

    lesson = Lesson(deepcopy(module), parts, y, task, habits, hold)
    optimiser = lesson.configure_optimizers()
    weights = list(lesson.module.parameters())
    ours = {tensor.untyped_storage().data_ptr() for tensor in (*weights, *lesson.module.buffers(), *parts)}
    kept: dict[int, tuple[Tensor, int]] = {}  # the tensor as well: its address would be another's once it is gone

    def pack(tensor: "Tensor") -> "Tensor":
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in ours:
            kept[storage.data_ptr()] = tensor, storage.nbytes()
        return tensor

    rows = lesson.learned[: lesson.batch]
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        loss = lesson.loss(rows, of=len(rows))
    activations = sum(size for _, size in kept.values())
    torch.autograd.backward(loss)
    optimiser.step()
    state = [value for of in optimiser.state.values() for value in of.values() if isinstance(value, torch.Tensor)]
    raise _Measured(
        Footprint(
            rows=len(rows),
            table=_bytes([*parts, lesson.targets]),
            weights=_bytes([*weights, *lesson.module.buffers()]),
            gradients=_bytes([weight.grad for weight in weights if weight.grad is not None]),
            optimiser=_bytes(state),
            activations=activations,
        )
    )


def _bytes(tensors: "list[Tensor]") -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)
