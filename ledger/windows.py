"""Predictions of one bundle in fixed blocks, each judged once it is full, and again when outcomes come.

Numbers order predictions, never the clock. A prediction whose number lies in a block that was judged before it came on
record (its answer waited in the spool, or left before its row) belongs to that block, which is judged again.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
import sqlalchemy as sa

from evidence.report import Report
from ledger import tables
from ledger.database import audit, now, one_at_a_time, reading, snapshot, utc
from ledger.predictions import Known, Window, laid_out

TIMELINE = 100
"""How many windows of a bundle are shown, and looked at for late outcomes."""

MOST_AT_ONCE = 500
"""Blocks that one look judges; what is due beyond waits for the next."""

Place = tuple[int, int]
"""A request's number and a position in it."""


@dataclass(frozen=True)
class Block:
    """Window `number` (1, 2, 3, …) of a bundle: its predictions from `first` to `last`, both inclusive, `n` of them.

    It begins right after the one before it, so `first` need be no prediction's place.
    """

    model: str
    version: int
    bundle: str
    number: int
    first: Place
    last: Place
    n: int


@dataclass(frozen=True)
class Judged:
    """The newest judgement of a block. `outcomes`: predictions whose outcome was known; `outcomes_to`: the newest row
    of `outcomes` about them, 0 if there was none. Times are the earliest and the latest by the server's clock."""

    block: Block
    begins_at: datetime
    ends_at: datetime
    judged_at: datetime
    outcomes: int
    outcomes_to: int
    report: Report


def due(
    engine: sa.Engine, model: str, version: int, bundle: str, size: int, at_first: int, most: int = MOST_AT_ONCE
) -> tuple[list[Block], int]:
    """The bundle's full blocks that are not judged yet, oldest first, and how many predictions are passed over.

    Where none of the bundle's was judged before, the oldest beyond `at_first` blocks are passed over, and never judged.
    Later nothing is passed over: what lies beyond `most` blocks is left for the next time.
    """
    with snapshot(engine) as connection:
        before, begin = _frontier(connection, model, bundle)
        waiting = _count(connection, model, bundle, begin, None)
        full = waiting // size
        passed = max(full - at_first, 0) * size if before == 0 else 0
        if passed:
            begin = _newest(connection, model, bundle, waiting - passed)
        wanted = min(full, at_first if before == 0 else most)
        blocks: list[Block] = []
        taken = 0
        for request, start, end in _spans(connection, model, bundle, begin, None):
            while len(blocks) < wanted and start < end:
                step = min(size - taken, end - start)
                start, taken = start + step, taken + step
                if taken == size:
                    number = before + len(blocks) + 1
                    blocks.append(Block(model, version, bundle, number, begin, (request, start - 1), size))
                    begin, taken = (request, start), 0
            if len(blocks) == wanted:
                break
    return blocks, passed


def ended(engine: sa.Engine, model: str, bundle: str, before: int | None = None) -> datetime | None:
    """When the bundle's windows ended, by the latest of them; of those with a number below `before` alone, if it is
    given. None if there is none."""
    t = tables.windows
    query = sa.select(sa.func.max(t.c.ends_at)).where(t.c.model == model, t.c.bundle == bundle)
    if before is not None:
        query = query.where(t.c.number < before)
    with reading(engine) as connection:
        found = connection.execute(query).scalar()
    return utc(found) if found is not None else None


def open_block(engine: sa.Engine, model: str, version: int, bundle: str, size: int) -> Block | None:
    """The newest predictions, at most `size`, that came after the last window that was judged; None if none did."""
    with snapshot(engine) as connection:
        before, begin = _frontier(connection, model, bundle)
        waiting = _count(connection, model, bundle, begin, None)
        if waiting == 0:
            return None
        if waiting > size:
            begin = _newest(connection, model, bundle, size)
        t = tables.requests
        of_bundle = t.c.model == model, t.c.bundle == bundle
        request, n = connection.execute(
            sa.select(t.c.id, t.c.n).where(*of_bundle).order_by(t.c.id.desc()).limit(1)
        ).one()
    return Block(model, version, bundle, before + 1, begin, (request, n - 1), min(waiting, size))


