"""What the service tests share: a machine whose toy disease has a champion, and one `medimind serve` in front of it."""

import csv
import os
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
import sqlalchemy as sa
import yaml

from configs.settings import ROOT, Settings
from configs.spec import load_spec
from evidence.report import Report
from features import build, cohort
from ledger import promotions, reviews, traffic
from ledger.database import connect
from ledger.promotions import find_champion
from ledger.registry import fetch, find, register
from models import training
from models.bundle import Bundle, get, put, sign
from models.predict import Predictor
from pipelines.ingest import ingest
from pipelines.prepare import prepare
from pipelines.promote import promote
from pipelines.traffic import off
from pipelines.train import train
from pipelines.validate import validate

STARTS_WITHIN_S = 120
FOLLOWED_WITHIN_S = 2.0
"""What is decided in the ledger, every worker follows within this time."""


class Server:
    """`medimind serve` in a process group of its own; `url` answers, `log` is what it prints."""

    def __init__(self, settings: Settings, *names: str, workers: int = 1, **variables: str) -> None:
        with closing(socket.socket()) as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.log = settings.home / f"serve-{self.port}.log"
        self.count = workers
        self._command = ["serve", *names, "--port", str(self.port), "--workers", str(workers)]
        self._environment = os.environ | environment(settings) | variables
        self.start()

    def start(self) -> None:
        """Again on the same port, after it has ended."""
        with open(self.log, "ab") as out:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "pipelines.cli", *self._command],
                stdout=out,
                stderr=subprocess.STDOUT,
                cwd=ROOT,
                env=self._environment,
                start_new_session=True,
            )

    def client(self, **options: Any) -> httpx.Client:
        return httpx.Client(base_url=self.url, timeout=60, trust_env=False, **options)

    def wait(self) -> None:
        """Until each of its workers answers, ready or not."""
        deadline = time.monotonic() + STARTS_WITHIN_S
        answered: set[int] = set()
        while time.monotonic() < deadline and self.process.poll() is None:
            with self.client() as client, suppress(httpx.TransportError, psutil.NoSuchProcess):
                answered.add(self.worker_of(client))
                if len(answered) == self.count:
                    return
                continue
            time.sleep(0.1)
        self.stop()
        pytest.fail(f"medimind serve does not answer:\n{self.log.read_text()}")

    @staticmethod
    def left_of(processes: list[psutil.Process], within_s: float) -> list[psutil.Process]:
        """Who of them still runs after that time."""
        return left_of(processes, within_s)

    def workers(self) -> list[psutil.Process]:
        """The processes that answer."""
        found = []
        for process in psutil.Process(self.process.pid).children(recursive=True):
            with suppress(psutil.NoSuchProcess, psutil.ZombieProcess):
                if "_bentoml_impl.worker.service" in process.cmdline():
                    found.append(process)
        return found

    def worker_of(self, client: httpx.Client) -> int:
        """The worker at the other end of this client's connection, by its process id; it is asked for /readyz."""
        stream = client.get("/readyz").extensions["network_stream"]
        pid = self.held_by(stream.get_extra_info("client_addr")[1])
        if pid is None:
            raise httpx.ReadError("the worker has gone")
        return pid

    def held_by(self, port: int) -> int | None:
        """The worker, by its process id, that has accepted the connection from this local port."""
        for worker in self.workers():
            with suppress(psutil.NoSuchProcess):
                if any(found.raddr and found.raddr.port == port for found in worker.net_connections("tcp")):
                    return worker.pid
        return None

    def connections(self, each: int) -> list[socket.socket]:
        """So many open connections with each worker."""
        held: Counter[int] = Counter()
        kept: list[socket.socket] = []
        for _ in range(500):
            connection = socket.create_connection(("127.0.0.1", self.port), timeout=60)
            pid = None
            while pid is None:
                pid = self.held_by(connection.getsockname()[1])
            held[pid] += 1
            if held[pid] <= each:
                kept.append(connection)
            else:
                connection.close()
            if len(kept) == each * self.count:
                return kept
        pytest.fail(f"of {self.count} workers only {len(held)} answer")

    @contextmanager
    def one_client_each(self) -> Iterator[dict[int, httpx.Client]]:
        """For each worker, by its process id, a client whose one connection stays with it."""
        with ExitStack() as stack:
            found: dict[int, httpx.Client] = {}
            for _ in range(500):
                client = self.client(limits=httpx.Limits(max_connections=1, keepalive_expiry=60))
                if found.setdefault(self.worker_of(client), client) is client:
                    stack.callback(client.close)
                else:
                    client.close()
                if len(found) == self.count:
                    break
            else:
                pytest.fail(f"of {self.count} workers only {len(found)} answer")
            yield found

    def kill(self) -> None:
        """kill -9 of the server and every process that it started; its workers are in sessions of their own."""
        everyone = [psutil.Process(self.process.pid), *psutil.Process(self.process.pid).children(recursive=True)]
        for process in everyone:
            process.kill()
        self.process.wait()
        left_of(everyone, within_s=10)

    def stop(self) -> list[int]:
        """As a person stops it, with Ctrl-C; who did not go by that, and had to be killed."""
        if self.process.poll() is not None:
            return []
        everyone = [psutil.Process(self.process.pid), *psutil.Process(self.process.pid).children(recursive=True)]
        self.process.send_signal(signal.SIGINT)
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(timeout=30)
        left = left_of(everyone, within_s=5)
        for process in left:
            process.kill()
        return [process.pid for process in left]


