"""Every prediction is judged in one window and no other, whenever it comes, and with the outcome that counts."""

from datetime import UTC, datetime, timedelta
from itertools import count

import numpy as np
import pytest
import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from configs.settings import Settings
from evidence.report import Finding, Report
from ledger import outcomes, predictions, tables
from ledger.database import at, connect, writing
from ledger.outcomes import Outcome
from ledger.predictions import Entry, keep_all, purge, reserve
from ledger.windows import due, judged, keep, open_block, read, stale

BUNDLE = "b" * 64
NINE = datetime(2026, 3, 3, 9, tzinfo=UTC)
DAY = timedelta(days=1)


def answer(engine, *said):
    """Put requests on record, in one transaction; their numbers."""
    with writing(engine) as connection:
        return [numbers[0] for numbers in keep_all(connection, [Entry([each], None, lambda _: b"") for each in said])]


def tell(engine, place, value):
    with writing(engine) as connection:
        outcomes.record(connection, Outcome(predictions.prediction_id(*place), None, None, value, NINE + 9 * DAY))


def report(window, bundle=BUNDLE):
    """What was seen, as a report that changes with it."""
    known = window.outcomes[np.isfinite(window.outcomes)]
    seen = f"{len(window)} predictions, {len(known)} outcomes, {known.sum():g} events"
    return Report("angina", "monitoring", bundle, seen, (Finding("MW001", "x", "passed", 0.5, None, seen),), {"n": 3})


def monitor(engine, size, most=20, bundle=BUNDLE):
    """What a run of the monitor does; how many predictions it passed over."""
    blocks, passed = due(engine, "angina", 3, bundle, size, most)
    for block in [*blocks, *(late.block for late in stale(engine, judged(engine, "angina", bundle)))]:
        window, outcomes_to = read(engine, block)
        keep(engine, block, window, outcomes_to, report(window, bundle))
    return passed


def windows_of(engine, bundle=BUNDLE, size=5):
    """Every window's places, and those of the open one."""
    closed = [read(engine, one.block)[0].places for one in judged(engine, "angina", bundle)]
    rest = open_block(engine, "angina", 3, bundle, size)
    return closed, read(engine, rest)[0].places if rest else []


# --- either database


def test_a_ledger_without_predictions_has_no_windows(engine):
    assert due(engine, "angina", 3, BUNDLE, 5, 20) == ([], 0)
    assert open_block(engine, "angina", 3, BUNDLE, 5) is None
    assert judged(engine, "angina", BUNDLE) == []
    assert stale(engine, []) == []


def test_full_blocks_are_judged_once_in_the_order_of_their_numbers(engine, answered):
    answer(engine, answered(3), answered(4, model="sepsis"), answered(9), answered(2, bundle="c" * 64), answered(1))

    assert monitor(engine, 5) == 0

    first, second = judged(engine, "angina", BUNDLE)
    assert (first.block.number, first.block.last, first.block.n) == (1, (3, 1), 5)
    assert (second.block.number, second.block.first, second.block.last) == (2, (3, 2), (3, 6))
    assert windows_of(engine) == (
        [[(1, 0), (1, 1), (1, 2), (3, 0), (3, 1)], [(3, 2), (3, 3), (3, 4), (3, 5), (3, 6)]],
        [(3, 7), (3, 8), (5, 0)],
    )
    assert due(engine, "angina", 3, BUNDLE, 5, 20) == ([], 0)
    answer(engine, answered(2))
    ((third,), _) = due(engine, "angina", 3, BUNDLE, 5, 20)
    assert (third.number, third.first, third.last) == (3, (3, 7), (6, 1))


