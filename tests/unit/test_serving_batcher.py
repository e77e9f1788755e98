"""Requests that are computed together: each gets what it would have got alone, once, and none is in another's way."""

import asyncio
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from time import monotonic

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from features import synthetic
from serving.batcher import Batcher, Gone, Job
from serving.refusals import Refused

MOST = 4
POISON = -1.0
"""A row that this model raises at."""


@dataclass(frozen=True)
class Connection:
    disconnected: bool


HERE, LEFT = Connection(False), Connection(True)


@dataclass
class Halving:
    """A model whose risk is half of its only feature; it remembers the rows of each batch."""

    batches: list[list[float]] = field(default_factory=list)

    def matrix(self, values, at):
        self.batches.append(values[:, 0].tolist())
        return np.column_stack([values[:, 0], at]).astype(np.float32)

    def risk(self, X):
        if (X[:, 0] == POISON).any():
            raise ValueError("the engine does not take this row")
        return X[:, 0].astype(np.float64) / 2


@dataclass(frozen=True)
class Asked:
    rows: list[float]
    late: bool = False
    connection: Connection | None = HERE


def answered(asked, model=None, inline=True, most=MOST, finish=lambda _: None):
    """How each request ended, in that order: its place, and its risks or why there are none."""
    ended = []

    async def main():
        batcher = Batcher(model or Halving(), most, inline, flush=lambda: None)
        for place, one in enumerate(asked):

            def finished(job, place=place):
                finish(place)
                ended.append((place, job.risks.tolist()))

            def failed(exc, place=place):
                ended.append((place, exc))

            until = monotonic() + (-1 if one.late else 60)
            values = np.array(one.rows)[:, None]
            batcher.submit(Job(values, values[:, 0] * 10, until, one.connection, finished, failed))
        async with asyncio.timeout(20):
            while len(ended) < len(asked):
                await asyncio.sleep(0)
        for _ in range(5):
            await asyncio.sleep(0)  # long enough for a second end of one of them

    asyncio.run(main())
    return ended


@pytest.fixture(params=[True, False], ids=["inline", "threaded"])
def inline(request):
    return request.param


def test_what_waits_is_computed_together(inline):
    model = Halving()

    assert answered([Asked([1.0]), Asked([2.0, 3.0])], model, inline) == [(0, [0.5]), (1, [1.0, 1.5])]
    assert model.batches == [[1.0, 2.0, 3.0]]


def test_a_request_that_is_late_or_whose_client_has_left_is_not_computed(inline):
    model = Halving()
    asked = [Asked([1.0], late=True), Asked([2.0], connection=LEFT), Asked([3.0]), Asked([4.0], connection=None)]

    ended = dict(answered(asked, model, inline))

    assert model.batches == [[3.0, 4.0]]
    assert isinstance(ended[0], Refused) and (ended[0].status, ended[0].code) == (503, "deadline")
    assert isinstance(ended[1], Gone)
    assert (ended[2], ended[3]) == ([1.5], [2.0])


def test_when_nobody_is_left_the_next_request_is_answered_all_the_same():
    model = Halving()

    async def main():
        told = []
        batcher = Batcher(model, MOST, True, flush=lambda: None)
        for connection in (LEFT, HERE):
            values = np.array([[1.0]])
            batcher.submit(Job(values, values[:, 0], monotonic() + 60, connection, told.append, told.append))
            for _ in range(3):
                await asyncio.sleep(0)
        return told

    gone, job = asyncio.run(main())
    assert isinstance(gone, Gone)
    assert job.risks.tolist() == [0.5]


def test_a_large_request_does_not_stand_before_small_ones(inline):
    large, small = Asked([float(n) for n in range(10 * MOST)]), [Asked([1.0]) for _ in range(5)]

    order = [place for place, _ in answered([large, *small], inline=inline)]

    assert order == [1, 2, 3, 4, 5, 0]


def test_two_large_requests_take_turns(inline):
    model = Halving()
    answered([Asked([1.0] * 2 * MOST), Asked([2.0] * 2 * MOST)], model, inline)

    assert model.batches == [[1.0] * MOST, [2.0] * MOST] * 2


