"""How a network learns: one way for every family, on Lightning's Trainer (models/lesson.py is what it runs).

The table lies on the device as tensors, and a batch is a slice of them: no worker processes, no loader that copies row
by row. On the CPU the same rows, seed and network give the same bits, on one thread, whatever the number of cores.
Which rows a step reads and what it draws (dropout, augmentation) follow from the seed, the epoch and the step alone, so
a training that was killed goes on from its last state and ends with the bits of one that was not.
"""

import hashlib
import math
import random
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from configs.errors import TrainingError
from models import memory
from models.calibration import calibrate, calibrate_classes
from models.family import Task

if TYPE_CHECKING:
    from torch import Tensor, nn

    Parts = tuple[Tensor, ...]

HOLD_OUT = 6
"""One patient in so many is held out for early stopping; our own convention."""
SLOPE_MOVES = 1.5
"""2026-11, tabular_net on heart_disease, 4 seeds: out-of-fold log loss 0.429; 0.438 with a free slope."""
SHIFTS = 200
LEVEL_SD, LOG_SLOPE_SD = 0.5, 0.15
"""Of the priors that draw a network's level, in logits, and the logarithm of its slope to what it says by itself:
standard deviations. Our choice, measured on tables and pictures (docs/adr/0022)."""


@dataclass(frozen=True)
class Habits:
    """How a family trains where the spec says nothing else.

    `augment` takes a batch's parts and gives them altered; what it draws comes from torch's own generator, which is
    seeded before each step.
    """

    epochs: int
    patience: int
    batch: int
    learning_rate: float
    weight_decay: float
    augment: "Callable[[Parts], Parts] | None" = None


def learn(
    module: "nn.Module", parts: "Parts", y: "Tensor", task: Task, settings: Habits, *, hold: "Tensor"
) -> "nn.Module":
    """The network with the weights of its best epoch: the object that was given, in eval mode, on the CPU.

    `module(*parts)` gives logits (n, 1) or (n, K), of an ensemble (n, E, 1) or (n, E, K). `parts` are float32 (n, …),
    `y` (n,) 0 or 1, or 0 to K - 1. Rows where `hold` (n,) is true are never learned from: the best epoch is the one
    whose log-odds, once calibrated on them, have the least log loss there, and its level and slope are set right on
    them. The module's first weights are the caller's to draw, under `seeded`; its `last` are the weights and intercepts
    that its logits come from. Raises TrainingError if the loss is never a number.
    """
    from models import lesson  # Lightning takes ten seconds to import

    with seeded(task.seed):
        if memory.wanted():
            memory.measure(module, parts, y, task, settings, hold)
        return lesson.teach(module, parts, y, task, settings, hold)