def test_what_is_read_is_what_was_said(engine, answered):
    said = answered(
        6,
        records=[{"age_years": 50, "at": "2026-03-01T08:00:00+00:00"}, *({"age_years": 51 + row} for row in range(5))],
    )
    answer(engine, said)
    for place, value in (((1, 1), 0), ((1, 2), 1), ((1, 5), 1), ((1, 1), 1)):
        tell(engine, place, value)

    ((block,), _) = due(engine, "angina", 3, BUNDLE, 4, 20)
    window, outcomes_to = read(engine, block)

    assert [record["age_years"] for record in window.records] == [50, 51, 52, 53]
    assert_array_equal(window.features, said.features[:4])
    assert_array_equal(window.risks, said.risks[:4])
    assert_array_equal(window.outcomes, [np.nan, 1, 1, np.nan])
    assert window.bands == said.bands[:4]
    assert_array_equal(window.received, [NINE.timestamp()] * 4)
    assert_array_equal(window.at - NINE.timestamp(), [-2 * 86400 - 3600, 0, 0, 0])
    assert outcomes_to == 4, "the third outcome is of the next block"


def test_a_judgement_is_kept_once_and_again_when_it_says_more(engine, answered):
    answer(engine, answered(5))
    ((block,), _) = due(engine, "angina", 3, BUNDLE, 5, 20)
    window, outcomes_to = read(engine, block)

    kept = [keep(engine, block, window, outcomes_to, report(window), "nurse.joy") for _ in range(2)]
    assert kept[0] == kept[1] == judged(engine, "angina", BUNDLE)[0]
    assert (kept[0].outcomes, kept[0].outcomes_to, kept[0].report) == (0, 0, report(window))
    assert stale(engine, kept[:1]) == []

    tell(engine, (1, 2), 1)
    assert stale(engine, kept[:1]) == kept[:1]
    window, outcomes_to = read(engine, block)
    again = keep(engine, block, window, outcomes_to, report(window), "nurse.joy")

    assert (again.outcomes, again.outcomes_to) == (1, 1)
    assert judged(engine, "angina", BUNDLE) == [again]
    with engine.connect() as connection:
        assert connection.execute(sa.select(sa.func.count()).select_from(tables.windows)).scalar() == 2
        assert connection.execute(sa.select(tables.audit.c.detail)).scalars().all() == [
            "angina@3: window 1, 0 of 5 outcomes",
            "angina@3: window 1, 1 of 5 outcomes",
        ]


def test_only_the_newest_windows_are_looked_at_again(engine, answered):
    answer(engine, answered(30))
    monitor(engine, 5)

    assert [one.block.number for one in judged(engine, "angina", BUNDLE, 2)] == [5, 6]


def test_of_many_predictions_the_newest_windows_are_judged_and_the_rest_is_counted(engine, answered):
    answer(engine, *(answered(n) for n in (7, 1, 1, 9, 4, 12)))

    assert monitor(engine, 5, most=2) == 20

    closed, rest = windows_of(engine)
    assert [len(places) for places in closed] == [5, 5]
    assert [place for places in closed for place in places] + rest == [
        *((5, position) for position in (2, 3)),
        *((6, position) for position in range(12)),
    ]
    assert [one.block.number for one in judged(engine, "angina", BUNDLE)] == [1, 2]


def test_only_a_first_look_passes_over_and_a_later_one_leaves_the_rest(engine, answered):
    answer(engine, answered(7))
    monitor(engine, 5, most=2)
    answer(engine, answered(25))

    blocks, passed = due(engine, "angina", 3, BUNDLE, 5, 2, 3)

    assert ([block.number for block in blocks], blocks[0].first, passed) == ([2, 3, 4], (1, 5), 0)


def test_the_open_window_is_no_larger_than_a_full_one(engine, answered):
    answer(engine, answered(7), answered(2))

    block = open_block(engine, "angina", 3, BUNDLE, 5)

    assert (block.n, read(engine, block)[0].places) == (5, [(1, 4), (1, 5), (1, 6), (2, 0), (2, 1)])


def test_a_champion_that_comes_back_goes_on_where_it_was(engine, answered):
    answer(engine, answered(6), answered(8, bundle="c" * 64, version=4))
    monitor(engine, 5)
    monitor(engine, 5, bundle="c" * 64)
    answer(engine, answered(4))
    monitor(engine, 5)

    assert [one.block.number for one in judged(engine, "angina", BUNDLE)] == [1, 2]
    assert windows_of(engine)[0][1] == [(1, 5), (3, 0), (3, 1), (3, 2), (3, 3)]


