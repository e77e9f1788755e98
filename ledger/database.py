"""The ledger's database: opened, brought to the newest migration, backed up, restored."""

import fcntl
import os
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from contextvars import ContextVar
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError

from configs.errors import LedgerError
from configs.settings import Settings

Engine = sa.Engine

HEAD = "0005"
"""The newest migration in ledger/migrations/versions."""

EARLIER = ("0001", "0002", "0003", "0004")
"""What `connect` brings to HEAD."""

BUSY_TIMEOUT_S = 10
NUMBERS_SKIPPED = 1_000_000  # more requests than come between a backup and its restore
CONNECTIONS = 40  # as many as a worker has threads


_replayed: ContextVar[datetime | None] = ContextVar("replayed", default=None)


def now() -> datetime:
    """This moment, in UTC: every time in the ledger is. While history is replayed, the moment that it has reached."""
    return _replayed.get() or datetime.now(UTC)


@contextmanager
def at(moment: datetime) -> Iterator[None]:
    """Let `now` be that moment, in this thread: for a replay, in a ledger of its own."""
    before = _replayed.set(utc(moment))
    try:
        yield
    finally:
        _replayed.reset(before)


def utc(time: datetime) -> datetime:
    """A time read from the ledger: SQLite drops the offset of what was UTC."""
    return time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)