def settled(logits: "Tensor", y: "Tensor", weights: "Tensor | None" = None) -> "tuple[float, Tensor]":
    """The slope, and the level of each output (K,) or (1,), that a network's `logits` are to be moved by: those of
    `learn`, of patients who were not learned from. Their outcomes are `y` (n,); they count by `weights` (n,), if any.

    Each network is stopped where it happens to be: two that order patients alike say risks of another level. The
    calibration is that of the folds' networks together, and holds for one that learned from all patients as far as its
    level is theirs. The maximum of the posterior, whose prior speaks for leaving all as it is.
    """
    import torch
    from scipy.optimize import minimize
    from torch import nn

    logits, y = logits.double(), y.double()
    weights = torch.ones_like(y) if weights is None else weights.double()

    def loss(moves: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        with torch.enable_grad():
            by = torch.tensor(moves, requires_grad=True)
            said = answer(logits * by[0].exp() + by[1:])
            if said.ndim == 1:
                lost = nn.functional.binary_cross_entropy_with_logits(said, y, reduction="none")
            else:
                lost = nn.functional.cross_entropy(said, y.long(), reduction="none")
            whole = weights @ lost + (by[0] / LOG_SLOPE_SD).square() / 2 + (by[1:] / LEVEL_SD).square().sum() / 2
            (gradient,) = torch.autograd.grad(whole, by)
        return float(whole.detach()), gradient.numpy()

    moves = minimize(loss, np.zeros(1 + logits.shape[-1]), jac=True, method="BFGS").x
    return math.exp(moves[0]), torch.from_numpy(moves[1:]).float()


def in_order(
    X: NDArray[np.float32], y: NDArray[np.float64], task: Task
) -> tuple[NDArray[np.float32], NDArray[np.float64], Task]:
    """The same rows in an order that follows from what they hold alone, so that it does not matter who came first.

    Patients are numbered anew, as they come.
    """
    rows = np.column_stack([X, y.astype(np.float32)])
    keys = [hashlib.sha256(row.tobytes()).digest() for row in rows]
    order = np.array(sorted(range(len(keys)), key=keys.__getitem__), np.int64)
    _, first, number = np.unique(task.groups[order], return_index=True, return_inverse=True)
    return X[order], y[order], replace(task, groups=first.argsort().argsort()[number])


def hold_out(y: NDArray[np.float64], groups: NDArray[np.int64], seed: int) -> NDArray[np.bool_]:
    """Which rows (n,) early stopping watches: one patient in six, all of a patient's rows, every class on both sides.

    Raises TrainingError if a class has too few different patients for that.
    """
    from sklearn.model_selection import StratifiedGroupKFold

    known = set(np.unique(y).tolist())
    folds = min(HOLD_OUT, len(np.unique(groups)))
    if folds > 1:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a class with fewer patients than folds: looked at below
            splits = StratifiedGroupKFold(folds, shuffle=True, random_state=seed).split(y, y, groups)
            for learned, held in splits:
                if set(np.unique(y[learned]).tolist()) == known == set(np.unique(y[held]).tolist()):
                    found: NDArray[np.bool_] = np.isin(np.arange(len(y)), held)
                    return found
    few = min(known, key=lambda label: len(np.unique(groups[y == label])))
    raise TrainingError(
        f"class {few:g} is that of too few different patients ({len(np.unique(groups[y == few]))}): a network needs "
        "some to learn from and some to stop by."
    )


def answer(logits: "Tensor") -> "Tensor":
    """The log-odds (n,) of logits (n, 1), or of K classes log-probabilities (n, K) up to a constant; float64.

    Of an ensemble, (n, E, 1) or (n, E, K), those of the mean of its members' probabilities.
    """
    from torch import nn

    logits = logits.double()
    if logits.ndim == 2:
        return logits[:, 0] if logits.shape[1] == 1 else logits
    if logits.shape[2] == 1:
        of, against = (nn.functional.logsigmoid(sign * logits[:, :, 0]).logsumexp(dim=1) for sign in (1, -1))
        return of - against
    return nn.functional.log_softmax(logits, dim=2).logsumexp(dim=1)


def calibrated_loss(log_odds: NDArray[np.float64], y: NDArray[np.float64]) -> float:
    """The log loss of these log-odds, (n,) or (n, K), once calibrated on the same rows; NaN if one is not a number.

    Their slope is moved by a half at most: a network that has hardly begun may order the patients as well as it ever
    will, and its risks, all alike, would not go together with those of the other folds' networks. Where the log-odds
    say nothing of the outcome it is the log loss of the classes' shares.
    """
    if not np.isfinite(log_odds).all():
        return float("nan")
    true = y.astype(np.int64)
    scores = np.column_stack([np.zeros_like(log_odds), log_odds]) if log_odds.ndim == 1 else log_odds
    shares = np.bincount(true, minlength=scores.shape[1]) / len(true)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a hold-out that is told apart without error no slope is the best
        try:
            if log_odds.ndim == 1:
                slope = calibrate(log_odds, y).slope
            else:
                names = tuple(str(place) for place in range(log_odds.shape[1]))
                slope = calibrate_classes(log_odds, y, names, names[1:]).slope
        except TrainingError:
            slope = 0.0
    if slope > 0:
        slope = min(max(slope, 1 / SLOPE_MOVES), SLOPE_MOVES)
    risks = _with_shares(slope * scores, shares)
    return float(-np.log(np.clip(risks[np.arange(len(true)), true], 1e-12, 1)).mean())


def _with_shares(scores: NDArray[np.float64], shares: NDArray[np.float64]) -> NDArray[np.float64]:
    """The risks (n, K) of `scores` (n, K), shifted so that each class's mean is its share: the maximum of the
    likelihood over intercepts."""
    from scipy.special import softmax

    shift = np.zeros(len(shares))
    for _ in range(SHIFTS):
        risks: NDArray[np.float64] = softmax(scores + shift, axis=1)
        step = np.log(shares / risks.mean(axis=0))
        shift += step
        if np.abs(step - step.mean()).max() < 1e-9:
            break
    return risks


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """All that is drawn in here follows from `seed`, and torch computes the same bits each time: on one thread, by its
    deterministic ways. Afterwards the process is as it was."""
    import torch

    before = random.getstate(), np.random.get_state(), torch.get_num_threads(), torch.get_rng_state()
    strict = torch.are_deterministic_algorithms_enabled()
    lenient = torch.is_deterministic_algorithms_warn_only_enabled()
    uninitialized: Any = torch.utils.deterministic
    fill = uninitialized.fill_uninitialized_memory
    try:
        torch.set_num_threads(1)
        # on a card some ways have no deterministic form; a training there is the same up to its tolerance
        torch.use_deterministic_algorithms(True, warn_only=True)
        uninitialized.fill_uninitialized_memory = False  # it costs time, and nothing here reads such memory
        random.seed(seed)
        np.random.seed(seed % 2**32)
        torch.manual_seed(seed)
        yield
    finally:
        random.setstate(before[0])
        np.random.set_state(before[1])
        torch.set_num_threads(before[2])
        torch.set_rng_state(before[3])
        torch.use_deterministic_algorithms(strict, warn_only=lenient)
        uninitialized.fill_uninitialized_memory = fill
