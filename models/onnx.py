"""ONNX, written node by node, read back, and run by ONNX Runtime: the only home of both libraries.

Why not skl2onnx: it cannot convert this release's HistGradientBoosting, knows no missing indicators, and rounds a
tree's float64 threshold to the nearest float32, which moves rows that lie on it (docs/adr/0003-own-onnx-export.md).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from configs.errors import BundleError, EncoderError
from models.encoding import Encoding

OPSET = 21
ML_OPSET = 3
IR_VERSION = 10


class Graph:
    """An ONNX graph under construction, from `X` float32 (n, d) to `log_odds` (n, 1), or (n, K) of K classes."""

    def __init__(self, width: int, outputs: int = 1) -> None:
        self.width = width
        self.outputs = outputs
        self.nodes: list[Any] = []
        self.constants: list[Any] = []

    def constant(self, values: NDArray[Any]) -> str:
        from onnx import numpy_helper

        name = f"constant_{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(values), name))
        return name

    def node(self, kind: str, inputs: Sequence[str], domain: str = "", **attributes: Any) -> str:
        from onnx import helper

        name = f"{kind}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [name], domain=domain, **attributes))
        return name

    def encode(self, encoding: Encoding) -> str:
        """The nodes of Encoding.apply: float32 (n, width)."""
        from onnx import TensorProto

        parts = []
        if encoding.numbers:
            parts.append(self.node("Gather", ["X", self.constant(np.array(encoding.numbers, np.int64))], axis=1))
        if encoding.choices:
            positions, indexes = np.array(encoding.choices, np.int64).T
            gathered = self.node("Gather", ["X", self.constant(positions)], axis=1)
            equal = self.node("Equal", [gathered, self.constant(indexes.astype(np.float32)[None, :])])
            chosen = self.node("Cast", [equal], to=TensorProto.FLOAT)
            unknown = self.constant(np.array([[np.nan]], np.float32))
            parts.append(self.node("Where", [self.node("IsNaN", [gathered]), unknown, chosen]))
        return parts[0] if len(parts) == 1 else self.node("Concat", parts, axis=1)

    def model(self, output: str, double: bool) -> Any:
        """The whole model, whose log-odds are the node `output`."""
        from onnx import TensorProto, helper

        kind = TensorProto.DOUBLE if double else TensorProto.FLOAT
        graph = helper.make_graph(
            [*self.nodes, helper.make_node("Identity", [output], ["log_odds"])],
            "risk",
            [helper.make_tensor_value_info("X", TensorProto.FLOAT, [None, self.width])],
            [helper.make_tensor_value_info("log_odds", kind, [None, self.outputs])],
            self.constants,
        )
        opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid("ai.onnx.ml", ML_OPSET)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION, producer_name="medimind")

    def save(self, output: str, double: bool, path: Path) -> None:
        _save(self.model(output, double), path)


def _save(model: Any, path: Path) -> None:
    from onnx import checker

    checker.check_model(model)
    path.write_bytes(model.SerializeToString(deterministic=True))


@dataclass(frozen=True)
class Linear:
    """A linear model of the encoded columns: missing ones take `filled_with` (k,), those `flagged` add a missing flag.

    `weights` (k + len(flagged), outputs) act on the filled columns and then on the flags, one output or one a class;
    `intercepts` (outputs,). `width` is the number of features.
    """

    encoding: Encoding
    width: int
    filled_with: NDArray[np.float64]
    flagged: NDArray[np.int64]
    weights: NDArray[np.float64]
    intercepts: NDArray[np.float64]


def write_linear(
    encoding: Encoding,
    width: int,
    filled_with: NDArray[np.float64],
    flagged: NDArray[np.int64],
    weights: NDArray[np.float64],
    intercepts: NDArray[np.float64],
    path: Path,
) -> None:
    """A `Linear` as model.onnx, in float64."""
    _save(_linear(Linear(encoding, width, filled_with, flagged, weights, intercepts)), path)


def _linear(linear: Linear) -> Any:
    from onnx import TensorProto

    graph = Graph(linear.width, len(linear.intercepts))
    encoded = graph.node("Cast", [graph.encode(linear.encoding)], to=TensorProto.DOUBLE)
    missing = graph.node("IsNaN", [encoded])
    terms = graph.node("Where", [missing, graph.constant(linear.filled_with[None, :]), encoded])
    if len(linear.flagged):
        flags = graph.node("Gather", [missing, graph.constant(linear.flagged.astype(np.int64))], axis=1)
        terms = graph.node("Concat", [terms, graph.node("Cast", [flags], to=TensorProto.DOUBLE)], axis=1)
    product = graph.node("MatMul", [terms, graph.constant(linear.weights)])
    return graph.model(graph.node("Add", [product, graph.constant(linear.intercepts[None, :])]), double=True)


@dataclass(frozen=True)
class Tree:
    """One regression tree, node by node, (m,) each: a row goes left if its feature is <= threshold, or is missing
    where `missing_left`; a leaf adds `value` to the log-odds. `count` training patients passed the node."""

    feature: NDArray[np.int64]
    threshold: NDArray[np.float64]
    missing_left: NDArray[np.bool_]
    left: NDArray[np.int64]
    right: NDArray[np.int64]
    leaf: NDArray[np.bool_]
    value: NDArray[np.float64]
    count: NDArray[np.int64]


@dataclass(frozen=True)
class Trees:
    """Sums of trees over the encoded columns, plus `baseline` (outputs,): one output, or one a class, to which the
    trees belong in turn. `width` is the number of features.
    """

    encoding: Encoding
    width: int
    trees: tuple[Tree, ...]
    baseline: NDArray[np.float64]


def write_trees(
    encoding: Encoding, width: int, trees: Sequence[Tree], baseline: NDArray[np.float64], path: Path
) -> None:
    """`Trees` as model.onnx: in float32, of several classes in float64, since risks hang on their sums' differences."""
    _save(_trees(Trees(encoding, width, tuple(trees), baseline)), path)


