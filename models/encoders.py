"""Frozen encoders: somebody else's network that turns a text, a waveform or an image into a vector, never trained here.

An encoder is a folder of sentence-transformers, an ONNX file or a TorchScript file. It is known by its SHA-256 and lies
in the encoder store, `<MEDIMIND_HOME>/encoders/<sha256>/`; a bundle names the digest and does not hold it. What the
digest is worth depends on the kind: a sentence-transformers folder is read as JSON and safetensors, and an ONNX file as
a graph, but `torch.jit.load` runs what the file says, so a TorchScript file is code, and its SHA-256 is the only trust.

Each row goes through alone, on one thread: its vector cannot depend on what else was asked, and is the same to the bit
whether it was computed now or kept. Vectors are patients' data as much as what they were made of.
"""

import hashlib
import json
import platform
import sqlite3
from collections import OrderedDict
from collections.abc import Callable, Mapping
from contextlib import closing, suppress
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from threading import Lock
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from configs.errors import EncoderError
from features import texts
from models.device import one_thread

Kind = Literal["sentence_transformer", "onnx", "torchscript"]
Vector = NDArray[np.float32]

FILE_NAMES = {"onnx": "encoder.onnx", "torchscript": "encoder.pt"}
"""What the one file of an encoder is called in the store."""
READ = (".json", ".safetensors", ".txt")
"""The files of a folder that are read, digested and laid in the store. No pickle and no code is among them."""
AT_ONCE = 256
"""Vectors that are written to the file together."""
MOST_IN_MEMORY = 4096
"""Vectors that a process keeps of one encoder: 6 MB at 384 numbers each."""


@dataclass(frozen=True)
class Recipe:
    """All that decides what an encoder says: its `kind` and digest, the tensor of an ONNX graph that is taken
    (`output`; None: its only one), how a signal is `scale`d before, and the `shape` of one signal."""

    kind: Kind
    sha256: str
    shape: tuple[int, ...]
    output: str | None = None
    scale: str | None = None


@dataclass(frozen=True)
class Loaded:
    """An encoder at work. `encode` takes one signal, (size,) float32 without NaN, and gives its vector, (dimension,).

    `tokens`: the most that it reads of a text; None for a signal, which it reads whole.
    """

    dimension: int
    tokens: int | None
    encode: Callable[[Vector], Vector]


def files(folder: Path) -> list[Path]:
    """The files of a folder that are read, in the order of their paths."""
    found = [path for path in folder.rglob("*") if path.suffix in READ and path.is_file()]
    hidden = [path for path in found if any(part.startswith(".") for part in path.relative_to(folder).parts)]
    return sorted(set(found) - set(hidden), key=lambda path: path.relative_to(folder).as_posix())


def digest(path: Path) -> str:
    """The SHA-256 of a file; of a folder that over its `files`, for each the line "path NUL sha256 newline".

    The path is relative to the folder, with "/". Raises EncoderError if it cannot be read.
    """
    try:
        if path.is_file():
            return _sha256(path)
        lines = (f"{found.relative_to(path).as_posix()}\0{_sha256(found)}\n" for found in files(path))
        return hashlib.sha256("".join(lines).encode()).hexdigest()
    except OSError as exc:
        raise EncoderError(f"{path}: cannot be read as an encoder ({exc.strerror}).") from exc


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def place(kind: Kind, sha256: str, store: Path) -> Path:
    """Where an encoder lies in the store: the folder that bears its digest, or the one file in it."""
    folder = store / sha256
    return folder if kind == "sentence_transformer" else folder / FILE_NAMES[kind]


def verify(kind: Kind, sha256: str, store: Path) -> Path:
    """The place of an encoder whose bytes are those that its digest promises.

    Raises EncoderError, with what to do, if it is not in the store, or is another.
    """
    found = place(kind, sha256, store)
    if not found.exists():
        raise EncoderError(
            f"encoder {sha256[:12]}…: is not in the encoder store. `medimind ingest NAME` of the disease that names it "
            "lays it there; on a machine that only serves, copy the folder "
            f"encoders/{sha256} under MEDIMIND_HOME from the one that trained."
        )
    if (is_ := digest(found)) != sha256:
        raise EncoderError(
            f"encoder {sha256[:12]}…: what lies there has SHA-256 {is_}, where {sha256} is promised: changed, and "
            f"is not used. Remove the folder encoders/{sha256} under MEDIMIND_HOME; `medimind ingest NAME` of the "
            "disease that names it lays it anew."
        )
    return found


