"""What becomes of the model when its input is spoilt, and whether it knows the answer by a door that should be shut.

The first kind looks at the test part through a Predictor, the second at the cohort alone. Each draws from a seed, so
that the same bundle and cohort give the same figures.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from configs.spec import Column
from evidence.comparison import delong_interval, paired_interval
from evidence.metrics import Z95, auroc
from features import units
from features.build import AT, Plan
from features.cohort import PARTS, Cohort
from models.family import Fitted
from models.predict import Matrix, Predictor

NOISE = 0.1
"""Of each number's standard deviation in the training part; our own convention for a measurement repeated elsewhere."""
NOISY_REPEATS = 20
PERMUTATIONS = 3
LEAKS = 0.995
"""A single feature whose AUROC is above this is the answer in disguise, not a finding of medicine; our own convention.

2026-11: the best honest one that we know, the worst perimeter of breast_cancer's nuclei, reaches 0.975.
"""
FEWEST_VALUES = 3
"""Present values in a row, before a row like it elsewhere is more than coincidence; our own convention."""
ENOUGH_ALIKE = 30
"""Patients who miss the same features, before how often their values agree is taken from them alone: one pair that was
entered twice is then 1 of 435; our own convention."""


@dataclass(frozen=True)
class Change:
    """What spoiling the `name`d column did to the test part's AUROC: under 0 is a loss. No name: all numbers at once.

    `refused` is the share of its values that the contract would have refused, and that count as missing here: at 1 the
    contract catches the fault, and the model never sees it. The 95 % interval is a paired bootstrap over patients, made
    for the worst of a probe; that of noise is over its repeats.
    """

    name: str
    change: float
    low: float | None = None
    high: float | None = None
    refused: float = 0.0


@dataclass(frozen=True)
class Permuted:
    """The mean AUROC of models of permuted labels, and the interval in which it is chance."""

    auroc: float
    low: float
    high: float


def robustness(predictor: Predictor, cohort: Cohort) -> dict[str, list[Change]]:
    """Every probe of the first kind, by its name: `missing`, `unit slip`, `noise`."""
    return {
        "missing": missing_value(predictor, cohort),
        "unit slip": unit_slip(predictor, cohort),
        "noise": [noise(predictor, cohort)],
    }


def worst(changes: Sequence[Change]) -> Change | None:
    """The greatest loss among the faults that reach the model; None if the contract catches every one."""
    reaching = [change for change in changes if change.refused < 1 and math.isfinite(change.change)]
    return min(reaching, key=lambda change: change.change, default=None)


def missing_value(predictor: Predictor, cohort: Cohort) -> list[Change]:
    """Each column missing for everybody, and with it every feature that reads it.

    A `required` one is refused throughout: its change is what the contract spares us.
    """
    test = cohort.only("test")

    def spoilt() -> Iterator[tuple[str, Matrix, float]]:
        for column, positions in _readers(predictor.plan).items():
            X = test.X.copy()
            X[:, positions] = np.nan
            yield column, X, float(predictor.spec.columns[column].required)

    return _changes(predictor, test, spoilt())


def unit_slip(predictor: Predictor, cohort: Cohort) -> list[Change]:
    """Each number as if it had been written in another unit that we know, and been read in its own; `name (unit)`.

    Only a column that is a feature itself can be spoilt. A definition that reads it is computed anew if the cohort
    holds all that it reads, and otherwise keeps its value. Of an event all columns of its values are spoilt at once,
    `code (unit)`, and their slopes keep their value.
    """
    test, spec = cohort.only("test"), predictor.spec
    read: dict[str, tuple[Column, list[int]]] = {}
    for position, feature in enumerate(predictor.plan.features):
        column = spec.contract_of(feature.name)
        if column is not None:
            read.setdefault(spec.columns[feature.name].event or feature.name, (column, []))[1].append(position)

    def spoilt() -> Iterator[tuple[str, Matrix, float]]:
        for name, (column, positions) in read.items():
            for unit, written in _other_units(column):
                X, shares = test.X.copy(), []
                for position in positions:
                    X[:, position], refused = _written_in(column, written(X[:, position]))
                    shares.append(refused)
                names = {predictor.plan.names[position] for position in positions}
                yield f"{name} ({unit})", _rebuilt(predictor.plan, X, test, names), max(shares)

    return _changes(predictor, test, spoilt())