def _trees(ensemble: Trees) -> Any:
    from onnx import TensorProto

    outputs = len(ensemble.baseline)
    graph = Graph(ensemble.width, outputs)
    nodes: dict[str, list[Any]] = {
        name: [] for name in ("tree", "id", "mode", "feature", "value", "true", "false", "missing", "count")
    }
    leaves: dict[str, list[Any]] = {name: [] for name in ("tree", "id", "output", "weight")}
    for number, tree in enumerate(ensemble.trees):
        inner = ~tree.leaf
        count = len(tree.leaf)
        nodes["tree"] += [number] * count
        nodes["id"] += range(count)
        nodes["mode"] += ["BRANCH_LEQ" if branch else "LEAF" for branch in inner]
        nodes["feature"] += np.where(inner, tree.feature, 0).tolist()
        nodes["value"] += np.where(inner, round_down(tree.threshold), 0.0).tolist()
        nodes["true"] += np.where(inner, tree.left, 0).tolist()
        nodes["false"] += np.where(inner, tree.right, 0).tolist()
        nodes["missing"] += (inner & tree.missing_left).astype(int).tolist()
        nodes["count"] += tree.count.astype(np.float32).tolist()
        leaves["tree"] += [number] * int(tree.leaf.sum())
        leaves["id"] += np.flatnonzero(tree.leaf).tolist()
        leaves["output"] += [number % outputs] * int(tree.leaf.sum())
        leaves["weight"] += tree.value[tree.leaf].tolist()
    encoded, numbers = graph.encode(ensemble.encoding), _of_trees(nodes["value"], leaves["weight"], ensemble.baseline)
    if outputs > 1:
        encoded = graph.node("Cast", [encoded], to=TensorProto.DOUBLE)
    output = graph.node(
        "TreeEnsembleRegressor",
        [encoded],
        domain="ai.onnx.ml",
        n_targets=outputs,
        aggregate_function="SUM",
        post_transform="NONE",
        **numbers,
        nodes_treeids=nodes["tree"],
        nodes_nodeids=nodes["id"],
        nodes_modes=nodes["mode"],
        nodes_featureids=nodes["feature"],
        nodes_truenodeids=nodes["true"],
        nodes_falsenodeids=nodes["false"],
        nodes_missing_value_tracks_true=nodes["missing"],
        nodes_hitrates=nodes["count"],  # no part of the prediction; TreeSHAP weighs the branches with it
        target_treeids=leaves["tree"],
        target_nodeids=leaves["id"],
        target_ids=leaves["output"],
    )
    return graph.model(output, double=False)


def _of_trees(thresholds: list[float], weights: list[float], baseline: NDArray[np.float64]) -> dict[str, Any]:
    """The ensemble's numbers as attributes: float32, or of several outputs float64, which only a tensor can be."""
    from onnx import numpy_helper

    numbers = {"nodes_values": thresholds, "target_weights": weights, "base_values": baseline}
    if len(baseline) == 1:
        return {name: np.array(values, np.float32).tolist() for name, values in numbers.items()}
    return {
        f"{name}_as_tensor": numpy_helper.from_array(np.array(values, np.float64), name)
        for name, values in numbers.items()
    }


