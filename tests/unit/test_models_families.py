"""One battery for every model family: what models/family.py promises."""

from itertools import chain

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from scipy.special import softmax
from threadpoolctl import threadpool_limits

from configs.errors import SpecError
from configs.settings import ROOT
from models.family import family
from models.onnx import Session, round_down

OF_SIGNALS = {"frozen_encoder", "waveform"}
"""Families that read a signal, which the patients here have none of; each has the battery in a file of its own."""
FAMILIES = sorted({path.stem for path in (ROOT / "models" / "families").glob("[a-z]*.py")} - OF_SIGNALS)
FLOAT32 = np.finfo(np.float32)


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """As in training; on a busy machine OpenMP's threads would wait for one another."""
    with threadpool_limits(limits=1):
        yield


@pytest.fixture(scope="module", params=FAMILIES)
def name(request):
    return request.param


@pytest.fixture(scope="module", params=["one event", "three classes"])
def invented(request, disease, disease_of_classes):
    return disease if request.param == "one event" else disease_of_classes


@pytest.fixture(scope="module")
def patients(invented):
    return invented.cohort.only("train")


@pytest.fixture(scope="module")
def fitted(name, patients, invented, task_of):
    return family(name).fit(patients.X, patients.target, task_of(invented.plan, len(patients.X)))


@pytest.fixture(scope="module")
def session(fitted, tmp_path_factory):
    folder = tmp_path_factory.mktemp("family")
    fitted.export(folder)
    return Session(folder / "model.onnx")


def risk(log_odds):
    """The event's, (n,), or each class's, (n, K)."""
    if log_odds.ndim == 1:
        return 1 / (1 + np.exp(-np.clip(log_odds, -700, 700)))
    return softmax(log_odds, axis=1)


def random_rows(plan, n, seed, scale=300.0):
    """float32 numbers from far below to far above what a patient has, valid categories, and a fifth of it missing."""
    dice = np.random.default_rng(seed)
    X = dice.uniform(-scale, scale, (n, len(plan.features))).astype(np.float32)
    for position, feature in enumerate(plan.features):
        if feature.categories:
            X[:, position] = dice.integers(0, len(feature.categories), n)
    X[dice.random(X.shape) < 0.2] = np.nan
    return X


def assert_agrees(session, fitted, X):
    assert np.abs(risk(session.log_odds(X)) - risk(fitted.log_odds(X))).max() <= 1e-6


def test_the_families_are_the_files_of_their_folder():
    assert {"logistic", "boosted"} <= set(FAMILIES)


@pytest.mark.parametrize("wrong", ["booosted", "", "../logistic", "logistic.fit", "onnx"])
def test_a_family_that_does_not_exist_is_refused_with_those_that_do(wrong):
    with pytest.raises(SpecError, match=r"Known: boosted, .*logistic"):
        family(wrong)


def test_fit_twice_equals_fit_once_to_the_bit(name, fitted, patients, invented, tmp_path, task_of):
    again = family(name).fit(patients.X.copy(), patients.target.copy(), task_of(invented.plan, len(patients.X)))
    folders = tmp_path / "once", tmp_path / "twice"
    for folder, made in zip(folders, (fitted, again), strict=True):
        folder.mkdir()
        made.export(folder)

    assert_array_equal(again.log_odds(patients.X), fitted.log_odds(patients.X))
    once, twice = (folder / "model.onnx" for folder in folders)
    assert once.read_bytes() == twice.read_bytes()


def test_fit_changes_nothing_that_it_was_given(name, patients, invented, task_of):
    X, y = patients.X.copy(), patients.target.copy()

    family(name).fit(X, y, task_of(invented.plan, len(X)))

    assert_array_equal(X, patients.X)
    assert_array_equal(y, patients.target)


def test_the_export_agrees_with_the_library_on_the_training_rows(session, fitted, patients):
    assert_agrees(session, fitted, patients.X)


@pytest.mark.parametrize("scale", [1.0, 300.0, 1e6, 1e30])
def test_the_export_agrees_with_the_library_on_random_rows(session, fitted, invented, scale):
    assert_agrees(session, fitted, random_rows(invented.plan, 5000, 3, scale))


def test_the_export_agrees_on_a_trees_threshold_and_one_ulp_either_side(invented, patients, tmp_path, task_of):
    fitted = family("boosted").fit(patients.X, patients.target, task_of(invented.plan, len(patients.X)))
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


def test_a_model_says_something_of_the_event_or_of_each_class(session, fitted, patients):
    classes = len(set(patients.target.tolist()))
    shape = (len(patients),) if classes == 2 else (len(patients), classes)

    assert session.log_odds(patients.X).shape == fitted.log_odds(patients.X).shape == shape


def test_the_order_of_the_patients_changes_nothing_that_is_said(name, fitted, patients, invented, task_of):
    shuffled = np.random.default_rng(3).permutation(len(patients))
    again = family(name).fit(
        patients.X[shuffled], patients.target[shuffled], task_of(invented.plan, len(patients.X[shuffled]))
    )

    assert_allclose(risk(again.log_odds(patients.X)), risk(fitted.log_odds(patients.X)), rtol=0, atol=1e-6)


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
def test_one_row_equals_a_batch_to_the_bit(session, invented, patients, size):
    X = np.concatenate([patients.X, random_rows(invented.plan, 200, 5)])

    pieces = [session.log_odds(X[start : start + size]) for start in range(0, len(X), size)]

    assert_array_equal(np.concatenate(pieces), session.log_odds(X))


def test_a_row_with_everything_missing_has_a_risk(session, fitted, invented):
    X = np.full((1, len(invented.plan.features)), np.nan, np.float32)

    said = risk(session.log_odds(X))

    assert ((said > 0) & (said < 1)).all()
    assert_agrees(session, fitted, X)


@pytest.mark.parametrize("index", [3, -1, 0.5, 1e30])
def test_a_category_never_seen_has_a_risk(session, fitted, invented, patients, index):
    (pain,) = (place for place, feature in enumerate(invented.plan.features) if feature.name == "pain")
    unseen = patients.X.copy()
    unseen[:, pain] = index  # the contract knows 0, 1 and 2

    assert np.isfinite(session.log_odds(unseen)).all()
    assert_agrees(session, fitted, unseen)


@pytest.mark.parametrize("kept", [["age_years", "max_heart_rate_bpm"], ["pain", "smoker"]])
def test_numbers_alone_and_categories_alone_can_be_learned(name, invented, patients, tmp_path, kept, task_of):
    places = [place for place, feature in enumerate(invented.plan.features) if feature.name in kept]
    inputs, X = [invented.plan.features[place] for place in places], np.ascontiguousarray(patients.X[:, places])
    alone = family(name).fit(X, patients.target, task_of(inputs, len(X)))
    alone.export(tmp_path)

    assert_agrees(Session(tmp_path / "model.onnx"), alone, np.concatenate([X, np.full((1, 2), np.nan, np.float32)]))


def test_a_column_never_missing_in_training_may_be_missing_later(name, invented, patients, tmp_path, task_of):
    complete = np.where(np.isnan(patients.X), np.float32(1), patients.X)
    learned = family(name).fit(complete, patients.target, task_of(invented.plan, len(complete)))
    learned.export(tmp_path)

    assert_agrees(Session(tmp_path / "model.onnx"), learned, random_rows(invented.plan, 2000, 9))


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
