"""Beats in an electrocardiogram: those that were planted are counted, whatever lies around them."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from configs.errors import SpecError
from configs.spec import from_document
from features.build import plan
from features.definitions import ecg

LEADS = ("I", "II")
HZ = 250.0


def recording(intervals_s, upright=(1, 1), noise=0.02, seconds=10, hz=HZ, seed=5):
    """One recording, (1, leads x samples), mV: a narrow QRS and a wide T after each of these intervals."""
    times = np.arange(round(seconds * hz)) / hz
    dice = np.random.default_rng(seed)
    found = dice.normal(0, noise, (len(upright), len(times))) + 0.3 * np.sin(2 * np.pi * 0.3 * times)
    for peak in np.cumsum(intervals_s):
        for lead, sign in enumerate(upright):
            found[lead] += sign * np.exp(-(((times - peak) / 0.02) ** 2)) + 0.3 * np.exp(
                -(((times - peak - 0.25) / 0.06) ** 2)
            )
    return found.reshape(1, -1)


@pytest.mark.parametrize("rate", [40, 60, 75, 110, 160])
@pytest.mark.parametrize("upright", [(1, 1), (-1, 1), (0.2, -1)])
def test_the_rate_is_that_of_the_beats_whichever_way_they_point(rate, upright):
    found = ecg.heart_rate_bpm(recording([60 / rate] * 40, upright), LEADS, HZ)

    assert_allclose(found, rate, rtol=0.01)


@pytest.mark.parametrize("hz", [100.0, 250.0, 500.0])
def test_the_rate_is_the_same_at_every_sampling_rate(hz):
    assert_allclose(ecg.heart_rate_bpm(recording([0.8] * 20, hz=hz), LEADS, hz), 75, rtol=0.01)


def test_regular_beats_are_regular_and_alternating_ones_are_as_irregular_as_they_were_planted():
    regular = ecg.rr_irregularity(recording([0.8] * 20), LEADS, HZ)
    alternating = ecg.rr_irregularity(recording([0.6, 1.0] * 10), LEADS, HZ)

    assert regular < 0.01
    assert_allclose(alternating, 0.4 / 0.8, rtol=0.05)


def test_twice_as_strong_a_signal_has_the_same_beats():
    once = recording([0.7, 0.9, 0.8] * 5)

    assert_allclose(ecg.rr_irregularity(2 * once, LEADS, HZ), ecg.rr_irregularity(once, LEADS, HZ))


def test_too_few_beats_and_a_missing_recording_have_no_rate():
    batch = np.concatenate([recording([3, 4]), np.full((1, 5000), np.nan), recording([0.8] * 20)])

    for function in (ecg.heart_rate_bpm, ecg.rr_irregularity):
        assert_array_equal(np.isnan(function(batch, LEADS, HZ)), [True, True, False])


def test_every_recording_is_taken_for_itself():
    batch = np.concatenate([recording([0.5 + 0.1 * n] * 20, seed=n) for n in range(5)])

    for function in (ecg.heart_rate_bpm, ecg.rr_irregularity):
        alone = np.concatenate([function(row[None], LEADS, HZ) for row in batch])
        assert function(batch, LEADS, HZ).tobytes() == alone.tobytes()


def test_a_definition_is_given_the_leads_and_the_rate_of_the_contract(disease):
    document = disease.spec.document
    wave = {
        "type": "waveform",
        "leads": ["I", "II"],
        "sampling_hz": 250,
        "samples": 2500,
        "unit": "mV",
        "range": [-9, 9],
    }
    columns = {**document["columns"], "ecg": wave}
    spec = from_document({**document, "columns": columns, "features": ["ecg.heart_rate_bpm"]}, "here")

    feature = plan(spec).features[0]

    assert feature.reads == ("ecg",)
    taken = {"ecg_leads": {"type": "number", "unit": "1", "range": [1, 12]}}
    with pytest.raises(SpecError, match="'ecg_leads' is what a definition asks of a waveform"):
        plan(from_document({**document, "columns": {**columns, **taken}, "features": ["ecg.heart_rate_bpm"]}, "here"))
    assert_allclose(feature.compute({"ecg": recording([0.8] * 20)}, np.zeros(1)), 75, rtol=0.01)
