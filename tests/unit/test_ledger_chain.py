"""Whatever is done to a decision after it was taken, on either database, is found and named."""

import json
import threading
from datetime import UTC, datetime, timedelta

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from hypothesis import given
from hypothesis import strategies as st

from configs.errors import PromotionError
from configs.settings import ROOT, Settings
from ledger import chain, database, promotions, retrainings, reviews, stops, tables, traffic
from ledger.chain import BEGINNING, check, find_head, holds, link
from ledger.database import connect
from ledger.promotions import Grounds, earlier, find_champion, promote, rollback
from ledger.traffic import Lane, Target

AT = datetime(2026, 3, 3, 9, tzinfo=UTC)


def decide(engine, report_on):
    """One of every decision."""
    reviews.validated(engine, 3, report_on("3" * 64), ("dr.who",), "nurse.joy")
    promote(engine, 3, report_on("3" * 64), "nurse.joy", "first")
    reviews.review(engine, 4, report_on("4" * 64), "approved", "looks right", "dr.who")
    promote(engine, 4, report_on("4" * 64), "nurse.joy", "better")
    stops.stop(engine, "angina", "wrong unit", "nurse.joy")
    stops.lift(engine, "angina", "mended", "nurse.joy")
    traffic.set_route(engine, Lane("angina", "canary"), Target(3, "3" * 64, 0.1), "a tenth", "nurse.joy")
    reviews.review(engine, 5, report_on("5" * 64), "rejected", "alarms too often", "dr.who")
    present = find_champion(engine, "angina")
    rollback(engine, present, earlier(engine, present)[0], "dr.who", "alarms")
    retrainings.put(engine, retrainings.first("angina", None, "calibration, twice in a row", {"n": 500}, "nurse.joy"))


def by_hand(engine, statement):
    with engine.begin() as connection:
        connection.execute(statement)


def test_a_chain_of_every_decision_holds(engine, report_on):
    assert find_head(engine) == chain.Head(0, BEGINNING)
    decide(engine, report_on)

    found = check(engine)
    assert (found.problems, found.notes) == ((), ())
    assert found.length == 11, "the rollback ended the canary as well"
    assert holds(engine, find_head(engine))


@pytest.mark.parametrize(
    ("table", "row", "field", "value", "about"),
    [
        ("promotions", 2, "reason", "because", "angina@4"),
        ("promotions", 2, "version", 9, "angina@4"),
        ("promotions", 2, "evidence", "{}", "angina@4"),
        ("promotions", 3, "action", "promote", "angina@3"),
        ("reviews", 3, "verdict", "approved", "angina@5"),
        ("reviews", 1, "trained_by", None, "angina@3"),
        ("stops", 2, "stopped", 1, "angina"),
        ("traffic", 1, "share", 0.9, "angina@3"),
        ("stops", 1, "at", AT, "angina"),
    ],
)
def test_an_edited_row_is_named_with_its_field(engine, report_on, table, row, field, value, about):
    decide(engine, report_on)
    edited = tables.metadata.tables[table]
    by_hand(engine, edited.update().where(edited.c.id == row).values({field: value}))

    assert check(engine).problems == (f"{table}: row {row} ({about}) was edited: {field}",)


def test_a_removed_row_is_named(engine, report_on):
    decide(engine, report_on)
    by_hand(engine, tables.reviews.delete().where(tables.reviews.c.id == 3))
    assert check(engine).problems == ("reviews: row 3 (angina@5) was removed",)


def test_a_removed_row_s_number_is_not_given_again_and_the_next_decision_is_taken(engine, report_on):
    decide(engine, report_on)
    by_hand(engine, tables.promotions.delete().where(tables.promotions.c.id == 3))

    promote(engine, 6, report_on("6" * 64), "nurse.joy", "next")

    assert check(engine).problems == ("promotions: row 3 (angina@3) was removed",)


def test_an_added_row_is_named(engine, report_on):
    decide(engine, report_on)
    row = {"id": 17, "model": "angina", "version": 4, "stopped": 0, "at": AT, "actor": "x", "reason": "x"}
    by_hand(engine, tables.stops.insert().values(row))
    assert check(engine).problems == ("stops: row 17 (angina@4) was added: no link of the chain is about it",)


