"""The registry goes away, and bundles lose bits in the store: what is served goes on being served."""

import socket
import subprocess
import sys
import time
from contextlib import closing
from dataclasses import replace

import httpx
import numpy as np
import psutil
import pytest

from ledger import promotions
from models.onnx import Linear, read_model
from pipelines.promote import rollback
from tests.faults.conftest import nothing_is_lost, opened

pytestmark = pytest.mark.faults(within_s=150)

FOLLOWED_WITHIN_S = 2.0


@pytest.fixture
def registry(tmp_path):
    """MLflow's own server, on an empty registry: its process and its address."""
    with closing(socket.create_server(("127.0.0.1", 0))) as probe:
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", f"sqlite:///{tmp_path / 'mlflow.db'}"]
    command += ["--artifacts-destination", str(tmp_path / "artifacts"), "--allowed-hosts", f"127.0.0.1:{port}"]
    with open(tmp_path / "mlflow.log", "wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, start_new_session=True)
    address = f"http://127.0.0.1:{port}"
    deadline = time.monotonic() + 90
    while not answers(address):
        assert process.poll() is None and time.monotonic() < deadline, (tmp_path / "mlflow.log").read_text()[-2000:]
        time.sleep(0.2)
    yield process, address
    everybody_killed(process)


def everybody_killed(process):
    if process.poll() is None:
        everyone = [*psutil.Process(process.pid).children(recursive=True), psutil.Process(process.pid)]
        for one in everyone:
            one.kill()
        process.wait()
        psutil.wait_procs(everyone, timeout=10)


def answers(address) -> bool:
    try:
        return httpx.get(f"{address}/health", timeout=5, trust_env=False).status_code == 200
    except httpx.TransportError:
        return False


def test_a_registry_that_goes_down_stops_no_answer_no_rollback_and_no_restart(registry, machine_of, crown, serve, load):
    process, address = registry
    settings = machine_of().model_copy(update={"registry": address})
    crown(settings, number=2, owner="somebody else")
    server = serve(settings, "toy", MEDIMIND_REGISTRY=address)

    with load(server) as calls:
        calls.turn()
        everybody_killed(process)
        assert not answers(address)
        time.sleep(2)
        back = rollback("toy", "the registry is down, and the ledger is not", settings)
        time.sleep(FOLLOWED_WITHIN_S)
        said = calls.turn()
        with server.client() as client:
            now = client.get("/v1/models").json()["models"][0]

    assert set(said) == {"200"}
    assert back.alias is not None, "the registry's copy could not be made, and nobody said so"
    assert (now["version"], now["ready"]) == (1, True)
    nothing_is_lost(settings, calls)
    assert {version_of(told) for told in calls.told} == {1, 2}

    server.stop()
    server.start()
    with load(server) as calls:
        time.sleep(0.5)
    assert {version_of(told) for told in calls.told} == {1}


def version_of(told) -> int:
    return int(told.body.partition(b'"version":')[2].partition(b",")[0])


def test_a_bundle_that_is_damaged_while_it_is_served_answers_as_before_and_is_not_started_again(
    machine_of, crown, serve, load, patient
):
    settings = machine_of()
    served = crown(settings, number=2, candidates=["logistic"])
    crown(settings, "steady")
    server = serve(settings, "toy", "steady")

    with server.client() as client:
        before = asked(client, patient)
        with load(server, 8) as calls:
            calls.turn()
            damage(served)
            time.sleep(2 * FOLLOWED_WITHIN_S)
            said = calls.turn()
        assert set(said) == {"200"}
        nothing_is_lost(settings, calls)
        assert asked(client, patient) == before
        # Explanations are read from the same file, at first use.
        body = {"records": [patient], "explain": True}
        explained = client.post("/v1/models/toy/predict", json=body)
        assert explained.status_code == 422
        assert explained.json()["error"]["code"] == "explain_unavailable"
        assert "model.onnx" in explained.json()["error"]["message"]
        assert asked(client, patient) == before

        # A version that is damaged before it is promoted takes nobody's place.
        third = crown(settings, "other", number=3)
        damage(third)
        with opened(settings) as engine:
            champion = promotions.find_champion(engine, "toy")
            report = replace(champion.report, bundle=third.digest)
            promotions.promote(engine, 3, report, "tests", "it is damaged, and nobody knows")
        time.sleep(FOLLOWED_WITHIN_S)
        state = client.get("/readyz").json()["models"]["toy"]
        assert "toy@3 cannot be loaded, toy@2 answers" in state["why"]
        assert asked(client, patient) == before

    with opened(settings) as engine:
        promotions.promote(engine, 2, replace(champion.report, bundle=served.digest), "tests", "back to the second")
    server.stop()
    server.start()
    server.wait()
    with server.client() as client:
        states = client.get("/readyz").json()["models"]
        assert not states["toy"]["ready"]
        assert "model.onnx" in states["toy"]["why"]
        assert states["steady"]["ready"]
        refused = client.post("/v1/models/toy/predict", json={"records": [patient]})
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "not_ready")
        assert client.post("/v1/models/steady/predict", json={"records": [patient]}).status_code == 200


def asked(client, patient) -> float:
    answer = client.post("/v1/models/toy/predict", json={"records": [patient]})
    assert answer.status_code == 200, answer.text
    return answer.json()["predictions"][0]["risk"]


def damage(bundle) -> None:
    """Turn the sign of one weight on the disk, in place; or one bit in the middle, where it is no linear model."""
    content = bytearray((bundle.folder / "model.onnx").read_bytes())
    place = len(content) // 2
    model = read_model(bundle.folder / "model.onnx")
    if isinstance(model, Linear):
        weight = next(weight for weight in model.weights if weight)
        found = [content.find(kind(weight).tobytes()) + kind(0).nbytes - 1 for kind in (np.float32, np.float64)]
        place = max(found)
        content[place] ^= 0x80
        (bundle.folder / "model.onnx").write_bytes(content)
        assert isinstance(read_model(bundle.folder / "model.onnx"), Linear), "the damage is seen without a digest"
    else:
        content[place] ^= 1
        (bundle.folder / "model.onnx").write_bytes(content)
