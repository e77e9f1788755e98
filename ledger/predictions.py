"""Every prediction that was answered: what came in, what the model saw, what it said."""

import hashlib
import hmac
import os
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray

from configs.errors import LedgerError, NotOnRecordError, RecordError
from ledger import tables
from ledger.database import BUSY_TIMEOUT_S, audit, reading, utc, writing

if TYPE_CHECKING:
    from features.build import Plan
    from models.predict import Predictor

DIGEST_BYTES = 32
ID = re.compile(r"(0|[1-9][0-9]{0,14})-(0|[1-9][0-9]{0,8})")
"""A request's number and a position in it, as prediction_id writes them; both are numbers that a database takes."""


Known = tuple[int, str | None]
"""What came true: 0 or 1, and of several classes which one, if that is known."""

OUTCOMES_AT_ONCE = 500
"""Requests whose outcomes are read with one statement."""


@dataclass(frozen=True)
class ByClass:
    """What was said of n patients by class: `risks` (n, K), and the n `labels` of least expected cost, None in doubt.

    `events` holds the K names, in order, each with whether it is the event.
    """

    events: Mapping[str, bool]
    risks: NDArray[np.float64]
    labels: Sequence[str | None]

    @property
    def named(self) -> list[dict[str, float]]:
        """Each patient's risks by the classes' names."""
        return [dict(zip(self.events, row, strict=True)) for row in self.risks.tolist()]

    def part(self, start: int, stop: int) -> "ByClass":
        """Some of the patients."""
        return ByClass(self.events, self.risks[start:stop], self.labels[start:stop])

    @staticmethod
    def join(parts: Sequence["ByClass | None"]) -> "ByClass | None":
        """One after the other what one version said; None of a model without several classes."""
        known = [part for part in parts if part is not None]
        if not known:
            return None
        risks = np.concatenate([part.risks for part in known])
        return ByClass(known[0].events, risks, [label for part in known for label in part.labels])


@dataclass(frozen=True)
class Answered:
    """Predictions of one version for one request, as they go on record: features (n, d), risks (n,).

    Of a model with signals `features` is what `kept_features` keeps of the rows that it saw, and `digests` are the
    rows' own, joined; else they are the rows, and `digests` is None.

    `records` are n as JSON: the names of their fields, and a row of cells each; one without `at` is of the moment it
    was received. A list of objects, as earlier releases wrote it, is read as well.

    `traffic` is the ledger's number of the rule that sent these records to another version than the champion.
    `by_class`: of a model of several classes alone.
    """

    model: str
    version: int
    bundle: str
    received_at: datetime
    records: bytes
    references: list[str | None]
    patients: list[str | None]
    features: NDArray[np.float32]
    risks: NDArray[np.float64]
    bands: list[str | None]
    traffic: int | None = None
    by_class: ByClass | None = None
    digests: bytes | None = None


@dataclass(frozen=True)
class Idempotency:
    """SHA-256 of a caller's key, and of the body that it came with.

    The key itself is not kept: callers put a patient's number in it, and it outlives a purge.
    """

    key: str
    body_digest: str


@dataclass(frozen=True)
class Entry:
    """One request on its way to the record: a row for each version that answered, and what is said of their numbers.

    `numbers` are given where the answer has left already, from a ledger that was out of reach.
    """

    rows: list[Answered]
    idempotency: Idempotency | None
    answer: Callable[[list[int]], bytes]
    numbers: list[int] | None = None


@dataclass(frozen=True)
class Stored:
    """One prediction on record. `record` and `features` are None once they were purged.

    Of several classes `risks` are theirs, by name, and `label` is the one that was said; None without.
    """

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
    risks: dict[str, float] | None = None
    label: str | None = None


