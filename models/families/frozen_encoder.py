"""A frozen encoder's vector of one text, waveform or image, read by a small head that learns: logistic or boosted.

The encoder (models/encoders.py) was trained elsewhere and is not trained here. The head sees the plan's plain features,
a flag that says whether the signal is missing, and the vector; where the signal is missing the vector is the training
patients' mean one, so that its absence speaks through the flag alone. The bundle holds the head as model.onnx and, in
model.json, the encoder's digest; the encoder itself is found in this machine's store.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from configs.errors import BundleError, EncoderError, TrainingError
from configs.settings import Settings
from features.build import Feature, Plan
from models import explain, weights
from models.encoders import Embeddings, Recipe
from models.family import Choice, Model, Range, Task, family
from models.family import Fitted as Head

SPACE: Mapping[str, Range | Choice] = {}
"""Trials vary the head's."""
HABITS: Mapping[str, Mapping[str, float]] = {"logistic": {"C": 0.01}, "boosted": {}}
"""A vector has as many numbers as a small study has patients. 2026-11, 1,500 simulated notes, 384 numbers each, five
folds: log loss 0.405, 0.393, 0.409 and 0.525 at C = 0.003, 0.01, 0.1 and 1, where the notes' hidden traits reach 0.351.
"""


class Architecture(BaseModel):
    """What model.json says. `tokens`: the most that the encoder reads of a text; None of another signal.

    `filled_with` is the vector (dimension,) of a patient whose signal is missing.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    kind: Literal["sentence_transformer", "onnx", "torchscript"]
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    reads: str
    output: str | None
    scale: Literal["rank"] | None
    tokens: Annotated[int, Field(gt=0)] | None
    dimension: Annotated[int, Field(gt=0, le=65536)]
    head: Literal["logistic", "boosted"]
    filled_with: tuple[Annotated[float, Field(allow_inf_nan=False)], ...]


@dataclass(frozen=True)
class Reader:
    """What turns rows of X into the rows that the head reads."""

    plan: Plan
    about: Architecture
    embeddings: Embeddings

    def rows(self, X: NDArray[np.float32]) -> NDArray[np.float32]:
        """X (n, d) as the head's inputs: the plain features, the flag of a missing signal, and its vector."""
        vectors = self.embeddings.of(X[:, self.plan.places(self.about.reads)])
        gone = np.isnan(vectors[:, 0])
        vectors[gone] = np.array(self.about.filled_with, np.float32)
        return np.column_stack([X[:, : len(self.plan.features)], gone, vectors]).astype(np.float32)


@dataclass(frozen=True)
class Fitted:
    reader: Reader
    head: Head

    def log_odds(self, X: NDArray[np.float32]) -> NDArray[np.float64]:
        return self.head.log_odds(self.reader.rows(X))

    def export(self, folder: Path) -> None:
        self.head.export(folder)
        weights.describe(folder, "frozen_encoder", self.reader.about)


@dataclass(frozen=True)
class Explainer:
    """What the head made of each plain feature, and of the signal as a whole: its flag and all of its vector."""

    reader: Reader
    head: explain.Explainer

    at_once = 8

    def by_output(
        self, X: NDArray[np.float32], late: explain.Late = explain.never
    ) -> list[tuple[float, NDArray[np.float64]]]:
        """For each output, its base and the contributions (n, k) of the plan's `names`; another signal's is 0."""
        plan, plain = self.reader.plan, len(self.reader.plan.features)
        told = []
        for base, of_head in self.head.by_output(self.reader.rows(X), late):
            found = np.zeros((len(X), len(plan.names)))
            found[:, :plain] = of_head[:, :plain]
            found[:, plan.names.index(self.reader.about.reads)] = of_head[:, plain:].sum(axis=1)
            told.append((base, found))
        return told

    def maps(self, _X: NDArray[np.float32], _output: int) -> None:
        """None: it reads no picture."""


