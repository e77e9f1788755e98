"""Why a risk is what it is: each feature's contribution to the uncalibrated log-odds, read out of model.onnx.

Of a linear model a contribution is exact: weight times the distance from the value that stands in for a missing one. Of
trees it is a Shapley value, by the compiled TreeSHAP of shap (docs/adr/0009-explanations-read-from-the-onnx.md). A
contribution says what the model did with a value, never that the value is the cause of an illness.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.machinery import PathFinder
from importlib.util import find_spec, module_from_spec
from pathlib import Path
from typing import Any, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from configs.errors import BundleError
from features.build import Feature, Plan
from models import family, weights
from models.encoding import Encoding, encoding
from models.onnx import Linear, Tree, Trees, read_model

Contributions = NDArray[np.float64]
OfColumns = Callable[[NDArray[np.float32]], Contributions]

TREE_PATH_DEPENDENT, IDENTITY = 1, 0
"""shap's own numbers for the kind of Shapley value and for log-odds left as they are."""


Late = Callable[[], bool]


class LateError(Exception):
    """Nobody waits for the explanation any more."""


def never() -> bool:
    """An explanation that somebody waits for, however long it takes."""
    return False


@dataclass(frozen=True)
class Explainer:
    """A model that can be explained. `bases` are the log-odds before any feature is known, one output or one a class.

    `of_columns` maps encoded rows (n, k) to the contributions of the encoded columns (n, k), for each output.
    """

    bases: tuple[float, ...]
    layout: Encoding
    width: int
    of_columns: tuple[OfColumns, ...]
    at_once = 32

    def contributions(self, X: NDArray[np.float32]) -> tuple[float, Contributions]:
        """The base and each feature's contribution (n, d): base plus a row's contributions is its log-odds.

        Raises BundleError for a model of several classes: each has contributions of its own, `by_output`.
        """
        if len(self.bases) > 1:
            raise BundleError(f"a model of {len(self.bases)} classes explains each class by itself.")
        return self.by_output(X)[0]

    def by_output(self, X: NDArray[np.float32], late: Late = never) -> list[tuple[float, Contributions]]:
        """For each output, its base and each feature's contribution (n, d) to its log-odds; one, or one a class.

        X (n, d) is NaN where missing; a missing value contributes what the model makes of its absence. The columns of
        a category are summed. ONNX Runtime adds trees up in float32: its log-odds lie up to 2e-6 of their size away.
        Trees hold Python's global lock for about 50 µs a row: hand over a few rows at a time beside an event loop.
        """
        if late():
            raise LateError
        encoded = self.layout.apply(X)
        owners = [*self.layout.numbers, *(position for position, _ in self.layout.choices)]
        told = []
        for base, of_columns in zip(self.bases, self.of_columns, strict=True):
            columns = of_columns(encoded)
            found = np.zeros((len(X), self.width))
            for column, position in enumerate(owners):
                found[:, position] += columns[:, column]
            told.append((base, found))
        return told

    def maps(self, _X: NDArray[np.float32], _output: int) -> None:
        """None: it reads no picture."""


class Explains(Protocol):
    """Whatever explains a model. `at_once`: rows that are explained before another caller should get its turn."""

    @property
    def at_once(self) -> int: ...

    def by_output(self, X: NDArray[np.float32], late: Late = never) -> list[tuple[float, Contributions]]:
        """For each output, its base and the contribution of each of the plan's `names` (n, k) to its log-odds.

        Raises LateError if it is too `late` before it is done, BundleError if the contributions do not add up.
        """
        ...

    def maps(self, X: NDArray[np.float32], output: int, /) -> NDArray[np.float32] | None:
        """Where each row's picture raises that output, (n, height, width), from 0 to 1; None where it reads none."""
        ...


def of_model(folder: Path, plan: Plan, reference: Mapping[str, Any]) -> Explains:
    """What explains the predictions of the model whose files lie in `folder`; `reference`: the bundle's histograms.

    Raises BundleError, saying why, for a model that cannot be explained.
    """
    if not (folder / weights.DOCUMENT).exists():
        found = explainer(folder / "model.onnx", plan.features, plan.width)
        return replace(found, width=len(plan.names))  # a signal, which it does not read, contributes nothing
    model = family.load(folder, plan)
    if (own := getattr(model, "explainer", None)) is not None:
        explains: Explains = own(folder)
        return explains
    from models import gradients

    return gradients.explainer(cast(gradients.Readable, model), plan, reference)


