"""How the model does for each kind of patient. A group too small to judge says so, and its figures stay unsaid."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from evidence.metrics import Array, auroc, interval

FEWEST_PATIENTS = 30
FEWEST_OF_A_CLASS = 5
"""Fewer than this and an AUROC's interval covers most of its scale; our own convention."""


@dataclass(frozen=True)
class Subgroup:
    """One attribute's value. `auroc` is None where the group is too small, and `why` says by how much."""

    attribute: str
    label: str
    n: int
    auroc: float | None
    interval: tuple[float, float] | None
    why: str | None


def subgroups(attributes: Mapping[str, NDArray[np.str_]], y: Array, risk: Array, seed: int) -> list[Subgroup]:
    """The AUROC of each value of each attribute, (n,) labels beside `y` and `risk` (n,)."""
    found = []
    for attribute, labels in attributes.items():
        for label in sorted(set(labels.tolist())):
            rows = labels == label
            n, events = int(rows.sum()), int(y[rows].sum())
            why = None
            if n < FEWEST_PATIENTS:
                why = f"{n} < {FEWEST_PATIENTS} patients"
            elif min(events, n - events) < FEWEST_OF_A_CLASS:
                why = f"fewer than {FEWEST_OF_A_CLASS} events or non-events among {n}"
            value = None if why else auroc(y[rows], risk[rows])
            spread = None if why else interval(auroc, y[rows], risk[rows], seed)
            found.append(Subgroup(attribute, label, n, value, spread, why))
    return found
