"""kill -9 at full load: every answer that a client received is in the ledger, none twice."""

import time
from contextlib import suppress

import psutil
import pytest

from tests.faults.conftest import drained, locked, nothing_is_lost, spooled

pytestmark = pytest.mark.faults(within_s=240)

CONNECTIONS = 64
ENDS_WITHIN_S = 2.0
"""How long workers outlive their parent."""
STARTS_WITHIN_S = 30


@pytest.mark.parametrize(("kind", "workers"), [("sqlite", 1), ("sqlite", 2), ("postgres", 2)])
def test_kill_9_of_workers_and_of_their_parent_loses_no_answer(kind, workers, machine_of, serve, load, request):
    settings = machine_of(ledger=request.getfixturevalue("postgres").url if kind == "postgres" else "")
    server = serve(settings, "toy", workers=workers, MEDIMIND_LEDGER=settings.ledger)

    with load(server, CONNECTIONS) as calls:
        for _ in range(3):
            time.sleep(1)
            before = {worker.pid for worker in server.workers()}
            server.workers()[0].kill()
            replaced(server, before)
            calls.answers_again(within_s=30)
        server.wait()
        time.sleep(1)
        orphans = server.workers()
        server.process.kill()
        assert gone(orphans, ENDS_WITHIN_S), "workers outlived their parent"
        server.process.wait()
        server.start()
        calls.answers_again(within_s=60)

    answered = nothing_is_lost(settings, calls)
    assert answered > 1000
    assert calls.broken > 4, "nobody was cut off: the kills met no load"


def test_kill_9_while_answers_lie_in_the_spool_loses_none_of_them(machine_of, serve, load):
    settings = machine_of(on_failure="spool")
    server = serve(settings, "toy", workers=2)

    with load(server) as calls:
        with locked(settings):
            time.sleep(4)
            assert spooled(settings)
            before = {worker.pid for worker in server.workers()}
            server.workers()[0].kill()
            time.sleep(2)
        replaced(server, before)
        calls.answers_again(within_s=30)
        with locked(settings):
            time.sleep(4)
            assert spooled(settings)
            server.kill()
        server.start()
        calls.answers_again(within_s=60)

    nothing_is_lost(settings, calls, within_s=20, keys_hold=False)
    assert drained(settings, within_s=5)


def test_a_worker_whose_parent_is_killed_while_it_starts_ends_as_well(machine_of, serve):
    server = serve(machine_of(), "toy")
    before = {worker.pid for worker in server.workers()}
    server.workers()[0].kill()
    replaced(server, before)
    starting = server.workers()

    server.process.kill()
    server.process.wait()

    ended = gone(starting, STARTS_WITHIN_S)
    for process in starting:
        if alive(process):
            process.kill()
    assert ended, "it stayed, and holds the port"


def gone(processes, within_s) -> bool:
    """Wait until these have ended; whether someone has asked how is no matter of theirs."""
    deadline = time.monotonic() + within_s
    while left := [process for process in processes if alive(process)]:
        if time.monotonic() > deadline:
            return False
        processes = left
        time.sleep(0.02)
    return True


def alive(process) -> bool:
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def replaced(server, before):
    """Wait until the worker that was killed has a successor."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        with suppress(psutil.NoSuchProcess):  # it ends while it is looked at
            now = {worker.pid for worker in server.workers()}
            if len(now) == len(before) and now != before:
                return
        time.sleep(0.05)
    pytest.fail("the killed worker was not replaced")
