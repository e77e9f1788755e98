"""Every prediction that was answered: what came in, what the model saw, what it said."""

import hashlib
import hmac
import os
import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray

from configs.errors import LedgerError, NotOnRecordError, RecordError
from ledger import tables
from ledger.database import BUSY_TIMEOUT_S, audit, reading, utc, writing

DIGEST_BYTES = 32
ID = re.compile(r"(0|[1-9][0-9]{0,14})-(0|[1-9][0-9]{0,8})")
"""A request's number and a position in it, as prediction_id writes them; both are numbers that a database takes."""


@dataclass(frozen=True)
class Answered:
    """One request's predictions, as they go on record: n records, features (n, d), risks (n,)."""

    model: str
    version: int
    bundle: str
    received_at: datetime
    records: list[dict[str, Any]]
    references: list[str | None]
    patients: list[str | None]
    features: NDArray[np.float32]
    risks: NDArray[np.float64]
    bands: list[str | None]


@dataclass(frozen=True)
class Idempotency:
    """A caller's key, and the digest of the body that it came with."""

    key: str
    body_digest: str


@dataclass(frozen=True)
class Stored:
    """One prediction on record. `record` and `features` are None once they were purged."""

    id: str
    model: str
    version: int
    bundle: str
    received_at: datetime
    record: dict[str, Any] | None
    features: NDArray[np.float32] | None
    feature_digest: str
    risk: float
    band: str | None


@dataclass(frozen=True)
class Window:
    """Predictions of one bundle, oldest first: n records, features (n, d), risks (n,), outcomes (n,) 0, 1 or NaN."""

    records: list[dict[str, Any]]
    features: NDArray[np.float32]
    digests: list[str]
    risks: NDArray[np.float64]
    outcomes: NDArray[np.float64]
    first: datetime | None
    last: datetime | None
    purged: int

    def __len__(self) -> int:
        return len(self.risks)


def keep(
    engine: sa.Engine,
    answered: Answered,
    idempotency: Idempotency | None,
    answer: Callable[[int], bytes],
    wait_s: float = BUSY_TIMEOUT_S,
) -> bytes:
    """Put a request on record, durably, and return the bytes that `answer` makes of its number.

    Where the same idempotency key came twice at once, the answer of the one that won is returned, and nothing is kept
    of the other. Raises LedgerError if the ledger does not take it within `wait_s`.
    """
    try:
        with writing(engine, wait_s) as connection:
            number = reserve(connection, answered, idempotency)
            said = answer(number)
            if idempotency:
                keep_answer(connection, number, said)
    except sa.exc.IntegrityError:
        if idempotency and (won := answered_before(engine, answered.model, idempotency)):
            return won
        raise
    return said


def reserve(connection: sa.Connection, answered: Answered, idempotency: Idempotency | None) -> int:
    """Put the request on record within the caller's transaction, and return its number.

    Raises IntegrityError if the idempotency key is taken.
    """
    rows = np.ascontiguousarray(answered.features, np.float32)
    request = connection.execute(
        tables.requests.insert().values(
            model=answered.model,
            version=answered.version,
            bundle=answered.bundle,
            received_at=utc(answered.received_at),
            n=len(rows),
            risks=np.ascontiguousarray(answered.risks, np.float64).tobytes(),
            feature_digests=b"".join(bytes.fromhex(feature_digest(row)) for row in rows),
            bands=answered.bands,
            features=rows.tobytes(),
            records=answered.records,
            patients=answered.patients,
            idempotency_key=_key_digest(idempotency) if idempotency else None,
            body_digest=idempotency.body_digest if idempotency else None,
        )
    )
    number = int(request.inserted_primary_key[0])  # type: ignore[index]
    named = [
        {"reference": reference, "request": number, "position": position}
        for position, reference in enumerate(answered.references)
        if reference is not None
    ]
    if named:
        connection.execute(tables.references.insert(), named)
    return number


