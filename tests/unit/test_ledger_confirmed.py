"""What came of the patients, once for each prediction and as it was told last: for a retraining, and to compare on."""

import json
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from configs.settings import Settings
from ledger import confirmed, outcomes, tables
from ledger.confirmed import answered as answered_by
from ledger.confirmed import count, newest_outcome, newest_request, shadowed
from ledger.database import connect, writing
from ledger.outcomes import Outcome
from ledger.predictions import Entry, keep_all, prediction_id, purge

CHAMPION, CANDIDATE = "b" * 64, "c" * 64
NINE = datetime(2026, 3, 3, 9, tzinfo=UTC)
DAY = timedelta(days=1)


def answer(engine, said):
    with writing(engine) as connection:
        ((number,),) = keep_all(connection, [Entry([said], None, lambda _: b"")])
    return number


def tell(engine, request, position, value):
    with writing(engine) as connection:
        outcomes.record(connection, Outcome(prediction_id(request, position), None, None, value, NINE + 9 * DAY))


def shadow(engine, request, risks, bundle=CANDIDATE):
    row = {
        "request": request,
        "version": 4,
        "bundle": bundle,
        "risks": np.array(risks, np.float64).tobytes(),
        "at": NINE,
    }
    with writing(engine) as connection:
        connection.execute(tables.shadows.insert().values(row))


def test_an_empty_ledger_confirms_nothing(engine):
    assert (newest_outcome(engine), newest_request(engine), count(engine, "angina", 0)) == (0, 0, 0)
    assert len(confirmed.confirmed(engine, "angina", 0).outcomes) == 0
    assert len(shadowed(engine, "angina", CANDIDATE, CHAMPION, 0, None).outcomes) == 0
    assert answered_by(engine, "angina", CHAMPION, 0, None).places == []


def test_confirmed_predictions_say_which_class_came_true_where_it_is_known(engine, answered, by_class):
    request = answer(engine, answered(4, by_class=by_class(4)))
    for position, value in enumerate(["colon", 1, 0]):
        tell(engine, request, position, value)
    tell(engine, request, 0, "lung")

    found = confirmed.confirmed(engine, "angina", newest_outcome(engine))

    assert (found.outcomes.tolist(), found.labels) == ([1, 1, 0], ["lung", None, "none"])


def test_another_class_is_news_and_the_same_one_again_is_none(engine, answered, by_class):
    request = answer(engine, answered(3, by_class=by_class(3)))
    for position, value in enumerate(["colon", "lung", 1]):
        tell(engine, request, position, value)
    since = newest_outcome(engine)
    tell(engine, request, 0, "colon")
    assert count(engine, "angina", since) == 0

    tell(engine, request, 1, "colon")
    tell(engine, request, 2, "lung")
    assert count(engine, "angina", since) == 2


def test_confirmed_predictions_of_every_version_come_in_order_with_what_was_told_last(engine, answered):
    first = answer(engine, answered(3, patients=["p", None, "q"]))
    answer(engine, answered(1, model="sepsis"))
    second = answer(engine, answered(2, bundle="c" * 64, version=4, received_at=NINE + DAY))
    tell(engine, second, 1, 1)
    tell(engine, first, 2, 1)
    tell(engine, first + 1, 0, 1)
    tell(engine, first, 0, 0)
    tell(engine, first, 2, 0)

    found = confirmed.confirmed(engine, "angina", newest_outcome(engine))

    assert found.places == [(first, 0), (first, 2), (second, 1)]
    assert_array_equal(found.outcomes, [0, 0, 1])
    assert [record["age_years"] for record in found.records] == [50, 52, 51]
    assert found.patients == ["p", "q", None]
    assert found.received == [NINE, NINE, NINE + DAY]
    assert found.bundles == [CHAMPION, CHAMPION, CANDIDATE]
    assert found.purged == 0


def test_what_was_told_after_the_cut_is_not_known(engine, answered):
    number = answer(engine, answered(3))
    for position, value in ((0, 1), (1, 0), (0, 0), (2, 1)):
        tell(engine, number, position, value)

    assert confirmed.confirmed(engine, "angina", 2).places == [(number, 0), (number, 1)]
    assert_array_equal(confirmed.confirmed(engine, "angina", 2).outcomes, [1, 0])
    assert_array_equal(confirmed.confirmed(engine, "angina", 4).outcomes, [0, 0, 1])
    assert (count(engine, "angina", 0, 2), count(engine, "angina", 0)) == (2, 3)
    assert (count(engine, "angina", 2), count(engine, "angina", 2, 3), count(engine, "sepsis", 0)) == (2, 1, 0)


def test_a_purged_record_is_counted_and_teaches_nothing(engine, answered):
    old, new = answer(engine, answered(2)), answer(engine, answered(1, received_at=NINE + DAY))
    for request, position in ((old, 0), (old, 1), (new, 0)):
        tell(engine, request, position, 1)
    purge(engine, NINE + timedelta(hours=1), "nurse.joy")

    found = confirmed.confirmed(engine, "angina", newest_outcome(engine))

    assert (found.places, found.purged) == ([(new, 0)], 2)


