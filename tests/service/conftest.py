"""What the service tests share: a machine whose toy disease has a champion, and one `medimind serve` in front of it."""

import csv
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
import sqlalchemy as sa
import yaml

from configs.settings import ROOT, Settings
from ledger.database import connect
from ledger.promotions import find_champion
from models.bundle import get
from models.predict import Predictor
from pipelines.ingest import ingest
from pipelines.prepare import prepare
from pipelines.promote import promote
from pipelines.train import train
from pipelines.validate import validate

STARTS_WITHIN_S = 120


class Server:
    """`medimind serve` in a process group of its own; `url` answers, `log` is what it prints."""

    def __init__(self, settings: Settings, *names: str, **variables: str) -> None:
        with closing(socket.socket()) as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        self.log = settings.home / f"serve-{port}.log"
        with open(self.log, "wb") as out:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "pipelines.cli", "serve", *names, "--port", str(port)],
                stdout=out,
                stderr=subprocess.STDOUT,
                cwd=ROOT,
                env=os.environ | environment(settings) | variables,
                start_new_session=True,
            )

    def client(self) -> httpx.Client:
        return httpx.Client(base_url=self.url, timeout=60, trust_env=False)

    def wait(self) -> None:
        """Until it answers, ready or not."""
        deadline = time.monotonic() + STARTS_WITHIN_S
        with self.client() as client:
            while time.monotonic() < deadline and self.process.poll() is None:
                try:
                    client.get("/readyz")
                    return
                except httpx.TransportError:
                    time.sleep(0.1)
        self.stop()
        pytest.fail(f"medimind serve does not answer:\n{self.log.read_text()}")

    def kill(self) -> None:
        """kill -9 of the server and every process that it started; its workers are in sessions of their own."""
        everyone = [psutil.Process(self.process.pid), *psutil.Process(self.process.pid).children(recursive=True)]
        for process in everyone:
            process.kill()
        self.process.wait()
        psutil.wait_procs(everyone, timeout=10)

    def stop(self) -> list[int]:
        """As a person stops it, with Ctrl-C; who did not go by that, and had to be killed."""
        if self.process.poll() is not None:
            return []
        everyone = [psutil.Process(self.process.pid), *psutil.Process(self.process.pid).children(recursive=True)]
        self.process.send_signal(signal.SIGINT)
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(timeout=30)
        _, left = psutil.wait_procs(everyone, timeout=5)
        for process in left:
            process.kill()
        return [process.pid for process in left]


def environment(settings: Settings) -> dict[str, str]:
    return {
        "MEDIMIND_HOME": str(settings.home),
        "MEDIMIND_CONFIGS": str(settings.configs),
        "MEDIMIND_DATA": str(settings.data),
    }


@pytest.fixture(scope="session")
def once(guard_log: Path) -> Iterator[Callable[..., Any]]:
    """`once(name, make)`: what `make(stack)` returned to the first test that asked; the stack closes at the end."""
    made: dict[str, Any] = {}
    with ExitStack() as stack:

        def get_or_make(name: str, make: Callable[[ExitStack], Any]) -> Any:
            if name not in made:
                made[name] = make(stack)
            return made[name]

        yield get_or_make
    # BentoML's process manager, circus, asks for this machine's own name when it starts.
    others = [line for line in guard_log.read_text().splitlines() if line != socket.gethostname()]
    guard_log.write_text("".join(f"{line}\n" for line in others))


@pytest.fixture
def machine(
    once: Callable[..., Any],
    tmp_path_factory: pytest.TempPathFactory,
    toy_document: dict[str, Any],
    toy_table: Callable[..., dict[str, list[Any]]],
) -> Settings:
    """A machine of its own, whose toy disease went the whole way and has a champion."""

    def make(_: ExitStack) -> Settings:
        base = tmp_path_factory.mktemp("machine")
        settings = Settings(home=base / "home", configs=base / "configs", data=base / "data", user="tests")
        (settings.configs / "diseases").mkdir(parents=True)
        source = base / "toy.csv"
        table = toy_table(400, 1)
        with open(source, "w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([table, *zip(*table.values(), strict=True)])
        document = {**toy_document, "source": {"csv": str(source)}}
        (settings.configs / "diseases" / "toy.yaml").write_text(yaml.safe_dump(document, sort_keys=False))
        (settings.configs / "enabled.yaml").write_text("enabled: [toy]\n")
        ingest("toy", settings)
        prepare("toy", settings)
        train("toy", settings)
        done = validate("toy", settings)
        promote("toy", done.version.number, "for the tests", settings)
        return settings

    return once("machine", make)


@pytest.fixture
def predictor(machine: Settings) -> Predictor:
    """The champion, without a server around it."""
    with opened(machine) as engine:
        champion = find_champion(engine, "toy")
    assert champion is not None
    return Predictor(get(champion.bundle, machine.store))


@contextmanager
def opened(settings: Settings) -> Iterator[sa.Engine]:
    engine = connect(settings)
    yield engine
    engine.dispose()


@pytest.fixture
def ledger(machine: Settings) -> Iterator[sa.Engine]:
    """The ledger that the server writes."""
    with opened(machine) as engine:
        yield engine


@pytest.fixture
def rows(ledger: sa.Engine) -> Callable[[], int]:
    """How many predictions are on record."""

    def count() -> int:
        with ledger.connect() as connection:
            return int(connection.execute(sa.text("SELECT coalesce(sum(n), 0) FROM requests")).scalar_one())

    return count


@pytest.fixture
def server(once: Callable[..., Any], machine: Settings) -> Server:
    """One `medimind serve toy` for all tests; it goes by Ctrl-C at the end, and leaves nobody behind."""

    def make(stack: ExitStack) -> Server:
        made = Server(machine, "toy")

        @stack.callback
        def end() -> None:
            assert made.stop() == [], "Ctrl-C left processes of the server behind"

        made.wait()
        return made

    return once("server", make)


@pytest.fixture
def client(once: Callable[..., Any], server: Server) -> httpx.Client:
    return once("client", lambda stack: stack.enter_context(server.client()))


@pytest.fixture
def ask(client: httpx.Client) -> Callable[..., httpx.Response]:
    """`ask(record, …, header=value)`: the answer to these records."""

    def post(*records: Any, **headers: str) -> httpx.Response:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return client.post("/v1/models/toy/predict", json={"records": list(records)}, headers=named)

    return post


@pytest.fixture
def serve() -> Iterator[Callable[..., Server]]:
    """`serve(settings, name, …, VARIABLE=…)`: another server, which ends with the test."""
    with ExitStack() as stack:

        def start(settings: Settings, *names: str, **variables: str) -> Server:
            made = Server(settings, *names, **variables)
            stack.callback(made.stop)
            made.wait()
            return made

        yield start


@pytest.fixture
def patient() -> dict[str, Any]:
    """A record with every field."""
    return {
        "age_years": 61,
        "cholesterol_mg_dl": 240,
        "max_heart_rate_bpm": 128,
        "sex": "female",
        "pain": "rest",
        "smoker": True,
        "site": "north",
    }
