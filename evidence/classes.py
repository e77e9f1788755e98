"""How good the risks of several classes are: each against the rest, all together, and what naming one of them costs.

`label` (n,) numbers each patient's class in the order of the spec's `outcome.classes`, `risks` (n, K) are the classes'
probabilities, and `said` (n,) is the number of the class that the model names. No figure tells of fewer than 10
patients of a class, nor lets them be found by subtraction; a class that nobody has says so.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from configs.spec import Bound, Spec
from evidence import calibration
from evidence.checks import gated
from evidence.comparison import delong_interval
from evidence.metrics import (
    SMALLEST_RISK,
    Array,
    auroc,
    brier,
    calibration_intercept,
    calibration_slope,
    interval,
    observed_over_expected,
    wilson,
)
from evidence.report import Finding
from evidence.subgroups import FEWEST_PATIENTS, SMALLEST_CELL, UNTOLD, told
from models import decision

Places = NDArray[np.int64]
"""Classes by their numbers."""


@dataclass(frozen=True)
class OneClass:
    """One class against all others together. The figures are None where too few have it or do not, and `why` says so.

    `n` is None where it may not be told. `oe` is observed over expected patients of the class.
    """

    name: str
    n: int | None
    auroc: float | None = None
    auroc_interval: tuple[float, float] | None = None
    oe: float | None = None
    oe_interval: tuple[float, float] | None = None
    slope: float | None = None
    slope_interval: tuple[float, float] | None = None
    intercept: float | None = None
    brier: float | None = None
    ici: float | None = None
    why: str | None = None


@dataclass(frozen=True)
class Costs:
    """The mean cost of a patient, of the classes that the model names and of the one class that is cheapest for all.

    `difference`: the model's less the other's, with its 95 % interval over patients.
    """

    model: float
    same_for_all: float
    same: int
    difference: float
    interval: tuple[float, float] | None


@dataclass(frozen=True)
class Origin:
    """How often the class of patients `of` the positives is among the first so many guesses; None of fewer than 10."""

    of: str
    guesses: int
    n: int | None
    right: float | None
    low: float | None
    high: float | None


def one_against_rest(names: Sequence[str], label: Array, risks: Array, seed: int) -> list[OneClass]:
    """Each class against the rest: discrimination and calibration, as far as 10 patients have it and 10 do not."""
    found = []
    for place, (name, n, why) in enumerate(_counted(names, label)):
        if why is not None:
            found.append(OneClass(name, n, why=why))
            continue
        y, risk = (label == place).astype(np.float64), risks[:, place]
        found.append(
            OneClass(
                name,
                n,
                auroc(y, risk),
                delong_interval(y, risk),
                observed_over_expected(y, risk),
                interval(observed_over_expected, y, risk, seed),
                _finite(calibration_slope(y, risk)),
                interval(calibration_slope, y, risk, seed),
                _finite(calibration_intercept(y, risk)),
                brier(y, risk),
                _finite(calibration.ici(y, risk)[0]),
            )
        )
    return found


def hand_till(label: Array, risks: Array) -> float:
    """M: the mean, over all pairs of classes, of how well each one's risk tells it from the other; 0.5 is chance.

    Unlike the mean of the AUROCs against the rest it does not change with how many patients of each class there are.
    NaN with fewer than two classes. Source: Hand DJ, Till RJ. A simple generalisation of the area under the ROC curve
    for multiple class classification problems. Mach Learn 2001;45:171-186, doi:10.1023/A:1010920819831.
    """
    pairs = []
    for one, other in combinations(np.unique(label).astype(int).tolist(), 2):
        rows = (label == one) | (label == other)
        is_one = (label[rows] == one).astype(np.float64)
        pairs.append((auroc(is_one, risks[rows, one]) + auroc(1 - is_one, risks[rows, other])) / 2)
    return float(np.mean(pairs)) if pairs else float("nan")


def log_loss(label: Array, risks: Array) -> float:
    """Mean negative log of the probability that the patient's own class was given; 0 is perfect."""
    if not len(label):
        return float("nan")
    return float(-np.mean(np.log(np.clip(_own(label, risks), SMALLEST_RISK, 1))))


def squared_error(label: Array, risks: Array) -> float:
    """The Brier score over all classes, 0 to 2: the squared distance of risks and what happened, summed over them.

    Of two classes it is twice the usual score. Source: Brier GW. Verification of forecasts expressed in terms of
    probability. Mon Weather Rev 1950;78:1-3.
    """
    if not len(label):
        return float("nan")
    return float(np.mean((risks**2).sum(axis=1) - 2 * _own(label, risks) + 1))