@lru_cache(maxsize=4)
def load(recipe: Recipe, store: Path) -> Loaded:
    """The encoder, verified, ready to work; models of one process that share it, share one copy.

    Raises EncoderError if it is not there, is not what its digest says, or cannot read such signals.
    """
    found = verify(recipe.kind, recipe.sha256, store)
    if recipe.kind == "sentence_transformer":
        return _sentence_transformer(found)
    run = _onnx(found, recipe) if recipe.kind == "onnx" else _torchscript(found, recipe)
    scaled = SCALES[recipe.scale]

    def encode(signal: Vector) -> Vector:
        said = run(scaled(signal.reshape(recipe.shape)))
        vector = said.mean(axis=0, dtype=np.float64) if said.ndim == 2 else said
        return np.asarray(vector, np.float32)

    trial = encode(np.zeros(int(np.prod(recipe.shape)), np.float32))
    return Loaded(len(trial), None, encode)


def _ranks(signal: Vector) -> Vector:
    """Each lead's samples by their rank within it, from -1 to 1, ties at their mean: blind to the amplitude.

    As openecg's encoders were trained (opendsp's `rank_normalize`, of the same definition).
    """
    found = np.empty(signal.shape, np.float32)
    flat, out = signal.reshape(-1, signal.shape[-1]), found.reshape(-1, signal.shape[-1])
    for lead, row in zip(flat, out, strict=True):
        _, which, counts = np.unique(lead, return_inverse=True, return_counts=True)
        last = np.cumsum(counts)
        mean_rank = last - (counts + 1) / 2  # from 0
        row[:] = mean_rank[which] / max(len(lead) - 1, 1) * 2 - 1
    return found


SCALES: dict[str | None, Callable[[Vector], Vector]] = {None: lambda signal: signal, "rank": _ranks}


def _onnx(path: Path, recipe: Recipe) -> Callable[[Vector], Vector]:
    from models.onnx import ForeignGraph

    graph = ForeignGraph(path.read_bytes(), f"encoder {recipe.sha256[:12]}…", recipe.output)
    shape = _asked(graph.shape, recipe)
    return lambda signal: _vector(graph.run(signal.reshape(1, *shape)), recipe)


def _asked(shape: tuple[int | None, ...], recipe: Recipe) -> tuple[int, ...]:
    """The signal's shape as an ONNX input asks for it after the batch: whole, or without its axes of length 1."""
    squeezed = tuple(length for length in recipe.shape if length > 1)
    for ours in (recipe.shape, squeezed):
        if len(shape) == 1 + len(ours) and all(a in (None, b) for a, b in zip(shape[1:], ours, strict=True)):
            return ours
    raise EncoderError(
        f"encoder {recipe.sha256[:12]}…: reads {_told(shape)}, and a signal of the contract is "
        f"{_told((1, *recipe.shape))}."
    )


def _told(shape: tuple[int | None, ...]) -> str:
    return " x ".join("any" if length is None else str(length) for length in shape)


def _torchscript(path: Path, recipe: Recipe) -> Callable[[Vector], Vector]:
    import io
    import warnings

    import torch

    name = f"encoder {recipe.sha256[:12]}…"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of torch.jit as a whole, which stays readable
            module = torch.jit.load(io.BytesIO(path.read_bytes()), map_location="cpu").eval()
    except (RuntimeError, ValueError) as exc:
        raise EncoderError(f"{name}: is no TorchScript file ({type(exc).__name__}).") from exc

    def run(signal: Vector) -> Vector:
        try:
            with one_thread(), torch.inference_mode():
                said = module(torch.from_numpy(np.ascontiguousarray(signal))[None])
        except RuntimeError as exc:
            shape = _told((1, *recipe.shape))
            raise EncoderError(f"{name}: does not read a signal of {shape} ({type(exc).__name__}).") from exc
        if not isinstance(said, torch.Tensor):
            raise EncoderError(f"{name}: gives {type(said).__name__}; one tensor is expected.")
        return _vector(said.numpy(), recipe)

    return run


def _vector(said: NDArray[Any], recipe: Recipe) -> Vector:
    """What an encoder said of one signal, without the batch: (dimension,) or (places, dimension)."""
    if said.ndim not in (2, 3) or said.shape[0] != 1:
        raise EncoderError(
            f"encoder {recipe.sha256[:12]}…: gives {_told(said.shape)}; 1 x dimension, or 1 x places x dimension, "
            "whose mean over the places is taken, is expected."
        )
    return _finite(np.asarray(said[0], np.float32), f"encoder {recipe.sha256[:12]}…")


