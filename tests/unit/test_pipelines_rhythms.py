"""*Simulated* rhythms: the same from one seed, recordings as the contract wants them, and rhythms that overlap."""

from base64 import b64decode

import numpy as np
import pytest

from configs.errors import RecordError
from configs.settings import ROOT
from configs.spec import load_spec
from features.definitions import ecg
from features.waveforms import check
from pipelines import rhythms

SPEC = load_spec("ecg_rhythm", ROOT / "configs")
ECG = SPEC.columns["ecg"]


@pytest.fixture(scope="module")
def table():
    return rhythms.study(60, 5)


def recordings(table):
    return np.array([np.frombuffer(b64decode(cell), "<f4") for cell in table["recording"]], np.float64)


def test_the_same_seed_is_the_same_study_and_another_is_another(table):
    first = rhythms.study(2, 5)
    assert first == {name: cells[: len(first["id"])] for name, cells in table.items()}
    assert rhythms.study(2, 5) != rhythms.study(2, 6)


def test_everybody_is_called_simulated_and_the_spec_says_so_too(table):
    assert all(name.startswith("simulated-") for name in table["id"])
    for text in (SPEC.title, SPEC.intended_use, rhythms.__doc__, rhythms.study.__doc__, rhythms.record.__doc__):
        assert "simulated" in text.lower()


def test_a_patient_has_several_recordings_and_no_two_at_one_time(table):
    assert 1 < max(table["id"].count(name) for name in table["id"]) <= rhythms.MOST_RECORDINGS
    assert len(set(zip(table["id"], table["recorded_at"], strict=True))) == len(table["id"])
    both = {name for name, rhythm in zip(table["id"], table["rhythm"], strict=True) if rhythm == "sinus"} & {
        name for name, rhythm in zip(table["id"], table["rhythm"], strict=True) if rhythm != "sinus"
    }
    assert both  # some people fibrillate now and then


def test_the_contract_takes_every_recording_but_those_with_an_electrode_off(table):
    assert (ECG.leads, ECG.sampling_hz, ECG.samples) == (rhythms.LEADS, rhythms.HZ, rhythms.SAMPLES)
    for cell, recording in zip(table["recording"], recordings(table), strict=True):
        if (recording.reshape(3, -1) == 0).all(axis=1).any():
            with pytest.raises(RecordError, match="is flat"):
                check("ecg", ECG, cell)
        else:
            check("ecg", ECG, cell)


def test_fibrillation_is_more_irregular_at_the_same_heart_rates_and_the_rhythms_overlap(table):
    fibrillates = np.array(table["rhythm"]) == rhythms.RHYTHMS[1]
    irregular = ecg.rr_irregularity(recordings(table), rhythms.LEADS, rhythms.HZ)
    rate = ecg.heart_rate_bpm(recordings(table), rhythms.LEADS, rhythms.HZ)

    assert 0.2 < fibrillates.mean() < 0.6
    assert np.nanmedian(irregular[fibrillates]) > 2 * np.nanmedian(irregular[~fibrillates])
    assert np.nanmax(irregular[~fibrillates]) > np.nanmedian(irregular[fibrillates])
    assert abs(np.nanmedian(rate[fibrillates]) - np.nanmedian(rate[~fibrillates])) < 12


def test_a_beat_in_fibrillation_is_one_in_sinus_rhythm_without_its_p_wave():
    beats = rhythms._beats(rhythms._waves(), np.random.default_rng(1))
    p_wave = beats[True] - beats[False]
    peak_s = p_wave.argmax(axis=1) / rhythms.WAVE_HZ - rhythms.BEFORE_R_S

    assert (p_wave.max(axis=1) > 0.005).all()
    assert ((peak_s > -0.25) & (peak_s < -0.12)).all()
    assert (beats[False].max(axis=1) > 5 * p_wave.max(axis=1)).all()
