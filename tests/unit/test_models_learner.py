"""How a network learns: deterministic, stopped by a hold-out of other patients, with the best epoch's weights."""

import gc
import json
import logging
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import weakref
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from safetensors import safe_open
from torch import Tensor, nn

from configs.errors import ProcessError, SpecError, TrainingError
from configs.settings import ROOT, Settings
from configs.spec import Learning
from models import checkpoints
from models.family import Task
from models.learner import Habits, answer, calibrated_loss, hold_out, in_order, learn, seeded, settled

HABITS = Habits(epochs=6, patience=6, batch=64, learning_rate=0.01, weight_decay=1e-4)


class History(list[dict[str, float]]):
    """What a training tells, an epoch each."""

    def __call__(self, epoch: int, figures: Mapping[str, float]) -> None:
        assert epoch == len(self)
        self.append(dict(figures))


def task(classes: int = 2, told: History | None = None, folder: Path | None = None, **asked: Any) -> Task:
    """A task that reads no plan; `asked` is the spec's `learning`."""
    no_plan: Any = None
    told = History() if told is None else told
    here = Settings(device="cpu")
    return Task(no_plan, 3, np.arange(600), here, classes, Learning(**asked), checkpoints=folder, told=told)


class Net(nn.Module):
    def __init__(self, out: int = 1, members: int = 1, dropout: float = 0.1) -> None:
        super().__init__()
        self.inner, self.outer = nn.Linear(4, 16), nn.Linear(16, members * out)
        self.drop, self.shape = nn.Dropout(dropout), (members, out)

    @property
    def last(self) -> tuple[Tensor, Tensor]:
        return self.outer.weight, self.outer.bias.view(self.shape)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.outer(self.drop(torch.relu(self.inner(x))))
        return logits if self.shape[0] == 1 else logits.view(-1, *self.shape)


def rows(classes: int = 2, n: int = 600) -> tuple[Tensor, Tensor, Tensor]:
    """A table, its classes and its hold-out: the first two columns tell the class, with noise."""
    rng = np.random.default_rng(7)
    X = rng.normal(size=(n, 4)).astype(np.float32)
    cuts = [0.0] if classes == 2 else [-0.5, 0.5]
    y = np.digitize(X[:, 0] + X[:, 1] + 0.5 * rng.normal(size=n), cuts).astype(np.float64)
    return torch.from_numpy(X), torch.from_numpy(y), torch.from_numpy(hold_out(y, np.arange(n), 1))


def taught(of: Task, habits: Habits = HABITS, **net: Any) -> nn.Module:
    X, y, hold = rows(of.classes)
    with seeded(5):
        module = Net(**net)
    return learn(module, (X,), y, of, habits, hold=hold)


def weights(module: nn.Module) -> Tensor:
    return torch.cat([value.flatten() for value in module.state_dict().values()])


@pytest.mark.parametrize(
    ("classes", "members", "asked"),
    [
        (2, 1, {}),
        (2, 4, {"precision": "bf16", "clip": 1.0, "accumulate": 2}),
        (3, 1, {"class_weights": "balanced", "label_smoothing": 0.1, "precision": "fp16"}),
        (3, 4, {}),
    ],
)
def test_the_same_rows_and_seed_give_the_same_bits_and_something_is_learned(classes, members, asked):
    net = {"out": 1 if classes == 2 else classes, "members": members}
    first, second = History(), History()
    modules = [taught(task(classes, told, **asked), **net) for told in (first, second)]
    assert torch.equal(*(weights(module) for module in modules))
    assert first == second
    shares = np.bincount(rows(classes)[1].long().numpy()) / 600
    assert first[-1]["log_loss"] < -(shares * np.log(shares)).sum() - 0.15


def test_training_leaves_the_process_as_it_was():
    torch.manual_seed(11)
    before = torch.get_rng_state(), torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    taught(task(epochs=1))
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()) == before[1:]


