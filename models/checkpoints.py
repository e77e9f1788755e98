"""Where a training stands, as one file: weights, best weights and the optimiser's as safetensors, the rest as JSON.

The file is replaced whole, so whoever is killed leaves the state before or the one after. Nothing in it is unpickled.
"""

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, ValidationError

from configs.errors import TrainingError

if TYPE_CHECKING:
    from torch import Tensor, nn

STATE = "state.safetensors"
ABOUT = "training"
"""The key of safetensors' own text under which the JSON stands."""


class State(BaseModel):
    """Where a training stands. `step` is the next one of `epoch`; `batch` the rows that fitted the memory last."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    network: str
    data: str
    epoch: int
    step: int
    batch: int
    best_epoch: int
    best_loss: float | None
    scale: dict[str, float | int]
    told: list[dict[str, float | None]]
    finished: bool


def network_digest(module: "nn.Module") -> str:
    """What is the same for two networks of one architecture: every layer's options, every weight's name and shape."""
    shapes = {name: [str(value.dtype), list(value.shape)] for name, value in module.state_dict().items()}
    return hashlib.sha256((repr(module) + json.dumps(shapes)).encode()).hexdigest()


def data_digest(tensors: "Mapping[str, Tensor]", how: str) -> str:
    """What is the same for two trainings on the same numbers, the same rows held out, in the same way."""
    digest = hashlib.sha256(how.encode())
    for name, tensor in tensors.items():
        digest.update(f"\0{name} {tensor.dtype} {tuple(tensor.shape)}\0".encode())
        digest.update(tensor.contiguous().numpy().tobytes())
    return digest.hexdigest()


def save(folder: Path, state: State, tensors: "Mapping[str, Tensor]") -> None:
    """Replace the folder's state by this one. Raises TrainingError if the disk does not take it."""
    from safetensors.torch import save_file

    partial = folder / f".{STATE}.{os.getpid()}.partial"
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        there = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
        save_file(there, partial, metadata={ABOUT: state.model_dump_json()})
        os.chmod(partial, 0o600)
        os.replace(partial, folder / STATE)
    except OSError as exc:
        raise TrainingError(f"{folder / STATE}: the training's state could not be written ({exc}).") from exc
    finally:
        partial.unlink(missing_ok=True)


def load(folder: Path, network: str, data: str) -> "tuple[State, dict[str, Tensor]] | None":
    """The folder's state and its tensors; None if there is none.

    Raises TrainingError if it cannot be read, or is that of another network or of other data.
    """
    from safetensors import SafetensorError, safe_open

    path = folder / STATE
    if not path.exists():
        return None
    try:
        with safe_open(path, framework="pt") as file:
            state = State.model_validate_json((file.metadata() or {}).get(ABOUT, ""))
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError, ValidationError) as exc:
        raise TrainingError(f"{path}: it is no state of a training ({type(exc).__name__}). {_advice()}") from exc
    for what, found, wanted in (("network", state.network, network), ("data", state.data, data)):
        if found != wanted:
            said = (
                "of another network: its layers or their sizes differ"
                if what == "network"
                else "of a training on other data, or with other rows held out, another seed, habits or other code"
            )
            raise TrainingError(f"{path}: it is the state {said} ({found[:12]}, {wanted[:12]} is trained). {_advice()}")
    return state, tensors


def _advice() -> str:
    return "Train without --resume to begin anew."


def optimiser_tensors(optimiser: Any) -> "dict[str, Tensor]":
    """What the optimiser remembers of each weight, by name."""
    state = optimiser.state_dict()["state"]
    return {f"optimiser.{place}.{name}": value for place, kept in state.items() for name, value in kept.items()}


def restore_optimiser(optimiser: Any, tensors: "Mapping[str, Tensor]") -> None:
    """Give the optimiser back what `optimiser_tensors` said it remembered."""
    state: dict[int, dict[str, Any]] = {}
    for key, value in tensors.items():
        if key.startswith("optimiser."):
            _, place, name = key.split(".", 2)
            state.setdefault(int(place), {})[name] = value
    optimiser.load_state_dict({"state": state, "param_groups": optimiser.state_dict()["param_groups"]})
