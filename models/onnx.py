"""ONNX, written node by node and run by ONNX Runtime: the only home of both libraries.

Why not skl2onnx: it cannot convert this release's HistGradientBoosting, knows no missing indicators, and rounds a
tree's float64 threshold to the nearest float32, which moves rows that lie on it (docs/adr/0003-own-onnx-export.md).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from configs.errors import BundleError
from models.encoding import Encoding

OPSET = 21
ML_OPSET = 3
IR_VERSION = 10


class Graph:
    """An ONNX graph under construction, from `X` float32 (n, d) to `log_odds` (n, 1)."""

    def __init__(self, width: int) -> None:
        self.width = width
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

    def save(self, output: str, double: bool, path: Path) -> None:
        from onnx import TensorProto, checker, helper

        self.nodes.append(helper.make_node("Identity", [output], ["log_odds"]))
        graph = helper.make_graph(
            self.nodes,
            "risk",
            [helper.make_tensor_value_info("X", TensorProto.FLOAT, [None, self.width])],
            [helper.make_tensor_value_info("log_odds", TensorProto.DOUBLE if double else TensorProto.FLOAT, [None, 1])],
            self.constants,
        )
        opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid("ai.onnx.ml", ML_OPSET)]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION, producer_name="medimind")
        checker.check_model(model)
        path.write_bytes(model.SerializeToString(deterministic=True))


def write_linear(
    encoding: Encoding,
    width: int,
    filled_with: NDArray[np.float64],
    flagged: NDArray[np.int64],
    weights: NDArray[np.float64],
    intercept: float,
    path: Path,
) -> None:
    """A linear model in float64: missing columns take `filled_with` (k,), and columns `flagged` add a missing flag.

    `weights` (k + len(flagged),) act on the filled columns and then on the flags.
    """
    from onnx import TensorProto

    graph = Graph(width)
    encoded = graph.node("Cast", [graph.encode(encoding)], to=TensorProto.DOUBLE)
    missing = graph.node("IsNaN", [encoded])
    terms = graph.node("Where", [missing, graph.constant(filled_with[None, :]), encoded])
    if len(flagged):
        flags = graph.node("Gather", [missing, graph.constant(flagged.astype(np.int64))], axis=1)
        terms = graph.node("Concat", [terms, graph.node("Cast", [flags], to=TensorProto.DOUBLE)], axis=1)
    product = graph.node("MatMul", [terms, graph.constant(weights[:, None])])
    graph.save(graph.node("Add", [product, graph.constant(np.array([[intercept]]))]), True, path)


@dataclass(frozen=True)
class Tree:
    """One regression tree, node by node, (m,) each: a row goes left if its feature is <= threshold, or is missing
    where `missing_left`; a leaf adds `value` to the log-odds."""

    feature: NDArray[np.int64]
    threshold: NDArray[np.float64]
    missing_left: NDArray[np.bool_]
    left: NDArray[np.int64]
    right: NDArray[np.int64]
    leaf: NDArray[np.bool_]
    value: NDArray[np.float64]


def write_trees(encoding: Encoding, width: int, trees: Sequence[Tree], baseline: float, path: Path) -> None:
    """A sum of trees over the encoded columns, plus `baseline`."""
    graph = Graph(width)
    nodes: dict[str, list[Any]] = {
        name: [] for name in ("tree", "id", "mode", "feature", "value", "true", "false", "missing")
    }
    leaves: dict[str, list[Any]] = {name: [] for name in ("tree", "id", "weight")}
    for number, tree in enumerate(trees):
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
        leaves["tree"] += [number] * int(tree.leaf.sum())
        leaves["id"] += np.flatnonzero(tree.leaf).tolist()
        leaves["weight"] += tree.value[tree.leaf].astype(np.float32).tolist()
    output = graph.node(
        "TreeEnsembleRegressor",
        [graph.encode(encoding)],
        domain="ai.onnx.ml",
        n_targets=1,
        aggregate_function="SUM",
        post_transform="NONE",
        base_values=[float(np.float32(baseline))],
        nodes_treeids=nodes["tree"],
        nodes_nodeids=nodes["id"],
        nodes_modes=nodes["mode"],
        nodes_featureids=nodes["feature"],
        nodes_values=nodes["value"],
        nodes_truenodeids=nodes["true"],
        nodes_falsenodeids=nodes["false"],
        nodes_missing_value_tracks_true=nodes["missing"],
        target_treeids=leaves["tree"],
        target_nodeids=leaves["id"],
        target_ids=[0] * len(leaves["id"]),
        target_weights=leaves["weight"],
    )
    graph.save(output, False, path)


def round_down(values: NDArray[np.float64]) -> NDArray[np.float32]:
    """The largest float32 not above each value: a float32 input is <= the one exactly when it is <= the other."""
    with np.errstate(over="ignore"):
        nearest = values.astype(np.float32)
        below = np.nextafter(nearest, np.float32(-np.inf))
    return np.where(nearest > values, below, nearest)


class Session:
    """A loaded model.onnx. One thread and never a lone row: a batch and its rows one by one agree to the bit."""

    def __init__(self, path: Path) -> None:
        import onnxruntime as ort

        ort.disable_telemetry_events()
        options = ort.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 3
        try:
            self._session = ort.InferenceSession(path.read_bytes(), options, providers=["CPUExecutionProvider"])
        except Exception as exc:  # ONNX Runtime's own errors share no base class but this one
            raise BundleError(f"{path.name}: ONNX Runtime cannot load it ({type(exc).__name__}).") from exc

    def log_odds(self, X: NDArray[np.float32]) -> NDArray[np.float64]:
        """The log-odds of each row of X (n, d), as (n,) float64."""
        n = len(X)
        batch = np.concatenate([X, X]) if n == 1 else X
        found = self._session.run(None, {"X": np.ascontiguousarray(batch, np.float32)})[0]
        return np.ascontiguousarray(found[:n, 0], np.float64)
