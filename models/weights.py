"""A network as two files: weights.safetensors, and model.json with the architecture that it is rebuilt from.

Nothing is unpickled. A network is first rebuilt without memory for its weights, so that a forged architecture of a
terabyte costs nothing; then every tensor has to be there, by its name, its shape and its kind, and no other.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import BaseModel, ValidationError

from configs.errors import BundleError

if TYPE_CHECKING:
    from torch import Tensor, nn

DOCUMENT = "model.json"
WEIGHTS = "weights.safetensors"
SHOWN = 5
"""Tensors that an error names; more would be noise."""

A = TypeVar("A", bound=BaseModel)
N = TypeVar("N", bound="nn.Module")


def save(folder: Path, family: str, architecture: BaseModel, network: "nn.Module") -> None:
    """Write the network's two files to `folder`. The same network gives the same bytes."""
    from safetensors.torch import save as as_bytes

    describe(folder, family, architecture)
    weights = {name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()}
    (folder / WEIGHTS).write_bytes(as_bytes(weights))


def describe(folder: Path, family: str, architecture: BaseModel) -> None:
    """Write model.json alone, of a family whose weights are another file."""
    document = {"family": family, "architecture": architecture.model_dump(mode="json")}
    (folder / DOCUMENT).write_text(json.dumps(document, indent=1, allow_nan=False) + "\n", encoding="utf-8")


def load(folder: Path, family: str, kind: type[A], rebuild: Callable[[A], N]) -> tuple[A, N]:
    """The architecture and the network that `save` wrote, ready to compute and never to learn.

    `kind` is a strict model that bounds every number, `rebuild` makes the network of one. Raises BundleError, naming
    what differs, for anything that this family's network of this architecture would not have written.
    """
    import torch

    architecture = described(folder, family, kind)
    weights = _weights(folder)
    with torch.device("meta"):
        network = rebuild(architecture)
    expected = network.state_dict()
    lacking, odd = sorted(set(expected) - set(weights)), sorted(set(weights) - set(expected))
    if lacking or odd:
        told = [f"{word} {', '.join(names[:SHOWN])}" for word, names in (("lacks", lacking), ("holds", odd)) if names]
        raise BundleError(f"{WEIGHTS}: it {' and '.join(told)}: not the weights of {DOCUMENT}'s {family}.")
    for name, tensor in expected.items():
        if (found := _told(weights[name])) != _told(tensor):
            raise BundleError(f"{WEIGHTS}: {name} is {found}, {_told(tensor)} is expected of {DOCUMENT}'s {family}.")
    network.load_state_dict(weights, assign=True)
    return architecture, network.eval().requires_grad_(False)


def family_of(folder: Path) -> str:
    """The family whose model this folder holds. Raises BundleError."""
    return str(_document(folder)["family"])


def _document(folder: Path) -> dict[str, Any]:
    path = folder / DOCUMENT
    try:
        document = json.loads(path.read_bytes())
    except OSError as exc:
        raise BundleError(f"{DOCUMENT}: it cannot be read ({exc.strerror}).") from exc
    except ValueError as exc:
        raise BundleError(f"{DOCUMENT}: it is not readable JSON.") from exc
    if not isinstance(document, dict) or not isinstance(document.get("family"), str):
        raise BundleError(f"{DOCUMENT}: it does not name its `family`.")
    return document


def described(folder: Path, family: str, kind: type[A]) -> A:
    """The architecture in model.json, which is this family's. Raises BundleError, naming what differs."""
    document = _document(folder)
    if odd := sorted(set(document) ^ {"family", "architecture"}):
        raise BundleError(f"{DOCUMENT}: {odd[0]!r}: `family` and `architecture` are expected, and nothing else.")
    if document["family"] != family:
        raise BundleError(f"{DOCUMENT}: family {document['family']!r}, {family!r} is expected.")
    try:
        # By way of JSON: a tuple is a list there, and a strict model takes a list for a tuple from JSON alone.
        return kind.model_validate_json(json.dumps(document["architecture"]))
    except ValidationError as exc:
        first = exc.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"])) or "architecture"
        raise BundleError(f"{DOCUMENT}: {where}: {first['msg']} (it is {first['input']!r:.80}).") from exc


def _weights(folder: Path) -> "dict[str, Tensor]":
    from safetensors import SafetensorError
    from safetensors.torch import load as from_bytes

    try:
        found: dict[str, Tensor] = from_bytes((folder / WEIGHTS).read_bytes())
    except OSError as exc:
        raise BundleError(f"{WEIGHTS}: it cannot be read ({exc.strerror}).") from exc
    except SafetensorError as exc:
        raise BundleError(f"{WEIGHTS}: it is no safetensors file ({exc!s:.120}).") from exc
    return found


def _told(tensor: "Tensor") -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} {tuple(tensor.shape)}"
