"""Whose signature counts: the keys of this machine's trust file, each change on record."""

from dataclasses import dataclass
from datetime import date
from pathlib import Path

from configs.errors import BundleError, LedgerError
from configs.settings import Settings
from ledger import promotions, registry, traffic
from ledger.database import Engine, audit, connect, deciding, now
from models import bundle as bundles
from models import signing
from models.predict import Predictor
from models.signing import Key


@dataclass(frozen=True)
class Listed:
    """A key of the trust file, in what state it is, and whether it is the one that signs here."""

    key: Key
    state: str
    signs: bool


def listed(settings: Settings) -> list[Listed]:
    """Every key of the trust file, oldest first."""
    own, today = signing.own_id(settings), now().date()
    return [Listed(key, key.state(today), key.id == own) for key in signing.trusted(settings)]


def rotate(reason: str, settings: Settings) -> tuple[str | None, str]:
    """Sign with a new key from now on; the ids of the old one and the new. What the old one signed stays served."""
    _require(reason)
    with deciding(connect(settings)) as connection:
        old, new = signing.rotate(settings)
        audit(connection, settings.actor, "rotate key", f"{old or 'none'} to {new}: {reason}")
    return old, new


def trust(file: Path, note: str, expires: date | None, settings: Settings) -> Key:
    """Accept what this public key signed. Raises BundleError if the file holds none, or the key is listed already."""
    _require(note)
    try:
        pem = file.read_bytes()
    except OSError as exc:
        raise BundleError(f"{file}: cannot be read ({exc.strerror}).") from exc
    with deciding(connect(settings)) as connection:
        key = signing.trust(pem, note, expires, settings)
        audit(connection, settings.actor, "trust key", f"{key.id}: {note}")
    return key


def revoke(identity: str, reason: str, settings: Settings) -> Key:
    """Accept nothing that this key signed any more. A server refuses such a bundle when it next loads it."""
    _require(reason)
    with deciding(connect(settings)) as connection:
        key = signing.revoke(identity, f"revoked: {reason}", settings)
        audit(connection, settings.actor, "revoke key", f"{key.id}: {reason}")
    return key


def sign(name: str, number: int, reason: str, settings: Settings) -> str:
    """Vouch for a version that has no signature that counts: its bundle's digest.

    It is the store's bundle of a version that answers or did, else the registry's. Raises BundleError unless its hashes
    and its self-test hold, RegistryError if there is no such version.
    """
    _require(reason)
    engine = connect(settings)
    digest = _on_record(engine, name, number)
    if digest is not None and (settings.store / digest).is_dir():
        folder = settings.store / digest
        _check(folder, digest, f"{name}@{number}")
        with deciding(engine) as connection:
            audit(connection, settings.actor, "sign", f"{name}@{number}, bundle {digest}: {reason}")
            bundles.sign(folder, settings)
        return digest
    version = registry.find(settings, name, number)
    with registry.fetch(settings, version) as (folder, report):
        _check(folder, digest or report.bundle, str(version))
        with deciding(engine) as connection:
            audit(connection, settings.actor, "sign", f"{version}, bundle {report.bundle}: {reason}")
            return bundles.put(bundles.sign(folder, settings), settings).digest


def _check(folder: Path, digest: str, shown: str) -> None:
    """Raise BundleError unless the folder is this bundle, whole, and replays its self-test."""
    bundle = bundles.load(folder)
    if bundle.digest != digest:
        raise BundleError(f"{shown}: {bundles.MANIFEST} is not of bundle {digest[:12]}. Nothing was signed.")
    Predictor(bundle)


def _on_record(engine: Engine, name: str, number: int) -> str | None:
    """The bundle of a version that answers, is a shadow or was champion, as the ledger has it."""
    champion = promotions.find_champion(engine, name)
    earlier = promotions.earlier(engine, champion) if champion is not None else []
    places = {route.version: route.bundle for route in traffic.find(engine, name).lanes.values()}
    places |= {each.version: each.bundle for each in reversed([*([champion] if champion else []), *earlier])}
    return places.get(number)


def _require(reason: str) -> None:
    if not reason.strip():
        raise LedgerError("a reason is expected, for the record, and this one is empty. Nothing was changed.")
