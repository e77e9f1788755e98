"""Findings that fail, as episodes, and who is still to be told: an outbox from which nothing is lost."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from ledger import tables
from ledger.database import now, one_at_a_time, reading, utc, writing

Key = tuple[str, str]
"""A finding's code and its title."""


@dataclass(frozen=True)
class Episode:
    """A finding, by code and title, that fails in one window or several in a row; `ended_at` once it passed again."""

    id: int
    model: str
    version: int
    code: str
    title: str
    text: str
    began_at: datetime
    ended_at: datetime | None


def failing(
    engine: sa.Engine,
    model: str,
    version: int,
    texts: Mapping[Key, str],
    passed: Collection[Key],
    channels: Sequence[str],
) -> list[Episode]:
    """Open an episode for each finding of `texts` that has none open, to be told on every channel; the new ones.

    Ends the open ones that `passed`, and those of another version: it is not watched any more.
    """
    t = tables.episodes
    opened = []
    with one_at_a_time(engine, "episodes") as connection:
        query = sa.select(t).where(t.c.model == model, t.c.ended_at.is_(None))
        there = {(row.code, row.title): row for row in connection.execute(query)}
        over = [row.id for key, row in there.items() if key in passed or row.version != version]
        if over:
            connection.execute(t.update().where(t.c.id.in_(over)).values(ended_at=now()))
        for key, text in texts.items():
            if key in passed or (key in there and there[key].id not in over):
                continue
            at, (code, title) = now(), key
            row = {"model": model, "version": version, "code": code, "title": title, "text": text, "began_at": at}
            number = connection.execute(t.insert().values(row).returning(t.c.id)).scalar_one()
            for channel in dict.fromkeys(channels):
                connection.execute(tables.deliveries.insert().values(episode=number, channel=channel, tries=0))
            opened.append(Episode(number, model, version, code, title, text, at, None))
    return opened


def begun_since(engine: sa.Engine, model: str, code: str, moment: datetime) -> bool:
    """Whether an episode of this code has begun at that moment or later."""
    t = tables.episodes
    query = sa.select(t.c.id).where(t.c.model == model, t.c.code == code, t.c.began_at >= utc(moment)).limit(1)
    with reading(engine) as connection:
        return connection.execute(query).first() is not None


def undelivered(engine: sa.Engine, channels: Sequence[str]) -> list[tuple[int, Episode]]:
    """What is still to be told on these channels, oldest first: the delivery's number, and the episode."""
    d, t = tables.deliveries, tables.episodes
    query = sa.select(d.c.id.label("delivery"), t).join(t, t.c.id == d.c.episode)
    query = query.where(d.c.delivered_at.is_(None), d.c.channel.in_(list(channels))).order_by(d.c.id)
    with reading(engine) as connection:
        return [(row.delivery, _episode(row)) for row in connection.execute(query)]


def readdress(engine: sa.Engine, channels: Sequence[str]) -> None:
    """Let what waits for a channel that is set no more wait for those that are, each once; their addresses may have
    been corrected.

    What a channel that is set was told, or is to be told, it is not told again.
    """
    d = tables.deliveries
    there = list(dict.fromkeys(channels))
    if not there:
        return
    lost = sa.and_(d.c.delivered_at.is_(None), d.c.channel.not_in(there))
    with one_at_a_time(engine, "episodes") as connection:
        episodes = connection.execute(sa.select(d.c.episode).where(lost).distinct().order_by(d.c.episode)).scalars()
        for episode in episodes.all():
            known = set(connection.execute(sa.select(d.c.channel).where(d.c.episode == episode)).scalars())
            for channel in there:
                if channel not in known:
                    connection.execute(d.insert().values(episode=episode, channel=channel, tries=0))
        connection.execute(d.delete().where(lost))


def tried(engine: sa.Engine, delivery: int, delivered: bool) -> None:
    """Put a try on record; a delivery that failed stays in the outbox."""
    d = tables.deliveries
    values: dict[str, Any] = {"tries": d.c.tries + 1, "tried_at": now()}
    if delivered:
        values["delivered_at"] = values["tried_at"]
    with writing(engine) as connection:
        connection.execute(d.update().where(d.c.id == delivery).values(values))


def open_episodes(engine: sa.Engine, model: str) -> list[Episode]:
    """The model's episodes that have not ended, oldest first."""
    t = tables.episodes
    query = sa.select(t).where(t.c.model == model, t.c.ended_at.is_(None)).order_by(t.c.id)
    with reading(engine) as connection:
        return [_episode(row) for row in connection.execute(query)]


def waiting(engine: sa.Engine) -> int:
    """How many deliveries are still to be made, on whichever channel."""
    d = tables.deliveries
    with reading(engine) as connection:
        query = sa.select(sa.func.count()).select_from(d).where(d.c.delivered_at.is_(None))
        return int(connection.execute(query).scalar_one())


def _episode(row: sa.Row[Any]) -> Episode:
    ended = utc(row.ended_at) if row.ended_at is not None else None
    return Episode(row.id, row.model, row.version, row.code, row.title, row.text, utc(row.began_at), ended)
