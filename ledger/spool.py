"""Predictions that were answered while the ledger was away: an append-only file for each worker.

Every entry is on disk before its answer leaves, and goes to the ledger in the order it came. Its numbers were drawn
from the ledger beforehand, so that one that is brought twice, because the worker died in between, is there once. A
worker takes over the files of those that ended before it.
"""

import errno
import fcntl
import logging
import os
import threading
import zlib
from collections import deque
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import BinaryIO

import msgspec
import numpy as np

from configs.errors import LedgerError, RecordError
from ledger.predictions import Answered, ByClass, Entry, Idempotency, repeated

HEAD_BYTES = 8
ASIDE = ".refused"

log = logging.getLogger(__name__)


class _Row(msgspec.Struct, omit_defaults=True):
    """Answered, as it stands in the file; of several classes alone those that say so, of signals the digests."""

    model: str
    version: int
    bundle: str
    received_at: datetime
    records: bytes
    n: int
    references: list[str | None]
    patients: list[str | None]
    features: bytes
    risks: bytes
    bands: list[str | None]
    traffic: int | None
    classes: dict[str, bool] | None = None
    class_risks: bytes | None = None
    labels: list[str | None] | None = None
    digests: bytes | None = None


class _Line(msgspec.Struct):
    numbers: list[int]
    rows: list[_Row]
    key: str | None
    body_digest: str | None
    answer: bytes | None


class Spool:
    """The entries of `folder` that this worker has to bring to the ledger, oldest first."""

    def __init__(self, folder: Path) -> None:
        """Takes over what earlier workers left. Raises LedgerError if a file cannot be read."""
        self._folder = folder
        self._lock = threading.Lock()
        self._file: BinaryIO | None = None
        self._entries: deque[Entry] = deque()
        self._keys: dict[tuple[str, str], tuple[str, bytes]] = {}
        self._inherited: list[tuple[Path, BinaryIO]] = []
        for path in sorted(folder.glob("*.spool")) if folder.exists() else []:
            file = open(path, "r+b")  # noqa: SIM115  # open, and locked, as long as its entries are ours
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                file.close()  # its worker is alive
                continue
            self._inherited.append((path, file))
            for entry in _entries(path, file.read()):
                self._add(entry, entry.answer([]) if entry.idempotency else None)

    @property
    def pending(self) -> int:
        return len(self._entries)

    def append(self, entry: Entry) -> None:
        """Keep an entry, with its numbers, on disk. Raises LedgerError if the disk does not take it."""
        content, answer = _content(entry)
        with self._lock:
            try:
                self._append(content)
            except OSError as exc:
                said = f"the ledger does not answer, and its spool failed too: {exc.strerror}."
                raise LedgerError(said) from exc
            self._add(entry, answer)

    def set_aside(self, entry: Entry) -> None:
        """Keep an answered entry that the ledger refuses in a file of its own, for a person to look at.

        Raises LedgerError if the disk does not take it.
        """
        assert entry.numbers is not None
        path = self._folder / f"{entry.numbers[0]}{ASIDE}"
        try:
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            with open(path, "wb", buffering=0, opener=_private) as file:
                file.write(_content(entry)[0])
                os.fsync(file.fileno())
        except OSError as exc:
            raise LedgerError(f"{path.name}: what the ledger refuses cannot be kept: {exc.strerror}.") from exc
        log.error("the ledger refuses a request that was answered; it is kept in %s", path)

    def _add(self, entry: Entry, answer: bytes | None) -> None:
        self._entries.append(entry)
        if entry.idempotency and answer is not None:
            self._keys[entry.rows[0].model, entry.idempotency.key] = entry.idempotency.body_digest, answer

    def _append(self, content: bytes) -> None:
        if self._file is None:
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            path = self._folder / f"{os.getpid()}-{os.urandom(4).hex()}.spool"
            self._file = open(path, "xb", buffering=0, opener=_private)  # noqa: SIM115
            fcntl.flock(self._file, fcntl.LOCK_EX)
        start = self._file.tell()
        try:
            if self._file.write(content) != len(content):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            os.fsync(self._file.fileno())
        except OSError:
            self._file.truncate(start)  # half an entry would hide what comes after it
            self._file.seek(start)
            raise

    def before(self, entry: Entry) -> bytes | RecordError | None:
        """The answer that this entry's key got from this spool; None if the key is new to it."""
        if entry.idempotency is None:
            return None
        known = self._keys.get((entry.rows[0].model, entry.idempotency.key))
        return None if known is None else repeated(entry.idempotency, *known)

    def oldest(self, most: int) -> list[Entry]:
        return [self._entries[place] for place in range(min(len(self._entries), most))]

    def forget(self, n: int) -> None:
        """The ledger has the oldest `n`; files without an entry that it lacks are removed."""
        with self._lock:
            for _ in range(n):
                self._entries.popleft()
            if self._entries:
                return
            self._keys.clear()
            try:
                for path, file in self._inherited:
                    path.unlink(missing_ok=True)
                    file.close()
                self._inherited.clear()
                if self._file is not None:
                    self._file.truncate(0)
                    self._file.seek(0)
            except OSError as exc:  # what stays in the file is brought once more, and is there already
                log.warning("the spool could not be emptied: %s", exc.strerror)

    def close(self) -> None:
        """Let go of the files; what the ledger lacks stays in them for the next worker."""
        for _, file in self._inherited:
            file.close()
        if self._file is not None:
            if not self._entries:
                Path(self._file.name).unlink(missing_ok=True)
            self._file.close()


