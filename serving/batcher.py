"""Records of many requests, computed together.

Requests that wait while a batch is computed form the next one; at light load a request is its own batch, at once, for
there is no timer. A large request gets one batch and goes to the end of the queue, so that it does not stand before the
others until it is done.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from time import monotonic
from typing import Any, Protocol

from ledger.database import now
from serving.refusals import Refused
from serving.scoring import Scored

INLINE_S = 0.002
"""A batch that takes longer is computed in a thread: the event loop has other callers to serve."""


class Model(Protocol):
    """What scores records: of several requests at once, None if one is odd; and of one request."""

    def together(self, sent: Sequence[Any], received: datetime) -> Scored | None: ...

    def alone(self, sent: Sequence[Any], received: datetime) -> Scored: ...


class Job:
    """One request's records. `finish` is called when all are scored, `fail` with the reason why they are not."""

    __slots__ = ("asked", "connection", "ended", "fail", "finish", "pieces", "received", "sent", "taken", "until")

    def __init__(
        self,
        sent: Sequence[Any],
        until: float,
        connection: Any,
        finish: Callable[["Job"], None],
        fail: Callable[[Exception], None],
    ) -> None:
        """`until`: when it is too late to go on, by monotonic(). `connection.disconnected`: its client has left."""
        self.sent, self.until, self.connection = sent, until, connection
        self.finish, self.fail = finish, fail
        self.asked = monotonic()
        self.taken = 0
        self.ended = False
        self.received: datetime | None = None
        """When it was begun: the time of prediction of a record that names none."""
        self.pieces: list[Scored] = []

    @property
    def scored(self) -> Scored:
        return self.pieces[0] if len(self.pieces) == 1 else Scored.join(self.pieces)


Batch = list[tuple[Job, int, int]]
"""Jobs, and from where to where their records are in it."""


class Gone(Exception):
    """The client has left before its request was computed."""


class Batcher:
    """The queue in front of one model. It belongs to the event loop's thread."""

    def __init__(
        self,
        model: Model,
        most: int,
        inline: bool,
        flush: Callable[[], None],
        formed: Callable[[int, float], None] | None = None,
    ) -> None:
        """`most` records a batch; `flush` is called after each batch, when its requests have been told.

        Where a batch is computed in a thread, `formed` is told its records, and the seconds that the first waited.
        """
        self._model = model
        self._most = most
        self._flush = flush
        self._formed = formed
        self._queue: deque[Job] = deque()
        self._busy = False
        self._thread = None if inline else ThreadPoolExecutor(1, "batch")
        self._done = self._took_s = 0.0  # records that the thread computed lately, and the time that it took

    def behind(self, n: int, until: float) -> bool:
        """Whether so many records, with those before them, would be done when half of the time until then is over.

        Nobody is behind before whom nobody waits. Known where a thread computes: there a record may take milliseconds,
        and what is begun and not done in time was computed for nobody. A large request that waits stands before a
        small one with one batch.
        """
        if not self._done:
            return False
        turn = -(-n // self._most) * self._most
        before = sum(min(len(job.sent) - job.taken, turn) for job in self._queue)
        return before > 0 and (before + n) * self._took_s / self._done > (until - monotonic()) / 2

    def submit(self, job: Job) -> None:
        self._queue.append(job)
        if not self._busy:
            self._busy = True
            asyncio.get_running_loop().call_soon(self._next)

    def _next(self) -> None:
        """Compute one batch. Whoever arrives meanwhile is in the queue when the next one is formed."""
        batch = self._form()
        if not batch:
            self._busy = False
            return
        loop = asyncio.get_running_loop()
        if self._thread is None:
            self._settle(batch, _compute(self._model, batch))
            loop.call_soon(self._next)
        else:
            if self._formed is not None:
                waited_s = monotonic() - min(job.asked for job, _, _ in batch)
                self._formed(_records(batch), waited_s)
            began = monotonic()
            computed = loop.run_in_executor(self._thread, _compute, self._model, batch)
            computed.add_done_callback(lambda done: self._settled(batch, monotonic() - began, done.result()))

    def _settled(self, batch: Batch, took_s: float, computed: list[Scored | Exception]) -> None:
        self._done, self._took_s = self._done / 2 + _records(batch), self._took_s / 2 + took_s
        self._settle(batch, computed)
        self._next()

    def _form(self) -> Batch:
        """The next batch, from the jobs in their order; one that needs more than that goes to the end."""
        began = monotonic()
        batch: Batch = []
        unfinished: list[Job] = []
        left = self._most
        while self._queue and left:
            job = self._queue.popleft()
            if job.ended:
                continue
            if job.connection is not None and job.connection.disconnected:
                job.ended = True  # the rest of it is not computed
                job.fail(Gone())
                continue
            if job.until <= began:
                job.ended = True
                said = "the deadline passed before the model was done."
                job.fail(Refused(503, "deadline", said, "X-Deadline-Ms"))
                continue
            n = min(len(job.sent) - job.taken, left)
            batch.append((job, job.taken, job.taken + n))
            left -= n
            job.taken += n
            if job.taken < len(job.sent):
                unfinished.append(job)
        self._queue.extend(unfinished)  # behind everybody who waits
        return batch

    def _settle(self, batch: Batch, computed: list[Scored | Exception]) -> None:
        for (job, _, stop), found in zip(batch, computed, strict=True):
            if job.ended:
                continue
            if isinstance(found, Exception):
                job.ended = True  # the rest of it is not computed
                job.fail(found)
                continue
            job.pieces.append(found)
            if stop == len(job.sent):
                try:
                    job.finish(job)
                except Exception as exc:  # of one request: the queue goes on
                    job.fail(exc)
        self._flush()


def _records(batch: Batch) -> int:
    return sum(stop - start for _, start, stop in batch)


def _compute(model: Model, batch: Batch) -> list[Scored | Exception]:
    """Each job's share of the batch, or the exception that it raises even alone."""
    if len(batch) > 1 and all(start == 0 for _, start, _ in batch):
        received = now()
        try:
            whole = model.together([record for job, _, stop in batch for record in job.sent[:stop]], received)
        except Exception:  # whatever an engine raises: its own request is found, and the others are computed
            whole = None
        if whole is not None:
            shares: list[Scored | Exception] = []
            at = 0
            for job, _, stop in batch:
                job.received = received
                shares.append(whole.part(at, at + stop))
                at += stop
            return shares
    return [_alone(model, *share) for share in batch]


def _alone(model: Model, job: Job, start: int, stop: int) -> Scored | Exception:
    job.received = job.received or now()
    try:
        return model.alone(job.sent[start:stop], job.received)
    except Exception as exc:
        return exc
