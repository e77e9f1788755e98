"""Requests that are computed together: each gets what it would have got alone, once, and none is in another's way."""

import asyncio
import threading
from dataclasses import dataclass, field
from functools import partial
from time import monotonic

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from configs.errors import RecordError
from features import synthetic
from serving.batcher import Batcher, Gone, Job
from serving.refusals import Refused
from serving.scoring import Scored, Scorer

MOST = 4
ODD, POISON = -2.0, -1.0
"""A record that this model refuses, and one that it raises at."""


@dataclass(frozen=True)
class Connection:
    disconnected: bool


HERE, LEFT = Connection(False), Connection(True)


@dataclass
class Halving:
    """A model whose records are numbers and whose risk is half of one; it remembers the records of each batch."""

    batches: list[list[float]] = field(default_factory=list)

    def together(self, sent, received):
        return None if ODD in sent else self.alone(sent, received)

    def alone(self, sent, received):
        self.batches.append(list(sent))
        if POISON in sent:
            raise ValueError("the engine does not take this record")
        good = np.array([number for number in sent if number != ODD])
        errors = {place: RecordError("odd", None, "odd") for place, number in enumerate(sent) if number == ODD}
        nobody = [None] * len(good)
        cells = [(number, received) for number in good.tolist()]
        X, n = good[:, None].astype(np.float32), len(good)
        return Scored(cells, nobody, nobody, errors, X, good / 2, nobody, [[]] * n, [{}] * n, X, None)


@dataclass(frozen=True)
class Asked:
    records: list[float]
    late: bool = False
    connection: Connection | None = HERE


def said(scored):
    """The risk of each record, "odd" where it was refused."""
    risks = iter(scored.risks.tolist())
    return ["odd" if place in scored.errors else next(risks) for place in range(len(scored) + len(scored.errors))]


def answered(asked, model=None, inline=True, most=MOST, finish=lambda _: None):
    """How each request ended, in that order: its place, and its risks or why there are none."""
    ended = []

    async def main():
        batcher = Batcher(model or Halving(), most, inline, flush=lambda: None)
        for place, one in enumerate(asked):

            def finished(job, place=place):
                finish(place)
                ended.append((place, said(job.scored)))

            def failed(exc, place=place):
                ended.append((place, exc))

            until = monotonic() + (-1 if one.late else 60)
            batcher.submit(Job(one.records, until, one.connection, finished, failed))
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
            batcher.submit(Job([1.0], monotonic() + 60, connection, told.append, told.append))
            for _ in range(3):
                await asyncio.sleep(0)
        return told

    gone, job = asyncio.run(main())
    assert isinstance(gone, Gone)
    assert said(job.scored) == [0.5]


def test_a_large_request_does_not_stand_before_small_ones(inline):
    large, small = Asked([float(n) for n in range(10 * MOST)]), [Asked([1.0]) for _ in range(5)]

    order = [place for place, _ in answered([large, *small], inline=inline)]

    assert order == [1, 2, 3, 4, 5, 0]


def test_two_large_requests_take_turns(inline):
    model = Halving()
    answered([Asked([1.0] * 2 * MOST), Asked([2.0] * 2 * MOST)], model, inline)

    assert model.batches == [[1.0] * MOST, [2.0] * MOST] * 2


def test_a_record_that_is_refused_costs_those_of_other_requests_nothing(inline):
    asked = [Asked([1.0]), Asked([ODD, 3.0]), Asked([2.0])]

    assert answered(asked, inline=inline) == [(0, [0.5]), (1, ["odd", 1.5]), (2, [1.0])]


def test_a_request_that_is_computed_in_pieces_has_its_errors_in_their_places_and_one_time(inline):
    scored = []
    records = [1.0, 2.0, 3.0, ODD, 5.0, ODD, *[7.0] * 20]

    async def main():
        batcher = Batcher(Halving(), MOST, inline, flush=lambda: None)
        for sent in ([4.0], records):
            batcher.submit(Job(sent, monotonic() + 60, HERE, scored.append, scored.append))
        async with asyncio.timeout(20):
            while len(scored) < 2:
                await asyncio.sleep(0)

    asyncio.run(main())
    job = scored[1]
    assert said(job.scored) == ["odd" if record == ODD else record / 2 for record in records]
    assert {received for _, received in job.scored.cells} == {job.received}


def test_one_record_that_the_model_raises_at_costs_the_others_nothing(inline):
    asked = [Asked([1.0]), Asked([POISON]), Asked([2.0])]

    ended = dict(answered(asked, inline=inline))

    assert (ended[0], ended[2]) == ([0.5], [1.0])
    assert isinstance(ended[1], ValueError)


def test_a_large_request_with_such_a_record_ends_once_and_is_not_computed_on(inline):
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


RECORDS = st.lists(st.sampled_from([1.0, 2.0, 3.0] * 3 + [7.5, ODD, POISON]), min_size=1, max_size=3 * MOST)
ASKED = st.builds(Asked, RECORDS, st.sampled_from([False] * 5 + [True]), st.sampled_from([HERE] * 5 + [LEFT]))


