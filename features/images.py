"""Images: pixels of one or three channels, in the contract's range."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from configs.errors import RecordError
from configs.spec import Column
from features.definitions import Array, Profile
from features.waveforms import as_floats


def check(name: str, column: Column, value: Any) -> Array:
    """The floats of an image, (channels * height * width,), in the contract's range. Raises RecordError."""
    pixels = as_floats(name, value)
    if pixels.size != column.size:
        said = f"{name}: {pixels.size} numbers; {' x '.join(map(str, column.shape))} are expected."
        raise RecordError("wrong_shape", name, said)
    assert column.range is not None  # the Spec demands it of an image
    if not np.isfinite(pixels).all():
        raise RecordError("not_finite", name, f"{name}: holds a number that is not finite.")
    if pixels.min() < column.range[0] or pixels.max() > column.range[1]:
        raise RecordError("out_of_range", name, f"{name}: a pixel lies outside {list(column.range)}.")
    return np.asarray(pixels.ravel() + 0.0)


def summary(pictures: Profile | NDArray[np.float32]) -> Array:
    """Each image's mean intensity, (n,); NaN where it is missing."""
    return np.asarray(pictures.astype(np.float64).mean(axis=1))
