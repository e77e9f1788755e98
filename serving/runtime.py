"""The champions in memory, and what is done with a request: checked, predicted, put on record, answered."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from time import monotonic
from typing import Any

import msgspec
import numpy as np

from configs.errors import MediMindError, RecordError
from configs.settings import Settings
from features.columns import Record
from ledger import outcomes, predictions
from ledger.database import BUSY_TIMEOUT_S, Engine, connect, now, utc, writing
from ledger.outcomes import Outcome
from ledger.predictions import Answered, Idempotency
from ledger.promotions import Promotion, find_champion
from ledger.replay import replay
from models.bundle import get
from models.predict import Prediction, Predictor
from serving.schemas import OutcomeBody

MOST_RECORDS = 10_000
SHORTEST_WAIT_S = 0.05
"""A ledger that another writer holds is waited for at least so long, however little of the deadline is left."""


class Refused(MediMindError):
    """A request that is answered with an error: its HTTP status, and the error body's three fields."""

    def __init__(self, status: int, code: str, message: str, field: str | None = None, **more: Any) -> None:
        super().__init__(message)
        self.status = status
        self.body = {"error": {"code": code, "message": message, "field": field}, **more}


@dataclass(frozen=True)
class Model:
    """One served disease. Without a predictor it is not ready, and `why` says so."""

    name: str
    champion: Promotion | None
    predictor: Predictor | None
    why: str | None

    def state(self) -> dict[str, Any]:
        version = self.champion.version if self.champion else None
        return {"name": self.name, "version": version, "ready": self.predictor is not None, "why": self.why}


@dataclass(frozen=True)
class Counters:
    """Where the service counts: predictions by model and version, refusals by model and code, seconds a request."""

    answered: Callable[[str, int, int], None]
    refused: Callable[[str, str], None]
    took: Callable[[str, float], None]


@dataclass
class Runtime:
    """Everything one worker holds: the ledger, the models, and the key that patients are hashed with."""

    settings: Settings
    engine: Engine
    models: dict[str, Model]
    counters: Counters
    key: bytes = field(repr=False)

    def model(self, name: str) -> tuple[Promotion, Predictor]:
        """The champion and its predictor. Raises Refused if the model is not served, or not ready."""
        found = self.models.get(name)
        if found is None:
            raise Refused(
                404, "unknown_model", f"no model {name[:60]!r} is served here: {', '.join(self.models)}.", "name"
            )
        if found.predictor is None or found.champion is None:
            raise Refused(503, "not_ready", f"{name} is not ready: {found.why}")
        return found.champion, found.predictor

    def predict(
        self, name: str, sent: Sequence[Any], body: bytes, key: str | None, began: float, deadline_ms: int | None
    ) -> bytes:
        """The answer's bytes for the records of one request, durable in the ledger before they are returned.

        Raises Refused; a record that breaks the contract gets its error in its place and costs the others nothing.
        """
        champion, predictor = self.model(name)
        idempotency = Idempotency(key, predictions.body_digest(body)) if key else None
        if idempotency and (before := predictions.answered_before(self.engine, name, idempotency)):
            return before
        received = now()
        checked = [_check(predictor, record, received) for record in sent]
        good = [record for record in checked if isinstance(record, Record)]
        for record in checked:
            if isinstance(record, RecordError):
                self.counters.refused(name, record.code)
        if not good:
            raise _all_refused(checked)
        allowed = deadline_ms or predictor.spec.serving.deadline_ms
        if (monotonic() - began) * 1000 > allowed:
            self.counters.refused(name, "deadline")
            raise Refused(
                503, "deadline", f"the deadline of {allowed} ms passed before the model ran.", "X-Deadline-Ms"
            )
        features = predictor.features(good)
        risks = predictor.risk(features)
        said = predictor.predictions(good, risks)
        kept = Answered(
            model=name,
            version=champion.version,
            bundle=champion.bundle,
            received_at=received,
            records=[
                _on_record(record, raw) for record, raw in zip(checked, sent, strict=True) if isinstance(record, Record)
            ],
            references=[record.reference for record in good],
            patients=predictions.hash_patients(self.key, [record.patient for record in good]),
            features=features,
            risks=risks,
            bands=[prediction.band for prediction in said],
        )
        left_s = allowed / 1000 - (monotonic() - began)
        answer = predictions.keep(
            self.engine,
            kept,
            idempotency,
            lambda request: _answer(name, champion.version, request, checked, said),
            min(max(left_s, SHORTEST_WAIT_S), BUSY_TIMEOUT_S),
        )
        self.counters.answered(name, champion.version, len(good))
        self.counters.took(name, monotonic() - began)
        return answer

    def record_outcomes(self, sent: Sequence[Any]) -> dict[str, Any]:
        """Put outcomes on record; each gets its prediction's id or an error in its place.

        Raises Refused if none could be recorded.
        """
        told: list[dict[str, Any]] = []
        first: dict[str, Any] | None = None
        with writing(self.engine) as connection:
            for item in sent:
                try:
                    told.append({"prediction_id": outcomes.record(connection, _outcome(item))})
                except MediMindError as exc:
                    told.append(error_body(exc))
                    first = first or told[-1]["error"]
        if first and all("error" in item for item in told):
            known = all(item["error"]["code"] == "not_on_record" for item in told)
            raise Refused(404 if known else 422, first["code"], first["message"], first["field"], outcomes=told)
        return {"outcomes": told}

    def recall(self, prediction_id: str, again: bool) -> dict[str, Any]:
        """What a prediction saw and said; with `again`, what it says when it is computed once more."""
        stored = predictions.find(self.engine, prediction_id)
        told = {
            "id": stored.id,
            "model": stored.model,
            "version": stored.version,
            "bundle": stored.bundle,
            "received_at": stored.received_at.isoformat(),
            "record": stored.record,
            "features": None
            if stored.features is None
            else [None if np.isnan(v) else float(v) for v in stored.features],
            "feature_digest": stored.feature_digest,
            "risk": stored.risk,
            "band": stored.band,
        }
        if again:
            done = replay(self.engine, self.settings, prediction_id)
            told["replay"] = {"risk": done.risk, "agrees": done.agrees, "same_features": done.same_features}
        return told


