"""What a step of a network's training costs: ours, a bare loop over the same slices, and Lightning's usual way.

`python -m bench.training` learns the same table with the same network, optimiser and hold-out in three ways, in turns:
by models/learner.py as the families do, by a loop of a dozen lines that does the same work (each step's slice, after
each epoch the hold-out's calibrated log loss, and the best weights), and by Lightning's Trainer over a DataLoader. Each
is timed in the process's own seconds: a neighbour on the machine counts for little.
"""

import argparse
import logging
import platform
import time
import warnings
from collections.abc import Callable
from statistics import median
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from configs.settings import Settings
from models.families.tabular_net import BINS, EMBEDDING, MEMBERS, OWN, Architecture, Network
from models.family import Task
from models.learner import Habits, answer, calibrated_loss, hold_out, learn, seeded

COLUMNS, BATCH, SEED = 30, 256, 17
WAYS = ("ours", "bare loop", "Trainer and DataLoader")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=5)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    dice = np.random.default_rng(SEED)
    X = dice.normal(size=(asked.rows, COLUMNS)).astype(np.float32)
    y = (X[:, 0] + X[:, 1] * X[:, 2] + dice.normal(size=asked.rows) > 0).astype(np.float64)
    hold = torch.from_numpy(hold_out(y, np.arange(asked.rows), SEED))
    print(f"{asked.rows} rows of {COLUMNS} numbers, batches of {BATCH}, {asked.epochs} epochs, {asked.rounds} rounds; "
          f"torch {torch.__version__}, {platform.processor() or platform.machine()}, one thread")  # fmt: skip
    print("| network | weights | ours, ms a step | bare loop | Trainer and DataLoader | ours / bare (least to most) "
          "| DataLoader / bare |\n|---|---|---|---|---|---|---|")  # fmt: skip
    whole = torch.from_numpy(X), torch.zeros(asked.rows, COLUMNS), torch.zeros(asked.rows, 0)
    for name, make, parts in (("two layers of 128", perceptron, whole[:1]), ("tabular_net", ensemble, whole)):
        print(row(name, make, parts, torch.from_numpy(y), hold, asked.epochs, asked.rounds), flush=True)


def row(
    name: str,
    make: Callable[[], nn.Module],
    parts: tuple[Tensor, ...],
    y: Tensor,
    hold: Tensor,
    epochs: int,
    rounds: int,
) -> str:
    """A network's line: the median over the rounds of each way, and of their ratios within a round."""
    habits = Habits(epochs, epochs, BATCH, learning_rate=1e-3, weight_decay=1e-2)
    ways: list[Callable[..., Any]] = [ours, bare, with_loader]
    steps = epochs * -(-int((~hold).sum()) // BATCH)
    took: list[list[float]] = []
    for turn in range(rounds + 1):
        these = []
        for way in ways:
            with seeded(SEED):
                module = make()
                before = time.process_time()
                way(module, parts, y, hold, habits)
                these.append((time.process_time() - before) / steps * 1e3)
        took += [these] if turn else []  # the first turn imports, and warms up
    ms = [median(each) for each in zip(*took, strict=True)]
    ratios, loader = [a / b for a, b, _ in took], [c / b for _, b, c in took]
    weights = sum(weight.numel() for weight in make().parameters())
    return (
        f"| {name} | {weights:,} | {ms[0]:.3f} | {ms[1]:.3f} | {ms[2]:.3f} | "
        f"{median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f}) | {median(loader):.2f} |"
    )


def ours(module: nn.Module, parts: tuple[Tensor, ...], y: Tensor, hold: Tensor, habits: Habits) -> None:
    no_plan: Any = None
    learn(module, parts, y, Task(no_plan, SEED, np.arange(len(y)), Settings(device="cpu")), habits, hold=hold)


def bare(module: nn.Module, parts: tuple[Tensor, ...], y: Tensor, hold: Tensor, habits: Habits) -> None:
    optimiser = torch.optim.AdamW(module.parameters(), habits.learning_rate, weight_decay=0.01, fused=True)
    learned, held = torch.nonzero(~hold)[:, 0], torch.nonzero(hold)[:, 0]
    target, best, kept = y.float(), float("inf"), module.state_dict()
    for _ in range(habits.epochs):
        module.train()
        for rows in learned[torch.randperm(len(learned))].split(habits.batch):
            optimiser.zero_grad()
            loss(module(*(part.index_select(0, rows) for part in parts)), target.index_select(0, rows)).backward()
            optimiser.step()
        module.eval()
        with torch.inference_mode():
            said = [
                answer(module(*(part.index_select(0, rows) for part in parts))) for rows in held.split(habits.batch)
            ]
        if (found := calibrated_loss(torch.cat(said).numpy(), y[held].numpy())) < best:
            best, kept = found, {name: value.clone() for name, value in module.state_dict().items()}
    module.load_state_dict(kept)


def with_loader(module: nn.Module, parts: tuple[Tensor, ...], y: Tensor, hold: Tensor, habits: Habits) -> None:
    """Lightning as its manual shows it, with all that it does beside switched off; no hold-out."""
    from lightning.pytorch import LightningModule, Trainer
    from torch.utils.data import DataLoader, TensorDataset

    class Usual(LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.module = module

        def training_step(self, batch: list[Tensor], _: int) -> Tensor:
            *rows, target = batch
            return loss(self.module(*rows), target)

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.AdamW(module.parameters(), habits.learning_rate, weight_decay=0.01, fused=True)

    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    table = TensorDataset(*(part[~hold] for part in parts), y[~hold].float())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        Trainer(
            accelerator="cpu",
            max_epochs=habits.epochs,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        ).fit(Usual(), DataLoader(table, habits.batch, shuffle=True))


def loss(logits: Tensor, target: Tensor) -> Tensor:
    target = target[:, None] if logits.ndim == 2 else target[:, None, None]
    return nn.functional.binary_cross_entropy_with_logits(logits, target.expand_as(logits))


class Perceptron(nn.Sequential):
    """Its last layer is the one that its logits come from."""

    @property
    def last(self) -> tuple[Tensor, Tensor]:
        return self[-1].weight, self[-1].bias


def perceptron() -> nn.Module:
    return Perceptron(nn.Linear(COLUMNS, 128), nn.ReLU(), nn.Linear(128, 128), nn.ReLU(), nn.Linear(128, 1))


def ensemble() -> nn.Module:
    kind = Architecture(
        numbers=COLUMNS,
        levels=(),
        bins=BINS,
        embedding=EMBEDDING,
        width=int(OWN["width"]),
        depth=int(OWN["depth"]),
        members=MEMBERS,
        outputs=1,
    )
    return Network(kind, dropout=OWN["dropout"])


if __name__ == "__main__":
    main()