@dataclass(frozen=True)
class Window:
    """Predictions of one bundle, oldest first: n records, features (n, d), risks (n,), outcomes (n,) 0, 1 or NaN.

    `features` are what `kept_features` kept: a plan's `summary`, of which a signal is one column.
    `places` are their requests and positions; `received` (n,) when each came and `at` (n,) the patient's time of
    prediction, in seconds since 1970, UTC. Whose record was purged is counted in `purged` and in nothing else.
    `by_class` is what was said by class, None of a model without; `happened` the class that came true, None if unknown.
    """

    records: list[dict[str, Any]]
    features: NDArray[np.float32]
    digests: list[str]
    risks: NDArray[np.float64]
    bands: list[str | None]
    outcomes: NDArray[np.float64]
    places: list[tuple[int, int]]
    received: NDArray[np.float64]
    at: NDArray[np.float64]
    first: datetime | None
    last: datetime | None
    purged: int
    by_class: ByClass | None
    happened: list[str | None]

    def __len__(self) -> int:
        return len(self.risks)


def keep(engine: sa.Engine, entry: Entry, wait_s: float = BUSY_TIMEOUT_S) -> bytes:
    """Put a request on record, durably, and return its answer: the earlier one, where its idempotency key came before.

    Raises LedgerError if the ledger does not take it within `wait_s`, RecordError if the key came with another body.
    """
    with writing(engine, wait_s) as connection:
        (kept,) = keep_all(connection, [entry])
    if isinstance(kept, RecordError):
        raise kept
    return kept if isinstance(kept, bytes) else entry.answer(kept)


def keep_all(connection: sa.Connection, entries: Sequence[Entry]) -> list[list[int] | bytes | RecordError]:
    """Put requests on record within the caller's transaction, in a statement or two for all of them together.

    For each its numbers; or the bytes that its idempotency key was answered with before; or the RecordError of a key
    that came before with another body.
    """
    fresh = iter(reserve(connection, sum(len(entry.rows) for entry in entries if entry.numbers is None)))
    numbers = [entry.numbers or [next(fresh) for _ in entry.rows] for entry in entries]
    kept: list[list[int] | bytes | RecordError] = list(numbers)
    guarded: list[tuple[Any, ...]] = []  # first rows that may meet their own key, or themselves, on record already
    plain: list[tuple[Any, ...]] = []
    for place, entry in enumerate(entries):
        if entry.idempotency is None and entry.numbers is None:
            plain.append(_row(numbers[place][0], entry.rows[0]))
        else:
            said = entry.answer(numbers[place]) if entry.idempotency else None
            guarded.append(_row(numbers[place][0], entry.rows[0], entry.idempotency, said))
    if guarded:
        taken = _insert(connection, guarded, guard=True)
        for place, entry in enumerate(entries):
            if numbers[place][0] in taken or (entry.idempotency is None and entry.numbers is None):
                continue
            if entry.numbers is None:
                assert entry.idempotency is not None
                kept[place] = _before(connection, entry.rows[0].model, entry.idempotency)
                numbers[place] = []
            elif _on_record(connection, entry.numbers[0]):
                numbers[place] = []  # written before this process ended the last time
            else:  # answered while the ledger was away, under a key that got another answer elsewhere: both are kept
                plain.append(_row(entry.numbers[0], entry.rows[0]))
    for entry, given in zip(entries, numbers, strict=True):
        plain += [_row(number, row) for number, row in zip(given[1:], entry.rows[1:], strict=False)]
    _insert(connection, plain)
    named = [
        {"reference": reference, "request": number, "position": position}
        for entry, given in zip(entries, numbers, strict=True)
        for number, row in zip(given, entry.rows, strict=False)
        for position, reference in enumerate(row.references)
        if reference is not None
    ]
    if named:
        connection.execute(tables.references.insert(), named)
    return kept


