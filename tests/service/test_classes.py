"""A model of several classes behind a real server: each one's risk, the class that is said, outcomes by class."""

import json
from datetime import UTC, datetime

import jsonschema
import numpy as np
import pandas as pd
import pytest
import schemathesis
import sqlalchemy as sa

from client import Client, Outcome, OutcomeRecorded, Refused
from configs.spec import from_document
from features.synthetic import draw
from ledger.database import connect
from ledger.promotions import find_champion
from models.bundle import get
from models.predict import Predictor
from pipelines import score
from serving.schemas import openapi

CLASSES = ["none", "colon", "lung"]
THEN = "2026-01-02T03:04:05Z"


@pytest.fixture
def predictor(origins):
    engine = connect(origins)
    champion = find_champion(engine, "toy")
    engine.dispose()
    return Predictor(get(champion.bundle, origins))


@pytest.fixture
def client(once, origins_server):
    return once("client of origins", lambda stack: stack.enter_context(origins_server.client()))


@pytest.fixture
def told(client, patient):
    """`told(value)`: what an outcome of this value is answered, about a new prediction."""

    def tell(value):
        said = client.post("/v1/models/toy/predict", json={"records": [{**patient, "at": "2026-01-01T00:00:00Z"}]})
        (prediction,) = said.json()["predictions"]
        outcome = {"prediction_id": prediction["id"], "value": value, "observed_at": THEN}
        return client.post("/v1/outcomes", json=[outcome])

    return tell


def test_every_class_has_its_risk_to_the_bit_and_the_events_is_their_sum(client, predictor):
    records = draw(predictor.spec.columns, 40, seed=3)
    answer = client.post("/v1/models/toy/predict", json={"records": records}, headers={"X-Deadline-Ms": "60000"})

    checked = [predictor.check(record) for record in records]
    expected = predictor.predictions(checked, predictor.risks(predictor.features(checked)))
    for said, one in zip(answer.json()["predictions"], expected, strict=True):
        assert list(said["risks"]) == CLASSES
        assert said["risks"] == one.risks
        assert said["class"] == one.label
        assert (said["risk"], said["band"], said["set"]) == (one.risk, one.band, one.set)
        assert said.get("abstained") == one.abstained
        assert sum(said["risks"].values()) == pytest.approx(1, abs=1e-12)
        assert said["risk"] == pytest.approx(said["risks"]["colon"] + said["risks"]["lung"], abs=1e-15)


def test_one_by_one_gives_the_same_bits_as_all_at_once(client, predictor):
    records = draw(predictor.spec.columns, 8, seed=4)

    def ask(*some):
        return client.post("/v1/models/toy/predict", json={"records": some}).json()["predictions"]

    together = ask(*records)
    assert [said["risks"] for said in together] == [ask(record)[0]["risks"] for record in records]


def test_a_record_that_is_refused_costs_the_others_neither_risk_nor_class(client, patient):
    bad = {**patient, "pain": "sharp"}
    answer = client.post("/v1/models/toy/predict", json={"records": [bad, patient, bad, {**patient, "age_years": 33}]})

    first, second, third, fourth = answer.json()["predictions"]
    assert "error" in first and "error" in third
    assert set(second["risks"]) == set(fourth["risks"]) == set(CLASSES)
    assert second["risks"] != fourth["risks"]


def test_each_class_has_an_explanation_that_adds_up_to_its_score(client, patient, predictor):
    body = {"records": [patient, {**patient, "age_years": 40}], "explain": True}
    answer = client.post("/v1/models/toy/predict", json=body, headers={"X-Deadline-Ms": "60000"}).json()

    for said in answer["predictions"]:
        assert list(said["explanations"]) == CLASSES
        assert "explanation" not in said
        scores = [[each["base"] + sum(each["contributions"].values()) for each in said["explanations"].values()]]
        again = predictor.bundle.calibration.risks(np.array(scores))[0]
        assert again == pytest.approx(list(said["risks"].values()), abs=1e-5)


def test_a_prediction_on_record_says_its_classes_and_is_replayed_to_the_bit(client, patient, origins):
    (said,) = client.post("/v1/models/toy/predict", json={"records": [patient]}).json()["predictions"]

    found = client.get(f"/v1/predictions/{said['id']}?replay=true").json()

    for name in ("risk", "risks", "class", "band", "set"):
        assert found[name] == said[name], name
    assert found["replay"] == {
        "risk": said["risk"],
        "risks": said["risks"],
        "agrees": "to the bit",
        "same_features": True,
    }


