"""A file of records is scored as the contract reads it, and the file that was asked about is never touched."""

import os

import pandas as pd
import pytest

from configs.errors import SourceError
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
