"""A Postgres ledger that is restarted, goes away, or whose word is lost on the way."""

import socket
import threading
import time
from contextlib import closing, suppress
from pathlib import Path

import pytest
import sqlalchemy as sa

from tests.faults.conftest import nothing_is_lost

pytestmark = pytest.mark.faults(within_s=120)

AWAY_S = 3.0


@pytest.mark.parametrize("on_failure", ["refuse", "spool"])
def test_postgres_restarted_under_load_loses_no_answer(on_failure, postgres, machine_of, serve, load):
    settings = machine_of(ledger=postgres.url, on_failure=on_failure)
    server = serve(settings, "toy", workers=2, MEDIMIND_LEDGER=settings.ledger)

    with load(server) as calls:
        for _ in range(3):
            postgres.restart()
            calls.answers_again(within_s=15)
            time.sleep(0.5)
        postgres.stop()
        time.sleep(0.5)
        calls.turn()
        time.sleep(AWAY_S)
        away = calls.turn()
        postgres.start()
        calls.answers_again(within_s=15)

    nothing_is_lost(settings, calls, within_s=15, keys_hold=on_failure == "refuse")
    assert set(away) <= ({"503 ledger", "503 busy"} if on_failure == "refuse" else {"200"})
    assert sum(away.values()) > 10


class Wire:
    """What lies between the server and Postgres. `cut`: the next commit arrives there, and its answer is lost."""

    def __init__(self, sockets: str) -> None:
        self._target = next(str(path) for path in Path(sockets).glob(".s.PGSQL.*") if path.suffix != ".lock")
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.cut = threading.Event()
        self.cuts = 0
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                far = socket.socket(socket.AF_UNIX)
                far.connect(self._target)
                threading.Thread(target=self._up, args=(near, far), daemon=True).start()

    def _up(self, near: socket.socket, far: socket.socket) -> None:
        down = threading.Thread(target=_pass_on, args=(far, near), daemon=True)
        down.start()
        with suppress(OSError), near, far:
            while sent := near.recv(65536):
                if b"COMMIT" in sent and self.cut.is_set():
                    self.cut.clear()
                    self.cuts += 1
                    near.shutdown(socket.SHUT_RDWR)  # from here on, nothing comes back
                    far.sendall(sent)
                    time.sleep(0.2)  # Postgres commits before it sees that nobody is there
                    return
                far.sendall(sent)


def _pass_on(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while content := source.recv(65536):
            target.sendall(content)


@pytest.mark.parametrize("on_failure", ["refuse", "spool"])
def test_a_commit_whose_answer_is_lost_on_the_way_puts_nobody_on_record_twice(
    on_failure, postgres, machine_of, serve, load
):
    with closing(Wire(postgres.sockets)) as wire:
        through = sa.make_url(postgres.url).set(host="127.0.0.1", port=wire.port, query={})
        ledger = through.render_as_string(hide_password=False)
        settings = machine_of(ledger=ledger, on_failure=on_failure)
        server = serve(settings, "toy", MEDIMIND_LEDGER=ledger)

        with load(server) as calls:
            for _ in range(5):
                wire.cut.set()
                deadline = time.monotonic() + 10
                while wire.cut.is_set() and time.monotonic() < deadline:
                    time.sleep(0.01)
                calls.answers_again(within_s=15)

        assert wire.cuts == 5
        nothing_is_lost(settings, calls, within_s=15, keys_hold=on_failure == "refuse")