def test_two_rows_that_changed_places_are_named(engine, report_on):
    decide(engine, report_on)
    t = tables.promotions
    for row, other in ((1, 100), (2, 1), (100, 2)):
        by_hand(engine, t.update().where(t.c.id == row).values(id=other))

    assert check(engine).problems == (
        "promotions: row 1 (angina@3) was moved: it holds what was decided as row 2 (angina@4)",
        "promotions: row 2 (angina@4) was moved: it holds what was decided as row 1 (angina@3)",
    )


def test_a_row_removed_with_its_link_leaves_a_gap(engine, report_on):
    decide(engine, report_on)
    by_hand(engine, tables.reviews.delete().where(tables.reviews.c.id == 2))
    by_hand(engine, tables.chain.delete().where(tables.chain.c.id == 3))

    assert check(engine).problems == ("chain: link 3 is missing before link 4 (promotions row 2, angina@4)",)


def test_a_link_made_again_for_an_edited_row_does_not_hold_the_rest(engine, report_on):
    decide(engine, report_on)
    t, c = tables.promotions, tables.chain.c
    by_hand(engine, t.update().where(t.c.id == 2).values(reason="because"))
    with engine.begin() as connection:
        before = connection.execute(sa.select(tables.chain).where(c.id == 4)).one()
        row = connection.execute(sa.select(t).where(t.c.id == 2)).one()
        forged = link(4, before.previous, "promotions", row._mapping)
        connection.execute(tables.chain.update().where(c.id == 4).values(forged))

    (problem,) = check(engine).problems
    assert problem.startswith("chain: link 5 (stops row 1, angina) does not follow the link before it")


def test_a_cut_tail_does_not_hold_the_head_that_somebody_kept(engine, report_on):
    decide(engine, report_on)
    kept = find_head(engine)
    by_hand(engine, tables.chain.delete().where(tables.chain.c.id >= 9))
    by_hand(engine, tables.promotions.delete().where(tables.promotions.c.id == 3))
    by_hand(engine, tables.traffic.delete().where(tables.traffic.c.id == 2))
    by_hand(engine, tables.retrainings.delete())

    assert check(engine).problems == ()
    assert not holds(engine, kept)


@pytest.fixture(scope="module")
def decided(tmp_path_factory, report_on):
    engine = connect(Settings(home=tmp_path_factory.mktemp("decided"), user="nurse.joy"))
    decide(engine, report_on)
    yield engine
    engine.dispose()


CELLS = st.one_of(st.integers(0, 99), st.text(max_size=5), st.none())


@given(st.data())
def test_whatever_cell_is_written_over_is_found(decided, data):
    table = data.draw(st.sampled_from([*chain.KINDS.values(), tables.chain]))
    column = data.draw(st.sampled_from([column for column in table.c if not isinstance(column.type, sa.DateTime)]))
    with decided.connect() as connection:
        connection.exec_driver_sql("PRAGMA ignore_check_constraints = ON")
        rows = connection.execute(sa.select(table)).all()
        row = data.draw(st.sampled_from(rows))
        before = getattr(row, column.name)
        value = data.draw(CELLS)
        connection.rollback()
        if value is None and not column.nullable:
            return
        quoted = f'UPDATE {table.name} SET "{column.name}" = ? WHERE id = ?'
        try:
            connection.exec_driver_sql(quoted, (value, row.id))
        except sa.exc.IntegrityError:  # a number twice
            connection.rollback()
            return
        connection.commit()
        after = connection.execute(sa.select(table.c[column.name]).where(table.c.id == row.id)).scalar()
        moved = column.name == "id" and value != row.id
        connection.rollback()
        problems = check(decided).problems
        back = value if column.name == "id" else row.id
        connection.exec_driver_sql(quoted, (before, back))
        connection.commit()
    assert bool(problems) == (moved or after != before), (table.name, column.name, before, value)
    assert check(decided).problems == ()


# --- the clock, and two at once


def test_a_clock_that_was_set_back_is_told_and_nothing_is_lost(engine, report_on, monkeypatch):
    promote(engine, 3, report_on("3" * 64), "nurse.joy", "first")
    early = datetime.now(UTC) - timedelta(days=1)
    for module in (promotions, stops):
        monkeypatch.setattr(module, "now", lambda: early)
    promote(engine, 4, report_on("4" * 64), "nurse.joy", "later, by an earlier clock")

    assert find_champion(engine, "angina").version == 4
    found = check(engine)
    assert found.problems == ()
    (note,) = found.notes
    assert note.startswith("chain: at link 2 (promotions row 2, angina@4) the clock ran backwards")
    assert [decision.backwards for decision in chain.decisions(engine, "angina")] == [False, True]


