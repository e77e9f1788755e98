"""`medimind load`: a file of records at a set rate, to a real server and to one that answers badly."""

import json
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pandas as pd
import pytest
import sqlalchemy as sa

from configs.settings import ROOT, Settings
from ledger.database import connect
from pipelines.load import Loaded, Plan

GOOD = {"model": "toy", "version": 1, "predictions": [{"id": "1-0", "risk": 0.5, "band": None, "missing": []}]}
BUSY = {"error": {"code": "deadline", "message": "the deadline passed.", "field": None}}


@pytest.fixture(scope="module")
def served(guard_log: Path) -> Iterator[dict[str, Any]]:
    """Holds the server that the module's first test starts."""
    running: dict[str, Any] = {}
    yield running
    if "process" in running:
        running["process"].send_signal(signal.SIGINT)
        running["process"].wait(timeout=30)
    # BentoML's process manager, circus, asks for this machine's own name when it starts.
    others = [line for line in guard_log.read_text().splitlines() if line != socket.gethostname()]
    guard_log.write_text("".join(f"{line}\n" for line in others))


@pytest.fixture
def url(served: dict[str, Any], machine: Settings, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Where `medimind serve toy` answers."""
    if "url" not in served:
        with closing(socket.socket()) as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        path = tmp_path_factory.mktemp("server") / "log"
        with open(path, "wb") as log:
            served["process"] = subprocess.Popen(
                [sys.executable, "-m", "pipelines.cli", "serve", "toy", "--port", str(port)],
                stdout=log,
                stderr=log,
                cwd=ROOT,
                start_new_session=True,
            )
        served["url"] = f"http://127.0.0.1:{port}"
        wait(served["url"], path)
    return served["url"]


def wait(url: str, log: Path) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        try:
            if httpx.get(f"{url}/readyz", trust_env=False).status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.1)
    pytest.fail(f"medimind serve is not ready:\n{log.read_text()}")


@pytest.fixture
def on_record(machine: Settings) -> Callable[[], int]:
    """How many predictions are on record."""

    def count() -> int:
        engine = connect(machine)
        with engine.connect() as connection:
            found = int(connection.execute(sa.text("SELECT coalesce(sum(n), 0) FROM requests")).scalar_one())
        engine.dispose()
        return found

    return count


@pytest.fixture
def pretender() -> Iterator[Callable[..., str]]:
    """`pretender(answer, …)`: the address of a server that gives these answers in turn, for ever; None hangs up."""
    running = []

    def start(*script: tuple[int, Any] | None) -> str:
        lock = threading.Lock()
        number = iter(range(10**9))

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                self.answer(200, {})

            def do_POST(self) -> None:
                self.rfile.read(int(self.headers["Content-Length"]))
                with lock:
                    said = script[next(number) % len(script)]
                if said is None:
                    self.close_connection = True
                else:
                    self.answer(*said)

            def answer(self, status: int, document: Any) -> None:
                content = json.dumps(document).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_: Any) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        running.append(server)
        return f"http://127.0.0.1:{server.server_port}"

    yield start
    for server in running:
        server.shutdown()
        server.server_close()


@pytest.fixture
def record(machine: Settings, tmp_path: Path) -> Path:
    path = tmp_path / "record.json"
    path.write_text('{"age_years": 61, "sex": "female"}')
    return path


def write(path: Path, records: list[dict[str, Any]], machine: Settings) -> Path:
    """The records in the form that the file's name says; `source.csv` is the table that the disease learned from."""
    match path.name:
        case "list.json":
            path.write_text(json.dumps(records))
        case "body.json":
            path.write_text(json.dumps({"records": records}))
        case "lines.jsonl":
            path.write_text("".join(f"{json.dumps(record)}\n" for record in records))
        case "table.csv":
            pd.DataFrame(records).to_csv(path, index=False)
        case "table.parquet":
            pd.DataFrame(records).to_parquet(path)
        case _:
            path.write_bytes((machine.data / "raw" / "toy.csv").read_bytes())
    return path


@pytest.mark.parametrize("name", ["list.json", "body.json", "lines.jsonl", "table.csv", "table.parquet", "source.csv"])
def test_every_form_of_file_is_replayed_at_the_set_rate_and_goes_on_record(
    name, url, machine, medimind, patients, on_record, tmp_path
):
    path = write(tmp_path / name, patients(7, 5), machine)
    before, began = on_record(), time.monotonic()

    said = medimind("load", "toy", path, "--rate", 20, "--seconds", 1, "--batch", 3, "--url", url)

    assert time.monotonic() - began < 10
    assert said.code == 0, said.err
    assert "20 requests sent, 20.0 a second of the 20 set" in said.out
    assert "60 predictions, 0 records refused; 0 requests answered 503, no error" in said.out
    assert re.search(r"p50 [\d.]+ ms, p95 [\d.]+ ms, p99 [\d.]+ ms", said.out)
    assert on_record() - before == 60


def test_a_refused_record_is_counted_by_its_reason_and_is_no_error(url, machine, medimind, tmp_path):
    good = {"age_years": 61, "sex": "female"}
    path = tmp_path / "mixed.json"
    path.write_text(json.dumps([good, {**good, "sex": "unheard of"}, {**good, "age_years": 999}, good]))

    said = medimind("load", "toy", path, "--rate", 8, "--seconds", 1, "--url", url)

    assert said.code == 0, said.err
    assert "4 predictions, 4 records refused (2 unknown_category, 2 out_of_range)" in said.out
    assert "unheard of" not in said.out and "999" not in said.out


def test_a_busy_service_is_counted_and_is_no_error(pretender, record, medimind):
    said = medimind("load", "toy", record, "--rate", 20, "--seconds", 1, "--url", pretender((503, BUSY), (200, GOOD)))

    assert said.code == 0, said.err
    assert "10 predictions, 0 records refused; 10 requests answered 503, no error" in said.out


@pytest.mark.parametrize(
    ("trouble", "name"),
    [
        ((500, BUSY), "status 500"),
        (None, "RemoteProtocolError"),
        ((200, {"hello": "world"}), "no answer of MediMind's"),
    ],
    ids=["500", "hangs up", "another service"],
)
def test_a_failed_request_is_counted_by_its_kind_and_the_command_fails(trouble, name, pretender, record, medimind):
    said = medimind("load", "toy", record, "--rate", 20, "--seconds", 1, "--url", pretender((200, GOOD), trouble))

    assert said.code == 1
    assert f"10 predictions, 0 records refused; 0 requests answered 503, 10 errors (10 {name})" in said.out


def test_a_slow_answer_counts_from_when_it_was_due_and_what_cannot_be_sent_is_told(pretender, record, medimind):
    """One connection, answers that take 0.2 s, ten wanted a second: each waits longer than the one before."""
    slow = pretender((200, GOOD))
    with delayed(slow, 0.2) as url:
        said = medimind("load", "toy", record, "--rate", 10, "--seconds", 2, "--connections", 1, "--url", url)

    assert said.code == 0, said.err
    sent = int(re.search(r"(\d+) requests sent", said.out)[1])
    assert 10 <= sent <= 16
    assert f"{20 - sent} not sent, no connection was free in time" in said.out
    assert float(re.search(r"p99 ([\d.]+) ms", said.out)[1]) > 900


@contextmanager
def delayed(url: str, seconds: float) -> Iterator[str]:
    """The same service, slower: each part of an answer comes so much later."""
    port = int(url.rpartition(":")[2])
    door = socket.create_server(("127.0.0.1", 0))

    def serve(caller: socket.socket) -> None:
        with caller, socket.create_connection(("127.0.0.1", port)) as service:

            def back() -> None:
                while part := service.recv(1 << 16):
                    time.sleep(seconds)
                    caller.sendall(part)

            threading.Thread(target=back, daemon=True).start()
            while part := caller.recv(1 << 16):
                service.sendall(part)

    def accept() -> None:
        while True:
            try:
                caller, _ = door.accept()
            except OSError:
                return
            threading.Thread(target=serve, args=[caller], daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    with door:
        yield f"http://127.0.0.1:{door.getsockname()[1]}"
        door.shutdown(socket.SHUT_RDWR)


@pytest.mark.parametrize(
    "url",
    [
        "http://10.0.0.1:8400",
        "http://hospital.example:8400",
        "http://127.0.0.1@hospital.example",
        "http://localhost.example:8400",
        "https://127.0.0.1:8400",
        "127.0.0.1:8400",
        "http://[::1",
    ],
)
def test_only_this_machine_is_put_under_load(url, record, medimind):
    said = medimind("load", "toy", record, "--rate", 1, "--seconds", 1, "--url", url)

    assert said.code == 2
    assert f"--url {url}: only this machine" in said.err


def test_nobody_there_and_an_unknown_model_are_told_before_anything_is_sent(url, machine, record, medimind):
    nobody = medimind("load", "toy", record, "--rate", 1, "--url", "http://127.0.0.1:9")
    unknown = medimind("load", "picky", record, "--rate", 1, "--url", url)

    assert (nobody.code, unknown.code) == (2, 2)
    assert "http://127.0.0.1:9 does not answer" in nobody.err and "medimind serve" in nobody.err
    assert "does not serve 'picky'" in unknown.err


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("[]", "holds no record"),
        ("{", "is no JSON"),
        ('[{"age_years": NaN}]', "is no JSON (NaN is no number"),
        ("3", "a list of records"),
        ('[{"age_years": 1e999}]', "record 1 cannot be sent as JSON"),
    ],
)
def test_a_file_that_holds_no_records_is_refused(content, told, machine, medimind, tmp_path):
    path = tmp_path / "asked.json"
    path.write_text(content)

    said = medimind("load", "toy", path, "--rate", 1)

    assert said.code == 2
    assert told in said.err


@pytest.mark.parametrize("option", [["--rate", 0], ["--rate", "nan"], ["--rate", 1, "--seconds", "inf"]], ids=str)
def test_a_rate_or_a_time_without_bounds_is_refused(option, record, medimind):
    said = medimind("load", "toy", record, *option)

    assert said.code == 2
    assert "is expected" in said.err


def test_a_percentile_is_one_of_the_times():
    done = Loaded(Plan(1, 1, 1, 1), took_ms=[float(number) for number in range(100, 0, -1)])

    assert [done.percentile_ms(share) for share in (0.5, 0.95, 0.99)] == [50, 95, 99]
    assert Loaded(Plan(1, 1, 1, 1), took_ms=[3.0]).percentile_ms(0.5) == 3
