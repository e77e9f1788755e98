"""A request that is answered with an error, the error's body, and how often which field broke the contract."""

import threading
from collections import Counter
from collections.abc import Collection, Iterable
from typing import Any

from configs.errors import MediMindError, RecordError
from ledger import refusals
from ledger.database import Engine


class Refused(MediMindError):
    """A request that is answered with an error: its HTTP status, and the error body's three fields."""

    def __init__(self, status: int, code: str, message: str, field: str | None = None, **more: Any) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.body = {"error": {"code": code, "message": message, "field": field}, **more}


def error_body(exc: MediMindError) -> dict[str, Any]:
    """An error as clients see it."""
    field = exc.field if isinstance(exc, RecordError) else None
    return {"error": {"code": exc.code, "message": str(exc), "field": field}}


class Tally:
    """Records that broke the contract, counted by model, code and field until they are on record; never a value."""

    def __init__(self) -> None:
        self._counts: Counter[tuple[str, str, str]] = Counter()
        self._counting = threading.Lock()
        self._writing = threading.Lock()

    def add(self, model: str, errors: Iterable[RecordError], fields: Collection[str]) -> None:
        """Count them; a field that is none of `fields`, the contract's, is a caller's own text and counts as "".

        Whichever of its events it was, and whatever was wrong with it, the field is `events`.
        """
        with self._counting:
            for error in errors:
                field = error.field or ""
                field = "events" if field.startswith("events[") else field
                self._counts[model, error.code, field if field in fields else ""] += 1

    def put(self, engine: Engine) -> None:
        """Put what came since the last time on record; it waits for a disk. Raises LedgerError, and keeps it then."""
        with self._writing:
            with self._counting:
                counts, self._counts = self._counts, Counter()
            if not counts:
                return
            try:
                refusals.put(engine, counts)
            except BaseException:
                with self._counting:
                    self._counts.update(counts)
                raise
