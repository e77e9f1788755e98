"""What Lightning's Trainer runs when a network learns: the steps, the hold-out after each epoch, the best weights.

Only training imports this module. Lightning is handed several optimiser steps at a time as one batch of its own,
because its work between two batches costs as much as a small network's step.
"""

import errno
import hashlib
import logging
import math
import multiprocessing
import os
import signal
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor, nn
from torch.multiprocessing import ProcessExitedException, ProcessRaisedException

from configs.errors import ProcessError, SpecError, TrainingError
from configs.settings import Settings
from models import checkpoints
from models.checkpoints import State
from models.device import is_out_of_memory
from models.family import Task
from models.learner import Habits, answer, calibrated_loss, settled
from models.training import code_fingerprint

if TYPE_CHECKING:
    from models.learner import Parts

STEPS_AT_ONCE = 8
"""Optimiser steps that Lightning is handed as one batch (`make bench-training` prints what a step costs)."""
STEPS_A_STATE = 200
"""Steps after which a long epoch's state is kept, beside the one after each epoch."""
LEAST_GAIN = 1e-5
"""An epoch is better if the hold-out's log loss falls by this much; less is noise of the calibration's fit."""
LOGGERS = ("lightning.pytorch", "lightning.fabric")
CLUSTER = ("MASTER_ADDR", "MASTER_PORT", "NODE_RANK")
"""What Lightning reads where several machines train together."""

log = logging.getLogger(__name__)


def teach(module: nn.Module, parts: "Parts", y: Tensor, task: Task, habits: Habits, hold: Tensor) -> nn.Module:
    """What `models.learner.learn` promises; called under its seed."""
    together = task.settings.devices * task.settings.nodes
    if together == 1:
        lesson = Lesson(module, parts, y, task, habits, hold)
        try:
            _fit(lesson, task.settings)
        except RuntimeError as exc:
            if not is_out_of_memory(exc):
                raise
            raise TrainingError(f"the memory does not take this network's training: {_last(exc):.200}") from exc
        return lesson.best_module()
    with TemporaryDirectory() as folder:  # the processes that train hand their outcome over as a state
        kept = task if task.checkpoints else replace(task, checkpoints=Path(folder))
        lesson = Lesson(module, parts, y, replace(kept, told=_nobody), habits, hold)
        try:
            _fit(lesson, task.settings)
        except (ProcessRaisedException, ProcessExitedException) as exc:
            failed = TrainingError if is_out_of_memory(RuntimeError(str(exc))) else ProcessError
            raise failed(f"one of {together} processes that train together failed: {_last(exc)}") from exc
        except (RuntimeError, OSError) as exc:
            if os.strerror(errno.ENOSPC) not in str(exc):
                raise
            raise ProcessError(
                f"the rows that {together} processes share do not fit into /dev/shm: give it more room (a container's "
                "`--shm-size`), or train with MEDIMIND_DEVICES=1."
            ) from exc
        return Lesson(module, parts, y, replace(kept, told=task.told), habits, hold).best_module()


