"""What the server does when the world is not as it should be: by real means, never by a patched function."""

import os
import shutil
import sqlite3
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime

import httpx
import pytest
import yaml

from configs.settings import ROOT, Settings
from configs.spec import from_document
from features import build, cohort
from ledger import predictions, promotions
from ledger.database import BUSY_TIMEOUT_S, connect
from models import bundle as bundles
from models import training

NOBODY_LISTENS = "http://127.0.0.1:9"


@pytest.fixture
def odd(machine: Settings, tmp_path) -> Settings:
    """A machine with a good champion, one whose bundle lost a bit in the store, and a disease without a champion."""
    settings = Settings(home=tmp_path / "home", configs=tmp_path / "configs", data=machine.data, user="tests")
    (settings.configs / "diseases").mkdir(parents=True)
    document = yaml.safe_load((machine.configs / "diseases" / "toy.yaml").read_text())
    for name in ("toy", "flipped", "nobody"):
        (settings.configs / "diseases" / f"{name}.yaml").write_text(
            yaml.safe_dump({**document, "name": name}, sort_keys=False)
        )
    source = connect(machine)
    champion = promotions.find_champion(source, "toy")
    source.dispose()
    engine = connect(settings)
    bundles.put(bundles.sign(shutil.copytree(machine.store / champion.bundle, tmp_path / "toy"), settings), settings)
    promotions.promote(engine, 1, champion.report, "tests", "it is good")

    spec = from_document({**document, "name": "flipped"}, "flipped.yaml")
    patients = cohort.load(machine.data / "cohorts" / "toy.parquet")
    trained = training.train(spec, build.plan(spec), patients, tmp_path / "flipped")
    kept = bundles.put(bundles.sign(trained.folder, settings), settings)
    report = replace(champion.report, name="flipped", bundle=kept.digest)
    promotions.promote(engine, 1, report, "tests", "it was good")
    engine.dispose()
    content = bytearray((kept.folder / "model.onnx").read_bytes())
    content[len(content) // 2] ^= 1
    (kept.folder / "model.onnx").write_bytes(content)
    return settings


def test_a_fault_of_one_model_or_of_the_registry_stops_no_other_and_kill_9_loses_no_answer(odd, serve, patient):
    """One server, for each start costs ten seconds: a flipped bit, a missing champion, no registry, then kill -9."""
    server = serve(odd, "toy", "flipped", "nobody", MEDIMIND_REGISTRY=NOBODY_LISTENS)
    with server.client() as client:
        ready = client.get("/readyz")
        assert ready.status_code == 503
        states = ready.json()["models"]
        assert states["toy"]["ready"]
        assert not states["flipped"]["ready"]
        assert "model.onnx" in states["flipped"]["why"]
        assert not states["nobody"]["ready"]
        assert "no champion" in states["nobody"]["why"]
        for name in ("flipped", "nobody"):
            for answer in (
                client.post(f"/v1/models/{name}/predict", json={"records": [patient]}),
                client.get(f"/v1/models/{name}"),
                client.get(f"/v1/models/{name}/schema"),
            ):
                assert answer.status_code == 503
                assert int(answer.headers["Retry-After"]) >= 1
                assert answer.json()["error"]["code"] == "not_ready"
        assert client.post("/v1/models/toy/predict", json={"records": [patient]}).status_code == 200

    told = killed_under_load(server, patient)

    assert len(told) >= 200
    engine = connect(odd)
    on_record = {number: predictions.find(engine, number).risk for number in told}
    engine.dispose()
    assert on_record == told


def killed_under_load(server, patient) -> dict[str, float]:
    """Every answer that four callers got before and while the server was killed: prediction to risk."""
    told: dict[str, float] = {}
    lock = threading.Lock()
    enough = threading.Event()

    def call(caller: int) -> None:
        number = 0
        with server.client() as client:
            while True:
                number += 1
                record = {**patient, "age_years": 20 + number % 90, "reference": f"{caller}-{number}"}
                try:
                    answer = client.post("/v1/models/toy/predict", json={"records": [record]})
                except httpx.TransportError:
                    return
                if answer.status_code == 200:
                    (said,) = answer.json()["predictions"]
                    with lock:
                        told[said["id"]] = said["risk"]
                        if len(told) >= 200:
                            enough.set()

    with ThreadPoolExecutor(4) as pool:
        calls = [pool.submit(call, caller) for caller in range(4)]
        assert enough.wait(timeout=120)
        server.kill()
        for done in calls:
            done.result(timeout=60)
    return told


def test_a_ledger_that_is_locked_answers_nothing_and_recovers(ask, patient, client, rows, machine):
    before = rows()
    said = ask(patient).json()["predictions"][0]
    holder = sqlite3.connect(machine.home / "ledger.db", isolation_level=None)
    holder.execute("BEGIN EXCLUSIVE")
    began = time.monotonic()

    with ThreadPoolExecutor(2) as pool:
        outcome = {"prediction_id": said["id"], "value": 1, "observed_at": datetime.now(UTC).isoformat()}
        hasty = ask(patient, X_Deadline_Ms="300")
        hasty_waited = time.monotonic() - began
        refused = [
            pool.submit(ask, patient, X_Deadline_Ms="60000"),
            pool.submit(client.post, "/v1/outcomes", json=[outcome]),
        ]
        answers = [answer.result() for answer in refused]
    waited = time.monotonic() - began
    holder.rollback()
    holder.close()

    assert waited >= BUSY_TIMEOUT_S - 1
    assert hasty_waited < BUSY_TIMEOUT_S / 2, "a request waited for the ledger beyond its deadline"
    for answer in (hasty, *answers):
        assert answer.status_code == 503
        assert int(answer.headers["Retry-After"]) >= 1
        assert answer.json()["error"]["code"] == "ledger"
    assert rows() - before == 1
    assert ask(patient).status_code == 200
    assert rows() - before == 2


def test_a_ledger_opened_twice_by_one_process_keeps_its_log_from_the_others(tmp_path):
    """A file that is closed anywhere in a process drops its POSIX locks; the next to close would take the log away."""
    settings = Settings(home=tmp_path)
    first = connect(settings)
    first.connect().close()  # the pool keeps it open
    second = connect(settings)

    code = "from configs.settings import settings; from ledger.database import connect; connect(settings()).dispose()"
    variables = {**os.environ, "MEDIMIND_HOME": str(tmp_path)}
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=variables, check=True, timeout=60)

    assert (tmp_path / "ledger.db-wal").exists()
    first.dispose()
    second.dispose()
