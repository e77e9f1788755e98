"""`medimind simulate`: the loop over history, told at the terminal; what it keeps is what the server would keep."""

import json
import re
import shutil

import numpy as np
import pytest
import sqlalchemy as sa
import yaml

from configs.settings import Settings
from configs.spec import load_spec
from ledger import predictions, tables
from ledger.database import at, connect
from ledger.promotions import find_champion, promote
from pipelines.simulate import Clinic
from pipelines.stream import stream

MARKER = "MARKER4711"
"""Stands in every patient's identifier on that machine."""


@pytest.fixture
def watched(machine, tmp_path, monkeypatch):
    """That machine's configs and data, copied, with a small window and a trigger."""
    here = Settings(home=tmp_path / "home", configs=tmp_path / "configs", data=tmp_path / "data")
    shutil.copytree(machine.configs, here.configs)
    path = here.configs / "diseases" / "toy.yaml"
    document = yaml.safe_load(path.read_text())
    document |= {"candidates": ["logistic"], "monitoring": {"window": 30, "min_outcomes": 20}}
    document["monitoring"]["retrain_when"] = {"new_outcomes": 40}
    document["change_control"]["retrain"] |= {"trial": {"outcomes": 20}}
    path.write_text(yaml.safe_dump(document, sort_keys=False))
    for name in ("home", "configs", "data"):
        monkeypatch.setenv(f"MEDIMIND_{name.upper()}", str(getattr(here, name)))
    return here


def test_the_story_is_told_and_the_pages_lie_where_they_were_asked_for(medimind, watched, tmp_path):
    out = tmp_path / "out"

    said = medimind("simulate", "toy", "--per-day", "20", "--limit", "80", "--output", out)

    assert said.code == 0, said.err
    assert "toy@1 promoted: its report passes every gate" in said.out
    assert re.search(r"toy begun: \d+ outcomes have come since toy@1 was trained", said.out)
    assert "80 of 80 patients of the external part of toy answered" in said.out
    assert "its times are invented" in said.out
    assert f"time line {out / 'timeline.html'}" in said.out.replace("\n", "")
    told = json.loads((out / "simulation.json").read_text())
    assert told["steps"][0]["step"] == "begun" and told["windows"] >= 2
    assert "every day and hour here is invented" in (out / "timeline.html").read_text()
    assert MARKER not in said.out + said.err
    assert not [path for path in out.rglob("*") if path.is_file() and MARKER.encode() in path.read_bytes()]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("tox",), "no disease 'tox'"),
        (("toy", "--per-day", "0"), "--per-day 0: at least one patient a day is expected"),
        (("toy", "--source", "gone.parquet"), "gone.parquet: does not exist"),
        (("picky",), "picky@1: its report does not pass"),
    ],
)
def test_what_cannot_be_replayed_is_one_line(medimind, watched, words, said):
    done = medimind("simulate", *words)

    assert done.code == 2
    assert said in done.err and done.err.count("\n") == 1 and done.err.startswith("medimind: ")


def test_a_replayed_patient_goes_on_record_as_the_server_would_put_it(machine, answered, tmp_path):
    champion = find_champion(connect(machine), "toy")
    coming = stream(load_spec("toy", machine.configs), None, None, 30, machine)
    rows = []
    for way in ("served", "replayed"):
        url = f"sqlite:///{tmp_path / way}.db"
        engine = connect(Settings(home=machine.home, ledger=url))
        with at(coming.arrivals[0].at):
            promote(engine, champion.version, champion.report, "tests", "the same champion")
        if way == "served":
            ids = answered([arrival.record for arrival in coming.arrivals], ledger=url)
        else:
            with at(coming.arrivals[-1].at):
                again = Clinic("toy", machine, engine, predictions.patient_key(machine.home)).answer(coming.arrivals)
        with engine.connect() as connection:
            (row,) = connection.execute(sa.select(tables.requests)).all()
        rows.append(row._asdict())
        engine.dispose()

    assert again == ids
    served, replayed = rows
    assert np.frombuffer(replayed["risks"]).tolist() == np.frombuffer(served["risks"]).tolist()
    for field in (
        "model",
        "version",
        "bundle",
        "n",
        "risks",
        "feature_digests",
        "bands",
        "features",
        "records",
        "patients",
    ):
        assert replayed[field] == served[field], field
