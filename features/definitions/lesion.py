"""Two plain numbers of a picture of a skin lesion, for models that read no pictures and as a measure for those that do.

`lesion_picture` is a square picture in red, green and blue, 0 to 1, (n, 3 * side * side), the lesion in its middle. The
numbers are our own, simple on purpose, and follow no published score.
"""

import math

import numpy as np

from features.bins import total
from features.definitions import Array, Profile

RIM = 12
"""The outermost 1/12 of the rows and columns at each side is taken for skin."""


def mean_darkness(lesion_picture: Profile) -> Array:
    """How much darker than the skin at its rim the picture is on average, 0 to 1; brightness is the mean of the three.

    (n, pixels) in, (n,) out. Missing in, missing out.
    """
    dark = _darkness(lesion_picture)
    return total(dark.reshape(len(dark), -1)) / math.prod(dark.shape[1:])


def asymmetry(lesion_picture: Profile) -> Array:
    """Share of the darkness that has no counterpart on the mirrored side, 0 to 1: the mean of both middle lines.

    (n, pixels) in, (n,) out. Missing in, missing out, and missing where nothing is darker than the rim.
    """
    dark = _darkness(lesion_picture)
    unlike = np.abs(dark - dark[:, ::-1]) + np.abs(dark - dark[:, :, ::-1])
    flat = (len(dark), -1)
    return np.asarray(total(unlike.reshape(flat)) / (4 * total(dark.reshape(flat))))


def _darkness(picture: Profile) -> Profile:
    """What each pixel lacks of the rim's mean brightness, 0 where it is as bright, (n, side, side)."""
    side = math.isqrt(picture.shape[1] // 3)
    if 3 * side * side != picture.shape[1]:
        raise ValueError(f"{picture.shape[1]} numbers are no square picture in three colours")
    channels = picture.reshape(len(picture), 3, side, side)
    bright = (channels[:, 0] + channels[:, 1] + channels[:, 2]) / 3
    at_rim = np.ones((side, side), bool)
    width = max(side // RIM, 1)
    at_rim[width : side - width, width : side - width] = False
    rim = total(np.ascontiguousarray(bright[:, at_rim])) / at_rim.sum()
    return np.asarray(np.maximum(rim[:, None, None] - bright, 0))