def cost_of(label: Array, said: Places, costs: Array, seed: int, weight: Array | None = None) -> Costs:
    """What the model's choices cost beside the better of saying one class of everybody; `costs[true, said]` (K, K).

    The one class is the cheapest on these very patients, which favours it. `weight` (n,), of mean 1: how many people
    each patient stands for.
    """
    of_patient = costs[label.astype(np.int64)] * (1.0 if weight is None else weight[:, None])
    same = int(of_patient.mean(axis=0).argmin())
    model = of_patient[np.arange(len(label)), said]
    difference = model - of_patient[:, same]
    spread = interval(lambda gap, _: float(gap.mean()), difference, difference, seed)
    return Costs(float(model.mean()), float(of_patient[:, same].mean()), same, float(difference.mean()), spread)


def confusion(names: Sequence[str], label: Array, said: Places) -> list[list[int | None]]:
    """Of how many patients of each class (rows) each class was named (columns), to the nearest ten.

    None under 10, and in the row of a class of fewer than 30 patients or whose number may not be told. To the ten, for
    the number of a class, the share named right and the mean cost together would tell the small counts otherwise.
    """
    counts = np.zeros((len(names), len(names)), np.int64)
    np.add.at(counts, (label.astype(np.int64), said), 1)
    rounded = [
        [None if count < SMALLEST_CELL else round(count / SMALLEST_CELL) * SMALLEST_CELL for count in row]
        for row in counts.tolist()
    ]
    nobody: list[int | None] = [None] * len(names)
    known = _counted(names, label)
    return [row if (n or 0) >= FEWEST_PATIENTS else nobody for (_, n, _), row in zip(known, rounded, strict=True)]


def named_right(label: Array, risks: Array, among: Sequence[int], guesses: int) -> NDArray[np.bool_]:
    """For each patient (n,) whether its class is one of the likeliest so many of the classes `among`."""
    order = np.argsort(-risks[:, list(among)], axis=1, kind="stable")[:, :guesses]
    return np.asarray((np.asarray(among)[order] == label[:, None]).any(axis=1))


def named_among_positives(spec: Spec, label: Array, risks: Array, thresholds: Mapping[str, float]) -> Iterator[Origin]:
    """Of the patients with a positive class, all and those found at each point: whose class is the likeliest of these.

    Nothing with one positive class. The first two guesses are looked at where there are three positive classes or more.
    """
    names = list(spec.outcome.classes or ())
    positive = [names.index(name) for name in spec.outcome.positive]
    if len(positive) < 2:
        return
    is_positive, risk = np.isin(label, positive), risks[:, positive].sum(axis=1)
    found = {f"those found at {point}": is_positive & (risk >= cut) for point, cut in thresholds.items()}
    for guesses in (1, 2) if len(positive) > 2 else (1,):
        right = named_right(label, risks, positive, guesses)
        for who, rows in {"all": is_positive, **found}.items():
            n, hits = int(rows.sum()), int(right[rows].sum())
            if n < SMALLEST_CELL:
                yield Origin(who, guesses, None, None, None, None)
            else:
                yield Origin(who, guesses, n, hits / n, *(wilson(hits, n) or (None, None)))


def judged(
    spec: Spec,
    label: Array,
    risks: Array,
    sets: NDArray[np.bool_] | None,
    thresholds: Mapping[str, float],
) -> list[Finding]:
    """MM039 to MM049 and MM054: several classes of a version's test patients. `sets` (n, K), or none.

    A class of fewer than 10 test patients, or of none, is named and has no figure; the others are judged without it.
    """
    names, outcome, seed = list(spec.outcome.classes or ()), spec.outcome, spec.split.seed
    classes = one_against_rest(names, label, risks, seed)
    costs = decision.costs(outcome)
    said = decision.said(risks, costs)
    return [
        *_of_each(classes),
        _worst(classes, spec.gates.worst_class_auroc),
        *_of_all(spec, classes, label, risks),
        _accuracy(label, said, "least expected cost" if costs is not None else "the highest risk"),
        *_costs(spec, label, said, costs),
        *_among_positives(spec, label, risks, thresholds),
        *_sizes(sets),
    ]


