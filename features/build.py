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
from configs.spec import Column, Spec
from features import images, texts, waveforms
from features.definitions import Array, Profile, Reference

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
class Signal:
    """A feature that is read as a whole: a waveform, an image or a text. Its floats begin at `start` of a row of X."""

    name: str
    column: Column
    start: int

    @property
    def size(self) -> int:
        assert self.column.size is not None  # of a signal
        return self.column.size

    @property
    def place(self) -> slice:
        """Its columns of X."""
        return slice(self.start, self.start + self.size)

    def of(self, X: NDArray[np.float32]) -> NDArray[np.float32]:
        """X (n, d) narrowed to the signal, (n, *shape); NaN throughout where it is missing."""
        return X[:, self.place].reshape(len(X), *self.column.shape)

    def compute(self, values: Mapping[str, Array]) -> Profile:
        """What a model sees of the checked values, (n, size)."""
        found = values[self.name]
        return waveforms.seen(self.column, found) if self.column.type == "waveform" else found

    def summary(self, X: NDArray[np.float32]) -> Array:
        """One number that tells of each row's signal, (n,): a waveform's root mean square, an image's mean intensity,
        how many characters a text has."""
        of = {"waveform": waveforms.summary, "image": images.summary, "text": texts.summary}
        return of[self.column.type](X[:, self.place])


@dataclass(frozen=True)
class Plan:
    """The Spec's features and attributes, every name resolved.

    `features` are plain numbers, the first columns of X in their order; the `signals`' floats lie behind them.
    """

    features: tuple[Feature, ...]
    attributes: tuple[Feature, ...]
    signals: tuple[Signal, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        return (*(feature.name for feature in self.features), *(signal.name for signal in self.signals))

    @property
    def reads(self) -> frozenset[str]:
        """The columns that a model's inputs are made of."""
        own = {signal.name for signal in self.signals}
        return frozenset(own.union(*(feature.reads for feature in self.features)))

    @property
    def summaries(self) -> tuple[Feature, ...]:
        """What the columns of `summary` are: the plain features, and each signal's one number."""
        return (*self.features, *(Feature(signal.name, (signal.name,), None, ()) for signal in self.signals))

    @property
    def summarised(self) -> "Plan":
        """The plan of a model that sees the `summary` alone."""
        return Plan(self.summaries, self.attributes)

    @property
    def width(self) -> int:
        """How many columns X has."""
        return len(self.features) + sum(signal.size for signal in self.signals)

    def places(self, name: str) -> slice:
        """The columns of X of the feature or signal of that name."""
        for signal in self.signals:
            if signal.name == name:
                return signal.place
        position = self.names.index(name)
        return slice(position, position + 1)

    def summary(self, X: NDArray[np.float32]) -> NDArray[np.float32]:
        """X (n, d) with one column for each of `names`: the plain numbers, and each signal's `summary`."""
        if not self.signals:
            return X
        told = [signal.summary(X).astype(np.float32) for signal in self.signals]
        return np.column_stack([X[:, : len(self.features)], *told])


def plan(spec: Spec) -> Plan:
    """The functions behind the Spec's names. Raises SpecError for a name that is nothing in the repository."""
    tables: dict[str, Any] = {name: _table(spec, name) for name in spec.references} | _facts(spec)
    for name in spec.attributes:
        if any(feature.part is not None for feature in _resolve(spec, tables, "attributes", name)):
            raise SpecError(
                f"configs/diseases/{spec.name}.yaml: attributes: {name!r} gives several numbers; an attribute is one."
            )
    whole = [name for name in spec.features if name in spec.columns and spec.columns[name].signal]
    plain = [name for name in spec.features if name not in whole]
    features = tuple(feature for name in plain for feature in _resolve(spec, tables, "features", name))
    signals: tuple[Signal, ...] = ()
    for name in whole:
        signals += (Signal(name, spec.columns[name], signals[-1].place.stop if signals else len(features)),)
    return Plan(
        features,
        tuple(feature for name in spec.attributes for feature in _resolve(spec, tables, "attributes", name)),
        signals,
    )


def build(plan: Plan, values: Mapping[str, Array], at: Array) -> NDArray[np.float32]:
    """The feature matrix (n, d), float32, one column a feature in the plan's order, then the signals; NaN is missing.

    `values[column]` are checked values, (n,) or of an array (n, length), `at` (n,) the times of prediction. Each row
    depends on nothing but itself. A function that gives several features at once is asked once.
    """
    matrix = np.empty((len(at), plan.width), np.float32)
    if not len(at):  # as where every record of a request was refused: no definition is asked of nobody
        return matrix
    with np.errstate(over="ignore"):
        for position, feature in enumerate(plan.features):
            if feature.part is None:
                matrix[:, position] = feature.compute(values, at)
            elif feature.part == 0:
                found = feature.compute_all(values, at)
                matrix[:, position : position + found.shape[1]] = found
        for signal in plan.signals:
            matrix[:, signal.place] = signal.compute(values)
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


def _facts(spec: Spec) -> dict[str, Any]:
    """What a definition has to know of a waveform that it reads: of a column `ecg`, `ecg_leads` and
    `ecg_sampling_hz`, as the contract has them."""
    waves = {name: column for name, column in spec.columns.items() if column.type == "waveform"}
    facts = {f"{name}_leads": column.leads for name, column in waves.items()} | {
        f"{name}_sampling_hz": column.sampling_hz for name, column in waves.items()
    }
    if twice := sorted({*facts} & {*spec.columns, *spec.references}):
        raise SpecError(
            f"configs/diseases/{spec.name}.yaml: {twice[0]!r} is what a definition asks of a waveform; a column or a "
            "reference needs another name."
        )
    return facts


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


def _resolve(spec: Spec, tables: Mapping[str, Any], key: str, name: str) -> list[Feature]:
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
        if constants or any(column != AT and spec.columns[column].size for column in reads):
            _try(spec, features)
    except (KeyError, ValueError, IndexError, TypeError) as exc:
        lengths = {column: spec.columns[column].size for column in reads if column != AT}
        arrays = [f"{column} ({length})" if length else column for column, length in lengths.items()]
        raise SpecError(
            f"{where}: {name!r}: its columns {', '.join(arrays)} and its references {', '.join(constants)} do not fit "
            f"each other ({exc})."
        ) from exc
    return features


def _try(spec: Spec, features: Sequence[Feature]) -> None:
    """Run a definition on one row without values. Raises what it raises where its arrays and tables do not fit."""
    first = features[0]
    widths = {name: spec.columns[name].size for name in first.reads if name != AT}
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
