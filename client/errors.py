"""What a call may raise. No text of these errors holds a record's value, so they may be logged."""

from collections.abc import Sequence

from client.answers import RecordRefused


class ClientError(Exception):
    """The call brought no answer."""


class Refused(ClientError):
    """The service refused the request as it stands; sending it again would not help.

    `message` is the service's own sentence and `refused` what it said of each record: both may quote a value that was
    sent, and are left out of this error's text.
    """

    def __init__(
        self, status: int, code: str, field: str | None, message: str, refused: Sequence[RecordRefused] = ()
    ) -> None:
        super().__init__(f"refused with {status} {code}{f' ({field})' if field else ''}")
        self.status = status
        self.code = code
        self.field = field
        self.message = message
        self.refused = tuple(refused)


class Unanswered(ClientError):
    """Nothing but 503 or broken connections came, in so many tries; `reason` is what came last, `status` 503 or None.

    The service may have taken it nevertheless: a prediction may be on record whose answer was lost.
    """

    def __init__(self, tries: int, reason: str, status: int | None) -> None:
        super().__init__(f"no answer after {tries} {'try' if tries == 1 else 'tries'}; the last: {reason}")
        self.tries = tries
        self.reason = reason
        self.status = status
