"""What happened to the patients later, joined to the predictions it answers."""

from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa

from configs.errors import NotOnRecordError, RecordError
from ledger import tables
from ledger.database import now, utc
from ledger.predictions import parse_id, prediction_id, records_of


@dataclass(frozen=True)
class Outcome:
    """One outcome as it was told. Names its prediction by id, or by the caller's own reference."""

    prediction_id: str | None
    reference: str | None
    model: str | None
    value: int
    observed_at: datetime


def record(connection: sa.Connection, outcome: Outcome) -> str:
    """Put the outcome on record and return its prediction's id. An earlier outcome stays; the later row counts.

    Raises NotOnRecordError if no prediction, or no single one, goes by that name; RecordError if it was observed before
    the prediction was made for.
    """
    request, position = _place(connection, outcome)
    if outcome.observed_at < _predicted_at(connection, request, position):
        said = "observed_at: lies before the prediction that it answers; is the year, or the prediction, another one?"
        raise RecordError("before_prediction", "observed_at", said)
    connection.execute(
        tables.outcomes.insert().values(
            request=request,
            position=position,
            value=outcome.value,
            observed_at=utc(outcome.observed_at),
            received_at=now(),
        )
    )
    return prediction_id(request, position)


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


def _predicted_at(connection: sa.Connection, request: int, position: int) -> datetime:
    """The time of prediction: what the record says, or, once that was purged, when the request came."""
    t = tables.requests
    row = connection.execute(sa.select(t.c.received_at, t.c.records).where(t.c.id == request)).one()
    if row.records is None:
        return utc(row.received_at)
    return min(datetime.fromisoformat(records_of(row)[position]["at"]), utc(row.received_at))
