"""Every decision chained to the one before: a row that was edited, removed, added or moved is found, and named.

A link holds the SHA-256 of each field of its decision, and its own hash covers those and the hash before. Links are
numbered without a gap, in the order in which decisions were taken; never by the clock, which may be set back. Whoever
can write to the database can write a whole new chain: so each promoted version's tags in MLflow keep the chain's head.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from ledger import tables
from ledger.database import snapshot, utc

BEGINNING = "0" * 64
"""What stands before the first link."""

KINDS = {
    table.name: table for table in (tables.promotions, tables.stops, tables.traffic, tables.reviews, tables.retrainings)
}
"""Where decisions are kept."""


@dataclass(frozen=True)
class Head:
    """The chain's newest link: how many there are, and its hash, which stands for all of them."""

    length: int
    hash: str


@dataclass(frozen=True)
class Decision:
    """One row as it stands now, in the order of the chain. `backwards`: the clock had been ahead of `at` before."""

    link: int
    kind: str
    about: str
    at: datetime
    fields: Mapping[str, Any]
    backwards: bool


@dataclass(frozen=True)
class Checked:
    """`problems`: what is not as it was decided, a sentence each. `notes`: what is odd, and no sign of a change."""

    length: int
    problems: tuple[str, ...]
    notes: tuple[str, ...]


def put(connection: sa.Connection, table: sa.Table, row: Mapping[str, Any]) -> int:
    """Put a decision on record, and its link, within `deciding`'s transaction; the row's number."""
    c = tables.chain.c
    before = connection.execute(sa.select(tables.chain).order_by(c.id.desc()).limit(1)).one_or_none()
    taken = sa.select(sa.func.max(table.c.id)), sa.select(sa.func.max(c.row)).where(c.kind == table.name)
    # A number is never given twice, not even where a row was removed by hand: its link still names it.
    number = 1 + max(connection.execute(query).scalar() or 0 for query in taken)
    connection.execute(table.insert().values({**row, "id": number}))
    kept = connection.execute(sa.select(table).where(table.c.id == number)).one()  # as the database gives it back
    length, previous = (before.id, before.hash) if before else (0, BEGINNING)
    connection.execute(tables.chain.insert().values(link(length + 1, previous, table.name, dict(kept._mapping))))
    return number


def link(number: int, previous: str, kind: str, row: Mapping[str, Any]) -> dict[str, Any]:
    """The link of this number for a row, as it goes into the table `chain`."""
    made = {
        "id": number,
        "kind": kind,
        "row": row["id"],
        "about": about(row),
        "at": utc(row["at"]),
        "content": json.dumps(digests(row), sort_keys=True),
        "previous": previous,
    }
    return {**made, "hash": seal(made)}


def seal(link: Mapping[str, Any]) -> str:
    """SHA-256 over everything else in a link, the hash before it among them."""
    named = {name: _plain(link[name]) for name in ("id", "kind", "row", "about", "at", "content", "previous")}
    return hashlib.sha256(json.dumps(named, sort_keys=True, ensure_ascii=False).encode()).hexdigest()


def digests(row: Mapping[str, Any]) -> dict[str, str]:
    """SHA-256 of each field that has a value: so a column that a later release adds changes no earlier row."""
    kept = {name: _plain(value) for name, value in row.items() if name != "id" and value is not None}
    texts = {name: json.dumps(value, sort_keys=True, ensure_ascii=False) for name, value in kept.items()}
    return {name: hashlib.sha256(text.encode()).hexdigest() for name, text in texts.items()}


def about(row: Mapping[str, Any]) -> str:
    """NAME@VERSION, or NAME where a decision is about the whole model."""
    return str(row["model"]) if row["version"] is None else f"{row['model']}@{row['version']}"


def find_head(engine: sa.Engine) -> Head:
    """The chain's newest link."""
    with snapshot(engine) as connection:
        row = connection.execute(sa.select(tables.chain).order_by(tables.chain.c.id.desc()).limit(1)).one_or_none()
    return Head(row.id, row.hash) if row else Head(0, BEGINNING)


def find_link(engine: sa.Engine, kind: str, row: int) -> Head | None:
    """The chain as it was when this row was decided; None if it has no link."""
    c = tables.chain.c
    with snapshot(engine) as connection:
        found = connection.execute(sa.select(tables.chain).where(c.kind == kind, c.row == row)).first()
    return Head(found.id, found.hash) if found else None


def models(engine: sa.Engine) -> set[str]:
    """Every model about which something was decided."""
    with snapshot(engine) as connection:
        return {model for table in KINDS.values() for model in connection.execute(sa.select(table.c.model)).scalars()}


