"""Whether events come more or less often than their risks announced, watched patient by patient.

`y` (n,) is 0 or 1 and `risk` (n,) a probability, in the order of prediction.
"""

from typing import Any

import numpy as np

from evidence.metrics import Array
from evidence.subgroups import SMALLEST_CELL

ODDS_RATIO = 2.0
"""The chart looks for twice the odds of an event, and for half: what Steiner et al. chart for surgical mortality."""
SERIES = 1000
FALSE_ALARM = 0.01
POINTS = 200


def chart(y: Array, risk: Array, seed: int) -> dict[str, Any]:
    """The risk-adjusted CUSUM of log likelihood ratios, up for more events and down for fewer, as plain JSON.

    `limit`: what the larger of the two passes in 1 % of series of the same risks whose outcomes are drawn from them.
    `crossed_up` and `crossed_down`: after how many patients, or None. All is looked at, and told, `at` every tenth
    patient or more seldom, so that no step is one patient's; the last few wait for more. Empty of fewer than ten.
    Source: Steiner SH, Cook RJ, Farewell VT, Treasure T. Monitoring surgical performance using risk-adjusted cumulative
    sum charts. Biostatistics 2000;1:441-452.
    """
    n = len(y)
    if n < SMALLEST_CELL:
        return {}
    step = max(SMALLEST_CELL, -(-n // POINTS))
    at = np.arange(step, n + 1, step)
    drawn = np.random.default_rng(seed).random((SERIES, n)) < risk
    highest = np.maximum(*(path[:, at - 1].max(axis=1) for path in _paths(drawn.astype(np.float64), risk)))
    limit = float(np.quantile(highest, 1 - FALSE_ALARM))
    up, down = (path[0, at - 1] for path in _paths(y[None, :], risk))
    return {
        "at": at.tolist(),
        "up": up.tolist(),
        "down": down.tolist(),
        "o_minus_e": np.cumsum(y - risk)[at - 1].tolist(),
        "limit": limit,
        "highest": float(max(up.max(), down.max())),
        "crossed_up": _crossed(at, up, limit),
        "crossed_down": _crossed(at, down, limit),
    }


def _paths(y: Array, risk: Array) -> list[Array]:
    """Both charts of each row of `y` (m, n): for twice the odds, and for half."""
    paths = []
    for ratio in (ODDS_RATIO, 1 / ODDS_RATIO):
        weight = y * np.log(ratio) - np.log1p((ratio - 1) * risk)
        path = np.empty_like(weight)
        now = np.zeros(len(y))
        for place in range(y.shape[1]):
            now = np.maximum(now + weight[:, place], 0.0)
            path[:, place] = now
        paths.append(path)
    return paths


def _crossed(at: Any, path: Array, limit: float) -> int | None:
    over = np.flatnonzero(path > limit)
    return int(at[over[0]]) if len(over) else None
