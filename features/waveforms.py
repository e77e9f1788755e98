"""Recordings of several leads: checked, brought to the contract's rate, and filtered. Nothing is learned here.

`check` judges what was sent, as it was sent; then it resamples. The filter of `band_hz` runs in `build`, so that a
record keeps the recording and not what we made of it. Each recording is treated by itself: the same bits come out in a
batch and alone. No message holds a value of a recording; leads, counts, times and rates are told.
"""

import math
from fractions import Fraction
from functools import lru_cache
from sys import float_info
from typing import Any

import numpy as np
from numpy.typing import NDArray

from configs.errors import RecordError
from configs.spec import Column
from features import units
from features.definitions import Array, Profile
from features.packed import unpacked

# The limits below are our own: no standard that we know of says when a lead counts as flat or clipped.
FLAT_SHARE = 0.2
"""A lead is flat where it stays within FLAT_WITHIN for this share of the recording: 2 s of 10 s."""
FLAT_WITHIN = 1e-4
"""Of the width of the contract's `range`: 2 uV of -10 to 10 mV, below what an electrocardiograph resolves."""
FAINT_WITHIN = 1e-3
"""A lead is flat, too, that stays within this throughout, 20 uV: as an ECG in mV does that was called one in uV."""
PLATEAU_S = 0.02
PLATEAU_SAMPLES = 3
"""A lead lies on a plateau where it stands still at its highest or lowest value for so long, and so many samples."""
CLIPPED_SHARE = 0.01
"""A lead is clipped where its plateaus make up this share of the recording: 0.1 s of 10 s."""
LEAST_RATE = 0.5
"""Of the contract's rate. Below it, or where half the rate lies below `band_hz`, what the model reads is not there."""
HIGHEST_RATE = 100
"""Times the contract's rate."""
MOST_STEPS = 5000
"""The two rates stand to one another as two whole numbers, neither above this: 360 to 100 Hz is 18 to 5."""
AT_ONCE = 64
"""Recordings that are filtered together: scipy holds each some five times while it does."""
KEYS = ("value", "unit", "sampling_hz", "leads")
LISTS = (list, tuple, np.ndarray)


def check(name: str, column: Column, value: Any) -> Array:
    """The recording in the contract's unit and at its rate, (leads x samples,) floats, lead after lead.

    `value` is a list of samples for each lead, an array (leads, samples), a base64 text of little-endian float32, lead
    after lead, or `{value, unit, sampling_hz, leads}` of one, whose `leads` have to be the contract's, in their order:
    numbers alone do not tell one lead from another. Raises RecordError, naming the field and the lead, for a
    recording of other leads, another length, a rate or unit that cannot be converted, one with gaps, values out of
    range, a flat lead or a clipped one.
    """
    unit, rate = None, None
    if isinstance(value, dict):
        if not {"value"} <= set(value) <= {*KEYS}:
            said = f"{name}: expected a recording, or {{{', '.join(KEYS)}}} and nothing else."
            raise RecordError("malformed", name, said)
        if value.get("leads") is not None and value["leads"] != [*column.leads]:
            said = f"{name}: its `leads` are not the contract's, which are, in this order: {', '.join(column.leads)}."
            raise RecordError("wrong_leads", name, said)
        value, unit, rate = value["value"], value.get("unit"), value.get("sampling_hz")
    conversion = _conversion(name, column, unit)
    hz, up, down = _rate(name, column, rate)
    with np.errstate(over="ignore"):  # rounded as it goes on record, so that a replay judges the same
        sent = _decoded(name, column, value).astype(np.float32).astype(np.float64)
    _judge_length(name, column, sent, hz, up, down)
    _judge_samples(name, column, sent, hz)
    recording = conversion(sent)
    _judge_range(name, column, recording, hz)
    _judge_leads(name, column, recording, hz)
    found = resampled(recording, up, down)[:, : column.samples].ravel()
    # As records keep it, so that training and serving see the same bits; and minus zero becomes zero.
    return found.astype(np.float32).astype(np.float64) + 0.0