def expected(one):
    """What a request gets alone."""
    if one.connection is LEFT:
        return Gone
    if one.late:
        return Refused
    return ValueError if POISON in one.records else ["odd" if n == ODD else n / 2 for n in one.records]


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
@given(st.integers(0, 2**32 - 1), st.lists(st.integers(1, 40), min_size=1, max_size=6), st.booleans(), st.booleans())
def test_a_real_model_gives_the_bits_that_it_gives_one_by_one(predictor, seed, sizes, inline, typed):
    """Its features, risks, bands and what was missing, in whatever company a record is scored."""
    records = synthetic.draw(predictor.spec.columns, sum(sizes), seed)
    sent = [msgspec.convert(record, predictor.contract.record) for record in records] if typed else records
    ends = np.cumsum(sizes).tolist()
    jobs = {}

    async def main():
        batcher = Batcher(Scorer(predictor), predictor.spec.serving.max_batch, inline, flush=lambda: None)
        for place, (size, end) in enumerate(zip(sizes, ends, strict=True)):
            finish = partial(jobs.__setitem__, place)
            batcher.submit(Job(sent[end - size : end], monotonic() + 60, None, finish, finish))
        async with asyncio.timeout(20):
            while len(jobs) < len(sizes):
                await asyncio.sleep(0)

    asyncio.run(main())
    found = Scored.join([jobs[place].scored for place in range(len(sizes))])
    for place, record in enumerate(map(predictor.check, records)):
        X = predictor.features([record])
        (answer,) = predictor.predictions([record], predictor.risk(X))
        assert found.features[place].tobytes() == X.tobytes()
        assert (found.risks[place], found.bands[place], found.missing[place]) == (
            answer.risk,
            answer.band,
            answer.missing,
        )


def test_a_batch_in_a_thread_is_told_with_its_size_and_the_wait_of_its_first_record():
    told = []

    async def main():
        batcher = Batcher(
            Halving(), MOST, False, flush=lambda: None, formed=lambda n, waited_s: told.append((n, waited_s))
        )
        done = [asyncio.get_running_loop().create_future() for _ in range(3)]
        for future in done:
            batcher.submit(Job([1.0, 2.0], monotonic() + 60, HERE, future.set_result, future.set_exception))
        await asyncio.gather(*done)

    asyncio.run(main())
    assert [n for n, _ in told] == [4, 2]
    assert all(0 <= waited_s < 60 for _, waited_s in told)


def test_what_waits_before_a_request_is_told_by_how_long_records_took_lately(monkeypatch):
    """A tenth of a second a record. A large request stands before a small one with its next batch, not with all."""
    now = [100.0]

    class Slow(Halving):
        def alone(self, sent, received):
            now[0] += 0.1 * len(sent)
            return super().alone(sent, received)

    monkeypatch.setattr("serving.batcher.monotonic", lambda: now[0])

    async def main():
        batcher, ended = Batcher(Slow(), MOST, inline=False, flush=lambda: None), []

        def submit(*sizes):
            for size in sizes:
                batcher.submit(Job([1.0] * size, now[0] + 1000, HERE, ended.append, ended.append))

        async def all_done(count):
            while len(ended) < count:
                await asyncio.sleep(0.001)

        submit(400)
        assert not batcher.behind(1, now[0] + 0.01)  # nothing is known yet
        await all_done(1)
        assert not batcher.behind(400, now[0] + 0.01)  # nobody waits
        submit(400)
        asked = [batcher.behind(n, now[0] + allowed_s) for n, allowed_s in ((1, 1.2), (1, 0.8), (400, 150), (400, 170))]
        await all_done(2)
        submit(1, 1, 1, 4)
        asked += [batcher.behind(1, now[0] + allowed_s) for allowed_s in (1.5, 1.7)]
        await all_done(6)
        return asked

    assert asyncio.run(main()) == [False, True, True, False, True, False]


def test_while_a_slow_model_computes_another_answers():
    class Slow(Halving):
        def alone(self, sent, received):
            assert go_on.wait(60)
            return super().alone(sent, received)

    go_on, order = threading.Event(), []

    async def main():
        loop = asyncio.get_running_loop()
        slow, quick = Batcher(Slow(), MOST, False, lambda: None), Batcher(Halving(), MOST, True, lambda: None)
        slow_done, quick_done = loop.create_future(), loop.create_future()
        for batcher, future, name in ((slow, slow_done, "slow"), (quick, quick_done, "quick")):
            future.add_done_callback(lambda _, name=name: order.append(name))
            batcher.submit(Job([1.0], monotonic() + 60, HERE, future.set_result, future.set_exception))
        await asyncio.wait_for(quick_done, 30)
        assert not slow_done.done()
        # Whoever leaves, or is late, while the slow one computes is not computed after it.
        left, late = loop.create_future(), loop.create_future()
        slow.submit(Job([1.0], monotonic() + 60, LEFT, left.set_result, left.set_exception))
        slow.submit(Job([1.0], monotonic() - 1, HERE, late.set_result, late.set_exception))
        go_on.set()
        await slow_done
        return await asyncio.gather(left, late, return_exceptions=True)

    left, late = asyncio.run(main())
    assert order == ["quick", "slow"]
    assert isinstance(left, Gone) and late.code == "deadline"
