"""What we ship: a folder whose name is its content's SHA-256, and the store that keeps it.

Format 4 holds spec.json, calibration.json, thresholds.json, conformal.json, reference.json, selftest.json,
training.json, the model's files and MANIFEST.json with the SHA-256 of each. A model is a model.onnx, or a model.json
beside a weights.safetensors or a model.onnx; formats 1 to 3, which are still read, have a model.onnx alone. Of several
classes the model, calibration.json, conformal.json, reference.json and selftest.json hold something for each; format 2
knows one event alone, and format 1 has no conformal.json either. No clock, path or key is in them, so the same data,
spec and code give the same digest. SIGNATURE lies beside them, outside the digest. Nothing is ever unpickled.
"""

import hashlib
import json
import math
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from configs.errors import BundleError, SpecError
from configs.settings import Settings
from configs.spec import Spec, from_document
from models import signing
from models.calibration import Calibration, ClassCalibration
from models.conformal import LABELS, ClassConformal, Conformal
from models.signing import SIGNATURE

FORMAT = 4
MANIFEST = "MANIFEST.json"
ONNX, ABOUT_AND_ONNX, ABOUT_AND_WEIGHTS = (
    frozenset(names) for names in (["model.onnx"], ["model.json", "model.onnx"], ["model.json", "weights.safetensors"])
)
FIRST_FILES = frozenset(
    {
        "spec.json",
        "calibration.json",
        "thresholds.json",
        "reference.json",
        "selftest.json",
        "training.json",
    }
)
FILES = FIRST_FILES | {"conformal.json"}
FORMATS: dict[int, tuple[frozenset[str], tuple[frozenset[str], ...]]] = {
    1: (FIRST_FILES, (ONNX,)),
    2: (FILES, (ONNX,)),
    3: (FILES, (ONNX,)),
    FORMAT: (FILES, (ONNX, ABOUT_AND_ONNX, ABOUT_AND_WEIGHTS)),
}
"""Of each format the files that are always there, and those that a model may consist of."""


@dataclass(frozen=True)
class Bundle:
    """A bundle whose files are what its manifest says."""

    digest: str
    folder: Path
    spec: Spec
    calibration: Calibration | ClassCalibration
    thresholds: dict[str, float]
    conformal: Conformal | ClassConformal | None
    reference: dict[str, Any]
    selftest: dict[str, Any]
    training: dict[str, Any]

    def parameters(self, family: str) -> dict[str, float | int | str]:
        """What trials chose for that family when this bundle was trained; empty where they chose nothing."""
        found: dict[str, float | int | str] = self.training.get("trials", {}).get(family, {}).get("parameters", {})
        return found


def write(folder: Path, documents: Mapping[str, Any], export: Callable[[Path], None]) -> Bundle:
    """Make `folder` a bundle of these JSON documents (name without .json) and the model's files that `export` writes.

    The folder appears whole or not at all, and replaces an earlier one. Raises BundleError if the disk refuses it.
    """
    partial: Path | None = None
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
        export(partial)
        for name, document in documents.items():
            (partial / f"{name}.json").write_bytes(_canonical(document))
        hashes = {path.name: _sha256(path) for path in sorted(partial.iterdir())}
        (partial / MANIFEST).write_bytes(_canonical({"format": FORMAT, "files": hashes}))
        load(partial)  # what cannot be read back is not put in place
        _replace(partial, folder)
    except OSError as exc:
        raise BundleError(
            f"{folder.name}: the bundle could not be written: {exc.strerror}. Nothing was changed."
        ) from exc
    finally:
        if partial is not None:
            shutil.rmtree(partial, ignore_errors=True)
    return load(folder)