def test_the_weights_of_the_best_epoch_come_back():
    told = History()
    module = taught(
        task(told=told), Habits(12, 12, 16, learning_rate=0.3, weight_decay=0.0), dropout=0.0
    )  # it jumps about
    X, y, hold = rows()
    with torch.inference_mode():
        loss = calibrated_loss(answer(module(X[hold])).numpy(), y[hold].numpy())
    best = min(figures["log_loss"] for figures in told)
    assert best < told[-1]["log_loss"]
    assert loss == pytest.approx(best, abs=1e-4)
    assert not module.training


def test_training_ends_when_patience_does():
    told = History()
    taught(task(told=told, epochs=50, patience=2), Habits(6, 6, 64, learning_rate=0.1, weight_decay=0.0))
    losses = [figures["log_loss"] for figures in told]
    assert len(losses) < 50
    assert len(losses) - 1 - int(np.argmin(losses)) == 2


def test_rows_held_out_are_never_learned_from_and_set_the_level_and_slope_alone():
    X, y, hold = rows()
    modules = []
    for value in (0.0, 10.0):
        spoiled = X.clone()
        spoiled[hold] = value
        with seeded(5):
            modules.append(Net())
        learn(modules[-1], (spoiled,), y, task(epochs=1), HABITS, hold=hold)
    one, other = modules
    assert torch.equal(weights(one.inner), weights(other.inner))
    slopes = one.outer.weight / other.outer.weight
    assert_allclose(slopes.detach(), slopes.mean().expand_as(slopes).detach(), rtol=1e-5)


def test_a_batch_in_slices_learns_as_the_whole_batch_does():
    whole, slices = task(batch=64), task(batch=16, accumulate=4)
    a, b = (weights(taught(of, dropout=0.0)) for of in (whole, slices))
    assert_allclose(a, b, atol=1e-4)
    assert not torch.equal(a, weights(taught(task(batch=16), dropout=0.0)))


def test_balanced_classes_move_the_mean_risk_to_one_half():
    X, _, _ = rows()
    y = (X[:, 0] > 1.2).double()  # one in nine
    hold = torch.from_numpy(hold_out(y.numpy(), np.arange(600), 1))
    means = []
    for asked in ({}, {"class_weights": "balanced"}):
        with seeded(5):
            module = Net()
        learn(module, (0.1 * X,), y, task(**asked), HABITS, hold=hold)
        with torch.inference_mode():
            means.append(float(torch.sigmoid(module(X * 0)).mean()))
    assert means[0] < 0.25
    assert 0.4 < means[1] < 0.6


@pytest.mark.parametrize("classes", [2, 3])
def test_smoothed_labels_keep_risks_from_the_extremes(classes):
    X, _, _ = rows()
    y = (X[:, 0] > 0).double() + (0 if classes == 2 else (X[:, 0] > 1).double())
    hold = torch.from_numpy(hold_out(y.numpy(), np.arange(600), 1))
    most = []
    for smoothing in (None, 0.2):
        with seeded(5):
            module = Net(out=1 if classes == 2 else 3, dropout=0.0)
        of = task(classes, epochs=30, patience=30, label_smoothing=smoothing)
        learn(module, (X,), y, of, HABITS, hold=hold)
        with torch.inference_mode():
            logits = module(X)
        most.append(float((logits.abs() if classes == 2 else logits.log_softmax(1).max(1).values.exp()).max()))
    assert most[1] < most[0]


def test_a_diverged_network_is_an_error():
    X, y, hold = rows()
    with pytest.raises(TrainingError, match="diverged"):
        learn(Net(), (X * float("nan"),), y, task(epochs=2), HABITS, hold=hold)


def test_augmentation_alters_what_is_learned_from_and_follows_the_seed():
    def noise(parts):
        return tuple(part + torch.randn_like(part) for part in parts)

    habits = Habits(2, 2, 64, 0.01, 0.0, augment=noise)
    plain, noisy, again = (weights(taught(task(), h)) for h in (Habits(2, 2, 64, 0.01, 0.0), habits, habits))
    assert torch.equal(noisy, again) and not torch.equal(plain, noisy)


