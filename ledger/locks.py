"""One retraining of a model at a time, across processes and machines; a process that dies loses its lock at once."""

import fcntl
import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.exc import SQLAlchemyError

from configs.errors import BusyError, LedgerError
from configs.settings import Settings
from ledger.database import reading


@dataclass(frozen=True)
class Lock:
    """A model's lock, while `alone` holds it."""

    model: str
    held: Callable[[], bool]

    def require(self) -> None:
        """Raise LedgerError if the lock was lost: what was meant to be alone may not be any more."""
        if not self.held():
            raise LedgerError(
                f"{self.model}: the lock of its retraining was lost (the database's connection, or the lock's file, is "
                "gone), and another process may be at it. Nothing more is done; `medimind retrain` goes on from here."
            )


@contextmanager
def alone(engine: sa.Engine, settings: Settings, model: str) -> Iterator[Lock]:
    """The only retraining of the model, on whichever machine. Raises BusyError if another process is at it.

    SQLite's is an operating system's lock on a file beside the ledger's; Postgres's is an advisory lock of a session.
    """
    holder = f"{settings.actor}, process {os.getpid()}"
    with (_file if engine.dialect.name == "sqlite" else _session)(engine, model, holder) as lock:
        yield lock


def _busy(model: str, holder: str) -> BusyError:
    who = f" ({holder})" if holder else ""
    return BusyError(f"{model} is being retrained by another process{who}; wait until it has ended, and try again.")


@contextmanager
def _file(engine: sa.Engine, model: str, holder: str) -> Iterator[Lock]:
    path = f"{engine.url.database}.{model}.lock"
    try:
        descriptor = os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    except OSError as exc:
        raise LedgerError(f"{model}: the file of its lock cannot be opened: {exc.strerror}.") from exc

    def held() -> bool:
        try:
            found = os.stat(path)
        except OSError:
            return False
        mine = os.fstat(descriptor)
        return (found.st_dev, found.st_ino) == (mine.st_dev, mine.st_ino)

    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as exc:
            raise _busy(model, os.pread(descriptor, 200, 0).decode(errors="replace")) from exc
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, holder.encode(), 0)
        yield Lock(model, held)
    finally:
        os.close(descriptor)  # and with it the lock


@contextmanager
def _session(engine: sa.Engine, model: str, holder: str) -> Iterator[Lock]:
    digest = hashlib.sha256(f"medimind retrain {model}".encode()).digest()
    key = int.from_bytes(digest[:8], "big", signed=True)
    with reading(engine) as pooled:
        connection = pooled.execution_options(isolation_level="AUTOCOMMIT")  # or it would stand idle in a transaction
        session = sa.select(sa.func.pg_backend_pid())
        mine = connection.execute(session).scalar_one()
        connection.execute(sa.select(sa.func.set_config("application_name", f"medimind retrain: {holder}", False)))
        try:
            if not connection.execute(sa.select(sa.func.pg_try_advisory_lock(key))).scalar_one():
                raise _busy(model, "")

            def held() -> bool:
                try:
                    return bool(connection.execute(session).scalar_one() == mine)
                except SQLAlchemyError:  # it is gone
                    return False

            yield Lock(model, held)
        finally:
            connection.invalidate()  # the session ends, and with it the lock; the pool gets no locked one back
