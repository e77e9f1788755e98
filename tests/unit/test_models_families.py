"""One battery for every model family: what models/family.py promises."""

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import chain

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from numpy.typing import NDArray
from scipy.special import softmax
from threadpoolctl import threadpool_limits

from configs.errors import BundleError, SpecError
from configs.settings import ROOT, Settings
from configs.spec import Column, Learning
from features.build import Feature, Plan, Signal
from models.family import Choice, Task, family, load
from models.learner import answer
from models.onnx import Session, round_down

ELSEWHERE = {"frozen_encoder"}
"""Families that need more than rows: their battery is a file of its own."""
FAMILIES = sorted({path.stem for path in (ROOT / "models" / "families").glob("[a-z]*.py")} - ELSEWHERE)
TABLES = ("disease", "disease_of_classes")
LEARNS_FROM = {"waveform": ("recordings",), "image": ("pictures",)}
"""The fixtures of a family that cannot learn from TABLES: `Patients` with the signal that it reads. A family of signals
joins the battery by a line here and a fixture."""
QUICK = Learning(epochs=3)
"""Enough for what is promised of any fit; how well a network learns is not asked here."""
FLOAT32 = np.finfo(np.float32)


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """As in training; on a busy machine OpenMP's threads would wait for one another."""
    with threadpool_limits(limits=1):
        yield


@dataclass(frozen=True)
class Patients:
    """Rows to learn from, and their event 0 or 1, or class."""

    plan: Plan
    X: NDArray[np.float32]
    target: NDArray[np.float64]


@dataclass(frozen=True)
class Learned:
    """A family, and patients that it can learn from."""

    name: str
    plan: Plan
    patients: Patients
    task_of: Callable[..., Task]

    @property
    def classes(self):
        return len(set(self.patients.target.tolist()))

    def fit(self, X=None, y=None, plan=None, **more):
        """The family, fitted on these rows, on the patients' own where none are given."""
        X, y = self.patients.X if X is None else X, self.patients.target if y is None else y
        given = {"classes": self.classes, "learning": QUICK, **more}
        return family(self.name).fit(X, y, self.task_of(plan or self.plan, len(X), **given))


@pytest.fixture(
    scope="module", params=[(name, of) for name in FAMILIES for of in LEARNS_FROM.get(name, TABLES)], ids="-".join
)
def learning(request, task_of):
    name, of = request.param
    found = request.getfixturevalue(of)
    if of in TABLES:
        patients = found.cohort.only("train")
        found = Patients(found.plan, patients.X, patients.target)
    return Learned(name, found.plan, found, task_of)


AGE, PAIN = (
    Feature("age_years", ("age_years",), None, ()),
    Feature("pain", ("pain",), None, ("none", "exertion", "rest")),
)


def with_a_signal(column, of_event, n=60):
    """Patients with an age, a kind of pain and a signal: noise, and in those with the event `of_event` of its shape."""
    dice = np.random.default_rng(4)
    signal = Signal("signal", column, 2)
    y = (np.arange(n) % 2).astype(np.float64)
    plain = np.column_stack([dice.uniform(20, 90, n), dice.integers(0, 3, n)])
    plain[dice.random(plain.shape) < 0.1] = np.nan
    shown = dice.normal(0.5, 0.1, (n, *column.shape)) + y.reshape(-1, *[1] * len(column.shape)) * of_event
    shown[dice.random(n) < 0.1] = np.nan
    X = np.column_stack([plain, shown.reshape(n, -1)]).astype(np.float32)
    return Patients(Plan((AGE, PAIN), (), (signal,)), X, y)


@pytest.fixture(scope="module")
def recordings():
    column = Column(type="waveform", leads=("I", "II"), sampling_hz=50, samples=64, unit="mV", range=(-10, 10))
    return with_a_signal(column, np.sin(np.arange(64) / 2))


@pytest.fixture(scope="module")
def pictures():
    column = Column(type="image", channels=1, height=32, width=32, unit="1", range=(-10, 10))
    return with_a_signal(column, np.eye(32))


@pytest.fixture(scope="module")
def fitted(learning):
    return learning.fit()


@pytest.fixture(scope="module")
def loaded(fitted, learning, tmp_path_factory):
    return exported(fitted, learning.plan, tmp_path_factory.mktemp("family"))