def test_a_patients_rows_stay_on_one_side_of_the_hold_out():
    y = np.tile([0.0, 1.0, 0.0], 60)
    groups = np.repeat(np.arange(60), 3)
    hold = hold_out(y, groups, seed=1)
    assert not set(groups[hold]) & set(groups[~hold])
    assert 5 <= len(set(groups[hold])) <= 15
    assert (hold_out(y, groups, seed=1) == hold).all()


def test_a_class_of_one_patient_cannot_be_held_out():
    y = np.r_[np.zeros(20), np.ones(5)]
    groups = np.r_[np.arange(20), np.full(5, 99)]
    with pytest.raises(TrainingError, match=r"class 1 .* \(1\)"):
        hold_out(y, groups, seed=1)


@pytest.mark.parametrize("out", [1, 3])
def test_an_ensembles_answer_is_its_members_mean_probability(out):
    logits = torch.randn(9, 5, out, generator=torch.Generator().manual_seed(1))
    said = answer(logits)
    if out == 1:
        assert_allclose(torch.sigmoid(said), torch.sigmoid(logits[:, :, 0].double()).mean(dim=1), rtol=1e-12)
    else:
        assert_allclose(said.softmax(dim=1), logits.double().softmax(dim=2).mean(dim=1), rtol=1e-12)
    assert said.dtype == torch.float64


def test_the_calibrated_loss_knows_no_shift_and_little_scale_and_is_the_shares_where_nothing_was_learned():
    rng = np.random.default_rng(3)
    y = (rng.random(4000) < 0.3).astype(np.float64)
    score = y + rng.normal(size=4000)  # whose log-odds these are but for a shift
    share = y.mean()
    entropy = -(share * np.log(share) + (1 - share) * np.log(1 - share))

    best = calibrated_loss(score, y)
    assert best < 0.9 * entropy
    assert calibrated_loss(1.2 * score - 4, y) == pytest.approx(best, abs=1e-6)
    assert best + 0.01 < calibrated_loss(score / 10, y) < entropy
    assert best + 0.01 < calibrated_loss(4 * score, y)
    assert calibrated_loss(-score, y) == pytest.approx(entropy)
    assert np.isnan(calibrated_loss(np.where(y == 1, np.nan, score), y))


def test_of_two_classes_the_calibrated_loss_is_the_events():
    rng = np.random.default_rng(3)
    y = (rng.random(400) < 0.3).astype(np.float64)
    score = y + rng.normal(size=400)
    for scale in (0.1, 1.0, 5.0):
        both = np.column_stack([np.full(400, 2.0), 2 + scale * score])
        assert calibrated_loss(both, y) == pytest.approx(calibrated_loss(scale * score, y), abs=1e-6)


LOGITS = {1: (-3.0,), 3: (0.0, -1.0, 1.0)}


def said_of(n: int, outputs: int, members: int, seed: int = 1) -> tuple[Tensor, Tensor]:
    """Logits as a network gives them, and outcomes that are drawn by the risks they stand for."""
    dice = torch.Generator().manual_seed(seed)
    logits = 1.5 * torch.randn(n, 1, outputs, generator=dice) + torch.tensor(LOGITS[outputs])
    logits = logits + 0.3 * torch.randn(n, members, outputs, generator=dice)
    logits = logits[:, 0] if members == 1 else logits
    said = answer(logits)
    risks = torch.stack([1 - said.sigmoid(), said.sigmoid()], 1) if said.ndim == 1 else said.softmax(1)
    return logits, torch.multinomial(risks, 1, generator=dice)[:, 0].double()


@pytest.mark.parametrize("outputs", [1, 3])
@pytest.mark.parametrize("members", [1, 4])
def test_a_networks_level_and_slope_are_set_right_by_who_was_held_out(outputs, members):
    logits, y = said_of(6000, outputs, members)
    moved = 0.8 * logits + torch.linspace(0.4, -0.4, outputs)
    slope, levels = settled(moved, y)
    assert slope == pytest.approx(1 / 0.8, abs=0.08)
    back = answer(slope * moved + levels) - answer(logits)
    back = back if back.ndim == 1 else back - back.mean(dim=1, keepdim=True)
    assert back.mean(dim=0).abs().max() < 0.12