def round_down(values: NDArray[np.float64]) -> NDArray[np.float32]:
    """The largest float32 not above each value: a float32 input is <= the one exactly when it is <= the other."""
    with np.errstate(over="ignore"):
        nearest = values.astype(np.float32)
        below = np.nextafter(nearest, np.float32(-np.inf))
    return np.where(nearest > values, below, nearest)


def read_model(path: Path) -> Linear | Trees:
    """The model of a model.onnx that this module wrote.

    Raises BundleError for any other: what was read is written once more, and has to be the same graph again.
    """
    import onnx

    try:
        graph = onnx.load_model_from_string(path.read_bytes()).graph
        found: Linear | Trees
        if _nodes(graph, "TreeEnsembleRegressor"):
            found = _read_trees(graph)
            again = _trees(found).graph
        else:
            found = _read_linear(graph)
            again = _linear(found).graph
    except BundleError:
        raise
    except Exception as exc:  # whatever a foreign graph raises, protobuf's own errors among it
        reason = f"{type(exc).__name__}: {exc!s:.200}"
        raise BundleError(f"{path.name}: neither a linear model nor trees as MediMind writes them ({reason}).") from exc
    if again.SerializeToString(deterministic=True) != graph.SerializeToString(deterministic=True):
        raise BundleError(f"{path.name}: its graph is not the one that this release of MediMind writes.")
    return found


def _read_linear(graph: Any) -> Linear:
    constants = _constants(graph)
    *_, filling = _nodes(graph, "Where")
    flags = [node for node in _nodes(graph, "Gather") if node.input[0] != "X"]
    (product,) = _nodes(graph, "MatMul")
    (total,) = _nodes(graph, "Add")
    return Linear(
        encoding=_read_encoding(graph),
        width=_width(graph),
        filled_with=constants[filling.input[1]][0],
        flagged=constants[flags[0].input[1]] if flags else np.empty(0, np.int64),
        weights=constants[product.input[1]],
        intercepts=constants[total.input[1]][0],
    )


def _read_trees(graph: Any) -> Trees:
    from onnx import helper, numpy_helper

    layout = _read_encoding(graph)
    (node,) = _nodes(graph, "TreeEnsembleRegressor")
    said = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
    if "nodes_hitrates" not in said:
        raise BundleError(
            "model.onnx: its trees do not say how many training patients passed each node, so it was written by an "
            "earlier release. Train again to have its predictions explained."
        )
    for name in ("nodes_values", "target_weights", "base_values"):
        if (tensor := said.get(f"{name}_as_tensor")) is not None:
            said[name] = numpy_helper.to_array(tensor)
    leaf = np.array([mode == b"LEAF" for mode in said["nodes_modes"]])
    value = np.zeros(len(leaf))
    value[leaf] = said["target_weights"]
    columns = (
        np.array(said["nodes_featureids"], np.int64),
        np.array(said["nodes_values"], np.float64),
        np.array(said["nodes_missing_value_tracks_true"], np.bool_),
        np.array(said["nodes_truenodeids"], np.int64),
        np.array(said["nodes_falsenodeids"], np.int64),
        leaf,
        value,
        np.array(said["nodes_hitrates"], np.float64).astype(np.int64),
    )
    starts = np.flatnonzero(np.diff(said["nodes_treeids"]) != 0) + 1
    trees = tuple(Tree(*part) for part in zip(*(np.split(column, starts) for column in columns), strict=True))
    for number, tree in enumerate(trees):
        # Each node but the first is the child of exactly one: whoever walks down from the first comes to an end.
        children = np.concatenate([tree.left[~tree.leaf], tree.right[~tree.leaf]])
        if not np.array_equal(np.sort(children), np.arange(1, len(tree.leaf))):
            raise ValueError(f"tree {number} is no tree")
        if not (tree.feature.min() >= 0 and tree.feature.max() < layout.width and tree.count.min() > 0):
            raise ValueError(f"tree {number} has a column that is not there, or a node that no patient passed")
    return Trees(layout, _width(graph), trees, np.array(said["base_values"], np.float64))


def _read_encoding(graph: Any) -> Encoding:
    constants = _constants(graph)
    gathered = [constants[node.input[1]].tolist() for node in _nodes(graph, "Gather") if node.input[0] == "X"]
    indexes = [int(index) for node in _nodes(graph, "Equal") for index in constants[node.input[1]][0]]
    positions = gathered.pop() if indexes else []
    return Encoding(tuple(gathered[0] if gathered else ()), tuple(zip(positions, indexes, strict=True)))


