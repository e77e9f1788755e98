"""What Lightning's Trainer runs when a network learns: the steps, the hold-out after each epoch, the best weights.

Only training imports this module. Lightning is handed several optimiser steps at a time as one batch of its own,
because its work between two batches costs as much as a small network's step.
"""

import logging
import math
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor, nn

from configs.errors import TrainingError
from models.family import Task
from models.learner import Habits, answer, calibrated_loss

if TYPE_CHECKING:
    from models.learner import Parts

STEPS_AT_ONCE = 8
"""Optimiser steps that Lightning is handed as one batch (`make bench-training` prints what a step costs)."""
LEAST_GAIN = 1e-5
"""An epoch is better if the hold-out's log loss falls by this much; less is noise of the calibration's fit."""


def teach(module: nn.Module, parts: "Parts", y: Tensor, task: Task, habits: Habits, hold: Tensor) -> nn.Module:
    """What `models.learner.learn` promises; called under its seed."""
    lesson = Lesson(module, parts, y, task, habits, hold)
    with _quiet():
        trainer = Trainer(
            accelerator="cpu",
            max_epochs=lesson.epochs,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            limit_val_batches=0,
            use_distributed_sampler=False,
        )
        trainer.fit(lesson, _Steps(lesson))
    return lesson.best_module()


class Lesson(LightningModule):
    """One network's training: which rows each step reads, what is minimised, when it ends."""

    def __init__(self, module: nn.Module, parts: "Parts", y: Tensor, task: Task, habits: Habits, hold: Tensor) -> None:
        super().__init__()
        self.automatic_optimization = False
        asked = task.learning
        self.module, self.parts, self.task, self.habits = module, parts, task, habits
        self.epochs: int = _first(asked.epochs, habits.epochs)
        self.patience: int = _first(asked.patience, habits.patience)
        self.batch: int = _first(asked.batch, habits.batch)
        self.accumulate: int = asked.accumulate or 1
        self.clip: float | None = asked.clip
        self.precision_asked: str | None = asked.precision
        self.y_held = y[hold].numpy().astype("float64")
        self.targets = _targets(y, task.classes, asked.label_smoothing or 0.0)
        self.weights = _weights(y[~hold], task.classes)[y.long()] if asked.class_weights == "balanced" else None
        self.learned, self.held = torch.nonzero(~hold)[:, 0], torch.nonzero(hold)[:, 0]
        self.epoch, self.step = 0, 0
        self.best_loss, self.best_epoch, self.best = math.inf, -1, _copy(module)
        self.steps = math.ceil(len(self.learned) / (self.batch * self.accumulate))
        self.module.train()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        self.optimizer = torch.optim.AdamW(
            self.module.parameters(), self.habits.learning_rate, weight_decay=self.habits.weight_decay, fused=True
        )
        return self.optimizer

    def on_fit_start(self) -> None:
        self.parts = tuple(part.to(self.device) for part in self.parts)
        self.targets, self.learned, self.held = (
            tensor.to(self.device) for tensor in (self.targets, self.learned, self.held)
        )
        self.weights = None if self.weights is None else self.weights.to(self.device)

    def on_train_epoch_start(self) -> None:
        draws = torch.Generator().manual_seed(_seed(self.task.seed, self.epoch))
        order = torch.randperm(len(self.learned), generator=draws)
        # as many steps as the batch asks for, all of one size but for a row: a last step of few rows is mostly noise
        self.rows = self.learned[order.to(self.device)].tensor_split(self.steps)
        self.total = torch.zeros((), device=self.device)

    def training_step(self, steps: tuple[int, int], _: int) -> None:
        for step in range(*steps):
            torch.manual_seed(_seed(self.task.seed, self.epoch, step))
            self._one(self.rows[step])
            self.step = step + 1

    def _one(self, rows: Tensor) -> None:
        """One step of the optimiser, its gradient summed over slices of the batch that fit the memory."""
        self.optimizer.zero_grad()
        for some in torch.split(rows, self.batch):
            loss = self.loss(some) / len(rows)
            torch.autograd.backward(loss)
            self.total += loss.detach()
        if self.clip is not None:
            nn.utils.clip_grad_norm_(self.module.parameters(), self.clip)
        self.optimizer.step()

    def loss(self, rows: Tensor) -> Tensor:
        """The sum over these rows of what is minimised: the cross-entropy, of an ensemble its members' mean."""
        parts = tuple(part.index_select(0, rows) for part in self.parts)
        if self.habits.augment is not None:
            parts = self.habits.augment(parts)
        logits = self._forward(parts)
        target = self.targets.index_select(0, rows)
        if logits.ndim == 3:
            target = target[:, None].expand_as(logits)
        if logits.shape[-1] == 1:
            each = nn.functional.binary_cross_entropy_with_logits(logits, target, reduction="none")[..., 0]
        else:
            each = -(target * nn.functional.log_softmax(logits, dim=-1)).sum(dim=-1)
        if each.ndim == 2:
            each = each.mean(dim=1)
        if self.weights is not None:
            each = each * self.weights.index_select(0, rows)
        return each.sum()

    def _forward(self, parts: "Parts") -> Tensor:
        # Not the Trainer's `precision`: its context spans all steps of a batch, and would keep weights of the first
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision_asked == "bf16"):
            logits: Tensor = self.module(*parts)
        return logits.float()

    def on_train_epoch_end(self) -> None:
        loss = self._held_loss()
        figures = {"train_loss": float(self.total) / self.steps, "log_loss": loss}
        if loss < self.best_loss - LEAST_GAIN:
            self.best_loss, self.best_epoch, self.best = loss, self.epoch, _copy(self.module)
        self.task.told(self.epoch, figures)
        self.epoch, self.step = self.epoch + 1, 0
        if self.epoch - 1 - max(self.best_epoch, 0) >= self.patience:
            self.trainer.should_stop = True

    def _held_loss(self) -> float:
        self.module.eval()
        with torch.inference_mode():
            said = [
                answer(self._forward(tuple(part.index_select(0, rows) for part in self.parts)))
                for rows in torch.split(self.held, self.batch)
            ]
        self.module.train()
        return calibrated_loss(torch.cat(said).cpu().numpy(), self.y_held)

    def best_module(self) -> nn.Module:
        if self.best_epoch < 0:
            raise TrainingError(
                f"the network's log loss on the hold-out was no number in any of {self.epoch} epochs: it diverged. A "
                "lower learning rate, or `learning: {clip: 1.0}`, may help."
            )
        self.module.load_state_dict(self.best)
        return self.module.cpu().eval().requires_grad_(True)