def test_a_few_patients_move_a_network_little_and_nothing_turns_it_round():
    logits, y = said_of(6, 1, 1)
    slope, levels = settled(logits, 1 - y)
    assert abs(np.log(slope)) < 0.3
    assert levels.abs().max() < 1.5
    logits, y = said_of(6000, 1, 1)
    assert 0 < settled(logits, 1 - y)[0] < 0.5


@pytest.mark.parametrize(("classes", "members"), [(2, 1), (2, 4), (3, 1), (3, 4)])
def test_a_network_that_was_learned_says_as_many_events_as_there_are_among_who_was_held_out(
    monkeypatch, classes, members
):
    """One whose labels were smoothed says too many of a rare class."""
    X, y, hold = rows(classes, 1200)
    y[X[:, 0] < 1] = 0

    def gap() -> float:
        with seeded(5):
            module = Net(1 if classes == 2 else classes, members, dropout=0.0)
        of = replace(task(classes, label_smoothing=0.3), groups=np.arange(1200))
        learn(module, (X,), y, of, HABITS, hold=hold)
        with torch.inference_mode():
            said = answer(module(X[hold]))
        none = said.sigmoid().neg() + 1 if classes == 2 else said.softmax(1)[:, 0]
        return float((none.mean() - (y[hold] == 0).double().mean()).abs())

    found = gap()
    monkeypatch.setattr("models.lesson.settled", lambda *_: (1.0, torch.zeros(1 if classes == 2 else classes)))
    assert found < gap() / 2


def test_processes_that_train_together_learn_what_one_does(monkeypatch):
    def ends() -> None:
        raise RuntimeError("what a program does when it ends is nothing for the processes it started")

    monkeypatch.setattr(threading, "_threading_atexits", [ends])  # where Prefect's log waits for its thread
    alone, together = History(), History()
    one = weights(taught(task(told=alone), dropout=0.0))
    two = weights(taught(replace(task(told=together), settings=Settings(device="cpu", devices=2)), dropout=0.0))
    assert_allclose(two, one, atol=1e-5)
    for figure in ("train_loss", "log_loss"):
        assert [figures[figure] for figures in together] == pytest.approx([f[figure] for f in alone], abs=1e-5)


def test_processes_that_go_on_together_end_as_one_does(tmp_path):
    class Killed(Exception):
        pass

    def is_killed(epoch: int, _: Mapping[str, float]) -> None:
        if epoch == 2:
            raise Killed

    one = weights(taught(task(), dropout=0.0))
    with pytest.raises(Killed):
        taught(replace(task(folder=tmp_path), told=is_killed), dropout=0.0)
    two = taught(replace(task(folder=tmp_path), settings=Settings(device="cpu", devices=2)), dropout=0.0)
    assert_allclose(weights(two), one, atol=1e-5)


class Normalised(Net):
    """Its running means come from the rows of its own process; each process writes down what it judged an epoch by."""

    def __init__(self, folder: Path) -> None:
        super().__init__(dropout=0.0)
        self.norm, self.folder = nn.BatchNorm1d(4), folder

    def forward(self, x: Tensor) -> Tensor:
        found = super().forward(self.norm(x))
        if not self.training:
            with open(self.folder / str(os.getpid()), "a", encoding="utf-8") as seen:
                seen.write(f"{self.norm.running_mean}\n{self.norm.running_var}\n")
        return found


def test_processes_that_train_together_judge_each_epoch_by_the_same_network(tmp_path):
    X, y, hold = rows()
    with seeded(5):
        module = Normalised(tmp_path)
    learn(module, (X,), y, replace(task(), settings=Settings(device="cpu", devices=2)), HABITS, hold=hold)
    one, other = (path.read_text() for path in tmp_path.iterdir())
    assert one == other


def fails(_: Any) -> Any:
    raise ValueError("nothing to alter")


def fills(_: Any) -> Any:
    raise torch.OutOfMemoryError("CUDA out of memory")