def _nodes(graph: Any, kind: str) -> list[Any]:
    return [node for node in graph.node if node.op_type == kind]


def _constants(graph: Any) -> dict[str, NDArray[Any]]:
    from onnx import numpy_helper

    return {constant.name: numpy_helper.to_array(constant) for constant in graph.initializer}


def _width(graph: Any) -> int:
    return int(graph.input[0].type.tensor_type.shape.dim[1].dim_value)


class Session:
    """A loaded model.onnx. One thread and never a lone row: a batch and its rows one by one agree to the bit."""

    def __init__(self, path: Path) -> None:
        self._session = _session(path.read_bytes(), path.name)

    @property
    def width(self) -> int:
        """How many numbers a row of X has."""
        return int(self._session.get_inputs()[0].shape[1])

    def log_odds(self, X: NDArray[np.float32]) -> NDArray[np.float64]:
        """The log-odds of each row of X (n, d), as (n,) float64; of a model of K classes (n, K)."""
        n = len(X)
        batch = np.concatenate([X, X]) if n == 1 else X
        found = self._session.run(None, {"X": np.ascontiguousarray(batch, np.float32)})[0]
        return np.ascontiguousarray(found[:n, 0] if found.shape[1] == 1 else found[:n], np.float64)


class ForeignGraph:
    """Somebody else's ONNX graph of one float input and one row at a time, of which one tensor is taken.

    `shape` is what its input asks for, the batch first; None where any length will do. `output` names the tensor, one
    inside the graph too; None takes the graph's only output. A file with weights outside itself cannot be loaded.
    Raises EncoderError for a graph that is none of this.
    """

    def __init__(self, content: bytes, name: str, output: str | None) -> None:
        try:
            self._session = _session(_with_output(content, output), name)
        except Exception as exc:  # protobuf's own errors among them
            raise EncoderError(f"{name}: is no ONNX graph that can be run ({type(exc).__name__}).") from exc
        inputs, outputs = self._session.get_inputs(), [found.name for found in self._session.get_outputs()]
        if len(inputs) != 1 or inputs[0].type != "tensor(float)":
            told = ", ".join(f"{found.name} {found.type}" for found in inputs)
            raise EncoderError(f"{name}: has the inputs {told}; one of float32 is expected.")
        if output is None and len(outputs) != 1:
            raise EncoderError(f"{name}: has the outputs {', '.join(outputs)}; `output` says which is taken.")
        if output is not None and output not in outputs:
            raise EncoderError(f"{name}: has no tensor {output!r}. Its outputs: {', '.join(outputs)}.")
        self._name, self._input, self._output = name, inputs[0].name, output or outputs[0]
        self.shape = tuple(length if isinstance(length, int) else None for length in inputs[0].shape)

    def run(self, row: NDArray[np.float32]) -> NDArray[Any]:
        """The tensor for one row, (1, …)."""
        try:
            found: NDArray[Any] = self._session.run([self._output], {self._input: row})[0]
        except Exception as exc:  # ONNX Runtime's own errors share no base class but this one
            raise EncoderError(f"{self._name}: cannot be run on a row {row.shape} ({type(exc).__name__}).") from exc
        return found


def _with_output(content: bytes, output: str | None) -> bytes:
    """The graph with a tensor of its inside as one more output, where it is none yet."""
    import onnx

    if output is None:
        return content
    model = onnx.load_model_from_string(content)
    inside = {name for node in model.graph.node for name in node.output}
    if output in inside and output not in {found.name for found in model.graph.output}:
        model.graph.output.append(onnx.helper.make_empty_tensor_value_info(output))
    found: bytes = model.SerializeToString()
    return found


def _session(content: bytes, name: str) -> Any:
    """A session of one thread, in the memory that this process's models share."""
    import onnxruntime as ort

    _one_arena()
    options = ort.SessionOptions()
    options.add_session_config_entry("session.use_env_allocators", "1")
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    try:
        return ort.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except Exception as exc:  # ONNX Runtime's own errors share no base class but this one
        raise BundleError(f"{name}: ONNX Runtime cannot load it ({type(exc).__name__}).") from exc


@cache
def _one_arena() -> None:
    """Let all models of this process take their working memory from one place."""
    import onnxruntime as ort

    ort.disable_telemetry_events()
    place = ort.OrtMemoryInfo("Cpu", ort.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, ort.OrtMemType.DEFAULT)
    ort.create_and_register_allocator(place, None)
