"""What many callers put on record at once is there, once, in few transactions; who waits too long is told so."""

import stat
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass

import pytest
import sqlalchemy as sa

from configs.errors import LedgerError, RecordError
from configs.settings import Settings
from ledger import tables, writer
from ledger.database import backup, connect
from ledger.predictions import Entry, find, idempotency
from ledger.spool import Spool
from ledger.writer import NUMBERS_IN_HAND, Ticket, Writer

PATIENTLY_S = 20.0
SHORTLY_S = 0.1


@dataclass
class Desk:
    """A writer, and what it settles."""

    writer: Writer
    spool: Spool

    def put(self, *entries: Entry, within_s: float = PATIENTLY_S, spool: bool = False) -> list[Future]:
        """Hand these over; a future for what becomes of each. It can be settled once."""
        futures = [Future() for _ in entries]
        until = time.monotonic() + within_s
        tickets = [
            Ticket(entry, until, spool, future.set_result) for entry, future in zip(entries, futures, strict=True)
        ]
        self.writer.submit(tickets)
        return futures

    def kept(self, *entries: Entry, **options: object) -> list:
        return results(self.put(*entries, **options))


def results(futures):
    return [future.result(timeout=30) for future in futures]


@pytest.fixture
def open_desk(engine, machine, monkeypatch):
    """`open_desk(ahead)`: a writer on this machine's ledger, which is closed at the end."""
    monkeypatch.setattr(writer, "PROBE_S", 0.05)
    desks = []

    def start(ahead: bool = False) -> Desk:
        spool = Spool(machine.home / "spool")
        desks.append(Desk(Writer(engine, spool, deliver, ahead), spool))
        return desks[-1]

    yield start
    for desk in desks:
        desk.writer.close()


def deliver(settled):
    for ticket, kept in settled:
        ticket.settle(kept)


@pytest.fixture
def desk(open_desk: Callable[..., Desk]) -> Desk:
    return open_desk()


@pytest.fixture
def entry(answered):
    """`entry(seed, key, …)`: a request of one record."""

    def make(seed: int = 0, key: str | None = None, body: bytes = b"body", **changed: object) -> Entry:
        keyed = idempotency(key, body) if key else None
        return Entry([answered(1, seed=seed, **changed)], keyed, lambda numbers: str(numbers).encode())

    return make


def on_record(engine):
    """The number and the risk of every request on record, in the order of their numbers."""
    t = tables.requests
    with engine.connect() as connection:
        return [(row.id, row.risks) for row in connection.execute(sa.select(t.c.id, t.c.risks).order_by(t.c.id))]


@contextmanager
def counting_commits(engine):
    commits = []

    def count(connection):
        commits.append(connection)

    sa.event.listen(engine, "commit", count)
    yield commits
    sa.event.remove(engine, "commit", count)


