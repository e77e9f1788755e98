"""A record's way to its answer: the same bits as without a server, on record before it is told, told once."""

import hashlib
import json
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pyarrow as pa
import pytest
import sqlalchemy as sa

from features import units
from features.synthetic import draw
from ledger import predictions
from models.predict import Prediction
from pipelines.score import predict
from serving.schemas import ARROW


@pytest.fixture
def drawn(predictor):
    """Thirty random records, and the risks that the champion gives them without a server."""
    records = draw(predictor.spec.columns, 30, seed=5)
    return records, predictor.risk(predictor.features([predictor.check(record) for record in records])).tolist()


def test_one_by_one_over_http_gives_the_same_bits_as_the_bundle(ask, drawn):
    records, risks = drawn

    said = [ask(record).json()["predictions"][0]["risk"] for record in records]

    assert said == risks


def test_a_batch_over_http_gives_the_same_bits_as_the_bundle(ask, drawn):
    records, risks = drawn

    said = [answer["risk"] for answer in ask(*records).json()["predictions"]]

    assert said == risks


def test_an_answer_names_its_model_version_band_and_what_was_missing(ask, patient, predictor):
    answer = ask(patient, {"age_years": 61, "sex": "female", "pain": None}).json()

    whole, scarce = answer["predictions"]
    assert (answer["model"], answer["version"]) == ("toy", 1)
    assert whole["missing"] == []
    assert scarce["missing"] == ["cholesterol_mg_dl", "max_heart_rate_bpm", "pain", "smoker"]
    thresholds = predictor.bundle.thresholds
    reached = [name for name, limit in sorted(thresholds.items(), key=lambda item: item[1]) if whole["risk"] >= limit]
    assert whole["band"] == (reached[-1] if reached else None)


@pytest.fixture
def people(predictor):
    """As many as it takes to be told a band, to be unsure of, and to know too little of; and what is said of each."""
    drawn = [*draw(predictor.spec.columns, 60, seed=11), {"age_years": 61, "sex": "female"}]
    records = [predictor.check(record) for record in drawn]
    expected = predictor.predictions(records, predictor.risk(predictor.features(records)))
    assert {one.abstained for one in expected} == {
        None,
        "neither outcome can be ruled out",
        "4 values are missing, at most 3 may be",
    }
    assert {tuple(one.set) for one in expected} == {("negative",), ("negative", "positive"), ("positive",)}
    return drawn, expected


def told(said):
    return Prediction(said["risk"], said["band"], said["missing"], said["set"], said.get("abstained"))


def test_the_set_and_the_reason_for_silence_are_the_same_by_every_way(ask, client, people, machine, tmp_path):
    records, expected = people
    names = list(dict.fromkeys(name for record in records for name in record))
    columns = {name: [record.get(name) for record in records] for name in names}
    stream = pa.BufferOutputStream()
    with pa.ipc.new_stream(stream, (table := pa.table(columns)).schema) as writer:
        writer.write_table(table)
    (tmp_path / "asked.json").write_text(json.dumps(records))
    url = "/v1/models/toy/predict"

    together = ask(*records).json()["predictions"]
    ways = {
        "together": together,
        "one by one": [ask(record).json()["predictions"][0] for record in records],
        "columns": client.post(url, json={"columns": columns}).json()["predictions"],
        "arrow": client.post(url, content=stream.getvalue().to_pybytes(), headers={"Content-Type": ARROW}).json()[
            "predictions"
        ],
        "from a file": predict("toy", tmp_path / "asked.json", machine)["predictions"],
    }

    for way, said in ways.items():
        assert [told(one) for one in said] == expected, way
    for said in together:
        kept = client.get(f"/v1/predictions/{said['id']}").json()
        assert told({**said, **{name: kept[name] for name in ("risk", "band", "set")}}) == told(said)
        assert kept.get("abstained") == said.get("abstained")


def test_missing_is_not_zero(ask, patient):
    without = {name: value for name, value in patient.items() if name != "max_heart_rate_bpm"}

    left_out, null, lowest = ask(
        without, {**without, "max_heart_rate_bpm": None}, {**without, "max_heart_rate_bpm": 40}
    ).json()["predictions"]
    refused = ask({**without, "max_heart_rate_bpm": 0})

    assert left_out["risk"] == null["risk"] != lowest["risk"]
    assert left_out["missing"] == null["missing"] == ["max_heart_rate_bpm"]
    assert lowest["missing"] == []
    assert refused.status_code == 422


def test_a_zero_that_the_contract_calls_missing_is_told_as_missing(ask, patient):
    zero, null = ask({**patient, "cholesterol_mg_dl": 0}, {**patient, "cholesterol_mg_dl": None}).json()["predictions"]

    assert zero["risk"] == null["risk"]
    assert zero["missing"] == null["missing"] == ["cholesterol_mg_dl"]


def test_a_value_in_another_unit_of_the_contract_is_the_same_value(ask, patient):
    mmol_l = 240 / units.conversion("mmol/L", "mg/dL", "2093-3").scale

    ours, theirs = ask(patient, {**patient, "cholesterol_mg_dl": {"value": mmol_l, "unit": "mmol/L"}}).json()[
        "predictions"
    ]

    assert theirs["risk"] == pytest.approx(ours["risk"], abs=1e-6)