def exported(fitted, plan, folder):
    """The model as it is read from the files that `fitted` writes."""
    fitted.export(folder)
    return load(folder, plan)


def risk(log_odds):
    """The event's, (n,), or each class's, (n, K)."""
    if log_odds.ndim == 1:
        return 1 / (1 + np.exp(-np.clip(log_odds, -700, 700)))
    return softmax(log_odds, axis=1)


def random_rows(plan, n, seed, scale=300.0):
    """float32 numbers from far below to far above what a patient has, valid categories, and a fifth of it missing.

    Of signals fewer rows, since they are large, within the contract's range; a fifth of them is missing as a whole.
    """
    dice = np.random.default_rng(seed)
    n = min(n, 40) if plan.signals else n
    X = dice.uniform(-scale, scale, (n, plan.width)).astype(np.float32)
    for position, feature in enumerate(plan.features):
        if feature.categories:
            X[:, position] = dice.integers(0, len(feature.categories), n)
    plain = X[:, : len(plan.features)]
    plain[dice.random(plain.shape) < 0.2] = np.nan
    for signal in plan.signals:
        X[:, signal.start : signal.start + signal.size] = dice.uniform(*signal.column.range, (n, signal.size))
        X[dice.random(n) < 0.2, signal.start : signal.start + signal.size] = np.nan
    return X


def assert_agrees(loaded, fitted, X):
    assert np.abs(risk(loaded.log_odds(X)) - risk(fitted.log_odds(X))).max() <= 1e-6


def test_the_families_are_the_files_of_their_folder():
    assert {"logistic", "boosted", "tabular_net"} <= set(FAMILIES)


@pytest.mark.parametrize("wrong", ["booosted", "", "../logistic", "logistic.fit", "onnx"])
def test_a_family_that_does_not_exist_is_refused_with_those_that_do(wrong):
    with pytest.raises(SpecError, match=r"Known: boosted, .*logistic"):
        family(wrong)


@pytest.mark.parametrize(("named", "told"), [("logistic", "has no such file"), ("booosted", "does not exist")])
def test_a_model_json_of_a_family_that_writes_none_is_refused(tmp_path, named, told):
    (tmp_path / "model.json").write_text(f'{{"family": "{named}", "architecture": {{}}}}')
    with pytest.raises(BundleError, match=told):
        load(tmp_path, Plan((), ()))


def test_fit_twice_equals_fit_once_to_the_bit(learning, fitted, tmp_path):
    again = learning.fit(learning.patients.X.copy(), learning.patients.target.copy())
    once, twice = (tmp_path / name for name in ("once", "twice"))
    for folder, made in ((once, fitted), (twice, again)):
        folder.mkdir()
        made.export(folder)

    assert_array_equal(again.log_odds(learning.patients.X), fitted.log_odds(learning.patients.X))
    files = sorted(path.name for path in once.iterdir())
    assert files == sorted(path.name for path in twice.iterdir())
    assert set(files) <= {"model.onnx", "model.json", "weights.safetensors"}
    for name in files:
        assert (once / name).read_bytes() == (twice / name).read_bytes(), name


def test_fit_changes_nothing_that_it_was_given(learning):
    X, y = learning.patients.X.copy(), learning.patients.target.copy()
    numpy_before, torch_before = np.random.get_state()[1].copy(), torch.get_rng_state()
    threads, strict = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()

    learning.fit(X, y)

    assert_array_equal(X, learning.patients.X)
    assert_array_equal(y, learning.patients.target)
    assert_array_equal(np.random.get_state()[1], numpy_before)
    assert torch.equal(torch.get_rng_state(), torch_before)
    assert (torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()) == (threads, strict)


def test_what_is_loaded_agrees_with_what_was_fitted_on_the_training_rows(loaded, fitted, learning):
    assert_agrees(loaded, fitted, learning.patients.X)


@pytest.mark.parametrize("scale", [1.0, 300.0, 1e6, 1e30])
def test_what_is_loaded_agrees_with_what_was_fitted_on_random_rows(loaded, fitted, learning, scale):
    X = random_rows(learning.plan, 5000, 3, scale)

    assert np.isfinite(loaded.log_odds(X)).all()
    assert_agrees(loaded, fitted, X)