def kept(column: Column, sent: Any) -> dict[str, Any]:
    """What stands on record for a recording that keeps its contract: its samples as bytes of float32, which JSON holds
    as base64, with their unit, rate and leads, which another contract may not take for granted. `check` makes the same
    bits of it again."""
    told = sent if isinstance(sent, dict) else {"value": sent}
    value, unit, rate = told["value"], told.get("unit"), told.get("sampling_hz")
    samples = value if isinstance(value, str) else np.stack([np.asarray(lead, "<f4") for lead in value]).tobytes()
    about = {"unit": unit or column.unit, "sampling_hz": rate or column.sampling_hz, "leads": [*column.leads]}
    return {"value": samples, **about}


def resampled(recording: Profile, up: int, down: int) -> Profile:
    """The recording at `up` / `down` times its rate, with no more than half the lower rate left in it.

    A polyphase low-pass filter; beyond its ends each lead goes on along the line from its first sample to its last.
    """
    if up == down:
        return recording
    from scipy.signal import resample_poly

    found: Profile = resample_poly(recording, up, down, axis=-1, padtype="line")
    return found


def seen(column: Column, waves: Profile) -> Profile:
    """What a model sees of checked recordings (n, leads x samples): nothing that lies outside the contract's `band_hz`.

    A Butterworth filter of second order, run forwards and backwards: it shifts nothing in time. A missing recording
    stays missing.
    """
    if column.band_hz is None:
        return waves
    from scipy.signal import sosfiltfilt

    assert column.samples is not None and column.sampling_hz is not None  # the Spec demands both of a waveform
    low, high = column.band_hz
    found = np.full(waves.shape, np.nan)
    there = np.flatnonzero(~np.isnan(waves).any(axis=1))
    # Mirrored beyond its ends by a period of the lowest frequency, so that the filter has settled where it counts.
    mirrored = min(column.samples - 1, math.ceil(column.sampling_hz / low))
    for start in range(0, len(there), AT_ONCE):
        rows = there[start : start + AT_ONCE]
        recordings = np.ascontiguousarray(waves[rows]).reshape(len(rows), *column.shape)
        passed = sosfiltfilt(_band(low, high, column.sampling_hz), recordings, axis=-1, padlen=mirrored)
        found[rows] = passed.reshape(len(rows), -1)
    return found


def summary(waves: Profile | NDArray[np.float32]) -> Array:
    """Each waveform's root mean square over all leads, (n,); NaN where it is missing."""
    return np.asarray(np.sqrt(np.mean(np.square(waves.astype(np.float64)), axis=1)))


@lru_cache(maxsize=64)
def _band(low: float, high: float, hz: float) -> Profile:
    from scipy.signal import butter

    found: Profile = butter(2, (low, high), "bandpass", fs=hz, output="sos")
    return found


def _conversion(name: str, column: Column, unit: Any) -> units.Conversion:
    assert column.unit is not None  # the Spec demands it of a waveform
    if unit is None:
        return units.AS_IT_IS
    known = (column.unit, *column.accepts)
    found = units.conversion(unit, column.unit, column.loinc) if isinstance(unit, str) and unit in known else None
    if found is None:
        what = f"a text of {len(unit)} characters" if isinstance(unit, str) else f"a {type(unit).__name__}"
        raise RecordError("unit", name, f"{name}: {what} is not one of its units: {', '.join(known)}.")
    return found


def _rate(name: str, column: Column, rate: Any) -> tuple[float, int, int]:
    """The rate that was sent, and by what it is multiplied and divided to be the contract's."""
    assert column.sampling_hz is not None  # the Spec demands it of a waveform
    ours = column.sampling_hz
    if rate is None:
        return ours, 1, 1
    if isinstance(rate, bool) or not isinstance(rate, int | float) or not 0 < rate <= float_info.max:
        raise RecordError("sampling_rate", name, f"{name}: `sampling_hz` is a number above 0, in samples a second.")
    least = max(LEAST_RATE * ours, 2 * column.band_hz[1] if column.band_hz and rate < ours else 0)
    if not least <= rate <= HIGHEST_RATE * ours:
        raise RecordError(
            "sampling_rate",
            name,
            f"{name}: {rate:g} Hz cannot be brought to the contract's {ours:g} Hz; one of {least:g} to "
            f"{HIGHEST_RATE * ours:g} Hz can.",
        )
    step = Fraction(repr(ours)) / Fraction(repr(rate))
    if max(step.numerator, step.denominator) > MOST_STEPS:
        raise RecordError(
            "sampling_rate",
            name,
            f"{name}: {rate!r} Hz and the contract's {ours:g} Hz do not stand to one another as whole numbers up to "
            f"{MOST_STEPS}; send the nominal rate.",
        )
    return float(rate), step.numerator, step.denominator