class _Steps:
    """Which steps Lightning runs as one batch of its own, until the epoch's end."""

    def __init__(self, lesson: Lesson) -> None:
        self.lesson = lesson

    def __iter__(self) -> Iterator[tuple[int, int]]:
        steps = self.lesson.steps
        for start in range(self.lesson.step, steps, STEPS_AT_ONCE):
            yield start, min(start + STEPS_AT_ONCE, steps)


def _first(*values: Any) -> Any:
    return next(value for value in values if value is not None)


def _seed(*parts: int) -> int:
    """One number from a seed, an epoch and a step, so that each step draws its own, wherever a training goes on."""
    import hashlib

    return int.from_bytes(hashlib.blake2b(repr(parts).encode(), digest_size=7).digest(), "little")


def _copy(module: nn.Module) -> Mapping[str, Tensor]:
    return {name: value.detach().clone() for name, value in module.state_dict().items()}


def _targets(y: Tensor, classes: int, smoothing: float) -> Tensor:
    """What each row's probabilities are drawn to, (n, 1) or (n, K): a share `smoothing` of each is spread evenly over
    the classes (Szegedy C et al. CVPR 2016; from memory, not looked up)."""
    if classes == 2:
        return (y.float() * (1 - smoothing) + smoothing / 2)[:, None]
    return nn.functional.one_hot(y.long(), classes).float() * (1 - smoothing) + smoothing / classes


def _weights(y: Tensor, classes: int) -> Tensor:
    """A weight for each class, (K,): all classes count alike, and the mean over rows is 1."""
    counts = torch.bincount(y.long(), minlength=classes)
    return len(y) / (classes * counts.clamp(min=1)).float()


@contextmanager
def _quiet() -> Iterator[None]:
    """Lightning's tips, and its advice on loaders that are not here, are left out."""
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")]
    before = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=r"lightning\.")
            yield
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)
