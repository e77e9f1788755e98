"""What the service says, as frozen dataclasses; a field that a later release adds is passed over."""

from collections.abc import Mapping
from dataclasses import dataclass
from dataclasses import field as attribute
from datetime import datetime
from typing import Any


@dataclass(frozen=True)
class Explanation:
    """The base and the contributions sum to the log-odds before calibration. `map`, of a model that reads a picture:
    where the picture raises them, in rows from 0 to 1."""

    base: float
    contributions: dict[str, float]
    map: list[list[float]] | None = None


@dataclass(frozen=True)
class Event:
    """Something that happened to a patient, or was measured, for a record's `events`; `time` has its offset.

    Without a value it just happened; a number needs its `unit`, in UCUM.
    """

    time: datetime
    code: str
    value: float | bool | str | None = attribute(default=None, repr=False)
    unit: str | None = None


@dataclass(frozen=True)
class Prediction:
    """One record's risk, 0 to 1. `band` is the highest operating point reached, None below all of them.

    `version` is the version that computed it, which under canary or A/B traffic may not be the champion. `set` are the
    outcomes that cannot be ruled out, None where the model has no sets; `abstained` says why there is no band.
    `ignored` says how many of the record's events did not count, by reason.

    Of several classes `risks` are each one's, `label` is the class of least expected cost, None where it is in doubt,
    and `explanations` has one of each; None of a model without.
    """

    id: str
    risk: float
    band: str | None
    missing: tuple[str, ...]
    version: int
    explanation: Explanation | None
    set: tuple[str, ...] | None = None
    abstained: str | None = None
    risks: dict[str, float] | None = None
    label: str | None = None
    explanations: dict[str, Explanation] | None = None
    ignored: dict[str, int] = attribute(default_factory=dict)


@dataclass(frozen=True)
class RecordRefused:
    """One record or outcome that could not be used; the others were. The message may quote a number that was sent."""

    code: str
    field: str | None
    message: str = attribute(repr=False)


@dataclass(frozen=True)
class Answer:
    """A prediction or a refusal for each record, in the order in which they were sent."""

    model: str
    version: int
    predictions: tuple[Prediction | RecordRefused, ...]


@dataclass(frozen=True)
class Outcome:
    """Whether the event happened, or which class came true, and when that was observed.

    Names its prediction by id, or by `reference`.
    """

    value: bool | str
    observed_at: datetime
    prediction_id: str | None = None
    reference: str | None = None
    model: str | None = None


@dataclass(frozen=True)
class OutcomeRecorded:
    """An outcome on record, and the prediction that it belongs to."""

    prediction_id: str


@dataclass(frozen=True)
class ModelState:
    """One served model; `why` says why it is not ready."""

    name: str
    version: int | None
    ready: bool
    why: str | None


@dataclass(frozen=True)
class Replay:
    """A prediction computed once more. `agrees`: "to the bit", "within 1e-06" or "differs"."""

    risk: float
    agrees: str
    same_features: bool
    risks: dict[str, float] | None = None


@dataclass(frozen=True)
class PredictionOnRecord:
    """What a prediction saw and said. `record` and `features` are None once they were purged.

    `risks` and `label` are those of `Prediction`.
    """

    id: str
    model: str
    version: int
    bundle: str
    received_at: datetime
    record: dict[str, Any] | None = attribute(repr=False)
    features: tuple[float | None, ...] | None = attribute(repr=False)
    feature_digest: str
    risk: float
    band: str | None
    set: tuple[str, ...] | None
    abstained: str | None
    replay: Replay | None
    risks: dict[str, float] | None = None
    label: str | None = None


def answer(said: Mapping[str, Any]) -> Answer:
    version = said["version"]
    items = (refused(item) if "error" in item else _prediction(item, version) for item in said["predictions"])
    return Answer(said["model"], version, tuple(items))


def _prediction(said: Mapping[str, Any], version: int) -> Prediction:
    why, each = said.get("explanation"), said.get("explanations")
    return Prediction(
        id=said["id"],
        risk=said["risk"],
        band=said["band"],
        missing=tuple(said["missing"]),
        version=said.get("version", version),
        explanation=_explanation(why) if why else None,
        set=tuple(said["set"]) if "set" in said else None,
        abstained=said.get("abstained"),
        risks=said.get("risks"),
        label=said.get("class"),
        explanations={name: _explanation(why) for name, why in each.items()} if each else None,
        ignored=said.get("ignored", {}),
    )


def _explanation(said: Mapping[str, Any]) -> Explanation:
    return Explanation(said["base"], said["contributions"], said.get("map"))


def refused(said: Mapping[str, Any]) -> RecordRefused:
    error = said["error"]
    return RecordRefused(error["code"], error["field"], error["message"])


def recorded(said: Mapping[str, Any]) -> tuple[OutcomeRecorded | RecordRefused, ...]:
    items = said["outcomes"]
    return tuple(refused(item) if "error" in item else OutcomeRecorded(item["prediction_id"]) for item in items)


def models(said: Mapping[str, Any]) -> tuple[ModelState, ...]:
    return tuple(ModelState(item["name"], item["version"], item["ready"], item["why"]) for item in said["models"])


def on_record(said: Mapping[str, Any]) -> PredictionOnRecord:
    again = said.get("replay")
    return PredictionOnRecord(
        id=said["id"],
        model=said["model"],
        version=said["version"],
        bundle=said["bundle"],
        received_at=datetime.fromisoformat(said["received_at"]),
        record=said["record"],
        features=None if said["features"] is None else tuple(said["features"]),
        feature_digest=said["feature_digest"],
        risk=said["risk"],
        band=said["band"],
        set=tuple(said["set"]) if "set" in said else None,
        abstained=said.get("abstained"),
        replay=Replay(again["risk"], again["agrees"], again["same_features"], again.get("risks")) if again else None,
        risks=said.get("risks"),
        label=said.get("class"),
    )
