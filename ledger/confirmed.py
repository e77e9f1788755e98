"""Predictions whose outcome is known: what a model is trained anew on, and what two versions are compared on."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray

from ledger import tables
from ledger.database import snapshot, utc
from ledger.predictions import Known, records_of
from ledger.windows import Place

AT_ONCE = 500
"""Requests that are read with one statement."""


@dataclass(frozen=True)
class Confirmed:
    """n predictions in the order of their places: records as they came, outcomes (n,) 0 or 1, of several classes the
    one that came true, None if unknown, patients' keyed hashes, when each was received, the bundle that answered.
    `purged`: those whose record is gone, in nothing else."""

    records: list[dict[str, Any]]
    outcomes: NDArray[np.float64]
    labels: list[str | None]
    places: list[Place]
    patients: list[str | None]
    received: list[datetime]
    bundles: list[str]
    purged: int


@dataclass(frozen=True)
class Paired:
    """Two bundles' risks (n,) for the same predictions, in order, with their outcomes (n,) 0 or 1.

    `patients` are keyed hashes. A record is None once it was purged: what was said and came of it is still known.
    `refused`: records that the candidate's contract refuses, in nothing else. `outcomes_to`: the newest outcome read,
    0 if none.
    """

    outcomes: NDArray[np.float64]
    champion: NDArray[np.float64]
    candidate: NDArray[np.float64]
    records: list[dict[str, Any] | None]
    places: list[Place]
    patients: list[str | None]
    refused: int
    outcomes_to: int


def newest_outcome(engine: sa.Engine) -> int:
    """The number of the newest outcome on record; 0 if there is none."""
    with snapshot(engine) as connection:
        return int(connection.execute(sa.select(sa.func.max(tables.outcomes.c.id))).scalar() or 0)


def newest_request(engine: sa.Engine) -> int:
    """The number of the newest request on record; 0 if there is none."""
    with snapshot(engine) as connection:
        return int(connection.execute(sa.select(sa.func.max(tables.requests.c.id))).scalar() or 0)


def count(engine: sa.Engine, model: str, since: int, to: int | None = None) -> int:
    """How many of the model's predictions got an outcome after outcome `since`, up to `to` where it is given.

    An outcome that is sent again, and says what was known, is no news; one that contradicts it is.
    """
    o = tables.outcomes
    with snapshot(engine) as connection:
        if to is None:  # else SQLite reads every outcome there is
            to = connection.execute(sa.select(sa.func.max(o.c.id))).scalar() or 0
        of_model = sa.select(o.c.request, o.c.position).where(o.c.id > since, o.c.id <= to, _of_model(model))
        if since:
            known = o.alias()
            same = known.c.request == o.c.request, known.c.position == o.c.position, known.c.id <= since
            said = known.c.value.cast(sa.String) + sa.func.coalesce(known.c.label, "")
            before = sa.select(said).where(*same).order_by(known.c.id.desc()).limit(1)
            said = o.c.value.cast(sa.String) + sa.func.coalesce(o.c.label, "")
            of_model = of_model.where(sa.func.coalesce(before.correlate(o).scalar_subquery(), "") != said)
        query = sa.select(sa.func.count()).select_from(of_model.distinct().subquery())
        return int(connection.execute(query).scalar_one())


def confirmed(engine: sa.Engine, model: str, to: int) -> Confirmed:
    """Every prediction of the model, by any version, whose outcome is known by the outcomes up to number `to`."""
    o = tables.outcomes
    told = sa.select(o.c.request, o.c.position, o.c.value, o.c.label).where(o.c.id <= to, _of_model(model))
    values: dict[int, dict[int, Known]] = {}
    records, outcomes, labels, places, patients, received, bundles, purged = [], [], [], [], [], [], [], 0
    with snapshot(engine) as connection:
        each = connection.execute(told.order_by(o.c.id).execution_options(yield_per=10_000))
        for request, position, value, label in each:
            values.setdefault(request, {})[position] = value, label
        for row in _rows(connection, sorted(values)):
            known = values[row.id]
            if row.records is None:
                purged += len(known)
                continue
            kept = records_of(row)
            for position in sorted(known):
                records.append(kept[position])
                value, label = known[position]
                outcomes.append(value)
                labels.append(label)
                places.append((row.id, position))
                patients.append(row.patients[position] if row.patients else None)
                received.append(utc(row.received_at))
                bundles.append(row.bundle)
    return Confirmed(records, np.array(outcomes, np.float64), labels, places, patients, received, bundles, purged)


def shadowed(
    engine: sa.Engine, model: str, candidate: str, champion: str, after_request: int, most: int | None
) -> Paired:
    """The oldest `most` predictions after that request that the bundle `champion` answered and `candidate` scored in
    its shadow, and whose outcome is known."""
    t, s = tables.requests, tables.shadows
    query = sa.select(t.c.id, s.c.risks.label("candidate")).join(s, s.c.request == t.c.id)
    return _paired(engine, query.where(s.c.bundle == candidate, *_known(model, champion)), after_request, most)


def answered(engine: sa.Engine, model: str, bundle: str, after_request: int, most: int | None) -> Paired:
    """The oldest `most` predictions after that request that the bundle itself answered, and whose outcome is known.

    Its risks are `champion`'s; there is no candidate (NaN).
    """
    query = sa.select(tables.requests.c.id, sa.null().label("candidate"))
    return _paired(engine, query.where(*_known(model, bundle)), after_request, most)


def _of_model(model: str) -> sa.ColumnElement[bool]:
    """An outcome about a prediction of the model. (Not a join: SQLite would begin with all requests of the model.)"""
    t = tables.requests
    return sa.exists().where(t.c.id == tables.outcomes.c.request, t.c.model == model)


def _known(model: str, bundle: str) -> tuple[sa.ColumnElement[bool], ...]:
    """The bundle's requests of which an outcome is known."""
    t = tables.requests
    return t.c.model == model, t.c.bundle == bundle, sa.exists().where(tables.outcomes.c.request == t.c.id)