def keep_answer(connection: sa.Connection, request: int, answer: bytes) -> None:
    """Keep the answer's bytes beside its idempotency key, for the caller that asks again."""
    connection.execute(tables.requests.update().where(tables.requests.c.id == request).values(answer=answer))


def answered_before(engine: sa.Engine, model: str, idempotency: Idempotency) -> bytes | None:
    """The answer that this key got before; None if it is new.

    Raises RecordError if the key came with another body, or its answer was purged.
    """
    t = tables.requests
    query = sa.select(t.c.body_digest, t.c.answer).where(
        t.c.model == model, t.c.idempotency_key == _key_digest(idempotency)
    )
    with reading(engine) as connection:
        row = connection.execute(query).one_or_none()
    if row is None:
        return None
    if row.body_digest != idempotency.body_digest:
        said = "was used with another body; a new request needs a new key."
        raise RecordError("idempotency_key", "Idempotency-Key", f"Idempotency-Key: {said}")
    if row.answer is None:
        raise RecordError("idempotency_key", "Idempotency-Key", "Idempotency-Key: its answer has been purged.")
    return bytes(row.answer)


def find(engine: sa.Engine, prediction_id: str) -> Stored:
    """The prediction of that id. Raises LedgerError if there is none."""
    request, position = parse_id(prediction_id)
    t = tables.requests
    with reading(engine) as connection:
        row = connection.execute(sa.select(t).where(t.c.id == request, t.c.n > position)).one_or_none()
    if row is None:
        raise NotOnRecordError(f"no prediction {prediction_id!r} is on record.")
    features = None
    if row.features is not None:
        features = np.frombuffer(row.features, np.float32).reshape(row.n, -1)[position]
    return Stored(
        id=prediction_id,
        model=row.model,
        version=row.version,
        bundle=row.bundle,
        received_at=utc(row.received_at),
        record=row.records[position] if row.records is not None else None,
        features=features,
        feature_digest=_digests(row.feature_digests)[position],
        risk=float(np.frombuffer(row.risks, np.float64)[position]),
        band=row.bands[position],
    )


def window(engine: sa.Engine, model: str, bundle: str, last: int | None, since: datetime | None) -> Window:
    """The newest `last` predictions of a bundle, or all `since` a time; purged ones are counted and left out."""
    t, o = tables.requests, tables.outcomes
    query = sa.select(t).where(t.c.model == model, t.c.bundle == bundle).order_by(t.c.id.desc())
    if since is not None:
        query = query.where(t.c.received_at >= utc(since))
    rows: list[Any] = []
    purged = found = 0
    outcome: dict[tuple[int, int], int] = {}
    with reading(engine) as connection:
        for row in connection.execution_options(stream_results=True).execute(query):
            if row.records is None:
                purged += row.n
                continue
            rows.append(row)
            found += row.n
            if last is not None and found >= last:
                break
        if rows:
            lowest, highest = rows[-1].id, rows[0].id
            known = sa.select(o).where(o.c.request.between(lowest, highest)).order_by(o.c.id)
            for known_row in connection.execute(known):
                outcome[known_row.request, known_row.position] = known_row.value
    rows.reverse()
    skip = max(found - last, 0) if last is not None else 0
    features = [np.frombuffer(row.features, np.float32).reshape(row.n, -1) for row in rows]
    places = [(row.id, position) for row in rows for position in range(row.n)][skip:]
    return Window(
        records=[record for row in rows for record in row.records][skip:],
        features=np.concatenate(features)[skip:] if features else np.empty((0, 0), np.float32),
        digests=[digest for row in rows for digest in _digests(row.feature_digests)][skip:],
        risks=np.concatenate([np.empty(0), *(np.frombuffer(row.risks, np.float64) for row in rows)])[skip:],
        outcomes=np.array([outcome.get(place, np.nan) for place in places], np.float64),
        first=utc(rows[0].received_at) if rows else None,
        last=utc(rows[-1].received_at) if rows else None,
        purged=purged,
    )