class Lesson(LightningModule):
    """One network's training: which rows each step reads, what is minimised, when it ends, where it stands."""

    def __init__(self, module: nn.Module, parts: "Parts", y: Tensor, task: Task, habits: Habits, hold: Tensor) -> None:
        super().__init__()
        self.automatic_optimization = False
        asked = task.learning
        self.module, self.parts, self.task, self.habits = module, parts, task, habits
        self.epochs = asked.epochs or habits.epochs
        self.patience = asked.patience or habits.patience
        self.batch = asked.batch or habits.batch
        self.rows_a_step = self.batch * (asked.accumulate or 1)
        self.half = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(asked.precision or "float32")
        self.y_held = y[hold].double().numpy()
        self.targets = _targets(y, task.classes, asked.label_smoothing or 0.0)
        self.weights = _weights(y[~hold], task.classes)[y.long()] if asked.class_weights == "balanced" else None
        self.learned, self.held = torch.nonzero(~hold)[:, 0], torch.nonzero(hold)[:, 0]
        self.steps = math.ceil(len(self.learned) / self.rows_a_step)
        self.epoch, self.step, self.finished = 0, 0, False
        self.best_loss, self.best_epoch, self.best = math.inf, -1, _copy(module)
        self.best_said = torch.empty(0)
        self.total = torch.zeros(())
        self.told: list[dict[str, float]] = []
        self.shows: Callable[[int, Mapping[str, float]], None] = _nobody
        self.restored: Mapping[str, Tensor] = {}
        self.scale: dict[str, float | int] = {}
        self.digests = ("", "")
        if task.checkpoints is not None:
            how = f"{task.seed} {task.classes} {asked.model_dump_json()} {replace(habits, augment=None)} "
            how += f"{code_fingerprint()} torch {torch.__version__}"
            data = {**{str(place): part for place, part in enumerate(parts)}, "y": y, "hold": hold}
            self.digests = checkpoints.network_digest(module), checkpoints.data_digest(data, how)
            self._go_on()
        self.module.train()

    def __setstate__(self, state: dict[str, Any]) -> None:
        """In a process that was started to train with others: as quiet as this one, and computing as `seeded` does."""
        super().__setstate__(state)
        # Tensors reach a process as memory that all share, and these are written to. Lightning copies the weights.
        self.total = self.total.clone()
        self.restored = {name: value.clone() for name, value in self.restored.items()}
        for name in LOGGERS:
            logging.getLogger(name).setLevel(logging.ERROR)
        warnings.filterwarnings("ignore", module=r"lightning\.")
        settings: Any = torch.utils.deterministic
        settings.fill_uninitialized_memory = False

    def configure_optimizers(self) -> torch.optim.Optimizer:
        self.optimizer = torch.optim.AdamW(
            self.module.parameters(), self.habits.learning_rate, weight_decay=self.habits.weight_decay, fused=True
        )
        checkpoints.restore_optimiser(self.optimizer, self.restored)
        # Half precision alone has gradients too small for its numbers
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.half == torch.float16)
        if self.scale:
            self.scaler.load_state_dict(self.scale)
        return self.optimizer

    def on_fit_start(self) -> None:
        torch.set_num_threads(1)  # Lightning sets others in a process that it starts
        self._end_with_the_program()
        self.parts = tuple(part.to(self.device) for part in self.parts)
        self.targets, self.learned, self.held, self.total = (
            tensor.to(self.device) for tensor in (self.targets, self.learned, self.held, self.total)
        )
        self.weights = None if self.weights is None else self.weights.to(self.device)
        self.rank, self.world = self.trainer.global_rank, self.trainer.world_size
        here = self.epoch, self.step, self.digests
        first = self.trainer.strategy.broadcast(here)
        if first[2] != here[2]:
            raise TrainingError(
                "this machine trains another network than the first one, or on other data, with another seed, other "
                "habits or other code. Give all the same spec, cohort and release, and train without --resume."
            )
        if first != here:
            raise TrainingError(
                f"this machine's state stands at step {here[1]} of epoch {here[0]}, the first one's at step {first[1]} "
                f"of epoch {first[0]}. Copy {checkpoints.STATE} from there, or train without --resume to begin anew."
            )
        # torch's own way seeds every device that might be there, which takes as long as a small network's step
        self.seed = torch.default_generator.manual_seed if self.device.type == "cpu" else torch.manual_seed

    def _end_with_the_program(self) -> None:
        """Raise TrainingError where the program that started this process was killed: a training that goes on writes
        to the same state. Not every process hears of it from the system: under nohup, say, interrupts are ignored."""
        if (program := multiprocessing.parent_process()) and self.trainer.world_size > 1 and not program.is_alive():
            raise TrainingError("the program that started this process was ended.")

    def on_train_start(self) -> None:
        if multiprocessing.parent_process() and self.trainer.world_size > 1:
            # Lightning's own handler waits for the other processes, which wait for this one
            signal.signal(signal.SIGTERM, signal.SIG_DFL)

    def on_train_epoch_start(self) -> None:
        draws = torch.Generator().manual_seed(_seed(self.task.seed, self.epoch))
        order = torch.randperm(len(self.learned), generator=draws)
        # as many steps as the batch asks for, all of one size but for a row: a last step of few rows is mostly noise
        self.rows = self.learned[order.to(self.device)].tensor_split(self.steps)

    def training_step(self, steps: tuple[int, int], _: int) -> None:
        self._end_with_the_program()
        for step in range(*steps):
            self._one(self.rows[step], _seed(self.task.seed, self.epoch, step, self.rank))
            self.step = step + 1
            if self.step % STEPS_A_STATE == 0 and self.step < self.steps:
                self._keep()

    def _one(self, rows: Tensor, seed: int) -> None:
        """One step of the optimiser, its gradient summed over slices of the batch that fit the memory."""

        def gradient() -> Tensor:
            self.seed(seed)
            return self._gradient(rows)

        lost = self._within_memory(gradient)
        self.total += lost
        self.scaler.unscale_(self.optimizer)
        if self.task.learning.clip is not None:
            nn.utils.clip_grad_norm_(self.module.parameters(), self.task.learning.clip)
        self.scaler.step(self.optimizer)
        self.scaler.update()

    def _gradient(self, rows: Tensor) -> Tensor:
        """Leave the gradient of the mean loss over these rows with the weights; the loss."""
        self.optimizer.zero_grad()
        mine, lost = rows[self.rank :: self.world], torch.zeros((), device=self.device)
        for some in (mine,) if len(mine) <= self.batch else torch.split(mine, self.batch):
            loss = self.loss(some, of=len(rows))
            torch.autograd.backward(self.scaler.scale(loss))
            lost += loss.detach()
        if self.world > 1:
            self._sum_gradients()
        return lost

    def _sum_gradients(self) -> None:
        """Each process has its rows' share of the gradient: the sum over all is what one process would have."""
        weights = [weight for weight in self.module.parameters() if weight.requires_grad]
        gradients = [torch.zeros_like(weight) if weight.grad is None else weight.grad for weight in weights]
        whole = self.trainer.strategy.reduce(torch.cat([each.flatten() for each in gradients]), reduce_op="sum")
        sizes = [weight.numel() for weight in weights]
        for weight, gradient in zip(weights, torch.split(whole, sizes), strict=True):
            weight.grad = gradient.view_as(weight)

    def _agree(self) -> None:
        """What is counted and not learned, as batch normalisation's means, hangs on a process's own rows: the first
        one's holds for all, so that all judge the same network, and end at the same epoch."""
        for buffer in self.module.buffers():
            buffer.copy_(self.trainer.strategy.broadcast(buffer))

    def _within_memory(self, compute: Callable[[], Tensor]) -> Tensor:
        """What `compute` gives, `batch` rows at a time; where the memory is full, again with half as many."""
        while True:
            try:
                return compute()
            except RuntimeError as exc:
                if not is_out_of_memory(exc) or self.world > 1:  # the other processes wait for this step's sum
                    raise
            self._halve()

    def _halve(self) -> None:
        """Half as many rows at a time, twice as often: the step stays what it was. Raises TrainingError at one row."""
        if self.batch == 1:
            raise TrainingError("the memory does not take this network's training, not even one row at a time.")
        self.optimizer.zero_grad()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        self.batch = math.ceil(self.batch / 2)
        log.warning("out of memory: %d rows at a time from here on, %d still make a step", self.batch, self.rows_a_step)

    def loss(self, rows: Tensor, of: int) -> Tensor:
        """What these rows add to the loss of a step `of` so many: the mean cross-entropy, of an ensemble its members'
        mean."""
        parts = tuple(part.index_select(0, rows) for part in self.parts)
        if self.habits.augment is not None:
            parts = self.habits.augment(parts)
        logits = self._logits(parts)
        target = self.targets.index_select(0, rows)
        weight = None if self.weights is None else self.weights.index_select(0, rows)[:, None]
        members = 1
        if logits.ndim == 3:
            members, target = logits.shape[1], target[:, None].expand_as(logits)
            weight = None if weight is None else weight[:, None]
        if logits.shape[-1] == 1:
            whole = nn.functional.binary_cross_entropy_with_logits(logits, target, weight, reduction="sum")
        else:
            each = target * nn.functional.log_softmax(logits, dim=-1)
            whole = -(each if weight is None else each * weight).sum()
        return whole / (members * of)

    def _logits(self, parts: "Parts") -> Tensor:
        if self.half is None:
            whole: Tensor = self.module(*parts)
            return whole
        # Not the Trainer's `precision`: its context spans all steps of a batch, and would keep weights of the first
        with torch.autocast(self.device.type, self.half):
            logits: Tensor = self.module(*parts)
        return logits.float()

    def on_train_epoch_end(self) -> None:
        if self.world > 1:
            self._agree()
        said = self._said_of_held()
        loss = calibrated_loss(answer(said).numpy(), self.y_held)
        loss = float(self.trainer.strategy.broadcast(loss))
        total = float(self.trainer.strategy.reduce(self.total, reduce_op="sum"))
        self.told.append({"train_loss": total / self.steps, "log_loss": loss, "batch": float(self.batch)})
        if loss < self.best_loss - LEAST_GAIN:
            self.best_loss, self.best_epoch, self.best = loss, self.epoch, _copy(self.module)
            self.best_said = said
        self.epoch, self.step = self.epoch + 1, 0
        self.total.zero_()
        waited = self.epoch - 1 - max(self.best_epoch, 0)
        self.finished = self.epoch >= self.epochs or waited >= self.patience
        self.trainer.should_stop = self.finished
        self._keep()
        self.shows(self.epoch - 1, self.told[-1])
        self.task.told(self.epoch - 1, self.told[-1])

    def _said_of_held(self) -> Tensor:
        """The network's logits of each row held out, on the CPU."""

        def logits() -> Tensor:
            with torch.inference_mode():
                said = [
                    self._logits(tuple(part.index_select(0, rows) for part in self.parts))
                    for rows in torch.split(self.held, self.batch)
                ]
            return torch.cat(said)

        self.module.eval()
        said = self._within_memory(logits)
        self.module.train()
        return said.cpu()

    def let_go(self) -> None:
        """Drop the rows. Lightning's objects hold one another, and this one with them, until Python looks for such
        rings: of several fits all tables would lie in the memory, or on the card."""
        self.parts = ()

    def best_module(self) -> nn.Module:
        """The network of the best epoch, its level and slope set right on who was held out."""
        if self.best_epoch < 0:
            raise TrainingError(
                f"the network's log loss on the hold-out was no number in any of {self.epoch} epochs: it diverged. "
                "`learning: {clip: 1.0}` may help."
            )
        self.module.load_state_dict(self.best)
        weights = None if self.weights is None else self.weights[self.held].cpu()
        slope, levels = settled(self.best_said, torch.from_numpy(self.y_held), weights)
        last: Any = self.module.cpu().last
        with torch.no_grad():
            factors, intercepts = last
            factors.mul_(slope)
            intercepts.mul_(slope).add_(levels)
        return self.module.eval()

    def _keep(self) -> None:
        """Leave the state where the task asks for it, one process on each machine."""
        if self.task.checkpoints is None or self.trainer.local_rank != 0:
            return
        self._end_with_the_program()
        network, data = self.digests
        state = State(
            network=network,
            data=data,
            epoch=self.epoch,
            step=self.step,
            batch=self.batch,
            best_epoch=self.best_epoch,
            best_loss=None if math.isinf(self.best_loss) else self.best_loss,
            scale=self.scaler.state_dict(),
            told=[{key: None if math.isnan(x) else x for key, x in figures.items()} for figures in self.told],
            finished=self.finished,
        )
        tensors = {**_under("best", self.best), "said": self.best_said, "total": self.total}
        if not self.finished:
            tensors |= _under("now", self.module.state_dict()) | checkpoints.optimiser_tensors(self.optimizer)
        checkpoints.save(self.task.checkpoints, state, tensors)

    def _go_on(self) -> None:
        """Stand where the state that lies there stood, and tell its epochs again."""
        assert self.task.checkpoints is not None
        if (found := checkpoints.load(self.task.checkpoints, *self.digests)) is None:
            return
        state, tensors = found
        self.epoch, self.step, self.batch, self.finished = state.epoch, state.step, state.batch, state.finished
        self.best_epoch = state.best_epoch
        self.best_loss = math.inf if state.best_loss is None else state.best_loss
        self.best, self.total, self.scale, self.restored = _of("best", tensors), tensors["total"], state.scale, tensors
        self.best_said = tensors["said"]
        self.told = [{key: math.nan if x is None else x for key, x in figures.items()} for figures in state.told]
        if not self.finished:
            self.module.load_state_dict(_of("now", tensors))
        for epoch, figures in enumerate(self.told):
            self.task.told(epoch, figures)