def load(folder: Path) -> Bundle:
    """The bundle in `folder`, every file checked against the manifest.

    Raises BundleError, naming the file, if one is missing, added or changed, or the format is unknown.
    """
    try:
        manifest_bytes = (folder / MANIFEST).read_bytes()
    except OSError as exc:
        raise BundleError(f"{folder.name}: no bundle: {MANIFEST} cannot be read ({exc.strerror}).") from exc
    try:
        manifest = json.loads(manifest_bytes)
        format_number, hashes = manifest["format"], dict(manifest["files"])
    except (ValueError, KeyError, TypeError) as exc:
        raise BundleError(f"{folder.name}: {MANIFEST} is not readable JSON with `format` and `files`.") from exc
    if type(format_number) is not int or format_number not in FORMATS:
        known = ", ".join(map(str, FORMATS))
        raise BundleError(f"{folder.name}: bundle format {format_number!r}; this release reads formats {known}.")
    documents_of, models = FORMATS[format_number]
    files = min((documents_of | model for model in models), key=lambda known: len(known ^ set(hashes)))
    if set(hashes) != files:
        odd = sorted(set(hashes) ^ files)
        raise BundleError(
            f"{folder.name}: {MANIFEST} does not list the files of format {format_number}: {', '.join(odd)}."
        )
    present = {path.name for path in folder.iterdir()} - {MANIFEST, SIGNATURE}
    if present != files:
        odd = sorted(present ^ files)
        raise BundleError(f"{folder.name}: files missing or not in the manifest: {', '.join(odd)}.")
    documents: dict[str, Any] = {}
    for name, expected in sorted(hashes.items()):
        try:
            content = (folder / name).read_bytes()
        except OSError as exc:
            raise BundleError(f"{folder.name}: {name} cannot be read ({exc.strerror}).") from exc
        if hashlib.sha256(content).hexdigest() != expected:
            raise BundleError(f"{folder.name}: {name} is not what the manifest says; the bundle was changed. Not used.")
        if name.endswith(".json"):
            documents[name.removesuffix(".json")] = _parsed(f"{folder.name}: {name}", content)
    try:
        spec = from_document(documents["spec"], f"{folder.name}: spec.json")
    except SpecError as exc:
        raise BundleError(str(exc)) from exc
    return Bundle(
        digest=hashlib.sha256(manifest_bytes).hexdigest(),
        folder=folder,
        spec=spec,
        calibration=_calibration(documents["calibration"], spec, folder.name),
        thresholds=documents["thresholds"],
        conformal=_conformal(documents.get("conformal", {}), spec, folder.name),
        reference=documents["reference"],
        selftest=documents["selftest"],
        training=documents["training"],
    )


def _calibration(document: Mapping[str, Any], spec: Spec, shown: str) -> Calibration | ClassCalibration:
    classes = spec.outcome.classes
    if classes is None:
        try:
            return Calibration(**document)
        except TypeError as exc:
            raise BundleError(f"{shown}: calibration.json is not a slope and an intercept.") from exc
    slope = _numbers({"slope": document.get("slope")}, ["slope"])
    intercepts = _numbers(document.get("intercepts"), list(classes))
    if set(document) != {"slope", "intercepts"} or slope is None or intercepts is None:
        raise BundleError(f"{shown}: calibration.json is not a slope and the intercepts of {', '.join(classes)}.")
    return ClassCalibration(slope["slope"], intercepts, tuple(spec.outcome.positive))


def _numbers(found: Any, names: Sequence[str]) -> dict[str, float] | None:
    """This, if it is a number for each of the names, in their order."""
    if not isinstance(found, dict) or list(found) != list(names):
        return None
    return found if all(type(value) in (int, float) and math.isfinite(value) for value in found.values()) else None


def _conformal(document: Mapping[str, Any], spec: Spec, shown: str) -> Conformal | ClassConformal | None:
    """The prediction sets' thresholds, there if and only if the spec asks for them: its rule of silence needs them."""
    if spec.uncertainty is None and not document:
        return None
    classes = spec.outcome.classes
    names, keys = (LABELS, {"coverage", *LABELS}) if classes is None else (tuple(classes), {"coverage", "least"})
    ends = {name: document.get(name) for name in LABELS} if classes is None else document.get("least")
    told = {"coverage": document.get("coverage"), **ends} if isinstance(ends, dict) else None
    numbers = _numbers(told, ["coverage", *names])
    if set(document) != keys or numbers is None or not all(0 <= value <= 1 for value in numbers.values()):
        raise BundleError(f"{shown}: conformal.json is not a coverage and {len(names)} thresholds between 0 and 1.")
    found = Conformal(**document) if classes is None else ClassConformal(**document)
    if spec.uncertainty is None or found.coverage != spec.uncertainty.coverage:
        raise BundleError(
            f"{shown}: conformal.json has a coverage of {found.coverage}, which the spec does not ask for."
        )
    return found