def test_what_the_memory_of_processes_does_not_take_cannot_be_learned():
    with pytest.raises(TrainingError, match=r"one of 2 processes .* out of memory"):
        taught(replace(task(), settings=Settings(device="cpu", devices=2)), replace(HABITS, augment=fills))


def test_a_process_that_fails_ends_the_training_of_all_and_is_no_model_that_learned_nothing():
    habits = replace(HABITS, augment=fails)
    with pytest.raises(ProcessError, match=r"one of 2 processes .* nothing to alter"):
        taught(replace(task(), settings=Settings(device="cpu", devices=2)), habits)


def standing_at(step: int) -> Any:
    """A lesson that was resumed at this step, as Lightning starts it on one of two machines."""
    from models.lesson import Lesson

    X, y, hold = rows()
    lesson = Lesson(Net(), (X,), y, task(), HABITS, hold)
    lesson.step = step
    first = SimpleNamespace(broadcast=lambda _: (0, 0, ("", "")))
    lesson.trainer = SimpleNamespace(global_rank=1, world_size=2, strategy=first)
    return lesson


def test_machines_whose_states_stand_at_different_steps_do_not_go_on_together():
    with seeded(5):
        with pytest.raises(TrainingError, match="stands at step 3 of epoch 0, the first one's at step 0 of epoch 0"):
            standing_at(3).on_fit_start()
        standing_at(0).on_fit_start()


def test_machines_that_learn_from_other_data_do_not_train_together():
    lesson = standing_at(0)
    lesson.digests = ("", "of another cohort")
    with seeded(5), pytest.raises(TrainingError, match="trains another network than the first one, or on other data"):
        lesson.on_fit_start()


def test_a_process_whose_program_was_killed_does_not_begin_go_on_or_keep_a_state(monkeypatch, tmp_path):
    lesson = standing_at(0)
    with seeded(5):
        lesson.on_fit_start()
    lesson.trainer.local_rank, lesson.task = 0, replace(lesson.task, checkpoints=tmp_path)
    monkeypatch.setattr(multiprocessing, "parent_process", lambda: SimpleNamespace(is_alive=lambda: False))
    for goes_on in (lesson.on_fit_start, lambda: lesson.training_step((0, 1), 0), lesson._keep):
        with seeded(5), pytest.raises(TrainingError, match="the program that started this process was ended"):
            goes_on()
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize(
    "error", [RuntimeError("shm </torch_1>: No space left on device (28)"), OSError(28, "No space left on device")]
)
def test_rows_that_shared_memory_has_no_room_for_are_told_with_what_to_do(monkeypatch, error):
    from models import lesson

    def full(*_: Any) -> None:
        raise error

    monkeypatch.setattr(lesson, "_fit", full)
    with pytest.raises(ProcessError, match="the rows that 2 processes share do not fit into /dev/shm"):
        taught(replace(task(), settings=Settings(device="cpu", devices=2)))


def ends_itself(parts: Any) -> Any:
    if os.environ["LOCAL_RANK"] == "0":
        os.kill(os.getpid(), signal.SIGTERM)
    return parts


def test_a_process_that_is_asked_to_end_does_so_and_the_others_do_not_wait_for_it():
    with pytest.raises(ProcessError, match="one of 2 processes that train together failed"):
        taught(replace(task(), settings=Settings(device="cpu", devices=2)), replace(HABITS, augment=ends_itself))


def test_several_machines_are_told_where_to_meet(monkeypatch):
    monkeypatch.delenv("MASTER_ADDR", raising=False)
    with pytest.raises(SpecError, match="MEDIMIND_NODES=2: MASTER_ADDR"):
        taught(replace(task(), settings=Settings(device="cpu", nodes=2)))


