"""What is stopped does not answer until somebody lifts it; what is retired never does again."""

import pytest
import sqlalchemy as sa

from configs.errors import LedgerError, NotOnRecordError, PromotionError
from ledger import tables
from ledger.promotions import mark
from ledger.stops import Stops, find, lift, retire, stop


def audits(engine):
    with engine.connect() as connection:
        rows = connection.execute(sa.select(tables.audit).order_by(tables.audit.c.id))
        return [(row.actor, row.action, row.detail) for row in rows]


def test_nothing_is_stopped_at_first(ledger):
    assert find(ledger, "angina") == Stops(None, {})


def test_a_stop_says_why_until_it_is_lifted(ledger):
    stop(ledger, "angina", "wrong unit in the feed", "nurse.joy")
    assert find(ledger, "angina") == Stops("wrong unit in the feed", {})

    lift(ledger, "angina", "feed mended", "nurse.joy")

    assert find(ledger, "angina") == Stops(None, {})
    assert audits(ledger) == [("nurse.joy", "stop", "angina"), ("nurse.joy", "lift", "angina")]


def test_of_two_stops_the_later_reason_counts_and_one_lift_ends_both(ledger):
    stop(ledger, "angina", "first", "nurse.joy")
    stop(ledger, "angina", "second", "dr.who")
    assert find(ledger, "angina").stopped == "second"

    lift(ledger, "angina", "fine again", "nurse.joy")
    assert find(ledger, "angina").stopped is None


def test_what_is_not_stopped_cannot_be_lifted(ledger):
    with pytest.raises(NotOnRecordError, match="angina is not stopped"):
        lift(ledger, "angina", "just in case", "nurse.joy")
    assert audits(ledger) == []


def test_each_model_has_its_own_stops(ledger):
    stop(ledger, "angina", "why", "nurse.joy")
    retire(ledger, "sepsis", 2, "old", "nurse.joy")

    assert find(ledger, "angina") == Stops("why", {})
    assert find(ledger, "sepsis") == Stops(None, {2: "old"})
    assert find(ledger, "stroke") == Stops(None, {})


def test_a_retired_version_stays_retired_whatever_is_stopped_and_lifted(ledger):
    retire(ledger, "angina", 2, "trained on the wrong table", "nurse.joy")
    stop(ledger, "angina", "meanwhile", "nurse.joy")
    lift(ledger, "angina", "over", "nurse.joy")
    retire(ledger, "angina", 4, "another", "nurse.joy")

    assert find(ledger, "angina") == Stops(None, {2: "trained on the wrong table", 4: "another"})
    assert ("nurse.joy", "retire", "angina@2") in audits(ledger)


def test_a_version_is_retired_once(ledger):
    retire(ledger, "angina", 2, "trained on the wrong table", "nurse.joy")
    with pytest.raises(PromotionError, match="angina@2 is retired, for good: trained on the wrong table"):
        retire(ledger, "angina", 2, "again", "nurse.joy")
    assert find(ledger, "angina").retired == {2: "trained on the wrong table"}


@pytest.mark.parametrize("reason", ["", "  \n"])
def test_callers_are_told_a_reason_so_there_is_one(ledger, reason):
    with pytest.raises(LedgerError, match="angina: a reason is expected"):
        stop(ledger, "angina", reason, "nurse.joy")
    with pytest.raises(LedgerError, match="angina: a reason is expected"):
        retire(ledger, "angina", 2, reason, "nurse.joy")

    assert find(ledger, "angina") == Stops(None, {})
    assert audits(ledger) == []


def test_a_running_server_sees_each_of_them_by_the_mark(ledger):
    marks = [mark(ledger)]
    for decide in (
        lambda: stop(ledger, "angina", "why", "nurse.joy"),
        lambda: lift(ledger, "angina", "why", "nurse.joy"),
        lambda: retire(ledger, "angina", 2, "why", "nurse.joy"),
    ):
        decide()
        marks.append(mark(ledger))

    assert marks == [(0, 0, 0), (0, 1, 0), (0, 2, 0), (0, 3, 0)]