def connect(settings: Settings) -> sa.Engine:
    """An engine on the ledger, its schema up to date.

    Raises LedgerError if it cannot be opened or is of a newer release.
    """
    try:
        url = sa.make_url(settings.ledger_url)
        if url.drivername == "postgresql":
            url = url.set(drivername="postgresql+psycopg")
        url.get_dialect().import_dbapi()
    except (sa.exc.ArgumentError, ImportError) as exc:
        raise LedgerError(
            f"MEDIMIND_LEDGER: is no SQLAlchemy URL of a database that can be used here ({exc})."
        ) from exc
    shown = url.render_as_string(hide_password=True)
    try:
        settings.private(settings.home)
        if url.get_backend_name() == "sqlite":
            if not url.database or url.database == ":memory:":
                raise LedgerError(f"the ledger {shown} would be forgotten; sqlite:////a/file is expected.")
            # Opened only if it is new: closing a file drops every lock that this process has on it, SQLite's too, and
            # another process would then take the log away that our open connections go on writing to.
            with suppress(FileExistsError):
                os.close(os.open(url.database, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
            os.chmod(url.database, 0o600)
        engine = sa.create_engine(
            url,
            connect_args=_arguments(url),
            pool_pre_ping=True,
            pool_size=CONNECTIONS,
            hide_parameters=True,  # an error quotes its statement, and a statement's values are a patient's
        )
        if url.get_backend_name() == "sqlite":
            sa.event.listen(engine, "connect", _sqlite_pragmas)
        if _revision(engine) != HEAD:
            with open(settings.home / "migration.lock", "w") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                if _revision(engine) != HEAD:  # another process may have done it meanwhile
                    _migrate(engine, shown)
    except (OSError, DBAPIError) as exc:
        reason = exc.strerror if isinstance(exc, OSError) else str(exc.orig).strip()
        raise LedgerError(f"the ledger {shown} cannot be opened: {reason}.") from exc
    return engine


@contextmanager
def writing(engine: sa.Engine, wait_s: float = BUSY_TIMEOUT_S) -> Iterator[sa.Connection]:
    """A transaction; a database that does not take it within `wait_s` is a LedgerError, and nothing of it is kept."""
    try:
        with engine.begin() as connection:
            if engine.dialect.name == "sqlite":
                connection.exec_driver_sql(f"PRAGMA busy_timeout = {max(int(wait_s * 1000), 1)}")
            yield connection
    except sa.exc.IntegrityError:
        raise
    except DBAPIError as exc:
        raise LedgerError(f"the ledger could not be written: {str(exc.orig).strip()}. Nothing of it was kept.") from exc
    except sa.exc.TimeoutError as exc:
        raise LedgerError("the ledger could not be written: every connection to it is busy.") from exc


@contextmanager
def deciding(engine: sa.Engine) -> Iterator[sa.Connection]:
    """A transaction on what answers patients: promotions, stops, traffic. One at a time.

    So what it reads still holds when it commits, and a row that appears later has the higher number: a server that
    looks for higher numbers misses none.
    """
    with one_at_a_time(engine, "promotions, stops, traffic") as connection:
        yield connection


@contextmanager
def one_at_a_time(engine: sa.Engine, names: str) -> Iterator[sa.Connection]:
    """A transaction that nobody else has on these tables: what it reads of them still holds when it commits."""
    with writing(engine) as connection:
        if engine.dialect.name == "sqlite":
            connection.exec_driver_sql("BEGIN IMMEDIATE")
        else:
            connection.exec_driver_sql(f"LOCK TABLE {names} IN EXCLUSIVE MODE")  # readers go on
        yield connection


@contextmanager
def reading(engine: sa.Engine) -> Iterator[sa.Connection]:
    """A connection to read with; a database that does not answer is a LedgerError."""
    try:
        with engine.connect() as connection:
            yield connection
    except DBAPIError as exc:
        raise LedgerError(f"the ledger could not be read: {str(exc.orig).strip()}.") from exc
    except sa.exc.TimeoutError as exc:
        raise LedgerError("the ledger could not be read: every connection to it is busy.") from exc


@contextmanager
def snapshot(engine: sa.Engine) -> Iterator[sa.Connection]:
    """A connection to read several tables with, as they were at one moment."""
    with reading(engine) as connection:
        if engine.dialect.name == "sqlite":
            connection.exec_driver_sql("BEGIN")
        else:
            connection.exec_driver_sql("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        yield connection


def audit(connection: sa.Connection, actor: str, action: str, detail: str) -> None:
    """Put on record who did what; `detail` holds no patient data."""
    from ledger.tables import audit as table

    connection.execute(table.insert().values(at=now(), actor=actor, action=action, detail=detail))


def backup(settings: Settings, target: Path) -> None:
    """Copy a consistent ledger to `target`, readable by its owner alone, while others go on writing."""
    source = _sqlite_path(settings, "backup")
    if target.exists():
        raise LedgerError(f"{target}: exists already; a backup never overwrites. Choose another name.")
    partial = target.with_name(f".{target.name}.partial")
    try:
        os.close(os.open(partial, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600))
        reading = f"{source.resolve().as_uri()}?mode=ro"
        with closing(sqlite3.connect(reading, uri=True)) as reader, closing(sqlite3.connect(partial)) as writer:
            reader.backup(writer)
        os.replace(partial, target)
    except (OSError, sqlite3.Error) as exc:
        raise LedgerError(f"{target}: the backup could not be written ({exc}).") from exc
    finally:
        with suppress(OSError):
            partial.unlink()
    _note(settings, "backup", target.name)


def restore(settings: Settings, source: Path) -> Path:
    """Put the backup `source` in the ledger's place, and return where the replaced ledger, if any, was kept.

    An older ledger is brought to the newest migration. Raises LedgerError if `source` is no whole ledger, is of a newer
    release, or a server is writing to the present one.
    """
    target = _sqlite_path(settings, "restore")
    kept = target.with_name(f"{target.name}.before-restore-{now():%Y%m%dT%H%M%S%f}")
    partial = target.with_name(f".{target.name}.partial")
    try:
        settings.private(settings.home)
        os.close(os.open(partial, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600))
        shutil.copyfile(source, partial)
        _whole(partial, source)
        if target.exists():
            _nobody_else(target)
            os.link(target, kept)
        _skip_numbers(partial, target)
        os.replace(partial, target)  # at no moment is there no ledger: a server would begin an empty one
    except OSError as exc:
        raise LedgerError(f"{source}: could not be restored ({exc.strerror}). Nothing was changed.") from exc
    except sqlite3.Error as exc:
        raise LedgerError(f"{source}: could not be restored ({exc}). Nothing was changed.") from exc
    finally:
        for leftover in (partial, *(partial.with_name(f"{partial.name}-{end}") for end in ("wal", "shm", "journal"))):
            with suppress(OSError):
                leftover.unlink()
    _note(settings, "restore", source.name)
    return kept


def _note(settings: Settings, action: str, detail: str) -> None:
    """Put it on record, and leave no connection open: an open one would stand in a later restore's way."""
    engine = connect(settings)
    try:
        with writing(engine) as connection:
            audit(connection, settings.actor, action, detail)
    finally:
        engine.dispose()


def _whole(copy: Path, source: Path) -> None:
    """Raise LedgerError unless `copy` is a whole ledger of a known release. (A copy: SQLite writes beside it.)"""
    try:
        with closing(sqlite3.connect(copy)) as reader:
            sound = reader.execute("PRAGMA integrity_check").fetchone()[0] == "ok"
            revision = reader.execute("SELECT version_num FROM alembic_version").fetchone()
    except sqlite3.Error as exc:
        raise LedgerError(f"{source}: is no readable backup of a ledger ({exc}). Nothing was changed.") from exc
    if not sound or revision not in ((HEAD,), *((known,) for known in EARLIER)):
        raise LedgerError(f"{source}: is damaged, or of another release (migration {revision}). Nothing was changed.")


def _skip_numbers(copy: Path, replaced: Path) -> None:
    """Let the next prediction of this copy begin beyond every id that the ledger it replaces may have given out.

    Without it, an outcome that comes for a lost prediction would meet another patient's.
    """
    last = _last_number(copy)
    with suppress(sqlite3.Error):  # it is gone, or damaged: often why a backup is restored
        last = max(last, _last_number(replaced))
    with closing(sqlite3.connect(copy)) as connection, connection:
        connection.execute("DELETE FROM sqlite_sequence WHERE name = 'requests'")
        connection.execute("INSERT INTO sqlite_sequence VALUES ('requests', ?)", (last + NUMBERS_SKIPPED,))


def _last_number(path: Path) -> int:
    """The highest number that this ledger gave to a request. Raises sqlite3.Error if it cannot be read."""
    with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)) as reader:
        query = "SELECT coalesce(max(seq), 0) FROM sqlite_sequence WHERE name = 'requests'"
        return int(reader.execute(query).fetchone()[0])


def _nobody_else(path: Path) -> None:
    """Close the write-ahead log, which only works when nobody else has the ledger open."""
    connection = sqlite3.connect(path, timeout=1)
    try:
        connection.execute("PRAGMA locking_mode=EXCLUSIVE")
        connection.execute("PRAGMA journal_mode=DELETE").fetchone()
        connection.execute("BEGIN EXCLUSIVE")
        connection.rollback()
    except sqlite3.OperationalError as exc:
        raise LedgerError(f"{path.name}: is in use ({exc}); stop the server first. Nothing was changed.") from exc
    finally:
        connection.close()


def _sqlite_path(settings: Settings, verb: str) -> Path:
    url = sa.make_url(settings.ledger_url)
    if url.get_backend_name() != "sqlite" or not url.database:
        raise LedgerError(
            f"{verb}: the ledger is on {url.get_backend_name()}; use its own tools (pg_dump, pg_restore)."
        )
    return Path(url.database)


def _arguments(url: sa.URL) -> dict[str, Any]:
    if url.get_backend_name() == "sqlite":
        return {"timeout": BUSY_TIMEOUT_S}
    if url.get_driver_name() == "psycopg":  # a server that has gone is noticed, not waited for
        limit = BUSY_TIMEOUT_S * 1000
        return {
            "connect_timeout": BUSY_TIMEOUT_S // 2,
            "tcp_user_timeout": limit,
            "options": f"-c lock_timeout={limit} -c statement_timeout={6 * limit}",
        }
    return {}


def _sqlite_pragmas(connection: sqlite3.Connection, _: Any) -> None:
    # Large pages: a request of many records is one long row. A ledger that exists keeps the pages it has.
    for pragma in ("page_size=16384", "journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", "secure_delete=ON"):
        connection.execute(f"PRAGMA {pragma}")


def _revision(engine: sa.Engine) -> str | None:
    with engine.connect() as connection:
        if not sa.inspect(connection).has_table("alembic_version"):
            return None
        return connection.execute(sa.text("SELECT version_num FROM alembic_version")).scalar()


def _migrate(engine: sa.Engine, shown: str) -> None:
    from alembic import command
    from alembic.config import Config
    from alembic.util import CommandError

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations").replace("%", "%%"))
    try:
        with engine.begin() as connection:
            if engine.dialect.name == "sqlite":  # else Python's driver commits each CREATE TABLE for itself
                connection.exec_driver_sql("BEGIN IMMEDIATE")
            config.attributes["connection"] = connection
            command.upgrade(config, "head")
    except CommandError as exc:
        raise LedgerError(
            f"the ledger {shown} is of another release ({exc}); this one knows migration {HEAD}."
        ) from exc