class _Steps:
    """Which steps Lightning runs as one batch of its own, until the epoch's end."""

    def __init__(self, lesson: Lesson) -> None:
        self.lesson = lesson

    def __iter__(self) -> Iterator[tuple[int, int]]:
        steps = self.lesson.steps
        for start in range(self.lesson.step, steps, STEPS_AT_ONCE):
            yield start, min(start + STEPS_AT_ONCE, steps)


def _fit(lesson: Lesson, settings: Settings) -> None:
    """Run Lightning's Trainer on the devices of these settings, without files, loggers or advice."""
    if lesson.finished:
        return
    if settings.nodes > 1 and (lacking := [name for name in CLUSTER if name not in os.environ]):
        raise SpecError(
            f"MEDIMIND_NODES={settings.nodes}: {', '.join(lacking)} must be set as well: the first machine's address "
            "and a free port of it, and this machine's number, from 0 on."
        )
    together = settings.devices * settings.nodes > 1
    accelerator = _accelerator(settings)
    with _quiet(), _bar(lesson, shown=sys.stderr.isatty() and not together):
        trainer = Trainer(
            accelerator=accelerator,
            # started anew, not forked: they have none of the program's threads, nor its hold on a card
            strategy="ddp_spawn" if together else "auto",
            devices=settings.devices,
            num_nodes=settings.nodes,
            max_epochs=lesson.epochs,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            limit_val_batches=0,
            use_distributed_sampler=False,
        )
        try:
            trainer.fit(lesson, _Steps(lesson))
        finally:
            lesson.let_go()


