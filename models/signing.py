"""Who vouches for a bundle: Ed25519 over its MANIFEST.json, and the keys that this machine trusts.

SIGNATURE holds the key's id and the signature. A key's id is the first 16 hex digits of the SHA-256 of its raw public
key. The trust file lists public keys; the private key never leaves its file or the environment it was given by.
Source: RFC 8032, section 5.1 (Ed25519).
"""

import fcntl
import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from configs.errors import BundleError
from configs.settings import Settings

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

SIGNATURE = "SIGNATURE"
VARIABLE = "MEDIMIND_SIGNING_KEY"


@dataclass(frozen=True)
class Key:
    """A public key (64 hex digits), and until when bundles that it signed are accepted. Days are in UTC."""

    id: str
    public: str
    added: date
    expires: date | None = None
    revoked: date | None = None
    note: str = ""

    def state(self, today: date) -> str:
        """`trusted`, or why not. It is trusted until the end of its last day."""
        if self.revoked is not None:
            return f"revoked on {self.revoked}"
        if self.expires is not None and self.expires < today:
            return f"expired after {self.expires}"
        return "trusted"


def sign(manifest: bytes, settings: Settings) -> bytes:
    """The SIGNATURE of these bytes of a MANIFEST.json. Makes the key at first use, and trusts it here.

    Raises BundleError if the key cannot be read or made, or is revoked or expired.
    """
    private = _private(settings)
    own = _trust_own(settings, private)
    if (state := own.state(_today())) != "trusted":
        raise BundleError(
            f"signing key {own.id}: {state}, says {settings.trust_file}; it signs nothing. "
            '`medimind keys rotate --reason "…"` makes another.'
        )
    return _written(own.id, private.sign(manifest).hex())


def verify(folder: Path, manifest: bytes, settings: Settings) -> None:
    """Raise BundleError unless `folder` holds a SIGNATURE of these bytes by a key that this machine trusts."""
    try:
        content = (folder / SIGNATURE).read_bytes()
    except FileNotFoundError as exc:
        raise BundleError(
            f"{folder.name[:12]}: is unsigned: there is no {SIGNATURE}. `medimind keys sign NAME@VERSION` signs a "
            "version of an earlier release. Not used."
        ) from exc
    except OSError as exc:
        raise BundleError(f"{folder.name[:12]}: {SIGNATURE} cannot be read ({exc.strerror}). Not used.") from exc
    try:
        said = json.loads(content)
        identity, signature = str(said["key"]), bytes.fromhex(said["signature"])
    except (ValueError, KeyError, TypeError) as exc:
        raise BundleError(f"{folder.name[:12]}: {SIGNATURE} is damaged: no key and signature. Not used.") from exc
    if content != _written(identity, signature.hex()):
        raise BundleError(f"{folder.name[:12]}: {SIGNATURE} is damaged: it was changed. Not used.")
    key = next((key for key in trusted(settings) if key.id == identity), None)
    if key is None:
        raise BundleError(
            f"{folder.name[:12]}: {SIGNATURE} is by the unknown key {identity!r}; {settings.trust_file} does not list "
            "it. If you know whose it is, `medimind keys trust FILE` adds it. Not used."
        )
    if (state := key.state(_today())) != "trusted":
        raise BundleError(
            f"{folder.name[:12]}: {SIGNATURE} is by key {identity}, {state}, says {settings.trust_file}. If the bundle "
            "itself is sound, `medimind keys sign NAME@VERSION` signs it anew. Not used."
        )
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    try:
        Ed25519PublicKey.from_public_bytes(bytes.fromhex(key.public)).verify(signature, manifest)
    except InvalidSignature as exc:
        raise BundleError(
            f"{folder.name[:12]}: {SIGNATURE} is not of this MANIFEST.json by key {identity}; one of the two was "
            "changed. Not used."
        ) from exc


def trusted(settings: Settings) -> tuple[Key, ...]:
    """Every key in the trust file, also those that are revoked or expired; none where there is no file.

    Raises BundleError if the file is damaged: then nothing is trusted.
    """
    path = settings.trust_file
    try:
        document = json.loads(path.read_bytes())
        keys = tuple(_key(entry) for entry in document["keys"])
    except FileNotFoundError:
        return ()
    except OSError as exc:
        raise BundleError(f"{path}: the trust file cannot be read ({exc.strerror}). No bundle is used.") from exc
    except (ValueError, KeyError, TypeError) as exc:
        raise BundleError(
            f"{path}: the trust file is damaged ({exc}). No bundle is used until it is mended or restored."
        ) from exc
    if len({key.id for key in keys}) != len(keys):
        raise BundleError(f"{path}: the trust file is damaged: it lists a key twice. No bundle is used.")
    return keys