def test_two_versions_are_paired_on_what_both_said_after_that_request(engine, answered):
    before = answer(engine, answered(1))
    both = answered(4, seed=1)
    first = answer(engine, both)
    alone = answer(engine, answered(1))
    of_another = answer(engine, answered(1, bundle="d" * 64))
    second = answer(engine, answered(1, seed=2))
    for request, n in ((before, 1), (first, 4), (of_another, 1), (second, 1)):
        shadow(engine, request, [np.nan if row == 2 else row / 10 for row in range(n)])
        shadow(engine, request, [0.9] * n, "e" * 64)
    for request, position, value in (
        *((before, 0, 1), (second, 0, 0), (first, 2, 1), (first, 1, 0)),
        *((first, 1, 1), (alone, 0, 1), (of_another, 0, 1), (first, 0, 0)),
    ):
        tell(engine, request, position, value)

    found = shadowed(engine, "angina", CANDIDATE, CHAMPION, before, None)

    assert found.places == [(first, 0), (first, 1), (second, 0)]
    assert_array_equal(found.outcomes, [0, 1, 0])
    assert_array_equal(found.champion, [both.risks[0], both.risks[1], answered(1, seed=2).risks[0]])
    assert_array_equal(found.candidate, [0, 0.1, 0])
    assert found.refused == 1, "the candidate's contract refuses the third record"
    assert found.outcomes_to == 8
    assert [record["age_years"] for record in found.records] == [50, 51, 50]
    assert shadowed(engine, "angina", CANDIDATE, CHAMPION, before, 2).places == [(first, 0), (first, 1)]


def test_a_bundle_s_own_answers_stand_alone(engine, answered):
    said = answered(3, bundle=CANDIDATE, traffic=7)
    answer(engine, answered(2))
    number = answer(engine, said)
    for request, position in ((number, 2), (number, 0), (number - 1, 0)):
        tell(engine, request, position, 1)
    purge(engine, NINE + DAY, "nurse.joy")

    found = answered_by(engine, "angina", CANDIDATE, 0, None)

    assert found.places == [(number, 0), (number, 2)]
    assert_array_equal(found.champion, said.risks[[0, 2]])
    assert np.isnan(found.candidate).all()
    assert found.records == [None, None], "what was said and what came of it outlive the record"
    assert answered_by(engine, "angina", CANDIDATE, number, None).places == []


@pytest.fixture(scope="module")
def filled(tmp_path_factory, answered):
    """Forty predictions in twelve requests, every other one also scored by the candidate."""
    engine = connect(Settings(home=tmp_path_factory.mktemp("confirmed"), user="nurse.joy"))
    for n in (1, 2, 7, 1, 1, 9, 3, 4, 1, 5, 2, 4):
        number = answer(engine, answered(n, seed=n))
        shadow(engine, number, np.arange(n) / 10)
        if n == 9:
            shadow(engine, number, np.arange(n) / 10)  # a server that died between wrote it twice
    yield engine
    engine.dispose()


@given(st.lists(st.tuples(st.integers(0, 39), st.integers(0, 1)), max_size=60))
def test_in_whatever_order_outcomes_come_each_counts_once(filled, told):
    with filled.connect() as connection:
        sizes = connection.execute(sa.select(tables.requests.c.id, tables.requests.c.n)).all()
    places = [(number, position) for number, n in sizes for position in range(n)]
    rows = [
        {"request": places[at][0], "position": places[at][1], "value": value, "observed_at": NINE, "received_at": NINE}
        for at, value in told
    ]
    with writing(filled) as connection:
        connection.execute(tables.outcomes.delete())
        if rows:
            connection.execute(tables.outcomes.insert(), rows)
    last = {places[at]: value for at, value in told}

    found = confirmed.confirmed(filled, "angina", newest_outcome(filled))
    paired = shadowed(filled, "angina", CANDIDATE, CHAMPION, 0, None)

    assert found.places == paired.places == sorted(last)
    assert found.outcomes.tolist() == paired.outcomes.tolist() == [last[place] for place in sorted(last)]
    assert_array_equal(paired.candidate, [position / 10 for _, position in paired.places])
    assert count(filled, "angina", 0) == len(last)


def test_new_outcomes_are_counted_without_a_look_at_the_old_ones(ledger, answered):
    answer(ledger, answered(2))
    plans = []

    def explain(connection, _cursor, statement, parameters, *_):
        if statement.startswith("SELECT count"):
            plan = connection.connection.dbapi_connection.execute(f"EXPLAIN QUERY PLAN {statement}", parameters)
            plans.extend(line[3] for line in plan)

    sa.event.listen(ledger, "before_cursor_execute", explain)
    count(ledger, "angina", 7)

    assert "SEARCH outcomes USING INTEGER PRIMARY KEY (rowid>? AND rowid<?)" in plans
    assert "SEARCH requests USING INTEGER PRIMARY KEY (rowid=?)" in plans


def test_records_as_an_earlier_release_wrote_them_are_read_as_well(ledger, answered):
    number = answer(ledger, answered(2, records=json.dumps([{"age_years": 70}, {"age_years": 71}]).encode()))
    tell(ledger, number, 1, 1)
    assert confirmed.confirmed(ledger, "angina", 1).records == [{"age_years": 71, "at": NINE.isoformat()}]
