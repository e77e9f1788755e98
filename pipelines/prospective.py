"""Patients to come: what two models said of the same ones, and what came true. Each patient counts once.

Those whom the newer of the two learned from are left out: whoever comes again is no test of it.
"""

from dataclasses import dataclass

import numpy as np

from configs.errors import RecordError
from configs.settings import Settings
from configs.spec import Retrain
from evidence.metrics import Array
from ledger import confirmed
from ledger.confirmed import Paired
from ledger.database import Engine
from models.bundle import Bundle
from models.predict import Predictor
from pipelines.candidate import learned_from


@dataclass(frozen=True)
class Beside:
    """`y` (n,) 0 or 1, and the risks of the newer model and of the older one, all (n,), in the order of prediction."""

    y: Array
    new: Array
    old: Array

    def __len__(self) -> int:
        return len(self.y)

    def first(self, n: int, asked: Retrain) -> "Beside | None":
        """The first n patients, and as many more as hold the events and non-events asked for; None if none do."""
        events, others = np.cumsum(self.y == 1), np.cumsum(self.y == 0)
        enough = (np.arange(1, len(self) + 1) >= n) & (events >= asked.min_events) & (others >= asked.min_non_events)
        if not enough.any():
            return None
        end = int(np.argmax(enough)) + 1
        return Beside(self.y[:end], self.new[:end], self.old[:end])


def shadowed(engine: Engine, candidate: Bundle, champion: Bundle, after_request: int, settings: Settings) -> Beside:
    """What the champion answered, and the candidate scored in its shadow."""
    seen = confirmed.shadowed(engine, champion.spec.name, candidate.digest, champion.digest, after_request, None)
    rows = _rows(seen, candidate, settings)
    return Beside(seen.outcomes[rows], seen.candidate[rows], seen.champion[rows])


def answered(engine: Engine, newer: Bundle, older: Bundle, after_request: int, settings: Settings) -> Beside:
    """What the newer one answered, and what the older one would have said: computed from what is on record.

    A record that was purged, or that the older one's contract refuses, is left out.
    """
    seen = confirmed.answered(engine, newer.spec.name, newer.digest, after_request, None)
    predictor, rows, checked = Predictor(older), [], []
    for row in _rows(seen, newer, settings):
        record = seen.records[row]
        if record is None:
            continue
        try:
            checked.append(predictor.check(record))
            rows.append(row)
        except RecordError:
            continue
    old = predictor.risk(predictor.features(checked)) if checked else np.empty(0)
    return Beside(seen.outcomes[rows], seen.champion[rows], old)


def _rows(seen: Paired, newer: Bundle, settings: Settings) -> list[int]:
    """The first row of each patient whom the newer one did not learn from."""
    known = set(learned_from(newer, settings))
    rows = []
    for row, patient in enumerate(seen.patients):
        if patient is not None:
            if patient in known:
                continue
            known.add(patient)
        rows.append(row)
    return rows
