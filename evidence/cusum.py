"""Whether events come more or less often than their risks announced, watched patient by patient.

`y` (n,) is 0 or 1 and `risk` (n,) a probability, in the order of prediction.
"""

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from evidence.metrics import Array
from evidence.subgroups import SMALLEST_CELL

ODDS_RATIO = 2.0
"""The chart looks for twice the odds of an event, and for half: what Steiner et al. chart for surgical mortality."""
SERIES = 4000
FALSE_ALARMS = 0.01
LOOKS = 4
"""A window is looked at again whenever outcomes come. From half of them on, each look at a quarter of the chance of a
false alarm keeps that of all looks together below it: they share most patients (docs/evidence.md)."""
POINTS = 200


def chart(y: Array, risk: Array, seed: int) -> dict[str, Any]:
    """The risk-adjusted CUSUM of log likelihood ratios, up for more events and down for fewer, as plain JSON.

    `limit`: what the larger of the two passes in .25 % of series of the same risks whose outcomes are drawn from them.
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
    generator = np.random.default_rng(seed)
    draws = (generator.random(SERIES) < p for p in risk)
    highest = np.max([np.maximum(*now) for now in _points(draws, risk, at)], axis=0)
    limit = float(np.quantile(highest, 1 - FALSE_ALARMS / LOOKS))
    up, down = np.array(list(_points(y, risk, at))).T
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


def _points(outcomes: Iterable[Any], risk: Array, at: Any) -> Iterator[tuple[Any, Any]]:
    """Both charts after `at` patients, for twice the odds and for half; one outcome for each risk, or one a series."""
    up = down = np.float64(0)
    wanted = set(at.tolist())
    for place, (happened, p) in enumerate(zip(outcomes, risk, strict=True), 1):
        up = np.maximum(up + happened * np.log(ODDS_RATIO) - np.log1p((ODDS_RATIO - 1) * p), 0.0)
        down = np.maximum(down - happened * np.log(ODDS_RATIO) - np.log1p((1 / ODDS_RATIO - 1) * p), 0.0)
        if place in wanted:
            yield up, down


def _crossed(at: Any, path: Array, limit: float) -> int | None:
    over = np.flatnonzero(path > limit)
    return int(at[over[0]]) if len(over) else None