def noise(predictor: Predictor, cohort: Cohort) -> Change:
    """All numbers at once with gaussian noise of a tenth of their standard deviation in training: the mean change.

    So does every sample of a waveform and pixel of an image, of their standard deviation in all of it. A number stays
    in its contract's range. A definition is computed anew as in `unit_slip`, and left as it is if the cohort does not
    hold all that it reads.
    """
    train, test = cohort.only("train"), cohort.only("test")
    generator = np.random.default_rng(predictor.spec.split.seed)
    before = auroc(test.y, predictor.risk(test.X))
    numbers = {
        position: column.range
        for position, feature in enumerate(predictor.plan.features)
        if (column := predictor.spec.contract_of(feature.name)) and column.range is not None
    }
    found = []
    for _ in range(NOISY_REPEATS):
        X = test.X.copy()
        for position, limits in numbers.items():
            spread = NOISE * float(np.nanstd(train.X[:, position]))
            X[:, position] = np.clip(X[:, position] + generator.normal(0, spread, len(X)), *limits)
        for signal in predictor.plan.signals:
            if signal.column.range is not None:  # a text has none
                spread = NOISE * float(np.nanstd(train.X[:, signal.place]))
                X[:, signal.place] += generator.normal(0, spread, (len(X), signal.size)).astype(np.float32)
        noisy = {predictor.plan.names[position] for position in numbers}
        found.append(auroc(test.y, predictor.risk(_rebuilt(predictor.plan, X, test, noisy))) - before)
    low, high = np.percentile(found, [2.5, 97.5])
    return Change("", float(np.mean(found)), float(low), float(high))


def single_feature(plan: Plan, cohort: Cohort) -> list[tuple[str, float]]:
    """How well each feature alone tells the classes apart, best first; NaN last, where a class is not there.

    A number is judged on the training and the test part, either way round, with what is missing at the end where it
    tells most. A category, with missing as one more, counts as its prevalence in the training part, in the test part.
    """
    train, test = cohort.only("train"), cohort.only("test")
    both = cohort.where(cohort.part != "external")
    found = []
    shown = plan.summary(both.X)
    for position, feature in enumerate(plan.summaries):
        if feature.categories:
            learned, seen = (_levels(part.X[:, position]) for part in (train, test))
            of_level = {level: train.y[learned == level].mean() for level in set(learned.tolist())}
            risk = np.array([of_level.get(level, train.y.mean()) for level in seen.tolist()])
            found.append((feature.name, auroc(test.y, risk)))
        else:
            values = shown[:, position].astype(np.float64)
            filled = (auroc(both.y, np.where(np.isnan(values), end, values)) for end in (-np.inf, np.inf))
            found.append((feature.name, max(max(value, 1 - value) for value in filled)))
    return sorted(found, key=lambda one: (math.isnan(one[1]), -one[1]))


def shared_patients(cohort: Cohort) -> int:
    """Patients who stand in more than one part."""
    return _in_several(cohort.patient.tolist(), cohort.part.tolist())


def shared_rows(cohort: Cohort) -> int:
    """Distinct rows that stand in more than one part, alike in every feature and the outcome, with 3 present values.

    Of a few coarse categories two patients agree by chance: `shared_by_chance` says how many would.
    """
    told: NDArray[np.bool_] = (~np.isnan(cohort.X)).sum(axis=1) >= FEWEST_VALUES
    rows = cohort.where(told)
    return _in_several(_row_keys(rows), rows.part.tolist())


def distinct_rows(cohort: Cohort) -> int:
    """How many different rows there are, every feature and the outcome taken together."""
    return len(set(_row_keys(cohort)))