def test_each_process_needs_a_card_of_its_own(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(SpecError, match="MEDIMIND_DEVICES=2: this machine has 1 card, and each process needs one"):
        taught(replace(task(), settings=Settings(devices=2)))


def test_a_card_that_was_asked_for_and_is_not_there_is_told_once(caplog, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for _ in range(2):
        taught(replace(task(epochs=1), settings=Settings(device="cuda")))
    assert [record.getMessage() for record in caplog.records] == [
        "no CUDA device is here (MEDIMIND_DEVICE=cuda): networks learn on the CPU"
    ]


KILLED = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, {tests!r})
import test_models_learner as toy
from models import checkpoints, lesson
lesson.STEPS_A_STATE = 3
save, count = checkpoints.save, 0
def and_die(*args):
    global count
    save(*args)
    count += 1
    if count == {after}:
        os.kill(os.getpid(), signal.SIGKILL)
checkpoints.save = and_die
toy.taught(toy.task(folder=Path({folder!r})))
"""


def state(folder: Path) -> dict[str, Any]:
    with safe_open(folder / checkpoints.STATE, framework="pt") as file:
        found: dict[str, Any] = json.loads(file.metadata()[checkpoints.ABOUT])
    return found


def test_a_training_killed_in_mid_epoch_goes_on_and_ends_with_the_same_bits(tmp_path):
    unbroken = History()
    whole = weights(taught(task(told=unbroken)))
    code = KILLED.format(tests=str(Path(__file__).parent), folder=str(tmp_path), after=8)  # of three an epoch
    killed = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert killed.returncode == -9, killed.stderr
    assert (state(tmp_path)["epoch"], state(tmp_path)["step"]) == (2, 6)  # of 8 steps
    resumed = History()
    assert torch.equal(weights(taught(task(told=resumed, folder=tmp_path))), whole)
    assert resumed == unbroken
    assert [path.name for path in tmp_path.iterdir()] == [checkpoints.STATE]


def test_a_finished_training_is_not_done_again(tmp_path, monkeypatch):
    first, second = History(), History()
    whole = weights(taught(task(told=first, folder=tmp_path)))
    monkeypatch.setattr("models.lesson.Trainer", None)
    assert torch.equal(weights(taught(task(told=second, folder=tmp_path))), whole)
    assert first == second


def test_the_state_of_another_network_is_refused(tmp_path):
    taught(task(folder=tmp_path, epochs=1))
    with pytest.raises(TrainingError, match=r"state\.safetensors: it is the state of another network"):
        taught(task(folder=tmp_path, epochs=1), dropout=0.2)


def test_the_state_of_other_data_or_habits_is_refused(tmp_path):
    X, y, hold = rows()
    taught(task(folder=tmp_path, epochs=1))
    with seeded(5):
        module = Net()
    altered = X.clone()
    altered[0, 0] += 1
    for parts, held, habits in ((altered, hold, HABITS), (X, ~hold, HABITS), (X, hold, replace(HABITS, batch=32))):
        with pytest.raises(TrainingError, match="on other data, or with other rows"):
            learn(module, (parts,), y, task(folder=tmp_path, epochs=1), habits, hold=held)


def test_the_state_of_other_code_is_refused(tmp_path, monkeypatch):
    from models import lesson

    taught(task(folder=tmp_path, epochs=1))
    monkeypatch.setattr(lesson, "code_fingerprint", lambda: "another")
    with pytest.raises(TrainingError, match="other code"):
        taught(task(folder=tmp_path, epochs=1))


@pytest.mark.parametrize("content", [b"", b"not a state", b"\x02\0\0\0\0\0\0\0{}"])
def test_a_state_that_cannot_be_read_is_refused(tmp_path, content):
    (tmp_path / checkpoints.STATE).write_bytes(content)
    with pytest.raises(TrainingError, match="it is no state of a training"):
        taught(task(folder=tmp_path))


class Small(Net):
    """A network that a memory of `room` rows holds."""

    def __init__(self, room: int, error: Exception) -> None:
        super().__init__(dropout=0.0)
        self.room, self.error = room, error

    def forward(self, x: Tensor) -> Tensor:
        if len(x) > self.room:
            raise self.error
        return super().forward(x)


def on_the_host() -> RuntimeError:
    """What torch says when the machine's memory is full."""
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**60, dtype=torch.uint8)
    return caught.value


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory"), on_the_host()])
def test_out_of_memory_halves_the_rows_at_a_time_and_not_the_step(caplog, error):
    X, y, hold = rows()
    told, modules = History(), []
    for room in (1000, 20):
        with seeded(5):
            modules.append(Small(room, error))
        with caplog.at_level(logging.WARNING):
            learn(modules[-1], (X,), y, task(told=told if room == 20 else None), HABITS, hold=hold)
    assert told[-1]["batch"] == 16
    assert_allclose(weights(modules[1]), weights(modules[0]), atol=1e-4)
    said = [record.getMessage() for record in caplog.records if record.name == "models.lesson"]
    assert said == [
        "out of memory: 32 rows at a time from here on, 64 still make a step",
        "out of memory: 16 rows at a time from here on, 64 still make a step",
    ]