def _finite(vector: Vector, name: str) -> Vector:
    """The vector as it is: a NaN in it would say that the signal is missing."""
    if not np.isfinite(vector).all():
        raise EncoderError(f"{name}: gives a number that is not finite.")
    return vector


def _sentence_transformer(folder: Path) -> Loaded:
    """A folder as sentence-transformers writes it: a transformer, one pooling, and perhaps a normalisation.

    Only model.safetensors is read, never a pickle, and no code that lies in the folder is run.
    """
    import torch
    from tokenizers import Tokenizer
    from transformers import AutoModel
    from transformers.utils import logging

    name = f"encoder {folder.name[:12]}…"
    steps = _steps(folder, name)
    pool = _pooling(folder / steps[1][1] / "config.json", name)
    told = _json(folder / steps[0][1] / "sentence_bert_config.json", name)
    logging.disable_progress_bar()
    try:
        tokenizer = Tokenizer.from_file(str(folder / steps[0][1] / "tokenizer.json"))
        model, loading = AutoModel.from_pretrained(
            folder / steps[0][1],
            local_files_only=True,
            use_safetensors=True,
            trust_remote_code=False,
            output_loading_info=True,
            dtype=torch.float32,
        )
    except Exception as exc:  # tokenizers raises bare Exception, transformers what it likes
        raise EncoderError(f"{name}: cannot be read ({type(exc).__name__}: {exc!s:.200}).") from exc
    # What is missing would be drawn at random. A pooler is not used here.
    if lacking := sorted(key for key in loading["missing_keys"] if not key.startswith("pooler.")):
        raise EncoderError(f"{name}: its weights lack {len(lacking)} tensors, such as {lacking[0]}.")
    model.eval()
    tokens = min(int(told.get("max_seq_length") or 512), int(model.config.max_position_embeddings))
    tokenizer.no_padding()
    tokenizer.enable_truncation(tokens)
    lower, normalised = bool(told.get("do_lower_case")), len(steps) == 3

    def encode(row: Vector) -> Vector:
        (text,) = texts.decode(row[None])
        assert text is not None  # what is missing never gets here
        read = tokenizer.encode(text.lower() if lower else text)
        with one_thread(), torch.inference_mode():
            ids, types = torch.tensor([read.ids]), torch.tensor([read.type_ids])
            states = model(input_ids=ids, token_type_ids=types, attention_mask=torch.ones_like(ids)).last_hidden_state
            vector = pool(states[0])
            if normalised:
                vector = torch.nn.functional.normalize(vector, dim=0)
        return _finite(np.array(vector.numpy(), np.float32), name)

    return Loaded(int(model.config.hidden_size), tokens, encode)


def _steps(folder: Path, name: str) -> list[tuple[str, str]]:
    """Each step's kind and folder, from modules.json."""
    modules = _json(folder / "modules.json", name)
    try:
        steps = [(str(module["type"]).rpartition(".")[2], str(module["path"])) for module in modules]
    except (TypeError, KeyError) as exc:
        raise EncoderError(f"{name}: modules.json is no list of steps with `type` and `path`.") from exc
    kinds = [kind for kind, _ in steps]
    if kinds not in (["Transformer", "Pooling"], ["Transformer", "Pooling", "Normalize"]):
        raise EncoderError(
            f"{name}: its steps are {', '.join(kinds) or 'none'}; Transformer, Pooling and perhaps Normalize are read."
        )
    if outside := [path for _, path in steps if not (folder / path).resolve().is_relative_to(folder.resolve())]:
        raise EncoderError(f"{name}: modules.json leads out of the folder, to {outside[0]!r}.")
    return steps


def _pooling(path: Path, name: str) -> Callable[[Any], Any]:
    """How the tokens' states (tokens, dimension) become one vector."""
    config = _json(path, name)
    chosen = [key for key, value in config.items() if key.startswith("pooling_mode_") and value]
    ways: dict[str, Callable[[Any], Any]] = {
        "pooling_mode_cls_token": lambda states: states[0],
        "pooling_mode_mean_tokens": lambda states: states.mean(dim=0),
        "pooling_mode_max_tokens": lambda states: states.max(dim=0).values,
        "pooling_mode_mean_sqrt_len_tokens": lambda states: states.sum(dim=0) / len(states) ** 0.5,
    }
    if len(chosen) != 1 or chosen[0] not in ways:
        raise EncoderError(f"{name}: pools by {', '.join(chosen) or 'nothing'}; one of {', '.join(ways)} is read.")
    return ways[chosen[0]]


def _json(path: Path, name: str) -> Any:
    try:
        return json.loads(path.read_bytes())
    except OSError as exc:
        raise EncoderError(f"{name}: {path.name} cannot be read ({exc.strerror}).") from exc
    except ValueError as exc:
        raise EncoderError(f"{name}: {path.name} is no readable JSON.") from exc