def purge(engine: sa.Engine, before: datetime, actor: str) -> int:
    """Remove what patients' records held from predictions before that time; digests, risks and bands stay.

    Returns how many predictions were purged. Raises LedgerError if a reader keeps SQLite's log, which still holds them.
    """
    t = tables.requests
    before = utc(before)
    old = sa.and_(t.c.received_at < before, t.c.records.is_not(sa.null()))
    with writing(engine) as connection:
        numbers = sa.select(t.c.id).where(old)
        count = int(connection.execute(sa.select(sa.func.coalesce(sa.func.sum(t.c.n), 0)).where(old)).scalar_one())
        connection.execute(tables.references.delete().where(tables.references.c.request.in_(numbers)))
        gone = {"records": sa.null(), "features": None, "patients": sa.null(), "answer": None}
        connection.execute(t.update().where(old).values(**gone))
        audit(connection, actor, "purge", f"{count} predictions before {before.isoformat()}")
    if engine.dialect.name == "sqlite":
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            busy = connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)").one()[0]
        if busy:
            raise LedgerError(
                f"{count} predictions are purged, but the ledger is still being read and its log still holds them "
                "until that reader ends. Purge again to clear it."
            )
    return count


def prediction_id(request: int, position: int) -> str:
    return f"{request}-{position}"


def parse_id(prediction_id: str) -> tuple[int, int]:
    """Request and position. Raises LedgerError if the text is no prediction's id."""
    match = ID.fullmatch(prediction_id)
    if match is None:
        raise NotOnRecordError(f"{prediction_id[:40]!r} is no prediction's id; one looks like '17-0'.")
    return int(match[1]), int(match[2])


def feature_digest(row: NDArray[np.float32]) -> str:
    """SHA-256 of a feature row's float32 bytes, one bit pattern for every NaN."""
    canonical = np.where(np.isnan(row), np.float32(np.nan), row).astype("<f4")
    return hashlib.sha256(canonical.tobytes()).hexdigest()


def _digests(joined: bytes) -> list[str]:
    return [joined[start : start + DIGEST_BYTES].hex() for start in range(0, len(joined), DIGEST_BYTES)]


def patient_key(home: Path) -> bytes:
    """The key of this home's patient hashes, made at first use, readable by its owner alone."""
    path = home / "keys" / "patient.key"
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    if not path.exists():
        with NamedTemporaryFile(prefix=".patient-", dir=path.parent) as file:  # readable by its owner alone
            file.write(os.urandom(32))
            file.flush()
            with suppress(FileExistsError):  # of two processes the first one's key counts, and it appears whole
                os.link(file.name, path)
    key = path.read_bytes()
    if len(key) != 32:
        raise LedgerError(
            f"{path.name}: is not a key of 32 bytes; restore it from a backup, or patients lose their hashes."
        )
    return key


def hash_patients(key: bytes, patients: Sequence[str | None]) -> list[str | None]:
    """Each caller's pseudonym as a keyed hash: the same patient the same hash, and no way back without the key."""
    return [
        None if patient is None else hmac.new(key, patient.encode(), hashlib.sha256).hexdigest() for patient in patients
    ]


def _key_digest(idempotency: Idempotency) -> str:
    """The key as it is kept: callers put a patient's number in it, and it outlives a purge."""
    return hashlib.sha256(idempotency.key.encode()).hexdigest()


def body_digest(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()


def since(text: str) -> datetime:
    """A time as a person types it. Raises LedgerError if it is none."""
    try:
        return utc(datetime.fromisoformat(text))
    except (ValueError, OverflowError) as exc:  # overflow: in UTC it is before year 1 or after year 9999
        raise LedgerError(f"{text!r} is no ISO 8601 time; 2026-11-23 or 2026-11-23T09:30:00Z is expected.") from exc
