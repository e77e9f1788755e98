"""What each feature added to the log-odds: it adds up to the risk, comes in time or not at all, holds nobody up."""

import json
import socket
import threading
import time

import httpx
import numpy as np
import pytest
import sqlalchemy as sa

from features.synthetic import draw
from ledger import traffic
from ledger.traffic import Lane, Target
from models import bundle as bundles
from pipelines.traffic import send

FOLLOWED_WITHIN_S = 2.0
LONE_WITHIN_S = 0.5
PATIENCE = {"X-Deadline-Ms": "60000"}

NEWEST = sa.text("SELECT max(id) FROM requests")

pytestmark = pytest.mark.usefixtures("at_one")


def explain(client, records, **headers) -> httpx.Response:
    return client.post("/v1/models/toy/predict", json={"records": records, "explain": True}, headers=headers)


def assert_adds_up(said, predictor):
    """Base and contributions are the log-odds that the bundle's own calibration makes the told risk of."""
    explained = said["explanation"]
    assert list(explained["contributions"]) == list(predictor.spec.features)
    log_odds = explained["base"] + sum(explained["contributions"].values())
    assert abs(predictor.bundle.calibration.risk(np.array([log_odds]))[0] - said["risk"]) < 1e-6


@pytest.fixture
def both(ward, ward_ledger):
    """Half of the patients are the boosted canary's, the others the logistic champion's."""
    send(Lane("toy", "canary"), "toy@2", 0.5, "for the test", ward)
    time.sleep(FOLLOWED_WITHIN_S)


def test_contributions_add_up_to_the_risk_in_both_families_and_change_no_risk(pair, both, versions):
    records = [
        {**record, "patient": str(number)} for number, record in enumerate(draw(versions[1].spec.columns, 60, seed=2))
    ]
    with pair.client() as client:
        plain = client.post("/v1/models/toy/predict", json={"records": records}, headers=PATIENCE).json()
        answer = explain(client, records, **PATIENCE).json()

    answered_by = [said.get("version", answer["version"]) for said in answer["predictions"]]
    assert set(answered_by) == {1, 2}
    for said, before, version in zip(answer["predictions"], plain["predictions"], answered_by, strict=True):
        assert_adds_up(said, versions[version])
        assert said["risk"] == before["risk"]
        assert "explanation" not in before


def test_a_bundle_that_cannot_be_explained_is_refused_by_name_and_answers_without(
    pair, ward, ward_ledger, versions, patient, tmp_path
):
    """Trees of an earlier release, which do not say how many patients passed each node; behind a tag."""
    import onnx

    whole = versions[2].bundle

    def without_counts(files):
        model = onnx.load(whole.folder / "model.onnx")
        (trees,) = (node for node in model.graph.node if node.op_type == "TreeEnsembleRegressor")
        kept = [attribute for attribute in trees.attribute if attribute.name != "nodes_hitrates"]
        del trees.attribute[:]
        trees.attribute.extend(kept)
        onnx.save(model, files / "model.onnx")

    documents = {
        path.stem: json.loads(path.read_bytes())
        for path in whole.folder.glob("*.json")
        if path.name != bundles.MANIFEST
    }
    earlier = bundles.write(tmp_path / "earlier", documents, without_counts)
    bundles.put(bundles.sign(earlier.folder, ward), ward)
    traffic.set_route(ward_ledger, Lane("toy", "ab", "earlier"), Target(20, earlier.digest), "for the test", "tests")
    time.sleep(FOLLOWED_WITHIN_S)
    with pair.one_client_each() as clients:
        for client in clients.values():
            refused = explain(client, [patient], **{"X-Traffic-Tag": "earlier"}, **PATIENCE)
            assert refused.status_code == 422
            error = refused.json()["error"]
            assert (error["code"], error["field"]) == ("explain_unavailable", "explain")
            assert "earlier release" in error["message"]
            assert explain(client, [patient], **PATIENCE).status_code == 200
            told = client.post(
                "/v1/models/toy/predict", json={"records": [patient]}, headers={"X-Traffic-Tag": "earlier"}
            ).json()
            assert told["version"] == 20


def test_an_explanation_that_is_too_late_is_no_answer_and_not_on_record(pair, patient, ward_ledger):
    with pair.client() as client, ward_ledger.connect() as connection:
        explain(client, [patient], **PATIENCE)
        before = connection.execute(NEWEST).scalar_one()

        late = explain(client, [patient] * 500, **{"X-Deadline-Ms": "1"})

        assert (late.status_code, late.json()["error"]["code"]) == (503, "deadline")
        assert late.json()["error"]["field"] == "X-Deadline-Ms"
        assert connection.execute(NEWEST).scalar_one() == before


def test_an_explanation_whose_client_has_left_is_not_on_record(pair, ward, versions, ward_ledger):
    """It leaves while the trees are explained, or before; nobody would read the answer."""
    send(Lane("toy", "ab", "trees"), "toy@2", None, "for the test", ward)
    time.sleep(FOLLOWED_WITHIN_S)
    body = json.dumps({"records": draw(versions[2].spec.columns, 10_000, seed=4), "explain": True}).encode()
    with pair.client() as client, ward_ledger.connect() as connection:
        before, newest = gone(client), connection.execute(NEWEST).scalar_one()

        with socket.create_connection(("127.0.0.1", pair.port)) as caller:
            head = f"POST /v1/models/toy/predict HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n"
            more = "Content-Type: application/json\r\nX-Traffic-Tag: trees\r\nX-Deadline-Ms: 60000\r\n\r\n"
            caller.sendall((head + more).encode() + body)
            time.sleep(0.15)

        deadline = time.monotonic() + 10
        while gone(client) == before and time.monotonic() < deadline:
            time.sleep(0.05)
        assert gone(client) == before + 1
        assert connection.execute(NEWEST).scalar_one() == newest


def gone(client) -> float:
    """How many requests of `toy` are counted whose client had left."""
    wanted = 'medimind_refusals_total{code="gone",model="toy"}'
    lines = (line.rpartition(" ") for line in client.get("/metrics").text.splitlines())
    return sum(float(value) for name, _, value in lines if name == wanted)


def test_a_long_explanation_holds_no_other_caller_of_the_same_worker_up(pair, ward, patient, versions):
    """The trees' explanations, which take the longest, by way of a tag."""
    send(Lane("toy", "ab", "trees"), "toy@2", None, "for the test", ward)
    time.sleep(FOLLOWED_WITHIN_S)
    records = draw(versions[2].spec.columns, 2000, seed=4)
    took = []
    with pair.client() as first, pair.one_client_each() as clients:
        lone = clients[pair.worker_of(first)]
        long: list[httpx.Response] = []

        def ask_long():
            long.append(explain(first, records, **{"X-Traffic-Tag": "trees"}, **PATIENCE))

        thread = threading.Thread(target=ask_long)
        thread.start()
        while thread.is_alive():
            began = time.monotonic()
            answer = lone.post("/v1/models/toy/predict", json={"records": [patient]})
            took.append(time.monotonic() - began)
            assert answer.status_code == 200
        thread.join()

    assert long[0].status_code == 200
    for said in long[0].json()["predictions"][::100]:
        assert_adds_up(said, versions[2])
    assert len(took) >= 3
    assert max(took) < LONE_WITHIN_S
