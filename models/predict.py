"""From a record to its risk, compiled once from a bundle: the same functions for score, replay and the server."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray

from configs.errors import BundleError
from features import build
from features.columns import Record, as_arrays, check_record
from features.contract import Contract
from models import conformal
from models.bundle import Bundle
from models.onnx import Session

TOLERANCE = 1e-6
"""How far a risk may lie from the recorded one on another kind of CPU; on the same kind the bits agree."""

Matrix = NDArray[np.float32]


@dataclass(frozen=True)
class Prediction:
    """One patient's answer. `missing` names the contract's columns that had no value, of those the model reads.

    `set`: the outcomes that cannot be ruled out, None where the bundle has no sets. `abstained`: why there is no band.
    """

    risk: float
    band: str | None
    missing: list[str]
    set: list[str] | None = None
    abstained: str | None = None


class Predictor:
    """A bundle ready to answer. Making one replays the bundle's self-test; a bundle that fails raises BundleError."""

    def __init__(self, bundle: Bundle) -> None:
        self.bundle = bundle
        self.spec = bundle.spec
        self.plan = build.plan(bundle.spec)
        self._session = Session(bundle.model)
        self.contract = Contract(self.spec.columns)
        read = {column for feature in self.plan.features for column in feature.reads}
        self._read = [name for name in self.spec.columns if name in read]
        self._bands: list[str | None] = [None, *bundle.thresholds]
        self._thresholds = np.array(list(bundle.thresholds.values()))  # in rising order, as training made sure
        self._read_at = np.array([self.contract.starts[name] for name in self._read], np.int64)
        self._self_test()

    def check(self, record: Any) -> Record:
        """The record, checked against the contract. Raises RecordError."""
        return check_record(self.spec.columns, record)

    def features(self, records: Sequence[Record]) -> Matrix:
        """The feature matrix (n, d) of checked records, through the same door as the cohort's."""
        values = as_arrays(self.spec.columns, records)
        at = np.array([record.at.timestamp() if record.at else np.nan for record in records])
        return build.build(self.plan, values, at)

    def matrix(self, values: NDArray[np.float64], at: NDArray[np.float64]) -> Matrix:
        """The feature matrix (n, d) of values (n, w) that `contract` checked, through the same door."""
        return build.build(self.plan, self.contract.by_column(values), at)

    def missing(self, values: NDArray[np.float64]) -> list[list[str]]:
        """For each row of checked values, the columns without a value, of those the model reads."""
        gone: NDArray[np.bool_] = np.isnan(values)[:, self._read_at]
        found: list[list[str]] = [[] for _ in range(len(values))]
        for row, place in zip(*(index.tolist() for index in gone.nonzero()), strict=True):
            found[row].append(self._read[place])
        return found

    def sets(self, risk: NDArray[np.float64]) -> NDArray[np.bool_] | None:
        """The outcomes that each risk (n,) leaves possible, (n, 2), as `conformal.LABELS`; None without thresholds."""
        return None if self.bundle.conformal is None else self.bundle.conformal.sets(risk)

    def abstains(self, risk: NDArray[np.float64], missing: Sequence[Sequence[str]]) -> list[str | None] | None:
        """Why no band is told of each risk (n,), given the columns without a value; None without a rule."""
        sets, rule = self.sets(risk), self.spec.uncertainty
        if sets is None or rule is None:
            return None
        return conformal.abstentions(rule, sets, [len(names) for names in missing])

    def bands(self, risk: NDArray[np.float64], abstained: Sequence[str | None] | None) -> list[str | None]:
        """The highest operating point that each risk reaches; None as well where it `abstained`."""
        places = np.searchsorted(self._thresholds, risk, side="right").tolist()
        found = [self._bands[place] for place in places]
        if abstained is None:
            return found
        return [None if why else band for band, why in zip(found, abstained, strict=True)]

    def risk(self, X: Matrix) -> NDArray[np.float64]:
        """The calibrated risk of each row of X (n, d), (n,), at most `serving.max_batch` rows at a time."""
        step = self.spec.serving.max_batch
        parts = [self._session.log_odds(X[start : start + step]) for start in range(0, len(X), step)]
        return self.bundle.calibration.risk(np.concatenate([np.empty(0), *parts]))

    def predictions(self, records: Sequence[Record], risk: NDArray[np.float64]) -> list[Prediction]:
        """Each record's answer for its risk: the band it reaches, what was missing, and how certain it is."""
        missing = [[name for name in self._read if np.isnan(record.values[name]).any()] for record in records]
        abstained, possible = self.abstains(risk, missing), self.sets(risk)
        bands = self.bands(risk, abstained)
        why = abstained or [None] * len(risk)
        sets = [None] * len(risk) if possible is None else conformal.labels(possible)
        rows = zip(risk.tolist(), bands, missing, sets, why, strict=True)
        return [Prediction(value, band, gone, labels, reason) for value, band, gone, labels, reason in rows]

    def _self_test(self) -> None:
        """Replay the bundle's own cases: recorded values, and the same bits at batch 1, 2, 7 and the maximum."""
        name = f"{self.spec.name} {self.bundle.digest[:12]}"
        try:
            cases = self.bundle.selftest["cases"]
            X = self.features([self.check(case["record"]) for case in cases])
            recorded = np.array([[np.nan if v is None else v for v in case["features"]] for case in cases], np.float32)
            expected = np.array([float(case["risk"]) for case in cases])
            risk = self.risk(X)
        except Exception as exc:  # whatever a malformed self-test or model raises, ONNX Runtime's own errors among it
            raise BundleError(f"{name}: self-test: cannot be run ({type(exc).__name__}: {exc!s:.200}).") from exc
        if not cases or recorded.shape != X.shape:
            raise BundleError(
                f"{name}: self-test: {len(cases)} cases of features {recorded.shape}; {X.shape} is expected."
            )
        served = self.contract.check([case["record"] for case in cases], datetime.fromtimestamp(0, UTC))
        if served.errors or self.matrix(served.values, np.full(len(cases), np.nan)).tobytes() != X.tobytes():
            raise BundleError(f"{name}: self-test: the server's way to the features gives other bits than this one's.")
        if not np.allclose(X, recorded, rtol=TOLERANCE, atol=TOLERANCE, equal_nan=True):
            raise BundleError(
                f"{name}: self-test: this code computes other features than the ones it was trained with."
            )
        if not np.allclose(risk, expected, rtol=0, atol=TOLERANCE):
            worst = float(np.abs(risk - expected).max())
            raise BundleError(
                f"{name}: self-test: a risk lies {worst:.2g} from the recorded one (limit {TOLERANCE:g})."
            )
        for size in {1, 2, 7, self.spec.serving.max_batch}:
            tiled = np.resize(X, (max(size, len(X)), X.shape[1]))
            again = [self.risk(tiled[start : start + size]) for start in range(0, len(tiled), size)]
            if not np.array_equal(np.concatenate(again)[: len(X)], risk):
                raise BundleError(f"{name}: self-test: batches of {size} give other bits than all at once.")