class Embeddings:
    """The vectors of an encoder, each computed once: in a bounded memory, and in a training's process in a file too.

    They are found by the SHA-256 of what they were made of. The file lies under `kept`, in a folder of the encoder's
    digest, and is readable by its owner alone: a vector tells of a patient about as much as the text itself.
    """

    def __init__(self, recipe: Recipe, store: Path, kept: Path | None = None) -> None:
        self.loaded = load(recipe, store)
        self._recent: OrderedDict[bytes, Vector] = OrderedDict()
        self._lock = Lock()
        self._file = None if kept is None else kept / recipe.sha256 / f"{_made_with(recipe)}.db"

    def of(self, rows: Vector) -> Vector:
        """The vector of each row of signals (n, size), (n, dimension) float32; NaN throughout where it is missing."""
        found = np.full((len(rows), self.loaded.dimension), np.nan, np.float32)
        rows = np.ascontiguousarray(rows, np.float32)
        for start in range(0, len(rows), AT_ONCE):  # what was computed is kept, even if the rest is never reached
            found[start : start + AT_ONCE] = self._some(rows[start : start + AT_ONCE])
        return found

    def _some(self, rows: Vector) -> Vector:
        found = np.full((len(rows), self.loaded.dimension), np.nan, np.float32)
        present = np.flatnonzero(~np.isnan(rows[:, 0]))
        keys = {int(place): hashlib.sha256(rows[place].tobytes()).digest() for place in present}
        known = self._known(list(dict.fromkeys(keys.values())))
        fresh: dict[bytes, Vector] = {}
        for place, key in keys.items():
            vector = known.get(key)
            if vector is None:
                vector = known[key] = fresh[key] = self.loaded.encode(rows[place])
            found[place] = vector
        self._remember(known)
        if self._file is not None and fresh:
            self._write(fresh)
        return found

    def _known(self, keys: list[bytes]) -> dict[bytes, Vector]:
        with self._lock:
            found = {key: self._recent[key] for key in keys if key in self._recent}
        lacking = [key for key in keys if key not in found]
        if self._file is None or not lacking or not self._file.exists():
            return found
        size = 4 * self.loaded.dimension
        with suppress(sqlite3.Error), closing(sqlite3.connect(self._file, timeout=30)) as file:  # else computed anew
            for key in lacking:
                row = file.execute("SELECT vector FROM vectors WHERE key = ?", (key,)).fetchone()
                if row is not None and len(row[0]) == size:
                    found[key] = np.frombuffer(row[0], "<f4")
        return found

    def _remember(self, vectors: Mapping[bytes, Vector]) -> None:
        with self._lock:
            self._recent.update(vectors)
            for key in vectors:
                self._recent.move_to_end(key)
            while len(self._recent) > MOST_IN_MEMORY:
                self._recent.popitem(last=False)

    def _write(self, fresh: Mapping[bytes, Vector]) -> None:
        assert self._file is not None
        try:
            for folder in (self._file.parent.parent, self._file.parent):
                folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._file.touch(mode=0o600)  # SQLite would make it readable by all whom the umask lets
            with closing(sqlite3.connect(self._file, timeout=30)) as file, file:
                file.execute("CREATE TABLE IF NOT EXISTS vectors (key BLOB PRIMARY KEY, vector BLOB) WITHOUT ROWID")
                rows = ((key, np.asarray(vector, "<f4").tobytes()) for key, vector in fresh.items())
                file.executemany("INSERT OR IGNORE INTO vectors VALUES (?, ?)", rows)
        except (OSError, sqlite3.Error) as exc:
            reason = getattr(exc, "strerror", None) or exc
            raise EncoderError(f"{self._file}: the vectors could not be kept there ({reason}).") from exc


def _made_with(recipe: Recipe) -> str:
    """What a vector's bits hang on besides the encoder's own bytes: how it is read, the libraries, the kind of CPU."""
    libraries = {name: version(name) for name in ("numpy", "onnxruntime", "tokenizers", "torch", "transformers")}
    machine = [platform.machine(), _cpu()]
    told = [recipe.kind, recipe.output, recipe.scale, recipe.shape, libraries, machine]
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:16]


def _cpu() -> str:
    """What this CPU can do, as Linux tells it; "" elsewhere."""
    with suppress(OSError), open("/proc/cpuinfo", encoding="utf-8") as told:
        return next((line.strip() for line in told if line.startswith(("flags", "Features"))), "")
    return ""