def put(folder: Path, settings: Settings) -> Bundle:
    """Lay the bundle of `folder` in the store, under its digest, and return it from there.

    What the store holds under that digest stays if it is whole and its signature holds, and is replaced if not. Raises
    BundleError if nobody whom this machine trusts signed the bundle.
    """
    manifest = _manifest(folder)
    digest = hashlib.sha256(manifest).hexdigest()
    store = settings.store
    kept = store / digest
    try:
        return get(digest, settings)
    except BundleError:
        pass  # missing, damaged or not vouched for: laid anew
    signing.verify(folder, manifest, settings)  # first: a changed manifest would blame the files it lists
    load(folder)
    try:
        store.mkdir(parents=True, exist_ok=True, mode=0o700)
        partial = Path(tempfile.mkdtemp(prefix=".put-", dir=store))
        try:
            for path in folder.iterdir():
                shutil.copyfile(path, partial / path.name)
                _to_disk(partial / path.name)
            _to_disk(partial)
            _replace(partial, kept)
            _to_disk(store)
        except OSError:
            if not kept.exists():  # else another process was faster with the same bytes, which get() verifies
                raise
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    except OSError as exc:
        raise BundleError(f"{digest[:12]}: the store did not take the bundle: {exc.strerror}.") from exc
    return get(digest, settings)


def _to_disk(path: Path) -> None:
    """Wait until a power cut would not lose what was written."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def get(digest: str, settings: Settings) -> Bundle:
    """The store's bundle of that digest, whole and signed by somebody whom this machine trusts.

    Raises BundleError, naming the file, if it is missing, is not what its name says, or the signature does not hold.
    """
    folder = settings.store / digest
    manifest = _manifest(folder)
    if hashlib.sha256(manifest).hexdigest() != digest:
        raise BundleError(f"{digest[:12]}: {MANIFEST} is not the one that the store's name for it says. Not used.")
    bundle = load(folder)
    if bundle.digest != digest:
        raise BundleError(f"{digest[:12]}: {MANIFEST} changed while it was read. Not used.")
    signing.verify(folder, manifest, settings)
    return bundle


def sign(folder: Path, settings: Settings) -> Path:
    """Lay this machine's SIGNATURE beside a bundle's files, in place of an earlier one, and return the folder."""
    content = signing.sign(_manifest(folder), settings)
    partial = folder.with_name(f".{folder.name}-{SIGNATURE}")
    try:
        partial.write_bytes(content)
        _to_disk(partial)
        os.replace(partial, folder / SIGNATURE)
        _to_disk(folder)
    except OSError as exc:
        raise BundleError(f"{folder.name[:12]}: {SIGNATURE} could not be written ({exc.strerror}).") from exc
    finally:
        partial.unlink(missing_ok=True)
    return folder


def _manifest(folder: Path) -> bytes:
    try:
        return (folder / MANIFEST).read_bytes()
    except OSError as exc:
        raise BundleError(f"{folder.name}: no bundle: {MANIFEST} cannot be read ({exc.strerror}).") from exc


def _replace(partial: Path, folder: Path) -> None:
    """Swap the folders: a reader finds the old one, the new one or, between two renames, none; never half of one."""
    if not folder.exists():
        os.replace(partial, folder)
        return
    old = folder.parent / f".{folder.name}-old"
    shutil.rmtree(old, ignore_errors=True)
    os.replace(folder, old)
    try:
        os.replace(partial, folder)
    except OSError:
        os.replace(old, folder)
        raise
    shutil.rmtree(old, ignore_errors=True)


def _parsed(shown: str, content: bytes) -> dict[str, Any]:
    try:
        document = json.loads(content)
    except ValueError as exc:
        raise BundleError(f"{shown} is not readable JSON.") from exc
    if not isinstance(document, dict):
        raise BundleError(f"{shown} is not a JSON object.")
    return document


def _canonical(document: Any) -> bytes:
    return (json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode()


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
