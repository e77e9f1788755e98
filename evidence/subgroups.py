"""How the model does for each kind of patient. A group too small to judge says so, and its figures stay unsaid.

`attributes[name]` (n,) labels stand beside `y` (n,), 0 or 1, and `risk` (n,). Patients without a value are a group of
their own. No figure here tells of fewer than 10 patients, nor lets them be found by subtraction.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from evidence.metrics import Array, auroc, interval, observed_over_expected, wilson

SMALLEST_CELL = 10
"""Counts below this are not told, lest a figure speak of single patients."""
UNTOLD = f"fewer than {SMALLEST_CELL}"

FEWEST_PATIENTS = 30
"""Fewer than this and an AUROC's interval covers most of its scale; our own convention."""
FEWEST_OF_A_CLASS = SMALLEST_CELL
"""As few events as this leave an AUROC and an observed / expected ratio that their events could be counted from."""


@dataclass(frozen=True)
class Rates:
    """A subgroup at one threshold: the share of events that is found, of non-events that is alerted for nothing.

    95 % intervals by Wilson's score. All None, and `why` says so, where one of the counts behind them is under 10.
    """

    sensitivity: float | None
    sensitivity_interval: tuple[float, float] | None
    false_alarm_share: float | None
    false_alarm_interval: tuple[float, float] | None
    why: str | None


@dataclass(frozen=True)
class Subgroup:
    """One attribute's value. `auroc` is None where the group is too small, and `why` says by how much.

    A count is None if it is under 10, or would tell another group's that is. `calibration` is observed over expected
    events; `at[point]` the rates at that operating point.
    """

    attribute: str
    label: str
    n: int | None
    auroc: float | None
    interval: tuple[float, float] | None
    why: str | None
    events: int | None = None
    non_events: int | None = None
    calibration: float | None = None
    calibration_interval: tuple[float, float] | None = None
    at: Mapping[str, Rates] = field(default_factory=dict)

    @property
    def counted(self) -> str:
        """The group's size, as a text that tells no more than it may."""
        if self.n is None:
            return "patients not counted, as too few are in this group or in another"
        return f"{self.n} patients" if self.events is None else f"{self.n} patients, {self.events} events"


@dataclass(frozen=True)
class Gap:
    """The largest difference between two subgroups, and between which; None, and why, if it cannot be told."""

    value: float | None
    about: str


def subgroups(
    attributes: Mapping[str, NDArray[np.str_]],
    y: Array,
    risk: Array,
    seed: int,
    thresholds: Mapping[str, float] | None = None,
) -> list[Subgroup]:
    """Each value of each attribute: counts, AUROC, calibration, and rates at each of the thresholds by point's name."""
    found = []
    for attribute, labels in attributes.items():
        names = sorted(set(labels.tolist()))
        members = [labels == name for name in names]
        events = told([int(y[rows].sum()) for rows in members])
        non_events = told([int((1 - y[rows]).sum()) for rows in members])
        for name, rows, n, *classes in zip(
            names, members, told([int(rows.sum()) for rows in members]), events, non_events, strict=True
        ):
            # any two of the three counts tell the third
            known = (None, None) if n is None or None in classes else (classes[0], classes[1])
            found.append(_judged(attribute, name, n, known, y[rows], risk[rows], seed, thresholds or {}))
    return found


def told(counts: Sequence[int]) -> list[int | None]:
    """The counts that may be told; None instead of those under 10, and of the next smallest if all others tell them."""
    hidden = [count for count in counts if count < SMALLEST_CELL]
    shown = sorted(count for count in counts if count >= SMALLEST_CELL)
    limit = shown[0] if hidden and shown and sum(hidden) < SMALLEST_CELL else None
    result: list[int | None] = [count if count >= SMALLEST_CELL else None for count in counts]
    if limit is not None:
        result[result.index(limit)] = None
    return result


def equalized_odds_difference(groups: Sequence[Subgroup], attribute: str, point: str) -> Gap:
    """The larger of the gaps in sensitivity and in false alarms between an attribute's subgroups, at that point.

    Over the subgroups whose rates may be told. Source: Hardt M, Price E, Srebro N. Equality of opportunity in
    supervised learning. NIPS 2016; the larger of the two as in Fairlearn.
    """
    rates = {
        group.label: group.at[point] for group in groups if group.attribute == attribute and group.at[point].why is None
    }
    if len(rates) < 2:
        return Gap(None, f"{attribute} at {point}: {len(rates)} subgroups with rates to tell, 2 are needed")
    gaps = []
    for title, by_label in (
        ("sensitivity", {label: rate.sensitivity or 0.0 for label, rate in rates.items()}),
        ("false alarms", {label: rate.false_alarm_share or 0.0 for label, rate in rates.items()}),
    ):
        high, low = max(by_label, key=by_label.__getitem__), min(by_label, key=by_label.__getitem__)
        about = f"{title} at {point}: {attribute} {high} {by_label[high]:.3f}, {low} {by_label[low]:.3f}"
        gaps.append(Gap(by_label[high] - by_label[low], about))
    return max(gaps, key=lambda gap: gap.value or 0.0)


def _judged(
    attribute: str,
    label: str,
    n: int | None,
    classes: tuple[int | None, int | None],
    y: Array,
    risk: Array,
    seed: int,
    thresholds: Mapping[str, float],
) -> Subgroup:
    why = _too_small(n, y)
    at = {point: _rates(y, risk, threshold) for point, threshold in thresholds.items()}
    if why:
        return Subgroup(attribute, label, n, None, None, why, *classes, at=at)
    return Subgroup(
        attribute,
        label,
        n,
        auroc(y, risk),
        interval(auroc, y, risk, seed),
        None,
        *classes,
        observed_over_expected(y, risk),
        interval(observed_over_expected, y, risk, seed),
        at,
    )


def _too_small(n: int | None, y: Array) -> str | None:
    if len(y) < SMALLEST_CELL:
        return f"{UNTOLD} patients"
    if len(y) < FEWEST_PATIENTS:
        return f"{n} < {FEWEST_PATIENTS} patients" if n is not None else f"fewer than {FEWEST_PATIENTS} patients"
    if min(y.sum(), len(y) - y.sum()) < FEWEST_OF_A_CLASS:
        return f"fewer than {FEWEST_OF_A_CLASS} events or non-events" + (f" among {n}" if n is not None else "")
    return None


def _rates(y: Array, risk: Array, threshold: float) -> Rates:
    alert = risk >= threshold
    events, alerts = int(y.sum()), int(alert.sum())
    cells = {"patients": len(y), "events": events, "non-events": len(y) - events, "alerts": alerts}
    if few := [name for name, count in cells.items() if count < SMALLEST_CELL]:
        return Rates(None, None, None, None, f"{UNTOLD} {few[0]}")
    found = int(y[alert].sum())
    return Rates(
        found / events,
        wilson(found, events),
        (alerts - found) / (len(y) - events),
        wilson(alerts - found, len(y) - events),
        None,
    )