@dataclass(frozen=True)
class Loaded:
    reader: Reader
    head: Model

    def log_odds(self, X: NDArray[np.float32]) -> NDArray[np.float64]:
        return self.head.log_odds(self.reader.rows(X))

    def explainer(self, folder: Path) -> Explainer:
        """What explains the model of this folder. Raises BundleError if the head cannot be explained."""
        inputs = _seen(self.reader.plan, self.reader.about).features
        return Explainer(self.reader, explain.explainer(folder / "model.onnx", inputs))


def fit(X: NDArray[np.float32], y: NDArray[np.float64], task: Task) -> Fitted:
    """Learn the head from X (n, d), NaN where missing, and y (n,). The encoder learns nothing.

    Each signal's vector is computed once a machine, and kept under its home. Raises TrainingError if the encoder is not
    in the store.
    """
    told, plan, settings = task.encoder, task.plan, task.settings
    if told is None:
        raise TrainingError("frozen_encoder: the spec names no `encoder`.")
    recipe = _recipe(plan, told.kind, told.sha256, told.reads, told.output, told.scale)
    try:
        embeddings = Embeddings(recipe, settings.encoders, settings.embeddings)
    except EncoderError as exc:
        raise TrainingError(f"frozen_encoder: {exc}") from exc
    vectors = embeddings.of(X[:, plan.places(told.reads)]).astype(np.float64)
    if np.isnan(vectors).all():
        raise TrainingError(f"frozen_encoder: no patient that is learned from has a {told.reads!r}.")
    about = Architecture(
        **told.model_dump(include={"kind", "sha256", "reads", "output", "scale", "head"}),
        tokens=embeddings.loaded.tokens,
        dimension=embeddings.loaded.dimension,
        filled_with=tuple(np.nanmean(vectors, axis=0).astype(np.float32).tolist()),
    )
    reader = Reader(plan, about, embeddings)
    parameters = {**HABITS[told.head], **task.parameters}
    head = family(told.head).fit(reader.rows(X), y, replace(task, plan=_seen(plan, about), parameters=parameters))
    return Fitted(reader, head)


def load(folder: Path, plan: Plan) -> Loaded:
    """The model that `export` wrote, with the encoder from the store of this machine's environment.

    Raises EncoderError if the encoder is not there or was changed, BundleError if the files do not fit each other.
    """
    from models.onnx import Session

    about = weights.described(folder, "frozen_encoder", Architecture)
    recipe = _recipe(plan, about.kind, about.sha256, about.reads, about.output, about.scale)
    embeddings = Embeddings(recipe, Settings().encoders)
    made = embeddings.loaded.dimension, embeddings.loaded.tokens
    if made != (about.dimension, about.tokens) or len(about.filled_with) != about.dimension:
        raise BundleError(f"{weights.DOCUMENT}: its encoder is said to be another: it gives {made[0]} numbers.")
    head = Session(folder / "model.onnx")
    if head.width != len(_seen(plan, about).features):
        raise BundleError(f"model.onnx: reads {head.width} numbers; {len(_seen(plan, about).features)} are expected.")
    return Loaded(Reader(plan, about, embeddings), head)


def _recipe(plan: Plan, kind: str, sha256: str, reads: str, output: str | None, scale: str | None) -> Recipe:
    shapes = {signal.name: signal.column.shape for signal in plan.signals}
    if reads not in shapes:
        raise BundleError(f"frozen_encoder: {reads!r} is no signal among the features: {', '.join(shapes) or 'none'}.")
    return Recipe(kind, sha256, shapes[reads], output, scale)  # type: ignore[arg-type]


def _seen(plan: Plan, about: Architecture) -> Plan:
    """The plan of the head, which reads plain numbers alone."""
    names = [f"{about.reads} is missing", *(f"{about.reads} {place}" for place in range(about.dimension))]
    numbers = (Feature(name, (about.reads,), None, ()) for name in names)
    return Plan((*plan.features, *numbers), plan.attributes)
