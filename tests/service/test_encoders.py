"""A text over a real server, read by a frozen encoder; and what is said when the encoder is another."""

import shutil
import time

import pytest

from models import encoders

FELL, DID_NOT = "fell twice at home .", "steady . no falls"
OTHERS = {"age_years": 61, "sex": "female", "cholesterol_mg_dl": 240}
PREDICT = "/v1/models/toy/predict"
SETTLES_WITHIN_S = 60


@pytest.fixture
def notes(champion_of, toy_document, toy_table, sentences, tmp_path, monkeypatch):
    """A machine whose champion reads a note, which tells of a fall in those who are sick; every fifth is wrong."""
    table = toy_table(400)
    table["note"] = [FELL if (sick == 1) == (row % 5 > 0) else DID_NOT for row, sick in enumerate(table["sick"])]
    text = {"type": "text", "length": 40}
    encoder = {"path": str(sentences), "sha256": encoders.digest(sentences), "kind": "sentence_transformer"}
    document = toy_document | {
        "columns": {**toy_document["columns"], "note": text},
        "features": ["age_years", "note"],
        "candidates": ["frozen_encoder"],
        "encoder": {**encoder, "reads": "note", "head": "logistic"},
    }
    monkeypatch.setenv("MEDIMIND_HOME", str(tmp_path / "home"))  # where a bundle looks for its encoder
    return champion_of(tmp_path, document, table)


def ready(client):
    return client.get("/readyz").json()["models"]["toy"]


def test_a_changed_encoder_answers_nobody_until_it_is_whole_again_and_then_reads_texts(once, notes, sentences, serve):
    laid = notes.home / "encoders" / encoders.digest(sentences)
    told = laid / "1_Pooling" / "config.json"
    told.write_text('{"pooling_mode_cls_token": true}')
    with serve(notes).client() as client:
        assert not ready(client)["ready"]
        assert f"where {encoders.digest(sentences)} is promised: changed, and is not used" in ready(client)["why"]
        refused = client.post(PREDICT, json={"records": [{**OTHERS, "note": FELL}]})
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "not_ready")

        shutil.copyfile(sentences / "1_Pooling" / "config.json", told)
        until = time.monotonic() + SETTLES_WITHIN_S
        while not ready(client)["ready"] and time.monotonic() < until:
            time.sleep(0.5)

        told_of = [{**OTHERS, "note": note} for note in (FELL, DID_NOT, None, "fell\0", "x" * 41, 7, " ")]
        answers = client.post(PREDICT, json={"records": told_of}).json()["predictions"]
        assert answers[0]["risk"] > answers[2]["risk"] > answers[1]["risk"]
        assert answers[2]["missing"] == ["note"]
        codes = [answer["error"]["code"] for answer in answers[3:]]
        assert codes == ["control_character", "too_long", "not_a_text", "blank_text"]
        replayed = client.get(f"/v1/predictions/{answers[0]['id']}", params={"replay": "true"}).json()
        assert replayed["record"]["note"] == FELL
        assert replayed["replay"]["same_features"]
        asked = {"records": told_of[:1], "explain": True}
        explained = client.post(PREDICT, json=asked, headers={"X-Deadline-Ms": "30000"}).json()
        assert explained["predictions"][0]["explanation"]["contributions"]["note"] > 0