def start(settings: Settings, names: Sequence[str], counters: Counters) -> Runtime:
    """Open the ledger and load the champions; a model that cannot be loaded is not ready, and the others serve."""
    engine = connect(settings)
    models = {name: _load(engine, settings, name) for name in names}
    return Runtime(settings, engine, models, counters, predictions.patient_key(settings.home))


def _load(engine: Engine, settings: Settings, name: str) -> Model:
    champion = None
    try:
        champion = find_champion(engine, name)
        if champion is None:
            return Model(name, None, None, f"it has no champion; `medimind run {name}` makes one.")
        return Model(name, champion, Predictor(get(champion.bundle, settings.store)), None)
    except MediMindError as exc:
        return Model(name, champion, None, str(exc))


def error_body(exc: MediMindError) -> dict[str, Any]:
    """An error as clients see it."""
    field = exc.field if isinstance(exc, RecordError) else None
    return {"error": {"code": exc.code, "message": str(exc), "field": field}}


def _check(predictor: Predictor, record: Any, received: datetime) -> Record | RecordError:
    """The record, checked; its time of prediction is now if it names none, for the features as for the ledger."""
    try:
        checked = predictor.check(record)
        return replace(checked, at=checked.at or received)
    except RecordError as exc:
        return exc


def _all_refused(checked: Sequence[Record | RecordError]) -> Refused:
    errors = [record for record in checked if isinstance(record, RecordError)]
    first = errors[0]
    more = f" None of the {len(errors)} records keeps the contract." if len(errors) > 1 else ""
    told = [error_body(error) for error in errors]
    return Refused(422, first.code, f"{first}{more}", first.field, predictions=told)


def _on_record(record: Record, raw: dict[str, Any]) -> dict[str, Any]:
    """A record as the ledger keeps it: the contract's fields as they came, the time of prediction, no identifier."""
    kept = {name: value for name, value in raw.items() if name in record.values}
    return {**kept, "at": record.at.isoformat() if record.at else None}


def _answer(
    name: str, version: int, request: int, checked: Sequence[Record | RecordError], said: Sequence[Prediction]
) -> bytes:
    items: list[dict[str, Any]] = []
    answers = iter(enumerate(said))
    for record in checked:
        if isinstance(record, RecordError):
            items.append(error_body(record))
            continue
        position, prediction = next(answers)
        items.append(
            {
                "id": predictions.prediction_id(request, position),
                "risk": prediction.risk,
                "band": prediction.band,
                "missing": prediction.missing,
            }
        )
    return msgspec.json.encode({"model": name, "version": version, "predictions": items})


def _outcome(item: Any) -> Outcome:
    """One outcome of a body, checked. Raises RecordError."""
    try:
        body = msgspec.convert(item, OutcomeBody)
    except msgspec.ValidationError as exc:
        raise RecordError("malformed", None, f"an outcome: {exc}.") from exc
    if (body.prediction_id is None) == (body.reference is None):
        raise RecordError("malformed", "prediction_id", "an outcome names either `prediction_id` or `reference`.")
    if body.value not in (0, 1):
        raise RecordError("malformed", "value", "value: true or false, 1 or 0, is expected: did the event happen.")
    try:
        observed = datetime.fromisoformat(body.observed_at)
        told = utc(observed)
    except (ValueError, OverflowError):  # overflow: in UTC it is before year 1
        observed = None
    if observed is None or observed.tzinfo is None:
        raise RecordError("malformed", "observed_at", "observed_at: an ISO 8601 time with its offset is expected.")
    if told > datetime.now(UTC):
        raise RecordError("malformed", "observed_at", "observed_at: lies in the future; an outcome has been observed.")
    return Outcome(body.prediction_id, body.reference, body.model, int(body.value), told)
