"""The waveform family, beside the battery of test_models_families.py: what it reads, and what it does without it."""

import json

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal

from configs.errors import BundleError, TrainingError
from configs.spec import Column, Learning
from features.build import Feature, Plan, Signal
from models.families import waveform
from models.family import load
from models.waveform_network import WaveformNetwork, altered

WAVE = Column(type="waveform", leads=("I", "II"), sampling_hz=50, samples=100, unit="mV", range=(-10, 10))
AGE, PAIN = Feature("age_years", ("age_years",), None, ()), Feature("pain", ("pain",), None, ("none", "exertion"))
PLAN = Plan((AGE, PAIN), (), (Signal("ecg", WAVE, 2),))
BARE = Plan((), (), (Signal("ecg", WAVE, 0),))
N = 96
QUICK = Learning(epochs=4)


def rows(plan=PLAN, n=N, seed=1):
    """Fast waves and slow ones, with an age and a kind of pain that know nothing; a sixth of each is missing."""
    dice = np.random.default_rng(seed)
    y = (np.arange(n) % 2).astype(float)
    times = np.arange(100) / 50
    hz = np.where(y == 1, 6, 3)[:, None, None]
    wave = np.sin(2 * np.pi * hz * times + dice.uniform(0, 6, (n, 2, 1))) + dice.normal(0, 0.3, (n, 2, 100))
    plain = np.column_stack([dice.uniform(20, 90, n), dice.integers(0, 2, n)])
    plain[dice.random(plain.shape) < 0.15] = np.nan
    wave[dice.random(n) < 0.15] = np.nan
    X = np.column_stack([plain, wave.reshape(n, -1)]) if plan is PLAN else wave.reshape(n, -1)
    return X.astype(np.float32), y


@pytest.fixture(scope="module")
def fitted(task_of):
    X, y = rows()
    return waveform.fit(X, y, task_of(PLAN, N, learning=Learning(epochs=12)))


def test_it_learns_what_was_planted_in_patients_that_it_has_not_seen(fitted):
    X, y = rows(seed=2)
    there = ~np.isnan(X[:, 2])
    said = fitted.log_odds(X)

    assert ((said[there] > np.median(said)) == (y[there] == 1)).mean() > 0.9


def test_whatever_is_missing_the_answer_is_a_number_and_a_missing_recording_is_none_of_zeros(fitted):
    X, _ = rows(n=1)
    X[:] = np.nan
    zeros = X.copy()
    zeros[:, 2:] = 0

    assert np.isfinite(fitted.log_odds(X)).all()
    assert fitted.log_odds(X) != fitted.log_odds(zeros)


def test_extremes_of_the_contract_have_finite_answers(fitted):
    X, _ = rows()
    X[:, 2:] = np.where(np.arange(200) % 2, 10, -10)
    X[:, 0] = 1e30

    assert np.isfinite(fitted.log_odds(X)).all()


def test_of_three_classes_each_has_its_log_probability(task_of, tmp_path):
    X, y = rows()
    y[::3] = 2
    fitted = waveform.fit(X, y, task_of(PLAN, N, classes=3, learning=QUICK))
    fitted.export(tmp_path)

    assert fitted.log_odds(X).shape == (N, 3)
    assert load(tmp_path, PLAN).log_odds(X).tobytes() == fitted.log_odds(X).tobytes()


def test_a_recording_alone_is_enough(task_of, tmp_path):
    X, y = rows(BARE)
    fitted = waveform.fit(X, y, task_of(BARE, N, learning=QUICK))
    fitted.export(tmp_path)

    assert load(tmp_path, BARE).log_odds(X).tobytes() == fitted.log_odds(X).tobytes()


def test_features_without_a_waveform_or_recordings_of_nobody_are_refused(task_of):
    X, y = rows()
    with pytest.raises(TrainingError, match="the `features` name none"):
        waveform.fit(X[:, :2], y, task_of(Plan((AGE, PAIN), ()), N))
    two = Plan((), (), (Signal("ecg", WAVE, 0), Signal("pulse", WAVE, 200)))
    with pytest.raises(TrainingError, match="name ecg, pulse"):
        waveform.fit(np.zeros((N, 400), np.float32), y, task_of(two, N))
    X[:, 2:] = np.nan
    with pytest.raises(TrainingError, match="ecg: no training patient has a recording"):
        waveform.fit(X, y, task_of(PLAN, N))


def test_a_network_of_other_inputs_is_refused_by_what_differs(fitted, tmp_path):
    fitted.export(tmp_path)

    with pytest.raises(BundleError, match="3 numbers; the spec has 2, 100 and 0"):
        load(tmp_path, BARE)
    with pytest.raises(BundleError, match="waveform reads one column"):
        load(tmp_path, Plan((AGE, PAIN), ()))
    about = json.loads((tmp_path / "model.json").read_text())
    about["architecture"]["width"] = 24
    (tmp_path / "model.json").write_text(json.dumps(about))
    with pytest.raises(BundleError, match="is expected of"):
        load(tmp_path, PLAN)
    about["architecture"]["width"] = 0
    (tmp_path / "model.json").write_text(json.dumps(about))
    with pytest.raises(BundleError, match="width"):
        load(tmp_path, PLAN)


def test_the_space_of_trials_is_what_fit_reads(task_of):
    X, y = rows()
    chosen = {"width": 8, "dropout": 0.5, "learning_rate": 5e-4, "weight_decay": 0.1}
    assert set(chosen) == set(waveform.SPACE)
    fitted = waveform.fit(X, y, task_of(PLAN, N, learning=QUICK, parameters=chosen))

    assert (fitted.architecture.width, fitted.architecture.dropout) == (8, 0.5)


def test_an_altered_recording_is_the_same_one_shifted_and_scaled_a_little():
    torch.manual_seed(1)
    recordings = torch.sin(torch.arange(1000) / 7).expand(40, 2, 1000).contiguous()
    before = recordings.clone()
    (found,) = altered((recordings,))

    assert torch.equal(recordings, before)
    assert found.shape == recordings.shape
    gone = (found == 0).all(dim=2)
    assert 0 < gone.sum() < 20
    assert not gone.all(dim=1).any()
    kept = found[~gone]
    spectrum = torch.fft.rfft(kept).abs()
    assert (spectrum.argmax(dim=1) == torch.fft.rfft(recordings[0, 0]).abs().argmax()).all()


def test_a_missing_recording_stays_missing_when_it_is_altered():
    (found,) = altered((torch.full((3, 2, 50), torch.nan),))
    assert torch.isnan(found).all()


def test_a_networks_answer_depends_on_no_other_row():
    torch.manual_seed(1)
    network = WaveformNetwork(leads=2, inputs=1, outputs=1, width=8, dropout=0.3).eval()
    recordings, numbers = torch.randn(8, 2, 100), torch.randn(8, 1)
    others = recordings.clone()
    others[1:] = 1e3

    with torch.inference_mode():
        assert_allclose(network(recordings, numbers)[0], network(others, numbers)[0], rtol=1e-6)
        assert_array_equal(network(recordings, numbers).shape, (8, 1))
