"""The one door from checked records to the numbers a model sees, for a cohort and for a request alike."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from configs.errors import SpecError
from configs.spec import Spec
from features.definitions import Array, Reference

AT = "at"
"""A definition's parameter of this name is the time of prediction, in seconds since 1970, NaN if unknown."""


@dataclass(frozen=True)
class Feature:
    """One named number: a column as it is, or a definition's function of the columns it reads.

    `part` is the number's place where the function gives several at once, (n, k); None where it gives one, (n,).
    """

    name: str
    reads: tuple[str, ...]
    function: Callable[..., Array] | None
    categories: tuple[str, ...]
    part: int | None = None

    def compute(self, values: Mapping[str, Array], at: Array) -> Array:
        """The number of each row, (n,); NaN is missing."""
        if self.function is None:
            return values[self.name]
        found = self.compute_all(values, at)
        return found if self.part is None else found[:, self.part]

    def compute_all(self, values: Mapping[str, Array], at: Array) -> Array:
        """All that the function gives, (n,) or (n, k); NaN is missing."""
        assert self.function is not None
        # An array's rows lie beside one another in memory, so that a sum over one adds up alike in every batch.
        read = {name: at if name == AT else np.ascontiguousarray(values[name]) for name in self.reads}
        with np.errstate(all="ignore"):
            found = self.function(**read)
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
    tables = {name: _table(spec, name) for name in spec.references}
    for name in spec.attributes:
        if any(feature.part is not None for feature in _resolve(spec, tables, "attributes", name)):
            raise SpecError(
                f"configs/diseases/{spec.name}.yaml: attributes: {name!r} gives several numbers; an attribute is one."
            )
    return Plan(
        tuple(feature for name in spec.features for feature in _resolve(spec, tables, "features", name)),
        tuple(feature for name in spec.attributes for feature in _resolve(spec, tables, "attributes", name)),
    )


def build(plan: Plan, values: Mapping[str, Array], at: Array) -> NDArray[np.float32]:
    """The feature matrix (n, d), float32, one column a feature in the plan's order; NaN is missing.

    `values[column]` are checked values, (n,) or of an array (n, length), `at` (n,) the times of prediction. Each row
    depends on nothing but itself. A function that gives several features at once is asked once.
    """
    matrix = np.empty((len(at), len(plan.features)), np.float32)
    with np.errstate(over="ignore"):
        for position, feature in enumerate(plan.features):
            if feature.part is None:
                matrix[:, position] = feature.compute(values, at)
            elif feature.part == 0:
                found = feature.compute_all(values, at)
                matrix[:, position : position + found.shape[1]] = found
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


def _table(spec: Spec, name: str) -> Reference:
    """A reference's lists as arrays, of numbers or of texts."""
    where = f"configs/diseases/{spec.name}.yaml: references.{name}"
    content = spec.references[name].content
    if content is None:
        raise SpecError(f"{where}: its content was not read.")
    found: dict[str, NDArray[Any]] = {}
    for key, value in content.items():
        if isinstance(value, str):
            continue  # what the table is and where it is from
        try:
            found[key] = np.array(value)
        except ValueError as exc:
            raise SpecError(f"{where}: {key}: its lists are of several lengths.") from exc
        if found[key].dtype.kind in "iufb":
            found[key] = found[key].astype(np.float64)
        if found[key].dtype.kind not in "fU" or (found[key].dtype.kind == "f" and not np.isfinite(found[key]).all()):
            raise SpecError(f"{where}: {key}: a list of finite numbers, or one of texts, is expected.")
    return found


def _resolve(spec: Spec, tables: Mapping[str, Reference], key: str, name: str) -> list[Feature]:
    where = f"configs/diseases/{spec.name}.yaml: {key}"
    if name in spec.columns:
        return [Feature(name, (name,), None, spec.columns[name].categories)]
    topic, _, called = name.rpartition(".")
    if not topic:
        raise SpecError(
            f"{where}: {name!r} is no column. Columns: {', '.join(spec.columns)}; a function is 'topic.name'."
        )
    if not topic.isidentifier() or find_spec(f"features.definitions.{topic}") is None:
        raise SpecError(f"{where}: {name!r}: features/definitions/{topic}.py does not exist.")
    module = import_module(f"features.definitions.{topic}")
    known = definitions_of(module)
    if called not in known:
        raise SpecError(f"{where}: {name!r} does not exist. features/definitions/{topic}.py has: {', '.join(known)}.")
    function = getattr(module, called)
    parameters = tuple(inspect.signature(function).parameters)
    reads = tuple(parameter for parameter in parameters if parameter not in tables)
    if lacking := [column for column in reads if column != AT and column not in spec.columns]:
        raise SpecError(
            f"{where}: {name!r} reads the column {lacking[0]!r}, which `columns` does not have, nor `references`."
        )
    constants = {parameter: tables[parameter] for parameter in parameters if parameter in tables}
    bound = partial(function, **constants) if constants else function
    named = getattr(module, "PARTS", {}).get(called)
    try:
        if named is None:
            features = [Feature(name, reads, bound, ())]
        else:
            parts = named(**{parameter: tables[parameter] for parameter in inspect.signature(named).parameters})
            features = [Feature(f"{name}.{part}", reads, bound, (), place) for place, part in enumerate(parts)]
        if constants or any(column != AT and spec.columns[column].length for column in reads):
            _try(spec, features)
    except (KeyError, ValueError, IndexError, TypeError) as exc:
        lengths = {column: spec.columns[column].length for column in reads if column != AT}
        arrays = [f"{column} ({length})" if length else column for column, length in lengths.items()]
        raise SpecError(
            f"{where}: {name!r}: its columns {', '.join(arrays)} and its references {', '.join(constants)} do not fit "
            f"each other ({exc})."
        ) from exc
    return features


def _try(spec: Spec, features: Sequence[Feature]) -> None:
    """Run a definition on one row without values. Raises what it raises where its arrays and tables do not fit."""
    first = features[0]
    widths = {name: spec.columns[name].length for name in first.reads if name != AT}
    values = {name: np.full((1, width) if width else 1, np.nan) for name, width in widths.items()}
    found = first.compute_all(values, np.full(1, np.nan))
    expected = (1,) if first.part is None else (1, len(features))
    if found.shape != expected:
        raise ValueError(f"it gives an array {found.shape} for one row, {expected} is expected")


def definitions_of(module: ModuleType) -> list[str]:
    """The names of a topic's definitions: its own functions, but for those that begin with an underscore."""
    return sorted(
        name
        for name, member in vars(module).items()
        if inspect.isfunction(member) and member.__module__ == module.__name__ and not name.startswith("_")
    )
