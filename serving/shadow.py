"""A candidate that scores what the champion answered: on record beside it, never in an answer, never in its way."""

import threading
from collections import deque
from collections.abc import Callable

import msgspec
import numpy as np

from ledger.database import now
from ledger.writer import Writer
from serving.answers import Part
from serving.versions import Version

MOST_WAITING = 20_000
"""Records that may wait for a shadow; the newest are let go, and counted."""


class Shadow:
    """One thread, behind the answers."""

    def __init__(self, writer: Writer, count: Callable[[str, str, int], None]) -> None:
        """`count(model, outcome, records)`: scored, refused by the shadow's own contract, or let go."""
        self._writer = writer
        self._count = count
        self._waiting: deque[tuple[Version, int, Part]] = deque()
        self._changed = threading.Condition()
        self._records = 0
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="shadow", daemon=True)
        self._thread.start()

    def offer(self, version: Version, number: int, said: Part) -> None:
        """Score the records of request `number`, which `said` answered, when there is time."""
        if self._records + len(said.scored) > MOST_WAITING:
            self._count(version.model, "let_go", len(said.scored))
            return
        with self._changed:
            self._waiting.append((version, number, said))
            self._records += len(said.scored)
            self._changed.notify()

    def close(self) -> None:
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join(timeout=5)

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._waiting and not self._closing:
                    self._changed.wait()
                if self._closing:
                    return
                version, number, said = self._waiting.popleft()
                self._records -= len(said.scored)
            try:
                outcome = self._score(version, number, said)
            except Exception:  # the shadow's own fault is counted, and no caller's
                outcome = "failed"
            self._count(version.model, outcome, len(said.scored))

    def _score(self, version: Version, number: int, said: Part) -> str:
        predictor = version.predictor
        names = [*said.version.predictor.contract.columns, "at"]
        records = [
            {name: cell for name, cell in zip(names, cells, strict=True) if cell is not None}
            for cells in msgspec.to_builtins(said.scored.cells)
        ]
        checked = predictor.contract.check(records, said.received)
        risks = np.full(len(records), np.nan)  # NaN: this version's contract refuses the record
        good = [place for place in range(len(records)) if place not in checked.errors]
        if good:
            risks[good] = predictor.risk(predictor.matrix(checked.values, checked.at))
        row = {
            "request": number,
            "version": version.number,
            "bundle": version.bundle,
            "risks": risks.tobytes(),
            "at": now(),
        }
        if not self._writer.shadow(row):
            return "let_go"
        return "scored" if len(good) == len(records) else "refused_in_part" if good else "refused"