def test_the_export_agrees_on_a_trees_threshold_and_one_ulp_either_side(disease, tmp_path, task_of):
    patients = disease.cohort.only("train")
    fitted = family("boosted").fit(patients.X, patients.target, task_of(disease.plan, len(patients.X)))
    fitted.export(tmp_path)
    rows = []
    for tree in chain.from_iterable(fitted.model._predictors):
        for node in tree.nodes[tree.nodes["is_leaf"] == 0]:
            if node["feature_idx"] >= len(fitted.layout.numbers):
                continue  # a category's column holds 0 or 1
            position = fitted.layout.numbers[node["feature_idx"]]
            nearest = np.float32(node["num_threshold"])
            for value in (nearest, np.nextafter(nearest, FLOAT32.min), np.nextafter(nearest, FLOAT32.max)):
                row = patients.X[len(rows) % len(patients)].copy()
                row[position] = value
                rows.append(row)
    assert len(rows) > 500

    assert_agrees(Session(tmp_path / "model.onnx"), fitted, np.array(rows))


def test_a_model_says_something_of_the_event_or_of_each_class(loaded, fitted, learning):
    n, classes = len(learning.patients.X), learning.classes
    shape = (n,) if classes == 2 else (n, classes)

    X = learning.patients.X
    assert loaded.log_odds(X).shape == fitted.log_odds(X).shape == shape
    assert loaded.log_odds(X).dtype == fitted.log_odds(X).dtype == np.float64
    assert len(np.unique(loaded.log_odds(X), axis=0)) > 1


def test_the_order_of_the_patients_changes_nothing_that_is_said(learning, fitted):
    X, y = learning.patients.X, learning.patients.target
    shuffled = np.random.default_rng(3).permutation(len(X))

    again = learning.fit(X[shuffled], y[shuffled])

    assert_allclose(risk(again.log_odds(X)), risk(fitted.log_odds(X)), rtol=0, atol=1e-6)


def test_the_sums_of_trees_of_several_classes_lose_nothing_but_the_last_rounding(disease_of_classes, tmp_path, task_of):
    """In float32 they would be ten times as far away, and a risk of classes hangs on several of them."""
    patients = disease_of_classes.cohort.only("train")
    fitted = family("boosted").fit(patients.X, patients.target, task_of(disease_of_classes.plan, len(patients.X)))
    fitted.export(tmp_path)

    own = fitted.log_odds(patients.X)

    assert (
        np.abs(Session(tmp_path / "model.onnx").log_odds(patients.X) - own)
        <= np.spacing(np.abs(own).astype(np.float32))
    ).all()


@pytest.mark.parametrize("size", [1, 2, 3, 7, 16, 64])
def test_one_row_equals_a_batch_to_the_bit(loaded, learning, size):
    X = np.concatenate([learning.patients.X[:100], random_rows(learning.plan, 100, 5)])

    pieces = [loaded.log_odds(X[start : start + size]) for start in range(0, len(X), size)]

    assert_array_equal(np.concatenate(pieces), loaded.log_odds(X))


def test_the_threads_of_the_machine_change_no_bit(loaded, learning):
    X, before = learning.patients.X[:100], torch.get_num_threads()
    told = []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            told.append(loaded.log_odds(X))
    finally:
        torch.set_num_threads(before)

    assert_array_equal(told[0], told[1])
    assert_array_equal(told[0], told[2])


def test_another_device_may_round_otherwise_and_says_nearly_the_same(fitted, learning):
    """No card is asked for: in float64 every rounding differs, and no risk may hang on one."""
    if not hasattr(fitted, "parts"):
        pytest.skip("it is computed by ONNX Runtime on the CPU, and nowhere else")
    X = np.concatenate([learning.patients.X, random_rows(learning.plan, 500, 4)])
    finer = copy.deepcopy(fitted.network).double().eval()

    with torch.inference_mode():
        found = answer(finer(*(torch.as_tensor(part).double() for part in fitted.parts(X)))).numpy()

    assert np.abs(risk(found) - risk(fitted.log_odds(X))).max() < 1e-4


def test_two_processes_learn_it_together(fitted, learning):
    if not hasattr(fitted, "parts"):
        pytest.skip("it is no network: one process learns it")
    told: list[dict[str, float]] = []
    task = learning.task_of(
        learning.plan,
        len(learning.patients.X),
        classes=learning.classes,
        learning=QUICK,
        told=lambda epoch, figures: told.append(dict(figures)),
    )

    two = family(learning.name).fit(
        learning.patients.X, learning.patients.target, replace(task, settings=Settings(device="cpu", devices=2))
    )

    assert len(told) == QUICK.epochs
    assert np.abs(risk(two.log_odds(learning.patients.X)) - risk(fitted.log_odds(learning.patients.X))).mean() < 0.1