def last_restore(engine: sa.Engine) -> tuple[str, datetime] | None:
    """The backup that was last put in this ledger's place, and when: what was decided in between is in no chain."""
    t = tables.audit
    query = sa.select(t).where(t.c.action == "restore").order_by(t.c.id.desc()).limit(1)
    with snapshot(engine) as connection:
        row = connection.execute(query).one_or_none()
    return (row.detail, utc(row.at)) if row else None


def decisions(engine: sa.Engine, model: str) -> list[Decision]:
    """Every decision about a model that still has its row, in the order of the chain."""
    with snapshot(engine) as connection:
        links, rows = _all(connection)
    found, latest = [], None
    for each in links:
        at = utc(each.at)
        row = rows[each.kind].get(each.row) if each.kind in rows else None
        if row is not None and row["model"] == model:
            fields = {name: utc(value) if isinstance(value, datetime) else value for name, value in row.items()}
            found.append(
                Decision(each.id, each.kind, about(row), fields["at"], fields, latest is not None and at < latest)
            )
        latest = at if latest is None else max(at, latest)
    return found


def check(engine: sa.Engine) -> Checked:
    """Compute every hash again from the rows as they are now, and say what does not agree."""
    with snapshot(engine) as connection:
        links, rows = _all(connection)
    problems: list[str] = []
    notes: list[str] = []
    expected, previous, latest = 1, BEGINNING, None
    named: dict[tuple[str, int], int] = {}
    contents = {(each.kind, each.content): each for each in links}
    for each in links:
        shown = f"link {each.id} ({each.kind} row {each.row}, {each.about})"
        if each.id != expected:
            gone = f"link {expected} is" if each.id == expected + 1 else f"links {expected} to {each.id - 1} are"
            problems.append(f"chain: {gone} missing before {shown}")
        elif each.previous != previous:
            problems.append(f"chain: {shown} does not follow the link before it: one of the two was changed or moved")
        if seal(dict(each._mapping)) != each.hash:
            problems.append(f"chain: {shown} was changed")
        expected, previous = each.id + 1, each.hash
        at = utc(each.at)
        if latest is not None and at < latest:
            notes.append(f"chain: at {shown} the clock ran backwards, from {latest:%Y-%m-%d %H:%M:%S} to {at:%H:%M:%S}")
        latest = at if latest is None else max(latest, at)
        if (each.kind, each.row) in named:
            problems.append(f"chain: {shown} is about the same row as link {named[each.kind, each.row]}")
        named.setdefault((each.kind, each.row), each.id)
        problems += _compared(each, rows, contents)
    for kind, there in rows.items():
        problems += (
            f"{kind}: row {number} ({about(row)}) was added: no link of the chain is about it"
            for number, row in there.items()
            if (kind, number) not in named
        )
    return Checked(len(links), tuple(problems), tuple(notes))


def holds(engine: sa.Engine, head: Head) -> bool:
    """Whether the chain still holds this link."""
    with snapshot(engine) as connection:
        found = connection.execute(sa.select(tables.chain.c.hash).where(tables.chain.c.id == head.length)).scalar()
    return bool(found == head.hash)


def _compared(
    each: sa.Row[Any], rows: Mapping[str, Mapping[int, Mapping[str, Any]]], contents: Mapping[Any, sa.Row[Any]]
) -> list[str]:
    """What of the decision's row is not as its link says."""
    shown = f"{each.kind}: row {each.row} ({each.about})"
    row = rows.get(each.kind, {}).get(each.row)
    if row is None:
        return [f"{shown} was removed"]
    now = digests(row)
    if json.dumps(now, sort_keys=True) == each.content:
        return []
    other = contents.get((each.kind, json.dumps(now, sort_keys=True)))
    if other is not None:
        return [f"{shown} was moved: it holds what was decided as row {other.row} ({other.about})"]
    try:
        then = dict(json.loads(each.content))
    except (ValueError, TypeError):
        return [f"{shown}: its link cannot be read"]
    changed = sorted(name for name in {*then, *now} if then.get(name) != now.get(name))
    return [f"{shown} was edited: {', '.join(changed)}"]


def _all(connection: sa.Connection) -> tuple[list[sa.Row[Any]], dict[str, dict[int, dict[str, Any]]]]:
    """Every link in order, and every row of every kind by its number."""
    links = list(connection.execute(sa.select(tables.chain).order_by(tables.chain.c.id)))
    rows = {
        kind: {row.id: dict(row._mapping) for row in connection.execute(sa.select(table).order_by(table.c.id))}
        for kind, table in KINDS.items()
    }
    return links, rows


def _plain(value: Any) -> Any:
    return utc(value).isoformat(timespec="microseconds") if isinstance(value, datetime) else value
