"""Explanations on request: some rows at a time, within the caller's deadline, and not twice of the same row.

They are kept by the bundle's digest and the row's own. What was done before a deadline passed is kept as well: who asks
again gets further.
"""

from collections import OrderedDict
from hashlib import sha256

import msgspec
import numpy as np
from msgspec import UNSET, UnsetType
from numpy.typing import NDArray

from models.explain import Late, LateError
from serving.versions import Version

MOST_BYTES = 32 * 2**20
"""Of explanations that are kept, in one worker; the one that was asked for least lately goes first."""
FLOAT_BYTES = 100
"""What a contribution with its place takes in memory, about."""

Key = tuple[str, bytes]


class Explanation(msgspec.Struct, omit_defaults=True):
    """What each feature adds to the uncalibrated log-odds, or to a class's score, above `base`.

    `map`: where the picture raises them, as rows from 0 to 1; of a model that reads a picture alone.
    """

    base: float
    contributions: dict[str, float]
    map: msgspec.Raw | UnsetType = UNSET


class Explanations:
    """What was explained. Used by one thread."""

    def __init__(self, most_bytes: int = MOST_BYTES) -> None:
        self._most = most_bytes
        self._kept: OrderedDict[Key, list[Explanation]] = OrderedDict()
        self._bytes = 0

    def of(self, version: Version, X: NDArray[np.float32], late: Late) -> list[list[Explanation]]:
        """For each row an explanation; of several classes one each.

        Raises LateError if it is too `late` before all are done, BundleError for a model that cannot be explained.
        """
        keys = [(version.bundle, sha256(row.tobytes()).digest()) for row in X]
        found = {key: self._kept[key] for key in keys if key in self._kept}
        for key in found:
            self._kept.move_to_end(key)
        unknown = {key: row for row, key in enumerate(keys) if key not in found}
        places = list(unknown.values())
        at_once = version.explainer.at_once
        for start in range(0, len(places), at_once):
            if late():
                raise LateError
            rows = places[start : start + at_once]
            for row, told in zip(rows, _explain(version, X[rows], late), strict=True):
                found[keys[row]] = told
                self._keep(keys[row], told)
        return [found[key] for key in keys]

    def _keep(self, key: Key, told: list[Explanation]) -> None:
        self._kept[key] = told
        self._bytes += _size(told)
        while self._bytes > self._most:
            _, gone = self._kept.popitem(last=False)
            self._bytes -= _size(gone)


def _explain(version: Version, X: NDArray[np.float32], late: Late) -> list[list[Explanation]]:
    names, explainer = version.predictor.plan.names, version.explainer
    outputs = []
    for output, (base, contributions) in enumerate(explainer.by_output(X, late)):
        told = [Explanation(base, dict(zip(names, row, strict=True))) for row in contributions.tolist()]
        maps = explainer.maps(X, output)
        if maps is not None:
            for one, drawn in zip(told, np.round(maps.astype(np.float64), 3).tolist(), strict=True):
                one.map = msgspec.Raw(msgspec.json.encode(drawn))
        outputs.append(told)
    return [list(each) for each in zip(*outputs, strict=True)]


def _size(told: list[Explanation]) -> int:
    return sum(
        FLOAT_BYTES * (len(one.contributions) + 1) + (0 if isinstance(one.map, UnsetType) else len(bytes(one.map)))
        for one in told
    )
