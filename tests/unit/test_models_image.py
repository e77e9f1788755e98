"""The battery of models/family.py for a network over pictures, its Grad-CAM, and what it does without a picture."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal

from configs.errors import BundleError, TrainingError
from configs.spec import Column, Learning
from features.build import Feature, Plan, Signal
from models.families import image
from models.family import load

SIDE = 32
PICTURE = Column(type="image", channels=1, height=SIDE, width=SIDE, unit="1", range=(0.0, 1.0))
PLAIN = (Feature("age", ("age",), None, ()), Feature("sex", ("sex",), None, ("female", "male")))
PLAN = Plan(PLAIN, (), (Signal("xray", PICTURE, len(PLAIN)),))


def drawn(n, seed, classes=2):
    """X and y: of class 1 the picture has a spot at the upper left, of class 2 at the lower right. Some is missing."""
    dice = np.random.default_rng(seed)
    y = dice.integers(0, classes, n).astype(float)
    picture = dice.normal(0.3, 0.05, (n, SIDE, SIDE))
    picture[y == 1, 5:11, 5:11] += 0.5
    picture[y == 2, 21:27, 21:27] += 0.3
    X = np.column_stack([dice.normal(50, 10, n), dice.integers(0, 2, n), picture.reshape(n, -1)]).astype(np.float32)
    X[::9, 0], X[::7, 1] = np.nan, np.nan
    X[::11, 2:] = np.nan
    return X, y


@pytest.fixture(scope="module", params=[2, 3])
def classes(request):
    return request.param


@pytest.fixture(scope="module")
def patients(classes):
    return drawn(160, 1, classes)


@pytest.fixture(scope="module")
def task(task_of, classes):
    few = {"width": 8, "learning_rate": 5e-3}
    return task_of(PLAN, 160, classes=classes, learning=Learning(epochs=14, batch=16), parameters=few)


@pytest.fixture(scope="module")
def fitted(patients, task):
    return image.fit(*patients, task)


@pytest.fixture(scope="module")
def folder(fitted, tmp_path_factory):
    folder = tmp_path_factory.mktemp("bundle")
    fitted.export(folder)
    return folder


def of_true(log_odds, y):
    """The probability of what is true, (n,)."""
    if log_odds.ndim == 1:
        return 1 / (1 + np.exp(np.where(y == 1, -log_odds, log_odds)))
    said = np.exp(log_odds - np.logaddexp.reduce(log_odds, axis=1)[:, None])
    return said[np.arange(len(y)), y.astype(int)]


def test_it_finds_the_spots_in_pictures_that_it_never_saw(fitted, classes):
    X, y = drawn(60, 2, classes)
    there = ~np.isnan(X[:, -1])
    assert of_true(fitted.log_odds(X), y)[there].mean() > 1 / classes + 0.12


def test_fit_twice_equals_fit_once_to_the_bit_and_changes_nothing(fitted, folder, patients, task, tmp_path):
    X, y = (part.copy() for part in patients)
    image.fit(X, y, task).export(tmp_path)

    assert_array_equal(X, patients[0])
    assert_array_equal(y, patients[1])
    for name in ("weights.safetensors", "model.json"):
        assert (tmp_path / name).read_bytes() == (folder / name).read_bytes()


def test_another_seed_is_another_model(fitted, patients, task):
    other = image.fit(*patients, replace(task, seed=18, learning=Learning(epochs=1)))
    assert not np.array_equal(other.log_odds(patients[0]), fitted.log_odds(patients[0]))


def test_what_was_saved_says_the_same_to_the_bit(fitted, folder, patients):
    assert sorted(path.name for path in folder.iterdir()) == ["model.json", "weights.safetensors"]
    assert_array_equal(load(folder, PLAN).log_odds(patients[0]), fitted.log_odds(patients[0]))


@pytest.mark.parametrize("size", [1, 2, 7])
def test_a_row_says_the_same_alone_and_in_every_batch(fitted, patients, size):
    X = patients[0][:20]
    parts = [fitted.log_odds(X[start : start + size]) for start in range(0, len(X), size)]
    assert_array_equal(np.concatenate(parts), fitted.log_odds(patients[0])[:20])


def test_whatever_is_missing_and_however_large_a_number_is_the_answer_is_a_number(fitted, patients):
    X = patients[0][:4].copy()
    for columns, value in ((slice(0, 2), np.nan), (slice(2, None), np.nan), (slice(0, None), np.nan), (0, 1e30)):
        odd = X.copy()
        odd[:, columns] = value
        assert np.isfinite(fitted.log_odds(odd)).all()


def test_without_its_picture_a_patient_gets_the_answer_of_the_numbers_alone(fitted, patients):
    X = patients[0][1:3].copy()
    X[:, 2:] = np.nan
    X[0, :2], X[1, :2] = (40, 0), (40, 0)
    without = fitted.log_odds(X)
    assert_array_equal(without[0], without[1])


def test_scales_are_those_of_the_patients_who_are_learned_from(patients, task, monkeypatch):
    held = np.zeros(160, bool)
    monkeypatch.setattr(image.learner, "in_order", lambda X, y, task: (X, y, task))
    monkeypatch.setattr(image.learner, "hold_out", lambda *_: held)
    monkeypatch.setattr(image.learner, "learn", lambda *_, **__: None)
    held[:40] = True
    X, y = patients
    other = X.copy()
    other[:40] += 100

    one, two = (image.fit(rows, y, task).network for rows in (X, other))

    for name in ("picture_mean", "picture_sd", "plain_mean", "plain_sd"):
        assert_array_equal(getattr(one, name), getattr(two, name))


def test_it_learns_without_plain_numbers(task_of):
    alone = Plan((), (), (Signal("xray", PICTURE, 0),))
    X, y = drawn(40, 3)
    fitted = image.fit(X[:, 2:], y, task_of(alone, 40, learning=Learning(epochs=1)))
    assert np.isfinite(fitted.log_odds(X[:, 2:])).all()


def test_two_pictures_or_none_are_refused(task_of):
    X, y = drawn(40, 3)
    two = Plan(PLAIN, (), (*PLAN.signals, Signal("second", PICTURE, PLAN.width)))
    for plan, told in (
        (two, r"2 columns of images \(xray, second\)"),
        (Plan(PLAIN, ()), r"0 columns of images \(none\)"),
    ):
        with pytest.raises(TrainingError, match=told):
            image.fit(X, y, task_of(plan, 40))


def test_a_model_of_other_inputs_is_refused(folder):
    with pytest.raises(BundleError, match="1 channels and 3 plain columns; the spec's features are 1 and 1"):
        load(folder, Plan(PLAIN[:1], (), (Signal("xray", PICTURE, 1),)))
    with pytest.raises(BundleError, match="0 columns of images"):
        load(folder, Plan(PLAIN, ()))


@pytest.mark.parametrize(("key", "value"), [("width", 12), ("width", 2**20), ("channels", 0), ("outputs", 10**9)])
def test_a_forged_architecture_is_refused(folder, tmp_path, key, value):
    document = json.loads((folder / "model.json").read_text())
    document["architecture"][key] = value
    (tmp_path / "model.json").write_text(json.dumps(document))
    (tmp_path / "weights.safetensors").write_bytes((folder / "weights.safetensors").read_bytes())
    with pytest.raises(BundleError, match=key):
        load(tmp_path, PLAN)


@pytest.mark.parametrize("classes", [2], indirect=True, scope="module")
def test_a_networks_map_lies_where_the_spot_is(patients, fitted, classes):
    """Grad-CAM is as coarse as the last stage: of 32 x 32 pixels four rows and columns."""
    X, y = drawn(60, 2, classes)
    X, y = X[~np.isnan(X[:, -1])], y[~np.isnan(X[:, -1])]
    sick = (y == 1) & (of_true(fitted.log_odds(X), y) > 0.5)
    found = fitted.gradcam(X[sick])
    assert found.shape == (sick.sum(), SIDE, SIDE)
    assert found.min() >= 0
    assert found.max() == 1
    halves = found.reshape(-1, 2, SIDE // 2, 2, SIDE // 2).mean(axis=(0, 2, 4))
    assert halves[0, 0] == halves.max(), "the upper left quarter holds the spot"


def test_a_map_is_the_same_alone_and_beside_others_and_empty_without_a_picture(fitted, patients, folder):
    X = patients[0][:12]
    found = load(folder, PLAN).gradcam(X)
    assert_array_equal(np.concatenate([fitted.gradcam(X[[row]]) for row in range(12)]), found)
    assert_array_equal(found[np.isnan(X[:, -1])], 0)


def test_augmentation_moves_and_mirrors_and_never_mixes_rows():
    torch.manual_seed(3)
    picture = torch.zeros(64, 1, SIDE, SIDE)
    picture[:, :, 8, 8] = torch.arange(64.0)[:, None] + 1
    plain = torch.arange(64.0)[:, None]
    found, same = image.altered((picture, plain))
    assert same is plain
    assert found.shape == picture.shape
    brightest = found.flatten(1).argmax(1)
    rows, columns = brightest // SIDE, brightest % SIDE
    assert set(rows.tolist()) <= {6, 7, 8, 9, 10}, "moved up or down by a sixteenth at most"
    assert {column for column in columns.tolist() if column < SIDE // 2} <= {6, 7, 8, 9, 10}
    assert {column for column in columns.tolist() if column >= SIDE // 2} <= {21, 22, 23, 24, 25}
    assert_allclose(found.amax((1, 2, 3)), torch.arange(64.0) + 1, rtol=0.5)


def test_augmentation_leaves_a_missing_picture_missing():
    found, _ = image.altered((torch.full((4, 1, SIDE, SIDE), torch.nan), torch.zeros(4, 2)))
    assert found.isnan().all()