def _decoded(name: str, column: Column, value: Any) -> Profile:
    """What was sent as float64 (leads, samples). A sample that is null is NaN."""
    leads, named = len(column.leads), ", ".join(column.leads)
    if isinstance(value, str):
        found = _out_of_base64(name, value)
        if len(found) % leads:
            said = f"{name}: {len(found)} samples are no whole number for each of {leads} leads: {named}."
            raise RecordError("wrong_leads", name, said)
        return found.reshape(leads, -1)
    if isinstance(value, np.ndarray) and value.dtype.kind in "iuf" and value.ndim == 2:
        rows: Any = value
    elif isinstance(value, LISTS) and all(isinstance(row, LISTS) for row in value):
        rows = value
    else:
        said = f"{name}: a list of samples for each of {leads} leads is expected: {named}."
        raise RecordError("not_a_recording", name, said)
    if len(rows) != leads:
        turned = len(rows) and {len(row) for row in rows} == {leads}
        hint = " A list for each lead is expected, not one for each point in time." if turned else ""
        said = f"{name}: {len(rows)} leads; {leads} are expected, in this order: {named}.{hint}"
        raise RecordError("wrong_leads", name, said)
    lengths = [len(row) for row in rows]
    if len(set(lengths)) > 1:
        odd = next(place for place, length in enumerate(lengths) if length != lengths[0])
        said = (
            f"{name}: lead {column.leads[odd]} has {lengths[odd]} samples, lead {column.leads[0]} {lengths[0]}; "
            "all leads have to be as long."
        )
        raise RecordError("wrong_duration", name, said)
    found = np.empty((leads, lengths[0]))
    for place, row in enumerate(rows):
        found[place] = _lead(f"{name}: lead {column.leads[place]}", name, row)
    return found


def _lead(where: str, name: str, row: Any) -> Array:
    if isinstance(row, np.ndarray) and row.dtype.kind in "iuf":
        if row.ndim == 1:
            return row.astype(np.float64)
    elif set(map(type, row)) <= {int, float, type(None)}:
        try:
            return np.array(row, np.float64)  # None becomes NaN
        except OverflowError:
            raise RecordError("not_finite", name, f"{where}: a sample is not finite.") from None
    raise RecordError("not_a_number", name, f"{where}: every sample has to be a number.")


def _out_of_base64(name: str, text: str) -> Array:
    content = unpacked(text)
    if not content or len(content) % 4:
        said = f"{name}: a text of {len(text)} characters is not base64 of float32 samples."
        raise RecordError("not_a_recording", name, said)
    return np.frombuffer(content, "<f4").astype(np.float64)