def reserve(connection: sa.Connection, n: int) -> list[int]:
    """`n` numbers that no other request has or will get."""
    if not n:
        return []
    if connection.dialect.name != "sqlite":
        drawn = sa.text("SELECT nextval(pg_get_serial_sequence('requests', 'id')) FROM generate_series(1, :n)")
        return [int(number) for number in connection.execute(drawn, {"n": n}).scalars()]
    step = "UPDATE sqlite_sequence SET seq = seq + ? WHERE name = 'requests' RETURNING seq"
    last = connection.exec_driver_sql(step, (n,)).scalar()
    if last is None:  # the first request of all
        last = n
        connection.exec_driver_sql("INSERT INTO sqlite_sequence (name, seq) VALUES ('requests', ?)", (n,))
    return list(range(last - n + 1, last + 1))


COLUMNS = (
    *("id", "model", "version", "bundle", "received_at", "n", "risks", "feature_digests", "bands", "features"),
    *("records", "patients", "idempotency_key", "body_digest", "answer", "traffic"),
    *("classes", "class_risks", "labels"),
)
PLAIN = len(COLUMNS) - 3
"""As many of them as a row without classes fills: binding nulls takes about a tenth of an INSERT's time."""
ROWS_AT_ONCE = (32, 16, 8, 4, 2, 1)
"""Rows of one INSERT: few distinct statements, which the driver keeps prepared, and few of them for many rows."""


def _row(
    number: int, answered: Answered, idempotency: Idempotency | None = None, answer: bytes | None = None
) -> tuple[Any, ...]:
    """A row of `requests`, in the order of COLUMNS."""
    rows = np.ascontiguousarray(answered.features, np.float32)
    by_class = answered.by_class
    return (
        number,
        answered.model,
        answered.version,
        answered.bundle,
        answered.received_at,
        len(rows),
        np.ascontiguousarray(answered.risks, np.float64).tobytes(),
        feature_digests(rows) if answered.digests is None else answered.digests,
        msgspec.json.encode(answered.bands).decode(),
        rows.tobytes(),
        answered.records,
        msgspec.json.encode(answered.patients).decode(),
        idempotency.key if idempotency else None,
        idempotency.body_digest if idempotency else None,
        answer,
        answered.traffic,
        msgspec.json.encode(by_class.events).decode() if by_class else None,
        np.ascontiguousarray(by_class.risks, np.float64).tobytes() if by_class else None,
        msgspec.json.encode(by_class.labels).decode() if by_class else None,
    )


def _insert(connection: sa.Connection, rows: Sequence[tuple[Any, ...]], guard: bool = False) -> set[int]:
    """Insert rows of `requests`. With `guard`, one whose number or key is taken is left out; the numbers that were not.

    One statement holds many rows: the driver releases the interpreter for each, and a busy server is slow to give it
    back.
    """
    dialect = connection.dialect
    processor = tables.requests.c.received_at.type.dialect_impl(dialect).bind_processor(dialect)
    as_time: Callable[[datetime], Any] = processor or (lambda time: time)
    mark = "?" if dialect.paramstyle == "qmark" else "%s"
    taken: set[int] = set()
    start = 0
    while start < len(rows):
        size = next(size for size in ROWS_AT_ONCE if size <= len(rows) - start)
        cells: list[Any] = []
        some = rows[start : start + size]
        width = PLAIN if all(row[PLAIN] is None for row in some) else len(COLUMNS)
        for row in some:
            cells += row[:width]
        for place in range(0, len(cells), width):
            cells[place + 4] = as_time(utc(cells[place + 4]))
            cells[place + 10] = cells[place + 10].decode()
        done = connection.exec_driver_sql(_statement(size, width, mark, guard), tuple(cells))
        if guard:
            taken.update(number for (number,) in done)
        start += size
    return taken


@cache
def _statement(rows: int, width: int, mark: str, guard: bool) -> str:
    """The INSERT of so many rows, of the first `width` columns; `mark` stands for a value in the driver's own way."""
    values = ", ".join([f"({', '.join([mark] * width)})"] * rows)
    tail = " ON CONFLICT DO NOTHING RETURNING id" if guard else ""
    return f"INSERT INTO requests ({', '.join(COLUMNS[:width])}) VALUES {values}{tail}"  # noqa: S608  # names of ours


