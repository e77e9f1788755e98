"""Waveforms: several leads sampled together at one rate."""

import base64
import binascii
from typing import Any

import numpy as np
from numpy.typing import NDArray

from configs.errors import RecordError
from configs.spec import Column
from features.definitions import Array, Profile


def check(name: str, column: Column, value: Any) -> Array:
    """The floats of a waveform, (leads * samples,), at the contract's rate and in its unit. Raises RecordError."""
    wave = as_floats(name, value)
    if wave.size != column.size:
        said = f"{name}: {wave.size} numbers; {column.shape[0]} leads of {column.shape[1]} samples are expected."
        raise RecordError("wrong_shape", name, said)
    wave = wave.reshape(column.shape)
    assert column.range is not None  # the Spec demands it of a waveform
    if not np.isfinite(wave).all():
        raise RecordError("not_finite", name, f"{name}: holds a number that is not finite.")
    if wave.min() < column.range[0] or wave.max() > column.range[1]:
        raise RecordError("out_of_range", name, f"{name}: a sample lies outside {list(column.range)} {column.unit}.")
    return np.asarray(wave.ravel() + 0.0)


def as_floats(name: str, value: Any) -> Array:
    """Nested lists, an array, or a base64 text of little-endian float32, as an array of its own shape.

    Raises RecordError for what is none of them.
    """
    try:
        if isinstance(value, str):
            return np.frombuffer(base64.b64decode(value, validate=True), "<f4").astype(np.float64)
        if isinstance(value, np.ndarray) and value.dtype == object:  # a table's list of lists
            return np.stack([np.asarray(lead, np.float64) for lead in value])
        if isinstance(value, list | tuple | np.ndarray):
            return np.array(value, np.float64)
    except (binascii.Error, ValueError, TypeError, OverflowError):
        pass
    said = f"{name}: numbers in lists of one length are expected, or a base64 text of little-endian float32."
    raise RecordError("not_an_array", name, said)


def seen(column: Column, waves: Profile) -> Profile:
    """What a model sees of checked waveforms (n, leads * samples): filtered where the contract says so."""
    if column.band_hz is not None:
        raise NotImplementedError("band_hz")
    return waves


def summary(waves: Profile | NDArray[np.float32]) -> Array:
    """Each waveform's root mean square over all leads, (n,); NaN where it is missing."""
    return np.asarray(np.sqrt(np.mean(np.square(waves.astype(np.float64)), axis=1)))
