"""One request on its way: the parts that a version each answers, the row that goes on record, the answer's bytes."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import msgspec
from msgspec import UNSET, UnsetType

from configs.errors import RecordError
from ledger.predictions import Answered, Entry, Idempotency, hash_patients, prediction_id
from ledger.writer import Kept
from models import conformal
from serving.batcher import Job
from serving.explanations import Explanation
from serving.refusals import Refused, error_body
from serving.scoring import Scored
from serving.versions import Version


class Item(msgspec.Struct, omit_defaults=True):
    """One prediction of an answer. `version` stands there if it is not the answer's own.

    `set`: the outcomes that cannot be ruled out, where the bundle has sets. `abstained`: why there is no band.
    `ignored`: how many of the record's events did not count, by reason.
    Of several classes alone: each one's risk, the class of least expected cost, and an explanation of each one's score.
    """

    id: str
    risk: float
    band: str | None
    missing: list[str]
    set: list[str] | UnsetType = UNSET
    abstained: str | UnsetType = UNSET
    ignored: dict[str, int] | UnsetType = UNSET
    version: int | UnsetType = UNSET
    explanation: Explanation | UnsetType = UNSET
    risks: dict[str, float] | UnsetType = UNSET
    label: str | UnsetType | None = msgspec.field(default=UNSET, name="class")
    explanations: dict[str, Explanation] | UnsetType = UNSET


@dataclass(slots=True)
class Part:
    """The records of a request that one version answers; `places` are theirs in the request, `lane` what sent them."""

    version: Version
    sent: Sequence[Any]
    places: Sequence[int]
    lane: int | None = None
    scored: Scored = field(init=False)
    received: datetime = field(init=False)
    explanations: list[list[Explanation]] | None = None
    """Each record's: one, or of several classes one each, in their order."""

    @property
    def good(self) -> Sequence[int]:
        """The places of the records that keep the contract."""
        errors = self.scored.errors
        return (
            [place for position, place in enumerate(self.places) if position not in errors] if errors else self.places
        )


class Call:
    """One request, from its records to its answer."""

    __slots__ = ("_computed", "_left", "errors", "idempotency", "key", "parts", "settled", "total", "version")

    def __init__(
        self,
        version: Version,
        parts: list[Part],
        total: int,
        key: bytes,
        settled: "asyncio.Future[Kept]",
    ) -> None:
        """`key`: what patients are hashed with. `settled`: the numbers of its rows, or why there are none."""
        self.version, self.parts, self.total = version, parts, total
        self.key, self.settled = key, settled
        self.idempotency: Idempotency | None = None
        """Of a request that came with a key."""
        self.errors: list[RecordError] = []
        """Why records were refused, in the order they were sent."""
        self._left = len(parts)
        self._computed: Callable[[Call], None] | None = None

    def compute(self, until: float, connection: Any, computed: Callable[["Call"], None]) -> None:
        """Put every part in its version's queue; `computed` is called when all are done, and one record is good."""
        self._computed = computed
        for part in self.parts:
            part.version.batcher.submit(Job(part.sent, until, connection, self._finisher(part), self.fail))

    def _finisher(self, part: Part) -> Callable[[Job], None]:
        def finish(job: Job) -> None:
            assert job.received is not None
            part.scored, part.received = job.scored, job.received
            self._left -= 1
            if self._left == 0 and not self.settled.done():
                self._all_done()

        return finish

    def _all_done(self) -> None:
        found = {part.places[place]: error for part in self.parts for place, error in part.scored.errors.items()}
        if found:
            self.errors = [found[place] for place in sorted(found)]
            if len(found) == self.total:
                self.settled.set_exception(_all_refused(self.errors))
                return
        assert self._computed is not None
        self._computed(self)

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
                part.version.model,
                part.version.number,
                part.version.bundle,
                part.received,
                part.version.predictor.contract.table(part.scored.cells),
                part.scored.references,
                hash_patients(self.key, part.scored.patients),
                part.scored.kept,
                part.scored.risks,
                part.scored.bands,
                part.lane,
                part.scored.by_class,
                part.scored.digests,
            )
            for part in self.parts
            if len(part.scored)
        ]
        return Entry(rows, self.idempotency, self.answer)

    def answer(self, numbers: list[int]) -> bytes:
        """The answer's bytes, once its rows have their numbers."""
        items: list[Any] = [None] * self.total
        given = iter(numbers)
        for part in self.parts:
            scored = part.scored
            for position, error in scored.errors.items():
                items[part.places[position]] = error_body(error)
            if not len(scored):
                continue
            number = next(given)
            other = part.version.number if part.version is not self.version else UNSET
            told = part.explanations
            predictor = part.version.predictor
            by_class = scored.by_class
            risks = scored.risks if by_class is None else by_class.risks
            possible_each = predictor.sets(risks)
            sets = None if possible_each is None else conformal.labels(possible_each, predictor.outcomes)
            abstained = predictor.abstains(risks, scored.missing)
            rows = zip(part.good, scored.risks.tolist(), scored.bands, scored.missing, scored.ignored, strict=True)
            for position, (place, risk, band, missing, ignored) in enumerate(rows):
                explanation = told[position][0] if told and by_class is None else UNSET
                possible = sets[position] if sets else UNSET
                why = (abstained[position] if abstained else None) or UNSET
                said = prediction_id(number, position)
                items[place] = Item(said, risk, band, missing, possible, why, ignored or UNSET, other, explanation)
            if by_class is not None:
                for place, named, label in zip(part.good, by_class.named, by_class.labels, strict=True):
                    items[place].risks, items[place].label = named, label
                for place, each in zip(part.good, told or (), strict=False):
                    items[place].explanations = dict(zip(by_class.events, each, strict=True))
        body = {"model": self.version.model, "version": self.version.number, "predictions": items}
        return msgspec.json.encode(body)


def _all_refused(errors: Sequence[RecordError]) -> Refused:
    first = errors[0]
    more = f" None of the {len(errors)} records keeps the contract." if len(errors) > 1 else ""
    told = [error_body(error) for error in errors]
    return Refused(422, first.code, f"{first}{more}", first.field, predictions=told)
