"""Hyper-parameters by trials: of those that Optuna drew, the ones whose calibrated risks have the lowest log loss.

The figure of the parameters that won is too good: the best of many is judged by what it was chosen by. It says which
parameters, and never how good the model is; models/training.py tells that of patients whom no search saw.

A search that was killed goes on where it was, and finds what an unbroken one finds: only finished trials are kept, each
in one transaction, and what a trial draws hangs on its number and on the trials before it alone.
"""

import hashlib
import json
import math
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Literal, cast

from configs.errors import SpecError, TrainingError
from configs.settings import sqlite_url
from configs.spec import Spec, Trials
from models.family import Choice, Range, space

if TYPE_CHECKING:
    import optuna

Parameters = Mapping[str, float | int | str]
Space = Mapping[str, Range | Choice]
State = Literal["complete", "pruned", "failed"]
PATIENCE_S = 60
"""How long a trial that is to be kept waits for another process's."""


@dataclass(frozen=True)
class Trial:
    """Some `parameters`, none for the family's own, and their `losses` over the first fold, the first two, and so on.

    `pruned`: dropped as the losses lay above the median of earlier trials. `failed`: a loss was no finite number.
    """

    number: int
    parameters: Parameters
    losses: tuple[float, ...]
    state: State


@dataclass(frozen=True)
class Search:
    trials: tuple[Trial, ...]

    @cached_property
    def best(self) -> Trial:
        """The complete trial of the lowest log loss over all folds. Raises TrainingError if there is none."""
        complete = [trial for trial in self.trials if trial.state == "complete"]
        if not complete:
            raise TrainingError(f"none of {len(self.trials)} trials gave a finite log loss: no parameters are chosen.")
        return min(complete, key=lambda trial: (trial.losses[-1], trial.number))

    def count(self, state: State) -> int:
        return sum(trial.state == state for trial in self.trials)


@dataclass(frozen=True)
class Shelf:
    """Where a search keeps its trials: the SQLite file, and all that its trials hang on, which tells it from others."""

    path: Path
    about: Mapping[str, str]

    @property
    def study(self) -> str:
        """The search's name in the file."""
        return hashlib.sha256(json.dumps(self.about, sort_keys=True).encode()).hexdigest()


def refuse_idle(spec: Spec) -> None:
    """Raise SpecError if the spec asks for trials and no candidate has anything to choose."""
    if spec.trials is not None and not any(space(name, spec.encoder) for name in spec.candidates):
        raise SpecError(
            f"{spec.name}: trials: none of the candidates {', '.join(spec.candidates)} has parameters to choose; leave "
            "`trials` out."
        )


def search(
    space: Space,
    asked: Trials,
    seed: int,
    losses: Callable[[Parameters], Iterable[float]],
    shelf: Shelf | None = None,
    told: Callable[[Trial], None] = lambda _: None,
) -> Search:
    """As many trials of what `space` allows as are `asked` for, the first of them of the family's own parameters.

    `losses(parameters)` gives the log loss over the first fold, the first two, and so on; a trial that is pruned asks
    for no more of them. `told` hears of each trial that was not on the shelf. Raises TrainingError if the shelf cannot
    be read or written.
    """
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    # The study is in memory. One in SQL has a trial from its first draw on, and keeps it half done if it is killed.
    study = optuna.create_study(pruner=optuna.pruners.MedianPruner())
    kept = None if shelf is None else _open(shelf)
    study.add_trials([] if kept is None else kept.trials[: asked.count])
    while (number := len(study.trials)) < asked.count:
        # One parameter after the other: a joint draw is over what every trial has, and the first has none.
        study.sampler = optuna.samplers.TPESampler(seed=_seed(seed, number), multivariate=False)
        running = study.ask()
        parameters = {name: _draw(running, name, allowed) for name, allowed in space.items()} if number else {}
        _run(study, running, losses(parameters), asked.folds)
        done = study.trials[number]
        if shelf is not None and kept is not None:
            with _named(shelf.path):
                kept.add_trial(done)
        told(_trial(done))
    return Search(tuple(map(_trial, study.trials)))


def _seed(seed: int, number: int) -> int:
    """A seed for each trial of a search."""
    return int.from_bytes(hashlib.sha256(f"{seed} {number}".encode()).digest()[:4], "big")


def _draw(running: "optuna.Trial", name: str, allowed: Range | Choice) -> float | int | str:
    if isinstance(allowed, Choice):
        return cast(float | int | str, running.suggest_categorical(name, allowed.values))
    if isinstance(allowed.low, int) and isinstance(allowed.high, int):
        return int(running.suggest_int(name, allowed.low, allowed.high, log=allowed.log))
    return float(running.suggest_float(name, allowed.low, allowed.high, log=allowed.log))


def _run(study: "optuna.Study", running: "optuna.Trial", losses: Iterable[float], folds: int) -> None:
    """Go through the folds, and tell the study how it ended. After the last fold pruning would save nothing."""
    from optuna.trial import TrialState

    loss = math.nan
    for fold, loss in enumerate(losses):
        if not math.isfinite(loss):
            break
        running.report(loss, fold)
        if fold + 1 < folds and running.should_prune():
            study.tell(running, state=TrialState.PRUNED)
            return
    if math.isfinite(loss):
        study.tell(running, loss)
    else:
        study.tell(running, state=TrialState.FAIL)


def _trial(frozen: "optuna.trial.FrozenTrial") -> Trial:
    from optuna.trial import TrialState

    states: dict[TrialState, State] = {TrialState.COMPLETE: "complete", TrialState.PRUNED: "pruned"}
    losses = tuple(loss for _, loss in sorted(frozen.intermediate_values.items()))
    return Trial(frozen.number, frozen.params, losses, states.get(frozen.state, "failed"))


def _open(shelf: Shelf) -> "optuna.Study":
    """The search as it stands on its shelf."""
    import optuna

    with _named(shelf.path):
        with closing(sqlite3.connect(shelf.path)) as database:
            database.execute("PRAGMA schema_version")  # what is no SQLite file is said to be none here
        patience = {"connect_args": {"timeout": PATIENCE_S}}
        storage = optuna.storages.RDBStorage(sqlite_url(shelf.path), patience)
        kept = optuna.create_study(storage=storage, study_name=shelf.study, load_if_exists=True)
        if not kept.user_attrs:
            kept.set_user_attr("about", dict(shelf.about))
        return kept


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """Whatever the file, SQLite, SQLAlchemy or Optuna raises becomes a TrainingError that names the file."""
    try:
        yield
    except Exception as exc:
        why = exc.__cause__ or exc
        raise TrainingError(
            f"{path}: the trials cannot be kept there ({type(why).__name__}: {str(why).partition(chr(10))[0]:.200}). "
            "If the disk is not full, move the file away: what it holds is searched again."
        ) from exc
