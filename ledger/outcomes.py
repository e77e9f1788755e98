"""What happened to the patients later, joined to the predictions it answers."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from configs.errors import NotOnRecordError, RecordError
from ledger import tables
from ledger.database import now, utc
from ledger.predictions import Known, parse_id, prediction_id, records_of


@dataclass(frozen=True)
class Outcome:
    """One outcome as it was told. Names its prediction by id, or by the caller's own reference.

    `value`: did the event happen, 1 or 0; or the name of the class that came true.
    """

    prediction_id: str | None
    reference: str | None
    model: str | None
    value: int | str
    observed_at: datetime


def record(connection: sa.Connection, outcome: Outcome) -> str:
    """Put the outcome on record and return its prediction's id. An earlier outcome stays; the later row counts.

    Raises NotOnRecordError if no prediction, or no single one, goes by that name; RecordError if it was observed before
    the prediction was made for, or is a class that the model does not have.
    """
    request, position = _place(connection, outcome)
    t = tables.requests
    asked = sa.select(t.c.received_at, t.c.records, t.c.classes).where(t.c.id == request)
    row = connection.execute(asked).one()
    value, label = happened(outcome.value, row.classes)
    if outcome.observed_at < _predicted_at(row, position):
        said = "observed_at: lies before the prediction that it answers; is the year, or the prediction, another one?"
        raise RecordError("before_prediction", "observed_at", said)
    connection.execute(
        tables.outcomes.insert().values(
            request=request,
            position=position,
            value=value,
            label=label,
            observed_at=utc(outcome.observed_at),
            received_at=now(),
        )
    )
    return prediction_id(request, position)


def happened(told: int | str, events: Mapping[str, bool] | None) -> Known:
    """0 or 1, and the class that came true, from what was told: whether the event happened, or the class's name.

    `events` are the classes of what was predicted, each with whether it is the event; None where there are none. Where
    one class alone is left, it came true: who has no event has the only class without one. Raises RecordError for a
    class that is none of them.
    """
    if isinstance(told, int):
        left = [name for name, event in (events or {}).items() if event == bool(told)]
        return told, left[0] if len(left) == 1 else None
    if events is None:
        said = "value: is a class, and this model has none; did the event happen: true or false, 1 or 0, is expected."
        raise RecordError("malformed", "value", said)
    if told not in events:
        said = f"value: is none of this model's classes: {', '.join(events)}; or true or false, did the event happen."
        raise RecordError("unknown_class", "value", said)
    return int(events[told]), told


def _place(connection: sa.Connection, outcome: Outcome) -> tuple[int, int]:
    t, r = tables.requests, tables.references
    if outcome.prediction_id is not None:
        request, position = parse_id(outcome.prediction_id)
        if connection.execute(sa.select(t.c.id).where(t.c.id == request, t.c.n > position)).one_or_none() is None:
            raise NotOnRecordError(f"no prediction {outcome.prediction_id!r} is on record.")
        return request, position
    query = (
        sa.select(r.c.request, r.c.position, t.c.model)
        .join(t, t.c.id == r.c.request)
        .where(r.c.reference == outcome.reference)
        .order_by(r.c.id.desc())
    )
    if outcome.model is not None:
        query = query.where(t.c.model == outcome.model)
    found = connection.execute(query).all()
    if not found:
        raise NotOnRecordError("no prediction with this reference is on record.")
    if len(models := sorted({row.model for row in found})) > 1:
        raise NotOnRecordError(f"this reference names predictions of {' and '.join(models)}; say which with `model`.")
    return found[0].request, found[0].position


def _predicted_at(row: Any, position: int) -> datetime:
    """The time of prediction: what the record says, or, once that was purged, when the request came."""
    if row.records is None:
        return utc(row.received_at)
    return min(datetime.fromisoformat(records_of(row)[position]["at"]), utc(row.received_at))
