"""A request that is answered with an error, and the error's body."""

from typing import Any

from configs.errors import MediMindError, RecordError


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