def own_public(settings: Settings) -> bytes:
    """The PEM of the public key that signs here; makes the key at first use."""
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    private = _private(settings)
    _trust_own(settings, private)
    return private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def own_id(settings: Settings) -> str | None:
    """The id of the key that signs here; None where none is given and none was made yet."""
    private = _given(settings) or _kept(settings)
    return None if private is None else _identity(_public(private))


def trust(pem: bytes, note: str, expires: date | None, settings: Settings) -> Key:
    """Trust a public key from now on. Raises BundleError if it is none, or is listed already."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    try:
        public = load_pem_public_key(pem)
    except ValueError as exc:
        raise BundleError("the file is no public key in PEM; `medimind keys export` writes one.") from exc
    if not isinstance(public, Ed25519PublicKey):
        raise BundleError("the file is a public key of another kind; Ed25519 is expected, as `keys export` writes it.")
    raw = public.public_bytes_raw()
    added = Key(_identity(raw), raw.hex(), _today(), expires, None, note)
    with _alone(settings):
        keys = trusted(settings)
        if known := next((key for key in keys if key.id == added.id), None):
            raise BundleError(f"key {known.id} is in {settings.trust_file} already: {known.state(_today())}.")
        _write_trust((*keys, added), settings)
    return added


def revoke(identity: str, note: str, settings: Settings) -> Key:
    """Accept nothing that this key signed, from now on. Raises BundleError if it is not listed, or revoked already."""
    with _alone(settings):
        keys = trusted(settings)
        found = next((key for key in keys if key.id == identity), None)
        if found is None:
            known = ", ".join(key.id for key in keys) or "none"
            raise BundleError(f"key {identity!r} is not in {settings.trust_file}. Listed: {known}.")
        if found.revoked is not None:
            raise BundleError(f"key {identity} is {found.state(_today())} already.")
        revoked = replace(found, revoked=_today(), note="; ".join(filter(None, (found.note, note))))
        _write_trust([revoked if key is found else key for key in keys], settings)
    return revoked


def rotate(settings: Settings) -> tuple[str | None, str]:
    """Sign with a new private key from now on; the ids of the old and the new one.

    The old private key is destroyed. Its public key stays as the trust file has it, so that what is served goes on.
    Raises BundleError if the key is given from outside: it is changed there.
    """
    if _given(settings) is not None:
        raise BundleError(f"the signing key is given by {VARIABLE}; give another one there. Nothing was changed.")
    with _alone(settings):
        before = _kept(settings)
        if before is not None:
            _list_own(before, settings)
        private = _new()
        _list_own(private, settings)
        path = settings.signing_file
        try:
            with open(path, "r+b") if path.exists() else open(os.devnull, "r+b") as old:
                _put_file(path, _pem(private))
                if before is not None:
                    old.write(b"\0" * os.fstat(old.fileno()).st_size)
                    old.flush()
                    os.fsync(old.fileno())
        except OSError as exc:
            raise BundleError(f"{path}: the signing key could not be replaced ({exc.strerror}).") from exc
    return (None if before is None else _identity(_public(before))), _identity(_public(private))


def _private(settings: Settings) -> "Ed25519PrivateKey":
    """The key that signs here: as given from outside, else as kept, else a new one."""
    if (private := _given(settings) or _kept(settings)) is not None:
        return private
    with _alone(settings):
        if (private := _kept(settings)) is None:  # another process may have made it meanwhile
            private = _new()
            try:
                _put_file(settings.signing_file, _pem(private))
            except OSError as exc:
                raise BundleError(f"{settings.signing_file}: no signing key could be made ({exc.strerror}).") from exc
    return private


def _given(settings: Settings) -> "Ed25519PrivateKey | None":
    given = settings.signing_key.get_secret_value()
    if not given:
        return None
    if "PRIVATE KEY" in given:
        return _read(given.encode(), VARIABLE)
    try:
        return _read(Path(given).read_bytes(), f"{VARIABLE}: {given}")
    except (OSError, ValueError) as exc:  # what is no path may be half a key: it is not quoted
        reason = exc.strerror if isinstance(exc, OSError) else "no path"
        raise BundleError(f"{VARIABLE}: neither a private key in PEM nor a file that can be read ({reason}).") from None


def _kept(settings: Settings) -> "Ed25519PrivateKey | None":
    path = settings.signing_file
    try:
        return _read(path.read_bytes(), str(path))
    except FileNotFoundError:
        return None
    except OSError as exc:
        raise BundleError(f"{path}: the signing key cannot be read ({exc.strerror}).") from exc


def _read(pem: bytes, shown: str) -> "Ed25519PrivateKey":
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        private = load_pem_private_key(pem, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise BundleError(
            f"{shown}: is no private key in PEM (PKCS8, without a password). Nothing is signed."
        ) from None
    if not isinstance(private, Ed25519PrivateKey):
        raise BundleError(f"{shown}: is a key of another kind; Ed25519 is expected. Nothing is signed.")
    return private


def _new() -> "Ed25519PrivateKey":
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    return Ed25519PrivateKey.generate()


def _pem(private: "Ed25519PrivateKey") -> bytes:
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    return private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _public(private: "Ed25519PrivateKey") -> bytes:
    return private.public_key().public_bytes_raw()


def _identity(public: bytes) -> str:
    return hashlib.sha256(public).hexdigest()[:16]


def _trust_own(settings: Settings, private: "Ed25519PrivateKey") -> Key:
    """This machine's key as the trust file has it; put there if it is not mentioned."""
    identity = _identity(_public(private))
    if (known := next((key for key in trusted(settings) if key.id == identity), None)) is not None:
        return known
    with _alone(settings):
        return _list_own(private, settings)