def _accelerator(settings: Settings) -> str:
    """Lightning's word for where the network learns. Raises SpecError for more processes than there are cards."""
    cards = torch.cuda.device_count() if settings.device != "cpu" and torch.cuda.is_available() else 0
    if not cards:
        if settings.device == "cuda":
            _no_card()
        return "cpu"
    if settings.devices > cards:
        raise SpecError(
            f"MEDIMIND_DEVICES={settings.devices}: this machine has {cards} card{'s' * (cards > 1)}, and each process "
            "needs one of its own. Ask for fewer, or train on the CPU with MEDIMIND_DEVICE=cpu."
        )
    return "gpu"


@cache
def _no_card() -> None:
    """Said once, and not before each fold's network."""
    log.warning("no CUDA device is here (MEDIMIND_DEVICE=cuda): networks learn on the CPU")


@contextmanager
def _bar(lesson: Lesson, *, shown: bool) -> Iterator[None]:
    """A bar of epochs on standard error while the network learns. Lightning's own is drawn anew at each step."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    if not shown:
        yield
        return
    columns = (TextColumn("training"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}"))
    with Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True), transient=True) as bar:
        row = bar.add_task("", total=lesson.epochs, completed=lesson.epoch)

        def shows(epoch: int, figures: Mapping[str, float]) -> None:
            bar.update(row, completed=epoch + 1, description=f"log loss {figures['log_loss']:.4f}")

        lesson.shows = shows
        yield


@contextmanager
def _quiet() -> Iterator[None]:
    """Lightning's tips, and its advice on loaders that are not here, are left out."""
    loggers = [logging.getLogger(name) for name in LOGGERS]
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


def _under(name: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {f"{name}.{key}": value for key, value in tensors.items()}


def _of(name: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {key.removeprefix(f"{name}."): value for key, value in tensors.items() if key.startswith(f"{name}.")}


def _seed(*parts: int) -> int:
    """One number from a seed, an epoch, a step and a process: each step draws its own, wherever a training goes on."""
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


def _nobody(_epoch: int, _figures: Mapping[str, float]) -> None:
    return None


def _last(exc: Exception) -> str:
    """The last line that a process said before it ended."""
    return str(exc).strip().rpartition("\n")[2]
