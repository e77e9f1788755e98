"""The thread that puts a worker's predictions on record: one transaction for all that wait, then their answers.

A ticket is settled after its commit, unless its answer has left already because its spec accepts, in so many words, to
lose it. What the ledger does not take in time is refused, or, where the spec says so, laid in the spool.
"""

import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import timedelta
from fcntl import LOCK_EX, LOCK_UN, flock
from itertools import zip_longest
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError, IntegrityError, InterfaceError, InternalError, OperationalError, ProgrammingError

from configs.errors import LedgerError, RecordError
from ledger import tables
from ledger.database import BUSY_TIMEOUT_S, now
from ledger.predictions import Entry, keep_all, reserve
from ledger.spool import Spool

log = logging.getLogger(__name__)

MOST_AT_ONCE = 1000
"""Requests of one transaction."""

NUMBERS_IN_HAND = 20_000
"""Numbers that a worker draws for answers that leave before their row is in the ledger; half of them gone, it draws
as many again. An outage that outlasts them is answered with 503."""

MOST_SHADOWS = 10_000
"""What shadows said that waits for a ledger that is away."""

SHADOW_WAITS = timedelta(minutes=10)
"""How long a shadow's row waits for that of its request, which may be in the spool."""

PROBE_S = 0.5
"""How often a ledger that failed is tried again."""

LATE_EVERY_S = 0.025
SQLITE_BUSY = 5

Kept = list[int] | bytes | RecordError | LedgerError
"""A request's numbers, the answer that its key got before, or why it is not on record."""


@dataclass(frozen=True)
class Ticket:
    """A request that may wait for its record until `until`, by time.monotonic(); `spool`: then the spool takes it."""

    entry: Entry
    until: float
    spool: bool
    settle: Callable[[Kept], None]


