"""From a record to its risk, compiled once from a bundle: the same functions for score, replay and the server."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray

from configs.errors import BundleError, DeviceMemoryError
from features import build
from features.columns import Record, as_arrays, check_record, times
from features.contract import Contract
from models import conformal, decision
from models.bundle import Bundle
from models.device import Device, Use, using
from models.family import load
from models.onnx import Session

TOLERANCE = 1e-6
"""How far a risk may lie from the recorded one on another kind of CPU; on the same kind the bits agree."""
CARD_TOLERANCE = 1e-5
"""The same for a network in float32 on a card, which sums in another order, where the spec states no tolerance. Our own
choice, not yet measured on a card."""

Matrix = NDArray[np.float32]


@dataclass(frozen=True)
class Prediction:
    """One patient's answer. `missing` names the contract's columns that had no value, of those the model reads.

    `set`: the outcomes that cannot be ruled out, None where the bundle has no sets. `abstained`: why there is no band.
    Of several classes `risks` has each one's, and `label` is that of least expected cost, None where it is in doubt.
    """

    risk: float
    band: str | None
    missing: list[str]
    set: list[str] | None = None
    abstained: str | None = None
    risks: dict[str, float] | None = None
    label: str | None = None


class Predictor:
    """A bundle ready to answer. Making one replays the bundle's self-test; a bundle that fails raises BundleError."""

    def __init__(self, bundle: Bundle) -> None:
        self.bundle = bundle
        self.spec = bundle.spec
        self.plan = build.plan(bundle.spec)
        self._model = load(bundle.folder, self.plan)
        self.contract = Contract(self.spec.columns, self.spec.events)
        self._read = [name for name in self.spec.columns if name in self.plan.reads]
        self._bands: list[str | None] = [None, *bundle.thresholds]
        self.classes = tuple(self.spec.outcome.classes or ())
        self.outcomes = self.classes or conformal.LABELS  # what the columns of a set stand for
        self._event = np.array([name in self.spec.outcome.positive for name in self.classes] or [False, True])
        self._costs = decision.costs(self.spec.outcome)
        self._thresholds = np.array(list(bundle.thresholds.values()))  # in rising order, as training made sure
        self._read_at = np.array([self.contract.starts[name] for name in self._read], np.int64)
        self._use: Use | None = None
        self._why: str | None = None
        self._self_test()

    @property
    def network(self) -> bool:
        """Whether its model is computed as a network, which takes long, and not by ONNX Runtime alone."""
        return not isinstance(self._model, Session)

    @property
    def tolerance(self) -> float:
        """How far an answer may lie from what the CPU gives: a network may have been computed on a card."""
        return (self.spec.serving.tolerance or CARD_TOLERANCE) if self.network else TOLERANCE

    @property
    def computed(self) -> dict[str, str | None] | None:
        """Of a network that uses a device: where and in which precision it is computed now, and why not as was meant.

        None of any other model.
        """
        if self._use is None:
            return None if self._why is None else {"device": "cpu", "precision": "float32", "why": self._why}
        device = self._use.device
        precision = "float32" if device.exact else self._use.precision or "float32"
        return {"device": str(device.place), "precision": precision, "why": device.lost or self._why}

    def use(self, device: Device) -> None:
        """Have its network computed on that device from now on, in the spec's precision.

        A precision in which the self-test leaves its tolerance is not used: float32 is, and if that leaves it too, or
        the card's memory never takes the network, the CPU. `computed` says so. Every size of batch is measured on the
        way. Raises DeviceMemoryError where the CPU's own budget does not take it.
        """
        X = self.features([self.check(case["record"]) for case in self.bundle.selftest["cases"]])
        expected = self._told(X)
        if device.exact:  # the bits of the self-test: one row measures the memory
            use = Use(device, self.spec.name)
            self._furthest(X[:1], expected[:1], use, 1)
            self._use = use if use.ran else None  # a frozen encoder, for one, is not run there
            return
        why = []
        for precision in dict.fromkeys((self.spec.serving.precision, None)):
            use = Use(device, self.spec.name, precision)
            try:
                worst = self._furthest(X[:1], expected[:1], use, 1)
                if not use.ran:
                    return
                worst = max(worst, self._furthest(X, expected, use, self.spec.serving.max_batch))
            except DeviceMemoryError as exc:
                why.append(str(exc))
                continue
            if worst <= self.tolerance:
                self._use = use
                break
            why.append(
                f"in {precision or 'float32'} on {device.place} a risk of the self-test lies {worst:.2g} from the one "
                f"on the CPU (limit {self.tolerance:g})"
            )
        self._why = "; ".join(why) or None

    def _furthest(self, X: Matrix, expected: NDArray[np.float64], use: Use, most: int) -> float:
        """How far a risk lies from the expected one, in batches of every power of two up to `most` rows."""
        worst, size = 0.0, 1
        while True:
            rows = np.arange(max(size, len(X))) % len(X)
            said = [self._computed(X[rows[at : at + size]], use) for at in range(0, len(rows), size)]
            found = self._with_event(np.concatenate(said))
            gap = np.abs(found - expected[rows]).max()
            worst = max(worst, float(gap) if np.isfinite(gap) else np.inf)
            if size >= most:
                return worst
            size = min(size * 2, most)

    def check(self, record: Any) -> Record:
        """The record, checked against the contract. Raises RecordError."""
        return check_record(self.spec.columns, record, self.contract.reducer)

    def features(self, records: Sequence[Record]) -> Matrix:
        """The feature matrix (n, d) of checked records, through the same door as the cohort's."""
        return build.build(self.plan, as_arrays(self.spec.columns, records), times(records))

    def matrix(self, values: NDArray[np.float64], at: NDArray[np.float64]) -> Matrix:
        """The feature matrix (n, d) of values (n, w) that `contract` checked, through the same door."""
        return build.build(self.plan, self.contract.by_column(values), at)

    def missing(self, values: NDArray[np.float64]) -> list[list[str]]:
        """For each row of checked values, the columns without a value, of those the model reads."""
        gone: NDArray[np.bool_] = np.isnan(values[:, self._read_at])
        found: list[list[str]] = [[] for _ in range(len(values))]
        for row, place in zip(*(index.tolist() for index in gone.nonzero()), strict=True):
            found[row].append(self._read[place])
        return found

    def sets(self, risks: NDArray[np.float64]) -> NDArray[np.bool_] | None:
        """Which of the `outcomes` the `risks` of each row leave possible, (n, 2) or (n, K); None without thresholds."""
        return None if self.bundle.conformal is None else self.bundle.conformal.sets(risks)

    def abstains(self, risks: NDArray[np.float64], missing: Sequence[Sequence[str]]) -> list[str | None] | None:
        """Why no band is told of the `risks` of each row, given the columns without a value; None without a rule."""
        sets, rule = self.sets(risks), self.spec.uncertainty
        if sets is None or rule is None:
            return None
        return conformal.abstentions(rule, sets, self._event, [len(names) for names in missing])

    def bands(self, risk: NDArray[np.float64], abstained: Sequence[str | None] | None) -> list[str | None]:
        """The highest operating point that each risk reaches; None as well where it `abstained`."""
        places = np.searchsorted(self._thresholds, risk, side="right").tolist()
        found = [self._bands[place] for place in places]
        if abstained is None:
            return found
        return [None if why else band for band, why in zip(found, abstained, strict=True)]

    def labels(self, risks: NDArray[np.float64], abstained: Sequence[str | None] | None) -> list[str | None]:
        """The class of least expected cost of each row's `risks` (n, K).

        None where it `abstained`, or where the spec's rule asks for one label and the set has none or several.
        """
        sets, rule = self.sets(risks), self.spec.uncertainty
        told = np.array([why is None for why in abstained or [None] * len(risks)], np.bool_)
        if sets is not None and rule is not None and rule.abstain_unless_one_label:
            told &= sets.sum(axis=1) == 1
        places = decision.said(risks, self._costs)
        return [self.classes[place] if known else None for place, known in zip(places, told, strict=True)]

    def risk(self, X: Matrix) -> NDArray[np.float64]:
        """The calibrated risk of each row of X (n, d), (n,), at most `serving.max_batch` rows at a time."""
        return self.positive(self.risks(X))

    def risks(self, X: Matrix) -> NDArray[np.float64]:
        """What is said of each row of X (n, d): of several `classes` each one's risk (n, K), else the risk (n,).

        Where a device gives no number, as a low precision may of a row like none in the self-test, the CPU is asked.
        Raises BundleError if it gives none either: it would count as the highest risk of all.
        """
        said = self._computed(X, self._use)
        if np.isfinite(said).all():
            return said
        odd = _no_numbers(said)
        if self._use is not None:
            self._use.device.not_finite(self._use)
            said[odd] = self._computed(X[odd], None)
        if (odd := _no_numbers(said)).any():
            raise BundleError(f"{self.spec.name}: of {int(odd.sum())} of {len(X)} records its model says no number.")
        return said

    def _computed(self, X: Matrix, use: Use | None) -> NDArray[np.float64]:
        step = self.spec.serving.max_batch
        with using(use):
            parts = [self._model.log_odds(X[start : start + step]) for start in range(0, len(X), step)]
        none = np.empty((0, len(self.classes)) if self.classes else 0)
        return self.bundle.calibration.risks(np.concatenate([none, *parts]))

    def positive(self, risks: NDArray[np.float64]) -> NDArray[np.float64]:
        """The risk (n,) of the event, from what `risks` said."""
        return self.bundle.calibration.positive(risks)

    def predictions(self, records: Sequence[Record], risks: NDArray[np.float64]) -> list[Prediction]:
        """Each record's answer for its `risks`: the band they reach, what was missing, and how certain it is."""
        risk = self.positive(risks)
        missing = [[name for name in self._read if np.isnan(record.values[name]).any()] for record in records]
        abstained, possible = self.abstains(risks, missing), self.sets(risks)
        bands = self.bands(risk, abstained)
        why = abstained or [None] * len(risk)
        sets = [None] * len(risk) if possible is None else conformal.labels(possible, self.outcomes)
        rows = zip(risk.tolist(), bands, missing, sets, why, strict=True)
        found = [Prediction(value, band, gone, labels, reason) for value, band, gone, labels, reason in rows]
        if not self.classes:
            return found
        told = zip(found, risks.tolist(), self.labels(risks, abstained), strict=True)
        return [replace(one, risks=dict(zip(self.classes, row, strict=True)), label=name) for one, row, name in told]

    def _told(self, X: Matrix) -> NDArray[np.float64]:
        """The risk of each row, and of several classes each one's after it: (n, 1) or (n, 1 + K)."""
        return self._with_event(self.risks(X))

    def _with_event(self, risks: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.column_stack([self.positive(risks), *risks.T[: len(self.classes)]])

    def _self_test(self) -> None:
        """Replay the bundle's own cases: recorded values, and the same bits at batch 1, 2, 7 and the maximum."""
        name = f"{self.spec.name} {self.bundle.digest[:12]}"
        try:
            cases = self.bundle.selftest["cases"]
            checked = [self.check(case["record"]) for case in cases]
            X, at = self.features(checked), times(checked)
            recorded = np.array([[np.nan if v is None else v for v in case["features"]] for case in cases], np.float32)
            recorded = recorded.reshape(len(cases), -1)
            plain = X[:, : len(self.plan.features)]  # what is made of a signal stands in its risk alone
            expected = np.array([[float(case["risk"]), *case.get("risks", ())] for case in cases])
            risks = self._told(X)
        except Exception as exc:  # whatever a malformed self-test or model raises, ONNX Runtime's own errors among it
            raise BundleError(f"{name}: self-test: cannot be run ({type(exc).__name__}: {exc!s:.200}).") from exc
        if not cases or recorded.shape != plain.shape:
            raise BundleError(
                f"{name}: self-test: {len(cases)} cases of features {recorded.shape}; {plain.shape} is expected."
            )
        served = self.contract.check([case["record"] for case in cases], datetime.fromtimestamp(0, UTC))
        if served.errors or self.matrix(served.values, at).tobytes() != X.tobytes():
            raise BundleError(f"{name}: self-test: the server's way to the features gives other bits than this one's.")
        if not np.allclose(plain, recorded, rtol=TOLERANCE, atol=TOLERANCE, equal_nan=True):
            raise BundleError(
                f"{name}: self-test: this code computes other features than the ones it was trained with."
            )
        if expected.shape != risks.shape:
            raise BundleError(f"{name}: self-test: its cases have risks of other classes than the model.")
        if not np.allclose(risks, expected, rtol=0, atol=TOLERANCE):
            worst = float(np.abs(risks - expected).max())
            raise BundleError(
                f"{name}: self-test: a risk lies {worst:.2g} from the recorded one (limit {TOLERANCE:g})."
            )
        for size in {1, 2, 7, self.spec.serving.max_batch}:
            tiled = np.resize(X, (max(size, len(X)), X.shape[1]))
            again = [self._told(tiled[start : start + size]) for start in range(0, len(tiled), size)]
            if not np.array_equal(np.concatenate(again)[: len(X)], risks):
                raise BundleError(f"{name}: self-test: batches of {size} give other bits than all at once.")


def _no_numbers(risks: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Which rows of risks, (n,) or (n, K), hold something that is no number, (n,)."""
    known = np.isfinite(risks)
    return np.asarray(~(known if risks.ndim == 1 else known.all(axis=1)))