def explainer(path: Path, inputs: Sequence[Feature], width: int | None = None) -> Explainer:
    """What explains the predictions of this model.onnx, which reads `inputs`, the first of X's `width` columns, or all.

    Makes no use of the training data. Raises BundleError, saying why, for a model that cannot be explained.
    """
    model = read_model(path)
    if model.encoding != encoding(inputs) or model.width != (len(inputs) if width is None else width):
        raise BundleError(f"{path.name}: reads {model.width} features in another order or coding than the spec's.")
    parts = _linear(model) if isinstance(model, Linear) else _trees(model)
    bases, of_columns = zip(*parts, strict=True)
    return Explainer(bases, model.encoding, len(inputs), of_columns)


def _linear(model: Linear) -> list[tuple[float, OfColumns]]:
    return [
        _linear_output(model, weights, float(intercept))
        for weights, intercept in zip(np.ascontiguousarray(model.weights.T), model.intercepts, strict=True)
    ]


def _linear_output(model: Linear, weights: NDArray[np.float64], intercept: float) -> tuple[float, OfColumns]:
    """Base: the patient for whom every column is what stands in for a missing value, and no flag is set."""
    weights, flags = np.split(weights, [len(model.filled_with)])

    def of_columns(encoded: NDArray[np.float32]) -> Contributions:
        missing = np.isnan(encoded)
        found = np.where(missing, 0.0, weights * (encoded.astype(np.float64) - model.filled_with))
        found[:, model.flagged] += missing[:, model.flagged] * flags
        return found

    return intercept + float(weights @ model.filled_with), of_columns


def _trees(model: Trees) -> list[tuple[float, OfColumns]]:
    outputs = len(model.baseline)
    return [_trees_output(model.trees[place::outputs], float(model.baseline[place])) for place in range(outputs)]


def _trees_output(trees: Sequence[Tree], baseline: float) -> tuple[float, OfColumns]:
    """Base: the mean over the training patients, as the trees' leaves counted them."""
    shap = _compiled_shap()
    shape = (len(trees), max(len(tree.leaf) for tree in trees))
    left, right, default, column = (np.full(shape, -1, np.int32) for _ in range(4))  # -1: no child, no column
    threshold, count, value = np.zeros(shape), np.zeros(shape), np.zeros((*shape, 1))
    depth = 0
    for number, tree in enumerate(trees):
        here = number, slice(len(tree.leaf))
        left[here] = np.where(tree.leaf, -1, tree.left)
        right[here] = np.where(tree.leaf, -1, tree.right)
        default[here] = np.where(tree.leaf, -1, np.where(tree.missing_left, tree.left, tree.right))
        column[here] = np.where(tree.leaf, -1, tree.feature)
        threshold[here], count[here], value[(*here, 0)] = tree.threshold, tree.count, tree.value
        # Gives each inner node of `value` the mean of the leaves below it.
        depth = max(depth, shap.compute_expectations(left[number], right[number], count[number], value[number]))
    numeric, offset = np.zeros(shape, np.int32), np.array([baseline])
    nodes = (left, right, default, column, threshold, numeric, value, count, depth)

    def of_columns(encoded: NDArray[np.float32]) -> Contributions:
        found = np.zeros((len(encoded), encoded.shape[1] + 1, 1))  # the last column is the base
        rows = (encoded.astype(np.float64), np.isnan(encoded), None, None, None)
        shap.dense_tree_shap(*nodes, *rows, shape[0], offset, found, TREE_PATH_DEPENDENT, IDENTITY, False)
        return found[:, :-1, 0]

    return baseline + float(value[:, 0, 0].sum()), of_columns


def _compiled_shap() -> Any:
    """shap's C extension alone. `import shap` takes seconds and imports pandas, sklearn and numba besides."""
    package = find_spec("shap")
    compiled = PathFinder.find_spec("shap._cext", package.submodule_search_locations) if package else None
    if compiled is None or compiled.loader is None:
        raise BundleError("trees cannot be explained: shap, or its compiled part, is not installed. `make setup` does.")
    module = module_from_spec(compiled)
    compiled.loader.exec_module(module)
    return module
