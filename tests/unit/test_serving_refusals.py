"""Records that broke the contract go on record as counts: which field, and how, once each, and never a value."""

import asyncio
import json
from contextlib import contextmanager
from datetime import timedelta
from time import monotonic

import pytest
import sqlalchemy as sa

from configs.errors import LedgerError, RecordError
from features.synthetic import draw
from ledger import refusals, tables
from ledger.database import now
from ledger.promotions import promote
from serving.bodies import JSON
from serving.refusals import Refused, Tally
from serving.runtime import POLL_S, Counters, Runtime

OWN_TEXT = "Jane Doe born 1961"
FIELDS = ("age_years", "pain")
YOUNG = {"age_years": 7}


@pytest.fixture
def served(ledger, home, stored, report_on):
    """A machine whose angina has a champion."""
    promote(ledger, 1, report_on(stored.digest), "nurse.joy", "first")
    return home


@pytest.fixture
def record(predictor):
    (drawn,) = draw(predictor.spec.columns, 1, seed=3)
    return {**drawn, "age_years": 61, "pain": "rest"}


@pytest.fixture
def worker(served):
    """`worker(story)`: what the coroutine `story(runtime, ask)` returns while a worker runs; it is closed then."""

    def run(story):
        async def main():
            runtime = Runtime(served, ["angina"], Counters(*[lambda *_: None] * 4))
            runtime.open()

            async def ask(*records, key=None, until=None):
                body = json.dumps({"records": records}).encode()
                return await runtime.predict("angina", body, JSON, key, None, until or monotonic() + 60, None)

            try:
                return await story(runtime, ask)
            finally:
                await runtime.close()

        return asyncio.run(main())

    return run


def counted(engine):
    """All that is on record, added up."""
    minute = timedelta(minutes=1)
    return dict(refusals.between(engine, "angina", now() - minute, now() + minute))


@contextmanager
def away(engine):
    """The ledger takes no refusal."""
    with engine.begin() as connection:
        connection.exec_driver_sql("ALTER TABLE refusals RENAME TO elsewhere")
    yield
    with engine.begin() as connection:
        connection.exec_driver_sql("ALTER TABLE elsewhere RENAME TO refusals")


def test_what_breaks_the_contract_is_on_record_within_two_polls(worker, ledger, record):
    async def story(runtime, ask):
        bad = [{**record, "age_years": age} for age in (7, 121, 300)] + [{**record, "pain": OWN_TEXT}] * 2
        await ask(*bad[:2], record)
        with pytest.raises(Refused):
            await ask(*bad[2:])
        await asyncio.sleep(2 * POLL_S)
        return counted(ledger)

    assert worker(story) == {("out_of_range", "age_years"): 3, ("unknown_category", "pain"): 2}


def test_no_value_and_no_text_of_a_caller_is_kept(worker, ledger, record):
    async def story(runtime, ask):
        await ask(record, {**record, OWN_TEXT: 1}, {**record, "at": OWN_TEXT}, {**record, "patient": 7}, OWN_TEXT)

    worker(story)

    assert counted(ledger) == {("unknown_field", ""): 1, ("malformed", ""): 3}
    with ledger.connect() as connection:
        assert "Jane" not in str(connection.execute(sa.select(tables.refusals)).all())


def test_the_same_answer_given_again_and_a_request_without_one_count_nothing(worker, ledger, record, monkeypatch):
    async def story(runtime, ask):
        for _ in range(3):
            await ask(record, {**record, **YOUNG}, key="k")
        monkeypatch.setattr(runtime, "_keep", lambda call, until: call.fail(LedgerError("away")))
        with pytest.raises(LedgerError):
            await ask(record, {**record, **YOUNG})
        with pytest.raises(Refused, match="deadline"):
            await ask(record, {**record, **YOUNG}, until=monotonic() - 1)

    worker(story)

    assert counted(ledger) == {("out_of_range", "age_years"): 1}


def test_a_ledger_that_is_away_costs_no_answer_and_no_count(worker, ledger, record):
    async def story(runtime, ask):
        with away(ledger):
            await ask(record, {**record, **YOUNG})
            await asyncio.sleep(2 * POLL_S)
            await ask(record, {**record, **YOUNG})
        await asyncio.sleep(2 * POLL_S)
        return counted(ledger)

    assert worker(story) == {("out_of_range", "age_years"): 2}


def test_what_came_last_is_on_record_when_the_worker_has_closed(worker, ledger, record):
    async def story(runtime, ask):
        await ask(record, {**record, **YOUNG})

    worker(story)

    assert counted(ledger) == {("out_of_range", "age_years"): 1}


def test_counts_that_could_not_be_put_on_record_wait_and_are_put_once(engine):
    tally = Tally()
    young, other = RecordError("out_of_range", "age_years", ""), RecordError("unknown_category", "pain", "")
    tally.add("angina", [young, young, other], FIELDS)
    with away(engine), pytest.raises(LedgerError):
        tally.put(engine)
    tally.add("angina", [young], FIELDS)

    tally.put(engine)
    tally.put(engine)

    assert counted(engine) == {("out_of_range", "age_years"): 3, ("unknown_category", "pain"): 1}


def test_whichever_event_was_wrong_it_counts_as_one_of_the_events(ledger):
    tally = Tally()
    errors = [RecordError("unit", f"events[{place}].unit", "") for place in (0, 7)]
    tally.add("sepsis", [*errors, RecordError("malformed", "events", "")], ("age_years", "events"))
    tally.add("angina", errors, FIELDS)  # a model that reads none: what a caller calls a field is his own text
    tally.put(ledger)

    with ledger.connect() as connection:
        rows = connection.execute(sa.select(tables.refusals)).all()
    assert {(row.model, row.code, row.field, row.n) for row in rows} == {
        ("sepsis", "unit", "events", 2),
        ("sepsis", "malformed", "events", 1),
        ("angina", "unit", "", 2),
    }
