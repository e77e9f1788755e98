"""Explanations of networks: they add up, say it of the right feature, and stop when nobody waits any more."""

import dataclasses

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from torch import nn

from configs.errors import BundleError
from configs.spec import Column, Learning
from features.build import Feature, Plan, Signal
from models import device, explain, gradients
from models.families import waveform
from models.family import family, load
from models.gradients import TOLERANCE
from models.learner import answer
from models.training import _reference, fit_family

NAMES = ("age_years", "heart_rate_bpm", "smoker")
PLAN = Plan(
    (*(Feature(name, (name,), None, ()) for name in NAMES[:2]), Feature("smoker", ("smoker",), None, ("no", "yes"))), ()
)
REFERENCE = {
    "features": {
        "age_years": {"edges": [40.0, 50.0, 60.0], "counts": [10, 20, 20, 10]},
        "heart_rate_bpm": {"edges": [70.0], "counts": [5, 5]},
        "smoker": {"categories": ["no", "yes"], "counts": [40, 20]},
        "ecg": {"edges": [0.5], "counts": [30, 30]},
    }
}
WEIGHTS, UNKNOWN = np.array([0.1, -0.02, 1.5], np.float32), np.array([0.7, -0.3, 0.2], np.float32)


class Straight(nn.Module):
    """A weight for each number, and another for its absence."""

    def forward(self, numbers, missing):
        weights, unknown = torch.from_numpy(WEIGHTS), torch.from_numpy(UNKNOWN)
        return (numbers * weights * (1 - missing) + missing * unknown).sum(dim=1, keepdim=True)


class Model:
    """What a family's fitted model is to an explainer; counts the rows that the network computes."""

    def __init__(self, network):
        self.network, self.rows = network, 0
        network.register_forward_hook(lambda _, parts, said: self._count(parts))

    def _count(self, parts):
        self.rows += len(parts[0])

    def parts(self, X):
        return np.nan_to_num(X), np.isnan(X).astype(np.float32)

    def log_odds(self, X):
        return answer(torch.from_numpy(device.run(self.network, self.parts(X), 4))).numpy()


def explained(network, X, late=explain.never):
    return gradients.explainer(Model(network), PLAN, REFERENCE).by_output(np.array(X, np.float32), late)


def test_of_a_straight_network_a_contribution_is_the_weight_times_the_distance_from_the_typical_patient():
    ((base, found),) = explained(Straight(), [[63, 81, 1]])

    assert base == pytest.approx(WEIGHTS @ [50, 70, 0])  # the median age, the middle pulse, the more frequent answer
    assert_allclose(found, [[13 * 0.1, 11 * -0.02, 1.5]], atol=1e-4)


def test_what_is_missing_contributes_what_the_network_makes_of_its_absence():
    ((_, found),) = explained(Straight(), [[np.nan, 81, np.nan]])
    assert_allclose(found, [[0.7 - 50 * 0.1, 11 * -0.02, 0.2]], atol=1e-4)


def test_the_typical_patient_has_nothing_to_explain():
    ((_, found),) = explained(Straight(), [[50, 70, 0]])
    assert_array_equal(found, np.zeros((1, 3)))


class Jump(nn.Module):
    """A step at an age of 60, which has no gradient anywhere."""

    def forward(self, numbers, missing):
        return 3.0 * (numbers[:, :1] > 60) + 0.0 * numbers[:, :1]


def test_contributions_that_do_not_add_up_are_not_told():
    with pytest.raises(BundleError, match=r"the contributions add up to 3 of log-odds beside what the model says"):
        explained(Jump(), [[63, 81, 1]])
    ((_, found),) = explained(Jump(), [[58, 81, 1]])  # nor is it refused where they do
    assert_array_equal(found, np.zeros((1, 3)))


class Bent(nn.Module):
    """A kink at an age of 57, and two features that work together."""

    def forward(self, numbers, missing):
        age, pulse, smoker = numbers.T
        return (torch.relu(age - 57) * 2 + 0.01 * (pulse - 70) * smoker)[:, None]


def test_the_line_is_cut_into_pieces_where_the_network_has_a_kink():
    ((base, found),) = explained(Bent(), [[63, 90, 1]])

    assert abs(base + found.sum() - (12 + 0.2)) < TOLERANCE
    assert found[0, 0] == pytest.approx(12, abs=TOLERANCE)
    assert_allclose(found[0, 1:], [0.1, 0.1], atol=TOLERANCE)  # what they do together is halved between them


def test_a_late_explanation_stops_at_the_next_points():
    model = Model(Jump())
    explainer = gradients.explainer(model, PLAN, REFERENCE)
    asked = []
    with pytest.raises(explain.LateError):
        explainer.by_output(np.array([[63, 81, 1]], np.float32), lambda: len(asked) > 2 or asked.append(1))
    assert model.rows < 10 * gradients.POINTS  # and not the 128 pieces that it would have come to