def _judge_length(name: str, column: Column, sent: Profile, hz: float, up: int, down: int) -> None:
    """Raises RecordError unless the recording is as long as the contract's, without a sample to spare."""
    assert column.samples is not None and column.sampling_hz is not None  # the Spec demands both of a waveform
    samples = sent.shape[1]
    if samples * up > (column.samples - 1) * down and (samples - 1) * up < column.samples * down:
        return
    expected = -(-column.samples * down // up)
    raise RecordError(
        "wrong_duration",
        name,
        f"{name}: {samples} samples of {hz:g} Hz are {samples / hz:.6g} s; {column.samples / column.sampling_hz:.6g} s "
        f"are expected, {expected} samples of {hz:g} Hz. Cut the recording; nothing is added to a shorter one.",
    )


def _judge_samples(name: str, column: Column, sent: Profile, hz: float) -> None:
    if np.isfinite(sent).all():
        return
    missing = np.isnan(sent)
    if not missing.any():
        lead = column.leads[int(np.flatnonzero(np.isinf(sent).any(axis=1))[0])]
        raise RecordError("not_finite", name, f"{name}: lead {lead}: a sample is not finite.")
    place = int(np.flatnonzero(missing.any(axis=1))[0])
    first, longest = _longest(missing[place])
    raise RecordError(
        "gap",
        name,
        f"{name}: lead {column.leads[place]} has a gap: {int(missing[place].sum())} of {sent.shape[1]} samples are "
        f"missing, {longest / hz:.3g} s of them in a row from {first / hz:.3g} s on. None may be missing.",
    )


def _judge_range(name: str, column: Column, recording: Profile, hz: float) -> None:
    assert column.range is not None  # the Spec demands it of a waveform
    low, high = column.range
    beyond = (recording < low) | (recording > high)
    if not beyond.any():
        return
    place = int(np.flatnonzero(beyond.any(axis=1))[0])
    first = int(np.flatnonzero(beyond[place])[0])
    raise RecordError(
        "out_of_range",
        name,
        f"{name}: lead {column.leads[place]}: {int(beyond[place].sum())} of {recording.shape[1]} samples lie outside "
        f"{low:g} to {high:g} {column.unit}, the first at {first / hz:.3g} s. Is it another unit?",
    )


def _judge_leads(name: str, column: Column, recording: Profile, hz: float) -> None:
    assert column.range is not None  # the Spec demands it of a waveform
    samples = recording.shape[1]
    width = column.range[1] - column.range[0]
    within, faint = FLAT_WITHIN * width, FAINT_WITHIN * width
    stretch = max(2, math.ceil(FLAT_SHARE * samples))
    plateau = max(PLATEAU_SAMPLES, math.ceil(PLATEAU_S * hz))
    for place in np.flatnonzero(_doubtful(recording, stretch, plateau, within, faint)):
        lead, values = column.leads[place], recording[place]
        if (little := float(np.ptp(values)) <= faint) or _stands_still(values, stretch, within):
            still, told = (faint, samples) if little else (within, stretch)
            raise RecordError(
                "flat_lead",
                name,
                f"{name}: lead {lead} is flat: for {told / hz:.3g} s or more it changes by no more than {still:g} "
                f"{column.unit}. Is an electrode off, or is it another unit?",
            )
        if (share := _on_plateaus(values, plateau)) >= CLIPPED_SHARE:
            raise RecordError(
                "clipped_lead",
                name,
                f"{name}: lead {lead} is clipped: {share:.1%} of it are plateaus at its highest or lowest value; less "
                f"than {CLIPPED_SHARE:.0%} is expected. Is the amplifier's range exceeded?",
            )


def _doubtful(recording: Profile, stretch: int, plateau: int, within: float, faint: float) -> NDArray[np.bool_]:
    """Which leads, (leads,), may be flat or clipped: all leads at once, so that a good recording is looked at once."""
    low, high = recording.min(axis=1), recording.max(axis=1)
    at_ends = [(recording == end[:, None]).sum(axis=1) for end in (low, high)]
    block = (stretch + 1) // 2
    whole = recording[:, : recording.shape[1] // block * block].reshape(len(recording), -1, block)
    still = (np.ptp(whole, axis=2) <= within).any(axis=1)
    return np.asarray((high - low <= faint) | still | (np.maximum(*at_ends) >= plateau))


def _stands_still(values: Array, stretch: int, within: float) -> bool:
    """Whether a lead (samples,) stays `within` of itself for a `stretch` of samples somewhere."""
    block = (stretch + 1) // 2  # a stretch holds one of these blocks whole, wherever it begins
    whole = values[: len(values) // block * block].reshape(-1, block)
    if not (np.ptp(whole, axis=1) <= within).any():
        return False
    from scipy.ndimage import maximum_filter1d, minimum_filter1d

    half = stretch // 2
    inside = slice(half, len(values) - (stretch - 1 - half))
    spread = (maximum_filter1d(values, stretch) - minimum_filter1d(values, stretch))[inside]
    return bool((spread <= within).any())


def _on_plateaus(values: Array, plateau: int) -> float:
    """The share of a lead (samples,) that stands at its highest or lowest value for `plateau` samples in a row."""
    count = 0
    for extreme in (values.max(), values.min()):
        lengths = _runs(values == extreme)[1]
        count += int(lengths[lengths >= plateau].sum())
    return count / len(values)


def _longest(where: NDArray[np.bool_]) -> tuple[int, int]:
    """Where the longest run of true begins, and how long it is."""
    begins, lengths = _runs(where)
    longest = int(lengths.argmax())
    return int(begins[longest]), int(lengths[longest])


def _runs(where: NDArray[np.bool_]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Where each run of true begins, and its length."""
    steps = np.diff(np.concatenate([[0], where.astype(np.int8), [0]]))
    begins = np.flatnonzero(steps == 1)
    return begins, np.flatnonzero(steps == -1) - begins