def drawn(
    spec: Spec,
    label: Array,
    risks: Array,
    sets: NDArray[np.bool_] | None,
    thresholds: Mapping[str, float],
) -> dict[str, Any]:
    """What the review page draws of several classes; arguments as of `judged`."""
    names, seed = list(spec.outcome.classes or ()), spec.split.seed
    classes = one_against_rest(names, label, risks, seed)
    curves = {
        one.name: calibration.drawn((label == place).astype(np.float64), risks[:, place], seed)
        for place, one in enumerate(classes)
        if one.why is None
    }
    said = decision.said(risks, decision.costs(spec.outcome))
    return {
        "classes": [
            {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(one).items()}
            for one in classes
        ],
        "confusion": {"classes": names, "rows": confusion(names, label, said)},
        "origins": [asdict(one) for one in named_among_positives(spec, label, risks, thresholds)],
        "class_calibration": {name: curve for name, curve in curves.items() if curve},
        "class_sets": [] if sets is None else list(_sets_by_class(names, label, sets)),
    }


def _counted(names: Sequence[str], label: Array) -> Iterator[tuple[str, int | None, str | None]]:
    """Each class, how many have it as far as it may be told, and why it has no figures."""
    counts = np.bincount(label.astype(np.int64), minlength=len(names)).tolist()
    may_be_told = iter(told([count for count in counts if count]))
    for name, count in zip(names, counts, strict=True):
        if not count:
            yield name, 0, f"none of the {len(label)} patients is of this class"
            continue
        n = next(may_be_told)
        why = None
        if count < SMALLEST_CELL:
            why = f"{UNTOLD} patients are of this class"
        elif len(label) - count < SMALLEST_CELL:
            why = f"{UNTOLD} patients are of another class"
        yield name, n, why


def _of_each(classes: Sequence[OneClass]) -> Iterator[Finding]:
    """MM039, discrimination, and MM040 and MM041, calibration, of each class against the rest."""
    for one in classes:
        against = f"{one.name} against the rest"
        if one.why is not None:
            for code, title in (("MM039", "AUROC"), ("MM040", "observed / expected"), ("MM041", "calibration slope")):
                yield Finding(code, f"{title}, {against}", "not applicable", None, None, one.why)
            continue
        about = "not counted, as too few are of another class" if one.n is None else f"{one.n} patients of this class"
        yield gated("MM039", f"AUROC, {against}", one.auroc, one.auroc_interval, None, about)
        yield gated("MM040", f"observed / expected, {against}", one.oe, one.oe_interval, None, about)
        further = {"intercept": one.intercept, "ICI": one.ici, "Brier score": one.brier}
        figures = ", ".join(f"{name} {'none' if value is None else f'{value:.3f}'}" for name, value in further.items())
        yield gated("MM041", f"calibration slope, {against}", one.slope, one.slope_interval, None, figures)


def _worst(classes: Sequence[OneClass], bound: Bound | None) -> Finding:
    """MM042: the class that is told worst from the rest."""
    title, known = "worst class's AUROC", [one for one in classes if one.auroc is not None]
    if not known:
        why = "; ".join(f"{one.name}: {one.why}" for one in classes)
        return Finding("MM042", title, "not applicable", None, bound.text if bound else None, why)
    worst = min(known, key=lambda one: one.auroc or 0.0)
    about = f"{worst.name} against the rest; {_left_out(classes)}"
    return gated("MM042", title, worst.auroc, worst.auroc_interval, bound, about)


def _of_all(spec: Spec, classes: Sequence[OneClass], label: Array, risks: Array) -> Iterator[Finding]:
    """MM043 to MM045: the classes together, by pairs, by the log loss and by the Brier score."""
    seed = spec.split.seed
    rows = np.isin(label, [place for place, one in enumerate(classes) if one.why is None])
    pairs, among = hand_till(label[rows], risks[rows]), f"Hand and Till's M over pairs of classes; {_left_out(classes)}"
    spread = interval(hand_till, label[rows], risks[rows], seed) if np.isfinite(pairs) else None
    yield gated("MM043", "macro AUROC", pairs, spread, spec.gates.macro_auroc, among)
    mix = np.tile(np.bincount(label.astype(np.int64), minlength=len(classes)) / max(len(label), 1), (len(label), 1))
    for code, title, metric in (
        ("MM044", "log loss over the classes", log_loss),
        ("MM045", "Brier score over the classes", squared_error),
    ):
        about = f"{len(label)} patients; {metric(label, mix):.3f} if everybody had the classes' shares for risks"
        yield gated(code, title, metric(label, risks), interval(metric, label, risks, seed), None, about)


def _left_out(classes: Sequence[OneClass]) -> str:
    without = [one.name for one in classes if one.why is not None]
    return f"{len(classes) - len(without)} of {len(classes)} classes judged" + (
        f", without {', '.join(without)}" if without else ""
    )