@contextmanager
def away(machine: Settings, engine: sa.Engine):
    """The ledger does not answer: its file is somewhere else, or its server lets nobody in."""
    if engine.dialect.name == "sqlite":
        names = [path.name for path in machine.home.glob("ledger.db*") if path.name[-4:] not in ("next", "-now")]
        (machine.home / "elsewhere").mkdir()
        for name in names:
            (machine.home / name).rename(machine.home / "elsewhere" / name)
        yield
        for path in machine.home.glob("ledger.db*"):  # what was made anew in its place
            if path.name[-4:] not in ("next", "-now"):
                path.unlink()
        for name in names:
            (machine.home / "elsewhere" / name).rename(machine.home / name)
    else:
        admin = sa.create_engine(engine.url.set(database="postgres"), isolation_level="AUTOCOMMIT")
        name = engine.url.database
        with admin.connect() as connection:
            connection.exec_driver_sql(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
            connection.exec_driver_sql(
                f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'"
            )
        yield
        with admin.connect() as connection:
            connection.exec_driver_sql(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")
        admin.dispose()


def eventually(claim, within_s=20.0):
    until = time.monotonic() + within_s
    while not claim():
        assert time.monotonic() < until, "it did not come about"
        time.sleep(0.02)


# --- groups


def test_what_many_threads_hand_over_is_on_record_under_numbers_of_its_own(desk, engine, entry):
    with ThreadPoolExecutor(8) as pool:
        futures = [
            f for fs in pool.map(lambda n: desk.put(*(entry(8 * n + i) for i in range(8))), range(25)) for f in fs
        ]
    numbers = [number for (number,) in results(futures)]

    assert len(set(numbers)) == 200
    said = {number: entry(seed).rows[0].risks.tobytes() for seed, number in enumerate(numbers)}
    assert on_record(engine) == sorted(said.items())


def test_what_waits_while_the_ledger_is_written_goes_into_one_transaction(desk, engine, entry):
    desk.kept(entry())
    with counting_commits(engine) as commits:
        futures = desk.put(*(entry(seed) for seed in range(300)))
        numbers = results(futures)

    assert len(commits) == 1
    assert sorted(numbers) == numbers and len({number for (number,) in numbers}) == 300


def test_an_answer_is_on_record_before_it_is_settled(desk, engine, entry):
    """Settled in the writing thread, where another connection sees it already."""
    seen = []
    ticket = Ticket(entry(), time.monotonic() + 20, False, lambda kept: seen.append((kept, on_record(engine))))
    desk.writer.submit([ticket])
    eventually(lambda: seen)

    ((kept, rows),) = seen
    assert [number for number, _ in rows] == kept


def test_one_request_that_the_database_refuses_costs_the_others_nothing(desk, engine, entry):
    good = [entry(seed) for seed in range(20)]
    kept = desk.kept(*good[:10], entry(model=None), *good[10:])

    assert isinstance(kept.pop(10), LedgerError)
    assert [number for number, _ in on_record(engine)] == [number for (number,) in kept]
    assert desk.kept(entry(99)) not in kept


@pytest.mark.parametrize("machine", ["postgres"], indirect=True)
def test_a_text_that_postgres_does_not_take_costs_the_others_nothing(desk, engine, entry):
    first, bad, last = desk.kept(entry(1), entry(2, references=["visit\x00"]), entry(3))

    assert isinstance(bad, LedgerError)
    assert [number for number, _ in on_record(engine)] == [*first, *last]


# --- a ledger that another holds


def hold(machine):
    """A process-like stranger that has locked the ledger's file; call it to let go."""
    import sqlite3

    connection = sqlite3.connect(machine.home / "ledger.db", isolation_level=None)
    connection.execute("BEGIN EXCLUSIVE")
    return lambda: (connection.execute("ROLLBACK"), connection.close())


@pytest.mark.parametrize("machine", ["sqlite"], indirect=True)
def test_who_waits_too_long_for_a_ledger_that_is_held_is_refused_and_the_others_are_recorded(
    desk, machine, engine, entry
):
    let_go = hold(machine)
    began = time.monotonic()
    patient = desk.put(entry(1), entry(2))
    (late,) = desk.kept(entry(3), within_s=SHORTLY_S)
    waited = time.monotonic() - began
    assert not any(future.done() for future in patient)
    let_go()

    assert isinstance(late, LedgerError) and "in time" in str(late)
    assert SHORTLY_S < waited < 2
    kept = results(patient)
    assert [number for number, _ in on_record(engine)] == [number for (number,) in kept]


@pytest.mark.parametrize("machine", ["sqlite"], indirect=True)
def test_what_the_spool_takes_while_the_ledger_is_held_is_on_record_in_the_end(open_desk, machine, engine, entry):
    desk = open_desk(ahead=True)
    let_go = hold(machine)
    kept = desk.kept(*(entry(seed) for seed in range(5)), within_s=SHORTLY_S, spool=True)
    assert desk.spool.pending == 5
    let_go()
    eventually(lambda: not desk.spool.pending)

    said = [entry(seed).rows[0].risks.tobytes() for seed in range(5)]
    assert on_record(engine) == [(number, risk) for (number,), risk in zip(kept, said, strict=True)]


@pytest.mark.parametrize("machine", ["sqlite"], indirect=True)
def test_closing_settles_everything_even_while_another_holds_the_ledger(desk, machine, engine, entry, monkeypatch):
    monkeypatch.setattr(writer, "BUSY_TIMEOUT_S", 0.3)
    let_go = hold(machine)
    futures = desk.put(entry(1), entry(2))
    desk.writer.close()
    let_go()

    assert all(isinstance(kept, LedgerError) for kept in results(futures))
    assert on_record(engine) == []


def test_closing_records_what_waits(desk, engine, entry):
    futures = desk.put(*(entry(seed) for seed in range(50)))
    desk.writer.close()

    assert [number for number, _ in on_record(engine)] == [number for (number,) in results(futures)]


# --- a ledger that is gone


def test_nothing_is_answered_while_the_ledger_is_gone_and_all_goes_on_when_it_is_back(desk, machine, engine, entry):
    (before,) = desk.kept(entry(1))
    with away(machine, engine):
        (refused,) = desk.kept(entry(2))
    eventually(lambda: isinstance(desk.kept(entry(3))[0], list))

    assert isinstance(refused, LedgerError)
    said = [risks for _, risks in on_record(engine)]
    assert said[0] == entry(1).rows[0].risks.tobytes()
    assert entry(2).rows[0].risks.tobytes() not in said
    assert before == [on_record(engine)[0][0]]


@pytest.mark.parametrize("machine", ["sqlite"], indirect=True)
def test_a_copy_that_takes_the_ledgers_place_is_what_is_written_from_then_on(desk, machine, engine, entry):
    desk.kept(entry(1))
    backup(machine, machine.home / "copy.db")
    (machine.home / "copy.db").rename(machine.home / "ledger.db")
    for path in machine.home.glob("ledger.db-[ws]*"):  # the old one's log
        path.unlink()

    ((number,),) = desk.kept(entry(2))

    stranger = connect(machine)
    assert find(stranger, f"{number}-0").risk == entry(2).rows[0].risks[0]
    assert find(engine, f"{number}-0").risk == entry(2).rows[0].risks[0]
    stranger.dispose()


def test_what_is_answered_while_the_ledger_is_gone_is_on_record_in_its_order_once_it_is_back(
    open_desk, machine, engine, entry
):
    desk = open_desk(ahead=True)
    ((other,),) = desk.kept(entry(100))
    with away(machine, engine):
        kept = [desk.kept(entry(seed, references=[f"visit {seed}"]), spool=True)[0] for seed in range(10)]
        assert all(isinstance(numbers, list) for numbers in kept)
        assert desk.spool.pending == 10
    eventually(lambda: not desk.spool.pending)

    said = [entry(seed).rows[0].risks.tobytes() for seed in range(10)]
    brought = [(number, risks) for number, risks in on_record(engine) if number != other]
    assert brought == [(number, risks) for (number,), risks in zip(kept, said, strict=True)]
    with engine.connect() as connection:
        named = connection.execute(sa.select(tables.references.c.reference).order_by(tables.references.c.id))
        assert list(named.scalars()) == [f"visit {seed}" for seed in range(10)]


def test_a_request_without_a_spool_is_refused_while_others_go_to_it(open_desk, machine, engine, entry):
    desk = open_desk(ahead=True)
    with away(machine, engine):
        (kept,) = desk.kept(entry(1), spool=True)
        (refused,) = desk.kept(entry(2), spool=False)

    assert isinstance(kept, list) and isinstance(refused, LedgerError)


def test_a_key_that_comes_again_while_the_ledger_is_gone_gets_its_first_answer(open_desk, machine, engine, entry):
    desk = open_desk(ahead=True)
    with away(machine, engine):
        (first,) = desk.kept(entry(1, key="k"), spool=True)
        (again,) = desk.kept(entry(1, key="k"), spool=True)
        (other,) = desk.kept(entry(1, key="k", body=b"other"), spool=True)
    eventually(lambda: not desk.spool.pending)
    (later,) = desk.kept(entry(1, key="k"))

    assert again == later == str(first).encode()
    assert isinstance(other, RecordError)
    assert len(on_record(engine)) == 1


def test_what_was_answered_and_is_refused_in_the_end_is_kept_aside_and_the_others_are_recorded(
    open_desk, machine, engine, entry
):
    desk = open_desk(ahead=True)
    with away(machine, engine):
        kept = desk.kept(entry(1), entry(2, model=None), entry(3), spool=True)
    eventually(lambda: not desk.spool.pending)
    (ahead,) = desk.put(Entry(entry(4, model=None).rows, None, str, desk.writer.numbers(1)))
    (later,) = desk.kept(entry(5))
    eventually(lambda: len(list((machine.home / "spool").glob("*.refused"))) == 2)

    assert [number for number, _ in on_record(engine)] == [*kept[0], *kept[2], *later]
    assert not ahead.done()  # its answer has left long ago
    (found, _) = sorted((machine.home / "spool").glob("*.refused"), key=lambda path: int(path.stem))
    assert found.stem == str(kept[1][0])
    assert stat.S_IMODE(found.stat().st_mode) == 0o600


# --- idempotency


def test_the_same_key_in_one_group_and_in_another_is_one_request(desk, engine, entry):
    first, second, other, stranger = desk.kept(
        entry(1, key="k"), entry(1, key="k"), entry(2, key="k", body=b"other"), entry(3, key="another")
    )
    (third,) = desk.kept(entry(1, key="k"))

    assert second == third == str(first).encode()
    assert isinstance(other, RecordError) and other.code == "idempotency_key"
    assert [number for number, _ in on_record(engine)] == [*first, *stranger]


def test_the_same_keys_at_two_writers_at_once_are_one_request_each(open_desk, engine, entry):
    desks = [open_desk(), open_desk()]
    at_once = threading.Barrier(2)

    def send(desk):
        at_once.wait()
        return results([future for seed in range(40) for future in desk.put(entry(seed, key=f"k{seed}"))])

    with ThreadPoolExecutor(2) as pool:
        here, there = pool.map(send, desks)

    answers = [
        {kept if isinstance(kept, bytes) else str(kept).encode() for kept in both}
        for both in zip(here, there, strict=True)
    ]
    assert all(len(both) == 1 for both in answers)
    assert len(on_record(engine)) == 40


# --- numbers that are given ahead


def test_numbers_that_are_given_ahead_are_nobody_elses(open_desk, machine, engine, entry):
    desks = [open_desk(ahead=True), open_desk(ahead=True), open_desk()]
    given = [number for desk in desks[:2] for _ in range(50) for number in desk.writer.numbers(2)]
    drawn = [number for desk in desks for (number,) in desk.kept(entry(1), entry(2))]
    desks[0].writer.close()
    given += open_desk(ahead=True).writer.numbers(3)  # the next worker in its place

    assert len({*given, *drawn}) == len(given) + len(drawn) == 203 + 6


def test_an_answer_that_left_ahead_is_on_record_under_its_number(open_desk, engine, entry):
    desk = open_desk(ahead=True)
    numbers = desk.writer.numbers(1)
    given = entry(1)
    (kept,) = desk.kept(Entry(given.rows, None, given.answer, numbers))

    assert kept == numbers
    assert find(engine, f"{numbers[0]}-0").risk == given.rows[0].risks[0]


def test_numbers_are_drawn_anew_before_they_run_out_and_never_beyond(open_desk, machine, engine):
    desk = open_desk(ahead=True)
    given = desk.writer.numbers(NUMBERS_IN_HAND // 2 + 1)
    desk.writer.submit([])
    eventually(lambda: len(desk.writer._numbers) > NUMBERS_IN_HAND)
    with away(machine, engine):
        given += desk.writer.numbers(len(desk.writer._numbers))
        with pytest.raises(LedgerError, match="no number is left"):
            desk.writer.numbers(1)

    assert len(set(given)) == len(given)


def test_a_writer_that_needs_numbers_does_not_begin_without_the_ledger(machine, engine):
    with away(machine, engine), pytest.raises(LedgerError):
        Writer(engine, Spool(machine.home / "spool"), deliver, True)


# --- shadows


def test_what_a_shadow_says_is_on_record_beside_its_request(desk, engine, entry):
    ((number,),) = desk.kept(entry(1))
    row = {
        "request": number,
        "version": 4,
        "bundle": "c" * 64,
        "risks": b"12345678",
        "at": entry(1).rows[0].received_at,
    }

    assert desk.writer.shadow(row)

    def said():
        with engine.connect() as connection:
            return connection.execute(sa.select(tables.shadows.c.request, tables.shadows.c.version)).all()

    eventually(lambda: said() == [(number, 4)])


def test_a_shadow_of_a_request_that_is_not_there_yet_stands_in_nobodys_way(desk, engine, entry):
    row = {"request": 10**9, "version": 4, "bundle": "c" * 64, "risks": b"12345678", "at": entry(1).rows[0].received_at}
    desk.writer.shadow(row)

    assert isinstance(desk.kept(entry(1))[0], list)
    began = time.monotonic()
    desk.writer.close()
    assert time.monotonic() - began < 5


def test_a_second_engine_sees_what_is_settled(desk, machine, entry):
    ((number,),) = desk.kept(entry(1))
    other = connect(machine)
    assert find(other, f"{number}-0").version == 3
    other.dispose()