def _paired(engine: sa.Engine, query: sa.Select[Any], after: int, most: int | None) -> Paired:
    """`query`: the requests, and what the candidate said of each, or null; those after that number are read."""
    outcomes: list[int] = []
    champion: list[float] = []
    candidate: list[float] = []
    records: list[dict[str, Any] | None] = []
    places: list[Place] = []
    patients: list[str | None] = []
    refused = newest = 0
    with snapshot(engine) as connection:
        for row, shadow, known in _with_outcomes(connection, query, after):
            kept = records_of(row) if row.records is not None else None
            said = np.frombuffer(row.risks, np.float64)
            other = np.full(row.n, np.nan) if shadow is None else np.frombuffer(shadow, np.float64)
            for position in sorted(known):
                if len(places) == most:
                    break
                if shadow is not None and np.isnan(other[position]):
                    refused += 1
                    continue
                number, value = known[position]
                newest = max(newest, number)
                outcomes.append(value)
                champion.append(said[position])
                candidate.append(other[position])
                records.append(kept[position] if kept else None)
                places.append((row.id, position))
                patients.append(row.patients[position] if row.patients else None)
            if len(places) == most:
                break
    y, a, b = (np.array(values, np.float64) for values in (outcomes, champion, candidate))
    return Paired(y, a, b, records, places, patients, refused, newest)


def _with_outcomes(
    connection: sa.Connection, query: sa.Select[Any], after: int
) -> Iterator[tuple[sa.Row[Any], bytes | None, dict[int, tuple[int, int]]]]:
    """Each request in order, what the candidate said, and by position the outcome that counts: its number and value."""
    t, o = tables.requests, tables.outcomes
    page = query.order_by(t.c.id).limit(AT_ONCE)
    while beside := {row.id: row.candidate for row in connection.execute(page.where(t.c.id > after))}:
        known: dict[int, dict[int, tuple[int, int]]] = {}
        for row in connection.execute(sa.select(o).where(o.c.request.in_(beside)).order_by(o.c.id)):
            known.setdefault(row.request, {})[row.position] = row.id, row.value
        for row in _rows(connection, list(beside)):
            yield row, beside[row.id], known[row.id]
        after = max(beside)


def _rows(connection: sa.Connection, numbers: list[int]) -> Iterator[sa.Row[Any]]:
    """These requests, which are in order."""
    t = tables.requests
    for start in range(0, len(numbers), AT_ONCE):
        some = numbers[start : start + AT_ONCE]
        yield from connection.execute(sa.select(t).where(t.c.id.in_(some)).order_by(t.c.id))