def judged(engine: sa.Engine, model: str, bundle: str, last: int = TIMELINE) -> list[Judged]:
    """The newest judgement of each of the bundle's `last` windows, oldest first."""
    t = tables.windows
    of_bundle = t.c.model == model, t.c.bundle == bundle
    with snapshot(engine) as connection:
        highest = connection.execute(sa.select(sa.func.max(t.c.number)).where(*of_bundle)).scalar() or 0
        shown = *of_bundle, t.c.number > highest - last
        newest = sa.select(sa.func.max(t.c.id)).where(*shown).group_by(t.c.number)
        rows = connection.execute(sa.select(t).where(t.c.id.in_(newest)).order_by(t.c.number)).all()
    return [_judged(row) for row in rows]


def stale(engine: sa.Engine, judged: Sequence[Judged]) -> list[Judged]:
    """Those of whose predictions more is known now: an outcome came, or a prediction late on record.

    A window of which a record was purged is not judged again.
    """
    t = tables.requests
    found = []
    with snapshot(engine) as connection:
        for each in judged:
            block = each.block
            known, newest = connection.execute(_known(block)).one()
            there = _count(connection, block.model, block.bundle, block.first, block.last)
            if (there, known, newest or 0) == (block.n, each.outcomes, each.outcomes_to):
                continue
            purged = sa.select(t.c.id).where(*_within(block), t.c.records.is_(sa.null())).limit(1)
            if connection.execute(purged).one_or_none() is None:
                found.append(each)
    return found


def read(engine: sa.Engine, block: Block) -> tuple[Window, int]:
    """The block's predictions with their outcomes, and the number of the newest outcome among them, 0 if none."""
    t, o = tables.requests, tables.outcomes
    known = sa.select(o).join(t, t.c.id == o.c.request).where(*_within(block)).order_by(o.c.id)
    outcome: dict[Place, Known] = {}
    newest = 0
    with snapshot(engine) as connection:
        rows = connection.execute(sa.select(t).where(*_within(block)).order_by(t.c.id)).all()
        for row in connection.execute(known):
            if block.first <= (row.request, row.position) <= block.last:
                outcome[row.request, row.position] = row.value, row.label
                newest = row.id
    spans = [(row, *_span(row.id, row.n, block.first, block.last)) for row in rows]
    return laid_out([span for span in spans if span[1] < span[2]], outcome, 0), newest


def keep(
    engine: sa.Engine, block: Block, window: Window, outcomes_to: int, report: Report, actor: str | None = None
) -> Judged:
    """Put a judgement of the block on record; what is on record already, in the same words, is not put there twice.

    `actor`: who asked for it, where that is to be in the audit.
    """
    t = tables.windows
    row = {
        "model": block.model,
        "version": block.version,
        "bundle": block.bundle,
        "number": block.number,
        "first_request": block.first[0],
        "first_position": block.first[1],
        "last_request": block.last[0],
        "last_position": block.last[1],
        "n": len(window) + window.purged,
        "begins_at": window.first,
        "ends_at": window.last,
        "outcomes": int(np.isfinite(window.outcomes).sum()),
        "outcomes_to": outcomes_to,
        "judged_at": now(),
        "report": report.to_json(),
    }
    same = "first_request", "first_position", "last_request", "last_position", "n", "outcomes_to", "report"
    query = sa.select(t).where(t.c.model == block.model, t.c.bundle == block.bundle, t.c.number == block.number)
    with one_at_a_time(engine, "windows") as connection:
        before = connection.execute(query.order_by(t.c.id.desc()).limit(1)).one_or_none()
        if before is None or any(before._mapping[name] != row[name] for name in same):
            connection.execute(t.insert().values(row))
            if actor is not None:
                about = (
                    f"{block.model}@{block.version}: window {block.number}, {row['outcomes']} of {row['n']} outcomes"
                )
                audit(connection, actor, "monitor", about)
            before = connection.execute(query.order_by(t.c.id.desc()).limit(1)).one()
    return _judged(before)