def shared_by_chance(cohort: Cohort) -> float:
    """Pairs of rows across two parts that are alike by chance, if no feature has to do with another.

    Within an outcome, only two patients who miss the same features can be alike: what is missing goes together, as of
    whoever has no history. They then agree in a feature as often as two drawn from its values do, and in all of them by
    the product; the values are those of the patients who miss the same, where there are 30 of them, or else of all who
    have one. Features that go together agree more often, so this is the least that chance does. Where it is near 0 a
    shared row is one patient entered twice; where it is not, shared rows say little.
    """
    expected = 0.0
    for outcome in (0, 1):
        rows = cohort.where(cohort.y == outcome)
        agree = [_agreement(column[~np.isnan(column)]) for column in rows.X.T]
        missing, kind = np.unique(np.isnan(rows.X), axis=0, return_inverse=True)
        for place, gone in enumerate(missing):
            alike = rows.where(kind == place)
            counts = np.array([(alike.part == part).sum() for part in PARTS], np.float64)
            across = (counts.sum() ** 2 - (counts**2).sum()) / 2
            many = len(alike) >= ENOUGH_ALIKE
            present = np.flatnonzero(~gone)
            expected += float(across * np.prod([_agreement(alike.X[:, p]) if many else agree[p] for p in present]))
    return expected


def measured_later(cohort: Cohort) -> tuple[int, str] | None:
    """How many values were measured after the time of prediction, and the column with most of them.

    None where no column of the spec names `measured_at`.
    """
    if not cohort.future:
        return None
    return sum(cohort.future.values()), max(cohort.future, key=lambda column: cohort.future[column])


def label_permutation(cohort: Cohort, fit: Callable[[Cohort], Fitted], seed: int) -> Permuted:
    """Whether models of permuted training labels know nothing of the test part's true ones; `fit` is training's own.

    A model of permuted labels leans one way or the other, and where a single direction tells much, that alone makes
    AUROCs of 0.1 and of 0.9. So each permutation is learned twice, the second time with its classes exchanged: the two
    lean opposite ways, and their mean is 0.5 unless the outcome comes in by another door. Of several classes the event
    alone is learned.

    The interval of chance is that of 95 % of risks that have nothing to do with the outcome, on these test patients:
    0.5 and 1.96 times the standard deviation of the Mann-Whitney statistic. NaN without both classes.
    Source: Ojala M, Garriga GC. J Mach Learn Res 2010;11:1833-1863; Mann HB, Whitney DR. Ann Math Stat 1947;18:50-60.
    """
    train, test = cohort.only("train"), cohort.only("test")
    generator = np.random.default_rng(seed)
    found = []
    for _ in range(PERMUTATIONS):
        labels = generator.permutation(train.y)
        for y in (labels, 1 - labels):
            found.append(auroc(test.y, fit(replace(train, y=y, label=None)).log_odds(test.X)))
    events = float(test.y.sum())
    pairs = events * (len(test) - events)
    half = Z95 * math.sqrt((len(test) + 1) / (12 * pairs)) if pairs else math.nan
    return Permuted(float(np.mean(found)), 0.5 - half, 0.5 + half)


def absence(cohort: Cohort, fit: Callable[[Cohort], Fitted]) -> tuple[float, tuple[float, float] | None] | None:
    """The test AUROC, and its 95 % interval, of a model that sees which features are missing, and not one value.

    None where nothing is missing. `fit` is training's own of `plain_family`; of several classes the event alone is
    learned. Which tests were asked for tells something of a patient. Where it tells the most of all, the model has
    learned how the study was run: in one table of ovarian tumours it reaches 0.84 (2026-11, docs/benchmarks.md).
    """
    if not np.isnan(cohort.X).any():
        return None
    train, test = (
        replace(part, X=np.isnan(part.X).astype(np.float32), label=None)
        for part in (cohort.only("train"), cohort.only("test"))
    )
    told = fit(train).log_odds(test.X)
    return auroc(test.y, told), delong_interval(test.y, told)