def test_one_row_that_the_model_raises_at_costs_the_others_nothing(inline):
    asked = [Asked([1.0]), Asked([POISON]), Asked([2.0])]

    ended = dict(answered(asked, inline=inline))

    assert (ended[0], ended[2]) == ([0.5], [1.0])
    assert isinstance(ended[1], ValueError)


def test_a_large_request_with_such_a_row_ends_once_and_is_not_computed_on(inline):
    model = Halving()
    ended = answered([Asked([1.0, POISON, *[2.0] * 20 * MOST])], model, inline)

    assert [type(end) for _, end in ended] == [ValueError]
    assert len(model.batches) == 1


def test_one_request_whose_answer_cannot_be_made_costs_the_others_nothing(inline):
    def finish(place):
        if place == 1:
            raise OverflowError

    ended = dict(answered([Asked([1.0]), Asked([2.0]), Asked([3.0, 4.0, 5.0])], inline=inline, finish=finish))

    assert (ended[0], ended[2]) == ([0.5], [1.5, 2.0, 2.5])
    assert isinstance(ended[1], OverflowError)


ROWS = st.lists(st.sampled_from([1.0, 2.0, 3.0, 7.5]) | st.just(POISON), min_size=1, max_size=3 * MOST)
ASKED = st.builds(Asked, ROWS, st.sampled_from([False] * 5 + [True]), st.sampled_from([HERE] * 5 + [LEFT]))


def expected(one):
    """What a request gets alone."""
    if one.connection is LEFT:
        return Gone
    if one.late:
        return Refused
    return ValueError if POISON in one.rows else [row / 2 for row in one.rows]


@pytest.mark.parametrize("threaded", [False, True])
@given(st.lists(ASKED, min_size=1, max_size=8), st.integers(1, 6))
def test_every_request_ends_once_as_it_would_alone(threaded, asked, most):
    model = Halving()
    ended = answered(asked, model, not threaded, most)

    assert sorted(place for place, _ in ended) == list(range(len(asked)))
    assert {at: end if isinstance(end, list) else type(end) for at, end in ended} == {
        at: expected(one) for at, one in enumerate(asked)
    }
    assert all(1 <= len(batch) <= most for batch in model.batches)


@settings(max_examples=25)
@given(st.integers(0, 2**32 - 1), st.lists(st.integers(1, 40), min_size=1, max_size=6), st.booleans())
def test_a_real_model_gives_the_bits_that_it_gives_one_by_one(predictor, seed, sizes, inline):
    """Its features and its risks, in whatever company a row is computed."""
    checked = predictor.contract.check(
        synthetic.draw(predictor.spec.columns, sum(sizes), seed), datetime(2026, 3, 3, tzinfo=UTC)
    )
    one_by_one = [predictor.risk(predictor.matrix(checked.values[n : n + 1], checked.at[n : n + 1])) for n in range(8)]
    X = predictor.matrix(checked.values, checked.at)
    ends = np.cumsum(sizes).tolist()
    parts = [slice(end - size, end) for end, size in zip(ends, sizes, strict=True)]
    jobs = {}

    async def main():
        batcher = Batcher(predictor, predictor.spec.serving.max_batch, inline, flush=lambda: None)
        for place, mine in enumerate(parts):
            finish = partial(jobs.__setitem__, place)
            values, at = checked.values[mine], checked.at[mine]
            batcher.submit(Job(values, at, monotonic() + 60, None, finish, finish))
        async with asyncio.timeout(20):
            while len(jobs) < len(sizes):
                await asyncio.sleep(0)

    asyncio.run(main())
    assert np.concatenate([jobs[place].features for place in range(len(sizes))]).tobytes() == X.tobytes()
    risks = np.concatenate([jobs[place].risks for place in range(len(sizes))])
    assert risks.tobytes() == predictor.risk(X).tobytes()
    assert risks[:8].tobytes() == np.concatenate(one_by_one)[: len(risks)].tobytes()