def left_of(processes: list[psutil.Process], within_s: float) -> list[psutil.Process]:
    """Who of them still runs after that time. One that ended and that nobody has asked for yet, a zombie, does not."""

    def runs(process: psutil.Process) -> bool:
        try:
            return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return False

    deadline = time.monotonic() + within_s
    while (left := [process for process in processes if runs(process)]) and time.monotonic() < deadline:
        time.sleep(0.05)
    return left


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

    return once("machine", lambda _: with_a_champion(tmp_path_factory.mktemp("machine"), toy_document, toy_table(400)))


@pytest.fixture
def origins(
    once: Callable[..., Any],
    tmp_path_factory: pytest.TempPathFactory,
    classes_document: dict[str, Any],
    classes_table: Callable[..., dict[str, list[Any]]],
) -> Settings:
    """A machine of its own, whose champion tells where the toy disease comes from: three classes."""
    document, table = classes_document, classes_table(500)
    return once("origins", lambda _: with_a_champion(tmp_path_factory.mktemp("origins"), document, table))


@pytest.fixture
def origins_server(once: Callable[..., Any], origins: Settings) -> Server:
    """One `medimind serve toy` of that machine."""

    def make(stack: ExitStack) -> Server:
        made = Server(origins, "toy")
        stack.callback(made.stop)
        made.wait()
        return made

    return once("server of origins", make)


@pytest.fixture
def recordings(
    once: Callable[..., Any],
    tmp_path_factory: pytest.TempPathFactory,
    recordings_document: dict[str, Any],
    recordings_table: Callable[..., dict[str, list[Any]]],
) -> Settings:
    """A machine of its own, whose champion is sent a waveform and an image beside the toy disease's numbers."""
    document, table = recordings_document, recordings_table(400)
    return once("recordings", lambda _: with_a_champion(tmp_path_factory.mktemp("recordings"), document, table))


@pytest.fixture
def recordings_server(once: Callable[..., Any], recordings: Settings) -> Server:
    """One `medimind serve toy` of that machine."""

    def make(stack: ExitStack) -> Server:
        made = Server(recordings, "toy")
        stack.callback(made.stop)
        made.wait()
        return made

    return once("server of recordings", make)


@pytest.fixture
def champion_of() -> Callable[..., Settings]:
    """`champion_of(folder, document, table)`: a machine there, whose toy disease went the whole way."""
    return with_a_champion