def _list_own(private: "Ed25519PrivateKey", settings: Settings) -> Key:
    public = _public(private)
    keys = trusted(settings)
    if (known := next((key for key in keys if key.id == _identity(public)), None)) is not None:
        return known
    own = Key(_identity(public), public.hex(), _today(), note="this machine's own")
    _write_trust((*keys, own), settings)
    return own


def _key(entry: dict[str, Any]) -> Key:
    """One entry of the trust file. Raises ValueError, KeyError or TypeError if it is none."""
    if odd := set(entry) - {"id", "public", "added", "expires", "revoked", "note"}:
        raise ValueError(f"unknown: {', '.join(sorted(odd))}")
    public = bytes.fromhex(entry["public"])
    if len(public) != 32 or entry["id"] != _identity(public):
        raise ValueError(f"key {str(entry['id'])[:16]!r} is not the id of its public key")
    expires, revoked = (
        None if entry.get(name) is None else date.fromisoformat(entry[name]) for name in ("expires", "revoked")
    )
    return Key(entry["id"], public.hex(), date.fromisoformat(entry["added"]), expires, revoked, entry.get("note", ""))


def _write_trust(keys: Iterator[Key] | tuple[Key, ...] | list[Key], settings: Settings) -> None:
    entries = [
        {name: str(value) for name, value in vars(key).items() if value is not None and value != ""} for key in keys
    ]
    content = (json.dumps({"keys": entries}, indent=1, ensure_ascii=False) + "\n").encode()
    try:
        _put_file(settings.trust_file, content)
    except OSError as exc:
        raise BundleError(f"{settings.trust_file}: the trust file could not be written ({exc.strerror}).") from exc


@contextmanager
def _alone(settings: Settings) -> Iterator[None]:
    """One process at a time changes the key and the trust file."""
    try:
        with open(settings.private(settings.signing_file.parent) / "lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
    except OSError as exc:
        raise BundleError(f"{settings.signing_file.parent}: keys cannot be kept there ({exc.strerror}).") from exc


def _put_file(path: Path, content: bytes) -> None:
    """Let the file appear whole or not at all, readable by its owner alone."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with open(os.open(partial, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    finally:
        with suppress(FileNotFoundError):
            partial.unlink()


def _written(identity: str, signature: str) -> bytes:
    return (json.dumps({"key": identity, "signature": signature}, indent=1) + "\n").encode()


def _today() -> date:
    return datetime.now(UTC).date()
