"""A candidate that scores what the champion answered: on record beside it, never in an answer, never in its way."""

import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import msgspec
import numpy as np

from ledger.database import now
from ledger.writer import Writer
from serving.answers import Part
from serving.versions import Version

MOST_WAITING = 20_000
"""Records that may wait for a shadow; the newest are let go, and counted."""
MOST_BYTES = 256 * 2**20
"""Of the signals in them: 20,000 recordings of 12 x 5,000 samples would be 4.8 GB."""


@dataclass(frozen=True)
class Said:
    """What the shadow needs of an answer, and no more: its request's body and what was computed of it are let go."""

    version: Version
    number: int
    names: list[str]
    cells: list[tuple[Any, ...]]
    received: datetime
    bytes: int


class Shadow:
    """One thread, behind the answers."""

    def __init__(self, writer: Writer, count: Callable[[str, str, int], None]) -> None:
        """`count(model, outcome, records)`: scored, refused by the shadow's own contract, or let go."""
        self._writer = writer
        self._count = count
        self._waiting: deque[Said] = deque()
        self._changed = threading.Condition()
        self._records = self._bytes = 0
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="shadow", daemon=True)
        self._thread.start()

    def offer(self, version: Version, number: int, said: Part) -> None:
        """Score the records of request `number`, which `said` answered, when there is time."""
        contract, cells = said.version.predictor.contract, said.scored.cells
        size = _bytes(cells) if any(column.signal for column in contract.sent.values()) else 0
        if self._records + len(cells) > MOST_WAITING or self._bytes + size > MOST_BYTES:
            self._count(version.model, "let_go", len(cells))
            return
        with self._changed:
            self._waiting.append(Said(version, number, [*contract.fields, "at"], cells, said.received, size))
            self._records += len(cells)
            self._bytes += size
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
                said = self._waiting.popleft()
                self._records -= len(said.cells)
                self._bytes -= said.bytes
            try:
                outcome = self._score(said)
            except Exception:  # the shadow's own fault is counted, and no caller's
                outcome = "failed"
            self._count(said.version.model, outcome, len(said.cells))

    def _score(self, said: Said) -> str:
        version, predictor = said.version, said.version.predictor
        records = [
            {name: cell for name, cell in zip(said.names, cells, strict=True) if cell is not None}
            for cells in msgspec.to_builtins(said.cells)
        ]
        checked = predictor.contract.check(records, said.received)
        risks = np.full(len(records), np.nan)  # NaN: this version's contract refuses the record
        good = [place for place in range(len(records)) if place not in checked.errors]
        if good:
            risks[good] = predictor.risk(predictor.matrix(checked.values, checked.at))
        row = {
            "request": said.number,
            "version": version.number,
            "bundle": version.bundle,
            "risks": risks.tobytes(),
            "at": now(),
        }
        if not self._writer.shadow(row):
            return "let_go"
        return "scored" if len(good) == len(records) else "refused_in_part" if good else "refused"


def _bytes(cells: Sequence[tuple[Any, ...]]) -> int:
    """How many bytes the signals, and texts, among records' cells take."""
    whole = [cell["value"] if isinstance(cell, dict) and "value" in cell else cell for one in cells for cell in one]
    return sum(len(content) for content in whole if isinstance(content, bytes | str))
