"""A file of records is scored as the contract reads it, and the file that was asked about is never touched."""

import json
import os

import numpy as np
import pandas as pd
import pytest

from configs.errors import SourceError
from configs.settings import Settings
from configs.spec import from_document
from pipelines import score as scoring
from pipelines.score import predict, score

ROW = {"age_years": 60, "max_heart_rate_bpm": 150, "cholesterol_mg_dl": 200, "pain": "rest", "smoker": True}


@pytest.fixture
def champion(monkeypatch, predictor):
    """The invented disease has a champion."""
    monkeypatch.setattr(scoring, "champion", lambda name, settings: (predictor, 1))


def test_a_word_that_pandas_takes_for_missing_is_not_scored_as_missing(champion, home, tmp_path):
    source, target = tmp_path / "in.csv", tmp_path / "out.csv"
    pd.DataFrame([ROW, {**ROW, "pain": "None"}, {**ROW, "pain": None}]).to_csv(source, index=False)

    assert score("angina", source, target, home) == (2, 1)

    assert "pain" in pd.read_csv(target).error[1]


@pytest.mark.parametrize("kind", ["same", "dotted", "hard link", "symbolic link"])
def test_the_table_is_never_overwritten_by_its_own_scores(kind, champion, home, tmp_path):
    source = tmp_path / "in.csv"
    pd.DataFrame([ROW]).to_csv(source, index=False)
    before = source.read_bytes()
    target = {"same": source, "dotted": tmp_path / "x" / ".." / "in.csv"}.get(kind, tmp_path / "out.csv")
    if kind == "hard link":
        os.link(source, target)
    if kind == "symbolic link":
        target.symlink_to(source)

    with pytest.raises(SourceError, match="the same file"):
        score("angina", source, target, home)

    assert source.read_bytes() == before
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity"])
def test_a_number_that_json_does_not_know_is_refused_with_its_file(number, champion, home, tmp_path):
    path = tmp_path / "asked.json"
    path.write_text(f'{{"age_years": 60, "max_heart_rate_bpm": {number}}}')

    with pytest.raises(SourceError, match=rf"asked\.json: is no JSON \({number}"):
        predict("angina", path, home)


# --- signals

PERSON = {"age_years": 60, "sex": "male", "cholesterol_mg_dl": 200}


@pytest.fixture
def listens(monkeypatch, reader):
    """The invented disease that is sent a waveform and an image has a champion."""
    monkeypatch.setattr(scoring, "champion", lambda name, settings: (reader, 1))
    return reader


def test_a_tables_lists_are_a_recording_whole_or_lead_by_lead(listens, recording, home, tmp_path):
    waves = [recording(1), recording(2), recording(3)[:, :40]]
    expected = [predict_one(listens, {**PERSON, "ecg": wave}) for wave in waves[:2]]
    for name, cells in {"whole": [wave.ravel() for wave in waves], "by lead": [[*wave] for wave in waves]}.items():
        pd.DataFrame([PERSON] * 3).assign(ecg=cells).to_parquet(tmp_path / f"{name}.parquet")

        assert score("toy", tmp_path / f"{name}.parquet", tmp_path / "said.parquet", home) == (2, 1), name

        said = pd.read_parquet(tmp_path / "said.parquet")
        assert said.risk[:2].tolist() == expected
        assert said.error[2].startswith("ecg: ")


def predict_one(predictor, record):
    return float(predictor.risk(predictor.features([predictor.check(record)]))[0])


def test_a_tables_paths_are_read_from_the_columns_folder(
    monkeypatch, listens, recordings_document, recording, home, tmp_path
):
    elsewhere = Settings(home=home.home, configs=tmp_path / "configs", user=home.user)
    folder = tmp_path / "recordings"
    folder.mkdir()
    np.save(folder / "one.npy", recording(1))
    with_folder = {**recordings_document["columns"]["ecg"], "folder": "recordings"}
    document = {**recordings_document, "columns": {**recordings_document["columns"], "ecg": with_folder}}
    monkeypatch.setattr(listens, "spec", from_document(document, "toy.yaml"))
    pd.DataFrame([{**PERSON, "ecg": "one.npy"}, {**PERSON, "ecg": "two.npy"}, PERSON]).to_csv(
        tmp_path / "in.csv", index=False
    )

    assert score("toy", tmp_path / "in.csv", tmp_path / "said.csv", elsewhere) == (2, 1)

    said = pd.read_csv(tmp_path / "said.csv", float_precision="round_trip")
    assert said.risk[0] == predict_one(listens, {**PERSON, "ecg": recording(1)})
    assert "cannot be read" in said.error[1] and "two" not in said.error[1]


def test_a_records_signal_may_be_a_file_beside_it(listens, recording, home, tmp_path):
    wave = recording(4)
    np.save(tmp_path / "visit-1.npy", wave)
    asked = [{**PERSON, "ecg": {"file": name}} for name in ("visit-1.npy", "visit-2.npy", "../visit-1.npy")]
    (tmp_path / "asked.json").write_text(json.dumps([*asked, {**PERSON, "ecg": wave.tolist()}]))

    first, absent, outside, listed = predict("toy", tmp_path / "asked.json", home)["predictions"]

    assert first["risk"] == listed["risk"] == predict_one(listens, {**PERSON, "ecg": wave})
    assert {absent["error"]["code"], outside["error"]["code"]} == {"unreadable_file"}
    assert first["missing"] == listed["missing"] and "ecg" not in first["missing"]