def test_a_clock_that_was_set_back_changes_no_window(engine, answered):
    times = [NINE, NINE - 300 * DAY, NINE + DAY, NINE - DAY]
    answer(engine, *(answered(3, received_at=time) for time in times))
    with at(NINE - 900 * DAY):
        monitor(engine, 5)

    first, second = judged(engine, "angina", BUNDLE)
    assert windows_of(engine)[0] == [
        [(1, 0), (1, 1), (1, 2), (2, 0), (2, 1)],
        [(2, 2), (3, 0), (3, 1), (3, 2), (4, 0)],
    ]
    assert (first.begins_at, first.ends_at) == (NINE - 300 * DAY, NINE)
    assert (second.begins_at, second.ends_at) == (NINE - 300 * DAY, NINE + DAY)
    assert first.judged_at == NINE - 900 * DAY


def test_a_prediction_that_comes_late_on_record_belongs_to_the_window_of_its_number(engine, answered):
    """Its number was drawn before: its answer left while the ledger was away."""
    with writing(engine) as connection:
        (mine,) = reserve(connection, 1)
    answer(engine, answered(4), answered(3))
    monitor(engine, 5)
    with writing(engine) as connection:
        keep_all(connection, [Entry([answered(2)], None, lambda _: b"", [mine])])

    monitor(engine, 5)

    (one,) = judged(engine, "angina", BUNDLE)
    assert one.block.n == 7
    assert windows_of(engine)[0] == [[(mine, 0), (mine, 1), *((2, row) for row in range(4)), (3, 0)]]
    assert stale(engine, [one]) == []


def test_purged_predictions_are_counted_and_their_window_is_not_judged_again(engine, answered):
    answer(engine, answered(3), answered(4, received_at=NINE + DAY), answered(3, received_at=NINE + 2 * DAY))
    purge(engine, NINE + timedelta(hours=1), "nurse.joy")

    blocks, _ = due(engine, "angina", 3, BUNDLE, 5, 20)
    window, _ = read(engine, blocks[0])
    assert (len(window), window.purged, window.places) == (2, 3, [(2, 0), (2, 1)])
    monitor(engine, 5)
    assert [one.block.n for one in judged(engine, "angina", BUNDLE)] == [5, 5]

    for place in ((1, 0), (2, 1), (3, 2)):
        tell(engine, place, 1)
    assert [one.block.number for one in stale(engine, judged(engine, "angina", BUNDLE))] == [2]


def test_a_window_whose_every_record_was_purged_is_judged_empty(engine, answered):
    answer(engine, answered(5))
    purge(engine, NINE + DAY, "nurse.joy")

    monitor(engine, 5)

    (one,) = judged(engine, "angina", BUNDLE)
    assert (one.block.n, one.outcomes, one.begins_at, one.ends_at) == (5, 0, NINE, NINE)
    assert one.report.data.startswith("0 predictions")


# --- whatever happens, in whatever order


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    engine = connect(Settings(home=tmp_path_factory.mktemp("windows"), user="nurse.joy"))
    yield engine
    engine.dispose()


FRESH = count()
SIZES = st.integers(1, 9)
HAPPENINGS = st.lists(
    st.one_of(
        st.tuples(st.just("answer"), st.integers(1, 13)),
        st.tuples(st.just("another"), st.integers(1, 3)),
        st.tuples(st.just("reserve"), st.integers(1, 4)),
        st.tuples(st.just("late"), st.integers(0, 3)),
        st.tuples(st.just("outcome"), st.tuples(st.integers(0, 500), st.integers(0, 1))),
        st.tuples(st.just("monitor"), st.none()),
    ),
    max_size=25,
)