def test_of_two_promotions_at_once_one_wins_and_the_other_is_told(engine, report_on):
    promote(engine, 2, report_on("2" * 64), "nurse.joy", "first")
    seen, said, ready = find_champion(engine, "angina"), [], threading.Barrier(2)

    def one(version):
        ready.wait(10)
        try:
            promote(engine, version, report_on(str(version) * 64), "nurse.joy", "mine", Grounds(seen))
            said.append(version)
        except PromotionError as exc:
            said.append(str(exc))

    threads = [threading.Thread(target=one, args=(version,)) for version in (3, 4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)

    (won,) = [one for one in said if isinstance(one, int)]
    (lost,) = [one for one in said if isinstance(one, str)]
    assert f"another was promoted meanwhile (angina@{won}, by nurse.joy); nothing was changed" in lost
    assert find_champion(engine, "angina").version == won
    assert check(engine).problems == ()
    assert find_head(engine).length == 2


def test_many_decisions_at_once_make_one_chain(engine, report_on):
    def some(version):
        for _ in range(4):
            stops.stop(engine, "angina", f"by {version}", "nurse.joy")
            reviews.review(engine, version, report_on("b" * 64), "approved", "fine", "nurse.joy")

    threads = [threading.Thread(target=some, args=(version,)) for version in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)

    assert find_head(engine).length == 32
    assert check(engine).problems == check(engine).notes == ()


# --- earlier ledgers


def test_a_ledger_of_the_release_before_is_chained_in_the_order_of_time(machine):
    engine = sa.create_engine(machine.ledger_url)
    config = Config()
    config.set_main_option("script_location", str(ROOT / "ledger" / "migrations"))
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0002")
    known = sa.MetaData()
    known.reflect(engine)
    who = {"model": "angina", "actor": "nurse.joy", "reason": "x"}
    with engine.begin() as connection:
        for version, minute, action in ((3, 1, "promote"), (4, 4, "promote"), (3, 6, "rollback")):
            at = AT + timedelta(minutes=minute, microseconds=7)
            row = {**who, "version": version, "bundle": str(version) * 64, "at": at, "report": "{}"}
            connection.execute(known.tables["promotions"].insert().values(row))
            detail = f"angina@{version} {str(version) * 64}"
            note = {"at": at, "actor": "nurse.joy", "action": action, "detail": detail}
            connection.execute(known.tables["audit"].insert().values(note))
        stopped = {**who, "version": None, "stopped": 1, "at": AT + timedelta(minutes=2)}
        connection.execute(known.tables["stops"].insert().values(stopped))
        route = {**who, "kind": "canary", "version": 4, "bundle": "4" * 64, "share": 0.1}
        connection.execute(known.tables["traffic"].insert().values({**route, "at": AT + timedelta(minutes=3)}))
    engine.dispose()

    engine = connect(machine)

    assert check(engine) == chain.Checked(5, (), ())
    found = chain.decisions(engine, "angina")
    assert [decision.kind for decision in found] == ["promotions", "stops", "traffic", "promotions", "promotions"]
    rows = [decision.fields["action"] for decision in found if decision.kind == "promotions"]
    assert rows == ["promote", "promote", "rollback"]
    stops.lift(engine, "angina", "mended", "nurse.joy")
    assert (check(engine).length, check(engine).problems) == (6, ())
    engine.dispose()


def test_a_restored_ledger_s_chain_holds_and_goes_on(ledger, home, report_on, tmp_path):
    promote(ledger, 3, report_on("3" * 64), "nurse.joy", "first")
    database.backup(home, tmp_path / "kept.db")
    promote(ledger, 4, report_on("4" * 64), "nurse.joy", "lost by the restore")
    lost = find_head(ledger)
    ledger.dispose()
    database.restore(home, tmp_path / "kept.db")

    engine = connect(home)
    stops.stop(engine, "angina", "why", "nurse.joy")

    assert check(engine).problems == ()
    assert not holds(engine, lost)
    engine.dispose()


def test_a_link_holds_no_word_of_what_was_decided(engine, report_on):
    decide(engine, report_on)
    with engine.connect() as connection:
        contents = connection.execute(sa.select(tables.chain.c.content)).scalars().all()
    assert all(len(value) == 64 for content in contents for value in json.loads(content).values())