def _judged(row: sa.Row[Any]) -> Judged:
    first, last = (row.first_request, row.first_position), (row.last_request, row.last_position)
    block = Block(row.model, row.version, row.bundle, row.number, first, last, row.n)
    begins, ends, at = utc(row.begins_at), utc(row.ends_at), utc(row.judged_at)
    return Judged(block, begins, ends, at, row.outcomes, row.outcomes_to, Report.from_json(row.report))


def _frontier(connection: sa.Connection, model: str, bundle: str) -> tuple[int, Place]:
    """The number of the bundle's last window, 0 if there is none, and the place right after it."""
    t = tables.windows
    query = sa.select(t.c.number, t.c.last_request, t.c.last_position).where(t.c.model == model, t.c.bundle == bundle)
    last = connection.execute(query.order_by(t.c.number.desc()).limit(1)).one_or_none()
    return (last.number, (last.last_request, last.last_position + 1)) if last else (0, (0, 0))


def _span(request: int, n: int, first: Place, last: Place | None) -> tuple[int, int]:
    """The positions, from and up to (exclusive), of a request of `n` that lie from `first` to `last`."""
    start = min(first[1], n) if request == first[0] else 0
    return start, min(last[1] + 1, n) if last is not None and request == last[0] else n


def _spans(
    connection: sa.Connection, model: str, bundle: str, first: Place, last: Place | None
) -> Iterator[tuple[int, int, int]]:
    """Each of the bundle's requests from `first` to `last`: its number, and its positions from and up to."""
    t = tables.requests
    query = sa.select(t.c.id, t.c.n).where(t.c.model == model, t.c.bundle == bundle, t.c.id >= first[0])
    if last is not None:
        query = query.where(t.c.id <= last[0])
    for request, n in connection.execute(query.order_by(t.c.id).execution_options(yield_per=1000)):
        yield (request, *_span(request, n, first, last))


def _count(connection: sa.Connection, model: str, bundle: str, first: Place, last: Place | None) -> int:
    """How many of the bundle's predictions lie from `first` to `last`; all after it where that is None."""
    t = tables.requests
    n = t.c.n if last is None else sa.case((t.c.id == last[0], last[1] + 1), else_=t.c.n)
    within = [t.c.model == model, t.c.bundle == bundle, t.c.id >= first[0]]
    if last is not None:
        within.append(t.c.id <= last[0])
    count = sa.func.sum(n - sa.case((t.c.id == first[0], first[1]), else_=0))
    return int(connection.execute(sa.select(sa.func.coalesce(count, 0)).where(*within)).scalar_one())


def _newest(connection: sa.Connection, model: str, bundle: str, count: int) -> Place:
    """Where the bundle's newest `count` predictions begin."""
    t = tables.requests
    query = sa.select(t.c.id, t.c.n).where(t.c.model == model, t.c.bundle == bundle).order_by(t.c.id.desc())
    for request, n in connection.execute(query.execution_options(yield_per=1000)):
        if count <= n:
            return request, n - count
        count -= n
    raise ValueError(f"{model}: fewer predictions than {count} are on record")


def _within(block: Block) -> tuple[sa.ColumnElement[bool], ...]:
    """The block's requests."""
    t = tables.requests
    return t.c.model == block.model, t.c.bundle == block.bundle, t.c.id.between(block.first[0], block.last[0])


def _known(block: Block) -> sa.Select[int, Any]:
    """For how many of the block's predictions an outcome is known, and the newest of all their outcomes."""
    t, o = tables.requests, tables.outcomes
    (begins, start), (ends, stop) = block.first, block.last
    each = (
        sa.select(sa.func.max(o.c.id).label("newest"))
        .join(t, t.c.id == o.c.request)
        .where(*_within(block))
        .where(sa.or_(o.c.request > begins, o.c.position >= start))
        .where(sa.or_(o.c.request < ends, o.c.position <= stop))
        .group_by(o.c.request, o.c.position)
        .subquery()
    )
    return sa.select(sa.func.count(), sa.func.max(each.c.newest)).select_from(each)
