"""One process at a time retrains a model, and one that dies leaves the lock at once."""

import os
import signal
import threading
import time

import pytest
import sqlalchemy as sa

from configs.errors import BusyError, LedgerError
from ledger import database
from ledger.locks import alone

HOLD = """
import sys
from pathlib import Path
from configs.errors import BusyError
from configs.settings import Settings
from ledger.database import connect
from ledger.locks import alone
settings = Settings(home=Path(sys.argv[1]), ledger=sys.argv[2], user="dr.who")
try:
    with alone(connect(settings), settings, "angina") as lock:
        print("holds", flush=True)
        sys.stdin.readline()
        lock.require()
        print("still")
except BusyError as exc:
    print(exc)
"""


def taken(engine, settings, model="angina"):
    """Whether the lock could be had now."""
    try:
        with alone(engine, settings, model):
            return True
    except BusyError:
        return False


def soon(what, within_s=5):
    """Whether it comes true: a database's server needs a moment to see that its client is gone."""
    until = time.monotonic() + within_s
    while not what():
        if time.monotonic() > until:
            return False
        time.sleep(0.02)
    return True


@pytest.fixture
def holder(child, machine):
    """Another process that holds angina's lock."""
    process = child(HOLD, machine.home, machine.ledger)
    assert process.stdout.readline() == "holds\n"
    yield process
    process.kill()
    process.wait(10)


def test_of_two_processes_one_retrains_and_the_other_is_told(engine, machine, holder):
    with (
        pytest.raises(BusyError, match="angina is being retrained by another process") as told,
        alone(engine, machine, "angina"),
    ):
        pass
    assert told.value.code == "busy"
    assert isinstance(told.value, LedgerError)
    assert taken(engine, machine, "sepsis"), "another model is another lock"

    assert holder.communicate("go on\n", timeout=20)[0] == "still\n"
    assert taken(engine, machine)


def test_a_process_that_is_killed_leaves_the_lock_at_once(engine, machine, holder):
    assert not taken(engine, machine)

    os.kill(holder.pid, signal.SIGKILL)
    holder.wait(10)

    assert soon(lambda: taken(engine, machine))


def test_it_is_free_again_after_an_error_and_for_the_next_one(engine, machine):
    def fails():
        with alone(engine, machine, "angina"):
            raise RuntimeError

    for _ in range(3):
        with pytest.raises(RuntimeError):
            fails()
    assert taken(engine, machine)


def test_threads_of_one_process_exclude_each_other_too(engine, machine):
    ready, told = threading.Barrier(8), []

    def one():
        ready.wait(10)
        try:
            with alone(engine, machine, "angina"):
                told.append("had it")
                ready.wait(10)
        except BusyError:
            told.append("busy")
            ready.wait(10)

    threads = [threading.Thread(target=one) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert sorted(told) == ["busy"] * 7 + ["had it"]


def test_a_lock_that_was_lost_is_noticed_before_more_is_done(engine, machine):
    with alone(engine, machine, "angina") as lock:
        lock.require()
        if engine.dialect.name == "sqlite":
            os.unlink(f"{engine.url.database}.angina.lock")
        else:
            with engine.connect() as connection:
                connection.execute(
                    sa.text(
                        "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' "
                        "AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
                    )
                )
        for _ in range(2):
            with pytest.raises(LedgerError, match="the lock of its retraining was lost"):
                lock.require()
    assert soon(lambda: taken(engine, machine))


def test_holding_it_keeps_nobody_from_writing(engine, machine):
    with alone(engine, machine, "angina"), database.writing(engine, 1) as connection:
        database.audit(connection, "nurse.joy", "note", "meanwhile")


def test_the_lock_s_file_is_private_and_says_who(ledger, home):
    with alone(ledger, home, "angina"):
        path = home.home / "ledger.db.angina.lock"
        assert os.stat(path).st_mode & 0o777 == 0o600
        with pytest.raises(BusyError, match=rf"\(nurse\.joy, process {os.getpid()}\)"), alone(ledger, home, "angina"):
            pass