class Judging(Net):
    """A network that a memory of `room` rows holds while it is judged."""

    def __init__(self, room: int) -> None:
        super().__init__(dropout=0.0)
        self.room = room

    def forward(self, x: Tensor) -> Tensor:
        if not self.training and len(x) > self.room:
            raise torch.OutOfMemoryError("full")
        return super().forward(x)


def test_a_memory_that_is_full_when_the_network_is_judged_halves_the_rows_as_well():
    X, y, hold = rows()
    told, modules = History(), []
    for room in (1000, 40):
        with seeded(5):
            modules.append(Judging(room))
        learn(modules[-1], (X,), y, task(told=told if room == 40 else None), HABITS, hold=hold)
    assert {figures["batch"] for figures in told} == {32}
    assert_allclose(weights(modules[1]), weights(modules[0]), atol=1e-4)


@pytest.mark.parametrize("devices", [1, 2])
def test_the_rows_leave_the_memory_when_they_were_learned_from(devices):
    taught(task(epochs=1))  # what is imported at the first step keeps the frames that it was imported from
    X, y, hold = rows()
    settings = Settings(device="cpu", devices=devices)
    lies = weakref.ref(X)
    gc.disable()
    try:
        learn(Net(), (X,), y, replace(task(epochs=1), settings=settings), HABITS, hold=hold)
        del X
        assert lies() is None
    finally:
        gc.enable()


def test_a_table_that_no_memory_takes_is_an_error(monkeypatch):
    from models.lesson import Lesson

    def full(_: Lesson) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(Lesson, "on_fit_start", full)
    with pytest.raises(TrainingError, match="the memory does not take this network's training: CUDA out of memory"):
        taught(task())


def test_a_network_that_no_memory_takes_is_an_error():
    X, y, hold = rows()
    with pytest.raises(TrainingError, match="not even one row"):
        learn(Small(0, torch.OutOfMemoryError("full")), (X,), y, task(), HABITS, hold=hold)


def test_another_error_is_not_taken_for_a_full_memory():
    X, y, hold = rows()
    with pytest.raises(RuntimeError, match="shapes"):
        learn(Small(5, RuntimeError("shapes differ")), (X,), y, task(), HABITS, hold=hold)


def test_the_order_that_is_learned_in_follows_from_the_rows_alone_with_a_patients_rows_kept_together():
    rng = np.random.default_rng(2)
    X, y = rng.normal(size=(60, 5)).astype(np.float32), rng.integers(0, 2, 60).astype(np.float64)
    X[rng.random(X.shape) < 0.2] = np.nan
    whose = rng.integers(0, 20, 60)
    shuffled, renamed = rng.permutation(60), rng.permutation(1000)[:20]

    first, y_first, of_first = in_order(X, y, replace(task(), groups=whose))
    second, y_second, of_second = in_order(X[shuffled], y[shuffled], replace(task(), groups=renamed[whose][shuffled]))

    assert first.tobytes() == second.tobytes() != X.tobytes()
    assert_allclose(y_first, y_second)
    assert of_first.groups.tolist() == of_second.groups.tolist()
    patient_of = {row.tobytes(): patient for row, patient in zip(X, whose.tolist(), strict=True)}
    pairs = {(patient_of[row.tobytes()], group) for row, group in zip(first, of_first.groups.tolist(), strict=True)}
    assert len(pairs) == 20