def _content(entry: Entry) -> tuple[bytes, bytes | None]:
    """An entry with its head, as it stands in the file, and the answer that its key got."""
    assert entry.numbers is not None
    answer = entry.answer(entry.numbers) if entry.idempotency else None
    key, digest = (entry.idempotency.key, entry.idempotency.body_digest) if entry.idempotency else (None, None)
    rows = [
        _Row(
            row.model,
            row.version,
            row.bundle,
            row.received_at,
            row.records,
            len(row.risks),
            row.references,
            row.patients,
            np.ascontiguousarray(row.features, np.float32).tobytes(),
            np.ascontiguousarray(row.risks, np.float64).tobytes(),
            row.bands,
            row.traffic,
            dict(row.by_class.events) if row.by_class else None,
            np.ascontiguousarray(row.by_class.risks, np.float64).tobytes() if row.by_class else None,
            list(row.by_class.labels) if row.by_class else None,
            row.digests,
        )
        for row in entry.rows
    ]
    content = msgspec.msgpack.encode(_Line(entry.numbers, rows, key, digest, answer))
    return len(content).to_bytes(4, "big") + zlib.crc32(content).to_bytes(4, "big") + content, answer


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _entries(path: Path, content: bytes) -> Iterator[Entry]:
    """The entries of a file. A last one that was not written whole was never answered, and is left out.

    It is cut off there, or, after a loss of power, zeros stand in its place.
    """
    start = 0
    while start + HEAD_BYTES <= len(content):
        length, check = (int.from_bytes(content[start + at : start + at + 4], "big") for at in (0, 4))
        line = content[start + HEAD_BYTES : start + HEAD_BYTES + length]
        start += HEAD_BYTES + length
        if len(line) < length or (not length and not content[start:].strip(b"\0")):
            return
        if not length or zlib.crc32(line) != check:
            raise LedgerError(f"{path.name}: an entry of this spool is damaged; keep the file and restore it.")
        yield _entry(msgspec.msgpack.decode(line, type=_Line))


def _entry(line: _Line) -> Entry:
    rows = [
        Answered(
            row.model,
            row.version,
            row.bundle,
            row.received_at,
            row.records,
            row.references,
            row.patients,
            np.frombuffer(row.features, np.float32).reshape(row.n, -1),
            np.frombuffer(row.risks, np.float64),
            row.bands,
            row.traffic,
            _by_class(row),
            row.digests,
        )
        for row in line.rows
    ]
    idempotency = None
    if line.key is not None and line.body_digest is not None:
        idempotency = Idempotency(line.key, line.body_digest)
    return Entry(rows, idempotency, lambda _: line.answer or b"", line.numbers)


def _by_class(row: _Row) -> ByClass | None:
    if row.classes is None or row.class_risks is None or row.labels is None:
        return None
    return ByClass(row.classes, np.frombuffer(row.class_risks, np.float64).reshape(row.n, -1), row.labels)
