"""Recordings: judged lead by lead as sent, brought to the contract's rate and unit, filtered for the model."""

from base64 import b64encode

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from configs.errors import RecordError
from configs.spec import Column
from features import waveforms
from features.waveforms import check, seen

ECG = Column(
    type="waveform",
    leads=("I", "II"),
    sampling_hz=100,
    samples=500,
    unit="mV",
    accepts=("uV",),
    range=(-10, 10),
    band_hz=(0.5, 40),
    required=True,
)
BARE = ECG.model_copy(update={"band_hz": None})


def waves(hz=100.0, seconds=5.0, leads=2, seed=3):
    """Two slow waves and a little noise in each lead, (leads, samples), mV: nothing above 8 Hz but the noise."""
    dice = np.random.default_rng(seed)
    times = np.arange(round(hz * seconds)) / hz
    found = [np.sin(2 * np.pi * (1 + lead) * times) + 0.3 * np.sin(2 * np.pi * 8 * times) for lead in range(leads)]
    return np.array(found) + dice.normal(0, 0.01, (leads, len(times)))


def refused(value, column=ECG):
    with pytest.raises(RecordError) as caught:
        check("ecg", column, value)
    assert caught.value.field == "ecg"
    assert str(caught.value).startswith("ecg: ")
    return caught.value


def test_lists_arrays_and_base64_of_one_recording_are_the_same_floats():
    sent = waves().astype(np.float32)
    as_text = b64encode(sent.astype("<f4").tobytes()).decode()
    nested = np.empty(2, object)  # as a Parquet file's list of lists arrives
    nested[:] = list(sent)

    for value in (sent, sent.tolist(), as_text, nested, list(sent), {"value": as_text, "unit": "mV"}):
        assert_array_equal(check("ecg", ECG, value), sent.ravel())


def test_what_is_checked_is_what_float32_holds_and_has_no_minus_zero():
    sent = waves()
    sent[0, 7] = -0.0
    found = check("ecg", ECG, sent)

    assert_array_equal(found, found.astype(np.float32))
    assert not np.signbit(found[7])
    assert found.dtype == np.float64


def test_microvolts_are_millivolts_and_an_ecg_in_another_unit_is_noticed():
    sent = waves()

    assert_allclose(check("ecg", ECG, {"value": sent * 1000, "unit": "uV"}), sent.ravel(), atol=1e-6)
    assert refused({"value": sent, "unit": "V"}).code == "unit"
    assert refused({"value": sent, "unit": 7}).code == "unit"
    assert refused(sent * 1000).code == "out_of_range"
    assert refused({"value": sent, "unit": "uV"}).code == "flat_lead"


