"""What was refused is counted by field and by what was wrong, in its time, and nothing else is kept of it."""

from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
import sqlalchemy as sa

from configs.errors import LedgerError
from ledger import tables
from ledger.database import at
from ledger.refusals import between, put

NINE = datetime(2026, 3, 3, 9, tzinfo=UTC)
MINUTE = timedelta(minutes=1)


def test_counts_add_up_over_their_time(engine):
    for minute, n in ((0, 3), (5, 4), (10, 50)):
        with at(NINE + minute * MINUTE):
            put(engine, {("angina", "out_of_range", "age_years"): n, ("sepsis", "out_of_range", "age_years"): 1})
    with at(NINE + 5 * MINUTE):
        put(engine, {("angina", "missing_field", "age_years"): 2, ("angina", "not_json", ""): 1})

    assert between(engine, "angina", NINE - MINUTE, NINE + 9 * MINUTE) == {
        ("missing_field", "age_years"): 2,
        ("not_json", ""): 1,
        ("out_of_range", "age_years"): 7,
    }
    assert between(engine, "sepsis", NINE - MINUTE, NINE + 6 * MINUTE) == {("out_of_range", "age_years"): 2}
    assert between(engine, "angina", NINE - MINUTE, NINE - MINUTE / 2) == {}


def test_times_that_follow_each_other_count_each_refusal_once(engine):
    for minute in range(10):
        with at(NINE + minute * MINUTE):
            put(engine, {("angina", "out_of_range", "age_years"): 1})
    cuts = [NINE + minute * MINUTE for minute in (-1, 2, 3, 8, 9)]
    counted = [between(engine, "angina", *ends) for ends in pairwise(cuts)]
    assert [sum(counts.values()) for counts in counted] == [3, 1, 5, 1]


def test_nothing_refused_writes_nothing(engine):
    put(engine, {})
    put(engine, {("angina", "out_of_range", "age_years"): 0})
    with engine.connect() as connection:
        assert connection.execute(sa.select(sa.func.count()).select_from(tables.refusals)).scalar() == 0


def test_a_ledger_that_is_away_says_so(ledger):
    with ledger.begin() as connection:
        tables.refusals.drop(connection)
    with pytest.raises(LedgerError, match="could not be written"):
        put(ledger, {("angina", "out_of_range", "age_years"): 1})
