"""Records that broke the contract, counted by field and by what was wrong; never a value."""

from collections.abc import Mapping
from datetime import datetime

import sqlalchemy as sa

from ledger import tables
from ledger.database import now, reading, utc, writing


def put(engine: sa.Engine, counts: Mapping[tuple[str, str, str], int]) -> None:
    """Put counts of refused records on record, by model, code and field ("" where no field is to blame)."""
    at = now()
    rows = [
        {"model": model, "code": code, "field": field, "n": n, "at": at}
        for (model, code, field), n in counts.items()
        if n
    ]
    if rows:
        with writing(engine) as connection:
            connection.execute(tables.refusals.insert(), rows)


def between(engine: sa.Engine, model: str, begin: datetime, end: datetime) -> dict[tuple[str, str], int]:
    """How many of the model's records were refused after `begin` and up to `end`, by code and field."""
    t = tables.refusals
    query = sa.select(t.c.code, t.c.field, sa.func.sum(t.c.n).label("n")).group_by(t.c.code, t.c.field)
    query = query.where(t.c.model == model, t.c.at > utc(begin), t.c.at <= utc(end)).order_by(t.c.code, t.c.field)
    with reading(engine) as connection:
        return {(row.code, row.field): int(row.n) for row in connection.execute(query)}