def _on_record(connection: sa.Connection, number: int) -> bool:
    t = tables.requests
    return connection.execute(sa.select(t.c.id).where(t.c.id == number)).one_or_none() is not None


def _before(connection: sa.Connection, model: str, idempotency: Idempotency) -> bytes | RecordError:
    """The answer that this key got before; a RecordError if it came with another body, or its answer was purged."""
    t = tables.requests
    query = sa.select(t.c.body_digest, t.c.answer).where(t.c.model == model, t.c.idempotency_key == idempotency.key)
    row = connection.execute(query).one()
    return repeated(idempotency, row.body_digest, row.answer)


def repeated(idempotency: Idempotency, body_digest: str, answer: bytes | None) -> bytes | RecordError:
    """What a key gets that came before with this body and got this answer."""
    said = None
    if body_digest != idempotency.body_digest:
        said = "was used with another body; a new request needs a new key."
    elif answer is None:
        said = "its answer has been purged."
    if said:
        return RecordError("idempotency_key", "Idempotency-Key", f"Idempotency-Key: {said}")
    return bytes(answer or b"")


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
    said = by_class_of(row)
    return Stored(
        id=prediction_id,
        model=row.model,
        version=row.version,
        bundle=row.bundle,
        received_at=utc(row.received_at),
        record=records_of(row)[position] if row.records is not None else None,
        features=features,
        feature_digest=_digests(row.feature_digests)[position],
        risk=float(np.frombuffer(row.risks, np.float64)[position]),
        band=row.bands[position],
        risks=said.part(position, position + 1).named[0] if said else None,
        label=said.labels[position] if said else None,
    )


def window(engine: sa.Engine, model: str, bundle: str, last: int | None, since: datetime | None) -> Window:
    """The newest `last` predictions of a bundle, or all `since` a time; purged ones are counted and left out."""
    t, o = tables.requests, tables.outcomes
    query = sa.select(t).where(t.c.model == model, t.c.bundle == bundle).order_by(t.c.id.desc())
    if since is not None:
        query = query.where(t.c.received_at >= utc(since))
    rows: list[Any] = []
    purged = found = 0
    outcome: dict[tuple[int, int], Known] = {}
    with reading(engine) as connection:
        for row in connection.execution_options(stream_results=True).execute(query):
            if row.records is None:
                purged += row.n
                continue
            rows.append(row)
            found += row.n
            if last is not None and found >= last:
                break
        for start in range(0, len(rows), OUTCOMES_AT_ONCE):
            numbers = [row.id for row in rows[start : start + OUTCOMES_AT_ONCE]]
            known = sa.select(o).where(o.c.request.in_(numbers)).order_by(o.c.id)
            for known_row in connection.execute(known):
                outcome[known_row.request, known_row.position] = known_row.value, known_row.label
    rows.reverse()
    skip = max(found - last, 0) if last is not None else 0
    spans = [(row, skip if place == 0 else 0, row.n) for place, row in enumerate(rows)]
    return laid_out(spans, outcome, purged)