def test_a_row_with_everything_missing_has_a_risk(loaded, fitted, learning):
    X = np.full((1, learning.plan.width), np.nan, np.float32)

    said = risk(loaded.log_odds(X))

    assert ((said > 0) & (said < 1)).all()
    assert_agrees(loaded, fitted, X)


@pytest.mark.parametrize("index", [3, -1, 0.5, 1e30])
def test_a_category_never_seen_has_a_risk(loaded, fitted, learning, index):
    places = [place for place, feature in enumerate(learning.plan.features) if len(feature.categories) == 3]
    if not places:
        pytest.skip("it reads no category")
    unseen = learning.patients.X.copy()
    unseen[:, places[0]] = index  # the contract knows 0, 1 and 2

    assert np.isfinite(loaded.log_odds(unseen)).all()
    assert_agrees(loaded, fitted, unseen)


@pytest.mark.parametrize("kept", [["age_years", "max_heart_rate_bpm"], ["pain", "smoker"]])
def test_numbers_alone_and_categories_alone_can_be_learned(learning, tmp_path, kept):
    if learning.plan.signals:
        pytest.skip("it learns from its signal")
    places = [place for place, feature in enumerate(learning.plan.features) if feature.name in kept]
    plan = Plan(tuple(learning.plan.features[place] for place in places), ())
    X = np.ascontiguousarray(learning.patients.X[:, places])

    alone = learning.fit(X, plan=plan)

    rows = np.concatenate([X, np.full((1, 2), np.nan, np.float32)])
    assert_agrees(exported(alone, plan, tmp_path), alone, rows)


def test_what_was_never_missing_in_training_may_be_missing_later(learning, tmp_path):
    complete = np.where(np.isnan(learning.patients.X), np.float32(1), learning.patients.X)

    learned = learning.fit(complete)

    assert_agrees(exported(learned, learning.plan, tmp_path), learned, random_rows(learning.plan, 2000, 9))


def test_what_was_always_missing_in_training_may_be_there_later(learning, tmp_path):
    empty = learning.patients.X.copy()
    empty[:, 0] = np.nan

    learned = learning.fit(empty)

    rows = random_rows(learning.plan, 500, 9)
    found = exported(learned, learning.plan, tmp_path)
    assert np.isfinite(found.log_odds(rows)).all()
    assert_agrees(found, learned, rows)


@pytest.mark.parametrize("end", ["low", "high"])
def test_both_ends_of_what_trials_may_vary_are_taken(learning, fitted, end):
    space = family(learning.name).SPACE
    if not space:
        pytest.skip("trials vary nothing of it")
    place = 0 if end == "low" else -1
    chosen = {
        name: one.values[place] if isinstance(one, Choice) else (one.low, one.high)[place]
        for name, one in space.items()
    }

    varied = learning.fit(parameters=chosen)

    X = learning.patients.X
    assert np.isfinite(varied.log_odds(X)).all()
    assert not np.array_equal(varied.log_odds(X), fitted.log_odds(X))


@given(x=st.floats(width=32, allow_nan=False), t=st.floats(allow_nan=False))
def test_a_float32_is_at_most_a_threshold_exactly_if_it_is_at_most_the_rounded_one(x, t):
    (rounded,) = round_down(np.array([t]))

    assert rounded.dtype == np.float32
    assert (np.float32(x) <= rounded) == (x <= t)


@given(x=st.floats(width=32, allow_nan=False, allow_infinity=False), ulps=st.integers(-2, 2), nudge=st.integers(-2, 2))
def test_so_it_is_close_to_the_threshold(x, ulps, nudge):
    t = float(x)
    with np.errstate(over="ignore"):
        for _ in range(abs(ulps)):
            t = float(np.nextafter(np.float32(t), np.float32(np.copysign(np.inf, ulps))))
        for _ in range(abs(nudge)):
            t = float(np.nextafter(t, np.copysign(np.inf, nudge)))
    (rounded,) = round_down(np.array([t]))

    assert (np.float32(x) <= rounded) == (np.float64(x) <= t)