@given(SIZES, HAPPENINGS)
def test_every_prediction_is_in_one_window_with_its_last_outcome(shared, answered, size, happenings):
    bundle = f"{next(FRESH):064d}"
    numbers, said, last = [], [], {}

    def happen(what, value):
        if what == "answer":
            (number,) = answer(shared, answered(value, bundle=bundle))
            said.extend((number, position) for position in range(value))
        elif what == "another":
            answer(shared, answered(value, bundle="c" * 64))
        elif what == "reserve":
            with writing(shared) as connection:
                numbers.append((reserve(connection, 1)[0], value))
        elif what == "late" and numbers:
            number, n = numbers.pop(value % len(numbers))
            with writing(shared) as connection:
                keep_all(connection, [Entry([answered(n, bundle=bundle)], None, lambda _: b"", [number])])
            said.extend((number, position) for position in range(n))
        elif what == "outcome" and said:
            place = said[value[0] % len(said)]
            tell(shared, place, value[1])
            last[place] = value[1]
        elif what == "monitor":
            monitor(shared, size, most=10_000, bundle=bundle)

    for happening in [*happenings, ("monitor", None)]:
        happen(*happening)

    closed, rest = windows_of(shared, bundle, size)
    assert [place for places in closed for place in places] + rest == sorted(said)
    assert all(len(places) >= size for places in closed)
    assert len(rest) < size
    found = judged(shared, "angina", bundle)
    assert [one.block.number for one in found] == list(range(1, len(closed) + 1))
    assert stale(shared, found) == []
    for one, places in zip(found, closed, strict=True):
        window, _ = read(shared, one.block)
        assert_array_equal(window.outcomes, [last.get(place, np.nan) for place in places])
        assert one.outcomes == sum(place in last for place in places)
        assert one.report == report(window, bundle)


@given(st.lists(st.integers(1, 13), min_size=1, max_size=15), SIZES, st.integers(1, 3))
def test_what_is_passed_over_and_what_is_judged_and_what_is_open_are_all(shared, answered, requests, size, most):
    bundle = f"{next(FRESH):064d}"
    numbers = answer(shared, *(answered(n, bundle=bundle) for n in requests))
    said = [(number, position) for number, n in zip(numbers, requests, strict=True) for position in range(n)]

    passed = monitor(shared, size, most, bundle)

    closed, rest = windows_of(shared, bundle, size)
    assert [place for places in closed for place in places] + rest == said[passed:]
    assert len(closed) == min(most, len(said) // size)
    assert all(len(places) == size for places in closed)
    assert len(rest) == len(said) % size


@given(st.permutations([(row, value) for row in range(4) for value in (0, 1)]))
def test_an_outcome_that_is_told_again_stays_on_record_and_the_later_one_counts(shared, answered, told):
    bundle = f"{next(FRESH):064d}"
    (number,) = answer(shared, answered(4, bundle=bundle))
    for position, value in [*told, told[-1]]:
        tell(shared, (number, position), value)

    ((block,), _) = due(shared, "angina", 3, bundle, 4, 20)
    window, outcomes_to = read(shared, block)

    later = dict(told)
    assert_array_equal(window.outcomes, [later[position] for position in range(4)])
    t = tables.outcomes
    with shared.connect() as connection:
        rows = connection.execute(sa.select(t).where(t.c.request == number).order_by(t.c.id)).all()
    assert [(row.position, row.value) for row in rows] == [*told, told[-1]]
    assert outcomes_to == rows[-1].id


# --- a ledger of any size


def test_a_window_is_read_without_a_look_at_the_rest_of_the_ledger(ledger, answered):
    answer(ledger, *(answered(3) for _ in range(6)))
    tell(ledger, (2, 1), 1)
    monitor(ledger, 5)
    plans = []

    def explain(connection, _cursor, statement, parameters, *_):
        if statement.startswith("SELECT"):
            plan = connection.connection.dbapi_connection.execute(f"EXPLAIN QUERY PLAN {statement}", parameters)
            plans.extend(line[3] for line in plan)

    sa.event.listen(ledger, "before_cursor_execute", explain)
    due(ledger, "angina", 3, BUNDLE, 5, 20)
    found = judged(ledger, "angina", BUNDLE)
    stale(ledger, found)
    read(ledger, found[0].block)
    open_block(ledger, "angina", 3, BUNDLE, 5)

    of_requests = {plan for plan in plans if "requests" in plan}
    assert of_requests
    assert all("requests_by_bundle (model=? AND bundle=?" in plan for plan in of_requests), of_requests
    assert not [
        plan for plan in plans if plan.startswith("SCAN") and any(name in plan for name in tables.metadata.tables)
    ]
