"""The one door from checked records to the numbers a model sees, for a cohort and for a request alike."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec

import numpy as np
from numpy.typing import NDArray

from configs.errors import SpecError
from configs.spec import Spec
from features.definitions import Array

AT = "at"
"""A definition's parameter of this name is the time of prediction, in seconds since 1970, NaN if unknown."""


@dataclass(frozen=True)
class Feature:
    """One named number: a column as it is, or a definition's function of the columns it reads."""

    name: str
    reads: tuple[str, ...]
    function: Callable[..., Array] | None
    categories: tuple[str, ...]

    def compute(self, values: Mapping[str, Array], at: Array) -> Array:
        if self.function is None:
            return values[self.name]
        with np.errstate(all="ignore"):
            found = self.function(*(at if name == AT else values[name] for name in self.reads))
        return np.where(np.isfinite(found), found, np.nan)  # a division by zero is unknown, not infinite


@dataclass(frozen=True)
class Plan:
    """The Spec's features and attributes, every name resolved."""

    features: tuple[Feature, ...]
    attributes: tuple[Feature, ...]

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(feature.name for feature in self.features)


def plan(spec: Spec) -> Plan:
    """The functions behind the Spec's names. Raises SpecError for a name that is nothing in the repository."""
    return Plan(
        tuple(_resolve(spec, "features", name) for name in spec.features),
        tuple(_resolve(spec, "attributes", name) for name in spec.attributes),
    )


def build(plan: Plan, values: Mapping[str, Array], at: Array) -> NDArray[np.float32]:
    """The feature matrix (n, d), float32, one column a feature in the plan's order; NaN is missing.

    `values[column]` (n,) are checked values, `at` (n,) the times of prediction. Each row depends on nothing but itself.
    """
    matrix = np.empty((len(at), len(plan.features)), np.float32)
    with np.errstate(over="ignore"):
        for position, feature in enumerate(plan.features):
            matrix[:, position] = feature.compute(values, at)
    matrix[~np.isfinite(matrix)] = np.nan  # one bit pattern for everything that is unknown
    return matrix


def attributes(plan: Plan, values: Mapping[str, Array], at: Array) -> dict[str, NDArray[np.str_]]:
    """Each attribute's label a row, (n,): a category's name, a number as text, `unknown` where missing."""
    found = {}
    for feature in plan.attributes:
        column = feature.compute(values, at)
        text = [
            "unknown" if np.isnan(value) else feature.categories[int(value)] if feature.categories else f"{value:g}"
            for value in column
        ]
        found[feature.name.rpartition(".")[2]] = np.array(text, dtype=np.str_)
    return found


def _resolve(spec: Spec, key: str, name: str) -> Feature:
    where = f"configs/diseases/{spec.name}.yaml: {key}"
    if name in spec.columns:
        return Feature(name, (name,), None, spec.columns[name].categories)
    topic, _, called = name.rpartition(".")
    if not topic:
        raise SpecError(
            f"{where}: {name!r} is no column. Columns: {', '.join(spec.columns)}; a function is 'topic.name'."
        )
    if not topic.isidentifier() or find_spec(f"features.definitions.{topic}") is None:
        raise SpecError(f"{where}: {name!r}: features/definitions/{topic}.py does not exist.")
    module = import_module(f"features.definitions.{topic}")
    known = sorted(
        member
        for member, value in vars(module).items()
        if inspect.isfunction(value) and value.__module__ == module.__name__
    )
    if called not in known:
        raise SpecError(f"{where}: {name!r} does not exist. features/definitions/{topic}.py has: {', '.join(known)}.")
    function = getattr(module, called)
    reads = tuple(inspect.signature(function).parameters)
    if lacking := [column for column in reads if column != AT and column not in spec.columns]:
        raise SpecError(f"{where}: {name!r} reads the column {lacking[0]!r}, which `columns` does not have.")
    return Feature(name, reads, function, ())
