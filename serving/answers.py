"""One request on its way: the parts that a version each computes, the row that goes on record, the answer's bytes."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import msgspec
import numpy as np
from msgspec import UNSET, UnsetType
from numpy.typing import NDArray

from configs.errors import RecordError
from features.contract import Checked
from ledger.predictions import Answered, Entry, Idempotency, hash_patients, prediction_id
from ledger.writer import Kept
from serving.batcher import Job
from serving.refusals import error_body
from serving.versions import Version


class Explanation(msgspec.Struct):
    """What each feature adds to the uncalibrated log-odds, above `base`."""

    base: float
    contributions: dict[str, float]


class Item(msgspec.Struct, omit_defaults=True):
    """One prediction of an answer. `version` stands there if it is not the answer's own."""

    id: str
    risk: float
    band: str | None
    missing: list[str]
    version: int | UnsetType = UNSET
    explanation: Explanation | UnsetType = UNSET


@dataclass
class Part:
    """The records of a request that one version answers; `places` are theirs in the request, `lane` what sent them."""

    version: Version
    sent: list[Any]
    places: list[int] | range
    lane: int | None = None
    checked: Checked = field(init=False)
    features: NDArray[np.float32] = field(init=False)
    risks: NDArray[np.float64] = field(init=False)
    bands: list[str | None] = field(init=False)
    explanations: list[Explanation] | None = None

    @property
    def good(self) -> list[int]:
        """The places of the records that keep the contract."""
        if not self.checked.errors:
            return list(self.places)
        return [place for position, place in enumerate(self.places) if position not in self.checked.errors]


class Call:
    """One request, from its checked records to its answer."""

    __slots__ = ("_computed", "_left", "idempotency", "key", "parts", "received", "settled", "total", "version")

    def __init__(
        self,
        version: Version,
        parts: list[Part],
        total: int,
        received: datetime,
        idempotency: Idempotency | None,
        key: bytes,
        settled: "asyncio.Future[Kept]",
    ) -> None:
        """`key`: what patients are hashed with. `settled`: the numbers of its rows, or why there are none."""
        self.version, self.parts, self.total, self.received = version, parts, total, received
        self.idempotency, self.key, self.settled = idempotency, key, settled
        self._left = 0
        self._computed: Callable[[], None] = lambda: None

    def compute(self, until: float, connection: Any, computed: Callable[[], None]) -> None:
        """Put every part in its version's queue; `computed` is called when all are done."""
        self._computed = computed
        parts = [part for part in self.parts if len(part.checked.values)]
        self._left = len(parts)
        for part in parts:
            job = Job(part.checked.values, part.checked.at, until, connection, self._finish(part), self.fail)
            part.version.batcher.submit(job)

    def _finish(self, part: Part) -> Callable[[Job], None]:
        def finish(job: Job) -> None:
            assert job.features is not None and job.risks is not None
            part.features, part.risks = job.features, job.risks
            part.bands = part.version.predictor.bands(part.risks)
            self._left -= 1
            if self._left == 0 and not self.settled.done():
                self._computed()

        return finish

    def fail(self, exc: Exception) -> None:
        if not self.settled.done():
            self.settled.set_exception(exc)

    def settle(self, kept: Kept) -> None:
        if not self.settled.done():
            self.settled.set_result(kept)

    def entry(self) -> Entry:
        """What goes on record: a row for each version that answered."""
        rows = [
            Answered(
                model=part.version.model,
                version=part.version.number,
                bundle=part.version.bundle,
                received_at=self.received,
                records=part.version.predictor.contract.table(part.checked.cells),
                references=part.checked.references,
                patients=hash_patients(self.key, part.checked.patients),
                features=part.features,
                risks=part.risks,
                bands=part.bands,
                traffic=part.lane,
            )
            for part in self.parts
            if len(part.checked.values)
        ]
        return Entry(rows, self.idempotency, self.answer)

    def answer(self, numbers: list[int]) -> bytes:
        """The answer's bytes, once its rows have their numbers."""
        items: list[Any] = [None] * self.total
        given = iter(numbers)
        for part in self.parts:
            for position, error in part.checked.errors.items():
                items[part.places[position]] = error_body(error)
            if not len(part.checked.values):
                continue
            number = next(given)
            other = part.version.number if part.version.number != self.version.number else UNSET
            missing = part.version.predictor.missing(part.checked.values)
            for position, (place, risk) in enumerate(zip(part.good, part.risks.tolist(), strict=True)):
                explanation = UNSET if part.explanations is None else part.explanations[position]
                id_ = prediction_id(number, position)
                items[place] = Item(id_, risk, part.bands[position], missing[position], other, explanation)
        told = {"model": self.version.model, "version": self.version.number, "predictions": items}
        return msgspec.json.encode(told)

    @property
    def errors(self) -> list[RecordError]:
        """Why records were refused, in the order they were sent."""
        found = {part.places[place]: error for part in self.parts for place, error in part.checked.errors.items()}
        return [found[place] for place in sorted(found)]
