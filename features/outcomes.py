"""What happened to a patient, from the source's outcome column. No feature definition may import this."""

import operator
from collections.abc import Sequence
from typing import Any, SupportsFloat

import numpy as np
from numpy.typing import NDArray

from configs.errors import ContractError
from configs.spec import COMPARISON, Outcome

OPERATORS = {
    "==": operator.eq,
    "!=": operator.ne,
    ">=": operator.ge,
    "<=": operator.le,
    ">": operator.gt,
    "<": operator.lt,
}


def observed(outcome: Outcome, cells: Sequence[Any]) -> NDArray[np.float64]:
    """1 where the comparison `outcome.positive` holds, 0 where it does not, NaN where the outcome is missing. (n,)

    Raises ContractError, with the row, if a cell cannot be compared.
    """
    match = COMPARISON.fullmatch(outcome.positive)
    assert match is not None  # the Spec checked it
    compare, limit = OPERATORS[match[1]], match[2].strip("'\"")
    try:
        number: float | None = float(limit)
    except ValueError:
        number = None
    found = np.full(len(cells), np.nan)
    for row, cell in enumerate(cells):
        if cell is None or cell != cell:
            continue
        if number is not None and isinstance(cell, SupportsFloat):
            found[row] = compare(float(cell), number)
        elif number is None and match[1] in ("==", "!="):
            found[row] = compare(*_texts(cell, limit))
        else:
            raise ContractError(
                f"outcome {outcome.column!r}, row {row + 1}: a {type(cell).__name__} cannot be compared "
                f"with {outcome.positive!r}."
            )
    return found


def _texts(cell: Any, limit: str) -> tuple[str, str]:
    """Both as texts; a boolean is the same however it is written, True or true."""
    return (str(cell).lower(), limit.lower()) if isinstance(cell, bool | np.bool_) else (str(cell), limit)