@pytest.fixture(scope="module", params=["disease", "disease_of_classes"])
def table(request, task_of, tmp_path_factory):
    """A network of tables that has learned, its plan, its patients and what explains its files."""
    invented = request.getfixturevalue(request.param)
    patients = invented.cohort.only("train")
    classes = len(set(patients.target.tolist()))
    task = task_of(invented.plan, len(patients), classes=classes, learning=Learning(epochs=6))
    fitted = fit_family("tabular_net", patients, task)
    folder = tmp_path_factory.mktemp("net")
    fitted.export(folder)
    said = fitted.log_odds(patients.X).reshape(len(patients), -1)
    reference = (
        _reference(invented.spec.outcome, invented.plan, patients, said[:, 0] * 0, said[:, 0] * 0)
        if classes == 2
        else _reference(invented.spec.outcome, invented.plan, patients, said * 0, said[:, 0] * 0)
    )
    return fitted, patients.X, explain.of_model(folder, invented.plan, reference)


def test_a_tables_contributions_add_up_for_every_class(table):
    fitted, X, explainer = table
    X = np.concatenate([X[:6], np.full((1, X.shape[1]), np.nan, np.float32)])
    said = fitted.log_odds(X).reshape(len(X), -1)

    told = explainer.by_output(X)

    assert len(told) == said.shape[1]
    for output, (base, found) in enumerate(told):
        assert found.shape == X.shape
        assert np.abs(base + found.sum(axis=1) - said[:, output]).max() <= TOLERANCE
    assert explainer.maps(X, 0) is None


def test_a_row_is_explained_alike_alone_and_beside_others(table):
    _, X, explainer = table
    together, alone = explainer.by_output(X[:3]), explainer.by_output(X[2:3])
    for (base, found), (same, own) in zip(together, alone, strict=True):
        assert base == same
        assert_array_equal(found[2:], own)


WAVE = Column(type="waveform", leads=("I", "II"), sampling_hz=50, samples=100, unit="mV", range=(-10, 10))
WITH_ECG = dataclasses.replace(PLAN, signals=(Signal("ecg", WAVE, 3),))


@pytest.fixture(scope="module")
def recordings():
    dice = np.random.default_rng(3)
    times = np.arange(100) / 50
    wave = np.sin(2 * np.pi * 3 * times + dice.uniform(0, 6, (5, 2, 1))) ** 3 + dice.normal(0, 0.1, (5, 2, 100))
    X = np.column_stack([dice.uniform(40, 80, 5), dice.uniform(50, 90, 5), [0, 1, 1, 0, 1], wave.reshape(5, -1)])
    X[1, 0] = X[2, 2] = np.nan
    X[3, 3:] = np.nan
    X[4, [0, 1, 2]] = np.nan
    return X.astype(np.float32)


@pytest.fixture(scope="module", params=[1, 3])
def of_waves(request):
    """A waveform network with the weights that it was born with."""
    architecture = waveform.Architecture(leads=2, samples=100, inputs=4, outputs=request.param, width=8, dropout=0.0)
    with torch.random.fork_rng():
        torch.manual_seed(5)
        network = waveform._rebuild(architecture)
    network.centre[:2] = torch.tensor([60.0, 70.0])
    network.spread[:2] = torch.tensor([10.0, 10.0])
    return waveform.Fitted(architecture, network, WITH_ECG.signals[0], waveform.encoding(WITH_ECG.features))


def test_a_recording_contributes_as_a_whole_beside_the_numbers(of_waves, recordings):
    explainer = gradients.explainer(of_waves, WITH_ECG, REFERENCE)
    said = of_waves.log_odds(recordings).reshape(5, -1)

    for output, (base, found) in enumerate(explainer.by_output(recordings)):
        assert found.shape == (5, 4)
        assert np.abs(base + found.sum(axis=1) - said[:, output]).max() <= TOLERANCE
        assert np.abs(found[:, 3]).min() > 0.001  # the flat recording that it is held against says something else


def test_a_table_family_beside_a_signal_is_explained_and_the_signal_contributes_nothing(recordings, task_of, tmp_path):
    X, y = np.tile(recordings, (20, 1)), np.arange(100) % 2
    fitted = family("boosted").fit(X, y.astype(float), task_of(WITH_ECG, 100))
    fitted.export(tmp_path)

    ((base, found),) = explain.of_model(tmp_path, WITH_ECG, REFERENCE).by_output(X[:5])

    assert_array_equal(found[:, 3], np.zeros(5))
    assert_allclose(base + found.sum(axis=1), load(tmp_path, WITH_ECG).log_odds(X[:5]), atol=1e-5)
