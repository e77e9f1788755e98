"""A prediction on record, computed once more from what came in."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import sqlalchemy as sa

from configs.errors import LedgerError, NotOnRecordError, RecordError
from configs.settings import Settings
from features.columns import Record
from ledger.predictions import Stored, feature_digest, find
from models import conformal
from models.bundle import get
from models.predict import Predictor


@dataclass(frozen=True)
class Replay:
    """What was said and what is said now. `agrees`: to the bit, within the tolerance, or differs."""

    stored: Stored
    same_features: bool
    risk: float
    risks: dict[str, float] | None
    """Of several classes each one's, None without; `agrees` is about them all."""
    agrees: str
    certainty: dict[str, Any]
    """The `set` that was answered and why it `abstained`, where it did."""

    @property
    def holds(self) -> bool:
        return self.same_features and self.agrees != "differs"


def replay(engine: sa.Engine, settings: Settings, prediction_id: str) -> Replay:
    """The prediction of that id, recomputed by the bundle that made it.

    Raises LedgerError if it is unknown or its record was purged, BundleError if its bundle is gone or changed.
    """
    stored = find(engine, prediction_id)
    if stored.record is None:
        raise NotOnRecordError(
            f"prediction {prediction_id!r}: its record was purged; only its digest, risk and band are left."
        )
    return replay_with(Predictor(get(stored.bundle, settings)), stored)


def replay_with(predictor: Predictor, stored: Stored) -> Replay:
    """The same, with a predictor that is loaded already."""
    X = predictor.features([_record(predictor, stored)])
    risks = predictor.risks(X)
    risk = float(predictor.positive(risks)[0])
    named = dict(zip(predictor.classes, risks[0].tolist(), strict=True)) if predictor.classes else None
    now, then = [risk, *(named or {}).values()], [stored.risk, *(stored.risks or {}).values()]
    gap = max(abs(a - b) for a, b in zip(now, then, strict=True))
    allowed = predictor.tolerance
    agrees = "to the bit" if gap == 0 else f"within {allowed:g}" if gap <= allowed else "differs"
    same_features = feature_digest(X[0]) == stored.feature_digest
    return Replay(stored, same_features, risk, named, agrees, certainty(predictor, stored))


def certainty(predictor: Predictor, stored: Stored) -> dict[str, Any]:
    """The `set` of a prediction, and why it `abstained`, as they were answered: they follow from what is on record.

    Empty where the bundle has no sets; without the reason for silence once the record was purged.
    """
    risks = np.array([stored.risk if stored.risks is None else list(stored.risks.values())])
    possible = predictor.sets(risks)
    if possible is None:
        return {}
    told: dict[str, Any] = {"set": conformal.labels(possible, predictor.outcomes)[0]}
    if stored.record is not None:
        (answer,) = predictor.predictions([_record(predictor, stored)], risks)
        told |= {"abstained": answer.abstained} if answer.abstained else {}
    return told


def _record(predictor: Predictor, stored: Stored) -> Record:
    try:
        return predictor.check(stored.record)
    except RecordError as exc:
        raise LedgerError(f"prediction {stored.id!r}: its record no longer keeps the contract: {exc}") from exc