def with_a_champion(base: Path, document: dict[str, Any], table: dict[str, list[Any]]) -> Settings:
    """A machine in this folder, whose toy disease went the whole way from the table on."""
    settings = empty(base)
    source = base / "toy.csv"
    with open(source, "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([table, *zip(*table.values(), strict=True)])
    rule = {"coverage": 0.8, "abstain_unless_one_label": True, "missing_at_most": 3}
    document = {**document, "source": {**document["source"], "csv": str(source)}, "uncertainty": rule}
    (settings.configs / "diseases" / "toy.yaml").write_text(yaml.safe_dump(document, sort_keys=False))
    ingest("toy", settings)
    prepare("toy", settings)
    train("toy", settings)
    done = validate("toy", settings)
    promote("toy", done.version.number, "for the tests", settings)
    return settings


def empty(base: Path) -> Settings:
    """A machine that knows no disease yet, and releases `toy`."""
    settings = Settings(home=base / "home", configs=base / "configs", data=base / "data", user="tests")
    (settings.configs / "diseases").mkdir(parents=True)
    (settings.configs / "enabled.yaml").write_text("enabled: [toy]\n")
    return settings


@pytest.fixture
def predictor(machine: Settings) -> Predictor:
    """The champion, without a server around it."""
    with opened(machine) as engine:
        champion = find_champion(engine, "toy")
    assert champion is not None
    return Predictor(get(champion.bundle, machine))


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


@pytest.fixture
def ward(
    once: Callable[..., Any],
    machine: Settings,
    tmp_path_factory: pytest.TempPathFactory,
    toy_document: dict[str, Any],
) -> Settings:
    """A machine with four models. `toy` has four versions, of which @1 is champion and `versions` knows all.

    `steady` goes on whatever happens to the others, `spent` is there to be retired, `past` has had its last day.
    """

    def make(_: ExitStack) -> Settings:
        settings = empty(tmp_path_factory.mktemp("ward"))
        patients = cohort.load(machine.data / "cohorts" / "toy.parquet")
        with opened(machine) as engine:
            champion = find_champion(engine, "toy")
        assert champion is not None

        def judged(name: str, **changed: Any) -> tuple[Bundle, Report]:
            path = settings.configs / "diseases" / f"{name}.yaml"
            document = {**toy_document, "name": name, "candidates": ["logistic"], **changed}
            path.write_text(yaml.safe_dump(document, sort_keys=False))
            spec = load_spec(name, settings.configs)
            bundle = training.train(spec, build.plan(spec), patients, settings.data / "bundles" / name)
            return bundle, replace(champion.report, name=name, bundle=bundle.digest)

        narrow = {**toy_document["columns"], "age_years": {**toy_document["columns"]["age_years"], "range": [30, 80]}}
        others: list[dict[str, Any]] = [
            {"candidates": ["boosted"]},
            {"columns": narrow},  # refuses what the others take
            {"owner": "somebody else"},
        ]
        for number, changed in enumerate([{}, *others], start=1):
            bundle, report = judged("toy", **changed)
            version, _new = register(settings, bundle, report, {}, "unknown")
            assert version.number == number
            with opened(settings) as engine:
                reviews.validated(engine, number, report, (), "tests")
        promote("toy", 1, "for the tests", settings)
        expired = {**toy_document["serving"], "expires_on": f"{datetime.now(UTC) - timedelta(days=1):%Y-%m-%d}"}
        with opened(settings) as engine:
            for name, changed in (("steady", {}), ("spent", {}), ("past", {"serving": expired})):
                bundle, report = judged(name, **changed)
                put(sign(bundle.folder, settings), settings)
                promotions.promote(engine, 1, report, "tests", "for the tests")
        return settings

    return once("ward", make)


@pytest.fixture
def ward_ledger(ward: Settings) -> Iterator[sa.Engine]:
    with opened(ward) as engine:
        yield engine


@pytest.fixture
def versions(once: Callable[..., Any], ward: Settings) -> dict[int, Predictor]:
    """Every version of `toy` in the ward, without a server around it."""

    def make(_: ExitStack) -> dict[int, Predictor]:
        found = {}
        for number in range(1, 5):
            with fetch(ward, find(ward, "toy", number)) as (folder, _report):
                found[number] = Predictor(put(folder, ward))
        return found

    return once("versions", make)


@pytest.fixture
def pair(once: Callable[..., Any], ward: Settings) -> Server:
    """One `medimind serve` of the ward with two workers for all tests."""

    def make(stack: ExitStack) -> Server:
        made = Server(ward, "toy", "steady", "spent", "past", workers=2)

        @stack.callback
        def end() -> None:
            assert made.stop() == [], "Ctrl-C left processes of the server behind"

        made.wait()
        return made

    return once("pair", make)


@pytest.fixture
def at_one(ward: Settings, pair: Server) -> Iterator[None]:
    """The ward's `toy` begins with @1 as champion and no traffic beside it, in every worker; and is left so."""
    yield
    with opened(ward) as engine:
        changed = list(traffic.find(engine, "toy").lanes)
        champion = find_champion(engine, "toy")
    for lane in changed:
        off("toy", lane, "the test is over", ward)
    if champion is None or champion.version != 1:
        promote("toy", 1, "the test is over", ward)
        changed.append("champion")
    if changed:
        time.sleep(FOLLOWED_WITHIN_S)