def plain_family(family: str) -> str:
    """The family of plain numbers that a probe of plain numbers is fitted with: the bundle's own, or logistic."""
    return family if family in ("boosted", "logistic") else "logistic"


def _changes(predictor: Predictor, test: Cohort, spoilt: Iterable[tuple[str, Matrix, float]]) -> list[Change]:
    """The change that each (name, X, share refused) makes, with an interval for the worst. One X is held at a time."""
    before = predictor.risk(test.X)
    found, risks = [], []
    for name, X, refused in spoilt:
        risks.append(predictor.risk(X))
        found.append(Change(name, auroc(test.y, risks[-1]) - auroc(test.y, before), refused=refused))
    if (most := worst(found)) is not None:
        place = found.index(most)
        paired = paired_interval(auroc, test.y, risks[place], before, predictor.spec.split.seed)
        found[place] = replace(most, low=paired.low, high=paired.high)
    return found


def _readers(plan: Plan) -> dict[str, list[int]]:
    """For each column that the model reads, the positions of the features that read it."""
    found: dict[str, list[int]] = {}
    for position, feature in enumerate(plan.features):
        for column in feature.reads:
            if column != AT:
                found.setdefault(column, []).append(position)
    for signal in plan.signals:
        found.setdefault(signal.name, []).extend(range(signal.place.start, signal.place.stop))
    return found


def _other_units(column: Column) -> Iterator[tuple[str, units.Conversion]]:
    """The units that the column's number might have been written in, each with the way there from the column's own."""
    if column.unit is None:
        return
    for unit in units.beside(column.unit, column.accepts, column.loinc):
        written = units.conversion(column.unit, unit, column.loinc)
        assert written is not None  # what can be brought here can be brought there
        yield unit, written


def _written_in(column: Column, values: NDArray[np.float32]) -> tuple[NDArray[np.float32], float]:
    """The values as the contract would take them, those outside its range missing, and the share of the present ones
    that this costs."""
    assert column.range is not None  # the Spec demands it of a number
    low, high = column.range
    present = ~np.isnan(values)
    outside = present & ~((values >= low) & (values <= high))
    for rule, beyond in ((column.below_detection, np.less), (column.above_detection, np.greater)):
        if rule is not None:
            values = np.where(beyond(values, rule.limit), np.float32(rule.counts_as), values)
    return np.where(outside, np.float32(np.nan), values), float(outside.sum() / max(present.sum(), 1))


def _rebuilt(plan: Plan, X: Matrix, test: Cohort, spoilt: set[str]) -> Matrix:
    """X with the definitions that read a spoilt column computed anew, where X holds all the columns that they read."""
    values = {
        feature.name: X[:, position].astype(np.float64)
        for position, feature in enumerate(plan.features)
        if feature.function is None
    }
    for position, feature in enumerate(plan.features):
        if feature.function is not None and spoilt & set(feature.reads) and {*feature.reads} - {AT} <= set(values):
            X[:, position] = feature.compute(values, test.at)
    return X


def _levels(column: NDArray[np.float32]) -> NDArray[np.float32]:
    """Each row's category; -1 is missing."""
    return np.nan_to_num(column, nan=-1.0)


def _in_several(who: Sequence[object], part: Sequence[str]) -> int:
    """How many of `who` stand in more than one part."""
    parts: dict[object, set[str]] = {}
    for one, where in zip(who, part, strict=True):
        parts.setdefault(one, set()).add(where)
    return sum(len(found) > 1 for found in parts.values())


def _row_keys(cohort: Cohort) -> list[bytes]:
    table = np.column_stack([cohort.X.astype(np.float64), cohort.y])
    return [row.tobytes() for row in np.where(np.isnan(table), np.inf, table)]  # a NaN has many bit patterns


def _agreement(column: NDArray[np.float32]) -> float:
    """The share of pairs of rows that have the same value, or miss it alike."""
    alike = np.unique(column, return_counts=True)[1]
    return float((alike * (alike - 1)).sum() / max(len(column) * (len(column) - 1), 1))
