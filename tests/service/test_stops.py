"""What may not answer any more refuses within two seconds, in every worker, and says why; the others go on."""

import time

import pytest

from pipelines.stop import lift, retire, stop

FOLLOWED_WITHIN_S = 2.0

pytestmark = pytest.mark.usefixtures("at_one")


def predict(client, name, patient):
    return client.post(f"/v1/models/{name}/predict", json={"records": [patient]})


def until_refused(clients, name, patient, code):
    """What each worker answers once it refuses; every worker has to, in time."""
    deadline = time.monotonic() + FOLLOWED_WITHIN_S
    answers = []
    for client in clients.values():
        while (answer := predict(client, name, patient)).status_code == 200 and time.monotonic() < deadline:
            time.sleep(0.02)
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, code)
        assert int(answer.headers["Retry-After"]) >= 1
        answers.append(answer)
    return answers


def state_of(client, name):
    ready = client.get("/readyz")
    (listed,) = (model for model in client.get("/v1/models").json()["models"] if model["name"] == name)
    assert ready.status_code == 503
    assert ready.json()["models"][name] == listed
    return listed


def test_a_stopped_model_refuses_with_the_reason_until_the_stop_is_lifted(pair, ward, patient):
    with pair.one_client_each() as clients:
        assert {predict(client, "toy", patient).status_code for client in clients.values()} == {200}

        stop("toy", "a wrong unit at the laboratory", ward)

        for answer in until_refused(clients, "toy", patient, "stopped"):
            assert "a wrong unit at the laboratory" in answer.json()["error"]["message"]
        for client in clients.values():
            state = state_of(client, "toy")
            assert not state["ready"]
            assert "a wrong unit at the laboratory" in state["why"]
            assert client.get("/v1/models/toy").json()["error"]["code"] == "stopped"
            assert predict(client, "steady", patient).status_code == 200

        lift("toy", "the laboratory reports mg/dL again", ward)

        time.sleep(FOLLOWED_WITHIN_S)
        for client in clients.values():
            assert predict(client, "toy", patient).status_code == 200
            assert client.get("/readyz").json()["models"]["toy"]["why"] is None


def test_a_retired_champion_refuses_and_no_other_version_takes_its_place(pair, ward, patient):
    with pair.one_client_each() as clients:
        assert retire("spent", 1, "its laboratory test is no longer made", ward)

        for answer in until_refused(clients, "spent", patient, "retired"):
            assert "spent@1 is retired: its laboratory test is no longer made" in answer.json()["error"]["message"]
        for client in clients.values():
            state = state_of(client, "spent")
            assert (state["version"], state["ready"]) == (1, False)
            assert "its laboratory test is no longer made" in state["why"]
            assert predict(client, "steady", patient).status_code == 200


def test_a_model_past_its_last_day_refuses_and_names_the_day(pair, versions, patient):
    with pair.one_client_each() as clients:
        for client in clients.values():
            answer = predict(client, "past", patient)
            assert (answer.status_code, answer.json()["error"]["code"]) == (503, "expired")
            assert int(answer.headers["Retry-After"]) >= 1
            state = state_of(client, "past")
            assert not state["ready"]
            assert "past@1 expired at the end of 20" in state["why"]
            assert state["why"] in answer.json()["error"]["message"]
            assert predict(client, "steady", patient).status_code == 200
