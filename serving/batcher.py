"""Rows of many requests, computed together.

Requests that wait while a batch is computed form the next one; at light load a request is its own batch, at once, for
there is no timer. A large request gets one batch and goes to the end of the queue, so that it does not stand before the
others until it is done.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from time import monotonic
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from serving.refusals import Refused

INLINE_S = 0.002
"""A batch that takes longer is computed in a thread: the event loop has other callers to serve."""

Values = NDArray[np.float64]


class Model(Protocol):
    """What computes: checked values (n, c) and times (n,) to features (n, d), and these to risks (n,)."""

    def matrix(self, values: Values, at: Values) -> NDArray[np.float32]: ...

    def risk(self, X: NDArray[np.float32]) -> Values: ...


class Job:
    """One request's rows. `finish` is called when all are computed, `fail` with the reason why they are not."""

    __slots__ = ("at", "connection", "ended", "fail", "features", "finish", "risks", "taken", "until", "values")

    def __init__(
        self,
        values: Values,
        at: Values,
        until: float,
        connection: Any,
        finish: Callable[["Job"], None],
        fail: Callable[[Exception], None],
    ) -> None:
        """`until`: when it is too late to begin, by monotonic(). `connection.disconnected`: its client has left."""
        self.values, self.at, self.until, self.connection = values, at, until, connection
        self.finish, self.fail = finish, fail
        self.taken = 0
        self.ended = False
        self.features: NDArray[np.float32] | None = None
        self.risks: Values | None = None


class Gone(Exception):
    """The client has left before its request was computed."""


class Batcher:
    """The queue in front of one model. It belongs to the event loop's thread."""

    def __init__(self, model: Model, most: int, inline: bool, flush: Callable[[], None]) -> None:
        """`most` rows a batch; `flush` is called after each batch, when its requests have been told."""
        self._model = model
        self._most = most
        self._flush = flush
        self._queue: deque[Job] = deque()
        self._busy = False
        self._thread = None if inline else ThreadPoolExecutor(1, "batch")

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
            self._settle(batch, _compute(self._model, batch), lambda: loop.call_soon(self._next))
        else:
            loop.run_in_executor(self._thread, _compute, self._model, batch).add_done_callback(
                lambda done: self._settle(batch, done.result(), self._next)
            )

    def _form(self) -> list[tuple[Job, int, int]]:
        """Rows of the next batch, from the jobs in their order; one that needs more than that goes to the end."""
        now = monotonic()
        batch: list[tuple[Job, int, int]] = []
        unfinished: list[Job] = []
        left = self._most
        while self._queue and left:
            job = self._queue.popleft()
            if job.ended:
                continue
            if job.taken == 0 and job.connection is not None and job.connection.disconnected:
                job.fail(Gone())
                continue
            if job.taken == 0 and job.until <= now:
                job.fail(Refused(503, "deadline", "the deadline passed before the model ran.", "X-Deadline-Ms"))
                continue
            n = min(len(job.values) - job.taken, left)
            batch.append((job, job.taken, job.taken + n))
            left -= n
            job.taken += n
            if job.taken < len(job.values):
                unfinished.append(job)
        self._queue.extend(unfinished)  # behind everybody who waits
        return batch

    def _settle(self, batch: list[tuple[Job, int, int]], computed: list[Any], then: Callable[[], Any]) -> None:
        for (job, start, stop), found in zip(batch, computed, strict=True):
            if isinstance(found, Exception):
                if not job.ended:
                    job.ended = True
                    job.fail(found)
                continue
            features, risks = found
            n = len(job.values)
            if start == 0 and stop == n:
                job.features, job.risks = features, risks
            else:
                if job.features is None or job.risks is None:
                    job.features = np.empty((n, features.shape[1]), np.float32)
                    job.risks = np.empty(n)
                job.features[start:stop], job.risks[start:stop] = features, risks
            if stop == n and not job.ended:
                try:
                    job.finish(job)
                except Exception as exc:  # of one request: the queue goes on
                    job.fail(exc)
        self._flush()
        then()


def _compute(model: Model, batch: list[tuple[Job, int, int]]) -> list[Any]:
    """For each part of the batch its features and risks, or the exception that it raises even alone."""
    try:
        if len(batch) == 1:
            job, start, stop = batch[0]
            X = model.matrix(job.values[start:stop], job.at[start:stop])
            return [(X, model.risk(X))]
        values = np.concatenate([job.values[start:stop] for job, start, stop in batch])
        X = model.matrix(values, np.concatenate([job.at[start:stop] for job, start, stop in batch]))
        risks = model.risk(X)
    except Exception as exc:  # whatever an engine raises, its own request is refused and the others are computed
        if len(batch) == 1:
            return [exc]
        return [found for part in batch for found in _compute(model, [part])]
    ends = np.cumsum([stop - start for _, start, stop in batch]).tolist()
    starts = [0, *ends[:-1]]
    return [(X[start:stop], risks[start:stop]) for start, stop in zip(starts, ends, strict=True)]