def test_every_answered_prediction_is_on_record_and_no_refused_one_is(ask, patient, rows, ledger):
    before = rows()

    answer = ask(patient, {**patient, "pain": "sharp"}, {**patient, "age_years": 40}).json()
    ask({**patient, "pain": "sharp"})

    assert rows() - before == 2
    for said in answer["predictions"]:
        if "id" in said:
            assert predictions.find(ledger, said["id"]).risk == said["risk"]


def test_a_prediction_can_be_looked_up_and_computed_again_to_the_bit(ask, patient, client, predictor):
    said = ask({**patient, "cholesterol_mg_dl": {"value": 6.2, "unit": "mmol/L"}}).json()["predictions"][0]

    told = client.get(f"/v1/predictions/{said['id']}").json()
    again = client.get(f"/v1/predictions/{said['id']}", params={"replay": "true"}).json()

    assert "replay" not in told
    assert told["risk"] == said["risk"]
    assert told["bundle"] == predictor.bundle.digest
    assert told["record"]["cholesterol_mg_dl"] == {"value": 6.2, "unit": "mmol/L"}
    row = np.array([np.nan if value is None else value for value in told["features"]], np.float32)
    assert told["feature_digest"] == predictions.feature_digest(row)
    assert again == {**told, "replay": {"risk": said["risk"], "agrees": "to the bit", "same_features": True}}


def test_a_time_of_prediction_is_kept_as_it_was_told(ask, patient, client):
    said = ask({**patient, "at": "2026-01-02T04:05:06+01:00"}).json()["predictions"][0]

    assert client.get(f"/v1/predictions/{said['id']}").json()["record"]["at"] == "2026-01-02T03:05:06+00:00"


@pytest.mark.parametrize(
    "id_", ["999999999-0", "1-99999", "1", "1-0-0", "x", "-1-0", "1-99999999999999999999999", "9" * 30 + "-0"]
)
def test_a_prediction_that_is_not_on_record_is_not_found(id_, ask, patient, client):
    ask(patient)

    answer = client.get(f"/v1/predictions/{id_}")

    assert answer.status_code == 404
    assert answer.json()["error"]["code"] == "not_on_record"


def test_the_same_key_and_body_get_the_very_same_bytes_and_one_row(ask, patient, rows):
    before = rows()

    first = ask(patient, {**patient, "pain": "sharp"}, Idempotency_Key="same")
    second = ask(patient, {**patient, "pain": "sharp"}, Idempotency_Key="same")

    assert second.status_code == 200
    assert first.content == second.content
    assert rows() - before == 1


def test_the_same_key_with_another_body_is_refused(ask, patient, rows):
    ask(patient, Idempotency_Key="twice")
    before = rows()

    answer = ask({**patient, "age_years": 62}, Idempotency_Key="twice")

    assert answer.status_code == 422
    assert answer.json()["error"]["code"] == "idempotency_key"
    assert answer.json()["error"]["field"] == "Idempotency-Key"
    assert rows() == before


def test_the_same_key_eight_times_at_once_makes_one_prediction(ask, patient, rows):
    before = rows()

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: ask(patient, Idempotency_Key="at once", X_Deadline_Ms="20000"), range(8)))

    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.content for answer in answers}) == 1
    assert rows() - before == 1


@pytest.mark.parametrize("key", ["", "k" * 201, "tab\there"])
def test_a_key_that_is_none_is_refused(key, ask, patient):
    answer = ask(patient, Idempotency_Key=key)

    assert answer.status_code == 422
    assert answer.json()["error"]["field"] == "Idempotency-Key"


@pytest.mark.parametrize("deadline", ["0", "-5", "1.5", "soon", "", "1e3", "99999999999"])
def test_a_deadline_that_is_no_number_of_milliseconds_is_refused(deadline, ask, patient):
    answer = ask(patient, X_Deadline_Ms=deadline)

    assert answer.status_code == 422
    assert answer.json()["error"]["field"] == "X-Deadline-Ms"


def test_a_deadline_that_passed_before_the_model_ran_is_answered_with_try_again(ask, patient, rows):
    before = rows()

    answer = ask(*[patient] * 3000, X_Deadline_Ms="1")

    assert answer.status_code == 503
    assert int(answer.headers["Retry-After"]) >= 1
    assert answer.json()["error"]["code"] == "deadline"
    assert rows() == before


def test_many_records_at_once_are_answered_within_a_deadline_that_allows_it(ask, patient, predictor):
    began = time.monotonic()

    said = ask(*[{**patient, "age_years": 20 + n % 90} for n in range(2000)], X_Deadline_Ms="30000").json()[
        "predictions"
    ]

    assert time.monotonic() - began < 30
    assert [one["risk"] for one in said[:90]] == [one["risk"] for one in said[90:180]]
    alone = ask({**patient, "age_years": 20}).json()["predictions"][0]["risk"]
    assert alone == said[0]["risk"]


def test_a_patient_is_on_record_as_a_keyed_hash_and_the_same_patient_as_the_same(ask, patient, ledger, machine):
    ask({**patient, "patient": "Ada"}, {**patient, "patient": "Bob"}, {**patient, "patient": "Ada"}, patient)

    with ledger.connect() as connection:
        kept = connection.execute(sa.text("SELECT patients FROM requests ORDER BY id DESC LIMIT 1")).scalar_one()
    ada, bob, again, nobody = json.loads(kept)
    assert ada == again != bob
    assert nobody is None
    assert ada == predictions.hash_patients(predictions.patient_key(machine.home), ["Ada"])[0]
    assert ada != hashlib.sha256(b"Ada").hexdigest()