class Writer:
    """One writing thread on one connection. `deliver` is called in it, with everything that one turn settled."""

    def __init__(
        self,
        engine: sa.Engine,
        spool: Spool,
        deliver: Callable[[Sequence[tuple[Ticket, Kept]]], None],
        ahead: bool,
    ) -> None:
        """`ahead`: some answers may leave before their row is on record. Raises LedgerError if the ledger is away."""
        self._engine = engine
        self._spool = spool
        self._deliver = deliver
        self._ahead = ahead
        self._numbers: list[int] = []
        self._waiting: deque[Ticket] = deque()
        self._shadows: deque[dict[str, Any]] = deque()
        self._changed = threading.Condition()
        self._closing = False
        self._at_hand: list[Ticket] = []
        self._singly = 0  # turns that take one request each, to find the one that fails
        self._connection: sa.Connection | None = None
        self._file = _file(engine)
        self._turns = _turns(engine)
        if ahead:
            with self._transaction() as connection:
                self._numbers = reserve(connection, NUMBERS_IN_HAND)
        self._threads = [threading.Thread(target=run, daemon=True) for run in (self._write, self._refuse_late)]
        for thread in self._threads:
            thread.start()

    def submit(self, tickets: Sequence[Ticket]) -> None:
        with self._changed:
            self._waiting.extend(tickets)
            self._changed.notify()

    def shadow(self, row: dict[str, Any]) -> bool:
        """Put on record, with the next transaction, what a shadow said; False if too many wait and it was let go."""
        with self._changed:
            if len(self._shadows) == MOST_SHADOWS:
                return False
            self._shadows.append(row)
        return True

    def draw_ahead(self) -> None:
        """From now on answers may leave before their row is in the ledger."""
        if not self._ahead:
            with self._changed:
                self._ahead = True
                self._changed.notify()

    def numbers(self, n: int) -> list[int]:
        """Numbers for an answer that leaves before its row is in the ledger. Raises LedgerError if too few are left."""
        with self._changed:
            if len(self._numbers) < n:
                raise LedgerError("the ledger has been away too long: no number is left for an answer without it.")
            taken, self._numbers = self._numbers[:n], self._numbers[n:]
        return taken

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    def close(self) -> None:
        """Settle what waits, and stop."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        for thread in self._threads:
            thread.join(timeout=BUSY_TIMEOUT_S + 1)

    def _write(self) -> None:
        while True:
            with self._changed:
                while not self._waiting and not self._closing and not self._few_numbers:
                    if not self._changed.wait(PROBE_S) and (self._spool.pending or self._shadows):
                        break
                if self._closing and not self._waiting and not self._shadows:
                    break
            try:
                self._turn()
            except Exception as exc:  # ours: nobody may wait for ever because of it
                log.error("the ledger's writer failed: %s", type(exc).__name__)
                self._deliver([(ticket, LedgerError("the ledger's writer failed.")) for ticket in self._at_hand])
                time.sleep(PROBE_S)
            self._at_hand = []
        self._disconnect()
        self._spool.close()
        for descriptor in self._turns or ():
            os.close(descriptor)

    @property
    def _few_numbers(self) -> bool:
        return self._ahead and len(self._numbers) < NUMBERS_IN_HAND // 2

    def _turn(self) -> None:
        """One transaction: the oldest of the spool, then everything that waits."""
        spooled: list[Entry] = []
        taken: list[Ticket] = []
        kept: list[list[int] | bytes | RecordError] = []
        try:
            with self._transaction() as connection:
                most = 1 if self._singly else MOST_AT_ONCE
                self._singly = max(self._singly - 1, 0)
                spooled = self._spool.oldest(most)
                taken = self._at_hand = self._take(most) if len(spooled) < most else []
                kept = keep_all(connection, [*spooled, *(ticket.entry for ticket in taken)])[len(spooled) :]
                shadows = list(self._shadows)
                early = _put(connection, shadows)
                fresh: list[int] = []
                if self._few_numbers:
                    fresh = reserve(connection, NUMBERS_IN_HAND)
        except TimeoutError:  # another writer holds the ledger; who waited too long for it has been refused
            self._fail(taken, LedgerError("the ledger is held by another writer."))
            if self._closing:
                self._shadows.clear()
                self._fail(self._take(), LedgerError("the ledger is held by another writer."))
            return
        except LedgerError as exc:
            self._fail(taken, exc, kept)
            self._fail(self._take(), exc)
            if self._closing:
                self._shadows.clear()
            else:
                time.sleep(PROBE_S / 10)
            return
        except Exception as exc:  # about one of these entries: the others are not to suffer for it
            self._single_out(spooled, taken, exc)
            return
        with self._changed:
            for _ in shadows:
                self._shadows.popleft()
            if not self._closing or self._spool.pending:
                self._shadows.extend(early)  # else of requests that will not be on record
        if taken:
            self._deliver(list(zip(taken, kept, strict=True)))
        if fresh:
            with self._changed:
                self._numbers += fresh
        if spooled:
            self._spool.forget(len(spooled))

    def _single_out(self, spooled: list[Entry], taken: list[Ticket], exc: Exception) -> None:
        """Take these one at a time; one that fails alone is refused, or set aside where it was answered."""
        if len(spooled) + len(taken) > 1:
            self._singly = len(spooled) + len(taken)
            with self._changed:
                self._waiting.extendleft(reversed(taken))
            return
        answered = [*spooled, *(ticket.entry for ticket in taken if ticket.entry.numbers is not None)]
        try:
            for entry in answered:
                self._spool.set_aside(entry)
        except LedgerError:  # it is tried again
            self._fail(taken, LedgerError("the disk is full."))
            time.sleep(PROBE_S / 10)
            return
        if spooled:
            self._spool.forget(1)
        elif not answered:
            self._fail(taken, LedgerError(f"the ledger could not be written ({type(exc).__name__})."))

    def _take(self, most: int = MOST_AT_ONCE) -> list[Ticket]:
        with self._changed:
            return [self._waiting.popleft() for _ in range(min(len(self._waiting), most))]

    def _refuse_late(self) -> None:
        """Refuse who waits too long, whatever the writing thread is waiting for."""
        while not self._closing:
            time.sleep(LATE_EVERY_S)
            if not self._waiting:
                continue
            now = time.monotonic()
            with self._changed:
                late = [ticket for ticket in self._waiting if ticket.until <= now]
                if late:
                    self._waiting = deque(ticket for ticket in self._waiting if ticket.until > now)
            if late:
                self._fail(late, LedgerError("the ledger did not take the request in time."))

    def _fail(self, tickets: Sequence[Ticket], why: LedgerError, kept: Sequence[Kept] = ()) -> None:
        """Settle what the ledger did not take. An answer that has left already goes on waiting, or to the spool.

        `kept`: what was to be said of them, where it was the commit that failed. A server may have made it, and its
        word was lost: the spool takes the same numbers, which are on record once then, however it was. (SQLite gives
        the numbers of a transaction that failed to others.)
        """
        settled: list[tuple[Ticket, Kept]] = []
        owed: list[Ticket] = []
        if self._engine.dialect.name == "sqlite":
            kept = ()
        for ticket, drawn in zip_longest(tickets, kept):
            answered = ticket.entry.numbers is not None
            if answered and not self._closing:
                owed.append(ticket)
            else:
                spool = ticket.spool or answered
                settled.append((ticket, self._to_spool(ticket.entry, drawn) if spool else why))
        if owed:
            with self._changed:
                self._waiting.extendleft(reversed(owed))
        if settled:
            self._deliver(settled)

    def _to_spool(self, entry: Entry, drawn: Kept | None) -> Kept:
        try:
            if (before := self._spool.before(entry)) is not None:
                return before
            numbers = entry.numbers or (drawn if isinstance(drawn, list) else self.numbers(len(entry.rows)))
            self._spool.append(replace(entry, numbers=numbers))
        except LedgerError as exc:
            return exc
        return numbers

    @contextmanager
    def _transaction(self) -> Iterator[sa.Connection]:
        """A transaction on the connection that stays open. TimeoutError: another writer holds the ledger."""
        with self._in_turn(), self._begun() as connection:
            yield connection

    @contextmanager
    def _in_turn(self) -> Iterator[None]:
        """Wait for the workers who came before. SQLite has no queue: of two busy workers one would go on starving.

        The file that is held while one waits for the other makes it a queue: who has written goes to its end.
        """
        if self._turns is None:
            yield
            return
        next_, now = self._turns
        flock(next_, LOCK_EX)
        try:
            flock(now, LOCK_EX)
        finally:
            flock(next_, LOCK_UN)
        try:
            yield
        finally:
            flock(now, LOCK_UN)

    @contextmanager
    def _begun(self) -> Iterator[sa.Connection]:
        try:
            sqlite = self._engine.dialect.name == "sqlite"
            if self._file != (file := _file(self._engine)):
                # SQLite would go on writing to the one that nobody finds any more, and every reader here would read it.
                self._disconnect()
                self._engine.dispose()
                self._file = file
            if self._connection is None:
                self._connection = self._engine.connect()
                if sqlite:
                    self._connection.exec_driver_sql(f"PRAGMA busy_timeout = {BUSY_TIMEOUT_S * 1000}")
            if sqlite:
                self._connection.exec_driver_sql("BEGIN IMMEDIATE")
            yield self._connection
            self._connection.commit()
        except DBAPIError as exc:
            self._disconnect()
            if getattr(exc.orig, "sqlite_errorcode", None) == SQLITE_BUSY:
                raise TimeoutError from exc
            if not isinstance(exc, OperationalError | InterfaceError | InternalError | ProgrammingError):
                raise
            said = str(exc.orig).strip().partition("\n")[0]
            raise LedgerError(f"the ledger could not be written: {said}. Nothing of it was kept.") from exc
        except BaseException:
            self._disconnect()
            raise

    def _disconnect(self) -> None:
        """Roll back and let go of the connection; a broken one is replaced at the next turn."""
        if self._connection is not None:
            with suppress(DBAPIError):
                self._connection.invalidate()
            with suppress(DBAPIError):
                self._connection.close()
            self._connection = None


def _file(engine: sa.Engine) -> tuple[int, int] | None:
    """Which file a SQLite ledger's path leads to, whoever has it open. Raises LedgerError if there is none."""
    path = engine.url.database
    if engine.dialect.name != "sqlite" or path is None:
        return None
    try:
        found = os.stat(path)
    except OSError as exc:
        raise LedgerError(f"the ledger's file cannot be found: {exc.strerror}. Nothing was kept.") from exc
    return found.st_dev, found.st_ino


def _turns(engine: sa.Engine) -> tuple[int, int] | None:
    """The open files that say whose turn it is, beside a SQLite ledger. Raises LedgerError if they cannot be opened."""
    path = engine.url.database
    if engine.dialect.name != "sqlite" or path is None:
        return None
    try:
        next_, now = (
            os.open(f"{path}-{name}", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600) for name in ("next", "now")
        )
    except OSError as exc:
        raise LedgerError(f"the ledger's queue of writers cannot be opened: {exc.strerror}.") from exc
    return next_, now


def _put(connection: sa.Connection, shadows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Put shadows on record, and return those whose request is in the spool, or waits; not those that wait for long."""
    if not shadows:
        return []
    try:
        with connection.begin_nested():
            connection.execute(tables.shadows.insert(), shadows)
        return []
    except IntegrityError:
        numbers = tables.requests.c.id
        wanted = {row["request"] for row in shadows}
        known = set(connection.execute(sa.select(numbers).where(numbers.in_(wanted))).scalars())
        if found := [row for row in shadows if row["request"] in known]:
            connection.execute(tables.shadows.insert(), found)
        oldest = now() - SHADOW_WAITS
        return [row for row in shadows if row["request"] not in known and row["at"] > oldest]
