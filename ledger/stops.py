"""What may not answer: a whole model until the stop is lifted, a retired version for good."""

from dataclasses import dataclass

import sqlalchemy as sa

from configs.errors import LedgerError, NotOnRecordError, PromotionError
from ledger import chain, tables
from ledger.database import audit, deciding, now, reading


@dataclass(frozen=True)
class Stops:
    """`stopped`: why the whole model is, or None. `retired`: why each version is that may not answer any more."""

    stopped: str | None
    retired: dict[int, str]


def stop(engine: sa.Engine, model: str, reason: str, actor: str) -> None:
    """Let nothing of the model answer until the stop is lifted; of two stops the later one's reason is told."""
    with deciding(engine) as connection:
        _put(connection, model, None, True, reason, actor)
        audit(connection, actor, "stop", model)


def lift(engine: sa.Engine, model: str, reason: str, actor: str) -> None:
    """End the model's stop. Raises NotOnRecordError if it is not stopped."""
    with deciding(engine) as connection:
        if find_in(connection, model).stopped is None:
            raise NotOnRecordError(f"{model} is not stopped; there is no stop to lift.")
        _put(connection, model, None, False, reason, actor)
        audit(connection, actor, "lift", model)


def retire(engine: sa.Engine, model: str, version: int, reason: str, actor: str) -> None:
    """Let the version never answer again. Raises PromotionError if it is retired already."""
    with deciding(engine) as connection:
        refuse_retired(connection, model, version)
        _put(connection, model, version, True, reason, actor)
        audit(connection, actor, "retire", f"{model}@{version}")


def find(engine: sa.Engine, model: str) -> Stops:
    """What of the model may not answer now."""
    with reading(engine) as connection:
        return find_in(connection, model)


def find_in(connection: sa.Connection, model: str) -> Stops:
    """The same, within the caller's transaction."""
    t = tables.stops
    newest = sa.select(sa.func.max(t.c.id)).where(t.c.model == model).group_by(t.c.version)
    rows = connection.execute(sa.select(t).where(t.c.id.in_(newest), t.c.stopped == 1)).all()
    stopped = next((row.reason for row in rows if row.version is None), None)
    return Stops(stopped, {row.version: row.reason for row in rows if row.version is not None})


def refuse_retired(connection: sa.Connection, model: str, version: int) -> None:
    """Raise PromotionError if the version is retired."""
    reason = find_in(connection, model).retired.get(version)
    if reason is not None:
        raise PromotionError(f"{model}@{version} is retired, for good: {reason}")


def _put(connection: sa.Connection, model: str, version: int | None, stopped: bool, reason: str, actor: str) -> None:
    if not reason.strip():
        raise LedgerError(f"{model}: a reason is expected, and this one is empty; callers are told it.")
    row = {"model": model, "version": version, "stopped": int(stopped), "at": now(), "actor": actor, "reason": reason}
    chain.put(connection, tables.stops, row)
