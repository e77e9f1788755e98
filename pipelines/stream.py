"""Who comes when: a source's rows in the order of time, as an app would send them, and what came of each patient."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Any

import numpy as np

from configs.errors import SourceError
from configs.settings import Settings
from configs.spec import Spec
from features import columns
from features.columns import day_begins
from features.histories import sent as events_as_sent
from features.records import Records
from pipelines.external import as_source
from pipelines.ingest import check_source

FIRST_DAY = date(2001, 1, 1)
"""Where the source has no time: the day on which the invented ones begin. Nobody takes it for when they came."""

PER_DAY = 10
"""Where the source has no time: patients a day, if nobody says how many."""


@dataclass(frozen=True)
class Arrival:
    """A patient's record as an app sends it, the time of prediction, and the outcome: 0, 1, or None if unknown.

    `label`: of several classes the name of the one that came true.
    """

    record: dict[str, Any]
    at: datetime
    outcome: int | None
    label: str | None = None


@dataclass(frozen=True)
class Stream:
    """Patients in the order of time. `invented`: the source has no time, and theirs are made up."""

    arrivals: tuple[Arrival, ...]
    where: str
    invented: bool
    refused: int
    """Rows that the contract refuses, which are not sent."""

    @property
    def outcomes(self) -> int:
        return sum(arrival.outcome is not None for arrival in self.arrivals)


def stream(spec: Spec, source: str | None, per_day: int | None, limit: int | None, settings: Settings) -> Stream:
    """The first `limit` patients of the external part of the spec's source, or of all of another `source`.

    They come in the order of `spec.at`; where the source has none, in that of the external sites and of the rows,
    `per_day` a day. Raises SourceError if there are none, or their outcomes are not known or all alike.
    """
    if spec.external is None and source is None:
        raise SourceError(
            f"{spec.name}: its spec has no `external` part that could come in; --source FILE names other patients."
        )
    if limit is not None and limit < 1:
        raise SourceError(f"--limit {limit}: at least one patient is expected.")
    if per_day is not None and per_day < 1:
        raise SourceError(f"--per-day {per_day}: at least one patient a day is expected.")
    if per_day is not None and spec.at is not None:
        raise SourceError(f"--per-day: {spec.name}'s source says itself when each came ({spec.at!r}); leave it out.")
    read = check_source(as_source(spec, source, settings) if source else spec, settings)
    records, histories = read.records, read.histories
    refused = {refusal.row - 1 for refusal in read.refusals}
    kept = [row for row in range(columns.rows_in(read.table)) if row not in refused]
    order = _order(spec, records, elsewhere=source is not None)[:limit]
    arrivals = []
    classes = [*(spec.outcome.classes or ())]
    for place, row in enumerate(order):
        timeless = np.isnan(records.at[row])
        at = _invented(place, per_day or PER_DAY) if timeless else datetime.fromtimestamp(records.at[row], UTC)
        sent = {name: column[kept[row]] for name, column in read.cells.items() if column[kept[row]] is not None}
        if histories is not None:  # those of later too, as the reducer shall leave them out by itself
            sent["events"] = events_as_sent(spec, histories, str(records.patient[row]))
        sent |= {"at": at.isoformat()} | ({"patient": str(records.patient[row])} if spec.patient_id else {})
        outcome = records.outcome[row]
        known = not np.isnan(outcome)
        label = classes[int(records.label[row])] if known and records.label is not None else None
        arrivals.append(Arrival(sent, at, int(outcome) if known else None, label))
    where = source or f"the external part of {spec.name}"
    _judge(where, arrivals)
    return Stream(tuple(arrivals), where, spec.at is None, len(refused))


def _order(spec: Spec, records: Records, elsewhere: bool) -> list[int]:
    """The rows that come in, in the order of time; without one, site by site."""
    rows = list(range(len(records)))
    if not elsewhere and spec.external and spec.external.after:
        begin = day_begins(spec.external.after)
        rows = [row for row in rows if records.at[row] >= begin]
    elif not elsewhere and spec.external and spec.external.sites:
        names, site = spec.columns["site"].categories, records.values["site"]
        rows = [row for name in spec.external.sites for row in np.flatnonzero(site == names.index(name)).tolist()]
    return rows if spec.at is None else sorted(rows, key=lambda row: float(records.at[row]))


def _invented(place: int, per_day: int) -> datetime:
    day, of_day = divmod(place, per_day)
    return datetime.combine(FIRST_DAY, time(), UTC) + timedelta(days=day + of_day / per_day)


def _judge(where: str, arrivals: Sequence[Arrival]) -> None:
    known = {arrival.outcome for arrival in arrivals} - {None}
    if not arrivals:
        raise SourceError(f"{where}: holds no patient who could come in.")
    if not known:
        raise SourceError(f"{where}: not one outcome is known; without outcomes there is nothing to retrain on.")
    if len(known) == 1:
        only = "events" if 1 in known else "non-events"
        raise SourceError(f"{where}: the {len(arrivals)} patients are all {only}; both are needed to judge a model.")
