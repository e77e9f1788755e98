"""A ledger that is locked, whose disk is full, or that may lose answers: refused or spooled, as the spec says."""

import errno
import subprocess
import time
from pathlib import Path
from typing import BinaryIO

import httpx
import pytest

from tests.faults.conftest import drained, locked, nothing_is_lost, on_record, spooled

pytestmark = pytest.mark.faults(within_s=120)

LOCKED_S = 10.0
DISK_BYTES = 64 * 1024 * 1024
PIECES = (1024 * 1024, 64 * 1024, 4096, 512, 1)


class Disk:
    """A small file system of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._ballast = folder / "ballast"

    def fill(self) -> None:
        """To the last byte; what a writer gives back later is taken as well, by the next call."""
        with open(self._ballast, "ab", buffering=0) as file:
            for size in PIECES:
                while self._holds(file, size):
                    pass

    def _holds(self, file: BinaryIO, size: int) -> bool:
        try:
            return file.write(bytes(size)) > 0
        except OSError as exc:
            if exc.errno != errno.ENOSPC:
                raise
            return False

    def free(self) -> None:
        self._ballast.unlink()


@pytest.fixture
def disk(tmp_path):
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", str(folder)]
    try:
        done = subprocess.run(mount, capture_output=True, text=True)
    except FileNotFoundError as exc:
        pytest.skip(f"a small disk needs mount: {exc}")
    if done.returncode:
        pytest.skip(f"a small disk may not be mounted here: {done.stderr.strip()}")
    yield Disk(folder)
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.mark.parametrize("on_failure", ["refuse", "spool"])
def test_a_ledger_locked_for_10_s_is_refused_or_spooled_and_nothing_is_lost(on_failure, machine_of, serve, load):
    settings = machine_of(on_failure=on_failure)
    server = serve(settings, "toy", workers=2)

    with load(server) as calls:
        with locked(settings):
            calls.turn()
            time.sleep(LOCKED_S)
            seen = calls.turn()
        calls.answers_again(within_s=10)

    nothing_is_lost(settings, calls, within_s=15, keys_hold=on_failure == "refuse")
    if on_failure == "refuse":
        assert seen["503 ledger"] or seen["503 busy"], seen
    else:
        assert seen["200"], seen
        assert drained(settings, within_s=15)


def test_a_full_disk_is_refused_and_once_there_is_room_again_answers_go_on(disk, machine_of, serve, load):
    settings = machine_of(home=disk.folder / "home")
    server = serve(settings, "toy")

    full_and_freed(server, load, disk, settings)


def test_a_full_disk_that_holds_the_spool_as_well_is_refused(disk, machine_of, serve, load):
    settings = machine_of(home=disk.folder / "home", on_failure="spool")
    server = serve(settings, "toy")

    full_and_freed(server, load, disk, settings)

    assert drained(settings, within_s=15)


def full_and_freed(server, load, disk, settings):
    with load(server, 8) as calls:
        refused_alone(calls, disk)
        time.sleep(2)
        disk.free()
        calls.answers_again(within_s=15)
    nothing_is_lost(settings, calls, within_s=15)


def refused_alone(calls, disk):
    """Fill the disk until for a whole second nobody is answered any more, and everybody is told why."""
    deadline = time.monotonic() + 45
    while time.monotonic() < deadline:
        disk.fill()
        calls.turn()
        time.sleep(1)
        seen = calls.turn()
        if seen and set(seen) <= {"503 ledger", "503 busy"}:
            return
    pytest.fail(f"on a full disk there were still answers: {seen}")


def test_answers_go_on_from_a_spool_on_another_disk_than_the_full_one(disk, machine_of, serve, load):
    settings = machine_of(ledger=f"sqlite:///{disk.folder / 'ledger.db'}", on_failure="spool")
    server = serve(settings, "toy", MEDIMIND_LEDGER=settings.ledger)

    with load(server, 8) as calls:
        calls.turn()
        deadline = time.monotonic() + 45
        while not spooled(settings) and time.monotonic() < deadline:
            disk.fill()
            time.sleep(0.5)
        time.sleep(2)
        during, kept = calls.turn(), spooled(settings)
        disk.free()
        calls.answers_again(within_s=15)

    assert kept, "the full disk was not noticed"
    assert set(during) == {"200"}
    nothing_is_lost(settings, calls, within_s=20)
    assert drained(settings, within_s=15)


def test_may_lose_answers_puts_every_answer_on_record_unless_the_server_is_killed(machine_of, serve, load, patient):
    settings = machine_of(commit="may_lose_answers")
    server = serve(settings, "toy")
    with load(server) as calls:
        time.sleep(2)
        server.process.terminate()  # as a supervisor stops it
        server.process.wait(timeout=30)
        calls.end()
    nothing_is_lost(settings, calls)  # a server that is stopped writes what it owes

    server.start()
    server.wait()
    with server.client() as client:
        with locked(settings):
            later = asked(client, patient)
            assert later not in on_record(settings)[0], "the answer did not leave before its row"
        deadline = time.monotonic() + 5
        while later not in on_record(settings)[0] and time.monotonic() < deadline:
            time.sleep(0.1)
        assert later in on_record(settings)[0]
        with locked(settings):
            lost = asked(client, patient)
            server.kill()
    server.start()
    server.wait()
    time.sleep(2)
    assert lost not in on_record(settings)[0], "then it promises more than its name says"
    with server.client() as client:
        assert asked(client, patient) != lost, "a lost answer's id was given to another"


def asked(client: httpx.Client, patient) -> str:
    answer = client.post("/v1/models/toy/predict", json={"records": [patient]})
    assert answer.status_code == 200
    return answer.json()["predictions"][0]["id"]