def _accuracy(label: Array, said: Places, rule: str) -> Finding:
    right = int((said == label).sum())
    about = f"the class of {rule} is the patient's own; {len(label)} patients"
    accuracy = right / len(label) if len(label) else None
    return gated(
        "MM046", "share of patients whose class is named right", accuracy, wilson(right, len(label)), None, about
    )


def _costs(spec: Spec, label: Array, said: Places, costs: Array | None) -> Iterator[Finding]:
    """MM047 fails where the choices surely cost more than naming one class for all; MM054 tells it where people are
    screened, whose classes have other shares than the risks were learned from."""
    names, seed = list(spec.outcome.classes or ()), spec.split.seed
    unit = "every wrong class costs 1" if costs is None else "by the spec's `outcome.costs`"
    matrix = 1 - np.eye(len(names)) if costs is None else costs

    def told(cost: Costs) -> str:
        return (
            f"a patient costs {cost.model:.3f} by the model's choices, {cost.same_for_all:.3f} if {names[cost.same]} "
            f"is said of everybody, the cheapest on these patients; {unit}"
        )

    title, never_more = (
        "cost of the classes named, less the cheapest for all",
        Bound(low=None, high=0.0, by_interval=True),
    )
    cost = cost_of(label, said, matrix, seed)
    yield gated("MM047", title, cost.difference, cost.interval, never_more, told(cost))
    if spec.screening is None:
        return
    title = f"{title}, where {100 * spec.screening.prevalence:.3g} % have the disease"
    positive = np.isin(label, [names.index(name) for name in spec.outcome.positive])
    if min(positive.sum(), (~positive).sum()) < SMALLEST_CELL:
        yield Finding("MM054", title, "not applicable", None, None, f"{UNTOLD} patients with the event, or without")
        return
    share, there = positive.mean(), spec.screening.prevalence
    weight = np.where(positive, there / share, (1 - there) / (1 - share))
    cost = cost_of(label, said, matrix, seed, weight)
    about = f"{told(cost)}; the risks are those of the study, where {share:.1%} have it"
    yield gated("MM054", title, cost.difference, cost.interval, None, about)


def _among_positives(spec: Spec, label: Array, risks: Array, thresholds: Mapping[str, float]) -> Iterator[Finding]:
    """MM048: whose positive class is named right."""
    for one in named_among_positives(spec, label, risks, thresholds):
        guess = "first guess" if one.guesses == 1 else "first two guesses"
        title = f"right class of the positives, {guess}, of {one.of}"
        if one.right is None or one.low is None or one.high is None:
            yield Finding("MM048", title, "not applicable", None, None, f"{UNTOLD} patients")
            continue
        about = f"{one.n} patients; the likeliest of {', '.join(spec.outcome.positive)}, whatever the other risks"
        yield gated("MM048", title, one.right, (one.low, one.high), None, about)


def _sizes(sets: NDArray[np.bool_] | None) -> list[Finding]:
    """MM049: how many classes a prediction set leaves possible."""
    if sets is None or not len(sets):
        return []
    size = sets.sum(axis=1)
    shares = ", ".join(
        f"{share:.0%} {what}"
        for share, what in (
            ((size == 1).mean(), "one class left"),
            ((size == 0).mean(), "none"),
            ((size == sets.shape[1]).mean(), "all"),
        )
    )
    about = f"classes in the prediction set of a patient, on average, of {sets.shape[1]}; {shares}"
    return [gated("MM049", "size of the prediction sets", float(size.mean()), None, None, about)]


def _sets_by_class(names: Sequence[str], label: Array, sets: NDArray[np.bool_]) -> Iterator[dict[str, Any]]:
    """For each class of 30 patients and more: the sets' mean size, and the shares with one class, and the right one."""
    size = sets.sum(axis=1)
    for place, (name, n, why) in enumerate(_counted(names, label)):
        if why is None and n is not None and n >= FEWEST_PATIENTS:
            rows = label == place
            alone = (size == 1) & sets[np.arange(len(sets)), label.astype(np.int64)]
            yield {
                "class": name,
                "n": n,
                "size": float(size[rows].mean()),
                "one": float((size[rows] == 1).mean()),
                "right_alone": float(alone[rows].mean()),
            }


def _own(label: Array, risks: Array) -> Array:
    """The risk (n,) of each patient's own class."""
    return risks[np.arange(len(label)), label.astype(np.int64)]


def _finite(value: float) -> float | None:
    return value if np.isfinite(value) else None