@pytest.mark.parametrize("hz", [80, 128, 200, 250, 360, 500, 1000, 128.5])
def test_another_rate_gives_the_recording_that_the_contracts_rate_would_have_given(hz):
    quiet = np.array([[1.0], [0.5]]) * np.sin(2 * np.pi * 6 * np.arange(round(hz * 5) + 1) / hz)
    quiet = quiet[:, : -(-500 * hz // 100).__trunc__() if hz != 128.5 else 643]
    expected = np.array([[1.0], [0.5]]) * np.sin(2 * np.pi * 6 * np.arange(500) / 100)

    found = check("ecg", BARE, {"value": quiet, "sampling_hz": hz}).reshape(2, 500)

    assert_allclose(found[:, 25:-25], expected[:, 25:-25], atol=0.02)


def test_resampling_leaves_nothing_above_half_the_contracts_rate():
    times = np.arange(5000) / 1000
    quiet = np.sin(2 * np.pi * 5 * times)
    hum = np.sin(2 * np.pi * 220 * times)  # would be seen as 20 Hz if every tenth sample were taken

    with_hum, without = (
        check("ecg", BARE, {"value": [row, row], "sampling_hz": 1000}).reshape(2, 500) for row in (quiet + hum, quiet)
    )

    assert np.abs(with_hum - without)[:, 10:-10].max() < 0.01


@pytest.mark.parametrize(
    "rate", [0, -500, True, "500", float("nan"), float("inf"), [500], 10**400, 49.9, 79, 10001, 10**9, 99.99999]
)
def test_a_rate_that_is_none_or_cannot_be_brought_to_the_contracts_is_refused(rate):
    assert refused({"value": waves(), "sampling_hz": rate}).code == "sampling_rate"


@pytest.mark.parametrize("leads", [1, 3, 12])
def test_another_number_of_leads_is_refused_and_told_with_those_expected(leads):
    error = refused(waves(leads=leads))

    assert error.code == "wrong_leads"
    assert f"{leads} leads" in str(error)
    assert "I, II" in str(error)


def test_leads_and_points_in_time_the_other_way_round_are_told():
    assert "not one for each point in time" in str(refused(waves().T))


@pytest.mark.parametrize(("samples", "hz"), [(499, 100), (501, 100), (2, 100), (5001, 1000), (4990, 1000), (500, 500)])
def test_another_duration_is_refused(samples, hz):
    error = refused({"value": np.resize(waves(), (2, samples)), "sampling_hz": hz})

    assert error.code == "wrong_duration"
    assert f"{5 * hz} samples of {hz} Hz" in str(error)


def test_leads_of_several_lengths_are_refused():
    first, second = waves().tolist()

    assert refused([first, second[:-1]]).code == "wrong_duration"


@pytest.mark.parametrize("missing", [None, np.nan])
def test_a_gap_is_refused_with_its_lead_and_how_long_it_is(missing):
    sent = waves().tolist()
    for place in (*range(200, 240), 400):
        sent[1][place] = missing

    error = refused(sent)

    assert error.code == "gap"
    for told in ("lead II", "41 of 500", "0.4 s of them in a row from 2 s on"):
        assert told in str(error)


def test_a_sample_that_is_infinite_or_no_number_is_refused():
    for odd, code in ((np.inf, "not_finite"), (10**400, "not_finite"), (True, "not_a_number"), ("1", "not_a_number")):
        sent = waves().tolist()
        sent[1][3] = odd
        assert refused(sent).code == code


@pytest.mark.parametrize(
    "value", [5, "not base64!", "", "AAAA", [], [1.0, 2.0], [[[1.0]]], {"unit": "mV"}, {"value": 1, "hz": 5}]
)
def test_what_is_no_recording_is_refused(value):
    assert refused(value).code in ("not_a_recording", "wrong_leads", "malformed")


def test_no_message_repeats_what_was_sent():
    sent = waves().tolist()
    sent[0][9] = "Mrs Example"
    for value in (sent, "Mrs Example", {"value": sent, "unit": "Mrs Example"}):
        assert "Example" not in str(refused(value))
    sent = waves()
    sent[1, 4] = 77.25
    assert "77" not in str(refused(sent))


@pytest.mark.parametrize("stands_at", [0.0, -3.0])
@given(begins=st.integers(0, 400))
@settings(max_examples=25, deadline=None)
def test_a_lead_that_stands_still_for_a_fifth_of_the_recording_is_refused_wherever_it_does(stands_at, begins):
    sent = waves()
    sent[1, begins : begins + 100] = stands_at

    error = refused(sent)

    assert error.code == "flat_lead"
    assert "lead II" in str(error)


@given(begins=st.integers(0, 401))
@settings(max_examples=25, deadline=None)
def test_a_shorter_pause_is_no_flat_lead(begins):
    sent = waves()
    sent[1, max(begins - 1, 0) : begins + 100] = 0.5
    sent[1, begins : begins + 99] = 0.001

    check("ecg", ECG, sent)


def test_a_constant_lead_is_flat_and_not_clipped():
    sent = waves()
    sent[0] = 9.9

    assert refused(sent).code == "flat_lead"


@pytest.mark.parametrize("sign", [1, -1])
def test_a_lead_cut_off_at_an_extreme_is_refused_and_a_single_peak_is_not(sign):
    sent = sign * waves()
    cut = sent.copy()
    cut[0] = np.minimum(cut[0], 0.8) if sign > 0 else np.maximum(cut[0], -0.8)

    check("ecg", ECG, sent)
    error = refused(cut)
    assert error.code == "clipped_lead"
    assert "lead I " in str(error)


def test_a_model_sees_the_band_and_nothing_else():
    times = np.arange(500) / 100
    slow, inside, fast = (np.sin(2 * np.pi * hz * times) for hz in (0.05, 10, 49))
    band = ECG.model_copy(update={"band_hz": (0.5, 30)})

    found = seen(band, np.concatenate([3 + slow + inside + fast, inside])[None])[0].reshape(2, 500)

    assert_allclose(found[0, 50:-50], inside[50:-50], atol=0.12)
    assert_allclose(found[1, 100:-100], inside[100:-100], atol=0.05)


def test_without_a_band_a_model_sees_what_was_checked():
    checked = check("ecg", BARE, waves())[None]

    assert seen(BARE, checked) is checked


def test_the_same_bits_are_seen_in_a_batch_and_alone_and_a_missing_recording_stays_missing(monkeypatch):
    monkeypatch.setattr(waveforms, "AT_ONCE", 4)
    batch = np.array([check("ecg", ECG, waves(seed=seed)) for seed in range(7)])
    batch[3] = np.nan

    together = seen(ECG, batch)
    alone = np.concatenate([seen(ECG, row[None]) for row in batch])
    strided = seen(ECG, np.asfortranarray(batch))

    assert together.tobytes() == alone.tobytes() == np.ascontiguousarray(strided).tobytes()
    assert np.isnan(together[3]).all()
    assert np.isfinite(np.delete(together, 3, axis=0)).all()


@pytest.mark.parametrize("leads", [[*reversed(ECG.leads)], [*ECG.leads[:-1]], "I", {"I": 1}, 7, []])
def test_leads_that_are_told_have_to_be_the_contracts_in_its_order(leads):
    same = check("ecg", ECG, {"value": waves(), "leads": [*ECG.leads]})
    assert same.tobytes() == check("ecg", ECG, {"value": waves(), "leads": None}).tobytes()

    with pytest.raises(RecordError, match="its `leads` are not the contract's") as caught:
        check("ecg", ECG, {"value": waves(), "leads": leads})
    assert (caught.value.code, caught.value.field) == ("wrong_leads", "ecg")


def test_the_summary_is_the_root_mean_square():
    assert_allclose(waveforms.summary(np.array([[3.0, 4.0], [np.nan, np.nan]])), [np.sqrt(12.5), np.nan])