def test_the_same_answers_come_by_the_command_line(client, patient, origins, tmp_path):
    (said,) = client.post("/v1/models/toy/predict", json={"records": [patient]}).json()["predictions"]
    (tmp_path / "one.json").write_text(json.dumps(patient))
    pd.DataFrame([patient]).to_csv(tmp_path / "one.csv", index=False)

    (predicted,) = score.predict("toy", tmp_path / "one.json", origins)["predictions"]
    scored, refused = score.score("toy", tmp_path / "one.csv", tmp_path / "said.csv", origins)

    assert predicted == {name: value for name, value in said.items() if name != "id"}
    row = pd.read_csv(tmp_path / "said.csv", float_precision="round_trip").iloc[0]
    assert (scored, refused) == (1, 0)
    assert {name: row[f"risk of {name}"] for name in CLASSES} == said["risks"]
    assert (None if pd.isna(row["class"]) else row["class"]) == said["class"]


def test_a_model_shows_its_classes_and_what_an_error_costs(client):
    shown = client.get("/v1/models/toy").json()["classes"]

    assert {name: one["event"] for name, one in shown.items()} == {"none": False, "colon": True, "lung": True}
    assert shown["colon"]["costs"] == {"none": 20, "lung": 4}


def test_an_answer_keeps_the_openapi_document(client, patient, predictor):
    document = client.get("/openapi.json").json()
    body = {"records": [patient], "explain": True}
    answer = client.post("/v1/models/toy/predict", json=body, headers={"X-Deadline-Ms": "60000"}).json()
    number = answer["predictions"][0]["id"]

    def keeps(said, name):
        schema = {"$ref": f"#/components/schemas/{name}", "components": document["components"]}
        jsonschema.Draft202012Validator(schema).validate(said)

    keeps(answer, "answer")
    keeps(client.get("/v1/models/toy").json(), "model")
    keeps(client.get(f"/v1/predictions/{number}?replay=true").json(), "prediction_on_record")
    values = document["components"]["schemas"]["outcome"]["properties"]["value"]["enum"]
    assert values == [True, False, 0, 1, *CLASSES]
    assert document == openapi({"toy": predictor.spec})


@pytest.mark.parametrize(
    ("value", "kept"),
    [("lung", (1, "lung")), ("none", (0, "none")), (True, (1, None)), (0, (0, "none"))],
    ids=str,
)
def test_an_outcome_is_told_by_its_class_or_by_whether_the_event_happened(told, value, kept, origins):
    assert told(value).status_code == 200

    engine = connect(origins)
    with engine.connect() as connection:
        row = connection.execute(sa.text("SELECT value, label FROM outcomes ORDER BY id DESC LIMIT 1")).one()
    engine.dispose()
    assert tuple(row) == kept


@pytest.mark.parametrize("value", ["Mrs Miller", "Lung", "healthy", "negative"])
def test_a_class_that_does_not_exist_is_refused_with_those_that_do_and_not_repeated(told, value):
    answer = told(value)

    error = answer.json()["error"]
    assert (answer.status_code, error["code"], error["field"]) == (422, "unknown_class", "value")
    assert "none, colon, lung" in error["message"]
    assert value not in error["message"].split("classes:")[0]


@pytest.mark.parametrize("value", ["", "x" * 500, "a\u0000b", 2, None, [], 0.5])
def test_what_is_neither_a_class_nor_an_outcome_is_malformed(told, value):
    answer = told(value)
    assert (answer.status_code, answer.json()["error"]["code"]) == (422, "malformed")


def test_the_typed_client_tells_risks_class_and_outcomes_by_class(origins_server, patient):
    with Client(origins_server.url) as medimind:
        (said,) = medimind.predict("toy", [patient], explain=True, deadline_ms=60_000).predictions
        done = medimind.outcomes([Outcome("colon", datetime.now(UTC), prediction_id=said.id)])
        found = medimind.prediction(said.id, replay=True)
        with pytest.raises(Refused, match="422 unknown_class"):
            medimind.outcomes([Outcome("stomach", datetime.now(UTC), prediction_id=said.id)])

    assert list(said.risks) == list(said.explanations) == CLASSES
    assert said.explanation is None
    assert done == (OutcomeRecorded(said.id),)
    assert (found.risks, found.label) == (said.risks, said.label)
    assert (found.replay.risks, found.replay.agrees) == (said.risks, "to the bit")


def test_columns_in_pieces_are_answered_as_one_request(client, predictor):
    records = draw(predictor.spec.columns, 3 * predictor.spec.serving.max_batch + 1, seed=5)
    columns = {name: [record.get(name) for record in records] for name in predictor.spec.columns}

    answer = client.post("/v1/models/toy/predict", json={"columns": columns}, headers={"X-Deadline-Ms": "60000"})

    checked = [predictor.check(record) for record in records]
    risks = predictor.risks(predictor.features(checked)).tolist()
    assert [list(said["risks"].values()) for said in answer.json()["predictions"]] == risks


def test_both_kinds_of_model_share_one_openapi_document(predictor, toy_document):
    document = openapi({"toy": predictor.spec, "other": from_document({**toy_document, "name": "other"}, "other.yaml")})

    of_sets = document["components"]["schemas"]["prediction"]["properties"]["set"]["items"]["enum"]
    assert of_sets == ["negative", "positive", *CLASSES]
    schemathesis.openapi.from_dict(document).validate()
