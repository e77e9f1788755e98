"""What the review page draws of a validation: curves on fixed grids and counts, as plain JSON; never a patient.

Every curve is read off at the same 101 places, so that no point of it is one person's.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from evidence.metrics import Array
from evidence.subgroups import SMALLEST_CELL
from features.build import Plan
from features.cohort import PARTS, Cohort

GRID: Array = np.linspace(0, 1, 101)
DIGITS = 4


def curves(y: Array, risk: Array) -> dict[str, Any]:
    """ROC and precision-recall of `risk` (n,) for `y` (n,); empty if one of the classes is not there."""
    from sklearn.metrics import precision_recall_curve, roc_curve

    if not 0 < y.sum() < len(y):
        return {}
    false_alarms, sensitivity, _ = roc_curve(y, risk)
    precision, recall, _ = precision_recall_curve(y, risk)
    return {
        "roc": {"fpr": listed(GRID), "tpr": listed(np.interp(GRID, false_alarms, sensitivity))},
        "precision_recall": {"recall": listed(GRID), "precision": listed(np.interp(GRID, recall[::-1], precision[::-1]))},
    }


def flow(cohort: Cohort) -> dict[str, Any]:
    """From the source's rows to the three parts, with what was left out and why."""
    return {
        "read": len(cohort) + sum(cohort.dropped.values()),
        "dropped": dict(cohort.dropped),
        "parts": {
            part: {"n": len(chosen), "events": int(chosen.y.sum())} for part in PARTS if len(chosen := cohort.only(part))
        },
    }


def table1(plan: Plan, cohort: Cohort) -> dict[str, Any]:
    """Table 1 of whom the model was learned from and judged on: a number's median (quartiles), a category's n (%).

    A cell that would tell of fewer than 10 patients says only that.
    """
    inside = cohort.where(cohort.part != "external")
    columns = {"all": np.ones(len(inside), bool), "events": inside.y == 1, "non-events": inside.y == 0}
    rows = [_row("patients", None, [f"{int(rows.sum())}" for rows in columns.values()])]
    for position, feature in enumerate(plan.features):
        values = inside.X[:, position].astype(float)
        if not feature.categories:
            rows.append(_row(feature.name, "median (quartiles)", [_quartiles(values[rows]) for rows in columns.values()]))
        for index, level in enumerate(feature.categories):
            rows.append(_row(feature.name, level, [_share(values[rows] == index) for rows in columns.values()]))
        if np.isnan(values).any():
            rows.append(_row(feature.name, "missing", [_share(np.isnan(values[rows])) for rows in columns.values()]))
    return {"columns": list(columns), "rows": rows}


def listed(values: NDArray[Any]) -> list[float | None]:
    """An array as JSON: rounded, and None where there is no number."""
    return [None if not np.isfinite(value) else round(float(value), DIGITS) for value in values]


def _row(name: str, level: str | None, cells: list[str]) -> dict[str, Any]:
    return {"name": name, "level": level, "cells": cells}


def _quartiles(values: Array) -> str:
    known = values[~np.isnan(values)]
    if len(known) < SMALLEST_CELL:
        return f"fewer than {SMALLEST_CELL} known"
    low, middle, high = (f"{value:.3g}" for value in np.percentile(known, [25, 50, 75]))
    return f"{middle} ({low} to {high})"


def _share(rows: NDArray[np.bool_]) -> str:
    n = int(rows.sum())
    if 0 < n < SMALLEST_CELL:
        return f"fewer than {SMALLEST_CELL}"
    return f"{n} ({n / len(rows):.0%})" if len(rows) else "0"
