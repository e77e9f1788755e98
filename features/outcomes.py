"""What happened to a patient, from the source's outcome column. No feature definition may import this."""

import operator
import re
from collections.abc import Sequence
from typing import Any, SupportsFloat

import numpy as np
from numpy.typing import NDArray

from configs.errors import ContractError
from configs.spec import COMPARISON, SECONDS, Outcome, as_key

NUMERAL = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?", re.ASCII)
OPERATORS = {
    "==": operator.eq,
    "!=": operator.ne,
    ">=": operator.ge,
    "<=": operator.le,
    ">": operator.gt,
    "<": operator.lt,
}
UNKNOWN = "outcome missing"
BEFORE = "the outcome before the time of prediction"
NO_RECORD = "no record after the time of prediction"
IN_THE_GAP = "the outcome within the gap"
CENSORED = "censored before the horizon"
REASONS = (UNKNOWN, BEFORE, NO_RECORD, IN_THE_GAP, CENSORED)
"""Why an outcome may be unknown; who has two of them has the first."""


def observed(outcome: Outcome, cells: Sequence[Any]) -> NDArray[np.float64]:
    """1 where the comparison `outcome.positive` holds, 0 where it does not, NaN where the outcome is missing. (n,)

    Raises ContractError, with the row, if a cell cannot be compared or is none that the Spec names.
    """
    sign, limit, number = _comparison(outcome)
    compare = OPERATORS[sign]
    missing, known = ({as_key(value) for value in values} for values in (outcome.missing_if, outcome.values))
    found = np.full(len(cells), np.nan)
    for row, raw in enumerate(cells):
        cell = raw if number is None else as_number(raw)
        if cell is None or cell != cell or as_key(cell) in missing:
            continue
        if not _is_known(outcome, known, cell):
            expected = f"within {outcome.range}" if outcome.range else f"one of {list(outcome.values)}"
            raise ContractError(
                f"outcome {outcome.column!r}, row {row + 1}: holds a {type(cell).__name__} that is not {expected}. "
                "Name it in `values`, or in `missing_if` if it stands for missing."
            )
        if number is not None and isinstance(cell, SupportsFloat):
            found[row] = compare(float(cell), number)
        elif number is None and sign in ("==", "!="):
            found[row] = compare(*_texts(cell, limit))
        else:
            raise ContractError(
                f"outcome {outcome.column!r}, row {row + 1}: a {type(cell).__name__} cannot be compared "
                f"with {outcome.positive!r}."
            )
    return found


def classified(outcome: Outcome, cells: Sequence[Any]) -> NDArray[np.float64]:
    """The number (n,) of each patient's class, in the order of `outcome.classes`; NaN where the outcome is missing.

    Raises ContractError, with the row, if a cell is a code of no class.
    """
    assert outcome.classes is not None
    missing = {as_key(value) for value in outcome.missing_if}
    number = {as_key(code): place for place, codes in enumerate(outcome.classes.values()) for code in codes}
    found = np.full(len(cells), np.nan)
    for row, cell in enumerate(cells):
        if cell is None or cell != cell or (key := as_key(cell)) in missing:
            continue
        if key not in number:
            raise ContractError(
                f"outcome {outcome.column!r}, row {row + 1}: holds a {type(cell).__name__} that is a code of none of "
                f"the classes {', '.join(outcome.classes)}. Name it in one of them, or in `missing_if` if it stands "
                "for missing."
            )
        found[row] = number[key]
    return found


def happened(outcome: Outcome, label: NDArray[np.float64]) -> NDArray[np.float64]:
    """1 where the class, `label` (n,), is one of the event's, 0 where it is not, NaN where it is unknown."""
    assert outcome.classes is not None
    events = [place for place, name in enumerate(outcome.classes) if name in outcome.positive]
    return np.where(np.isnan(label), np.nan, np.isin(label, events))


def holds(outcome: Outcome, values: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Whether each event's value (m,), 1 for an occurrence, is the outcome: whether `outcome.positive` holds."""
    sign, limit, number = _comparison(outcome)
    if number is None and limit.lower() not in ("true", "false"):
        raise ContractError(f"outcome {outcome.event!r}: its values are numbers, and {limit!r} is none.")
    found: NDArray[np.bool_] = OPERATORS[sign](values, float(limit.lower() == "true") if number is None else number)
    return found


def within_horizon(
    outcome: Outcome,
    happened: NDArray[np.float64],
    ended: NDArray[np.float64],
    at: NDArray[np.float64],
    doubtful: NDArray[np.float64] | None = None,
) -> tuple[NDArray[np.float64], NDArray[np.str_]]:
    """1 where the outcome happened between the gap and the horizon, 0 where it did not, NaN where that is unknown, and
    why it is: "" where it is known. (n,) both.

    Of times in seconds: `happened` of the outcome, NaN where none did; `ended` of the record, NaN if unknown; `at` of
    the prediction; `doubtful` of what may have been the outcome and could not be read, -inf if nobody knows when, inf
    where there is none: before the outcome, and not after the horizon, it leaves the outcome unknown. With days counted
    from the prediction, the gap's end belongs to the gap and the horizon's to the horizon: an outcome counts if gap <
    day <= gap + horizon, and a record reaches its horizon if its last day >= gap + horizon. At the time of prediction
    itself is before it. An outcome after the record's end is not looked at: of those who have none there nothing is
    known either, and only the sick would come in.
    """
    assert outcome.gap_days is not None and outcome.horizon_days is not None  # the Spec demands both with `time`
    gap = at + outcome.gap_days * SECONDS["d"]
    horizon = gap + outcome.horizon_days * SECONDS["d"]
    seen = np.where(happened <= ended, happened, np.nan)
    first = np.where(np.isnan(seen), np.inf, seen)
    unread = False if doubtful is None else (doubtful < first) & (doubtful <= horizon)
    told = {
        UNKNOWN: np.isnan(ended) | np.isnan(at) | unread,
        BEFORE: seen <= at,
        NO_RECORD: ended <= at,
        IN_THE_GAP: seen <= gap,
        "event": seen <= horizon,
        "none": ended >= horizon,
    }
    which = np.select(list(told.values()), list(told), CENSORED)
    y = np.select([which == "event", which == "none"], [1.0, 0.0], np.nan)
    return y, np.where(np.isnan(y), which, "")


def _comparison(outcome: Outcome) -> tuple[str, str, float | None]:
    """`outcome.positive` taken apart: its sign, what stands behind it, and that as a number if it is one."""
    match = COMPARISON.fullmatch(outcome.positive) if isinstance(outcome.positive, str) else None
    assert match is not None  # the Spec checked it
    limit = match[2].strip("'\"")
    try:
        return match[1], limit, float(limit)
    except ValueError:
        return match[1], limit, None


def as_number(cell: Any) -> Any:
    """A numeral in a text as its number, anything else as it is: one "?" in a CSV's column makes text of all of it."""
    return float(cell) if isinstance(cell, str) and NUMERAL.fullmatch(cell.strip()) else cell


def _is_known(outcome: Outcome, known: set[str], cell: Any) -> bool:
    if outcome.range is None:
        return as_key(cell) in known
    low, high = outcome.range
    return not isinstance(cell, str) and isinstance(cell, SupportsFloat) and low <= float(cell) <= high


def _texts(cell: Any, limit: str) -> tuple[str, str]:
    """Both as texts; a boolean is the same however it is written, True or true."""
    return (str(cell).lower(), limit.lower()) if isinstance(cell, bool | np.bool_) else (str(cell), limit)
