"""What the review page draws of a validation: curves on fixed grids and counts, as plain JSON; never a patient.

Every curve is read off at the same 101 places, so that no point of it is one person's.
"""

from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evidence.comparison import delong_interval
from evidence.metrics import Array, auroc, observed_over_expected
from evidence.probes import Change
from evidence.subgroups import SMALLEST_CELL, Subgroup
from evidence.utility import utility
from features.build import Plan
from features.cohort import PARTS, Cohort
from models.bundle import Bundle

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
        "precision_recall": {
            "recall": listed(GRID),
            "precision": listed(np.interp(GRID, recall[::-1], precision[::-1])),
        },
    }


def flow(cohort: Cohort) -> dict[str, Any]:
    """From the source's rows to the three parts, with what was left out and why."""
    return {
        "read": len(cohort) + sum(cohort.dropped.values()),
        "dropped": dict(cohort.dropped),
        **({"beyond": cohort.beyond} if cohort.beyond else {}),
        "parts": {
            part: {"n": len(chosen), "events": int(chosen.y.sum())}
            for part in PARTS
            if len(chosen := cohort.only(part))
        },
    }


def table1(plan: Plan, cohort: Cohort, classes: Sequence[str] = ()) -> dict[str, Any]:
    """Table 1 of whom the model was learned from and judged on: a number's median (quartiles), a category's n (%).

    By outcome, or by class where there are `classes`. A cell that would tell of fewer than 10 patients says only that.
    """
    inside = cohort.where(cohort.part != "external")
    columns = {"all": np.ones(len(inside), bool)}
    if classes:
        columns |= {name: inside.target == place for place, name in enumerate(classes)}
    else:
        columns |= {"events": inside.y == 1, "non-events": inside.y == 0}
    rows = [_row("patients", None, [f"{int(rows.sum())}" for rows in columns.values()])]
    described = plan.summary(inside.X)
    for position, feature in enumerate(plan.summaries):
        values = described[:, position].astype(float)
        if not feature.categories:
            rows.append(
                _row(feature.name, "median (quartiles)", [_quartiles(values[rows]) for rows in columns.values()])
            )
        for index, level in enumerate(feature.categories):
            rows.append(_row(feature.name, level, [_share(values[rows] == index) for rows in columns.values()]))
        if np.isnan(values).any():
            rows.append(_row(feature.name, "missing", [_share(np.isnan(values[rows])) for rows in columns.values()]))
    return {"columns": list(columns), "rows": rows}


def plain(curve: Any) -> dict[str, list[float | None]]:
    """A curve's arrays, by their names, as JSON."""
    return {field.name: listed(getattr(curve, field.name)) for field in fields(curve)}


def operating_points(bundle: Bundle, y: Array, risk: Array) -> list[dict[str, Any]]:
    """What acting on each threshold does, with Wilson's intervals."""
    found = []
    for point, threshold in bundle.thresholds.items():
        acted = utility(y, risk, threshold)
        shares = {
            name: {"value": getattr(acted, name), "low": spread[0], "high": spread[1]}
            for name, spread in acted.intervals.items()
        }
        found.append({"name": point, "threshold": threshold, **shares, "net_benefit": acted.net_benefit})
    return found


def groups(found: Sequence[Subgroup]) -> list[dict[str, Any]]:
    """Every subgroup: its counts and AUROC as far as they may be told, and why not."""
    return [
        {
            **{name: getattr(group, name) for name in ("attribute", "label", "n", "events", "auroc", "why")},
            **_ends(group.interval),
        }
        for group in found
    ]


def sites(kind: str, outcomes: Mapping[str, tuple[Array, Array]], fewest: int) -> list[dict[str, Any]]:
    """Each site's AUROC and O/E, of outcomes and risks (n,); why not, with fewer events or non-events than `fewest`."""
    found = []
    for site, (y, risk) in outcomes.items():
        events, rarest = int(y.sum()), int(min(y.sum(), len(y) - y.sum()))
        known = rarest >= fewest and bool(np.isfinite(risk).all())
        why = (
            None if known else f"{events} events and {len(y) - events} non-events, at least {fewest} of each are needed"
        )
        found.append(
            {
                "kind": kind,
                "site": site,
                "n": len(y),
                "events": events,
                "auroc": auroc(y, risk) if known else None,
                **_ends(delong_interval(y, risk) if known else None),
                "oe": observed_over_expected(y, risk) if known else None,
                "why": why,
            }
        )
    return found


def robustness(changes: Mapping[str, Sequence[Change]]) -> list[dict[str, Any]]:
    """What each fault does to the AUROC."""
    return [
        {"probe": probe, "feature": change.name, "change": change.change, "low": change.low, "high": change.high}
        for probe, found in changes.items()
        for change in found
        if np.isfinite(change.change)
    ]


def _ends(interval: tuple[float, float] | None) -> dict[str, float | None]:
    return {"low": None, "high": None} if interval is None else {"low": interval[0], "high": interval[1]}


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