def laid_out(spans: Sequence[tuple[Any, int, int]], outcome: Mapping[tuple[int, int], Known], purged: int) -> Window:
    """Positions `start` to `end` (exclusive) of each row of `requests`, one after the other. `purged`: known before."""
    kept = [(row, start, end) for row, start, end in spans if row.records is not None]
    purged += sum(end - start for row, start, end in spans if row.records is None)
    features = [np.frombuffer(row.features, np.float32).reshape(row.n, -1)[start:end] for row, start, end in kept]
    risks = [np.frombuffer(row.risks, np.float64)[start:end] for row, start, end in kept]
    records = [record for row, start, end in kept for record in records_of(row)[start:end]]
    places = [(row.id, position) for row, start, end in kept for position in range(start, end)]
    received = [utc(row.received_at) for row, _, _ in kept]
    seconds, sizes = [time.timestamp() for time in received], [end - start for _, start, end in kept]
    times = [utc(row.received_at) for row, _, _ in spans]
    known = [outcome.get(place, (np.nan, None)) for place in places]
    said_of = [(by_class_of(row), start, end) for row, start, end in kept]
    return Window(
        records=records,
        features=np.concatenate(features) if features else np.empty((0, 0), np.float32),
        digests=[digest for row, start, end in kept for digest in _digests(row.feature_digests)[start:end]],
        risks=np.concatenate([np.empty(0), *risks]),
        bands=[band for row, start, end in kept for band in row.bands[start:end]],
        outcomes=np.array([value for value, _ in known], np.float64),
        places=places,
        received=np.repeat(np.array(seconds, np.float64), sizes),
        at=np.array([datetime.fromisoformat(record["at"]).timestamp() for record in records], np.float64),
        first=min(times, default=None),  # by the clock, which may have been set back
        last=max(times, default=None),
        purged=purged,
        by_class=ByClass.join([said and said.part(start, end) for said, start, end in said_of]),
        happened=[label for _, label in known],
    )


def by_class(
    predictor: "Predictor", risks: NDArray[np.float64], abstained: Sequence[str | None] | None
) -> ByClass | None:
    """What a predictor says by class of n patients, from its `risks` (n, K); None if it has no several classes."""
    if not predictor.classes:
        return None
    events = {name: name in predictor.spec.outcome.positive for name in predictor.classes}
    return ByClass(events, risks, predictor.labels(risks, abstained))


def by_class_of(row: Any) -> ByClass | None:
    """What a row of `requests` says by class; None of a model without several."""
    if row.classes is None:
        return None
    return ByClass(row.classes, np.frombuffer(row.class_risks, np.float64).reshape(row.n, -1), row.labels)


def records_of(row: Any) -> list[dict[str, Any]]:
    """The records of a row of `requests`, each with its time of prediction."""
    kept, received = row.records, utc(row.received_at).isoformat()
    if isinstance(kept, dict):
        named = [zip(kept["fields"], cells, strict=True) for cells in kept["rows"]]
        kept = [{name: cell for name, cell in record if cell is not None} for record in named]
    return [{**record, "at": record.get("at") or received} for record in kept]


def purge(engine: sa.Engine, before: datetime, actor: str) -> int:
    """Remove what patients' records held from predictions before that time; digests, risks, bands and labels stay.

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
    """SHA-256 of a feature row's float32 bytes. `features.build` has one bit pattern for every NaN."""
    return feature_digests(row[None, :]).hex()


def feature_digests(X: NDArray[np.float32]) -> bytes:
    """`feature_digest` of each row of X (n, d), 32 bytes each, one after the other."""
    content, width = X.astype("<f4", copy=False).tobytes(), X.shape[1] * 4
    return b"".join([hashlib.sha256(content[at : at + width]).digest() for at in range(0, len(content), width)])


def kept_features(plan: "Plan", X: NDArray[np.float32]) -> tuple[NDArray[np.float32], bytes | None]:
    """What is kept of the rows X (n, d) that a model saw, and their digests where it is less than all of them.

    A signal is thousands of numbers, and its record is kept: a replay computes them again. One figure of it stays, by
    which windows are compared.
    """
    return (plan.summary(X).astype(np.float32), feature_digests(X)) if plan.signals else (X, None)


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


def idempotency(key: str, body: bytes) -> Idempotency:
    """What is kept of a caller's key and body."""
    return Idempotency(hashlib.sha256(key.encode()).hexdigest(), hashlib.sha256(body).hexdigest())


def since(text: str) -> datetime:
    """A time as a person types it. Raises LedgerError if it is none."""
    try:
        return utc(datetime.fromisoformat(text))
    except (ValueError, OverflowError) as exc:  # overflow: in UTC it is before year 1 or after year 9999
        raise LedgerError(f"{text!r} is no ISO 8601 time; 2026-11-23 or 2026-11-23T09:30:00Z is expected.") from exc
